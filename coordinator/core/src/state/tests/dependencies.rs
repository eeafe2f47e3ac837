//! Runs that follow others.

use crate::fixtures::*;
use coordinator_core::model::*;
use coordinator_core::policy::RefusalKind;
use coordinator_core::scheduler::{Tier, explain, plan};
use coordinator_core::state::{Command, Event, State};

fn after(dependencies: &[&str], spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec {
        after: dependencies
            .iter()
            .map(|text| text.parse().expect("a dependency"))
            .collect(),
        ..spec
    }
}

fn ok(run: RunId) -> String {
    format!("{run}:ok")
}

fn any(run: RunId) -> String {
    format!("{run}:any")
}

fn place_and_end(world: &mut World, run: RunId, kind: EndKind) -> Vec<Event> {
    assert_eq!(world.plan_and_place(), vec![run]);
    world.end(run, 0, kind)
}

#[test]
fn a_run_that_follows_another_is_held_until_that_has_ended_as_asked() {
    for (condition, end, outcome) in [
        ("ok", EndKind::Exited { code: 0 }, None),
        ("any", EndKind::Exited { code: 0 }, None),
        ("any", EndKind::Exited { code: 3 }, None),
        (
            "ok",
            EndKind::Exited { code: 3 },
            Some(RunOutcome::Cancelled),
        ),
    ] {
        let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
        let first = world.submit(gpus(1));
        let second = world.submit(after(&[&format!("{first}:{condition}")], gpus(1)));
        assert_eq!(world.run(second).phase, RunPhase::Held);
        place_and_end(&mut world, first, end.clone());
        assert_eq!(world.outcome(second), outcome, "{condition} after {end:?}");
        if outcome.is_none() {
            assert_eq!(world.plan_and_place(), vec![second]);
        }
    }
}

#[test]
fn what_can_never_start_ends_with_its_reason_and_so_does_all_that_follows_it() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let first = world.submit(gpus(1));
    let second = world.submit(after(&[&ok(first)], gpus(1)));
    let third = world.submit(after(&[&ok(second)], gpus(1)));
    let however = world.submit(after(&[&any(third)], gpus(1)));
    let events = place_and_end(&mut world, first, EndKind::Exited { code: 1 });
    assert!(events.contains(&Event::RunEnded { run: third }));
    let cancelled = |world: &World, run| world.run(run).cancelled.clone().expect("cancelled");
    assert_eq!(
        cancelled(&world, second).reason,
        Some(format!(
            "{first}, whose success it was to follow, has failed"
        ))
    );
    assert_eq!(
        cancelled(&world, third).reason,
        Some(format!(
            "{second}, whose success it was to follow, has been cancelled"
        ))
    );
    assert_eq!(world.run(however).phase, RunPhase::Queued);
}

#[test]
fn a_retried_run_holds_its_followers_until_its_last_try() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let first = world.submit(WorkloadSpec {
        retries: 1,
        ..gpus(1)
    });
    let second = world.submit(after(&[&ok(first)], gpus(1)));
    place_and_end(&mut world, first, EndKind::Exited { code: 1 });
    assert_eq!(world.run(second).phase, RunPhase::Held);
    // It waits before it is tried again.
    world.now_us += 3_600_000_000;
    world.apply(Command::Tick);
    place_and_end(&mut world, first, EndKind::Exited { code: 0 });
    assert_eq!(world.run(second).phase, RunPhase::Queued);
}

#[test]
fn a_run_may_follow_several_and_keeps_the_place_its_submission_gave_it() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let first = world.submit(gpus(1));
    let second = world.submit(gpus(1));
    let follower = world.submit(after(&[&ok(first), &any(second), &ok(first)], gpus(2)));
    let later = world.submit(gpus(2));
    assert_eq!(world.plan_and_place(), vec![first, second]);
    world.end(first, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.run(follower).phase, RunPhase::Held);
    world.end(second, 0, EndKind::Exited { code: 9 });
    assert_eq!(world.plan_and_place(), vec![follower]);
    assert_eq!(world.run(later).phase, RunPhase::Queued);
}

#[test]
fn what_has_ended_already_is_no_wait_and_what_has_failed_already_is_refused() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let good = world.submit(gpus(1));
    place_and_end(&mut world, good, EndKind::Exited { code: 0 });
    let bad = world.submit(gpus(1));
    place_and_end(&mut world, bad, EndKind::Exited { code: 1 });
    let stopped = world.submit(gpus(1));
    world.cancel(stopped);
    let follower = world.submit(after(&[&ok(good), &any(bad), &any(stopped)], gpus(1)));
    assert_eq!(world.run(follower).phase, RunPhase::Queued);
    for (run, word) in [(bad, "failed"), (stopped, "been cancelled")] {
        let refusal = world.refuse(submit(after(&[&ok(run)], gpus(1))));
        assert_eq!(refusal.kind, RefusalKind::Refused);
        assert_eq!(
            refusal.message,
            format!("{run} has {word} already, so what follows its success can never start")
        );
    }
}

#[test]
fn a_run_of_another_tenant_is_not_told_from_none() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let secret = world.submit_for("vision", gpus(1));
    let unknown = RunId(secret.0 + 1);
    let refusal = |world: &mut World, run| world.refuse(submit(after(&[&any(run)], gpus(1))));
    let (of_others, of_none) = (refusal(&mut world, secret), refusal(&mut world, unknown));
    assert_eq!(of_others.kind, RefusalKind::NotFound);
    assert_eq!(of_others.message, format!("{secret} does not exist"));
    assert_eq!(of_none.message, format!("{unknown} does not exist"));
    assert_eq!(
        (of_others.kind, of_others.allowed, of_others.hint),
        (of_none.kind, of_none.allowed, of_none.hint)
    );
}

#[test]
fn no_cycle_can_be_made_for_a_run_follows_only_what_exists_already() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let first = world.submit(gpus(1));
    // The id it will have itself, and the one after it.
    for ahead in 1..=2 {
        let refusal = world.refuse(submit(after(&[&any(RunId(first.0 + ahead))], gpus(1))));
        assert_eq!(refusal.kind, RefusalKind::NotFound);
    }
    let second = world.submit(after(&[&any(first)], gpus(1)));
    let after = &world.run(second).spec.after;
    assert!(after.iter().all(|d| d.before < Submission::Run(second)));
}

#[test]
fn a_hundred_may_be_followed_and_no_more() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let first = any(world.submit(gpus(1)));
    world.submit(after(&[first.as_str(); 100], gpus(1)));
    let refusal = world.refuse(submit(after(&[first.as_str(); 101], gpus(1))));
    assert_eq!(refusal.message, "the run is to follow 101 others");
    assert_eq!(refusal.allowed.as_deref(), Some("at most 100"));
}

#[test]
fn a_held_run_can_be_cancelled_and_takes_its_followers_with_it() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let first = world.submit(gpus(1));
    let second = world.submit(after(&[&ok(first)], gpus(1)));
    let third = world.submit(after(&[&ok(second), &ok(first)], gpus(1)));
    world.cancel(second);
    assert_eq!(world.outcome(second), Some(RunOutcome::Cancelled));
    assert_eq!(world.outcome(third), Some(RunOutcome::Cancelled));
    place_and_end(&mut world, first, EndKind::Exited { code: 0 });
    assert!(world.state.live().is_empty());
}

#[test]
fn a_line_of_ten_thousand_ends_at_once_when_its_first_does() {
    let mut state = State::default();
    let world = World::with_nodes(&[("node-1", "A100-80G")]);
    let mut index = 0;
    let mut apply = |state: &mut State, command| {
        index += 1;
        state.apply(
            index,
            &coordinator_core::state::Entry {
                stamp_us: index,
                actor: "user:ana".to_owned(),
                idempotency_key: None,
                command,
            },
        )
    };
    for entry in &world.entries {
        apply(&mut state, entry.command.clone());
    }
    apply(&mut state, submit(gpus(1)));
    for before in 1..=10_000 {
        apply(&mut state, submit(after(&[&ok(RunId(before))], gpus(1))));
    }
    // None of them costs a plan anything: there is one run to look at.
    assert_eq!(plan(&state, 1).placements.len(), 1);
    assert_eq!(state.queues().waiting(&pool_name("default")), 1);
    let ended = apply(
        &mut state,
        coordinator_core::state::Command::Cancel {
            run: RunId(1),
            reason: None,
        },
    );
    assert_eq!(ended.len(), 10_001);
    assert!(state.live().is_empty());
}

#[test]
fn explain_says_what_a_held_run_waits_for() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let first = world.submit(gpus(1));
    let second = world.submit(after(&[&ok(first)], gpus(1)));
    let third = world.submit(after(&[&any(second), &ok(first)], gpus(1)));
    let waiting = explain(&world.state, world.run(third));
    assert_eq!(waiting.tier, Tier::Held);
    assert_eq!(
        waiting.summary,
        format!("starts once {second} has ended and {first} has succeeded")
    );
    assert_eq!(
        waiting.reasons,
        [
            format!("{second}:any (train) is held itself"),
            format!("{first}:ok (train) is queued")
        ]
    );
    assert_eq!(
        waiting.hint,
        Some(format!(
            "see what that waits for: platform runs explain {second}"
        ))
    );
}

#[test]
fn a_start_deadline_ends_a_held_run_too_and_tells_who_follows() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let first = world.submit(gpus(1));
    assert_eq!(world.plan_and_place(), vec![first]);
    let late = |spec| WorkloadSpec {
        start_deadline_ms: Some(5_000),
        ..spec
    };
    let held = world.submit(late(after(&[&ok(first)], gpus(1))));
    let queued = world.submit(late(gpus(1)));
    let followers = [held, queued].map(|run| world.submit(after(&[&any(run)], gpus(1))));
    world.now_us += 5_000_000;
    world.apply(Command::Tick);
    for run in [held, queued] {
        assert_eq!(world.outcome(run), Some(RunOutcome::Cancelled));
    }
    for run in followers {
        assert_eq!(world.run(run).phase, RunPhase::Queued);
    }
}
