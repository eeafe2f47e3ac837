//! What a waiting run has before it: its position, who holds what it needs, and what would start it.

use super::priority;
use crate::fixtures::*;
use crate::model::{EndKind, MemberPhase, RunId, WorkloadSpec};
use crate::scheduler::{Change, Durations, Outlook, Tier, Until, explain, outlook, plan};
use crate::state::Command;

fn look(world: &World, run: RunId) -> Outlook {
    let durations = Durations::of(&world.state);
    outlook(world.state.live_copy(), &durations, run, world.now_us).expect("it waits")
}

fn flags(outlook: &Outlook) -> Vec<&str> {
    outlook
        .changes
        .iter()
        .map(|change| change.flags.as_str())
        .collect()
}

fn limited(limit_s: u64, spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec {
        time_limit_ms: Some(limit_s * 1000),
        ..spec
    }
}

fn of_model(model: &str, spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec {
        gpu_model: Some(model.to_owned()),
        ..spec
    }
}

#[test]
fn holders_are_named_with_their_latest_end_first_to_leave_first() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G,2xT4-16G")]);
    let forever = world.submit_for("nlp", of_model("A100-80G", gpus(1)));
    let long = world.submit_for("nlp", limited(7200, of_model("A100-80G", gpus(2))));
    let short = world.submit_for("vision", limited(600, of_model("A100-80G", gpus(1))));
    let other = world.submit_for("ads", of_model("T4-16G", gpus(2)));
    assert_eq!(world.plan_and_place().len(), 4);
    let started_us = world.now_us;
    for run in [forever, short, other] {
        world.report(run, 0, MemberPhase::Running);
    }
    let waits = world.submit(of_model("A100-80G", gpus(2)));
    let seen = look(&world, waits);
    let told: Vec<(RunId, &str, u64, Until)> = seen
        .holders
        .iter()
        .map(|holder| {
            (
                holder.run,
                holder.tenant.as_str(),
                holder.held_milli,
                holder.until,
            )
        })
        .collect();
    let at_us = started_us + 600_000_000;
    assert_eq!(
        told,
        [
            (short, "vision", 1000, Until::Latest { at_us }),
            (
                long,
                "nlp",
                2000,
                Until::AfterStart {
                    limit_us: 7_200_000_000
                }
            ),
            (forever, "nlp", 1000, Until::NoLimit),
        ],
        "the holder of other models is not in its way"
    );
    assert_eq!(seen.more_holders, 0);
}

#[test]
fn a_limit_is_held_by_those_below_it_and_by_nobody_else() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    world.quota("nlp", 2, Some(2), None);
    let own = world.submit_for("nlp", gpus(2));
    world.submit_for("vision", gpus(2));
    world.plan_and_place();
    let waits = world.submit_for("nlp", gpus(1));
    let seen = look(&world, waits);
    let holders: Vec<RunId> = seen.holders.iter().map(|holder| holder.run).collect();
    assert_eq!(holders, [own]);
    assert_eq!(
        flags(&seen),
        [""; 0],
        "no smaller run would be within the limit"
    );
}

#[test]
fn holders_beyond_a_few_are_counted() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    for _ in 0..8 {
        world.submit(gpus(1));
    }
    world.plan_and_place();
    let waits = world.submit(gpus(1));
    let seen = look(&world, waits);
    assert_eq!((seen.holders.len(), seen.more_holders), (5, 3));
}

#[test]
fn a_position_is_a_turn_of_the_tenant_and_a_place_within_it() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.submit_for("vision", gpus(3));
    world.submit_for("nlp", gpus(1));
    world.plan_and_place();
    let vision = world.submit_for("vision", gpus(1));
    let first = world.submit_for("nlp", gpus(1));
    let second = world.submit_for("nlp", gpus(2));
    let place = |run| {
        let position = look(&world, run).position.expect("it is in a queue");
        (
            position.ahead,
            position.waiting,
            position.turn,
            position.turns,
        )
    };
    assert_eq!(place(first), (0, 2, 1, 2), "nlp holds less than vision");
    assert_eq!(place(second), (1, 2, 1, 2));
    assert_eq!(place(vision), (0, 1, 2, 2));
}

#[test]
fn what_gives_nothing_up_is_told_before_what_gives_least_up() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G,4xT4-16G")]);
    world.submit(of_model("A100-80G", gpus(5)));
    world.plan_and_place();
    let waits = world.submit(of_model("A100-80G", gpus(4)));
    let seen = look(&world, waits);
    assert_eq!(flags(&seen), ["--gpu-model T4-16G", "--gpus 3"]);
    assert_eq!(seen.changes[1].words, "1 GPU less");
    assert!(seen.changes[0].gives_way.is_empty());
}

#[test]
fn every_change_told_does_start_the_run() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G"), ("node-2", "4xA100-80G")]);
    world.join(describe("node-3", "other", "4xA100-80G"));
    world.accept(Command::SetPool {
        pool: pool_name("other"),
        description: None,
        order: None,
        age_bound_ms: None,
        must_exist: None,
    });
    let holder = world.submit(gpus(2));
    world.plan_and_place();
    let gang = world.submit(WorkloadSpec {
        nodes: 2,
        ..gpus(4)
    });
    let seen = look(&world, gang);
    assert_eq!(flags(&seen), ["--gpus 2", "--nodes 1"]);
    for (change, spec) in [
        (
            &seen.changes[0],
            WorkloadSpec {
                nodes: 2,
                ..gpus(2)
            },
        ),
        (&seen.changes[1], gpus(4)),
    ] {
        world.now_us += 1;
        let tried = world.submit(spec);
        let placed = plan(&world.state, world.now_us)
            .placements
            .iter()
            .any(|placement| placement.run == tried);
        assert!(placed, "{change:?}");
        world.cancel(tried);
    }
    world.end(holder, 0, EndKind::Exited { code: 0 });
    assert!(look(&world, gang).starts_now);
}

#[test]
fn memory_and_parts_of_a_gpu_are_cut_to_what_is_free() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.submit(WorkloadSpec {
        gpu_memory_mib: Some(30 * 1024),
        ..share(500)
    });
    world.plan_and_place();
    let memory = world.submit(WorkloadSpec {
        gpu_memory_mib: Some(60 * 1024),
        ..share(400)
    });
    let seen = look(&world, memory);
    assert_eq!(flags(&seen)[0], "--gpu-memory 50G");
    assert_eq!(seen.changes[0].words, "instead of 60G");
    world.cancel(memory);
    let whole = world.submit(gpus(1));
    assert_eq!(flags(&look(&world, whole))[0], "--gpu-fraction 0.5");
}

#[test]
fn a_run_that_may_not_borrow_is_told_that_it_could() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.quota("nlp", 1, None, None);
    world.tenant("vision");
    let waits = world.submit_for(
        "nlp",
        WorkloadSpec {
            preemptible: false,
            ..gpus(1)
        },
    );
    world.plan_and_place();
    let stays = world.submit_for(
        "nlp",
        WorkloadSpec {
            preemptible: false,
            ..gpus(1)
        },
    );
    let seen = look(&world, stays);
    assert_eq!(flags(&seen)[0], "leave out --no-preempt");
    let holders: Vec<RunId> = seen.holders.iter().map(|holder| holder.run).collect();
    assert_eq!(holders, [waits], "who uses its guarantee up");
}

#[test]
fn who_is_to_give_way_is_named_with_the_time_from_which_it_may_be_stopped() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    let guest = world.submit_for("guests", gpus(4));
    world.plan_and_place();
    world.quota("nlp", 2, None, None);
    let owner = world.submit_for("nlp", gpus(2));
    let placed_us = world.attempt(guest).placed_us;
    let gives_way = look(&world, owner).gives_way.expect("the guest does");
    assert_eq!(gives_way.runs, [guest]);
    assert_eq!(
        gives_way.at_us,
        placed_us + 30_000_000,
        "after its first while"
    );
}

#[test]
fn a_higher_priority_that_starts_it_says_whom_it_stops() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.set_policy(|policy| policy.minimum_run_ms = 0);
    let holder = world.submit(gpus(1));
    world.plan_and_place();
    let waits = world.submit(gpus(1));
    let seen = look(&world, waits);
    let told: Vec<(&str, &[RunId])> = seen
        .changes
        .iter()
        .map(|change: &Change| (change.flags.as_str(), change.gives_way.as_slice()))
        .collect();
    assert_eq!(told, [("--priority 1", [holder].as_slice())]);
}

#[test]
fn room_that_runs_ahead_take_is_no_room() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let ahead = world.submit(priority(5, gpus(2)));
    let behind = world.submit(gpus(1));
    let waiting = explain(&world.state, world.run(behind));
    assert_eq!(waiting.tier, Tier::NextPlan, "nobody holds anything yet");
    let seen = look(&world, behind);
    assert!(!seen.starts_now);
    let waiting = waiting.beside(&seen);
    assert_eq!(waiting.tier, Tier::WaitingForCapacity);
    assert_eq!(
        flags(&seen),
        [""; 0],
        "the one ahead is left alone for its first while"
    );
    assert!(look(&world, ahead).starts_now);
}

#[test]
fn what_does_not_wait_has_no_outlook_and_looking_changes_nothing() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let runs = world.submit(gpus(1));
    world.plan_and_place();
    let waits = world.submit(gpus(1));
    let before = world.state.clone();
    let copy = world.state.live_copy();
    assert_eq!(
        outlook(copy, &Durations::default(), runs, world.now_us),
        None
    );
    look(&world, waits);
    assert_eq!(world.state, before);
}

#[test]
fn a_time_limit_that_lets_it_use_what_is_kept_for_another_is_a_small_change() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G"), ("node-2", "A100-80G")]);
    let holder = world.submit(limited(3600, gpus(1)));
    world.place_on(holder, &[("node-1", &[0])]);
    world.report(holder, 0, MemberPhase::Running);
    let gang = world.submit(gang(2));
    world.now_us += 300_000_000;
    let waits = world.submit(gpus(1));
    let seen = look(&world, waits);
    let limit = seen
        .changes
        .iter()
        .find(|change| change.flags.starts_with("--time-limit "))
        .expect("what is short goes past");
    assert!(limit.words.contains(&gang.to_string()), "{limit:?}");
    let seconds: u64 = limit.flags["--time-limit ".len()..]
        .trim_end_matches('s')
        .parse()
        .expect("seconds");
    assert_eq!(world.plan_and_place(), []);
    let short = world.submit(limited(seconds, gpus(1)));
    assert_eq!(world.plan_and_place(), [short]);
}
