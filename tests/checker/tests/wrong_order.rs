//! The checker finds plans that fit and yet break a promise: of wires and racks, of the order of one
//! tenant's runs, and of devices that are kept.

#[path = "../../../coordinator/core/src/fixtures.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod fixtures;

use coordinator_core::model::*;
use coordinator_core::scheduler::{Plan, plan};
use fixtures::*;
use platform_checker::{Violation, judge};

const MINUTE_US: u64 = 60_000_000;

/// What is spoilt, how, and what must be found.
type Case = (&'static str, fn(&mut Plan), fn(&Violation) -> bool);

/// The planner's own plan is right, and each way of spoiling it is found.
fn check(world: &World, table: &[Case]) {
    let right = plan(&world.state, world.now_us);
    let found = judge(&world.state, &right, world.now_us);
    assert_eq!(found, [], "the right plan: {right:#?}");
    for (what, spoil, is_expected) in table {
        let mut wrong = right.clone();
        spoil(&mut wrong);
        let found = judge(&world.state, &wrong, world.now_us);
        assert!(found.iter().any(is_expected), "{what}: {found:#?}");
    }
}

/// A node of eight devices in two islands of four.
fn join_wired(world: &mut World, name: &str) {
    let mut description = describe(name, "default", "8xA100-80G");
    for device in &mut description.devices {
        device.wiring.nvlink_island = Some(device.index / 4);
    }
    world.join(description);
}

fn in_racks(spread: bool) -> World {
    let mut world = World::new();
    for (name, rack) in [("node-1", "r1"), ("node-2", "r1"), ("node-3", "r2")] {
        let mut description = describe(name, "default", "2xA100-80G");
        description.rack = Some(rack.to_owned());
        world.join(description);
    }
    world.submit(WorkloadSpec {
        nodes: 2,
        spread,
        ..gpus(2)
    });
    world
}

fn limited(minutes: u64, spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec {
        time_limit_ms: Some(minutes * 60_000),
        ..spec
    }
}

#[test]
fn a_member_that_lies_over_two_islands_though_one_has_room_is_found() {
    let mut world = World::new();
    join_wired(&mut world, "node-1");
    join_wired(&mut world, "node-2");
    for device in [0, 1, 4, 5, 6] {
        let run = world.submit(gpus(1));
        world.place_on(run, &[("node-1", &[device])]);
    }
    let run = world.submit(gpus(3));
    assert_eq!(run, RunId(6));
    check(
        &world,
        &[
            (
                "the other node has a whole island",
                |plan| plan.placements = vec![placement(RunId(6), 1, &[("node-1", &[2, 3, 7])])],
                |found| {
                    matches!(found, Violation::SplitOverIslands { whole_on, .. }
                        if whole_on.as_str() == "node-2")
                },
            ),
            (
                "so has its own node",
                |plan| plan.placements = vec![placement(RunId(6), 1, &[("node-2", &[2, 3, 4])])],
                |found| {
                    matches!(found, Violation::SplitOverIslands { node, whole_on, .. }
                        if node == whole_on)
                },
            ),
        ],
    );
}

#[test]
fn a_gang_in_more_racks_than_hold_it_or_not_spread_where_it_asks_for_that_is_found() {
    check(
        &in_racks(false),
        &[(
            "two racks",
            |plan| {
                let members: [(&str, &[u32]); 2] = [("node-1", &[0, 1]), ("node-3", &[0, 1])];
                plan.placements = vec![placement(RunId(1), 1, &members)];
            },
            |found| {
                matches!(
                    found,
                    Violation::WrongRacks {
                        racks: 2,
                        needed: 1,
                        ..
                    }
                )
            },
        )],
    );
    check(
        &in_racks(true),
        &[(
            "one rack",
            |plan| {
                let members: [(&str, &[u32]); 2] = [("node-1", &[0, 1]), ("node-2", &[0, 1])];
                plan.placements = vec![placement(RunId(1), 1, &members)];
            },
            |found| {
                matches!(
                    found,
                    Violation::WrongRacks {
                        racks: 1,
                        needed: 2,
                        ..
                    }
                )
            },
        )],
    );
}

#[test]
fn a_run_that_passes_one_of_its_tenant_that_stands_before_it_is_found() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let runs = [world.submit(gpus(1)), world.submit(gpus(2))];
    assert_eq!(runs, [RunId(1), RunId(2)]);
    check(
        &world,
        &[(
            "submitted later, and larger",
            |plan| plan.placements = vec![placement(RunId(2), 1, &[("node-1", &[0, 1])])],
            |found| {
                matches!(
                    found,
                    Violation::PassedOver {
                        run: RunId(1),
                        by: RunId(2)
                    }
                )
            },
        )],
    );
}

#[test]
fn a_promise_that_cannot_be_kept_or_is_broken_by_a_guest_is_found() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xA100-80G")]);
    for (node, minutes) in [("node-1", 60), ("node-2", 30)] {
        let run = world.submit(limited(minutes, gpus(1)));
        world.place_on(run, &[(node, &[0])]);
        world.report(run, 0, MemberPhase::Running);
    }
    world.submit(WorkloadSpec {
        nodes: 2,
        ..gpus(2)
    });
    world.now_us += 5 * MINUTE_US;
    let forever = world.submit(gpus(1));
    assert_eq!(forever, RunId(4));
    check(
        &world,
        &[
            (
                "a microsecond too early",
                |plan| {
                    let start_us = &mut plan.reservations[0].start_us;
                    *start_us = start_us.map(|start_us| start_us - 1);
                },
                |found| {
                    matches!(found, Violation::PromiseNotKept { run: RunId(3), node, .. }
                        if node.as_str() == "node-1")
                },
            ),
            (
                "for half of the gang",
                |plan| drop(plan.reservations[0].members.pop()),
                |found| matches!(found, Violation::IncompleteGang { run: RunId(3), .. }),
            ),
            (
                "for a run that is over",
                |plan| plan.reservations[0].run = RunId(1),
                |found| matches!(found, Violation::NotWaiting { run: RunId(1) }),
            ),
            (
                "a guest who stays",
                |plan| plan.placements = vec![placement(RunId(4), 1, &[("node-1", &[1])])],
                |found| {
                    matches!(
                        found,
                        Violation::DelaysReserved {
                            run: RunId(3),
                            by: RunId(4),
                            end_us: None,
                            ..
                        }
                    )
                },
            ),
        ],
    );
}
