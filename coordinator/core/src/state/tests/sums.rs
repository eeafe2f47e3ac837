//! Caps of GPU memory in sum: what all runs of a model hold together.

use crate::fixtures::*;
use crate::model::{EndKind, WorkloadSpec};
use crate::scheduler::{Tier, explain};
use crate::state::Command;

fn of_model(model: &str, memory_mib: u64) -> WorkloadSpec {
    WorkloadSpec {
        model: Some(model.to_owned()),
        gpu_memory_mib: Some(memory_mib),
        ..share(100)
    }
}

fn capped(devices: &str, caps: &[(&str, u64)]) -> World {
    let mut world = World::with_nodes(&[("node-1", devices)]);
    world.set_policy(|policy| {
        policy.gpu_memory_cap_sums_mib = caps
            .iter()
            .map(|(pattern, cap)| ((*pattern).to_owned(), *cap))
            .collect();
    });
    world
}

#[test]
fn runs_of_a_model_hold_no_more_than_their_sum_and_the_rest_waits_for_it() {
    let mut world = capped("4xA100-80G", &[("bert*", 25_000)]);
    let first = world.submit(of_model("bert-base", 10_000));
    let second = world.submit(of_model("bert-large", 10_000));
    let third = world.submit(of_model("bert-base", 10_000));
    let other = world.submit(of_model("gpt", 10_000));
    let placed = world.plan_and_place();
    assert_eq!(
        placed,
        [first, second, other],
        "the sum is of all that match"
    );
    assert_eq!(world.state.gpu_memory_held_mib("bert*"), 20_000);
    let refused = world
        .try_place(placement(third, 1, &[("node-1", &[3])]))
        .expect_err("it would pass the sum");
    let words = "models bert* hold 20000 of the 25000 MiB of GPU memory that the policy gives them in sum, and this run takes 10000 MiB";
    assert_eq!(refused, words);
    let waiting = explain(&world.state, world.run(third));
    assert_eq!(
        (waiting.tier, waiting.summary.as_str()),
        (Tier::OverCap, words)
    );
    assert_eq!(world.plan_and_place(), [], "and nobody is stopped for it");
    world.end(first, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.plan_and_place(), [third]);
}

#[test]
fn a_run_that_alone_passes_a_sum_is_refused_with_what_would_fit() {
    let mut world = capped("4xA100-80G", &[("bert*", 100_000), ("bert-large", 30_000)]);
    let refusal = world.refuse(submit(of_model("bert-large", 40_000)));
    assert_eq!(
        refusal.message,
        "models bert-large may hold 30000 MiB of GPU memory in sum, and this run alone takes at least 40000 MiB"
    );
    world.submit(of_model("bert-base", 40_000));
    let whole = WorkloadSpec {
        model: Some("bert-base".to_owned()),
        ..gpus(2)
    };
    let refusal = world.refuse(submit(whole.clone()));
    assert!(
        refusal.message.ends_with("takes at least 163840 MiB"),
        "{refusal:?}"
    );
    assert_eq!(
        refusal.hint.as_deref(),
        Some("ask for fewer GPUs, or for less of each, as in: --gpu-memory 50000M")
    );
    world.submit(WorkloadSpec {
        gpu_memory_mib: Some(50_000),
        ..whole
    });
}

#[test]
fn a_sum_that_is_lowered_stops_nobody_and_counts_who_runs_already() {
    let mut world = capped("4xA100-80G", &[]);
    let first = world.submit(of_model("bert", 10_000));
    let second = world.submit(of_model("bert", 10_000));
    assert_eq!(world.plan_and_place(), [first, second]);
    world.set_policy(|policy| {
        policy
            .gpu_memory_cap_sums_mib
            .insert("bert".to_owned(), 15_000);
    });
    assert_eq!(world.state.gpu_memory_held_mib("bert"), 20_000);
    let third = world.submit(of_model("bert", 5_000));
    world.end(first, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.plan_and_place(), [third]);
    for (pattern, cap) in [("not a name", 1), ("bert", 0)] {
        let mut policy = world.state.policy().clone();
        policy
            .gpu_memory_cap_sums_mib
            .insert(pattern.to_owned(), cap);
        let refusal = world.refuse(Command::SetPolicy {
            policy: Box::new(policy),
        });
        assert!(
            refusal.message.ends_with("in sum is not valid"),
            "{refusal:?}"
        );
    }
}

#[test]
fn a_sum_is_of_all_pools_and_one_plan_for_two_of_them_keeps_to_it() {
    let mut world = capped("1xA100-80G", &[("*", 15_000)]);
    world.join(describe("node-2", "gold", "1xH100-80G"));
    let first = world.submit(of_model("bert", 10_000));
    let second = world.submit(WorkloadSpec {
        pool: Some(pool_name("gold")),
        ..of_model("gpt", 10_000)
    });
    assert_eq!(world.plan_and_place(), [first]);
    world.end(first, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.plan_and_place(), [second]);
}
