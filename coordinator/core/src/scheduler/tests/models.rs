//! Quota of single device models, as plans see it: one node of four A100 and one of four T4.

use crate::fixtures::*;
use crate::model::{EndKind, Meter, RunId, WorkloadSpec};
use crate::scheduler::{Durations, Tier, explain, outlook, plan};
use crate::state::{Command, QuotaChange};

const MINUTE_US: u64 = 60_000_000;

fn two_models() -> World {
    World::with_nodes(&[("node-a", "4xA100-80G"), ("node-t", "4xT4-16G")])
}

fn model_quota(
    tenant: &str,
    model: &str,
    gpus: u64,
    limit: Option<u64>,
    lend: Option<u64>,
) -> QuotaChange {
    QuotaChange {
        model: Some(model.to_owned()),
        ..quota(tenant, gpus, limit, lend)
    }
}

fn set(world: &mut World, tenant: &str, model: &str, gpus: u64, limit: Option<u64>) {
    world.tenant(tenant);
    world.accept(Command::SetQuota(model_quota(
        tenant, model, gpus, limit, None,
    )));
}

fn on(model: &str, spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec {
        gpu_model: Some(model.to_owned()),
        ..spec
    }
}

fn models(world: &World, run: RunId) -> Vec<&str> {
    let members = &world.attempt(run).members;
    let grants = members.iter().flat_map(|member| &member.devices);
    grants.map(|grant| grant.model.as_str()).collect()
}

fn stop(world: &mut World, runs: &[RunId]) {
    for run in runs {
        for member in 0..world.attempt(*run).members.len() as u32 {
            world.end(*run, member, EndKind::Stopped);
        }
    }
}

#[test]
fn a_run_that_takes_any_model_is_put_first_where_it_is_within_its_guarantee() {
    let mut world = two_models();
    set(&mut world, "nlp", "T4-16G", 2, None);
    set(&mut world, "vision", "A100-80G", 4, None);
    let runs: Vec<RunId> = (0..3).map(|_| world.submit_for("nlp", gpus(1))).collect();
    assert_eq!(world.plan_and_place(), runs);
    let placed: Vec<&str> = runs.iter().flat_map(|run| models(&world, *run)).collect();
    assert_eq!(placed[..2], ["T4-16G", "T4-16G"], "guaranteed");
    let borrowed = |run: &RunId| world.attempt(*run).borrowed_milli;
    let borrowed: Vec<u64> = runs.iter().map(borrowed).collect();
    assert_eq!(borrowed, [0, 0, 1000], "the third borrows, of either");
}

#[test]
fn a_limit_of_one_model_leaves_the_others_open_and_explain_names_the_line() {
    let mut world = two_models();
    set(&mut world, "nlp", "A100-80G", 1, Some(2));
    let runs: Vec<RunId> = (0..3)
        .map(|_| world.submit_for("nlp", on("A100", gpus(1))))
        .collect();
    assert_eq!(world.plan_and_place(), runs[..2]);
    let waiting = explain(&world.state, world.run(runs[2]));
    assert_eq!(waiting.tier, Tier::OverLimit);
    assert_eq!(
        waiting.summary,
        "tenant nlp holds 2 of its limit of 2 GPUs of A100-80G in pool default, and this run asks for 1"
    );
    let hint = waiting.hint.expect("what to do");
    assert!(
        hint.contains("quotas set nlp --pool default --model A100-80G --gpus N"),
        "{hint}"
    );
    let durations = Durations::of(&world.state);
    let outlook =
        outlook(world.state.live_copy(), &durations, runs[2], world.now_us).expect("it waits");
    let flags: Vec<&str> = outlook
        .changes
        .iter()
        .map(|change| change.flags.as_str())
        .collect();
    assert_eq!(flags.first(), Some(&"--gpu-model T4-16G"), "{flags:?}");
    let any = world.submit_for("nlp", gpus(1));
    assert_eq!(world.plan_and_place(), [any]);
    assert_eq!(models(&world, any), ["T4-16G"]);
}

#[test]
fn what_is_not_lent_of_a_model_is_kept_and_the_other_model_is_borrowed() {
    let mut world = two_models();
    world.tenant("nlp");
    world.accept(Command::SetQuota(model_quota(
        "nlp",
        "A100-80G",
        4,
        None,
        Some(1),
    )));
    let runs: Vec<RunId> = (0..6)
        .map(|_| world.submit_for("guests", gpus(1)))
        .collect();
    let placed = world.plan_and_place();
    assert_eq!(placed.len(), 5, "four of nobody's and one that is lent");
    let waits = runs.iter().find(|run| !placed.contains(run));
    let waiting = explain(&world.state, world.run(*waits.expect("one waits")));
    // Of T4 there is none left, whoever's: that is what would help first.
    assert_ne!(waiting.tier, Tier::NextPlan, "{waiting:?}");
    let a100 = world.submit_for("guests", on("A100", gpus(1)));
    let waiting = explain(&world.state, world.run(a100));
    assert_eq!(waiting.tier, Tier::OverQuota);
    assert_eq!(
        waiting.summary,
        "it would borrow 1 GPUs of A100-80G in pool default: 3 are idle, and 3 of them are not lent"
    );
}

#[test]
fn an_owner_takes_its_model_back_from_those_who_borrow_that_model_and_from_nobody_else() {
    let mut world = two_models();
    set(&mut world, "nlp", "A100-80G", 2, None);
    let t4: Vec<RunId> = (0..4)
        .map(|_| world.submit_for("guests", on("T4", gpus(1))))
        .collect();
    let a100: Vec<RunId> = (0..4)
        .map(|_| world.submit_for("vision", on("A100", gpus(1))))
        .collect();
    assert_eq!(world.plan_and_place().len(), 8);
    world.now_us += 10 * MINUTE_US;
    let owner = world.submit_for("nlp", on("A100", gpus(2)));
    let stopped = world.plan_and_preempt();
    assert_eq!(stopped.len(), 2);
    assert!(stopped.iter().all(|run| a100.contains(run)), "{t4:?}");
    stop(&mut world, &stopped);
    assert_eq!(world.plan_and_place(), [owner]);
    // It has what it is owed: another of its runs takes from nobody.
    world.now_us += 10 * MINUTE_US;
    world.submit_for("nlp", on("A100", gpus(1)));
    assert!(plan(&world.state, world.now_us).preemptions.is_empty());
}

#[test]
fn an_owner_that_takes_any_model_takes_back_the_one_that_it_is_owed() {
    let mut world = two_models();
    set(&mut world, "nlp", "T4-16G", 4, None);
    set(&mut world, "vision", "A100-80G", 4, None);
    let borrower = world.submit_for("guests", on("T4", gpus(4)));
    let owner = world.submit_for("vision", gpus(4));
    assert_eq!(world.plan_and_place().len(), 2);
    assert_eq!(models(&world, owner), ["A100-80G"; 4]);
    world.now_us += 10 * MINUTE_US;
    let any = world.submit_for("nlp", gpus(4));
    assert_eq!(world.plan_and_preempt(), [borrower]);
    stop(&mut world, &[borrower]);
    assert_eq!(world.plan_and_place(), [any]);
    assert_eq!(models(&world, any), ["T4-16G"; 4]);
}

#[test]
fn above_what_is_guaranteed_over_all_models_nothing_is_taken_back_of_one() {
    let mut world = two_models();
    world.quota("nlp", 2, None, None);
    world.quota("vision", 6, None, None);
    set(&mut world, "nlp", "A100-80G", 2, None);
    world.submit_for("nlp", on("T4", gpus(2)));
    world.submit_for("vision", on("A100", gpus(4)));
    assert_eq!(world.plan_and_place().len(), 2);
    world.now_us += 10 * MINUTE_US;
    world.submit_for("nlp", on("A100", gpus(2)));
    assert!(plan(&world.state, world.now_us).preemptions.is_empty());
}

#[test]
fn a_gang_is_of_one_model_where_quota_is_stated_by_model() {
    let mut world = World::with_nodes(&[
        ("node-1", "2xA100-80G"),
        ("node-2", "2xA100-80G"),
        ("node-3", "2xT4-16G"),
    ]);
    set(&mut world, "nlp", "A100-80G", 2, None);
    let refusal = world.refuse(submit(gang(3)));
    assert!(
        refusal.message.contains("3 nodes are asked for"),
        "{refusal:?}"
    );
    let pair = world.submit_for(
        "nlp",
        WorkloadSpec {
            nodes: 2,
            ..gpus(2)
        },
    );
    assert_eq!(world.plan_and_place(), [pair]);
    assert_eq!(models(&world, pair), ["A100-80G"; 4]);
}

#[test]
fn apply_refuses_a_stale_plan_that_passes_a_limit_or_mixes_models() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G,2xT4-16G")]);
    world.tenant("nlp");
    let mixed = world.submit_for("nlp", gpus(2));
    let second = world.submit_for("nlp", gpus(2));
    set(&mut world, "nlp", "A100-80G", 1, Some(1));
    assert_eq!(
        world.try_place(placement(mixed, 1, &[("node-1", &[1, 2])])),
        Err(
            "devices of A100-80G and T4-16G are planned, and pool default has lines by model"
                .to_owned()
        )
    );
    assert_eq!(
        world.try_place(placement(second, 1, &[("node-1", &[0, 1])])),
        Err("tenant nlp holds 0 of its limit of 1 GPUs of A100-80G".to_owned())
    );
    world.place_on(mixed, &[("node-1", &[2, 3])]);
}

#[test]
fn a_model_that_comes_back_under_another_name_leaves_its_lines_without_devices() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.tenant("nlp");
    world.accept(Command::SetQuota(model_quota(
        "nlp",
        "A100-80G",
        2,
        Some(2),
        Some(0),
    )));
    let before = world.submit_for("nlp", gpus(2));
    assert_eq!(world.plan_and_place(), [before]);
    // The driver writes the name in another way from now on.
    let mut renamed = describe("node-1", "default", "4xA100-80G");
    for device in &mut renamed.devices {
        device.model = "A100-SXM4-80G".to_owned();
    }
    world.accept(Command::RegisterNode {
        description: Box::new(renamed),
    });
    let pool = pool_name("default");
    let old = Meter::of_model(&pool, "A100-80G");
    assert_eq!(world.state.used_on(&tenant_name("nlp"), old), 2_000);
    // What nobody has a line for is everybody's, and what was granted counts where it was.
    let after = world.submit_for("guests", gpus(2));
    assert_eq!(world.plan_and_place(), [after]);
    assert_eq!(models(&world, after), ["A100-SXM4-80G"; 2]);
    let waits = world.submit_for("nlp", gpus(1));
    let waiting = explain(&world.state, world.run(waits));
    assert_eq!(waiting.tier, Tier::WaitingForCapacity, "{waiting:?}");
    world.end(before, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.state.used_on(&tenant_name("nlp"), old), 0);
    // No new line for it; the old one can go.
    let refusal = world.refuse(Command::SetQuota(model_quota(
        "nlp", "A100-80G", 1, None, None,
    )));
    assert_eq!(
        (refusal.message.as_str(), refusal.allowed.as_deref()),
        (
            "pool default has no devices of model \"A100-80G\"",
            Some("A100-SXM4-80G")
        )
    );
    world.accept(Command::SetQuota(QuotaChange {
        gpu_milli: None,
        ..model_quota("nlp", "A100-80G", 0, None, None)
    }));
    assert!(!world.state.tenants().is_metered_by_model(&pool));
}

#[test]
fn lines_of_models_that_could_never_be_kept_are_refused() {
    let mut world = two_models();
    world.quota("nlp", 3, None, None);
    world.tenant("guests");
    set(&mut world, "nlp", "A100-80G", 2, None);
    let table = [
        (
            model_quota("guests", "A100", 1, None, None),
            "pool default has no devices of model \"A100\"",
        ),
        (
            model_quota("nlp", "T4-16G", 2, None, None),
            "4 GPUs of single models are more than the 3 guaranteed to nlp in pool default",
        ),
        (
            quota("nlp", 1, None, None),
            "2 GPUs of single models are more than the 1 guaranteed to nlp in pool default",
        ),
        (
            model_quota("guests", "T4-16G", 1, None, None),
            "pool default is divided over all models, and neither guests nor any tenant above it has a line over all: what it is guaranteed of T4-16G would be borrowed",
        ),
        (
            model_quota("nlp", "A100-80G", 3, Some(2), None),
            "a limit of 2 GPUs is below the quota of 3",
        ),
    ];
    for (change, message) in table {
        assert_eq!(world.refuse(Command::SetQuota(change)).message, message);
    }
    world.quota("guests", 5, None, None);
    let refusal = world.refuse(Command::SetQuota(model_quota(
        "guests", "A100-80G", 3, None, None,
    )));
    assert_eq!(
        refusal.message,
        "a quota of 3 GPUs for guests is more than A100-80G in pool default can guarantee: it has 4, and 2 are guaranteed to others"
    );
    let audit = world.audit();
    let subjects: Vec<&str> = audit
        .iter()
        .filter(|entry| entry.action == "quota.set")
        .map(|entry| entry.subject.as_str())
        .collect();
    assert_eq!(
        subjects,
        ["nlp/default", "nlp/default/A100-80G", "guests/default"]
    );
}

#[test]
fn a_line_below_what_is_in_use_stops_nobody_who_is_not_wanted_for_an_owner() {
    let mut world = two_models();
    set(&mut world, "nlp", "A100-80G", 4, None);
    let run = world.submit_for("nlp", on("A100", gpus(4)));
    assert_eq!(world.plan_and_place(), [run]);
    set(&mut world, "nlp", "A100-80G", 1, Some(1));
    world.now_us += 10 * MINUTE_US;
    assert!(plan(&world.state, world.now_us).is_empty());
    assert!(world.attempt(run).stopping.is_none());
}
