//! In what order a tenant's runs wait, and that none of them waits for ever.

use crate::fixtures::*;
use crate::model::{EndKind, PoolOrder, RunId, StopReason, WorkloadSpec};
use crate::policy::RefusalKind;
use crate::scheduler::explain;
use crate::state::{Command, State};
use proptest::prelude::*;

const HOUR_US: u64 = 3_600_000_000;

fn named(name: &str) -> WorkloadSpec {
    WorkloadSpec {
        name: name.to_owned(),
        ..gpus(1)
    }
}

fn waiting(world: &World) -> Vec<RunId> {
    world
        .state
        .queues()
        .of_tenant(&pool_name("default"), &tenant_name("default"))
}

/// One GPU, on which runs of these names have each taken so long, three times.
fn known(durations: &[(&str, u64)]) -> World {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    for (name, took_us) in durations {
        for _ in 0..3 {
            let run = world.submit(named(name));
            world.plan_and_place();
            world.now_us += took_us;
            world.end(run, 0, EndKind::Exited { code: 0 });
        }
    }
    world
}

#[test]
fn the_shortest_predicted_goes_first_and_the_unknown_last() {
    let mut world = known(&[("long", 5 * HOUR_US), ("short", HOUR_US)]);
    world.order(PoolOrder::ShortestPredicted, None);
    let bob = |spec| Command::Submit {
        spec: Box::new(spec),
        tenant: tenant_name("default"),
        user: crate::model::UserName::new("bob").expect("a good name"),
        role: None,
    };
    let unknown = RunId(7);
    world.accept(bob(named("mystery")));
    let long = world.submit(named("long"));
    let short = world.submit(named("short"));
    let urgent = world.submit(WorkloadSpec {
        priority: 1,
        ..named("long")
    });
    assert_eq!(world.run(short).predicted_ms, Some(HOUR_US / 1000));
    assert_eq!(waiting(&world), [urgent, short, long, unknown]);
    assert_eq!(
        world.plan_and_place(),
        [urgent],
        "one GPU, the first of them"
    );
    let reasons = |run| explain(&world.state, world.run(run)).reasons.join("\n");
    assert!(reasons(long).contains(
        "pool default takes the shortest first: it is predicted to take 5 h; it goes first once it has waited for 1 d"
    ), "{}", reasons(long));
    assert!(
        reasons(unknown).contains("nothing tells how long this one takes"),
        "{}",
        reasons(unknown)
    );
    assert_eq!(
        world.state.would_wait_behind(
            &WorkloadSpec {
                pool: Some(pool_name("default")),
                ..named("short")
            },
            &tenant_name("default"),
            &crate::model::UserName::new("ana").expect("a good name"),
        ),
        1,
        "behind its equal that came first, before the long and the unknown"
    );
}

#[test]
fn what_failed_tells_nothing_and_what_ran_out_of_time_does() {
    for (kind, predicted_ms) in [
        (EndKind::Exited { code: 1 }, None),
        (EndKind::OutOfMemory, None),
        (EndKind::TimeLimit, Some(HOUR_US / 1000)),
        (EndKind::Exited { code: 0 }, Some(HOUR_US / 1000)),
    ] {
        let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
        for _ in 0..3 {
            let run = world.submit(named("train"));
            world.plan_and_place();
            world.now_us += HOUR_US;
            world.end(run, 0, kind.clone());
        }
        let next = world.submit(named("train"));
        assert_eq!(world.run(next).predicted_ms, predicted_ms, "{kind:?}");
    }
}

#[test]
fn whoever_has_had_the_least_gpu_time_goes_first_and_keeps_its_old_place_in_its_level() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.order(PoolOrder::LeastAttained, None);
    let [old, fresh, later] = [0; 3].map(|_| world.submit(gpus(1)));
    let evicted_after = |world: &mut World, run, held_us| {
        assert_eq!(world.plan_and_place(), [run]);
        world.now_us += held_us;
        world.accept(Command::Drain {
            node: node_name("node-1"),
            reason: "a new driver".to_owned(),
            grace_ms: 0,
        });
        world.accept(Command::Evict {
            node: node_name("node-1"),
        });
        assert_eq!(
            world.attempt(run).stopping,
            Some(StopReason::Evicted),
            "{run}"
        );
        world.end(run, 0, EndKind::Stopped);
        world.accept(Command::Uncordon {
            node: node_name("node-1"),
        });
    };
    // Within the first level, of 3,200 GPU-seconds: it waits at its old place.
    evicted_after(&mut world, old, 3_000_000_000);
    assert_eq!(waiting(&world), [old, fresh, later]);
    // In the second level: behind those that have had nothing.
    evicted_after(&mut world, old, 300_000_000);
    assert_eq!(waiting(&world), [fresh, later, old]);
    let reasons = explain(&world.state, world.run(old)).reasons.join("\n");
    assert!(
        reasons.contains("it has had 0.91 GPU-hours, level 2 of 7"),
        "{reasons}"
    );
    // The same level again: submitted first, first again.
    evicted_after(&mut world, fresh, 4_000_000_000);
    assert_eq!(waiting(&world), [later, old, fresh]);
}

#[test]
fn a_run_that_has_waited_for_the_age_bound_goes_first_whatever_the_order() {
    let mut world = known(&[("long", 5 * HOUR_US), ("short", HOUR_US)]);
    world.order(PoolOrder::ShortestPredicted, Some(2 * 3_600_000));
    let long = world.submit(named("long"));
    world.now_us += 2 * HOUR_US - 1;
    let short = world.submit(named("short"));
    assert_eq!(waiting(&world), [short, long]);
    world.now_us += 1;
    let shorter = world.submit(named("short"));
    assert_eq!(waiting(&world), [long, short, shorter]);
    let reasons = explain(&world.state, world.run(long)).reasons.join("\n");
    assert!(
        reasons.contains("it has waited for 2 h, as long as pool default lets a run wait"),
        "{reasons}"
    );
    let urgent = world.submit(WorkloadSpec {
        priority: 1,
        ..named("long")
    });
    assert_eq!(waiting(&world)[0], urgent, "a priority is the user's word");
}

#[test]
fn time_in_which_a_run_held_its_devices_is_no_waiting() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.order(PoolOrder::LeastAttained, Some(3_600_000));
    let old = world.submit(gpus(1));
    world.plan_and_place();
    world.now_us += 5 * HOUR_US;
    let fresh = world.submit(gpus(1));
    world.end(old, 0, EndKind::Lost);
    assert_eq!(waiting(&world), [fresh, old]);
    world.now_us += HOUR_US;
    world.submit(gpus(1));
    assert_eq!(waiting(&world)[0], old, "both are overdue, it came first");
}

#[test]
fn a_change_of_the_order_holds_at_once_for_those_that_wait() {
    let mut world = known(&[("long", 5 * HOUR_US), ("short", HOUR_US)]);
    let long = world.submit(named("long"));
    let short = world.submit(named("short"));
    for (order, expected) in [
        (PoolOrder::Fifo, [long, short]),
        (PoolOrder::ShortestPredicted, [short, long]),
        (PoolOrder::LeastAttained, [long, short]),
    ] {
        world.order(order, None);
        assert_eq!(waiting(&world), expected, "{order:?}");
    }
    assert_eq!(
        world.audit().last().map(|entry| entry.detail.clone()),
        Some("description=None order=least-attained".to_owned())
    );
    for bound_ms in [0, 999, 366 * 24 * 3_600_000] {
        let refusal = world.refuse(Command::SetPool {
            pool: pool_name("default"),
            description: None,
            order: None,
            age_bound_ms: Some(bound_ms),
            must_exist: Some(true),
        });
        assert_eq!(refusal.kind, RefusalKind::Invalid);
        assert_eq!(refusal.allowed.as_deref(), Some("1 s to 365 d"));
    }
}

#[test]
fn a_pool_and_a_state_written_before_there_was_an_order_are_read_as_first_come() {
    #[derive(serde::Serialize)]
    struct OldPool {
        name: &'static str,
        description: &'static str,
    }
    let old = rmp_serde::to_vec_named(&OldPool {
        name: "gold",
        description: "for the brave",
    })
    .expect("a pool encodes");
    let pool: crate::model::Pool = rmp_serde::from_slice(&old).expect("an old pool reads");
    assert_eq!(pool.order, PoolOrder::Fifo);
    assert_eq!(pool.age_bound_ms, 86_400_000);
    // A state without history is stored without the field, as old ones are.
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.submit(gpus(1));
    let stored = rmp_serde::to_vec_named(&world.state).expect("a state encodes");
    assert!(!stored.windows(7).any(|bytes| bytes == b"history"));
    let read: State = rmp_serde::from_slice(&stored).expect("a state reads");
    assert_eq!(read, world.state);
}

#[derive(Debug, Clone)]
enum Step {
    Submit { name: usize, priority: i32 },
    End { which: usize, succeeds: bool },
    Wait { us: u64 },
    Order { order: usize, bound_ms: u64 },
    Plan,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            4 => (0..3_usize, -1..2).prop_map(|(name, priority)| Step::Submit { name, priority }),
            3 => (0..8_usize, any::<bool>()).prop_map(|(which, succeeds)| Step::End { which, succeeds }),
            2 => (1..4_000_000_000_u64).prop_map(|us| Step::Wait { us }),
            1 => (0..3_usize, 1_000..10_000_000_u64).prop_map(|(order, bound_ms)| Step::Order { order, bound_ms }),
            3 => Just(Step::Plan),
        ],
        1..60,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: the index is what a replica makes anew from its snapshot (which `violations`
    /// checks after each step), and whoever has waited for the bound is passed by no other of its
    /// priority that has not.
    #[test]
    fn nobody_is_passed_by_after_the_age_bound(steps in steps()) {
        let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
        for step in steps {
            match step {
                Step::Submit { name, priority } => {
                    world.submit(WorkloadSpec {
                        priority,
                        ..named(["long", "short", "other"][name])
                    });
                }
                Step::End { which, succeeds } => {
                    let active: Vec<RunId> =
                        world.state.active_runs().map(|run| run.id).collect();
                    if !active.is_empty() {
                        let kind = if succeeds { EndKind::Exited { code: 0 } } else { EndKind::Lost };
                        world.end(active[which % active.len()], 0, kind);
                    }
                }
                Step::Wait { us } => world.now_us += us,
                Step::Order { order, bound_ms } => {
                    world.order(PoolOrder::ALL[order].0, Some(bound_ms));
                }
                Step::Plan => {
                    world.plan_and_place();
                }
            }
            let pool = &world.state.pools()["default"];
            let is_overdue = |run: &crate::model::Run| {
                let waited_us = world.state.time_us() - run.submitted_us - run.held_us();
                pool.order != PoolOrder::Fifo && waited_us >= pool.age_bound_ms * 1000
            };
            let order: Vec<(i32, bool)> = waiting(&world)
                .into_iter()
                .map(|run| world.run(run))
                .map(|run| (-run.spec.priority, !is_overdue(run)))
                .collect();
            prop_assert!(order.is_sorted(), "{order:?}");
        }
    }
}
