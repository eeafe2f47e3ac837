//! When a waiting run starts, as far as it is known.

use crate::fixtures::*;
use crate::model::{EndKind, MemberPhase, RunId, WorkloadSpec};
use crate::scheduler::{Durations, Estimate, estimate};

const SECOND_US: u64 = 1_000_000;

fn start_of(world: &World, run: RunId) -> Option<Estimate> {
    let durations = Durations::of(&world.state);
    estimate(world.state.live_copy(), &durations, run, world.now_us)
}

/// A run that holds its devices for so long, from now on.
fn past(world: &mut World, spec: WorkloadSpec, seconds: u64) {
    let run = world.submit(spec);
    assert_eq!(world.plan_and_place(), [run]);
    world.now_us += seconds * SECOND_US;
    world.end(run, 0, EndKind::Exited { code: 0 });
}

#[test]
fn where_nothing_is_known_nothing_is_made_up() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.submit(gpus(1));
    world.plan_and_place();
    let waits = world.submit(gpus(1));
    assert_eq!(start_of(&world, waits), None);
}

#[test]
fn a_time_limit_bounds_the_start_of_the_next() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let holder = world.submit(WorkloadSpec {
        time_limit_ms: Some(600_000),
        ..gpus(1)
    });
    world.plan_and_place();
    world.report(holder, 0, MemberPhase::Running);
    let started_us = world.now_us;
    world.now_us += 100 * SECOND_US;
    let waits = world.submit(gpus(1));
    let estimate = start_of(&world, waits).expect("a limit is known");
    assert_eq!(estimate.earliest_us, world.now_us, "it may end at once");
    assert_eq!(estimate.latest_us, started_us + 600 * SECOND_US);
    assert!(estimate.holds(world.now_us) && !estimate.holds(started_us));
}

#[test]
fn runs_of_the_same_user_and_model_say_how_long_the_holder_will_be() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let bert = || WorkloadSpec {
        model: Some("bert".to_owned()),
        ..gpus(1)
    };
    for seconds in [100, 200, 300, 400, 500] {
        past(&mut world, bert(), seconds);
    }
    past(&mut world, gpus(1), 9_000);
    let holder = world.submit(bert());
    world.plan_and_place();
    let placed_us = world.attempt(holder).placed_us;
    world.now_us += 150 * SECOND_US;
    let first = world.submit(bert());
    let second = world.submit(bert());
    let estimate = start_of(&world, first).expect("five are known");
    assert_eq!(
        estimate.earliest_us,
        placed_us + 200 * SECOND_US,
        "it has outlasted the first"
    );
    assert_eq!(estimate.latest_us, placed_us + 500 * SECOND_US);
    let behind = start_of(&world, second).expect("the one before it is known too");
    assert_eq!(behind.earliest_us, placed_us + 300 * SECOND_US);
    assert_eq!(behind.latest_us, placed_us + 1_000 * SECOND_US);
}

#[test]
fn a_run_whose_room_is_free_starts_now() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let waits = world.submit(gpus(1));
    let estimate = start_of(&world, waits).expect("there is room");
    assert_eq!(
        (estimate.earliest_us, estimate.latest_us),
        (world.now_us, world.now_us)
    );
}

#[test]
fn an_owner_starts_once_the_borrower_has_run_for_its_first_while() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let guest = world.submit_for("guests", gpus(2));
    world.plan_and_place();
    world.quota("nlp", 1, None, None);
    let owner = world.submit_for("nlp", gpus(1));
    let estimate = start_of(&world, owner).expect("it is owed");
    assert_eq!(
        estimate.latest_us,
        world.attempt(guest).placed_us + 30 * SECOND_US
    );
}

#[test]
fn many_ends_are_played_in_few_plans() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G"), ("node-2", "8xA100-80G")]);
    for seconds in [10, 20, 30] {
        past(&mut world, share(100), seconds);
    }
    for _ in 0..160 {
        world.submit(share(100));
    }
    assert_eq!(world.plan_and_place().len(), 160);
    let waits = world.submit(WorkloadSpec {
        nodes: 2,
        ..gpus(8)
    });
    let estimate = start_of(&world, waits).expect("every holder is known");
    assert_eq!(estimate.latest_us, world.now_us + 30 * SECOND_US);
}
