//! Who may be stopped for whom: checked again in `apply`, whatever a plan says.

use crate::fixtures::*;
use crate::model::{EndKind, RunId, RunOutcome, RunPhase, StopReason, WorkloadSpec};
use crate::state::{Command, Event, Preemption};

const LONG_US: u64 = 3_600_000_000;

fn preempt(world: &World, run: RunId, claimant: RunId) -> Command {
    Command::Preempt {
        preemptions: vec![Preemption {
            run,
            attempt: world.run(run).attempts.len() as u32,
            claimant,
        }],
    }
}

fn refused(world: &mut World, run: RunId, claimant: RunId) -> String {
    let command = preempt(world, run, claimant);
    match world.apply(command).as_slice() {
        [Event::PreemptionRefused { reason, .. }] => reason.clone(),
        events => panic!("{events:#?}"),
    }
}

/// Two GPUs that guests borrow; one is guaranteed to nlp, which waits for it.
fn borrowed() -> (World, [RunId; 2], RunId) {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.quota("nlp", 1, None, None);
    let borrowers = [
        world.submit_for("guests", gpus(1)),
        world.submit_for("guests", gpus(1)),
    ];
    world.plan_and_place();
    let owner = world.submit_for("nlp", gpus(1));
    world.now_us += LONG_US;
    (world, borrowers, owner)
}

#[test]
fn what_is_borrowed_is_recorded_and_goes_back_to_its_owner() {
    let (mut world, [first, _], owner) = borrowed();
    assert_eq!(world.attempt(first).borrowed_milli, 1_000);
    let command = preempt(&world, first, owner);
    assert_eq!(world.accept(command), [Event::RunStopping { run: first }]);
    assert_eq!(
        world.attempt(first).stopping,
        Some(StopReason::Reclaimed { claimant: owner })
    );
    assert_eq!(
        world.audit().last().map(|entry| entry.detail.clone()),
        Some(format!("{first}/1 for {owner}; "))
    );
}

#[test]
fn a_preempted_run_waits_again_at_its_old_place_whatever_its_exit_says() {
    for kind in [
        EndKind::Stopped,
        EndKind::Exited { code: 143 },
        EndKind::Signaled { signal: 9 },
    ] {
        let (mut world, [first, _], owner) = borrowed();
        let later = world.submit_for("guests", gpus(1));
        let command = preempt(&world, first, owner);
        world.accept(command);
        world.end(first, 0, kind.clone());
        assert_eq!(world.run(first).phase, RunPhase::Queued, "{kind:?}");
        assert_eq!((world.run(first).failures, world.run(first).losses), (0, 0));
        assert_eq!(world.state.queues().ahead(world.run(later)), Some(1));
        assert_eq!(world.plan_and_place(), [owner]);
    }
}

#[test]
fn a_run_that_finished_in_its_grace_has_succeeded() {
    let (mut world, [first, _], owner) = borrowed();
    let command = preempt(&world, first, owner);
    world.accept(command);
    world.end(first, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.outcome(first), Some(RunOutcome::Succeeded));
}

#[test]
fn nobody_is_taken_below_what_stopping_leaves_above_the_quota() {
    let (mut world, [first, second], owner) = borrowed();
    world.quota("guests", 1, None, None);
    let command = preempt(&world, first, owner);
    world.accept(command);
    assert_eq!(
        refused(&mut world, second, owner),
        format!("{owner} may not take from {second}"),
        "what is stopping is as good as given back"
    );
}

#[test]
fn a_run_is_left_alone_for_its_first_while() {
    let (mut world, [first, _], owner) = borrowed();
    let minimum_us = world.state.policy().minimum_run_ms * 1000;
    world.now_us -= LONG_US;
    assert_eq!(
        refused(&mut world, first, owner),
        format!("{first} has not run for its first 30 s")
    );
    world.now_us += minimum_us;
    let command = preempt(&world, first, owner);
    world.accept(command);
}

#[test]
fn within_a_tenant_only_a_higher_priority_takes() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let spec = |priority| WorkloadSpec {
        priority,
        ..gpus(1)
    };
    let holder = world.submit(spec(0));
    world.plan_and_place();
    world.now_us += LONG_US;
    let (equal, higher) = (world.submit(spec(0)), world.submit(spec(1)));
    assert_eq!(
        refused(&mut world, holder, equal),
        format!("{equal} may not take from {holder}")
    );
    let command = preempt(&world, holder, higher);
    world.accept(command);
    assert_eq!(
        world.attempt(holder).stopping,
        Some(StopReason::Preempted { claimant: higher })
    );
}

#[test]
fn stale_and_wrong_preemptions_are_refused_one_by_one() {
    let (mut world, [first, second], owner) = borrowed();
    let unstoppable = WorkloadSpec {
        preemptible: false,
        ..gpus(0)
    };
    let safe = world.submit_for("guests", unstoppable);
    world.plan_and_place();
    world.now_us += LONG_US;
    let stranger = RunId(99);
    let table = [
        (stranger, owner, "run-99 does not exist"),
        (first, stranger, "run-99 does not exist"),
        (first, second, "run-2 does not wait"),
        (owner, owner, "attempt 0 of run-3 is not alive"),
        (safe, owner, "run-3 may not take from run-4"),
    ];
    for (run, claimant, expected) in table {
        let attempt = world
            .state
            .runs()
            .get(&run)
            .map_or(1, |run| run.attempts.len() as u32);
        let preemption = Preemption {
            run,
            attempt,
            claimant,
        };
        let events = world.apply(Command::Preempt {
            preemptions: vec![preemption],
        });
        let [Event::PreemptionRefused { reason, .. }] = events.as_slice() else {
            panic!("{events:#?}");
        };
        assert_eq!(reason, expected);
    }
    let stale = Preemption {
        run: first,
        attempt: 2,
        claimant: owner,
    };
    let good = Preemption {
        run: second,
        attempt: 1,
        claimant: owner,
    };
    let events = world.apply(Command::Preempt {
        preemptions: vec![stale, good],
    });
    assert!(
        matches!(
            events.as_slice(),
            [Event::PreemptionRefused { .. }, Event::RunStopping { .. }]
        ),
        "{events:#?}"
    );
}

#[test]
fn what_would_borrow_and_may_not_be_preempted_is_never_placed() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.quota("nlp", 1, None, None);
    let spec = WorkloadSpec {
        preemptible: false,
        ..gpus(1)
    };
    let first = world.submit_for("nlp", spec.clone());
    world.place_on(first, &[("node-1", &[0])]);
    let second = world.submit_for("nlp", spec);
    assert_eq!(
        world.try_place(placement(second, 1, &[("node-1", &[1])])),
        Err("it would borrow, and may not be preempted".to_owned())
    );
    let refusal = world.refuse(submit(WorkloadSpec {
        tenant: Some(tenant_name("nlp")),
        preemptible: false,
        ..gpus(2)
    }));
    assert_eq!(
        refusal.message,
        "2 GPUs are asked for, tenant nlp has a quota of 1 in pool default, and a run that may not be preempted borrows nothing"
    );
}

#[test]
fn quota_that_is_not_lent_is_kept_when_a_plan_is_applied_too() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.quota("nlp", 1, None, Some(0));
    let (first, second) = (
        world.submit_for("guests", gpus(1)),
        world.submit_for("guests", gpus(1)),
    );
    world.place_on(first, &[("node-1", &[0])]);
    assert_eq!(
        world.try_place(placement(second, 1, &[("node-1", &[1])])),
        Err("1 GPUs of the 1 that are idle are not lent".to_owned())
    );
}
