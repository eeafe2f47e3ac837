//! Quota, borrowing and taking back, as plans see them.

use crate::fixtures::*;
use crate::model::{EndKind, RunId, WorkloadSpec};
use crate::scheduler::{Tier, explain, plan};
use crate::state::{Command, ParentChange};

const MINUTE_US: u64 = 60_000_000;

fn priority(priority: i32, spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec { priority, ..spec }
}

fn stop(world: &mut World, runs: &[RunId]) {
    for run in runs {
        for member in 0..world.attempt(*run).members.len() as u32 {
            world.end(*run, member, EndKind::Stopped);
        }
    }
}

#[test]
fn what_is_guaranteed_goes_before_what_borrows_whoever_came_first() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.quota("nlp", 1, None, None);
    let borrower = world.submit_for("guests", priority(100, gpus(1)));
    world.submit_for("guests", gpus(1));
    let owner = world.submit_for("nlp", gpus(1));
    assert_eq!(world.plan_and_place(), [owner, borrower]);
}

#[test]
fn idle_quota_is_borrowed_as_far_as_it_is_lent() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    world.quota("nlp", 6, None, Some(2));
    for _ in 0..8 {
        world.submit_for("guests", gpus(1));
    }
    assert_eq!(world.plan_and_place().len(), 4, "2 of nobody, 2 lent");
    let waiting = world.state.live().last().copied().expect("one waits");
    let waiting = explain(&world.state, world.run(waiting));
    assert_eq!(waiting.tier, Tier::OverQuota);
    assert_eq!(
        waiting.summary,
        "it would borrow 1 GPUs in pool default: 4 are idle, and 4 of them are not lent"
    );
}

#[test]
fn an_owner_has_its_quota_back_after_the_minimum_run_and_the_victims_grace() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.quota("nlp", 2, None, None);
    let borrowers: Vec<RunId> = (0..4)
        .map(|_| world.submit_for("guests", gpus(1)))
        .collect();
    world.plan_and_place();
    let placed_us = world.now_us;
    let owner = world.submit_for("nlp", gpus(2));
    let waits = plan(&world.state, world.now_us);
    assert!(waits.is_empty());
    assert_eq!(
        waits.again_at_us,
        Some(placed_us + world.state.policy().minimum_run_ms * 1000),
        "it says when to look again"
    );
    world.now_us = waits.again_at_us.expect("a time");
    let stopped = world.plan_and_preempt();
    assert_eq!(stopped, [borrowers[0], borrowers[1]]);
    assert_eq!(
        explain(&world.state, world.run(owner)).tier,
        Tier::WaitingForPreempted
    );
    // While they have their grace, nobody else is stopped and nobody takes what comes free.
    assert!(plan(&world.state, world.now_us + MINUTE_US).is_empty());
    stop(&mut world, &stopped[..1]);
    let thief = world.submit_for("guests", priority(100, gpus(1)));
    assert!(plan(&world.state, world.now_us).is_empty(), "it is held");
    stop(&mut world, &stopped[1..]);
    assert_eq!(world.plan_and_place(), [owner]);
    assert!(world.state.queues().contains(world.run(thief)));
}

#[test]
fn the_least_work_is_lost_then_the_fewest_are_stopped_and_nobody_in_vain() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xT4-16G")]);
    world.quota("nlp", 2, None, None);
    let old = world.submit_for("guests", gpus(1));
    world.place_on(old, &[("node-1", &[0])]);
    world.now_us += 10 * MINUTE_US;
    let young = world.submit_for("guests", gpus(1));
    world.place_on(young, &[("node-1", &[1])]);
    let elsewhere = world.submit_for("guests", gpus(2));
    world.place_on(elsewhere, &[("node-2", &[0, 1])]);
    world.now_us += MINUTE_US;
    world.submit_for(
        "nlp",
        WorkloadSpec {
            gpu_model: Some("A100".to_owned()),
            ..gpus(1)
        },
    );
    assert_eq!(world.plan_and_preempt(), [young]);
}

#[test]
fn nobody_is_stopped_where_that_makes_no_room() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.quota("nlp", 2, None, None);
    let mine = world.submit_for("nlp", gpus(1));
    let borrower = world.submit_for("guests", gpus(1));
    world.plan_and_place();
    world.now_us += MINUTE_US;
    // The node would have to be empty, and nlp's own run stays.
    world.submit_for("nlp", gpus(2));
    assert!(plan(&world.state, world.now_us).is_empty());
    for run in [mine, borrower] {
        assert!(world.attempt(run).stopping.is_none());
    }
}

#[test]
fn a_gang_takes_back_on_as_many_nodes_as_it_needs_and_no_more() {
    let mut world = World::with_nodes(&[
        ("node-1", "2xA100-80G"),
        ("node-2", "2xA100-80G"),
        ("node-3", "2xA100-80G"),
    ]);
    world.quota("nlp", 4, None, None);
    let borrowers: Vec<RunId> = (0..3)
        .map(|_| world.submit_for("guests", gpus(2)))
        .collect();
    world.plan_and_place();
    world.now_us += MINUTE_US;
    let owner = world.submit_for(
        "nlp",
        WorkloadSpec {
            nodes: 2,
            ..gpus(2)
        },
    );
    let stopped = world.plan_and_preempt();
    assert_eq!(stopped, borrowers[..2]);
    stop(&mut world, &stopped);
    assert_eq!(world.plan_and_place(), [owner]);
}

#[test]
fn a_sibling_gives_back_before_another_branch_does() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    for tenant in ["research", "nlp", "vision", "products"] {
        world.tenant(tenant);
    }
    for tenant in ["nlp", "vision"] {
        world.accept(Command::SetTenant {
            tenant: tenant_name(tenant),
            parent: ParentChange::Under(tenant_name("research")),
            weight: None,
        });
    }
    world.quota("research", 3, None, None);
    world.quota("nlp", 2, None, None);
    world.quota("vision", 1, None, None);
    world.quota("products", 1, None, None);
    let sibling = world.submit_for("vision", gpus(2));
    world.plan_and_place();
    world.now_us += MINUTE_US;
    let other = world.submit_for("products", gpus(2));
    world.plan_and_place();
    world.now_us += MINUTE_US;
    // Research holds 2 of its 3. With 2 more it would pass them, so products owes it nothing, though
    // it borrows too and has less to lose.
    world.submit_for("nlp", gpus(2));
    assert_eq!(world.plan_and_preempt(), [sibling]);
    assert!(world.attempt(other).stopping.is_none());
}

#[test]
fn a_higher_priority_makes_room_within_its_tenant_and_its_limit() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.quota("nlp", 2, Some(2), None);
    let (first, second) = (
        world.submit_for("nlp", priority(-1, gpus(1))),
        world.submit_for("nlp", priority(-2, gpus(1))),
    );
    let other = world.submit_for("guests", gpus(2));
    world.plan_and_place();
    world.now_us += MINUTE_US;
    let urgent = world.submit_for("nlp", priority(10, gpus(1)));
    let stopped = world.plan_and_preempt();
    assert_eq!(stopped.len(), 1);
    assert!(
        [first, second].contains(&stopped[0]),
        "equal loss: {stopped:?}"
    );
    stop(&mut world, &stopped);
    assert_eq!(world.plan_and_place(), [urgent]);
    assert!(world.attempt(other).stopping.is_none());
}

#[test]
fn idle_devices_are_shared_by_weight_whatever_the_length_of_the_queue() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    for _ in 0..500 {
        world.submit_for("greedy", priority(100, gpus(1)));
    }
    for _ in 0..8 {
        world.submit_for("modest", gpus(1));
    }
    world.accept(Command::SetTenant {
        tenant: tenant_name("modest"),
        parent: ParentChange::Keep,
        weight: Some(3),
    });
    world.plan_and_place();
    let pool = pool_name("default");
    let held = ["greedy", "modest"].map(|name| world.state.used_milli(&tenant_name(name), &pool));
    assert_eq!(held, [2_000, 6_000]);
}

#[test]
fn a_department_with_many_teams_gets_no_more_turns_than_one_with_one() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    for tenant in ["many", "one"] {
        world.tenant(tenant);
    }
    for team in 0..4 {
        let team = format!("team-{team}");
        world.tenant(&team);
        world.accept(Command::SetTenant {
            tenant: tenant_name(&team),
            parent: ParentChange::Under(tenant_name("many")),
            weight: None,
        });
        for _ in 0..8 {
            world.submit_for(&team, gpus(1));
        }
    }
    for _ in 0..8 {
        world.submit_for("one", gpus(1));
    }
    world.plan_and_place();
    let pool = pool_name("default");
    let held = ["many", "one", "team-0", "team-3"]
        .map(|name| world.state.used_milli(&tenant_name(name), &pool));
    assert_eq!(held, [4_000, 4_000, 1_000, 1_000]);
}
