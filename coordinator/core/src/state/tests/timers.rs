//! What comes due by the passing of time: retries after their wait, and start deadlines.

use crate::fixtures::*;
use crate::model::{EndKind, MemberPhase, RunOutcome, RunPhase, WorkloadSpec};
use crate::scheduler::{Tier, explain, held, plan};
use crate::state::{Command, Event, State};

const SECOND_US: u64 = 1_000_000;

fn retried(retries: u32) -> WorkloadSpec {
    WorkloadSpec { retries, ..gpus(1) }
}

fn starts_within(start_deadline_ms: u64) -> WorkloadSpec {
    WorkloadSpec {
        start_deadline_ms: Some(start_deadline_ms),
        ..gpus(1)
    }
}

fn world() -> World {
    World::with_nodes(&[("node-1", "1xA100-80G")])
}

#[test]
fn a_failed_run_waits_longer_each_time_and_is_not_placed_before() {
    let mut world = world();
    let run = world.submit(retried(3));
    for (attempt, wait_s) in [(1, 5), (2, 10), (3, 20)] {
        world.place_on(run, &[("node-1", &[0])]);
        world.end(run, 0, EndKind::Exited { code: 1 });
        let until_us = world.now_us + wait_s * SECOND_US;
        assert_eq!(world.run(run).held_until_us, Some(until_us));
        assert_eq!(world.state.queues().ahead(world.run(run)), None);
        world.now_us = until_us - 1;
        let planned = plan(&world.state, world.now_us);
        assert!(planned.placements.is_empty());
        assert_eq!(planned.again_at_us, Some(until_us));
        assert_eq!(
            world.try_place(placement(run, attempt + 1, &[("node-1", &[0])])),
            Err("the run is held until it is tried again".to_owned())
        );
        world.now_us = until_us;
    }
    world.place_on(run, &[("node-1", &[0])]);
    assert_eq!(world.run(run).held_until_us, None);
    world.end(run, 0, EndKind::Exited { code: 1 });
    assert_eq!(world.outcome(run), Some(RunOutcome::Failed));
    assert_eq!(world.state.next_due_us(), None);
}

#[test]
fn the_time_alone_lets_a_held_run_into_its_line_whatever_entry_brings_it() {
    let mut world = world();
    let run = world.submit(retried(1));
    world.place_on(run, &[("node-1", &[0])]);
    world.end(run, 0, EndKind::OutOfMemory);
    assert_eq!(world.plan_and_place(), []);
    world.now_us += 5 * SECOND_US;
    assert_eq!(
        world.accept(Command::Tick),
        [],
        "nothing that an audit names"
    );
    assert_eq!(world.plan_and_place(), [run]);
}

#[test]
fn what_the_platform_lost_is_tried_again_at_once() {
    for kind in [
        EndKind::Lost,
        EndKind::Fenced,
        EndKind::LaunchFailed { node_fault: true },
    ] {
        let mut world = world();
        let run = world.submit(retried(1));
        world.place_on(run, &[("node-1", &[0])]);
        world.end(run, 0, kind);
        assert_eq!(world.plan_and_place(), [run]);
    }
}

#[test]
fn a_wait_of_nothing_tries_again_at_once() {
    let mut world = world();
    world.set_policy(|policy| policy.retry.first_wait_ms = 0);
    let run = world.submit(retried(1));
    world.place_on(run, &[("node-1", &[0])]);
    world.end(run, 0, EndKind::Exited { code: 1 });
    assert_eq!(world.plan_and_place(), [run]);
}

#[test]
fn a_held_run_says_when_it_is_tried_again_which_attempt_that_is_and_why() {
    let mut world = world();
    let run = world.submit(retried(3));
    world.place_on(run, &[("node-1", &[0])]);
    world.end(run, 0, EndKind::Lost);
    world.place_on(run, &[("node-1", &[0])]);
    world.end(run, 0, EndKind::Exited { code: 1 });
    let waiting = explain(&world.state, world.run(run));
    assert_eq!(waiting.tier, Tier::Held);
    assert_eq!(
        waiting.summary,
        "held: tries again in 5 s, attempt 3 of 5, because attempt 2 exited with 1: as the node says"
    );
    let later = world.now_us + 3 * SECOND_US + 1;
    let waiting = held(&world.state, world.run(run), later).expect("held");
    assert!(waiting.summary.contains("in 2 s"), "{}", waiting.summary);
    world.wait_out(run);
    assert_eq!(held(&world.state, world.run(run), later), None);
    assert_eq!(explain(&world.state, world.run(run)).tier, Tier::NextPlan);
}

#[test]
fn a_held_run_can_be_cancelled_and_leaves_nothing_behind() {
    let mut world = world();
    let run = world.submit(retried(1));
    world.place_on(run, &[("node-1", &[0])]);
    world.end(run, 0, EndKind::Exited { code: 1 });
    world.cancel(run);
    assert_eq!(world.outcome(run), Some(RunOutcome::Cancelled));
    assert_eq!(world.state.next_due_us(), None);
}

#[test]
fn held_runs_and_deadlines_are_made_anew_from_a_snapshot() {
    let mut world = world();
    let run = world.submit(retried(1));
    world.place_on(run, &[("node-1", &[0])]);
    world.end(run, 0, EndKind::Exited { code: 1 });
    world.submit(starts_within(60_000));
    let bytes = rmp_serde::to_vec_named(&world.state).expect("it encodes");
    let read: State = rmp_serde::from_slice(&bytes).expect("it decodes");
    assert_eq!(read, world.state);
    assert_eq!(read.next_due_us(), world.run(run).held_until_us);
}

#[test]
fn a_run_that_did_not_start_in_time_ends_and_says_so() {
    let mut world = world();
    let holder = world.submit(gpus(1));
    world.place_on(holder, &[("node-1", &[0])]);
    let run = world.submit(starts_within(60_000));
    let due_us = world.now_us + 60 * SECOND_US;
    assert_eq!(world.state.next_due_us(), Some(due_us));
    world.now_us = due_us - 1;
    assert_eq!(world.accept(Command::Tick), []);
    world.now_us = due_us;
    assert_eq!(world.accept(Command::Tick), [Event::RunEnded { run }]);
    assert_eq!(world.outcome(run), Some(RunOutcome::Cancelled));
    let cancelled = world.run(run).cancelled.clone().expect("a reason");
    assert_eq!(
        cancelled.reason.as_deref(),
        Some("it did not start within 60 s of its submission")
    );
    let audit = world.audit().pop().expect("an entry");
    assert_eq!(
        (audit.action.as_str(), audit.subject),
        ("clock.tick", run.to_string())
    );
    assert_eq!(world.run(holder).phase, RunPhase::Active);
    assert_eq!(world.state.next_due_us(), None);
}

#[test]
fn a_run_that_was_placed_in_time_is_left_alone_and_ends_only_if_it_waits_again_unstarted() {
    let mut world = world();
    let run = world.submit(starts_within(60_000));
    world.place_on(run, &[("node-1", &[0])]);
    world.now_us += 61 * SECOND_US;
    assert_eq!(world.accept(Command::Tick), []);
    world.end(run, 0, EndKind::LaunchFailed { node_fault: true });
    assert_eq!(
        world.accept(Command::Tick),
        [Event::RunEnded { run }],
        "it never started, and its time is over"
    );

    let run = world.submit(starts_within(60_000));
    world.place_on(run, &[("node-1", &[0])]);
    world.report(run, 0, MemberPhase::Running);
    world.now_us += 61 * SECOND_US;
    world.end(run, 0, EndKind::Lost);
    assert_eq!(world.accept(Command::Tick), []);
    assert_eq!(world.plan_and_place(), [run], "it had started in time");
}
