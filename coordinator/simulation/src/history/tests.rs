//! The replay over histories made by hand, and over those that the same scheduler made.

use super::*;
use coordinator_core::model::*;
use coordinator_core::scheduler::Trial;
use coordinator_core::state::{Command, Event, QuotaChange, State};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SECOND_US: u64 = 1_000_000;
const SINCE_US: u64 = 1_000_000 * SECOND_US;

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("a good name")
}

fn line(name: &str, gpus: u64) -> QuotaChange {
    QuotaChange {
        tenant: tenant(name),
        pool: PoolName::default_pool(),
        model: None,
        gpu_milli: Some(gpus * 1000),
        limit_milli: None,
        lend_milli: None,
    }
}

/// Nodes of eight devices, and two tenants that are guaranteed half each.
fn frame(nodes: u64) -> State {
    let mut trial = Trial::new(State::default(), SINCE_US);
    for node in 0..nodes {
        let name = NodeName::new(&format!("node-{node}")).expect("a good name");
        let devices = (0..8).map(|index| DeviceDescription {
            id: DeviceId(format!("{name}-{index}").into()),
            index,
            model: "A100-80G".to_owned(),
            memory_mib: 81_920,
            simulated: true,
            wiring: DeviceWiring::default(),
        });
        let description = NodeDescription {
            pool: PoolName::default_pool(),
            boot_id: "boot".to_owned(),
            devices: devices.collect(),
            cpu_milli: 64_000,
            memory_mib: 512_000,
            runtimes: BTreeSet::from(["process".to_owned()]),
            agent_version: "test".to_owned(),
            rack: None,
            name,
        };
        accept(
            &mut trial,
            Command::RegisterNode {
                description: Box::new(description),
            },
        );
    }
    for name in ["nlp", "vision"] {
        let tenant = tenant(name);
        accept(
            &mut trial,
            Command::CreateTenant {
                tenant,
                parent: None,
                weight: None,
            },
        );
        accept(&mut trial, Command::SetQuota(line(name, nodes * 4)));
    }
    trial.state().frame(SINCE_US)
}

fn accept(trial: &mut Trial, command: Command) {
    let events = trial.apply(command);
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Rejected { .. })),
        "{events:?}"
    );
}

/// A run of so many devices that came so many seconds after the period began, and held them so long.
fn past(id: u64, name: &str, gpus: u32, came_s: u64, stayed_s: u64) -> PastRun {
    let submitted_us = SINCE_US + came_s * SECOND_US;
    let ended_us = submitted_us + stayed_s * SECOND_US;
    PastRun {
        id: RunId(id),
        spec: WorkloadSpec {
            name: format!("run of {name}"),
            command: vec!["replayed".to_owned()],
            source_sha256: None,
            requirements_path: None,
            working_folder: None,
            environment: BTreeMap::new(),
            image: None,
            gpus: Some(gpus),
            gpu_share_milli: None,
            gpu_memory_mib: None,
            gpu_model: None,
            nodes: 1,
            cpu_milli: None,
            memory_mib: None,
            pool: Some(PoolName::default_pool()),
            tags: BTreeMap::new(),
            model: None,
            priority_class: None,
            never_preempts: false,
            priority: 0,
            time_limit_ms: None,
            retries: 0,
            start_deadline_ms: None,
            warning: None,
            tenant: Some(tenant(name)),
            preemptible: true,
            after: Vec::new(),
            spread: false,
        },
        tenant: tenant(name),
        user: UserName::new("ana").expect("a good name"),
        submitted_us,
        array: None,
        spells: vec![Spell {
            placed_us: submitted_us,
            ended_us: Some(ended_us),
            preempted: false,
        }],
        end: Some((RunOutcome::Succeeded, ended_us)),
        charge: Charge::default(),
    }
}

fn history(runs: Vec<PastRun>, length_s: u64) -> History {
    History {
        since_us: SINCE_US,
        until_us: SINCE_US + length_s * SECOND_US,
        runs,
        arrays: Vec::new(),
    }
}

fn play(history: &History, frame: State) -> Replayed {
    replay(history, frame, false, &mut |_| {})
}

/// Each run's starts, in seconds after the period began.
fn starts(replayed: &Replayed) -> Vec<Vec<u64>> {
    replayed
        .runs
        .iter()
        .map(|run| {
            run.iter()
                .flat_map(|run| &run.spells)
                .map(|spell| (spell.placed_us - SINCE_US) / SECOND_US)
                .collect()
        })
        .collect()
}

#[test]
fn a_run_waits_for_the_one_that_holds_its_devices_and_no_longer() {
    let history = history(
        vec![
            past(1, "nlp", 8, 0, 100),
            past(2, "nlp", 8, 10, 50),
            past(3, "nlp", 8, 20, 1_000),
        ],
        500,
    );
    let replayed = play(&history, frame(1));
    assert_eq!(starts(&replayed), [vec![0], vec![100], vec![150]]);
    let comparison = compare(&history, &replayed, None, 8_000);
    let figures = &comparison.total.replayed;
    assert_eq!(figures.wait_mean_us, (90 + 130) * SECOND_US / 3);
    assert_eq!(figures.wait_p95_us, 130 * SECOND_US);
    assert_eq!(comparison.total.happened.wait_mean_us, 0);
    // The last holds them to the end of the period.
    assert_eq!(figures.gpu_us, 8 * 500 * SECOND_US);
    let priced = u64::try_from(2_500_000_u128 * u128::from(figures.gpu_us) / 3_600_000_000);
    assert!(
        figures.cost_micro.abs_diff(priced.expect("a price")) <= 20,
        "{figures:?}"
    );
}

#[test]
fn other_quotas_take_devices_from_one_tenant_and_give_them_to_the_other() {
    // nlp has borrowed all of vision's half when vision comes.
    let history = history(
        vec![past(1, "nlp", 8, 0, 400), past(2, "vision", 4, 100, 50)],
        1_000,
    );
    let today = play(&history, frame(1));
    assert_eq!(starts(&today), [vec![0, 151], vec![101]], "reclaimed");
    let changes = Changes {
        lines: vec![line("nlp", 8), line("vision", 0)],
        ..Changes::default()
    };
    let proposed = propose(frame(1), &changes).expect("in another order they fit");
    let proposed = play(&history, proposed);
    assert_eq!(starts(&proposed), [vec![0], vec![400]]);
    let comparison = compare(&history, &today, Some(&proposed), 8_000);
    let nlp = &comparison.tenants[0];
    assert_eq!(nlp.replayed.preemptions, 1);
    assert_eq!(nlp.proposed.as_ref().map(|nlp| nlp.preemptions), Some(0));
}

#[test]
fn what_the_platform_would_refuse_is_refused() {
    let changes = Changes {
        lines: vec![line("nlp", 9)],
        ..Changes::default()
    };
    let refusal = propose(frame(1), &changes).expect_err("more than there is");
    assert!(
        refusal
            .message
            .contains("more than pool default can guarantee")
    );
}

#[test]
fn runs_end_as_they_ended_and_what_follows_them_follows_them_here() {
    let follower = |id, before: u64| {
        let mut run = past(id, "nlp", 1, 5, 10);
        run.spec.after = vec![format!("run-{before}").parse().expect("a dependency")];
        run
    };
    let mut failed = past(1, "nlp", 1, 0, 30);
    failed.end = Some((RunOutcome::Failed, SINCE_US + 30 * SECOND_US));
    let mut cancelled = past(2, "nlp", 1, 0, 60);
    cancelled.end = Some((RunOutcome::Cancelled, SINCE_US + 60 * SECOND_US));
    let mut withdrawn = past(3, "nlp", 8, 0, 0);
    withdrawn.spells.clear();
    withdrawn.end = Some((RunOutcome::Cancelled, SINCE_US + 20 * SECOND_US));
    let runs = vec![
        failed,
        cancelled,
        withdrawn,
        past(4, "nlp", 1, 0, 40),
        follower(5, 4),
        follower(6, 1),
        follower(7, 999),
    ];
    let replayed = play(&history(runs, 1_000), frame(1));
    let told: Vec<_> = replayed
        .runs
        .iter()
        .flatten()
        .map(|run| {
            run.end
                .clone()
                .map(|(outcome, at_us)| (outcome, (at_us - SINCE_US) / SECOND_US))
        })
        .collect();
    assert_eq!(
        told,
        [
            Some((RunOutcome::Failed, 30)),
            Some((RunOutcome::Cancelled, 60)),
            Some((RunOutcome::Cancelled, 20)),
            Some((RunOutcome::Succeeded, 40)),
            Some((RunOutcome::Succeeded, 50)),
            Some((RunOutcome::Cancelled, 30)),
            Some((RunOutcome::Succeeded, 15)),
        ]
    );
    assert_eq!(starts(&replayed)[4], [40], "once what it follows has ended");
}

#[test]
fn what_held_devices_when_the_period_began_holds_them_for_what_was_left_of_it() {
    let mut holds = past(7, "nlp", 8, 0, 0);
    holds.submitted_us = SINCE_US - 500 * SECOND_US;
    holds.spells = vec![Spell {
        placed_us: SINCE_US - 300 * SECOND_US,
        ended_us: Some(SINCE_US + 60 * SECOND_US),
        preempted: false,
    }];
    holds.end = Some((RunOutcome::Succeeded, SINCE_US + 60 * SECOND_US));
    let mut waits = past(2, "nlp", 8, 0, 0);
    waits.submitted_us = SINCE_US - 600 * SECOND_US;
    waits.spells = vec![Spell {
        placed_us: SINCE_US + 60 * SECOND_US,
        ended_us: Some(SINCE_US + 90 * SECOND_US),
        preempted: false,
    }];
    let replayed = play(&history(vec![waits, holds], 1_000), frame(1));
    assert_eq!(starts(&replayed), [vec![60], vec![0]]);
}

#[test]
fn a_whole_array_keeps_to_what_it_may_have_at_once() {
    let runs = (1..=4)
        .map(|id| PastRun {
            array: Some(ArrayId(1)),
            ..past(id, "nlp", 1, 0, 10 * id)
        })
        .collect();
    let history = History {
        arrays: vec![Array {
            id: ArrayId(1),
            tenant: tenant("nlp"),
            user: UserName::new("ana").expect("a good name"),
            size: 4,
            most_alive: Some(2),
        }],
        ..history(runs, 1_000)
    };
    let replayed = play(&history, frame(1));
    assert_eq!(starts(&replayed), [vec![0], vec![0], vec![10], vec![20]]);
}

#[test]
fn estimates_are_scored_once_like_runs_have_ended() {
    let runs = (0..40)
        .map(|nth| past(nth + 1, "nlp", 8, nth * 50, 100))
        .collect();
    let replayed = replay(&history(runs, 10_000), frame(1), true, &mut |_| {});
    let calibration = replayed.calibration.expect("it was asked for");
    let (scored, within) = calibration.scored();
    assert!(scored > 10, "{calibration:?}");
    assert_eq!(scored, within, "all last as long: {calibration:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever has come, in whatever way the scheduler stopped and moved it: a history that this
    /// very scheduler made becomes the same again.
    #[test]
    fn the_replay_of_a_history_made_by_this_scheduler_gives_the_same_starts(
        came in prop::collection::vec((any::<bool>(), 1_u32..=8, 0_u64..2_000, 1_u64..600), 1..40),
        nodes in 1_u64..4,
    ) {
        let mut came = came;
        came.sort_by_key(|(_, _, came_s, _)| *came_s);
        let runs = (1..).zip(&came).map(|(id, (is_nlp, gpus, came_s, stayed_s))| {
            past(id, if *is_nlp { "nlp" } else { "vision" }, *gpus, *came_s, *stayed_s)
        });
        let made = play(&history(runs.collect(), 3_000), frame(nodes));
        let again = History {
            runs: made.runs.iter().flatten().cloned().collect(),
            ..history(Vec::new(), 3_000)
        };
        let replayed = play(&again, frame(nodes));
        prop_assert_eq!(starts(&made), starts(&replayed));
        let comparison = compare(&again, &replayed, None, nodes * 8_000);
        prop_assert_eq!(
            comparison.total.happened.wait_mean_us,
            comparison.total.replayed.wait_mean_us
        );
    }
}
