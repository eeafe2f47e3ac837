//! What agents may write, and what an older epoch may not.

use crate::fixtures::*;
use crate::model::{Attempt, EndKind, Epoch, MemberPhase, NodeCondition, RunPhase};
use crate::state::{Command, Event, MemberReport};

fn running() -> (World, crate::model::RunId) {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xA100-80G")]);
    let run = world.submit(gpus(1));
    world.place_on(run, &[("node-1", &[0])]);
    world.report(run, 0, MemberPhase::Running);
    (world, run)
}

#[test]
fn a_checkpoint_is_kept_by_the_last_that_was_told_and_never_in_the_future() {
    let (mut world, run) = running();
    let placed_us = world.attempt(run).placed_us;
    let minute_us = 60_000_000;
    world.now_us += 10 * minute_us;
    // What the node says, what is then kept, and since when work would be lost.
    let table = [
        (None, None, placed_us),
        (Some(0), Some(0), placed_us),
        (Some(5 * minute_us), Some(5 * minute_us), 5 * minute_us),
        (Some(4 * minute_us), Some(5 * minute_us), 5 * minute_us),
        (None, Some(5 * minute_us), 5 * minute_us),
        (Some(u64::MAX), Some(world.now_us), world.now_us),
    ];
    for (told, kept, unsaved_since_us) in table {
        let (node, mut report) = world.report_of(run, 0, MemberPhase::Running);
        report.checkpointed_us = told;
        let before = world.attempt(run).checkpointed_us;
        let events = world.send(node, report);
        assert_eq!(world.attempt(run).checkpointed_us, kept, "{told:?}");
        assert_eq!(events.is_empty(), before == kept, "{told:?}");
        assert_eq!(world.run(run).unsaved_since_us(), Some(unsaved_since_us));
    }
    world.end(run, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.run(run).unsaved_since_us(), None);
}

#[test]
fn what_was_written_before_there_were_checkpoints_is_still_read() {
    let (world, run) = running();
    let (_, report) = world.report_of(run, 0, MemberPhase::Running);
    let attempt = rmp_serde::to_vec_named(world.attempt(run)).expect("it encodes");
    let report = rmp_serde::to_vec_named(&report).expect("it encodes");
    for older in [&attempt, &report] {
        let is_named = older.windows(12).any(|part| part == b"checkpointed");
        assert!(!is_named, "as it was written before");
    }
    let attempt: Attempt = rmp_serde::from_slice(&attempt).expect("it reads");
    let report: MemberReport = rmp_serde::from_slice(&report).expect("it reads");
    assert_eq!(
        (attempt.checkpointed_us, report.checkpointed_us),
        (None, None)
    );
}

#[test]
fn a_stale_report_writes_nothing_at_all() {
    let (mut world, run) = running();
    let (node, current) = world.report_of(run, 0, MemberPhase::Ended);
    let mut older = current.clone();
    older.epoch = Epoch(0);
    let mut newer = current.clone();
    newer.epoch = Epoch(77);
    let mut other_attempt = current.clone();
    other_attempt.key.attempt = 2;
    let mut other_member = current.clone();
    other_member.key.member = 5;
    let mut other_run = current.clone();
    other_run.key.run = crate::model::RunId(99);
    let reports = [
        (node.clone(), older),
        (node.clone(), newer),
        (node.clone(), other_attempt),
        (node.clone(), other_member),
        (node, other_run),
        (node_name("node-2"), current),
    ];
    for (node, report) in reports {
        let before = (
            world.state.runs().clone(),
            world.state.nodes().clone(),
            world.state.outbox().len(),
        );
        let events = world.send(node, report.clone());
        assert!(
            matches!(events.as_slice(), [Event::StaleReport { .. }]),
            "{report:?}"
        );
        let after = (
            world.state.runs().clone(),
            world.state.nodes().clone(),
            world.state.outbox().len(),
        );
        assert_eq!(before, after, "{report:?}");
    }
}

#[test]
fn an_end_that_is_told_again_changes_nothing() {
    let (mut world, run) = running();
    let (node, mut report) = world.report_of(run, 0, MemberPhase::Ended);
    report.end = Some(end(EndKind::Exited { code: 0 }));
    let first = world.send(node.clone(), report.clone());
    assert!(first.contains(&Event::RunEnded { run }));
    let before = (world.state.runs().clone(), world.state.outbox().len());
    world.now_us += 5;
    assert_eq!(world.send(node, report), []);
    assert_eq!(
        before,
        (world.state.runs().clone(), world.state.outbox().len())
    );
}

#[test]
fn an_overtaken_report_moves_nothing_back() {
    let (mut world, run) = running();
    let (node, mut late) = world.report_of(run, 0, MemberPhase::Preparing);
    late.detail = Some("installing".to_owned());
    assert_eq!(world.send(node, late), []);
    let member = &world.attempt(run).members[0];
    assert_eq!(
        (member.phase, member.detail.as_deref()),
        (MemberPhase::Running, None)
    );
}

#[test]
fn what_a_node_says_of_its_enforcement_is_kept_and_audited() {
    let (mut world, run) = running();
    let audited = world.audit().len();
    let (node, mut report) = world.report_of(run, 0, MemberPhase::Running);
    report.enforcement = Some("cgroup".to_owned());
    assert_eq!(world.send(node.clone(), report.clone()).len(), 1);
    assert_eq!(
        world.attempt(run).members[0].enforcement.as_deref(),
        Some("cgroup")
    );
    assert_eq!(world.audit().len(), audited + 1);
    assert_eq!(world.send(node, report), [], "told again");
    assert_eq!(world.audit().len(), audited + 1);
}

#[test]
fn a_gang_has_started_when_its_last_member_runs() {
    let (mut world, _) = running();
    let run = world.submit(gang(2));
    world.place_on(run, &[("node-1", &[1]), ("node-2", &[0])]);
    world.now_us += 10;
    world.report(run, 0, MemberPhase::Running);
    assert_eq!(world.attempt(run).started_us, None);
    world.report(run, 1, MemberPhase::Preparing);
    assert_eq!(world.attempt(run).started_us, None);
    world.now_us += 10;
    world.report(run, 1, MemberPhase::Running);
    assert_eq!(world.attempt(run).started_us, Some(world.now_us));
}

#[test]
fn a_gang_whose_first_member_ended_early_starts_with_the_other() {
    let (mut world, _) = running();
    let run = world.submit(gang(2));
    world.place_on(run, &[("node-1", &[1]), ("node-2", &[0])]);
    world.end(run, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.attempt(run).started_us, None, "one still prepares");
    world.now_us += 10;
    world.report(run, 1, MemberPhase::Running);
    assert_eq!(world.attempt(run).started_us, Some(world.now_us));
}

#[test]
fn a_member_that_never_launched_did_not_start_its_gang() {
    let (mut world, _) = running();
    let run = world.submit(gang(2));
    world.place_on(run, &[("node-1", &[1]), ("node-2", &[0])]);
    world.end(run, 0, EndKind::LaunchFailed { node_fault: false });
    world.report(run, 1, MemberPhase::Running);
    assert_eq!(world.attempt(run).started_us, None);
}

#[test]
fn start_and_end_in_one_report_still_count_as_a_start() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let run = world.submit(gpus(1));
    world.place_on(run, &[("node-1", &[0])]);
    world.end(run, 0, EndKind::Signaled { signal: 11 });
    assert_eq!(world.attempt(run).started_us, Some(world.now_us));
}

#[test]
fn an_end_without_a_reason_is_the_platforms() {
    let (mut world, run) = running();
    let (node, report) = world.report_of(run, 0, MemberPhase::Ended);
    world.send(node, report);
    assert_eq!(world.run(run).phase, RunPhase::Queued);
    assert_eq!((world.run(run).losses, world.run(run).failures), (1, 0));
}

#[test]
fn three_launch_failures_in_a_row_cordon_the_node_and_say_so() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G"), ("node-2", "A100-80G")]);
    let run = world.submit(gpus(1));
    let node_fault = EndKind::LaunchFailed { node_fault: true };
    for _ in 0..2 {
        world.place_on(run, &[("node-1", &[0])]);
        world.end(run, 0, node_fault.clone());
    }
    // One that runs breaks the row.
    world.place_on(run, &[("node-1", &[0])]);
    world.report(run, 0, MemberPhase::Running);
    world.end(run, 0, EndKind::Lost);
    for _ in 0..2 {
        world.place_on(run, &[("node-1", &[0])]);
        world.end(run, 0, node_fault.clone());
        assert!(world.state.nodes()["node-1"].is_ready());
    }
    world.place_on(run, &[("node-1", &[0])]);
    let events = world.end(run, 0, node_fault);
    assert!(events.contains(&Event::NodeChanged {
        node: node_name("node-1")
    }));
    match &world.state.nodes()["node-1"].condition {
        NodeCondition::Cordoned { reason } => {
            assert_eq!(
                reason,
                "3 launches in a row failed by the node's own fault, the last: as the node says"
            );
        }
        condition => panic!("{condition:?}"),
    }
    assert_eq!(world.run(run).failures, 0, "never the user's fault");
    assert_eq!(world.plan_and_place(), [run], "the other node takes it");
    assert_eq!(world.attempt(run).members[0].node, node_name("node-2"));
    world.accept(Command::Uncordon {
        node: node_name("node-1"),
    });
    assert_eq!(world.state.nodes()["node-1"].launch_failures, 0);
}

#[test]
fn a_launch_that_failed_by_the_users_fault_does_not_count_against_the_node() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    for _ in 0..5 {
        let run = world.submit(gpus(1));
        world.place_on(run, &[("node-1", &[0])]);
        world.end(run, 0, EndKind::LaunchFailed { node_fault: false });
        assert!(world.run(run).is_ended());
    }
    assert!(world.state.nodes()["node-1"].is_ready());
}

#[test]
fn one_report_may_tell_of_many_members_of_which_some_are_stale() {
    let (mut world, run) = running();
    let other = world.submit(gpus(1));
    world.place_on(other, &[("node-1", &[1])]);
    let (node, mut stale) = world.report_of(run, 0, MemberPhase::Ended);
    stale.epoch = Epoch(0);
    let (_, fresh) = world.report_of(other, 0, MemberPhase::Running);
    let events = world.apply(Command::Report {
        node,
        members: vec![stale, fresh],
    });
    assert!(matches!(
        events.as_slice(),
        [Event::StaleReport { .. }, Event::MemberChanged { .. }]
    ));
}
