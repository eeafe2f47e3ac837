//! Who gets which devices next, what a pass costs, and how a wait is explained.

mod decisions;
mod estimate;
mod fair_share;
mod flood;
mod idle;
mod models;
mod needed;
mod outlook;
mod reclaim;
mod reserve;
mod reserve_kept;
mod topology;

use super::{MOST_LINES_REFUSED, MOST_PLACEMENTS, Plan, Planner, Tier, explain, plan};
use crate::fixtures::*;
use crate::model::{EndKind, RunId, WorkloadSpec};
use crate::state::{Command, MemberPlacement, QuotaChange};

fn priority(priority: i32, spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec { priority, ..spec }
}

#[test]
fn higher_priority_goes_first_then_the_order_of_submission() {
    let mut world = World::with_nodes(&[("node-1", "3xA100-80G")]);
    let low = world.submit(priority(-5, gpus(1)));
    let first = world.submit(gpus(1));
    let second = world.submit(gpus(1));
    let high = world.submit(priority(100, gpus(1)));
    assert_eq!(world.plan_and_place(), [high, first, second]);
    assert_eq!(world.state.queues().ahead(world.run(low)), Some(0));
    assert_eq!(world.state.queues().ahead(world.run(high)), None);
}

#[test]
fn smaller_runs_pass_one_that_does_not_fit() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    let holder = world.submit(gpus(2));
    world.plan_and_place();
    let large = world.submit(gpus(4));
    let (small, smaller) = (world.submit(gpus(1)), world.submit(share(500)));
    assert_eq!(world.plan_and_place(), [small, smaller]);
    for run in [holder, small, smaller] {
        world.end(run, 0, EndKind::Exited { code: 0 });
    }
    assert_eq!(world.plan_and_place(), [large]);
}

#[test]
fn a_quota_stops_its_tenant_and_nobody_else() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    let first = world.submit_for("nlp", gpus(1));
    world.accept(Command::SetQuota(QuotaChange {
        tenant: tenant_name("nlp"),
        pool: pool_name("default"),
        model: None,
        gpu_milli: Some(1_500),
        limit_milli: Some(1_500),
        lend_milli: None,
    }));
    world.submit_for("nlp", gpus(1));
    let half = world.submit_for("nlp", share(500));
    let other = world.submit_for("vision", gpus(1));
    assert_eq!(world.plan_and_place(), [first, half, other]);
}

#[test]
fn a_gang_is_placed_on_distinct_nodes_or_not_at_all() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "A100-80G")]);
    let holder = world.submit(gpus(1));
    world.place_on(holder, &[("node-2", &[0])]);
    let pair = world.submit(gang(2));
    assert!(plan(&world.state, world.now_us).is_empty());
    let waiting = explain(&world.state, world.run(pair));
    assert_eq!(waiting.tier, Tier::WaitingForGang);
    assert_eq!(
        waiting.summary,
        "1 of the 2 nodes it needs at once have room"
    );
    assert_eq!(waiting.reasons, ["1 of 2 nodes: GPUs exhausted"]);
    world.end(holder, 0, EndKind::Exited { code: 0 });
    let placements = plan(&world.state, world.now_us).placements;
    let nodes: Vec<&str> = placements[0]
        .members
        .iter()
        .map(|m| m.node.as_str())
        .collect();
    assert_eq!(nodes, ["node-2", "node-1"], "the tightest first");
}

#[test]
fn fractions_pack_onto_the_fullest_device_that_holds_them() {
    let mut world = World::with_nodes(&[("node-1", "3xA100-80G")]);
    let (third, half) = (world.submit(share(300)), world.submit(share(600)));
    world.place_on(third, &[("node-1", &[1])]);
    world.place_on(half, &[("node-1", &[2])]);
    let next = world.submit(share(400));
    let then = world.submit(share(500));
    let whole = world.submit(gpus(1));
    assert_eq!(world.plan_and_place(), [next, then, whole]);
    let on = |run| world.attempt(run).members[0].devices[0].device.clone();
    assert_eq!(on(next), device("node-1", 2));
    assert_eq!(on(then), device("node-1", 1));
    assert_eq!(on(whole), device("node-1", 0), "a whole one was kept free");
}

#[test]
fn small_runs_fill_the_fullest_node_and_leave_whole_nodes_to_large_ones() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G"), ("node-2", "4xA100-80G")]);
    let first = world.submit(gpus(1));
    world.place_on(first, &[("node-2", &[0])]);
    world.submit(gpus(2));
    let large = world.submit(gpus(4));
    assert_eq!(world.plan_and_place().len(), 2);
    assert_eq!(world.attempt(large).members[0].node, node_name("node-1"));
}

#[test]
fn model_and_memory_choose_the_devices() {
    let mut world = World::with_nodes(&[("node-1", "T4-16G,A100-80G,A100-40G")]);
    let large = world.submit(WorkloadSpec {
        gpu_memory_mib: Some(50_000),
        ..gpus(1)
    });
    let named = world.submit(WorkloadSpec {
        gpu_model: Some("A100-40G".to_owned()),
        ..gpus(1)
    });
    world.plan_and_place();
    let on = |run| world.attempt(run).members[0].devices[0].device.clone();
    assert_eq!(on(large), device("node-1", 1));
    assert_eq!(on(named), device("node-1", 2));
    let of_the_family = world.submit(WorkloadSpec {
        gpu_model: Some("t4".to_owned()),
        ..gpus(1)
    });
    world.plan_and_place();
    assert_eq!(
        world.attempt(of_the_family).members[0].devices[0].device,
        device("node-1", 0)
    );
}

#[test]
fn every_pool_has_its_own_queue() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.join(describe("node-2", "gold", "A100-80G"));
    world.submit(gpus(1));
    world.submit(gpus(1));
    let gold = world.submit(WorkloadSpec {
        pool: Some(pool_name("gold")),
        ..gpus(1)
    });
    let placed = world.plan_and_place();
    assert_eq!(placed.len(), 2);
    assert_eq!(world.attempt(gold).members[0].node, node_name("node-2"));
}

#[test]
fn a_pass_over_two_thousand_equal_runs_looks_for_room_once_more_than_it_places() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    for _ in 0..2_000 {
        world.submit(gpus(1));
    }
    let (Plan { placements, .. }, looks) =
        Planner::default().plan_counted(&world.state, world.now_us);
    assert_eq!((placements.len(), looks), (8, 9));
}

#[test]
fn a_long_queue_that_does_not_fit_hides_nobody_behind_it() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    let holder = world.submit(gpus(7));
    world.plan_and_place();
    for count in 0..1_000 {
        world.submit_for("greedy", priority(10, gpus(2 + count % 7)));
    }
    let other = world.submit_for("modest", gpus(1));
    let (Plan { placements, .. }, looks) =
        Planner::default().plan_counted(&world.state, world.now_us);
    assert_eq!(
        placements.iter().map(|p| p.run).collect::<Vec<_>>(),
        [other]
    );
    assert_eq!(looks, 8);
    world.end(holder, 0, EndKind::Exited { code: 0 });
}

#[test]
fn runs_over_their_quota_cost_the_others_nothing() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    for _ in 0..600 {
        world.submit_for("capped", priority(10, gpus(1)));
    }
    world.accept(Command::SetQuota(QuotaChange {
        tenant: tenant_name("capped"),
        pool: pool_name("default"),
        model: None,
        gpu_milli: Some(2_000),
        limit_milli: Some(2_000),
        lend_milli: None,
    }));
    let other = world.submit_for("free", gpus(6));
    let (Plan { placements, .. }, looks) =
        Planner::default().plan_counted(&world.state, world.now_us);
    let runs: Vec<RunId> = placements.iter().map(|p| p.run).collect();
    assert_eq!(runs, [RunId(1), RunId(2), other]);
    assert_eq!(looks, 3);
}

#[test]
fn a_pass_gives_up_on_a_tenant_after_so_many_different_demands_that_found_no_room() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.submit(gpus(1));
    world.plan_and_place();
    for memory in 1..=MOST_LINES_REFUSED as u64 {
        world.submit(WorkloadSpec {
            gpu_memory_mib: Some(memory),
            ..gpus(1)
        });
    }
    world.submit(gpus(0));
    let (Plan { placements, .. }, looks) =
        Planner::default().plan_counted(&world.state, world.now_us);
    assert_eq!((placements.len(), looks), (0, MOST_LINES_REFUSED));
}

#[test]
fn a_larger_gang_of_a_refused_shape_is_passed_over_and_a_smaller_one_is_not() {
    let mut world = World::with_nodes(&[
        ("node-1", "A100-80G"),
        ("node-2", "A100-80G"),
        ("node-3", "A100-80G"),
    ]);
    let holder = world.submit(gpus(1));
    world.plan_and_place();
    world.submit(gang(3));
    world.submit(gang(3));
    let pair = world.submit(gang(2));
    let (Plan { placements, .. }, looks) =
        Planner::default().plan_counted(&world.state, world.now_us);
    assert_eq!((placements[0].run, placements.len(), looks), (pair, 1, 2));
    world.end(holder, 0, EndKind::Exited { code: 0 });
}

#[test]
fn a_plan_is_no_longer_than_one_log_entry_may_be() {
    let mut world = World::with_nodes(&[("node-1", "")]);
    for _ in 0..MOST_PLACEMENTS + 10 {
        world.submit(gpus(0));
    }
    assert_eq!(world.plan_and_place().len(), MOST_PLACEMENTS);
    assert_eq!(world.plan_and_place().len(), 10);
}

#[test]
fn a_plan_takes_no_device_twice_and_reads_only() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.submit(gpus(1));
    world.submit(gpus(1));
    let before = world.state.clone();
    let mut devices: Vec<_> = plan(&world.state, world.now_us)
        .placements
        .into_iter()
        .flat_map(|placement| placement.members)
        .flat_map(|MemberPlacement { devices, .. }| devices)
        .collect();
    devices.sort();
    assert_eq!(devices, [device("node-1", 0), device("node-1", 1)]);
    assert_eq!(before, world.state);
}

#[test]
fn every_wait_is_explained_with_counts_of_nodes() {
    let mut world = World::with_nodes(&[
        ("node-1", "2xA100-80G"),
        ("node-2", "T4-16G"),
        ("node-3", "A100-80G"),
    ]);
    world.accept(Command::Cordon {
        node: node_name("node-3"),
        reason: "x".to_owned(),
    });
    let holder = world.submit(gpus(2));
    world.plan_and_place();
    assert_eq!(
        explain(&world.state, world.run(holder)).tier,
        Tier::NotWaiting
    );
    let run = world.submit(WorkloadSpec {
        gpu_model: Some("A100-80G".to_owned()),
        ..gpus(1)
    });
    let waiting = explain(&world.state, world.run(run));
    assert_eq!(waiting.tier.as_str(), "waiting-for-capacity");
    assert_eq!(
        waiting.summary,
        "no node of pool default has room for 1 GPU now"
    );
    assert_eq!(
        waiting.reasons,
        [
            "1 of 3 nodes: not ready (cordoned, draining or lost)",
            "1 of 3 nodes: model mismatch",
            "1 of 3 nodes: GPUs exhausted",
        ]
    );
    world.accept(Command::Uncordon {
        node: node_name("node-3"),
    });
    assert_eq!(explain(&world.state, world.run(run)).tier, Tier::NextPlan);
    for node in ["node-1", "node-2", "node-3"] {
        world.accept(Command::Cordon {
            node: node_name(node),
            reason: "x".to_owned(),
        });
    }
    let waiting = explain(&world.state, world.run(run));
    assert_eq!(waiting.summary, "no node of pool default is ready");
    assert!(
        waiting
            .hint
            .is_some_and(|hint| hint.contains("platform nodes list"))
    );
    world.accept(Command::SetQuota(QuotaChange {
        tenant: tenant_name("default"),
        pool: pool_name("default"),
        model: None,
        gpu_milli: Some(2_500),
        limit_milli: Some(2_500),
        lend_milli: None,
    }));
    let waiting = explain(&world.state, world.run(run));
    assert_eq!(waiting.tier, Tier::OverLimit);
    assert_eq!(
        waiting.summary,
        "tenant default holds 2 of its limit of 2.5 GPUs in pool default, and this run asks for 1"
    );
}
