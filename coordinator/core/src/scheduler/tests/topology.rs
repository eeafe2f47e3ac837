//! Devices that are wired together, gangs in racks, and nodes that hold what a run brings.

use crate::fixtures::*;
use crate::model::{DeviceWiring, EndKind, RunId, WorkloadSpec};

/// A node of eight devices in two islands of four.
fn join_wired(world: &mut World, name: &str) {
    let mut description = describe(name, "default", "8xA100-80G");
    for device in &mut description.devices {
        let island = Some(device.index / 4);
        device.wiring = DeviceWiring {
            nvlink_island: island,
            pcie_switch: island,
            numa_node: island,
        };
    }
    world.join(description);
}

fn join_in_rack(world: &mut World, name: &str, rack: &str) {
    let mut description = describe(name, "default", "2xA100-80G");
    description.rack = Some(rack.to_owned());
    world.join(description);
}

fn nodes_of(world: &World, run: RunId) -> Vec<String> {
    let mut nodes: Vec<String> = world
        .attempt(run)
        .members
        .iter()
        .map(|member| member.node.to_string())
        .collect();
    nodes.sort();
    nodes
}

fn indexes(world: &World, run: RunId) -> Vec<u32> {
    let grants = &world.attempt(run).members[0].devices;
    grants.iter().map(|grant| grant.index).collect()
}

#[test]
fn four_gpus_are_taken_on_one_island_though_a_fuller_node_would_split_them() {
    let mut world = World::new();
    join_wired(&mut world, "node-1");
    join_wired(&mut world, "node-2");
    for (node, taken) in [("node-1", [0_u32, 1, 4]), ("node-2", [0, 1, 2])] {
        for device in taken {
            if node == "node-2" && device == 2 {
                continue;
            }
            let run = world.submit(gpus(1));
            world.place_on(run, &[(node, &[device])]);
        }
    }
    // Tight packing alone would take node-1, with 5 free against 6, where no island has 4.
    let four = world.submit(gpus(4));
    world.plan_and_place();
    assert_eq!(nodes_of(&world, four), ["node-2"]);
    assert_eq!(indexes(&world, four), [4, 5, 6, 7]);
    // What does not fit on one island still starts.
    let rest = world.submit(gpus(5));
    world.plan_and_place();
    assert_eq!(nodes_of(&world, rest), ["node-1"]);
}

#[test]
fn devices_of_one_island_are_taken_though_others_of_several_models_would_be_packed_tighter() {
    let mut world = World::new();
    let mut description = describe("node-1", "default", "2xH100-80G,1xA100-80G");
    for device in &mut description.devices {
        device.wiring.nvlink_island = Some(device.index / 2);
    }
    world.join(description);
    let pair = world.submit(gpus(2));
    world.plan_and_place();
    assert_eq!(indexes(&world, pair), [0, 1]);
}

#[test]
fn a_gang_stays_in_one_rack_and_one_that_asks_for_it_is_spread() {
    let mut world = World::new();
    for (name, rack) in [
        ("node-1", "r1"),
        ("node-2", "r2"),
        ("node-3", "r1"),
        ("node-4", "r2"),
        ("node-5", "r2"),
    ] {
        join_in_rack(&mut world, name, rack);
    }
    let close = world.submit(WorkloadSpec {
        nodes: 2,
        ..gpus(2)
    });
    let spread = world.submit(WorkloadSpec {
        spread: true,
        nodes: 2,
        ..gpus(1)
    });
    world.plan_and_place();
    assert_eq!(
        nodes_of(&world, close),
        ["node-1", "node-3"],
        "none left over"
    );
    world.end(close, 0, EndKind::Exited { code: 0 });
    world.end(close, 1, EndKind::Exited { code: 0 });
    assert_eq!(nodes_of(&world, spread).len(), 2);
    let again = world.submit(WorkloadSpec {
        spread: true,
        nodes: 2,
        ..gpus(2)
    });
    world.plan_and_place();
    let nodes = nodes_of(&world, again);
    let racks: Vec<_> = nodes
        .iter()
        .map(|name| {
            world.state.nodes()[name.as_str()]
                .description
                .rack
                .as_deref()
        })
        .collect();
    assert_eq!(racks, [Some("r1"), Some("r2")], "{nodes:?}");
}

#[test]
fn a_run_goes_to_the_node_that_holds_its_files_where_others_are_no_better() {
    let mut world = World::with_nodes(&[
        ("node-1", "A100-80G"),
        ("node-2", "A100-80G"),
        ("node-3", "A100-80G"),
    ]);
    let with_files = |content: &str| WorkloadSpec {
        source_sha256: Some(content.repeat(64)),
        ..gpus(1)
    };
    let first = world.submit(with_files("a"));
    world.place_on(first, &[("node-3", &[0])]);
    world.end(first, 0, EndKind::Exited { code: 0 });
    let (other, same) = (world.submit(with_files("b")), world.submit(with_files("a")));
    world.plan_and_place();
    assert_eq!(nodes_of(&world, other), ["node-1"]);
    assert_eq!(nodes_of(&world, same), ["node-3"]);
    // Taken: it goes elsewhere and does not wait.
    let late = world.submit(with_files("a"));
    world.plan_and_place();
    assert_eq!(nodes_of(&world, late), ["node-2"]);
}
