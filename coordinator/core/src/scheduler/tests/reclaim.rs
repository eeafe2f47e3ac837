//! Quota, borrowing and taking back, as plans see them.

use crate::fixtures::*;
use crate::model::{EndKind, MemberPhase, RunId, WorkloadSpec};
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
    let waiting = explain(&world.state, world.run(owner));
    assert_eq!(
        waiting.reasons,
        [
            "1 of 1 nodes: GPUs exhausted",
            "run-1, run-2, run-3, run-4 may have to give way to it, once each has run for 30 s",
            "devices of 1 node (node-1) are kept for it: it starts in 60 s at the latest, as those who borrow there give way",
        ]
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
fn nobody_comes_to_a_node_where_an_owner_waits_for_the_first_while_of_those_who_borrow() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G"), ("node-2", "2xT4-16G")]);
    world.quota("nlp", 4, None, None);
    let short = world.submit_for("guests", gpus(1));
    world.place_on(short, &[("node-1", &[0])]);
    let long = world.submit_for("guests", gpus(3));
    world.place_on(long, &[("node-1", &[1, 2, 3])]);
    let owner = world.submit_for("nlp", gpus(4));
    world.now_us += MINUTE_US / 6;
    world.end(short, 0, EndKind::Exited { code: 0 });
    // There is room on both nodes, and a first while of its own would begin on the one.
    let guest = world.submit_for("guests", gpus(1));
    let late = world.submit_for(
        "guests",
        WorkloadSpec {
            gpu_model: Some("A100".to_owned()),
            ..gpus(1)
        },
    );
    assert_eq!(world.plan_and_place(), [guest]);
    assert_eq!(world.attempt(guest).members[0].node, node_name("node-2"));
    let waiting = explain(&world.state, world.run(late));
    assert_eq!(waiting.tier, Tier::WaitingForReserved);
    let waits = plan(&world.state, world.now_us);
    world.now_us = waits.again_at_us.expect("when the other may be stopped");
    assert_eq!(world.plan_and_preempt(), [long]);
    stop(&mut world, &[long]);
    assert_eq!(world.plan_and_place(), [owner]);
    assert!(world.state.queues().contains(world.run(late)));
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
fn of_two_that_are_equally_old_the_one_that_has_just_saved_its_work_gives_way() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.quota("nlp", 1, None, None);
    let [first, second, _] = [0, 1, 2].map(|_| world.submit_for("guests", gpus(1)));
    world.plan_and_place();
    for run in [first, second] {
        world.report(run, 0, MemberPhase::Running);
    }
    world.now_us += 10 * MINUTE_US;
    let saves = |world: &mut World, run: RunId| {
        let (node, mut report) = world.report_of(run, 0, MemberPhase::Running);
        report.checkpointed_us = Some(world.now_us);
        world.send(node, report);
    };
    saves(&mut world, first);
    world.now_us += MINUTE_US;
    saves(&mut world, second);
    world.now_us += MINUTE_US;
    let owner = world.submit_for("nlp", gpus(1));
    assert_eq!(world.plan_and_preempt(), [second]);
    stop(&mut world, &[second]);
    assert_eq!(world.plan_and_place(), [owner]);
    world.end(owner, 0, EndKind::Exited { code: 0 });
    // Its next attempt has saved nothing yet, and is younger than what the other has to lose.
    assert_eq!(world.plan_and_place(), [second]);
    assert_eq!(world.attempt(second).checkpointed_us, None);
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

#[test]
fn who_others_were_stopped_for_gets_the_room_whoever_else_has_waited_longer() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let holders = [
        world.submit_for("busy", gpus(1)),
        world.submit_for("busy", gpus(1)),
    ];
    world.plan_and_place();
    world.now_us += MINUTE_US;
    // The other tenant holds nothing, so every turn is its own.
    let other = world.submit_for("other", gpus(1));
    let urgent = world.submit_for("busy", priority(10, gpus(1)));
    let stopped = world.plan_and_preempt();
    assert_eq!(stopped, [holders[0]]);
    stop(&mut world, &stopped);
    assert_eq!(world.plan_and_place(), [urgent]);
    assert!(world.state.queues().contains(world.run(other)));
    assert!(!world.run(urgent).has_claim, "it has what it was owed");
}

#[test]
fn a_run_that_may_claim_nothing_does_not_stand_before_one_of_its_tenant_that_may() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.quota("nlp", 2, None, None);
    world.submit_for("nlp", gpus(1));
    let borrower = world.submit_for("guests", gpus(3));
    world.plan_and_place();
    world.now_us += MINUTE_US;
    let unstoppable = WorkloadSpec {
        preemptible: false,
        ..gpus(2)
    };
    world.submit_for("nlp", unstoppable);
    world.submit_for("nlp", gpus(1));
    assert_eq!(world.plan_and_preempt(), [borrower]);
}

#[test]
fn a_child_has_its_guarantee_back_though_a_sibling_fills_the_limit_above_both() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    for tenant in ["products", "ads", "shop"] {
        world.tenant(tenant);
    }
    for tenant in ["ads", "shop"] {
        world.accept(Command::SetTenant {
            tenant: tenant_name(tenant),
            parent: ParentChange::Under(tenant_name("products")),
            weight: None,
        });
    }
    world.quota("products", 6, Some(6), None);
    world.quota("ads", 4, None, None);
    world.quota("shop", 2, None, None);
    let sibling = world.submit_for("shop", gpus(6));
    world.plan_and_place();
    world.now_us += MINUTE_US;
    let owner = world.submit_for("ads", gpus(2));
    assert_eq!(world.plan_and_preempt(), [sibling]);
    stop(&mut world, &[sibling]);
    assert_eq!(world.plan_and_place(), [owner]);
}

#[test]
fn nobody_is_stopped_for_a_run_that_what_is_not_lent_would_still_hold_up() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xT4-16G")]);
    world.quota("nlp", 2, None, Some(0));
    world.submit_for("guests", gpus(1));
    world.submit_for("guests", gpus(1));
    assert_eq!(world.plan_and_place().len(), 2);
    world.now_us += MINUTE_US;
    // With one stopped 3 are idle, 2 of them kept: the 2 it asks for are never lent.
    world.submit_for("guests", priority(10, gpus(2)));
    assert!(plan(&world.state, world.now_us).is_empty());
}

#[test]
fn what_an_owner_does_not_lend_is_kept_while_it_waits_for_those_stopped_for_it() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xT4-16G")]);
    let borrower = world.submit_for("guests", gpus(2));
    world.place_on(borrower, &[("node-1", &[0, 1])]);
    world.quota("nlp", 2, None, Some(0));
    world.now_us += MINUTE_US;
    let owner = world.submit_for(
        "nlp",
        WorkloadSpec {
            gpu_model: Some("A100".to_owned()),
            ..gpus(2)
        },
    );
    assert_eq!(world.plan_and_preempt(), [borrower]);
    // 2 are idle and 2 are kept, for the owner holds nothing yet: a fresh plan must not offer them.
    let other = world.submit_for("guests", gpus(1));
    assert!(plan(&world.state, world.now_us).is_empty());
    stop(&mut world, &[borrower]);
    assert_eq!(
        world.plan_and_place(),
        [owner, borrower],
        "at its old place"
    );
    assert!(world.state.queues().contains(world.run(other)));
}

#[test]
fn several_owed_runs_are_made_room_for_at_once_and_no_more_than_is_owed() {
    let mut world = World::with_nodes(&[
        ("node-1", "A100-80G"),
        ("node-2", "A100-80G"),
        ("node-3", "A100-80G"),
        ("node-4", "A100-80G"),
    ]);
    world.quota("nlp", 2, None, None);
    world.quota("vision", 1, None, None);
    for _ in 0..4 {
        world.submit_for("guests", gpus(1));
    }
    world.plan_and_place();
    world.now_us += MINUTE_US;
    let sizes: Vec<RunId> = [1_000, 2_000, 3_000]
        .map(|memory| {
            world.submit_for(
                "nlp",
                WorkloadSpec {
                    gpu_memory_mib: Some(memory),
                    ..gpus(1)
                },
            )
        })
        .to_vec();
    let other = world.submit_for("vision", gpus(1));
    let stopped = world.plan_and_preempt();
    assert_eq!(stopped.len(), 3, "2 for nlp and 1 for vision, in one plan");
    stop(&mut world, &stopped);
    assert_eq!(world.plan_and_place(), [sizes[0], sizes[1], other]);
    assert!(plan(&world.state, world.now_us + MINUTE_US).is_empty());
}

#[test]
fn a_gang_asks_another_tenant_where_the_first_has_no_more_to_give() {
    let mut world = World::with_nodes(&[
        ("node-1", "4xA100-80G"),
        ("node-2", "4xA100-80G"),
        ("node-3", "4xA100-80G"),
    ]);
    world.quota("thrifty", 4, None, None);
    world.quota("owner", 8, None, None);
    let lavish = world.submit_for("lavish", gpus(4));
    world.place_on(lavish, &[("node-3", &[0, 1, 2, 3])]);
    world.now_us += MINUTE_US;
    // One of these is above its quota and both have less to lose than the third.
    let thrifty = [
        world.submit_for("thrifty", gpus(4)),
        world.submit_for("thrifty", gpus(4)),
    ];
    world.place_on(thrifty[0], &[("node-1", &[0, 1, 2, 3])]);
    world.place_on(thrifty[1], &[("node-2", &[0, 1, 2, 3])]);
    world.now_us += MINUTE_US;
    let pair = WorkloadSpec {
        nodes: 2,
        ..gpus(4)
    };
    let owner = world.submit_for("owner", pair);
    let mut stopped = world.plan_and_preempt();
    stopped.sort();
    assert_eq!(stopped, [lavish, thrifty[0]]);
    stop(&mut world, &stopped);
    assert_eq!(world.plan_and_place(), [owner]);
}

#[test]
fn at_a_ceiling_only_those_are_stopped_without_whom_it_is_met() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G"), ("node-2", "8xA100-80G")]);
    world.quota("nlp", 8, Some(8), None);
    let small = [
        world.submit_for("nlp", gpus(1)),
        world.submit_for("nlp", gpus(1)),
    ];
    let large = world.submit_for("nlp", gpus(6));
    world.plan_and_place();
    world.now_us += MINUTE_US;
    let urgent = world.submit_for("nlp", priority(10, gpus(6)));
    assert_eq!(world.plan_and_preempt(), [large]);
    stop(&mut world, &[large]);
    assert_eq!(world.plan_and_place(), [urgent]);
    for run in small {
        assert!(world.attempt(run).stopping.is_none());
    }
}

#[test]
fn one_tenants_odd_shapes_hide_nobody() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G,T4-16G")]);
    world.submit_for("modest", gpus(1));
    world.plan_and_place();
    let odd = |memory| WorkloadSpec {
        gpu_model: Some("A100-80G".to_owned()),
        gpu_memory_mib: Some(memory),
        ..gpus(1)
    };
    for memory in 1..400 {
        world.submit_for("odd", odd(memory));
    }
    let other = world.submit_for("modest", gpus(1));
    let placed = world.plan_and_place();
    assert!(placed.contains(&other), "{placed:?}");
}
