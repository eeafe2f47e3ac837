//! A plan is checked item by item when it is applied: stale or wrong, it gives no device twice.

use crate::fixtures::*;
use crate::model::{EndKind, MemberPhase, RunId, RunPhase, WorkloadSpec};
use crate::state::{Command, Event, Placement, QuotaChange};

fn two_nodes() -> World {
    World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xA100-80G,T4-16G")])
}

#[test]
fn a_placement_gives_named_devices_in_a_new_epoch() {
    let mut world = two_nodes();
    let first = world.submit(gpus(1));
    let second = world.submit(gang(2));
    world.place_on(first, &[("node-1", &[1])]);
    world.place_on(second, &[("node-2", &[0]), ("node-1", &[0])]);
    let attempt = world.attempt(second);
    assert_eq!((attempt.number, attempt.epoch.0), (1, 2));
    assert_eq!(world.state.highest_epoch(), attempt.epoch);
    let grant = &attempt.members[0].devices[0];
    assert_eq!(grant.device, device("node-2", 0));
    assert_eq!((grant.share_milli, grant.memory_mib), (1_000, 81_920));
    assert_eq!(grant.price_per_gpu_hour_micro, 2_500_000);
    assert_eq!(attempt.members[1].phase, MemberPhase::Assigned);
    let used = world
        .state
        .used_milli(&tenant_name("default"), &pool_name("default"));
    assert_eq!(used, 3_000);
}

#[test]
fn wrong_and_stale_placements_are_refused_one_by_one() {
    let mut world = two_nodes();
    let mut other = describe("node-3", "other", "A100-80G");
    other.cpu_milli = 1;
    world.join(other);
    let holder = world.submit(gpus(1));
    world.place_on(holder, &[("node-1", &[0])]);
    let one = world.submit(gpus(1));
    let two = world.submit(gpus(2));
    let pair = world.submit(gang(2));
    let t4 = world.submit(WorkloadSpec {
        gpu_model: Some("T4-16G".to_owned()),
        ..gpus(1)
    });
    let large = world.submit(WorkloadSpec {
        gpu_memory_mib: Some(20_000),
        ..gpus(1)
    });
    let ended = world.submit(gpus(1));
    world.cancel(ended);
    let table: &[(Placement, &str)] = &[
        (
            placement(RunId(99), 1, &[("node-1", &[1])]),
            "does not exist",
        ),
        (placement(holder, 2, &[("node-1", &[1])]), "does not wait"),
        (placement(ended, 1, &[("node-1", &[1])]), "does not wait"),
        (
            placement(one, 2, &[("node-1", &[1])]),
            "attempt 2 is planned, and the next is 1",
        ),
        (
            placement(one, 0, &[("node-1", &[1])]),
            "attempt 0 is planned",
        ),
        (placement(one, 1, &[("node-1", &[0])]), "is taken"),
        (placement(one, 1, &[("node-1", &[7])]), "has no device"),
        (
            placement(one, 1, &[("node-1", &[])]),
            "0 devices are planned of 1",
        ),
        (
            placement(one, 1, &[("node-1", &[0, 1])]),
            "2 devices are planned of 1",
        ),
        (
            placement(one, 1, &[("node-9", &[0])]),
            "node node-9 does not exist",
        ),
        (
            placement(one, 1, &[("node-3", &[0])]),
            "does not take runs of pool default",
        ),
        (placement(one, 1, &[]), "0 members are planned of 1"),
        (
            placement(one, 1, &[("node-1", &[1]), ("node-2", &[0])]),
            "2 members are planned of 1",
        ),
        (
            placement(two, 1, &[("node-2", &[0, 0])]),
            "1 devices are planned of 2",
        ),
        (placement(two, 1, &[("node-1", &[0, 1])]), "GPUs exhausted"),
        (
            placement(pair, 1, &[("node-2", &[0]), ("node-2", &[1])]),
            "two members share a node",
        ),
        (
            placement(pair, 1, &[("node-2", &[0]), ("node-1", &[0])]),
            "is taken",
        ),
        (placement(t4, 1, &[("node-2", &[0])]), "is a A100-80G"),
        (placement(t4, 1, &[("node-1", &[1])]), "model mismatch"),
        (placement(large, 1, &[("node-2", &[2])]), "is taken"),
    ];
    for (placement, expected) in table {
        let before = world.state.runs().clone();
        let nodes = world.state.nodes().clone();
        let reason = world.try_place(placement.clone()).expect_err(expected);
        assert!(reason.contains(expected), "{reason} / {expected}");
        assert_eq!(&before, world.state.runs(), "{expected}");
        assert_eq!(&nodes, world.state.nodes(), "all or nothing: {expected}");
    }
}

#[test]
fn a_refused_item_does_not_hold_up_the_others_of_its_plan() {
    let mut world = two_nodes();
    let (first, second, third) = (
        world.submit(gpus(2)),
        world.submit(gpus(2)),
        world.submit(gpus(1)),
    );
    let events = world.apply(Command::Place {
        placements: vec![
            placement(first, 1, &[("node-1", &[0, 1])]),
            placement(second, 1, &[("node-1", &[0, 1])]),
            placement(first, 1, &[("node-2", &[0, 1])]),
            placement(third, 1, &[("node-2", &[1])]),
        ],
    });
    assert!(matches!(
        events.as_slice(),
        [
            Event::RunPlaced { .. },
            Event::PlacementRefused { .. },
            Event::PlacementRefused { .. },
            Event::RunPlaced { .. }
        ]
    ));
}

#[test]
fn only_ready_nodes_take_runs() {
    for withdrawal in ["cordon", "drain", "lose"] {
        let mut world = two_nodes();
        let run = world.submit(gpus(1));
        let (node, reason) = (node_name("node-1"), "a test".to_owned());
        world.accept(match withdrawal {
            "cordon" => Command::Cordon { node, reason },
            "drain" => Command::Drain {
                node,
                reason,
                grace_ms: 1_000,
            },
            _ => Command::LoseNode { node },
        });
        let refused = world.try_place(placement(run, 1, &[("node-1", &[0])]));
        assert!(
            refused.is_err_and(|reason| reason.contains("does not take runs")),
            "{withdrawal}"
        );
    }
}

#[test]
fn a_quota_holds_between_plan_and_apply() {
    let mut world = two_nodes();
    let (first, second) = (world.submit(gpus(1)), world.submit(gpus(1)));
    let quota = |gpu_milli: Option<u64>| {
        Command::SetQuota(QuotaChange {
            tenant: tenant_name("default"),
            pool: pool_name("default"),
            model: None,
            gpu_milli,
            limit_milli: gpu_milli,
            lend_milli: None,
        })
    };
    world.accept(quota(Some(1_999)));
    world.place_on(first, &[("node-1", &[0])]);
    let refused = world.try_place(placement(second, 1, &[("node-1", &[1])]));
    assert_eq!(
        refused,
        Err("tenant default holds 1 of its limit of 1.999 GPUs".to_owned())
    );
    world.end(first, 0, EndKind::Exited { code: 0 });
    world.place_on(second, &[("node-1", &[1])]);
    world.accept(quota(Some(0)));
    assert_eq!(
        world.run(second).phase,
        RunPhase::Active,
        "what is held stays"
    );
}

#[test]
fn shares_and_memory_of_one_device_add_up() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let runs: Vec<_> = (0..3).map(|_| world.submit(share(400))).collect();
    world.place_on(runs[0], &[("node-1", &[0])]);
    world.place_on(runs[1], &[("node-1", &[0])]);
    assert!(
        world
            .try_place(placement(runs[2], 1, &[("node-1", &[0])]))
            .is_err()
    );
    let memory_heavy = world.submit(WorkloadSpec {
        gpu_memory_mib: Some(16_385),
        ..share(100)
    });
    assert!(
        world
            .try_place(placement(memory_heavy, 1, &[("node-1", &[0])]))
            .is_err()
    );
    let rest = world.submit(share(200));
    world.place_on(rest, &[("node-1", &[0])]);
    let grants = &world.state.nodes()["node-1"].devices[0];
    assert_eq!((grants.share_milli, grants.memory_mib), (1_000, 81_920));
}

#[test]
fn reserved_cpu_and_memory_are_held_and_given_back() {
    let mut world = World::with_nodes(&[("node-1", "")]);
    let half = WorkloadSpec {
        gpus: Some(0),
        cpu_milli: Some(40_000),
        memory_mib: Some(1_024),
        ..spec()
    };
    let (first, second) = (world.submit(half.clone()), world.submit(half));
    world.place_on(first, &[("node-1", &[])]);
    let refused = world.try_place(placement(second, 1, &[("node-1", &[])]));
    assert_eq!(refused, Err("node node-1: CPU exhausted".to_owned()));
    world.end(first, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.state.nodes()["node-1"].memory_reserved_mib, 0);
    world.place_on(second, &[("node-1", &[])]);
}
