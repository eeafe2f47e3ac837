//! How attempts and runs end: whose fault it was decides who pays for it.

use crate::fixtures::*;
use crate::model::{
    EndKind, Epoch, MemberPhase, RunId, RunOutcome, RunPhase, StopReason, WorkloadSpec,
};
use crate::policy::RefusalKind;
use crate::state::{Command, Event};

fn world() -> World {
    World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xA100-80G")])
}

fn active(world: &mut World, spec: WorkloadSpec) -> RunId {
    let run = world.submit(spec);
    assert_eq!(world.plan_and_place(), [run]);
    run
}

#[test]
fn each_end_of_a_single_member_has_its_verdict() {
    use EndKind::*;
    let table = [
        (Exited { code: 0 }, Some(RunOutcome::Succeeded), 0, 0),
        (Exited { code: 3 }, Some(RunOutcome::Failed), 1, 0),
        (Signaled { signal: 9 }, Some(RunOutcome::Failed), 1, 0),
        (OutOfMemory, Some(RunOutcome::Failed), 1, 0),
        (TimeLimit, Some(RunOutcome::Failed), 1, 0),
        (
            LaunchFailed { node_fault: false },
            Some(RunOutcome::Failed),
            1,
            0,
        ),
        (LaunchFailed { node_fault: true }, None, 0, 1),
        (Lost, None, 0, 1),
        (Fenced, None, 0, 1),
        // Nobody of the user's asked for it.
        (Stopped, None, 0, 1),
    ];
    for (kind, outcome, failures, losses) in table {
        let mut world = world();
        let run = active(&mut world, gpus(1));
        world.end(run, 0, kind.clone());
        assert_eq!(world.outcome(run), outcome, "{kind:?}");
        assert_eq!(
            (world.run(run).failures, world.run(run).losses),
            (failures, losses),
            "{kind:?}"
        );
        let told = world.attempt(run).end.clone().expect("an end");
        assert_eq!(told.kind, kind);
    }
}

#[test]
fn retries_are_spent_by_the_users_failures_and_by_nothing_else() {
    let mut world = world();
    let run = active(
        &mut world,
        WorkloadSpec {
            retries: 2,
            ..gpus(1)
        },
    );
    for kind in [
        EndKind::Exited { code: 1 },
        EndKind::Lost,
        EndKind::Fenced,
        EndKind::OutOfMemory,
        EndKind::LaunchFailed { node_fault: true },
    ] {
        let events = world.end(run, 0, kind);
        assert!(events.contains(&Event::RunQueued {
            run,
            again: true,
            warnings: vec![]
        }));
        world.wait_out(run);
        assert_eq!(world.plan_and_place(), [run]);
    }
    assert_eq!((world.run(run).failures, world.run(run).losses), (2, 3));
    world.end(run, 0, EndKind::Exited { code: 1 });
    assert_eq!(world.outcome(run), Some(RunOutcome::Failed));
    assert_eq!(world.run(run).attempts.len(), 6);
}

#[test]
fn losses_end_a_run_at_their_bound() {
    let mut world = world();
    let run = active(&mut world, gpus(1));
    for _ in 0..10 {
        world.end(run, 0, EndKind::Lost);
        assert_eq!(world.plan_and_place(), [run]);
    }
    world.end(run, 0, EndKind::Lost);
    assert_eq!(world.outcome(run), Some(RunOutcome::Failed));
    assert_eq!((world.run(run).failures, world.run(run).losses), (0, 11));
}

#[test]
fn a_failed_member_stops_the_rest_of_its_gang() {
    let mut world = world();
    let run = active(&mut world, gang(2));
    let events = world.end(run, 1, EndKind::Exited { code: 1 });
    assert!(events.contains(&Event::RunStopping { run }));
    assert_eq!(world.attempt(run).stopping, Some(StopReason::MemberFailed));
    assert_eq!(
        world.run(run).phase,
        RunPhase::Active,
        "the other still holds its device"
    );
    world.end(run, 0, EndKind::Stopped);
    assert_eq!(world.outcome(run), Some(RunOutcome::Failed));
    assert_eq!(
        world.attempt(run).end,
        Some(end(EndKind::Exited { code: 1 }))
    );
    assert_eq!(world.run(run).failures, 1);
}

#[test]
fn a_gang_succeeds_when_all_its_members_do() {
    let mut world = world();
    let run = active(&mut world, gang(2));
    assert!(
        !world
            .end(run, 0, EndKind::Exited { code: 0 })
            .contains(&Event::RunStopping { run })
    );
    world.end(run, 1, EndKind::Exited { code: 0 });
    assert_eq!(world.outcome(run), Some(RunOutcome::Succeeded));
}

#[test]
fn members_that_crash_because_a_peer_was_lost_are_not_the_users_failures() {
    // The crash is often known before the loss: connections break at once, leases end later.
    for crash_first in [true, false] {
        let mut world = world();
        let run = active(&mut world, gang(2));
        let lost = world.attempt(run).members[0].node.clone();
        if crash_first {
            world.end(run, 1, EndKind::Exited { code: 1 });
            world.accept(Command::LoseNode { node: lost });
        } else {
            world.accept(Command::LoseNode { node: lost });
            world.end(run, 1, EndKind::Exited { code: 1 });
        }
        assert_eq!(world.run(run).phase, RunPhase::Queued, "{crash_first}");
        assert_eq!(
            (world.run(run).failures, world.run(run).losses),
            (0, 1),
            "{crash_first}"
        );
    }
}

#[test]
fn a_queued_run_is_cancelled_at_once() {
    let mut world = world();
    let run = world.submit(gpus(1));
    assert_eq!(world.cancel(run), [Event::RunEnded { run }]);
    assert_eq!(world.outcome(run), Some(RunOutcome::Cancelled));
    let cancelled = world.run(run).cancelled.clone().expect("a cancellation");
    assert_eq!(cancelled.by, "user:ana");
    assert_eq!(world.plan_and_place(), []);
    assert_eq!(world.ledger(), []);
}

#[test]
fn an_active_run_is_cancelled_when_its_members_have_stopped() {
    let mut world = world();
    let run = active(&mut world, gang(2));
    assert_eq!(world.cancel(run), [Event::RunStopping { run }]);
    world.cancel(run);
    world.end(run, 0, EndKind::Stopped);
    assert_eq!(world.outcome(run), None);
    world.end(run, 1, EndKind::Stopped);
    assert_eq!(world.outcome(run), Some(RunOutcome::Cancelled));
    assert_eq!((world.run(run).failures, world.run(run).losses), (0, 0));
}

#[test]
fn a_cancelled_run_that_finished_first_has_succeeded_and_one_that_is_lost_stays_cancelled() {
    let mut world = world();
    let run = active(&mut world, gpus(1));
    world.cancel(run);
    world.end(run, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.outcome(run), Some(RunOutcome::Succeeded));
    let run = active(&mut world, gpus(1));
    world.cancel(run);
    world.end(run, 0, EndKind::Lost);
    assert_eq!(world.outcome(run), Some(RunOutcome::Cancelled));
}

#[test]
fn an_ended_or_unknown_run_cannot_be_cancelled() {
    let mut world = world();
    let run = active(&mut world, gpus(1));
    world.end(run, 0, EndKind::Exited { code: 0 });
    let refusal = world.refuse(Command::Cancel { run, reason: None });
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert_eq!(refusal.message, "run-1 has already ended");
    let refusal = world.refuse(Command::Cancel {
        run: RunId(9),
        reason: None,
    });
    assert_eq!(refusal.kind, RefusalKind::NotFound);
    assert_eq!(refusal.message, "run-9 does not exist");
}

#[test]
fn a_drain_evicts_at_its_deadline_and_the_run_keeps_its_place() {
    let mut world = world();
    let first = active(
        &mut world,
        WorkloadSpec {
            retries: 0,
            ..gang(2)
        },
    );
    let later = world.submit(gpus(2));
    assert_eq!(world.plan_and_place(), []);
    let node = node_name("node-1");
    world.accept(Command::Drain {
        node: node.clone(),
        reason: "a new driver".to_owned(),
        grace_ms: 1_000,
    });
    assert_eq!(
        world.accept(Command::Evict { node: node.clone() }),
        [],
        "not before the deadline"
    );
    world.now_us += 1_000_000;
    assert_eq!(
        world.accept(Command::Evict { node: node.clone() }),
        [Event::RunStopping { run: first }]
    );
    assert_eq!(
        world.accept(Command::Evict { node: node.clone() }),
        [],
        "said once"
    );
    assert_eq!(world.attempt(first).stopping, Some(StopReason::Evicted));
    world.end(first, 0, EndKind::Stopped);
    // The other member crashes on its broken connection before it is stopped.
    world.end(first, 1, EndKind::Exited { code: 1 });
    assert_eq!((world.run(first).failures, world.run(first).losses), (0, 0));
    assert_eq!(
        world.state.queues().ahead(world.run(first)),
        Some(0),
        "before the later one"
    );
    assert_eq!(world.state.queues().ahead(world.run(later)), Some(1));
    world.accept(Command::Uncordon { node });
    assert_eq!(world.plan_and_place()[0], first);
    assert_eq!(world.attempt(first).number, 2);
}

#[test]
fn a_drain_without_grace_evicts_at_once_and_success_still_counts() {
    let mut world = world();
    let run = active(&mut world, gpus(1));
    let node = world.attempt(run).members[0].node.clone();
    let events = world.accept(Command::Drain {
        node,
        reason: "now".to_owned(),
        grace_ms: 0,
    });
    assert!(events.contains(&Event::RunStopping { run }));
    world.end(run, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.outcome(run), Some(RunOutcome::Succeeded));
}

#[test]
fn a_users_cancel_outranks_an_eviction() {
    let mut world = world();
    let run = active(&mut world, gpus(1));
    let node = world.attempt(run).members[0].node.clone();
    world.accept(Command::Drain {
        node,
        reason: "now".to_owned(),
        grace_ms: 0,
    });
    world.cancel(run);
    world.end(run, 0, EndKind::Stopped);
    assert_eq!(world.outcome(run), Some(RunOutcome::Cancelled));
}

#[test]
fn what_an_attempt_recorded_before_its_own_end_is_taken_after_the_next_has_begun() {
    let mut world = world();
    let mut spec = gpus(1);
    spec.retries = 1;
    let run = active(&mut world, spec);
    let (_, first) = world.report_of(run, 0, MemberPhase::Running);
    world.end(run, 0, EndKind::Exited { code: 3 });
    world.wait_out(run);
    world.plan_and_place();
    assert!(!world.state.is_current(first.key, first.epoch));
    assert!(world.state.may_record(first.key, first.epoch));
    let other = Epoch(first.epoch.0 + 1);
    assert!(!world.state.may_record(first.key, other));
}

#[test]
fn a_run_that_is_queued_again_starts_in_a_newer_epoch_and_the_older_is_fenced() {
    let mut world = world();
    let run = active(&mut world, gpus(1));
    let (node, older) = world.report_of(run, 0, MemberPhase::Running);
    world.end(run, 0, EndKind::Lost);
    assert!(!world.state.runs()[&run].is_ended());
    world.plan_and_place();
    assert!(world.attempt(run).epoch > older.epoch);
    assert!(!world.state.is_current(older.key, older.epoch));
    assert!(!world.state.may_record(older.key, older.epoch));
    assert!(matches!(
        world.send(node, older).as_slice(),
        [Event::StaleReport { .. }]
    ));
}
