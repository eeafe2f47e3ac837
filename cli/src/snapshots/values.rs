//! The fixed values that whole outputs are made of.

use platform_proto::http::*;

/// 2026-11-23 10:00:00 UTC.
pub const NOW_US: u64 = 1_795_428_000_000_000;
const MINUTE_US: u64 = 60_000_000;

pub fn spec() -> RunSpec {
    RunSpec {
        name: "train-digits".to_owned(),
        command: ["python", "train.py", "--note", "two words"]
            .map(str::to_owned)
            .to_vec(),
        source_sha256: Some("ab".repeat(32)),
        requirements_path: Some("requirements.txt".to_owned()),
        gpus: Some(2),
        gpu_memory_mib: Some(20480),
        gpu_model: Some("A100-80G".to_owned()),
        nodes: 1,
        memory_mib: Some(16384),
        cpu_milli: Some(4000),
        pool: Some("default".to_owned()),
        tags: [
            ("team".to_owned(), "nlp".to_owned()),
            ("project".to_owned(), "digits".to_owned()),
        ]
        .into(),
        model: Some("digits".to_owned()),
        time_limit_ms: Some(7_200_000),
        tenant: Some("default".to_owned()),
        ..RunSpec::default()
    }
}

pub fn grant() -> GrantView {
    GrantView {
        device: "GPU-1".to_owned(),
        index: 3,
        model: "A100-80G".to_owned(),
        share_milli: 500,
        memory_mib: 20480,
        simulated: true,
    }
}

pub fn run() -> RunView {
    RunView {
        id: "run-17".to_owned(),
        spec: spec(),
        tenant: "default".to_owned(),
        user: "ada".to_owned(),
        state: "succeeded".to_owned(),
        detail: None,
        submitted_us: NOW_US - 12 * MINUTE_US,
        started_us: Some(NOW_US - 11 * MINUTE_US),
        ended_us: Some(NOW_US - MINUTE_US),
        exit_code: Some(0),
        client_exit_code: Some(0),
        element: None,
        attempts: vec![AttemptView {
            number: 1,
            epoch: 4,
            state: "ended".to_owned(),
            placed_us: NOW_US - 12 * MINUTE_US,
            started_us: Some(NOW_US - 11 * MINUTE_US),
            ended_us: Some(NOW_US - MINUTE_US),
            checkpointed_us: Some(NOW_US - 3 * MINUTE_US),
            end: Some("exited with 0".to_owned()),
            members: vec![MemberView {
                node: "node-7".to_owned(),
                state: "ended".to_owned(),
                devices: vec![grant()],
                enforcement: Some("GPU memory is a cap by agreement, not enforced".to_owned()),
            }],
        }],
        cost_micro: 833_333,
        gpu_us: 1_200_000_000,
        currency: "EUR".to_owned(),
        simulated: true,
        idle: None,
        justification: None,
    }
}

pub fn waiting() -> RunView {
    RunView {
        id: "run-18".to_owned(),
        spec: RunSpec {
            gpus: None,
            gpu_share_milli: Some(250),
            gpu_memory_mib: None,
            gpu_model: None,
            nodes: 2,
            ..spec()
        },
        state: "queued".to_owned(),
        detail: Some("waits for capacity".to_owned()),
        started_us: None,
        ended_us: None,
        exit_code: None,
        client_exit_code: None,
        attempts: Vec::new(),
        cost_micro: 0,
        gpu_us: 0,
        simulated: false,
        ..run()
    }
}

pub fn array() -> ArrayView {
    ArrayView {
        id: "array-20".to_owned(),
        spec: spec(),
        tenant: "default".to_owned(),
        user: "ada".to_owned(),
        state: "running".to_owned(),
        size: 100,
        most_alive: Some(8),
        held: 50,
        queued: 2,
        alive: 6,
        succeeded: 40,
        failed: 1,
        cancelled: 1,
        submitted_us: NOW_US - 12 * MINUTE_US,
        ended_us: None,
        client_exit_code: None,
        cost_micro: 12_000_000,
        gpu_us: 7_200_000_000,
        currency: "EUR".to_owned(),
    }
}

pub fn element() -> RunView {
    RunView {
        id: "run-23".to_owned(),
        element: Some(ElementView {
            array: "array-20".to_owned(),
            index: 3,
            size: 100,
            parameters: [
                ("lr".to_owned(), serde_json::json!(0.01)),
                ("kind".to_owned(), serde_json::json!("svm")),
            ]
            .into(),
        }),
        ..run()
    }
}

pub fn tracked() -> TrackedRun {
    let latest = |value, step| MetricLatest {
        step,
        value,
        count: 10,
    };
    TrackedRun {
        run: "run-17".to_owned(),
        name: "train-digits".to_owned(),
        parent: None,
        status: "finished".to_owned(),
        user: "ada".to_owned(),
        started_us: NOW_US - 11 * MINUTE_US,
        ended_us: Some(NOW_US - MINUTE_US),
        error: None,
        tags: spec().tags,
        params: [
            ("lr".to_owned(), serde_json::json!(0.001)),
            ("kind".to_owned(), serde_json::json!("svm")),
        ]
        .into(),
        metrics: [
            ("accuracy".to_owned(), latest(0.973, 10)),
            ("loss".to_owned(), latest(f64::NAN, 10)),
            ("system/cpu_percent".to_owned(), latest(93.0, 40)),
        ]
        .into(),
        artifacts: vec![ArtifactView {
            path: "plots/loss.png".to_owned(),
            sha256: "cd".repeat(32),
            size_bytes: 20_480,
        }],
        models: vec![version()],
        progress: Some(Progress {
            done: 10,
            total: 10,
        }),
    }
}

pub fn version() -> ModelVersionView {
    ModelVersionView {
        name: "digits".to_owned(),
        version: 3,
        run: "run-17".to_owned(),
        framework: "scikit-learn".to_owned(),
        created_us: NOW_US - MINUTE_US,
        manifest: serde_json::json!({}),
        files: vec![ArtifactView {
            path: "model.skops".to_owned(),
            sha256: "ef".repeat(32),
            size_bytes: 3_000_000,
        }],
    }
}

pub fn node() -> NodeView {
    let device = |index: u32| DeviceView {
        id: format!("sim-{index}"),
        index,
        model: "A100-80G".to_owned(),
        memory_mib: 81920,
        memory_allocated_mib: if index == 0 { 20480 } else { 0 },
        share_allocated_milli: if index == 0 { 500 } else { 0 },
        simulated: true,
        runs: if index == 0 {
            vec!["run-17".to_owned()]
        } else {
            Vec::new()
        },
        nvlink_island: Some(0),
        pcie_switch: Some(index),
        numa_node: Some(0),
        utilization_percent: None,
        memory_used_mib: None,
    };
    NodeView {
        name: "node-7".to_owned(),
        pool: "default".to_owned(),
        rack: Some("r12".to_owned()),
        state: "draining".to_owned(),
        reason: Some("new driver".to_owned()),
        devices: vec![device(0), device(1)],
        cpu_milli: 16000,
        cpu_reserved_milli: 4000,
        memory_mib: 64_000,
        memory_reserved_mib: 16384,
        runs: vec!["run-17".to_owned()],
        agent_version: "0.1.0".to_owned(),
        runtimes: vec!["process".to_owned(), "docker".to_owned()],
        heard_ago_ms: Some(800),
        off_platform: vec!["ada: python (pid 41) on GPU 1".to_owned()],
        simulated: true,
    }
}

pub fn quota() -> QuotaView {
    QuotaView {
        tenant: "nlp".to_owned(),
        pool: "default".to_owned(),
        model: None,
        gpu_milli: Some(8000),
        limit_milli: Some(12_000),
        lend_milli: None,
        used_milli: 2500,
        recent_milli: 1750,
        borrowed_milli: 0,
        lent_milli: 1500,
        waiting_milli: 0,
        preempts: Vec::new(),
    }
}

pub fn preempted() -> PreemptedView {
    PreemptedView {
        run: "run-17".to_owned(),
        name: "train-digits".to_owned(),
        tenant: "guests".to_owned(),
        claimant: "run-21".to_owned(),
        claimant_tenant: "nlp".to_owned(),
    }
}

pub fn policy() -> PolicyView {
    PolicyView {
        version: 3,
        required_tags: [(
            "team".to_owned(),
            TagRule {
                allowed: vec!["nlp".to_owned(), "vision".to_owned()],
            },
        )]
        .into(),
        tag_mode: "enforce".to_owned(),
        gpu_memory_caps_mib: [("bert*".to_owned(), 20480)].into(),
        gpu_memory_cap_sums_mib: [("bert*".to_owned(), 163_840)].into(),
        gpu_hour_price_micro: [("A100-80G".to_owned(), 2_500_000)].into(),
        default_gpu_hour_price_micro: 1_000_000,
        scheduled_prices: vec![ScheduledPriceView {
            from_us: 1_798_761_600_000_000,
            gpu_model: "A100-80G".to_owned(),
            price_micro: 2_750_000,
        }],
        currency: "EUR".to_owned(),
        minimum_run_ms: 30_000,
        fair_share_half_life_ms: 86_400_000,
        reservation_after_ms: 300_000,
        retry_wait_ms: 5_000,
        retry_wait_longest_ms: 300_000,
        priority_classes: Some(crate::priorities::examples()),
        idle_below_percent: 5,
        idle_warn_after_ms: Some(1_800_000),
        idle_stop_after_ms: Some(7_200_000),
        longest_justification_ms: 86_400_000,
    }
}

pub fn budget() -> BudgetView {
    BudgetView {
        name: "nlp-month".to_owned(),
        tenant: Some("nlp".to_owned()),
        tag: None,
        amount_micro: 5_000_000_000,
        currency: "EUR".to_owned(),
        period: "month".to_owned(),
        warn_at_percent: 80,
        stop: true,
        state: "warned".to_owned(),
        // November 2026.
        period_start_us: 1_793_491_200_000_000,
        period_end_us: Some(1_796_083_200_000_000),
        spent_micro: 4_200_000_000,
        rate_micro_per_hour: 20_000_000,
        projected_micro: Some(7_840_000_000),
        reached_us: Some(1_795_600_800_000_000),
        holds_back: Vec::new(),
    }
}

pub fn tag_budget() -> BudgetView {
    BudgetView {
        name: "atlas".to_owned(),
        tenant: None,
        tag: Some(BudgetTag {
            key: "project".to_owned(),
            value: "atlas".to_owned(),
        }),
        period: "once".to_owned(),
        stop: false,
        state: "spent".to_owned(),
        period_end_us: None,
        spent_micro: 5_100_000_000,
        projected_micro: None,
        reached_us: None,
        holds_back: vec!["run-7".to_owned(), "run-9".to_owned()],
        ..budget()
    }
}

pub fn cost() -> CostReport {
    let row = |key: &str, cost_micro| CostRow {
        key: key.to_owned(),
        runs: 2,
        gpu_us: 5_400_000_000,
        cost_micro,
    };
    CostReport {
        by: "team".to_owned(),
        since_us: NOW_US - 7 * 86_400_000_000,
        until_us: NOW_US,
        rows: vec![row("nlp", 3_750_000), row("=cmd,\"x\"", 120), row("", 0)],
        total: row("", 3_750_120),
        rates: vec![
            CostRate {
                gpu_model: "A100-80G".to_owned(),
                price_micro: 2_500_000,
                gpu_us: 3_600_000_000,
                cost_micro: 2_500_000,
            },
            CostRate {
                gpu_model: "A100-80G".to_owned(),
                price_micro: 2_750_000,
                gpu_us: 1_800_000_000,
                cost_micro: 1_375_000,
            },
        ],
        currency: "EUR".to_owned(),
        simulated: true,
    }
}

pub fn planned() -> SubmitResponse {
    SubmitResponse {
        array: None,
        elements: None,
        run: None,
        spec: spec(),
        defaulted: vec!["pool".to_owned(), "tenant".to_owned()],
        price_per_hour_micro: 5_000_000,
        price_at_most: false,
        currency: "EUR".to_owned(),
        queue_ahead: 2,
        starts_now: false,
        waits_because: Some("all 8 GPUs of the pool are taken".to_owned()),
        budgets: vec![budget()],
        warnings: vec!["tag `project` is not in the list".to_owned()],
        simulated: true,
        reasons: vec!["1 of 1 nodes: GPUs exhausted".to_owned()],
        outlook: None,
    }
}

pub fn outlook() -> OutlookView {
    OutlookView {
        position: Some(PositionView {
            ahead: 1,
            waiting: 4,
            turn: 2,
            turns: 3,
            why: Some("ads goes first: ads holds 1, and nlp holds 2".to_owned()),
        }),
        holders: vec![
            HolderView {
                run: "run-9".to_owned(),
                tenant: "vision".to_owned(),
                held_milli: 1_000,
                stopping: true,
                until_us: None,
                limit_us: None,
            },
            HolderView {
                run: "run-12".to_owned(),
                tenant: "vision".to_owned(),
                held_milli: 4_000,
                stopping: false,
                until_us: Some(NOW_US + 5_400_000_000),
                limit_us: None,
            },
            HolderView {
                run: "run-14".to_owned(),
                tenant: "nlp".to_owned(),
                held_milli: 500,
                stopping: false,
                until_us: None,
                limit_us: Some(7_200_000_000),
            },
            HolderView {
                run: "run-13".to_owned(),
                tenant: "ads".to_owned(),
                held_milli: 2_000,
                stopping: false,
                until_us: None,
                limit_us: None,
            },
        ],
        more_holders: 7,
        gives_way: Some(GivesWayView {
            runs: vec!["run-13".to_owned()],
            at_us: NOW_US + 20_000_000,
        }),
        start: Some(StartView {
            earliest_us: NOW_US + 1_200_000_000,
            latest_us: NOW_US + 5_400_000_000,
        }),
        starts_now: false,
        changes: vec![
            ChangeView {
                flags: "--gpu-model T4-16G".to_owned(),
                words: "instead of A100-80G".to_owned(),
                gives_way: Vec::new(),
            },
            ChangeView {
                flags: "--gpus 3".to_owned(),
                words: "1 GPU less".to_owned(),
                gives_way: Vec::new(),
            },
            ChangeView {
                flags: "--priority 1".to_owned(),
                words: "ahead of other runs of its tenant".to_owned(),
                gives_way: vec!["run-14".to_owned()],
            },
        ],
    }
}
