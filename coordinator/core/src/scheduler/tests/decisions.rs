//! Decisions as they are kept, and decided again.

use crate::fixtures::*;
use crate::model::{Decision, RunId, Verdict};
use crate::scheduler::decisions::{Fronts, came_to_pass, of_plan, of_refusal, repeat};
use crate::scheduler::plan;
use crate::state::{Command, Entry, Event};

/// Four devices, two of them guaranteed to nlp, all in the hands of a borrower, and nlp's run waiting.
fn quarrel() -> (World, RunId, RunId) {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.quota("nlp", 2, None, None);
    let borrower = world.submit_for("guests", gpus(4));
    world.plan_and_place();
    world.now_us += 60_000_000;
    let owner = world.submit_for("nlp", gpus(2));
    (world, borrower, owner)
}

#[test]
fn who_is_stopped_for_whom_and_at_what_cost_is_kept_and_decided_again_alike() {
    let (mut world, borrower, owner) = quarrel();
    let before = world.state.clone();
    let now_us = world.now_us;
    let decisions = of_plan(&before, now_us, &plan(&before, now_us), "1");
    let [decision] = decisions.as_slice() else {
        panic!("{decisions:#?}");
    };
    let Verdict::Preempted {
        claimant,
        lost_gpu_us,
        ..
    } = &decision.verdict
    else {
        panic!("{decision:#?}");
    };
    assert_eq!(decision.run, Some(borrower));
    assert_eq!((*claimant, *lost_gpu_us), (owner, 4 * 60_000_000));
    assert!(!came_to_pass(&world.state, decision));
    world.plan_and_preempt();
    assert!(came_to_pass(&world.state, decision));
    assert_eq!(repeat(&before, None, decision), Ok(()));
}

#[test]
fn another_state_another_time_or_another_digest_is_said() {
    let (world, ..) = quarrel();
    let now_us = world.now_us;
    let decisions = of_plan(&world.state, now_us, &plan(&world.state, now_us), "1");
    let decision = decisions[0].clone();
    let too_soon = Decision {
        now_us: now_us - 59_000_000,
        ..decision.clone()
    };
    assert_eq!(
        repeat(&world.state, None, &too_soon),
        Err("nothing is decided about it".to_owned()),
        "within its minimum run"
    );
    let mut other = decision.clone();
    if let Verdict::Preempted { plan, .. } = &mut other.verdict {
        plan.replace_range(..1, "x");
    }
    assert!(repeat(&world.state, None, &other).is_err());
}

#[test]
fn what_is_granted_names_its_devices() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let run = world.submit(gpus(2));
    let decisions = of_plan(
        &world.state,
        world.now_us,
        &plan(&world.state, world.now_us),
        "1",
    );
    let Verdict::Granted {
        attempt, members, ..
    } = &decisions[0].verdict
    else {
        panic!("{decisions:#?}");
    };
    assert_eq!((decisions[0].run, *attempt), (Some(run), 1));
    assert_eq!(
        members[0].devices,
        [device("node-1", 0), device("node-1", 1)]
    );
    assert_eq!(repeat(&world.state, None, &decisions[0]), Ok(()));
    assert_eq!(
        of_plan(&world.state, world.now_us, &Default::default(), "1"),
        []
    );
}

#[test]
fn a_wait_is_told_once_and_again_when_its_reason_is_another() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    let holds = world.submit(gpus(3));
    let next = world.submit(gpus(1));
    world.plan_and_place();
    let waits = world.submit(gpus(2));
    world.submit(gpus(2));
    let mut fronts = Fronts::default();
    let told = fronts.look(&world.state, world.now_us, "1");
    let [first] = told.as_slice() else {
        panic!("the first in line alone: {told:#?}");
    };
    assert_eq!(first.run, Some(waits));
    assert!(
        matches!(&first.verdict, Verdict::Waits { tier, .. } if tier == "waiting-for-capacity"),
        "{first:#?}"
    );
    assert_eq!(repeat(&world.state, None, first), Ok(()));
    // One device more is idle: another count, the same reason.
    world.end(next, 0, crate::model::EndKind::Exited { code: 0 });
    assert_eq!(fronts.look(&world.state, world.now_us, "1"), []);
    world.quota("nlp", 4, None, Some(0));
    let told = fronts.look(&world.state, world.now_us, "1");
    assert!(
        matches!(&told[0].verdict, Verdict::Waits { tier, .. } if tier == "over-quota"),
        "{told:#?}"
    );
    world.end(holds, 0, crate::model::EndKind::Exited { code: 0 });
    world.quota("nlp", 0, None, None);
    assert_eq!(
        fronts.look(&world.state, world.now_us, "1"),
        [],
        "the next plan takes it"
    );
}

#[test]
fn a_refused_submit_is_refused_again_by_its_log_entry_and_not_by_another() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    let before = world.state.clone();
    let refusal = world.refuse(submit(gpus(9)));
    let entry = world.entries.last().cloned().expect("an entry");
    let decision = of_refusal(
        before.index(),
        world.now_us,
        "1",
        &tenant_name("default"),
        "user:ana",
        &refusal.message,
    );
    assert_eq!(repeat(&before, Some(&entry), &decision), Ok(()));
    assert_eq!(
        repeat(&before, None, &decision),
        Err("its submit is not in the log".to_owned())
    );
    let fits = Entry {
        command: submit(gpus(1)),
        ..entry
    };
    assert_eq!(
        repeat(&before, Some(&fits), &decision),
        Err("it is admitted".to_owned())
    );
}

#[test]
fn what_is_kept_goes_to_the_books_and_changes_nothing_else() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.submit(gpus(1));
    let decisions = of_plan(
        &world.state,
        world.now_us,
        &plan(&world.state, world.now_us),
        "1",
    );
    let audited = world.audit().len();
    let events: Vec<Event> = world.apply(Command::KeepDecisions {
        decisions: decisions.clone(),
    });
    assert_eq!(events, []);
    assert_eq!(world.audit().len(), audited);
    let kept = world
        .state
        .outbox()
        .back()
        .map(|record| record.body.clone());
    assert_eq!(
        kept,
        Some(crate::model::OutboxBody::Decision(Box::new(
            decisions[0].clone()
        )))
    );
}
