//! Stories of one node, told to the core step by step, and properties that hold in every story.

use agent_core::{
    Action, Assignment, Core, Desired, End, Exit, Intent, Key, MemberReport, Now, Observation,
    Signal, State, StopCause, Warning, WarningSignal, Workload,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SECOND: u64 = 1_000_000;

fn key(run: u64) -> Key {
    Key {
        run,
        attempt: 1,
        member: 0,
    }
}

fn at(us: u64) -> Now {
    Now {
        boottime_us: us,
        wall_us: us,
    }
}

fn assignment(run: u64) -> Assignment {
    Assignment {
        key: key(run),
        epoch: 5,
        intent: Intent::Run,
        stop_reason: String::new(),
        grace_ms: 10_000,
        workload: Workload {
            command: vec!["true".into()],
            ..Workload::default()
        },
        devices: Vec::new(),
        member_count: 1,
        member_nodes: Vec::new(),
        fence: false,
        cpu_milli: 0,
        memory_mib: 0,
    }
}

fn wish(upsert: Vec<Assignment>) -> Desired {
    Desired {
        upsert,
        session_epoch: 1,
        ..Desired::default()
    }
}

fn started(us: u64) -> Observation {
    Observation::Running {
        started_boottime_us: us,
        at_us: us,
    }
}

fn exited(code: i32) -> Observation {
    Observation::Ended {
        exit: Exit::Exited { code },
        at_us: 9,
    }
}

fn signals(actions: &[Action]) -> Vec<Signal> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Signal { signal, .. } => Some(*signal),
            _ => None,
        })
        .collect()
}

/// A core with one member that runs since `us`.
fn running(assignment: Assignment, us: u64) -> Core {
    let mut core = Core::default();
    core.welcomed(1, 20_000, us).unwrap();
    let key = assignment.key;
    assert_eq!(
        core.desired(wish(vec![assignment]), at(us)).unwrap(),
        vec![Action::Prepare(key)]
    );
    assert_eq!(
        core.observe(key, Observation::Prepared, at(us)),
        vec![Action::Start(key)]
    );
    assert_eq!(core.observe(key, started(us), at(us)), vec![]);
    core
}

fn report(core: &mut Core, us: u64) -> Option<MemberReport> {
    core.next_report(at(us))
        .and_then(|(_, members)| members.into_iter().find(|report| report.key == key(1)))
}

#[test]
fn a_warning_comes_once_that_long_before_the_limit_and_not_to_what_is_stopping() {
    let warned = |actions: &[Action]| {
        actions
            .iter()
            .filter(|action| matches!(action, Action::Warn { .. }))
            .count()
    };
    let mut asked = assignment(1);
    asked.workload.time_limit_ms = 60_000;
    asked.workload.warning = Some(Warning {
        before_ms: 20_000,
        signal: WarningSignal::User2,
    });
    let mut core = running(asked.clone(), SECOND);
    assert_eq!(core.next_wake_us(), Some(41 * SECOND));
    assert_eq!(core.tick(at(41 * SECOND - 1)), vec![]);
    assert_eq!(
        core.tick(at(41 * SECOND)),
        vec![Action::Warn {
            key: key(1),
            signal: WarningSignal::User2
        }]
    );
    assert_eq!(warned(&core.tick(at(50 * SECOND))), 0);
    assert_eq!(
        signals(&core.tick(at(61 * SECOND))),
        vec![Signal::Terminate]
    );

    // Told to stop before the warning was due: the stop is the last word.
    let mut core = running(asked.clone(), SECOND);
    let mut stop = asked.clone();
    stop.intent = Intent::Stop;
    core.desired(wish(vec![stop]), at(30 * SECOND)).unwrap();
    assert_eq!(warned(&core.tick(at(41 * SECOND))), 0);

    // Nobody asked, or there is no limit to warn of.
    let mut silent = asked.clone();
    silent.workload.warning = None;
    let mut unlimited = asked;
    unlimited.workload.time_limit_ms = 0;
    for assignment in [silent, unlimited] {
        let mut core = running(assignment, SECOND);
        assert_eq!(warned(&core.tick(at(59 * SECOND))), 0);
    }
}

#[test]
fn a_run_is_prepared_started_reported_and_forgotten_only_when_told() {
    let mut core = running(assignment(1), 10);
    assert_eq!(report(&mut core, 11).unwrap().state, State::Running);
    assert_eq!(
        core.observe(key(1), exited(3), at(20)),
        vec![Action::Ended(key(1))]
    );
    let ended = report(&mut core, 21).unwrap();
    assert_eq!(ended.end, Some(End::Exited { code: 3 }));
    let retire = Desired {
        retire: vec![key(1)],
        session_epoch: 1,
        ..Desired::default()
    };
    assert_eq!(
        core.desired(retire, at(30)).unwrap(),
        vec![Action::Retire(key(1))]
    );
    assert_eq!(core.keys().count(), 0);
}

#[test]
fn asked_twice_it_starts_once_also_after_it_ended_and_was_retired() {
    let mut core = running(assignment(1), 10);
    assert_eq!(
        core.desired(wish(vec![assignment(1)]), at(11)).unwrap(),
        vec![]
    );
    core.observe(key(1), exited(0), at(12));
    assert_eq!(
        core.desired(wish(vec![assignment(1)]), at(13)).unwrap(),
        vec![]
    );
    let retire = Desired {
        retire: vec![key(1)],
        session_epoch: 1,
        ..Desired::default()
    };
    core.desired(retire, at(14)).unwrap();
    assert_eq!(
        core.desired(wish(vec![assignment(1)]), at(15)).unwrap(),
        vec![]
    );
}

#[test]
fn an_end_is_reported_until_it_is_acknowledged_and_again_on_a_new_session() {
    let mut core = running(assignment(1), 10);
    core.observe(key(1), exited(0), at(12));
    let (first, _) = core.next_report(at(13)).unwrap();
    assert_eq!(core.next_report(at(14)), None);
    let (again, members) = core.next_report(at(13 + 4 * SECOND)).unwrap();
    assert_eq!(first, again);
    assert_eq!(members[0].state, State::Ended);
    let held = core.hello();
    assert_eq!(held[0].state, State::Ended);
    let (sequence, _) = core.next_report(at(14 + 4 * SECOND)).unwrap();
    core.acknowledged(sequence);
    assert_eq!(core.next_report(at(100 * SECOND)), None);
}

#[test]
fn checkpoints_are_told_of_at_once_then_half_a_minute_apart_and_with_every_other_report() {
    let mut core = running(assignment(1), 10);
    let (sequence, _) = core.next_report(at(11)).unwrap();
    core.acknowledged(sequence);
    let told = |core: &mut Core, saved_us: u64| {
        core.checkpointed(key(1), saved_us, at(saved_us + 1));
        let told = core.next_report(at(saved_us + 2));
        told.map(|(sequence, members)| {
            core.acknowledged(sequence);
            members[0].checkpointed_us
        })
    };
    assert_eq!(told(&mut core, 20), Some(Some(20)));
    assert_eq!(told(&mut core, 10 * SECOND), None);
    assert_eq!(told(&mut core, 31 * SECOND), Some(Some(31 * SECOND)));
    assert_eq!(told(&mut core, 40 * SECOND), None);
    // One that an earlier journal tells of later changes nothing.
    assert_eq!(told(&mut core, 30 * SECOND), None);
    assert_eq!(core.hello()[0].checkpointed_us, Some(40 * SECOND));
    core.observe(key(1), exited(0), at(41 * SECOND));
    let ended = report(&mut core, 42 * SECOND).unwrap();
    assert_eq!(ended.checkpointed_us, Some(40 * SECOND));
    // What is yet to come is not saved.
    let mut core = running(assignment(1), 10);
    core.checkpointed(key(1), 90 * SECOND, at(50));
    assert_eq!(core.hello()[0].checkpointed_us, Some(50));
    core.checkpointed(key(7), 1, at(50));
}

#[test]
fn states_between_two_batches_coalesce_into_the_last() {
    let mut core = running(assignment(1), 10);
    core.observe(key(1), exited(0), at(12));
    let (_, members) = core.next_report(at(13)).unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].state, State::Ended);
}

#[test]
fn a_stop_asks_first_and_kills_after_the_grace() {
    let mut core = running(assignment(1), 10);
    let stop = Assignment {
        intent: Intent::Stop,
        stop_reason: "cancelled by ada".into(),
        grace_ms: 2000,
        ..assignment(1)
    };
    let actions = core.desired(wish(vec![stop.clone()]), at(SECOND)).unwrap();
    assert_eq!(signals(&actions), vec![Signal::Terminate]);
    // Said again, it is not signalled again.
    let actions = core.desired(wish(vec![stop]), at(SECOND + 1)).unwrap();
    assert_eq!(signals(&actions), vec![]);
    assert_eq!(core.next_wake_us(), Some(3 * SECOND));
    assert_eq!(signals(&core.tick(at(3 * SECOND))), vec![Signal::Kill]);
    core.observe(
        key(1),
        Observation::Ended {
            exit: Exit::Signaled { signal: 9 },
            at_us: 4,
        },
        at(4 * SECOND),
    );
    let ended = report(&mut core, 4 * SECOND).unwrap();
    assert_eq!(ended.end, Some(End::Stopped));
    assert_eq!(ended.message, "cancelled by ada");
}

#[test]
fn a_stop_during_preparation_ends_it_and_during_a_start_waits_for_the_process() {
    let stop = Assignment {
        intent: Intent::Stop,
        ..assignment(1)
    };
    let mut core = Core::default();
    core.desired(wish(vec![assignment(1)]), at(1)).unwrap();
    assert_eq!(
        core.desired(wish(vec![stop.clone()]), at(2)).unwrap(),
        vec![Action::CancelPreparation(key(1)), Action::Ended(key(1))]
    );
    // The preparation's late answer starts nothing.
    assert_eq!(core.observe(key(1), Observation::Prepared, at(3)), vec![]);

    let mut core = Core::default();
    core.desired(wish(vec![assignment(1)]), at(1)).unwrap();
    core.observe(key(1), Observation::Prepared, at(2));
    assert_eq!(core.desired(wish(vec![stop]), at(3)).unwrap(), vec![]);
    assert_eq!(
        signals(&core.observe(key(1), started(4), at(4))),
        vec![Signal::Terminate]
    );
}

#[test]
fn a_time_limit_counts_from_the_start_also_for_an_adopted_run() {
    let mut limited = assignment(1);
    limited.workload.time_limit_ms = 5_000;
    let mut core = Core::new(1, None);
    core.adopt(limited, Some(started(SECOND)), None, at(3 * SECOND));
    assert_eq!(core.next_wake_us(), Some(6 * SECOND));
    let actions = core.tick(at(6 * SECOND));
    assert_eq!(signals(&actions), vec![Signal::Terminate]);
    assert_eq!(signals(&core.tick(at(16 * SECOND))), vec![Signal::Kill]);
    core.observe(key(1), exited(0), at(17 * SECOND));
    assert_eq!(
        report(&mut core, 18 * SECOND).unwrap().end,
        Some(End::TimeLimit)
    );
}

#[test]
fn before_the_lease_ends_fenced_members_stop_and_kept_ones_go_on() {
    let mut core = running(
        Assignment {
            fence: true,
            ..assignment(1)
        },
        0,
    );
    core.desired(wish(vec![assignment(2)]), at(1)).unwrap();
    core.observe(key(2), Observation::Prepared, at(1));
    core.observe(key(2), started(1), at(1));
    // A lease of 20 s, asked for at 0, with a margin of 5 s.
    assert_eq!(core.tick(at(14 * SECOND)), vec![]);
    let actions = core.tick(at(15 * SECOND));
    assert!(matches!(
        actions.as_slice(),
        [Action::Signal { key: one, signal: Signal::Terminate, cause: StopCause::Lease }] if *one == key(1)
    ));
    // Its own grace of 10 s would pass the lease's end: it is cut.
    let due = core.next_wake_us().unwrap();
    assert!(due < 20 * SECOND);
    assert_eq!(signals(&core.tick(at(due))), vec![Signal::Kill]);
    core.observe(key(1), exited(0), at(19 * SECOND));
    assert_eq!(
        report(&mut core, 19 * SECOND).unwrap().end,
        Some(End::Fenced)
    );
}

#[test]
fn a_renewal_counts_from_the_asking_and_never_shortens_the_lease() {
    let mut core = running(
        Assignment {
            fence: true,
            ..assignment(1)
        },
        0,
    );
    core.lease_renewed(10 * SECOND);
    core.lease_renewed(5 * SECOND);
    assert_eq!(core.tick(at(24 * SECOND)), vec![]);
    assert_eq!(
        signals(&core.tick(at(25 * SECOND))),
        vec![Signal::Terminate]
    );
}

#[test]
fn a_lease_that_ended_while_the_agent_was_dead_fences_at_once() {
    let mut core = Core::new(1, Some((20 * SECOND, 30 * SECOND)));
    let fenced = Assignment {
        fence: true,
        ..assignment(1)
    };
    core.adopt(fenced, Some(started(SECOND)), None, at(40 * SECOND));
    assert_eq!(
        signals(&core.tick(at(40 * SECOND))),
        vec![Signal::Terminate]
    );
}

#[test]
fn a_launch_failure_says_whose_fault_it_was() {
    for node_fault in [true, false] {
        let mut core = Core::default();
        core.desired(wish(vec![assignment(1)]), at(1)).unwrap();
        let failed = Observation::LaunchFailed {
            message: "disk full".into(),
            node_fault,
        };
        core.observe(key(1), failed, at(2));
        let ended = report(&mut core, 3).unwrap();
        assert_eq!(ended.end, Some(End::LaunchFailed { node_fault }));
        assert_eq!(ended.message, "disk full");
    }
}

#[test]
fn older_epochs_and_older_coordinators_change_nothing() {
    let mut core = running(assignment(1), 10);
    let old = Assignment {
        epoch: 4,
        intent: Intent::Stop,
        ..assignment(1)
    };
    assert_eq!(core.desired(wish(vec![old]), at(11)).unwrap(), vec![]);
    core.welcomed(7, 20_000, 12).unwrap();
    assert!(core.desired(wish(vec![assignment(2)]), at(13)).is_err());
    assert!(core.welcomed(6, 20_000, 14).is_err());
    assert_eq!(core.keys().count(), 1);
}

#[test]
fn what_a_full_wish_does_not_name_is_stopped_and_then_forgotten() {
    let mut core = running(assignment(1), 10);
    let full = Desired {
        full: true,
        session_epoch: 1,
        ..Desired::default()
    };
    let actions = core.desired(full, at(11)).unwrap();
    assert_eq!(signals(&actions), vec![Signal::Terminate]);
    assert_eq!(
        core.observe(key(1), exited(0), at(12)),
        vec![Action::Ended(key(1)), Action::Retire(key(1))]
    );
}

#[test]
fn an_adopted_member_that_never_started_waits_for_the_word() {
    let mut core = Core::new(1, None);
    assert_eq!(core.adopt(assignment(1), None, None, at(1)), vec![]);
    assert_eq!(core.hello()[0].state, State::Assigned);
    assert_eq!(
        core.desired(wish(vec![assignment(1)]), at(2)).unwrap(),
        vec![Action::Prepare(key(1))]
    );
}

#[test]
fn a_stop_begun_by_the_agent_before_is_told_as_a_stop() {
    let mut core = Core::new(1, None);
    let cause = StopCause::Desired {
        reason: "cancelled".into(),
    };
    let died = Observation::Ended {
        exit: Exit::Signaled { signal: 15 },
        at_us: 3,
    };
    core.adopt(assignment(1), Some(died), Some(cause), at(4));
    assert_eq!(core.hello()[0].end, Some(End::Stopped));
}

#[derive(Debug, Clone)]
enum Step {
    Want {
        run: u64,
        epoch: u64,
        stop: bool,
        fence: bool,
    },
    Retire(u64),
    Full(Vec<u64>),
    See(u64, u8),
    Pass(u64),
    Renew,
    NewSession,
    TakeReport,
    Acknowledge,
}

fn step() -> impl Strategy<Value = Step> {
    let run = 1..4_u64;
    prop_oneof![
        4 => (run.clone(), 1..4_u64, any::<bool>(), any::<bool>())
            .prop_map(|(run, epoch, stop, fence)| Step::Want { run, epoch, stop, fence }),
        1 => run.clone().prop_map(Step::Retire),
        1 => proptest::collection::vec(1..4_u64, 0..3).prop_map(Step::Full),
        6 => (run, 0..5_u8).prop_map(|(run, what)| Step::See(run, what)),
        2 => (0..8 * SECOND).prop_map(Step::Pass),
        1 => Just(Step::Renew),
        1 => Just(Step::NewSession),
        2 => Just(Step::TakeReport),
        1 => Just(Step::Acknowledge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_every_story_starts_are_single_ends_final_and_said_and_retirements_after_ends(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        let mut core = Core::default();
        let mut now = SECOND;
        core.welcomed(1, 20_000, now).unwrap();
        // The world: what was started and may live, and what the coordinator has heard of.
        let mut starts: BTreeMap<Key, u32> = BTreeMap::new();
        let mut alive: BTreeSet<Key> = BTreeSet::new();
        let mut ended: BTreeMap<Key, End> = BTreeMap::new();
        let mut flying: BTreeMap<u64, Vec<MemberReport>> = BTreeMap::new();
        for step in steps {
            let mut told_ended = BTreeSet::new();
            let actions = match step {
                Step::Want { run, epoch, stop, fence } => {
                    let wanted = Assignment {
                        epoch,
                        fence,
                        intent: if stop { Intent::Stop } else { Intent::Run },
                        ..assignment(run)
                    };
                    let before = core.assignment(key(run)).map(|held| held.epoch);
                    let actions = core.desired(wish(vec![wanted]), at(now)).unwrap();
                    if before.is_some_and(|before| epoch < before) {
                        prop_assert!(actions.is_empty(), "a stale epoch acted");
                        prop_assert_eq!(core.assignment(key(run)).map(|held| held.epoch), before);
                    }
                    actions
                }
                Step::Retire(run) => core
                    .desired(Desired { retire: vec![key(run)], session_epoch: 1, ..Desired::default() }, at(now))
                    .unwrap(),
                Step::Full(runs) => {
                    let upsert = runs.into_iter().map(|run| Assignment { epoch: 3, ..assignment(run) }).collect();
                    core.desired(Desired { full: true, upsert, session_epoch: 1, ..Desired::default() }, at(now)).unwrap()
                }
                Step::See(run, what) => {
                    let key = key(run);
                    let observation = match what {
                        0 => Observation::Prepared,
                        1 => Observation::Progress { detail: "x".into() },
                        // Only what was started can live, fail to start, or end.
                        2 if alive.contains(&key) => started(now),
                        3 if alive.remove(&key) => exited(0),
                        4 if alive.remove(&key) => Observation::LaunchFailed { message: String::new(), node_fault: true },
                        _ => continue,
                    };
                    core.observe(key, observation, at(now))
                }
                Step::Pass(us) => {
                    now += us;
                    core.tick(at(now))
                }
                Step::Renew => {
                    core.lease_renewed(now);
                    Vec::new()
                }
                Step::NewSession => {
                    flying.clear();
                    for report in core.hello() {
                        if let Some(end) = &report.end {
                            ended.insert(report.key, end.clone());
                        }
                    }
                    Vec::new()
                }
                Step::TakeReport => {
                    if let Some((sequence, members)) = core.next_report(at(now)) {
                        for report in &members {
                            let before = ended.get(&report.key);
                            prop_assert!(before.is_none() || before == report.end.as_ref(), "an end changed");
                            if let Some(end) = &report.end {
                                ended.insert(report.key, end.clone());
                            }
                        }
                        flying.insert(sequence, members);
                    }
                    Vec::new()
                }
                Step::Acknowledge => {
                    if let Some((sequence, _)) = flying.pop_first() {
                        core.acknowledged(sequence);
                    }
                    Vec::new()
                }
            };
            for action in actions {
                match action {
                    Action::Start(key) => {
                        *starts.entry(key).or_default() += 1;
                        // One life for each key and epoch: a later epoch of a retired key is another allocation.
                        prop_assert!(alive.insert(key), "started while it may live");
                    }
                    Action::Retire(key) => {
                        prop_assert!(!alive.contains(&key), "retired while it may live");
                    }
                    Action::Ended(key) => {
                        prop_assert!(told_ended.insert(key));
                        prop_assert!(!alive.contains(&key), "ended while it may live");
                    }
                    _ => {}
                }
            }
            prop_assert!(starts.values().all(|count| *count <= 1), "two starts of one key");
        }
        // Heal: everything ends and a session opens; every end held must be said on it.
        for key in std::mem::take(&mut alive) {
            core.observe(key, started(now), at(now));
            core.observe(key, exited(0), at(now));
        }
        let held: Vec<Key> = core.hello().iter().filter(|report| report.end.is_some()).map(|report| report.key).collect();
        let mut said = BTreeSet::new();
        while let Some((sequence, members)) = core.next_report(at(now)) {
            said.extend(members.iter().map(|report| report.key));
            core.acknowledged(sequence);
        }
        prop_assert!(held.iter().all(|key| said.contains(key)), "an end was never said");
    }
}
