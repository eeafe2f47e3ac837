//! Nodes come, change, are withdrawn, are lost and come back.

use crate::fixtures::*;
use crate::model::{EndKind, NodeCondition, RunPhase, WorkloadSpec};
use crate::policy::RefusalKind;
use crate::state::{Command, Event};

fn held() -> (World, crate::model::RunId) {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xA100-80G")]);
    let run = world.submit(gpus(1));
    world.place_on(run, &[("node-1", &[1])]);
    (world, run)
}

fn lost(world: &World, run: crate::model::RunId, message: &str) {
    assert_eq!(world.run(run).phase, RunPhase::Queued);
    assert_eq!((world.run(run).failures, world.run(run).losses), (0, 1));
    let end = world.attempt(run).end.clone().expect("an end");
    assert_eq!((end.kind, end.message.as_str()), (EndKind::Lost, message));
}

#[test]
fn a_node_creates_the_pool_that_it_joins() {
    let mut world = World::new();
    world.join(describe("node-1", "gold", "A100-80G"));
    assert_eq!(
        world.state.pools()["gold"].description,
        "created when node node-1 joined"
    );
}

#[test]
fn a_node_that_says_the_same_again_changes_nothing() {
    let (mut world, run) = held();
    let description = world.state.nodes()["node-1"].description.clone();
    let outbox = world.state.outbox().len();
    let events = world.accept(Command::RegisterNode {
        description: Box::new(description),
    });
    assert_eq!(events, []);
    assert_eq!(world.state.outbox().len(), outbox);
    assert_eq!(world.run(run).phase, RunPhase::Active);
}

#[test]
fn a_device_named_twice_is_refused() {
    let mut world = World::new();
    let mut description = describe("node-1", "default", "2xA100-80G");
    description.devices[1].id = device("node-1", 0);
    let refusal = world.refuse(Command::RegisterNode {
        description: Box::new(description),
    });
    assert_eq!(
        refusal.message,
        "node node-1 names device node-1-gpu-0 twice"
    );
}

#[test]
fn a_changed_boot_id_frees_what_the_node_held() {
    let (mut world, run) = held();
    let mut description = describe("node-1", "default", "2xA100-80G");
    description.boot_id = "boot-2".to_owned();
    world.join(description);
    lost(&world, run, "the node rebooted");
    assert_eq!(world.state.nodes()["node-1"].devices[1].share_milli, 0);
}

#[test]
fn a_vanished_device_ends_the_attempt_that_held_it_and_no_other() {
    let (mut world, run) = held();
    let other = world.submit(gpus(1));
    world.place_on(other, &[("node-1", &[0])]);
    let mut description = describe("node-1", "default", "2xA100-80G");
    description.devices.remove(1);
    world.join(description);
    lost(&world, run, "a device it held has vanished");
    assert_eq!(world.run(other).phase, RunPhase::Active);
    assert_eq!(world.state.nodes()["node-1"].devices.len(), 1);
    world.end(other, 0, EndKind::Exited { code: 0 });
}

#[test]
fn devices_that_change_their_order_keep_their_holders() {
    let (mut world, run) = held();
    let mut description = describe("node-1", "default", "2xA100-80G");
    description.devices.reverse();
    world.join(description);
    assert_eq!(world.run(run).phase, RunPhase::Active);
    assert_eq!(world.state.nodes()["node-1"].devices[0].share_milli, 1_000);
    world.end(run, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.state.nodes()["node-1"].devices[0].share_milli, 0);
}

#[test]
fn a_device_that_shrank_below_what_it_had_granted_counts_as_vanished() {
    let (mut world, run) = held();
    let mut description = describe("node-1", "default", "2xA100-80G");
    description.devices[1].memory_mib -= 1;
    world.join(description);
    lost(&world, run, "a device it held has vanished");
}

#[test]
fn a_node_that_comes_back_with_less_memory_keeps_its_runs_and_takes_no_more() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let spec = WorkloadSpec {
        memory_mib: Some(300 * 1024),
        ..gpus(1)
    };
    let run = world.submit(spec);
    world.place_on(run, &[("node-1", &[0])]);
    let mut description = describe("node-1", "default", "2xA100-80G");
    description.memory_mib = 100 * 1024;
    world.join(description);
    assert_eq!(world.run(run).phase, RunPhase::Active);
    world.submit(WorkloadSpec {
        memory_mib: Some(1),
        ..gpus(1)
    });
    assert_eq!(world.plan_and_place(), []);
    world.end(run, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.plan_and_place().len(), 1);
}

#[test]
fn a_lost_node_frees_what_it_held_and_is_ready_when_it_comes_back() {
    let (mut world, run) = held();
    let node = node_name("node-1");
    world.accept(Command::LoseNode { node: node.clone() });
    lost(&world, run, "node node-1 was not heard past its lease");
    assert_eq!(
        world.accept(Command::LoseNode { node: node.clone() }),
        [],
        "once"
    );
    let refusal = world.refuse(Command::Uncordon { node });
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert_eq!(refusal.message, "node node-1 is lost");
    world.join(describe("node-1", "default", "2xA100-80G"));
    assert!(world.state.nodes()["node-1"].is_ready());
}

#[test]
fn an_operators_cordon_outlives_the_loss_of_the_node() {
    let (mut world, run) = held();
    let node = node_name("node-1");
    world.accept(Command::Cordon {
        node: node.clone(),
        reason: "smells of smoke".to_owned(),
    });
    assert_eq!(
        world.run(run).phase,
        RunPhase::Active,
        "a cordon stops nothing"
    );
    world.accept(Command::LoseNode { node });
    lost(&world, run, "node node-1 was not heard past its lease");
    world.join(describe("node-1", "default", "2xA100-80G"));
    assert!(matches!(
        world.state.nodes()["node-1"].condition,
        NodeCondition::Cordoned { .. }
    ));
}

#[test]
fn a_gang_that_loses_one_node_stops_on_the_others_and_waits_again() {
    let (mut world, _) = held();
    let run = world.submit(gang(2));
    world.place_on(run, &[("node-1", &[0]), ("node-2", &[0])]);
    let events = world.accept(Command::LoseNode {
        node: node_name("node-1"),
    });
    assert!(events.contains(&Event::RunStopping { run }));
    assert_eq!(
        world.run(run).phase,
        RunPhase::Active,
        "the other member still holds"
    );
    world.end(run, 1, EndKind::Stopped);
    lost(&world, run, "node node-1 was not heard past its lease");
}

#[test]
fn unknown_nodes_are_named_with_those_there_are() {
    let (mut world, _) = held();
    let node = node_name("node-9");
    let reason = "x".to_owned();
    for command in [
        Command::Cordon {
            node: node.clone(),
            reason: reason.clone(),
        },
        Command::Uncordon { node: node.clone() },
        Command::Drain {
            node: node.clone(),
            reason,
            grace_ms: 0,
        },
        Command::Evict { node: node.clone() },
        Command::LoseNode { node },
    ] {
        let refusal = world.refuse(command);
        assert_eq!(refusal.kind, RefusalKind::NotFound);
        assert_eq!(refusal.message, "node \"node-9\" does not exist");
        assert_eq!(refusal.allowed.as_deref(), Some("node-1, node-2"));
    }
}

#[test]
fn a_drain_for_ever_does_not_overflow() {
    let (mut world, _) = held();
    world.accept(Command::Drain {
        node: node_name("node-1"),
        reason: "some day".to_owned(),
        grace_ms: u64::MAX,
    });
    assert_eq!(
        world.accept(Command::Evict {
            node: node_name("node-1")
        }),
        []
    );
}

#[test]
fn a_node_that_claims_absurd_capacity_is_refused_before_it_breaks_any_sum() {
    type Change = fn(&mut crate::model::NodeDescription);
    let table: &[Change] = &[
        |node| node.devices[0].memory_mib = u64::MAX,
        |node| node.cpu_milli = u64::MAX,
        |node| node.memory_mib = u64::MAX,
        |node| *node = describe("node-1", "default", "1025xA100-80G"),
    ];
    for change in table {
        let mut description = describe("node-1", "default", "2xA100-80G");
        change(&mut description);
        let refusal = World::new().refuse(Command::RegisterNode {
            description: Box::new(description),
        });
        assert_eq!(refusal.kind, RefusalKind::Invalid);
        assert!(refusal.message.starts_with("node node-1 says that it has"));
    }
}
