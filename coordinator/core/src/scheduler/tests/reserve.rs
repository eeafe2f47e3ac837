//! Devices kept for what is large, and who may use them meanwhile.

use crate::fixtures::*;
use crate::model::{EndKind, MemberPhase, RunId, WorkloadSpec};
use crate::scheduler::reserve::{BEYOND_LIMIT_US, MOST_RESERVATIONS};
use crate::scheduler::{Reservation, Tier, explain, plan};
use crate::state::Command;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * SECOND_US;

fn limited(minutes: u64, spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec {
        time_limit_ms: Some(minutes * 60_000),
        ..spec
    }
}

fn large_gang(nodes: u32, each: u32) -> WorkloadSpec {
    WorkloadSpec {
        nodes,
        ..gpus(each)
    }
}

/// Devices held on one of the nodes, and the time limit of who holds them in minutes.
type Held = (u32, Option<u64>);

/// A run that has been placed there and runs.
fn running_on(world: &mut World, spec: WorkloadSpec, node: &str, devices: &[u32]) -> RunId {
    let run = world.submit(spec);
    world.place_on(run, &[(node, devices)]);
    world.report(run, 0, MemberPhase::Running);
    run
}

fn reservations(world: &World) -> Vec<Reservation> {
    plan(&world.state, world.now_us).reservations
}

/// Applies something that changes nothing, so that the state's own clock is the world's.
fn tell_the_time(world: &mut World) {
    world.accept(Command::Place {
        placements: Vec::new(),
    });
}

fn nodes(reservation: &Reservation) -> BTreeSet<&str> {
    reservation
        .members
        .iter()
        .map(|member| member.node.as_str())
        .collect()
}

/// Two nodes of two GPUs, one of each taken for an hour; and a gang that needs both whole.
fn with_a_waiting_gang() -> (World, [RunId; 2], RunId) {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xA100-80G")]);
    let holders = [
        running_on(&mut world, limited(60, gpus(1)), "node-1", &[0]),
        running_on(&mut world, limited(30, gpus(1)), "node-2", &[1]),
    ];
    let gang = world.submit(large_gang(2, 2));
    (world, holders, gang)
}

#[test]
fn a_gang_that_found_no_room_for_too_long_has_its_nodes_kept_until_it_starts() {
    let (mut world, holders, gang) = with_a_waiting_gang();
    assert!(reservations(&world).is_empty());
    world.now_us += 5 * MINUTE_US;
    let kept = reservations(&world);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].run, gang);
    assert_eq!(nodes(&kept[0]), BTreeSet::from(["node-1", "node-2"]));
    let longest_us = SECOND_US + 60 * MINUTE_US + BEYOND_LIMIT_US;
    assert_eq!(kept[0].start_us, Some(longest_us));

    let forever = world.submit(gpus(1));
    let too_long = world.submit(limited(56, gpus(1)));
    let short = world.submit(limited(50, gpus(1)));
    assert_eq!(world.plan_and_place(), [short], "gone in time");
    for run in [holders[0], holders[1], short] {
        world.end(run, 0, EndKind::Exited { code: 0 });
    }
    assert_eq!(world.plan_and_place(), [gang]);
    let waiting = [forever, too_long].map(|run| world.run(run).attempts.len());
    assert_eq!(waiting, [0, 0]);
}

#[test]
fn before_that_what_is_small_goes_past() {
    let (mut world, _, _) = with_a_waiting_gang();
    let forever = world.submit(gpus(1));
    assert_eq!(world.plan_and_place(), [forever]);
}

#[test]
fn nodes_outside_a_reservation_are_for_everybody() {
    let (mut world, _, gang) = with_a_waiting_gang();
    world.now_us += 5 * MINUTE_US;
    world.join(describe("node-3", "default", "T4-16G"));
    let forever = world.submit(gpus(1));
    assert_eq!(nodes(&reservations(&world)[0]).len(), 2);
    assert_eq!(world.plan_and_place(), [forever]);
    assert_eq!(reservations(&world)[0].run, gang);
}

#[test]
fn only_the_devices_that_are_needed_are_kept() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G"), ("node-2", "A100-80G")]);
    running_on(&mut world, limited(60, gpus(1)), "node-2", &[0]);
    let gang = world.submit(gang(2));
    world.now_us += 5 * MINUTE_US;
    assert_eq!(reservations(&world)[0].run, gang);
    let three: Vec<RunId> = (0..3).map(|_| world.submit(gpus(1))).collect();
    let fourth = world.submit(gpus(1));
    assert_eq!(world.plan_and_place(), three);
    assert!(world.run(fourth).attempts.is_empty());
}

#[test]
fn nodes_with_known_ends_are_kept_before_others_and_then_those_with_the_least_to_wait_for() {
    let table: &[(&[Held], &[&str])] = &[
        (
            &[(1, None), (2, Some(90)), (2, Some(60))],
            &["node-2", "node-3"],
        ),
        (
            &[(2, None), (1, None), (2, Some(60))],
            &["node-2", "node-3"],
        ),
        (
            &[(2, Some(30)), (2, Some(20)), (1, Some(60))],
            &["node-1", "node-2"],
        ),
        (
            &[(2, Some(60)), (1, Some(60)), (1, Some(60))],
            &["node-2", "node-3"],
        ),
    ];
    for (held, expected) in table {
        let mut world = World::new();
        for (position, (count, minutes)) in held.iter().enumerate() {
            let name = format!("node-{}", position + 1);
            world.join(describe(&name, "default", "2xA100-80G"));
            let spec = WorkloadSpec {
                time_limit_ms: minutes.map(|minutes| minutes * 60_000),
                ..gpus(*count)
            };
            let devices: Vec<u32> = (0..*count).collect();
            running_on(&mut world, spec, &name, &devices);
        }
        world.submit(large_gang(2, 2));
        world.now_us += 5 * MINUTE_US;
        let kept = reservations(&world);
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        assert_eq!(nodes(&kept[0]), expected, "{held:?}");
    }
}

#[test]
fn where_an_end_is_not_known_only_what_is_shorter_than_the_wait_may_use_what_is_kept() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let forever = running_on(&mut world, gpus(1), "node-1", &[0]);
    let large = world.submit(gpus(2));
    world.now_us += 5 * MINUTE_US;
    let kept = reservations(&world);
    assert_eq!(kept[0].start_us, None);
    let _long = world.submit(limited(10, gpus(1)));
    let short = world.submit(limited(4, gpus(1)));
    assert_eq!(world.plan_and_place(), [short]);
    world.end(forever, 0, EndKind::Exited { code: 0 });
    // Nobody else comes once the last of those is gone that were there before.
    world.submit(limited(1, gpus(1)));
    assert_eq!(world.plan_and_place(), []);
    world.end(short, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.plan_and_place(), [large]);
}

#[test]
fn what_borrows_keeps_nothing_from_what_is_guaranteed() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.quota("nlp", 2, None, None);
    let holder = world.submit_for("guests", limited(60, gpus(1)));
    world.plan_and_place();
    world.report(holder, 0, MemberPhase::Running);
    let borrower = world.submit_for("guests", gpus(4));
    world.now_us += 5 * MINUTE_US;
    let kept = reservations(&world);
    assert_eq!((kept[0].run, kept[0].guaranteed), (borrower, false));
    let other = world.submit_for("guests", gpus(1));
    assert_eq!(world.plan_and_place(), []);
    let owner = world.submit_for("nlp", gpus(2));
    assert_eq!(world.plan_and_place(), [owner]);
    assert!(world.run(other).attempts.is_empty());
}

#[test]
fn each_tenant_has_one_reservation_and_a_pool_has_few() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    let holder = running_on(&mut world, limited(60, gpus(1)), "node-1", &[0]);
    for count in 0..6 {
        for _ in 0..2 {
            world.submit_for(&format!("team-{count}"), gpus(8));
        }
    }
    world.now_us += 5 * MINUTE_US;
    let kept = reservations(&world);
    let tenants: BTreeSet<_> = kept
        .iter()
        .map(|kept| &world.run(kept.run).tenant)
        .collect();
    assert_eq!(
        (kept.len(), tenants.len()),
        (MOST_RESERVATIONS, MOST_RESERVATIONS)
    );
    assert!(
        kept.iter()
            .skip(1)
            .all(|later| later.start_us.is_none() && later.run > kept[0].run),
        "the others wait for the first, which has no time limit"
    );
    world.end(holder, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.plan_and_place(), [kept[0].run]);
}

#[test]
fn a_wait_says_what_is_kept_for_whom_and_which_time_limit_would_do() {
    let (mut world, _, gang) = with_a_waiting_gang();
    world.now_us += 5 * MINUTE_US;
    let small = world.submit(gpus(1));
    let pair = world.submit(WorkloadSpec {
        nodes: 2,
        ..gpus(1)
    });
    tell_the_time(&mut world);
    let waiting = explain(&world.state, world.run(gang));
    assert_eq!(waiting.tier, Tier::WaitingForCapacity);
    assert_eq!(
        waiting.reasons,
        [
            "2 of 2 nodes: GPUs exhausted",
            "devices of 2 nodes (node-2, node-1) are kept for it: it starts in 3360 s at the latest, \
             by the time limits of what runs there"
        ]
    );
    for run in [small, pair] {
        let waiting = explain(&world.state, world.run(run));
        assert_eq!(waiting.tier, Tier::WaitingForReserved);
        assert_eq!(
            waiting.summary,
            format!("the room that is free is kept for {gang}")
        );
        assert_eq!(
            waiting.reasons,
            [format!(
                "devices of 2 nodes (node-2, node-1) are kept for {gang}, which has found no room for 300 s"
            )]
        );
        assert_eq!(
            waiting.hint.as_deref(),
            Some(
                "what will be gone before run-3 starts may use it meanwhile: --time-limit 3300s or less"
            )
        );
    }
}

#[test]
fn who_claims_takes_nothing_that_is_kept_for_another_within_its_guarantee() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xT4-16G")]);
    world.quota("nlp", 2, None, None);
    world.quota("vision", 2, None, None);
    let a_little = WorkloadSpec {
        cpu_milli: Some(1_000),
        ..gpus(1)
    };
    let holder = world.submit_for("nlp", limited(60, a_little));
    world.place_on(holder, &[("node-1", &[0])]);
    world.report(holder, 0, MemberPhase::Running);
    let borrower = world.submit_for("guests", gpus(2));
    world.place_on(borrower, &[("node-2", &[0, 1])]);
    // It waits for the CPU of its own tenant's run.
    let whole = WorkloadSpec {
        cpu_milli: Some(64_000),
        gpu_model: Some("A100".to_owned()),
        ..gpus(1)
    };
    world.set_policy(|policy| policy.minimum_run_ms = 3_600_000);
    let own = world.submit_for("nlp", whole);
    world.now_us += 5 * MINUTE_US;
    let kept = reservations(&world);
    assert_eq!(kept[0].run, own);
    world.set_policy(|policy| policy.minimum_run_ms = 0);
    let pair = world.submit_for("vision", gang(2));
    assert_eq!(
        world.plan_and_preempt(),
        [],
        "its other member would be where nlp starts"
    );
    world.cancel(pair);
    world.submit_for("vision", gpus(2));
    assert_eq!(world.plan_and_preempt(), [borrower]);
}

/// What arrives while a gang waits.
#[derive(Debug, Clone)]
struct Arrival {
    after_s: u64,
    tenant: usize,
    devices: u32,
    limit_s: u64,
    /// Until it begins, and how much of its limit it then runs, in hundredths; more than 100: it is
    /// killed at its limit and takes so much of its grace.
    install_s: u64,
    runs_percent: u64,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (
        1_u64..90,
        0_usize..3,
        1_u32..4,
        1_u64..1_200,
        0_u64..60,
        1_u64..110,
    )
        .prop_map(
            |(after_s, tenant, devices, limit_s, install_s, runs_percent)| Arrival {
                after_s,
                tenant,
                devices,
                limit_s,
                install_s,
                runs_percent,
            },
        );
    proptest::collection::vec(arrival, 60..160)
}

/// What is to happen to a run that was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Begin(RunId),
    End(RunId),
    Arrive(usize),
}

const TENANTS: [&str; 3] = ["default", "nlp", "vision"];

/// Plays arrivals against a pool, and says how long the gang waited, `None`: it never started.
fn wait_of_gang(nodes: u32, arrivals: &[Arrival], gang_after: usize) -> Option<u64> {
    let mut world = World::new();
    for node in 0..nodes {
        world.join(describe(&format!("node-{node}"), "default", "3xA100-80G"));
    }
    let mut agenda: BTreeSet<(u64, Next)> = BTreeSet::new();
    let mut at_us = world.now_us;
    for (position, arrival) in arrivals.iter().enumerate() {
        at_us += arrival.after_s * SECOND_US;
        agenda.insert((at_us, Next::Arrive(position)));
    }
    let mut shapes: std::collections::BTreeMap<RunId, Arrival> = std::collections::BTreeMap::new();
    let mut gang: Option<(RunId, u64)> = None;
    while let Some((at_us, next)) = agenda.pop_first() {
        world.now_us = world.now_us.max(at_us);
        match next {
            Next::Arrive(position) => {
                let arrival = &arrivals[position];
                let run = world.submit_for(
                    TENANTS[arrival.tenant],
                    WorkloadSpec {
                        time_limit_ms: Some(arrival.limit_s * 1000),
                        ..gpus(arrival.devices)
                    },
                );
                shapes.insert(run, arrival.clone());
                if position == gang_after {
                    // What is ahead of it goes first: let it be the first.
                    for run in world.state.live().clone() {
                        if world.run(run).attempts.is_empty() {
                            world.cancel(run);
                        }
                    }
                    gang = Some((
                        world.submit_for("research", large_gang(nodes, 3)),
                        world.now_us,
                    ));
                }
            }
            Next::Begin(run) => {
                world.report(run, 0, MemberPhase::Running);
            }
            Next::End(run) => {
                world.end(run, 0, EndKind::Exited { code: 0 });
            }
        }
        for run in world.plan_and_place() {
            let Some(arrival) = shapes.get(&run) else {
                let since_us = gang.expect("only the gang has no shape").1;
                return Some(world.now_us - since_us);
            };
            let begins_us = world.now_us + arrival.install_s * SECOND_US;
            let killed_us = 30 * SECOND_US * (arrival.runs_percent.saturating_sub(100)) / 10;
            let ran_us = arrival.limit_s * SECOND_US * arrival.runs_percent.min(100) / 100;
            agenda.insert((begins_us, Next::Begin(run)));
            agenda.insert((begins_us + ran_us + killed_us + 1, Next::End(run)));
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However many small runs with time limits come, from however many tenants, a gang of the whole
    /// pool that is next and whose tenant holds nothing starts within the wait that the policy states and the
    /// longest time limit, with what installing and ending take.
    #[test]
    fn a_gang_of_the_whole_pool_starts_within_the_stated_wait_and_the_longest_time_limit(
        nodes in 1_u32..5,
        arrivals in arrivals(),
        gang_after in 0_usize..60,
    ) {
        let longest_us = arrivals.iter().map(|arrival| arrival.limit_s).max().unwrap_or(0) * SECOND_US;
        let waited_us = wait_of_gang(nodes, &arrivals, gang_after);
        let bound_us = 5 * MINUTE_US + longest_us + 2 * BEYOND_LIMIT_US;
        prop_assert!(
            waited_us.is_some_and(|waited_us| waited_us <= bound_us),
            "it waited {waited_us:?} us of at most {bound_us}"
        );
    }
}
