//! Nobody is stopped who is not needed, and claims are counted together: cases that the checker of
//! plans found in random histories.

use crate::fixtures::*;
use crate::model::{EndKind, RunId, WorkloadSpec};
use crate::scheduler::plan;
use crate::state::{Command, ParentChange};

const MINUTE_US: u64 = 60_000_000;

fn priority(priority: i32, spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec { priority, ..spec }
}

#[test]
fn a_gang_that_makes_room_on_two_nodes_gives_way_alone() {
    let mut world = World::with_nodes(&[
        ("node-1", "2xA100-80G"),
        ("node-2", "2xA100-80G"),
        ("node-3", "2xA100-80G"),
        ("node-4", "2xA100-80G"),
    ]);
    world.quota("nlp", 4, None, None);
    let pair = |spec| WorkloadSpec { nodes: 2, ..spec };
    let first = world.submit_for("guests", pair(gpus(2)));
    world.place_on(first, &[("node-1", &[0, 1]), ("node-3", &[0, 1])]);
    let second = world.submit_for("guests", pair(gpus(2)));
    world.place_on(second, &[("node-2", &[0, 1]), ("node-4", &[0, 1])]);
    world.now_us += MINUTE_US;
    // Node by node the cheapest would be one of each.
    world.submit_for("nlp", pair(gpus(2)));
    let stopped = world.plan_and_preempt();
    assert_eq!(stopped.len(), 1, "{stopped:?}");
}

#[test]
fn who_is_stopped_for_a_ceiling_makes_room_too() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G,2xT4-16G"), ("node-2", "2xT4-16G")]);
    world.quota("nlp", 2, Some(3), None);
    let on_two = world.submit_for("nlp", gpus(2));
    world.place_on(on_two, &[("node-2", &[0, 1])]);
    world.now_us += MINUTE_US;
    let on_one = world.submit_for("nlp", gpus(1));
    world.place_on(on_one, &[("node-1", &[1])]);
    world.now_us += MINUTE_US;
    // Least is lost on node 1, but 2 and 2 are above 3: the other has to go, and leaves room enough.
    let urgent = WorkloadSpec {
        gpu_model: Some("T4".to_owned()),
        ..gpus(2)
    };
    world.submit_for("nlp", priority(9, urgent));
    assert_eq!(world.plan_and_preempt(), [on_two]);
}

#[test]
fn nobody_is_stopped_for_a_ceiling_that_a_cancelled_run_is_leaving() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    world.quota("nlp", 2, Some(4), None);
    let cancelled = world.submit_for("nlp", gpus(2));
    for _ in 0..2 {
        world.submit_for("nlp", gpus(1));
    }
    world.plan_and_place();
    world.now_us += MINUTE_US;
    world.cancel(cancelled);
    world.submit_for("nlp", priority(9, gpus(1)));
    assert!(plan(&world.state, world.now_us).is_empty());
}

#[test]
fn what_siblings_claim_together_stays_within_the_quota_above_both() {
    let mut world = World::with_nodes(&[
        ("node-1", "4xA100-80G"),
        ("node-2", "4xA100-80G"),
        ("node-3", "2xA100-80G"),
    ]);
    for tenant in ["research", "nlp", "audio", "vision"] {
        world.tenant(tenant);
    }
    for tenant in ["nlp", "audio", "vision"] {
        world.accept(Command::SetTenant {
            tenant: tenant_name(tenant),
            parent: ParentChange::Under(tenant_name("research")),
            weight: None,
        });
    }
    world.quota("research", 4, None, None);
    world.quota("nlp", 2, None, None);
    world.quota("audio", 2, None, None);
    world.quota("products", 2, None, None);
    // Vision borrows 2 within research, so research has 2 to ask of others and not 4.
    let sibling = world.submit_for("vision", gpus(2));
    world.place_on(sibling, &[("node-3", &[0, 1])]);
    let strangers: Vec<RunId> = [
        ("node-1", [0_u32, 1]),
        ("node-1", [2, 3]),
        ("node-2", [0, 1]),
    ]
    .into_iter()
    .map(|(node, devices)| {
        let run = world.submit_for("products", gpus(2));
        world.place_on(run, &[(node, &devices)]);
        run
    })
    .collect();
    let last = world.submit_for("products", gpus(2));
    world.place_on(last, &[("node-2", &[2, 3])]);
    world.now_us += MINUTE_US;
    world.submit_for("nlp", gpus(2));
    world.submit_for("audio", gpus(2));
    let stopped = world.plan_and_preempt();
    assert_eq!(stopped.len(), 2, "{stopped:?}");
    assert!(
        stopped.contains(&sibling),
        "the sibling gives before the others: {stopped:?} of {strangers:?} and {last}"
    );
}

#[test]
fn what_a_cordoned_node_gets_back_is_lent_to_nobody() {
    let mut world = World::with_nodes(&[
        ("node-1", "2xA100-80G"),
        ("node-2", "2xA100-80G"),
        ("node-3", "2xA100-80G"),
    ]);
    world.quota("products", 0, Some(3), None);
    let away = world.submit_for("products", gpus(2));
    world.place_on(away, &[("node-3", &[0, 1])]);
    let here = world.submit_for("products", gpus(1));
    world.place_on(here, &[("node-1", &[0])]);
    let guest = world.submit_for("guests", gpus(2));
    world.place_on(guest, &[("node-2", &[0, 1])]);
    world.quota("nlp", 2, None, Some(0));
    world.accept(Command::Cordon {
        node: node_name("node-3"),
        reason: "a fan".to_owned(),
    });
    world.now_us += MINUTE_US;
    // With all of products' stopped 2 are idle on ready nodes, and nlp keeps both.
    world.submit_for("products", priority(9, gpus(2)));
    assert!(plan(&world.state, world.now_us).is_empty());
}

#[test]
fn a_claimant_is_kept_the_room_of_victims_that_were_granted_under_another_cap() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let low = world.submit(WorkloadSpec {
        model: Some("bert".to_owned()),
        ..priority(-1, gpus(1))
    });
    world.plan_and_place();
    world.now_us += MINUTE_US;
    // It holds the whole memory of its device, and would be given an eighth of it now.
    world.set_policy(|policy| {
        policy.gpu_memory_caps_mib = [("bert".to_owned(), 10_240)].into();
    });
    world.submit(gpus(2));
    assert_eq!(world.plan_and_preempt(), [low]);
    world.submit(gpus(1));
    assert!(plan(&world.state, world.now_us).is_empty(), "both are kept");
}

#[test]
fn a_claimant_is_kept_the_room_that_a_cancelled_run_is_leaving() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let low = world.submit(priority(-1, gpus(1)));
    world.place_on(low, &[("node-1", &[0])]);
    let cancelled = world.submit(gpus(1));
    world.place_on(cancelled, &[("node-1", &[1])]);
    world.now_us += MINUTE_US;
    world.cancel(cancelled);
    let urgent = world.submit(gpus(2));
    assert_eq!(world.plan_and_preempt(), [low]);
    world.end(low, 0, EndKind::Stopped);
    world.submit(gpus(1));
    assert!(plan(&world.state, world.now_us).is_empty(), "both are kept");
    world.end(cancelled, 0, EndKind::Stopped);
    assert_eq!(world.plan_and_place(), [urgent]);
}

#[test]
fn a_gang_gives_back_what_it_holds_still_and_not_what_it_had() {
    let mut world = World::with_nodes(&[
        ("node-1", "A100-80G,T4-16G"),
        ("node-2", "A100-80G,T4-16G"),
        ("node-3", "4xA100-80G"),
    ]);
    let pair = WorkloadSpec {
        nodes: 2,
        gpu_model: Some("T4".to_owned()),
        ..priority(-1, gpus(1))
    };
    let half_over = world.submit_for("nlp", pair);
    let others = world.submit_for("nlp", priority(-1, gpus(4)));
    world.plan_and_place();
    world.end(half_over, 0, EndKind::Exited { code: 0 });
    world.now_us += MINUTE_US;
    // It holds 5 of 4: the limit came later. One back and one more make 5 still.
    world.quota("nlp", 4, Some(4), None);
    let urgent = WorkloadSpec {
        gpu_model: Some("T4".to_owned()),
        ..gpus(1)
    };
    world.submit_for("nlp", urgent);
    let mut stopped = world.plan_and_preempt();
    stopped.sort();
    assert_eq!(stopped, [others]);
}

#[test]
fn equal_runs_of_an_owner_are_all_made_room_for_at_once() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G"), ("node-2", "4xA100-80G")]);
    world.quota("nlp", 6, None, None);
    for _ in 0..8 {
        world.submit_for("guests", gpus(1));
    }
    world.plan_and_place();
    world.now_us += MINUTE_US;
    for _ in 0..8 {
        world.submit_for("nlp", gpus(1));
    }
    // A node gives way to one claim in each plan; the next plan follows at once.
    let mut stopped = Vec::new();
    loop {
        match world.plan_and_preempt() {
            more if more.is_empty() => break,
            more => stopped.extend(more),
        }
    }
    assert_eq!(stopped.len(), 6, "as many as it is owed: {stopped:?}");
}
