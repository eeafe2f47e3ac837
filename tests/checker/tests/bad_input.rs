//! What nobody would ask for, and somebody will: each has a clear refusal or a bounded effect.
//!
//! Circles in the tree, quotas above the pool, limits below quotas, absurd sizes and gangs larger than
//! any cluster are refused where they are set or submitted: the tests of `state` hold those.

#[path = "../../../coordinator/core/src/fixtures.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod fixtures;

use coordinator_core::model::*;
use coordinator_core::scheduler::{Plan, Planner, plan};
use coordinator_core::state::{Command, Entry, Event, State};
use fixtures::*;
use platform_checker::judge;

const MINUTE_US: u64 = 60_000_000;
const MILLION: u64 = 1_000_000;

fn right_plan(world: &World) -> Plan {
    let plan = plan(&world.state, world.now_us);
    assert_eq!(judge(&world.state, &plan, world.now_us), []);
    plan
}

#[test]
fn runs_that_wait_for_a_pool_that_is_emptied_wait_on_and_cost_nobody_anything() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.join(describe("gold-1", "gold", "2xH100-80G"));
    let golden = |count| WorkloadSpec {
        pool: Some(pool_name("gold")),
        ..gpus(count)
    };
    let held = world.submit(golden(2));
    world.plan_and_place();
    let waits = world.submit(golden(1));
    // Its only node moves away.
    world.end(held, 0, EndKind::Exited { code: 0 });
    world.join(describe("gold-1", "default", "2xH100-80G"));
    assert!(right_plan(&world).is_empty());
    let refused = world.refuse(submit(golden(1)));
    assert!(
        refused.message.contains("has no nodes"),
        "{}",
        refused.message
    );
    let small = world.submit(gpus(2));
    assert_eq!(world.plan_and_place(), [small]);
    world.cancel(waits);
    assert_eq!(world.outcome(waits), Some(RunOutcome::Cancelled));
    // And when nodes come back, so does what waits.
    let again = world.submit(gpus(1));
    world.join(describe("gold-2", "gold", "H100-80G"));
    let golden = world.submit(golden(1));
    let mut placed = world.plan_and_place();
    placed.sort();
    assert_eq!(placed, [again, golden]);
}

#[test]
fn runs_that_wait_for_a_model_that_is_renamed_wait_and_are_told_why() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let of_model = |model: &str| WorkloadSpec {
        gpu_model: Some(model.to_owned()),
        ..gpus(1)
    };
    let held = world.submit(gpus(2));
    world.plan_and_place();
    let waits = world.submit(of_model("A100-80G"));
    // A driver that names the same devices otherwise, as one did between two releases.
    world.join(describe("node-1", "default", "2xA100SXM-80G"));
    world.end(held, 0, EndKind::Exited { code: 0 });
    assert!(right_plan(&world).is_empty(), "it asked for another");
    let explained = coordinator_core::scheduler::explain(&world.state, world.run(waits));
    assert_eq!(explained.reasons, ["1 of 1 nodes: model mismatch"]);
    let refused = world.refuse(submit(of_model("A100-80G")));
    assert_eq!(refused.allowed.as_deref(), Some("A100SXM-80G"));
    let renamed = world.submit(of_model("a100sxm"));
    assert_eq!(world.plan_and_place(), [renamed]);
}

#[test]
fn a_gang_that_outgrew_its_cluster_waits_and_those_behind_it_start() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xA100-80G")]);
    let held = world.submit(gpus(2));
    world.plan_and_place();
    let pair = world.submit(WorkloadSpec {
        nodes: 2,
        ..gpus(2)
    });
    // The second node comes back with half of its devices.
    world.join(describe("node-2", "default", "A100-80G"));
    world.end(held, 0, EndKind::Exited { code: 0 });
    let small = world.submit(gpus(2));
    assert_eq!(world.plan_and_place(), [small]);
    world.now_us += 1_000 * MINUTE_US;
    // However long it waits, nothing is kept for what can never be.
    world.end(small, 0, EndKind::Exited { code: 0 });
    let next = world.submit(gpus(2));
    assert_eq!(world.plan_and_place(), [next]);
    assert!(world.state.queues().contains(world.run(pair)));
    let refused = world.refuse(submit(gang(3)));
    assert_eq!(refused.allowed.as_deref(), Some("up to --nodes 2"));
}

#[test]
fn a_quota_lowered_below_use_stops_nobody_until_an_owner_asks() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.quota("nlp", 4, None, None);
    let held: Vec<RunId> = (0..4).map(|_| world.submit_for("nlp", gpus(1))).collect();
    world.plan_and_place();
    world.now_us += MINUTE_US;
    world.quota("nlp", 1, Some(2), None);
    assert!(right_plan(&world).is_empty());
    world.submit_for("nlp", gpus(1));
    assert!(
        right_plan(&world).is_empty(),
        "and gives it nothing above its limit"
    );
    world.quota("vision", 2, None, None);
    world.submit_for("vision", gpus(2));
    let plan = right_plan(&world);
    assert_eq!(plan.preemptions.len(), 2);
    assert!(
        plan.preemptions
            .iter()
            .all(|stopped| held.contains(&stopped.run))
    );
}

#[test]
fn the_largest_numbers_there_are_overflow_nothing() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    for spec in [
        gpus(u32::MAX),
        WorkloadSpec {
            nodes: u32::MAX,
            ..gpus(u32::MAX)
        },
        WorkloadSpec {
            cpu_milli: Some(u64::MAX),
            ..gpus(1)
        },
        WorkloadSpec {
            memory_mib: Some(u64::MAX),
            ..gpus(1)
        },
        WorkloadSpec {
            gpu_memory_mib: Some(u64::MAX),
            ..gpus(1)
        },
    ] {
        let refused = world.refuse(submit(spec));
        assert!(refused.allowed.is_some(), "{refused:?}");
    }
    let longest = world.submit(WorkloadSpec {
        time_limit_ms: Some(u64::MAX),
        ..gpus(1)
    });
    assert_eq!(world.plan_and_place(), [longest]);
    world.now_us = u64::MAX / 2;
    world.submit(gpus(2));
    assert!(right_plan(&world).is_empty());
}

#[test]
fn a_clock_that_stands_still_or_goes_back_changes_nothing() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.quota("nlp", 2, None, None);
    let guest = world.submit_for("guests", gpus(2));
    assert_eq!(world.plan_and_place(), [guest]);
    world.submit_for("nlp", gpus(1));
    // It is never old enough to give way, and it is said when it will be.
    let first = right_plan(&world);
    assert!(first.again_at_us > Some(world.now_us));
    for _ in 0..100 {
        assert_eq!(right_plan(&world), first);
        world.apply(Command::Place {
            placements: first.placements.clone(),
        });
    }
    // A leader whose clock is behind the last one's.
    world.now_us -= 500_000;
    assert!(right_plan(&world).is_empty());
    assert_eq!(right_plan(&world).again_at_us, first.again_at_us);
}

/// Without the checks of every invariant, which read the whole state.
fn apply(state: &mut State, command: Command) -> Vec<Event> {
    let entry = Entry {
        stamp_us: 1_000_000,
        actor: "user:ana".to_owned(),
        idempotency_key: None,
        command,
    };
    let index = state.index() + 1;
    state.apply(index, &entry)
}

#[test]
fn a_million_runs_of_one_user_lengthen_nobody_elses_wait() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G"), ("node-2", "8xA100-80G")]);
    world.tenant("modest");
    let held = world.submit(gpus(8));
    world.submit(gpus(8));
    world.plan_and_place();
    let mut state = world.state.clone();
    let shapes = [gpus(1), gpus(2), gpus(4), share(500), gang(2)];
    for (number, spec) in (0..MILLION).zip(shapes.iter().cycle()) {
        apply(&mut state, submit(spec.clone()));
        // The exporter keeps up.
        if number % 1_000 == 0 {
            let through = state.outbox_sequence();
            apply(&mut state, Command::AcknowledgeOutbox { through });
        }
    }
    let waiting = state.queues().waiting(&pool_name("default"));
    assert_eq!(waiting as u64, MILLION);
    let modest = WorkloadSpec {
        tenant: Some(tenant_name("modest")),
        ..gpus(8)
    };
    let events = apply(&mut state, submit(modest));
    let [Event::RunQueued { run: modest, .. }] = events[..] else {
        panic!("{events:?}");
    };
    let mut planner = Planner::default();
    assert!(planner.plan(&state, 1_000_000).is_empty());
    // What comes free next is the other's: it holds nothing, and a million runs are but one turn.
    let (node, mut report) = world.report_of(held, 0, MemberPhase::Ended);
    report.end = Some(end(EndKind::Exited { code: 0 }));
    let members = vec![report];
    apply(&mut state, Command::Report { node, members });
    let placements = planner.plan(&state, 1_000_000).placements;
    let placed: Vec<RunId> = placements.iter().map(|placed| placed.run).collect();
    assert_eq!(placed, [modest]);
}
