//! What a submit may ask, and how each refusal says what was given, what is allowed, what to do.

use crate::fixtures::*;
use crate::model::{TagMode, Warning, WarningSignal, WorkloadSpec};
use crate::policy::{Refusal, RefusalKind};
use crate::state::{Command, Event, QuotaChange};
use std::collections::BTreeMap;

fn world() -> World {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G"), ("node-2", "2xT4-16G")]);
    let mut cpu = describe("node-3", "cpu", "");
    cpu.cpu_milli = 8_000;
    world.join(cpu);
    world
}

fn warning(before_ms: u64) -> Warning {
    Warning {
        before_ms,
        signal: WarningSignal::User1,
    }
}

fn refusal(change: impl FnOnce(&mut WorkloadSpec)) -> Refusal {
    let mut spec = spec();
    change(&mut spec);
    let refusal = world().refuse(submit(spec));
    let first = refusal.message.chars().next().expect("a message");
    assert!(
        !first.is_uppercase() || refusal.message.starts_with("GPU"),
        "{}",
        refusal.message
    );
    assert!(!refusal.message.ends_with('.'), "{}", refusal.message);
    refusal
}

#[test]
fn malformed_specs_are_invalid_and_name_what_was_given() {
    type Change = fn(&mut WorkloadSpec);
    let table: &[(Change, &str)] = &[
        (|s| s.name = String::new(), "run name \"\""),
        (|s| s.name = "a\u{1b}[31m".to_owned(), "run name"),
        (|s| s.name = "a".repeat(129), "run name"),
        (|s| s.command = vec![], "the command is empty"),
        (|s| s.command = vec![String::new()], "the command is empty"),
        (|s| s.command.push("a\0b".to_owned()), "NUL"),
        (|s| s.command.push("a".repeat(300 * 1024)), "bytes"),
        (|s| s.command = vec!["a".to_owned(); 300 * 1024], "bytes"),
        (|s| s.image = Some("i".repeat(300 * 1024)), "bytes"),
        (|s| s.image = Some(String::new()), "image \"\""),
        (
            |s| s.image = Some("--privileged".to_owned()),
            "image \"--privileged\"",
        ),
        (|s| s.image = Some("a b".to_owned()), "image \"a b\""),
        (
            |s| drop(s.environment.insert(String::new(), "x".to_owned())),
            "environment variable \"\"",
        ),
        (
            |s| drop(s.environment.insert("1A".to_owned(), "x".to_owned())),
            "\"1A\"",
        ),
        (
            |s| drop(s.environment.insert("A=B".to_owned(), "x".to_owned())),
            "\"A=B\"",
        ),
        (
            |s| drop(s.environment.insert("A".to_owned(), "\0".to_owned())),
            "\"A\"",
        ),
        (
            |s| (s.gpus, s.gpu_share_milli) = (Some(1), Some(500)),
            "both whole GPUs and a fraction",
        ),
        (|s| s.gpu_share_milli = Some(0), "0 thousandths"),
        (|s| s.gpu_share_milli = Some(1000), "1000 thousandths"),
        (|s| s.nodes = 0, "0 nodes"),
        (|s| s.nodes = u32::MAX, "4294967295 nodes"),
        (|s| s.retries = 101, "101 retries"),
        (|s| s.priority = 101, "priority 101"),
        (|s| s.priority = i32::MIN, "priority -2147483648"),
        (|s| s.time_limit_ms = Some(0), "time limit of 0"),
        (|s| s.warning = Some(warning(1_000)), "and no time limit"),
        (
            |s| (s.time_limit_ms, s.warning) = (Some(60_000), Some(warning(60_000))),
            "a warning 60 s before a time limit of 60 s",
        ),
        (|s| s.start_deadline_ms = Some(0), "start deadline of 0"),
        (|s| s.gpu_memory_mib = Some(0), "cap of 0"),
        (|s| s.source_sha256 = Some("A".repeat(64)), "not a SHA-256"),
        (
            |s| s.source_sha256 = Some("../etc".to_owned()),
            "not a SHA-256",
        ),
        (
            |s| s.requirements_path = Some("../requirements.txt".to_owned()),
            "leaves the working folder",
        ),
        (
            |s| s.requirements_path = Some("/etc/passwd".to_owned()),
            "leaves the working folder",
        ),
        (
            |s| s.working_folder = Some("a/../../b".to_owned()),
            "leaves the working folder",
        ),
        (
            |s| s.working_folder = Some(String::new()),
            "leaves the working folder",
        ),
        (|s| s.model = Some("Bert".to_owned()), "model \"Bert\""),
        (
            |s| drop(s.tags.insert("Team Name".to_owned(), "x".to_owned())),
            "tag key \"Team Name\"",
        ),
        (
            |s| drop(s.tags.insert("team".to_owned(), String::new())),
            "tag team=\"\"",
        ),
        (
            |s| drop(s.tags.insert("team".to_owned(), "a\nb".to_owned())),
            "tag team=",
        ),
        (
            |s| (s.gpus, s.gpu_memory_mib) = (Some(0), Some(1)),
            "but no GPU",
        ),
        (
            |s| (s.gpus, s.gpu_model) = (Some(0), Some("T4-16G".to_owned())),
            "but no GPU",
        ),
    ];
    for (change, expected) in table {
        let refusal = refusal(change);
        assert_eq!(refusal.kind, RefusalKind::Invalid, "{refusal:?}");
        assert!(
            refusal.message.contains(expected),
            "{refusal:?} / {expected}"
        );
    }
}

#[test]
fn what_the_platform_sets_itself_is_refused() {
    let refusal = refusal(|s| {
        drop(
            s.environment
                .insert("PLATFORM_RUN_ID".to_owned(), "x".to_owned()),
        )
    });
    assert_eq!(refusal.kind, RefusalKind::Refused);
    assert!(refusal.message.contains("PLATFORM_RUN_ID"));
}

#[test]
fn unknown_pools_tenants_and_models_are_named_with_what_there_is() {
    let pool = refusal(|s| s.pool = Some(pool_name("gold")));
    assert_eq!(pool.kind, RefusalKind::NotFound);
    assert_eq!(pool.message, "pool \"gold\" does not exist");
    assert_eq!(pool.allowed.as_deref(), Some("cpu, default"));

    let tenant = refusal(|s| s.tenant = Some(tenant_name("acme")));
    assert_eq!(tenant.kind, RefusalKind::NotFound);
    assert_eq!(tenant.message, "tenant \"acme\" does not exist");
    assert_eq!(tenant.allowed.as_deref(), Some("default"));

    let model = refusal(|s| s.gpu_model = Some("B200".to_owned()));
    assert_eq!(model.kind, RefusalKind::Refused);
    assert_eq!(model.message, "GPU model \"B200\" is not in pool default");
    assert_eq!(model.allowed.as_deref(), Some("A100-80G, T4-16G"));
}

#[test]
fn a_pool_without_nodes_says_which_pools_have_some() {
    let mut world = world();
    world.accept(Command::SetPool {
        pool: pool_name("empty"),
        description: None,
        order: None,
        age_bound_ms: None,
        must_exist: Some(false),
    });
    let refusal = world.refuse(submit(WorkloadSpec {
        pool: Some(pool_name("empty")),
        ..spec()
    }));
    assert_eq!(refusal.message, "pool empty has no nodes");
    assert_eq!(refusal.allowed.as_deref(), Some("cpu, default"));
}

#[test]
fn what_no_node_could_ever_hold_is_refused_with_the_largest_that_would_fit() {
    type Change = fn(&mut WorkloadSpec);
    let table: &[(Change, &str, &str)] = &[
        (|s| s.gpus = Some(5), "5 GPUs on one node", "up to --gpus 4"),
        (
            |s| (s.gpus, s.gpu_model) = (Some(3), Some("T4-16G".to_owned())),
            "3 GPUs on one node",
            "up to --gpus 2",
        ),
        (
            |s| (s.gpus, s.gpu_memory_mib) = (Some(3), Some(20_000)),
            "at most",
            "",
        ),
        (
            |s| (s.gpus, s.nodes) = (Some(1), 3),
            "3 nodes",
            "up to --nodes 2",
        ),
        (
            |s| (s.gpus, s.nodes) = (Some(3), 2),
            "2 nodes",
            "up to --nodes 1",
        ),
        (
            |s| s.gpu_memory_mib = Some(81_921),
            "81921 MiB",
            "up to --gpu-memory 81920M",
        ),
        (
            |s| (s.gpu_memory_mib, s.gpu_model) = (Some(16_385), Some("T4-16G".to_owned())),
            "16385 MiB",
            "up to --gpu-memory 16384M",
        ),
        (
            |s| s.cpu_milli = Some(64_001),
            "64.001 CPUs",
            "up to --cpus 64",
        ),
        (|s| s.cpu_milli = Some(u64::MAX), "CPUs", "up to --cpus 64"),
        (
            |s| s.memory_mib = Some(u64::MAX),
            "MiB of memory",
            "up to --memory 524288M",
        ),
        (
            |s| s.gpus = Some(u32::MAX),
            "GPUs on one node",
            "up to --gpus 4",
        ),
        (
            |s| (s.pool, s.gpus) = (Some(pool_name("cpu")), Some(1)),
            "pool cpu has no GPUs",
            "--gpus 0",
        ),
        (
            |s| s.image = Some("python:3.12".to_owned()),
            "docker runtime",
            "",
        ),
    ];
    for (change, message, allowed) in table {
        if *message == "at most" {
            // Three large GPUs exist on one node: this one is admitted.
            let mut large = spec();
            change(&mut large);
            world().submit(large);
            continue;
        }
        let refusal = refusal(change);
        assert_eq!(refusal.kind, RefusalKind::Refused, "{refusal:?}");
        assert!(refusal.message.contains(message), "{refusal:?} / {message}");
        assert_eq!(
            refusal.allowed.as_deref().unwrap_or(""),
            *allowed,
            "{refusal:?}"
        );
    }
}

#[test]
fn a_cordoned_node_still_counts_for_what_could_ever_fit() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.accept(Command::Cordon {
        node: node_name("node-1"),
        reason: "a new driver".to_owned(),
    });
    world.submit(gpus(4));
}

#[test]
fn defaults_are_one_gpu_where_there_are_some_and_none_elsewhere() {
    let mut world = world();
    let run = world.submit(spec());
    assert_eq!(world.run(run).spec.gpus, Some(1));
    assert_eq!(world.run(run).spec.pool, Some(pool_name("default")));
    assert_eq!(world.run(run).spec.tenant, Some(tenant_name("default")));
    let run = world.submit(WorkloadSpec {
        pool: Some(pool_name("cpu")),
        ..spec()
    });
    assert_eq!(world.run(run).spec.gpus, Some(0));
}

#[test]
fn missing_tags_name_the_keys_the_allowed_values_and_the_exact_flags() {
    let mut world = world();
    world.set_policy(|policy| {
        policy.required_tags = BTreeMap::from([
            ("project".to_owned(), vec![]),
            (
                "team".to_owned(),
                vec!["nlp".to_owned(), "vision".to_owned()],
            ),
        ]);
    });
    let bare = WorkloadSpec {
        tags: BTreeMap::new(),
        ..spec()
    };
    let refusal = world.refuse(submit(bare.clone()));
    assert_eq!(refusal.kind, RefusalKind::Refused);
    assert_eq!(refusal.message, "required cost tags missing: project, team");
    assert_eq!(
        refusal.allowed.as_deref(),
        Some("project=any value; team=nlp|vision")
    );
    assert_eq!(
        refusal.hint.as_deref(),
        Some("add --tag project=VALUE --tag team=nlp")
    );

    let wrong = WorkloadSpec {
        tags: BTreeMap::from([
            ("project".to_owned(), "x".to_owned()),
            ("team".to_owned(), "sales".to_owned()),
        ]),
        ..spec()
    };
    let refusal = world.refuse(submit(wrong));
    assert_eq!(
        refusal.message,
        "cost tag team=sales is not an allowed value"
    );
    assert_eq!(refusal.allowed.as_deref(), Some("team=nlp|vision"));
    assert_eq!(refusal.hint.as_deref(), Some("use --tag team=nlp"));

    world.set_policy(|policy| policy.tag_mode = TagMode::Warn);
    match world.accept(submit(bare.clone())).as_slice() {
        [Event::RunQueued { warnings, .. }] => {
            assert_eq!(
                warnings,
                &[
                    "required cost tags missing: project, team; add --tag project=VALUE --tag team=nlp"
                ]
            );
        }
        events => panic!("{events:?}"),
    }
    world.set_policy(|policy| policy.tag_mode = TagMode::Off);
    match world.accept(submit(bare)).as_slice() {
        [Event::RunQueued { warnings, .. }] => assert!(warnings.is_empty()),
        events => panic!("{events:?}"),
    }
}

#[test]
fn the_first_policy_wants_a_team() {
    let refusal = refusal(|s| s.tags.clear());
    assert_eq!(refusal.message, "required cost tag missing: team");
    assert_eq!(refusal.hint.as_deref(), Some("add --tag team=VALUE"));
}

#[test]
fn more_than_the_whole_quota_is_refused_and_less_waits() {
    let mut world = world();
    world.accept(Command::SetQuota(QuotaChange {
        tenant: tenant_name("default"),
        pool: pool_name("default"),
        model: None,
        gpu_milli: Some(1_500),
        limit_milli: Some(1_500),
        lend_milli: None,
    }));
    let refusal = world.refuse(submit(gpus(2)));
    assert_eq!(
        refusal.message,
        "2 GPUs are asked for, and tenant default has a limit of 1.5 in pool default"
    );
    assert_eq!(refusal.allowed.as_deref(), Some("up to 1.5 GPUs"));
    assert!(
        refusal
            .hint
            .expect("a hint")
            .contains("platform quotas set default")
    );
    world.refuse(submit(gang(2)));
    world.submit(gpus(1));
    world.submit(gpus(1));
    assert_eq!(world.plan_and_place().len(), 1);
}

fn with_caps() -> World {
    let mut world = world();
    world.set_policy(|policy| {
        policy.gpu_memory_caps_mib = BTreeMap::from([
            ("bert*".to_owned(), 20_480),
            ("bert-tiny".to_owned(), 1_024),
        ]);
    });
    world
}

fn for_model(model: &str, spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec {
        model: Some(model.to_owned()),
        ..spec
    }
}

#[test]
fn a_model_may_not_ask_for_more_than_its_cap() {
    let mut world = with_caps();
    let asking = |memory| WorkloadSpec {
        gpu_memory_mib: Some(memory),
        ..for_model("bert-base", gpus(1))
    };
    let refusal = world.refuse(submit(asking(20_481)));
    assert_eq!(
        refusal.message,
        "model bert-base may use at most 20480 MiB of each GPU, and 20481 MiB are asked for"
    );
    assert_eq!(refusal.hint.as_deref(), Some("add --gpu-memory 20480M"));
    world.submit(asking(20_480));
}

#[test]
fn a_model_that_asks_for_nothing_is_given_no_more_than_its_cap() {
    let mut world = with_caps();
    let run = world.submit(for_model("bert-tiny", gpus(1)));
    assert_eq!(world.run(run).spec.gpu_memory_mib, Some(1_024));
    // A quarter of an A100 is 20 GiB, which is within the cap: nothing is filled in.
    let run = world.submit(for_model("bert-base", share(250)));
    assert_eq!(world.run(run).spec.gpu_memory_mib, None);
    let run = world.submit(for_model("gpt", gpus(1)));
    assert_eq!(world.run(run).spec.gpu_memory_mib, None);
}

#[test]
fn a_cap_above_the_model_of_gpu_asked_for_does_not_get_in_the_way() {
    let mut world = with_caps();
    // The whole of a T4 is 16 GiB, below the cap of 20: the A100s of the pool do not matter.
    let run = world.submit(WorkloadSpec {
        gpu_model: Some("T4-16G".to_owned()),
        ..for_model("bert-base", gpus(1))
    });
    assert_eq!(world.run(run).spec.gpu_memory_mib, None);
}

#[test]
fn a_larger_gpu_that_joins_later_gives_a_model_no_more_than_its_cap() {
    let mut world = World::with_nodes(&[("node-1", "T4-16G")]);
    world.set_policy(|policy| {
        policy.gpu_memory_caps_mib = BTreeMap::from([("*".to_owned(), 20_480)]);
    });
    let run = world.submit(for_model("bert-base", gpus(1)));
    world.join(describe("node-2", "default", "A100-80G"));
    world.place_on(run, &[("node-2", &[0])]);
    assert_eq!(world.attempt(run).members[0].devices[0].memory_mib, 20_480);
}

#[test]
fn a_cap_lowered_while_a_run_waits_holds_when_it_starts() {
    let mut world = with_caps();
    let run = world.submit(for_model("bert-base", gpus(1)));
    world.set_policy(|policy| {
        policy
            .gpu_memory_caps_mib
            .insert("bert*".to_owned(), 10_240);
    });
    world.plan_and_place();
    assert_eq!(world.attempt(run).members[0].devices[0].memory_mib, 10_240);
}

#[test]
fn every_field_that_a_default_filled_in_is_named() {
    let world = world();
    let around = world
        .state
        .surroundings(&tenant_name("default"))
        .expect("the first tenant");
    let admitted = crate::policy::resolve(around, spec()).expect("admitted");
    assert_eq!(admitted.defaulted, ["pool", "gpus"]);
    assert!(admitted.warnings.is_empty());
}
