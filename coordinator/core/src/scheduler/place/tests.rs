//! What placement keeps: capacity, exactness, completeness, and which node and device it chooses.

use super::{FreeNode, Inventory, Mix, Shape};
use crate::fixtures::{describe, device, node_name, pool_name};
use crate::model::{Node, NodeCondition, WHOLE_DEVICE_MILLI};
use crate::state::MemberPlacement;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// One device's share.
pub(super) fn share_of(share_milli: u32, cpu_milli: u64) -> Shape {
    Shape {
        devices: 1,
        share_milli,
        gpu_memory_mib: None,
        gpu_memory_ceiling_mib: None,
        gpu_models: Vec::new(),
        only_model: None,
        cpu_milli,
        memory_mib: 0,
        runtime: "process",
    }
}

fn whole(devices: u32, cpu_milli: u64) -> Shape {
    Shape {
        devices,
        ..share_of(WHOLE_DEVICE_MILLI, cpu_milli)
    }
}

fn node(name: &str, devices: &str, cpu_milli: u64) -> Node {
    let mut description = describe(name, "default", devices);
    description.cpu_milli = cpu_milli;
    Node::new(description)
}

fn inventory(nodes: &[Node]) -> Inventory {
    Inventory::of_nodes(&pool_name("default"), nodes)
}

fn learnt(nodes: &[Node], mix: &[(Shape, u64)]) -> Inventory {
    let mut inventory = inventory(nodes);
    let mut learnt = Mix::new();
    for (shape, count) in mix {
        learnt.observe(shape, *count);
    }
    inventory.learn(&learnt);
    inventory
}

/// Where one member went.
fn placed(inventory: &mut Inventory, shape: &Shape) -> Option<(String, Vec<String>)> {
    let member = inventory.take(shape, 1)?.remove(0);
    let devices = member.devices.iter().map(ToString::to_string).collect();
    Some((member.node.to_string(), devices))
}

fn frees(inventory: &Inventory, nodes: &[Node]) -> Vec<Option<FreeNode>> {
    nodes
        .iter()
        .map(|node| inventory.free_on(&node.description.name))
        .collect()
}

/// Whether one node could take the shape now, by looking at its amounts one by one.
fn could_host(node: &Node, free: &FreeNode, shape: &Shape) -> bool {
    let devices = node.description.devices.iter().zip(&free.devices);
    let fitting = devices
        .filter(|(device, (share_milli, memory_mib))| {
            shape.accepts(&device.model)
                && *share_milli >= shape.share_milli as i32
                && *memory_mib >= shape.memory_on(device.memory_mib) as i64
        })
        .count();
    free.cpu_milli >= shape.cpu_milli as i64
        && free.memory_mib >= shape.memory_mib as i64
        && fitting >= shape.devices as usize
}

#[test]
fn without_a_mix_the_fullest_device_of_the_fullest_node_is_taken() {
    let nodes = [
        node("node-1", "2xA100-80G", 64_000),
        node("node-2", "2xA100-80G", 64_000),
    ];
    let mut inventory = inventory(&nodes);
    for (shape, to) in [
        (share_of(300, 0), "node-1-gpu-0"),
        (share_of(300, 0), "node-1-gpu-0"),
        (share_of(500, 0), "node-1-gpu-1"),
        (share_of(400, 0), "node-1-gpu-0"),
        (whole(1, 0), "node-2-gpu-0"),
    ] {
        let (_, devices) = placed(&mut inventory, &shape).expect("room");
        assert_eq!(devices, [to], "{shape:?}");
    }
}

#[test]
fn a_node_that_names_its_rack_for_the_first_time_stands_in_it_from_then_on() {
    let mut nodes = ["node-1", "node-2", "node-3"].map(|name| node(name, "A100-80G", 64_000));
    let mut inventory = inventory(&nodes);
    for at in [0, 2] {
        nodes[at].description.rack = Some("r1".to_owned());
        inventory.refresh_node(&nodes[at]);
    }
    let members = inventory.take(whole(1, 0), 2).expect("room");
    let on: Vec<String> = members
        .iter()
        .map(|member| member.node.to_string())
        .collect();
    assert_eq!(on, ["node-1", "node-3"]);
}

#[test]
fn demand_without_devices_goes_where_cpu_is_plentiful_once_the_mix_is_known() {
    // Both nodes have two GPUs; only one has more CPU than the mix's GPU demand can use.
    let nodes = [
        node("node-1", "2xA100-80G", 24_000),
        node("node-2", "2xA100-80G", 96_000),
    ];
    let bare = whole(0, 12_000);
    let mix = [(whole(1, 12_000), 10), (bare.clone(), 5)];
    let (on, _) = placed(&mut learnt(&nodes, &mix), &bare).expect("room");
    assert_eq!(on, "node-2");
    let (on, _) = placed(&mut inventory(&nodes), &bare).expect("room");
    assert_eq!(on, "node-1", "tight packing knows no better");
}

#[test]
fn a_share_goes_to_the_device_whose_remainder_the_mix_can_fill() {
    // Of 700 and 600 free, 300 leaves 400 or 300: the mix has 300s and nothing of 400 or 100.
    let nodes = [node("node-1", "2xA100-80G", 64_000)];
    let mut inventory = learnt(&nodes, &[(share_of(300, 1_000), 10)]);
    let devices = |ids: &[u32]| MemberPlacement {
        node: node_name("node-1"),
        devices: ids.iter().map(|id| device("node-1", *id)).collect(),
    };
    let mut occupied = nodes[0].clone();
    occupied.devices[0].share_milli = 300;
    occupied.devices[1].share_milli = 400;
    inventory.refresh_node(&occupied);
    let chosen = inventory.choose(share_of(300, 1_000), 1);
    assert_eq!(chosen, Some(vec![devices(&[1])]));
    let chosen = inventory.choose(share_of(100, 1_000), 1);
    assert_eq!(
        chosen,
        Some(vec![devices(&[0])]),
        "700 holds two of 300 either way"
    );
}

#[test]
fn a_model_that_constrained_demand_needs_is_left_to_it() {
    let nodes = [
        node("node-1", "2xT4-16G", 64_000),
        node("node-2", "2xA100-80G", 64_000),
    ];
    let mut bound = whole(1, 1_000);
    bound.gpu_models = vec!["T4-16G".to_owned()];
    let free = whole(1, 1_000);
    let mut inventory = learnt(&nodes, &[(bound.clone(), 50), (free.clone(), 50)]);
    for _ in 0..2 {
        let (on, _) = placed(&mut inventory, &free).expect("room");
        assert_eq!(on, "node-2");
    }
    let (on, _) = placed(&mut inventory, &bound).expect("room");
    assert_eq!(on, "node-1");
}

#[test]
fn a_gang_takes_distinct_nodes_or_nothing() {
    let nodes: Vec<Node> = (0..4)
        .map(|number| node(&format!("node-{number}"), "2xA100-80G", 64_000))
        .collect();
    let mut inventory = inventory(&nodes);
    let before = frees(&inventory, &nodes);
    assert_eq!(inventory.take(whole(1, 0), 5), None);
    assert_eq!(frees(&inventory, &nodes), before);
    let members = inventory.take(whole(1, 0), 4).expect("four nodes");
    let names: BTreeSet<_> = members.iter().map(|member| member.node.clone()).collect();
    assert_eq!(names.len(), 4);
    assert_eq!(inventory.take(whole(2, 0), 1), None);
    inventory.give_back(whole(1, 0), &members);
    assert_eq!(frees(&inventory, &nodes), before);
    assert_eq!(inventory.take(whole(1, 0), 0), Some(Vec::new()));
}

#[test]
fn the_inventory_follows_nodes_that_come_change_and_leave() {
    let mut known = node("node-1", "A100-80G", 64_000);
    let mut inventory = inventory(std::slice::from_ref(&known));
    let ask = whole(1, 0);
    assert!(inventory.choose(&ask, 1).is_some());
    known.condition = NodeCondition::Cordoned {
        reason: "x".to_owned(),
    };
    inventory.refresh_node(&known);
    assert_eq!(inventory.choose(&ask, 1), None);
    assert_eq!(inventory.free_on(&node_name("node-1")), None);
    known.condition = NodeCondition::Ready;
    known.devices[0].share_milli = 1;
    inventory.refresh_node(&known);
    assert_eq!(inventory.choose(&ask, 1), None);
    inventory.refresh_node(&node("node-2", "A100-80G", 64_000));
    let members = inventory.take(&ask, 1).expect("room on the new node");
    assert_eq!(members[0].node, node_name("node-2"));
    inventory.remove_node(&node_name("node-2"));
    inventory.give_back(&ask, &members);
    assert_eq!(
        inventory.choose(&ask, 1),
        None,
        "a node that left holds nothing"
    );
    let mut elsewhere = node("node-3", "A100-80G", 64_000);
    elsewhere.description.pool = pool_name("gold");
    inventory.refresh_node(&elsewhere);
    assert_eq!(inventory.choose(&ask, 1), None);
}

#[test]
fn nodes_that_join_in_any_order_are_chosen_as_if_they_had_been_there_from_the_start() {
    // Each comes just before the last, so that places between two run out again and again.
    let mut names: Vec<String> = (0..100).map(|number| format!("node-{number:03}")).collect();
    names.rotate_left(1);
    names[..99].reverse();
    let all: Vec<Node> = names
        .iter()
        .map(|name| node(name, "2xA100-80G", 8_000))
        .collect();
    let mut kept = inventory(&all[..1]);
    for joining in &all[1..] {
        kept.refresh_node(joining);
        kept.check();
    }
    let mut sorted = all.clone();
    sorted.sort_by(|one, other| one.description.name.cmp(&other.description.name));
    let mut fresh = inventory(&sorted);
    for room in [&mut kept, &mut fresh] {
        room.begin_trial();
    }
    for number in 0..300 {
        let shape = match number % 3 {
            0 => whole(1, 100),
            1 => share_of(400, 0),
            _ => share_of(700, 50),
        };
        assert_eq!(
            kept.take(&shape, 1),
            fresh.take(&shape, 1),
            "decision {number}"
        );
    }
    for name in kept.end_trial() {
        let untouched = all.iter().find(|node| node.description.name == name);
        kept.refresh_node(untouched.expect("a node that joined"));
    }
    kept.begin_trial();
    let mut fresh = inventory(&sorted);
    assert_eq!(
        kept.take(whole(2, 0), 3),
        fresh.take(whole(2, 0), 3),
        "as before the trial"
    );
}

#[test]
fn a_node_that_holds_more_than_it_has_takes_nothing_until_it_is_freed() {
    let mut over = node("node-1", "A100-80G", 64_000);
    over.cpu_reserved_milli = 70_000;
    over.devices[0].share_milli = 1_500;
    let mut inventory = inventory(&[over]);
    assert_eq!(inventory.choose(whole(0, 0), 1), None);
    assert_eq!(inventory.choose(share_of(1, 0), 1), None);
    let held = [MemberPlacement {
        node: node_name("node-1"),
        devices: vec![device("node-1", 0)],
    }];
    let mut freed = share_of(1_000, 10_000);
    freed.gpu_memory_mib = Some(0);
    inventory.give_back(&freed, &held);
    assert!(inventory.choose(share_of(500, 4_000), 1).is_some());
    assert_eq!(inventory.choose(share_of(501, 4_000), 1), None);
}

#[test]
fn absurd_demands_are_refused_and_break_nothing() {
    let nodes = [node("node-1", "2xA100-80G", 64_000)];
    let absurd = Shape {
        devices: u32::MAX,
        share_milli: u32::MAX,
        cpu_milli: u64::MAX,
        memory_mib: u64::MAX,
        gpu_memory_mib: Some(u64::MAX),
        ..whole(1, 0)
    };
    let mut inventory = learnt(&nodes, &[(absurd.clone(), u64::MAX), (whole(1, 1), 1)]);
    assert_eq!(inventory.take(&absurd, usize::MAX), None);
    assert!(inventory.take(whole(2, 1), 1).is_some());
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let models = prop_oneof![
        4 => Just(Vec::new()),
        1 => Just(vec!["T4-16G".to_owned()]),
        1 => Just(vec!["A100".to_owned(), "T4-16G".to_owned()]),
    ];
    let memory = prop_oneof![3 => Just(None), 1 => (0_u64..90_000).prop_map(Some)];
    let size = prop_oneof![
        3 => (1_u32..=1_000).prop_map(|share| (1, share)),
        2 => (0_u32..=4).prop_map(|devices| (devices, WHOLE_DEVICE_MILLI)),
    ];
    let node = (0_u64..40_000, 0_u64..300_000);
    (size, node, memory, models).prop_map(|(size, node, gpu_memory_mib, gpu_models)| Shape {
        devices: size.0,
        share_milli: size.1,
        gpu_memory_mib,
        gpu_memory_ceiling_mib: None,
        gpu_models,
        only_model: None,
        cpu_milli: node.0,
        memory_mib: node.1,
        runtime: "process",
    })
}

fn any_nodes() -> impl Strategy<Value = Vec<Node>> {
    let kinds = prop::sample::select(vec!["", "4xA100-80G", "2xT4-16G", "T4-16G,2xA100-80G"]);
    let cpus = prop::sample::select(vec![16_000_u64, 64_000]);
    prop::collection::vec((kinds, cpus), 1..7).prop_map(|nodes| {
        let numbered = nodes.into_iter().enumerate();
        numbered
            .map(|(number, (kind, cpu))| node(&format!("node-{number}"), kind, cpu))
            .collect()
    })
}

#[test]
fn a_mix_whose_worth_is_beyond_all_numbers_still_fills_what_there_is() {
    let nodes = [node("node-0", "1xT4-16G,2xA100-80G", 64_000)];
    let whole = |devices: u32, cpu_milli: u64, memory_mib: u64| Shape {
        devices,
        share_milli: WHOLE_DEVICE_MILLI,
        gpu_memory_mib: None,
        gpu_memory_ceiling_mib: None,
        gpu_models: Vec::new(),
        only_model: None,
        cpu_milli,
        memory_mib,
        runtime: "process",
    };
    // A thousandth of a core at a time.
    let tiny = whole(0, 1, 0);
    let mix = [
        (whole(2, 11_101, 0), 2),
        (tiny.clone(), 1),
        (whole(1, 0, 53_249), 1),
    ];
    let mut inventory = learnt(&nodes, &mix);
    assert!(inventory.take(whole(1, 0, 53_249), 1).is_some());
    assert!(inventory.take(&tiny, 1).is_some());
    assert!(inventory.take(whole(2, 11_101, 0), 1).is_some());
    inventory.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_exceeded_nothing_that_fits_is_refused_and_all_comes_back(
        nodes in any_nodes(),
        asked in prop::collection::vec((any_shape(), 1_usize..4, any::<bool>()), 1..60),
        knows_the_mix in any::<bool>(),
    ) {
        let mut inventory = inventory(&nodes);
        if knows_the_mix {
            let mut mix = Mix::new();
            for (shape, members, _) in &asked {
                mix.observe(shape, *members as u64);
            }
            inventory.learn(&mix);
        }
        let empty = frees(&inventory, &nodes);
        let mut held: Vec<(Shape, Vec<MemberPlacement>)> = Vec::new();
        for (shape, members, gives_back) in &asked {
            let before = frees(&inventory, &nodes);
            let hosts = nodes
                .iter()
                .zip(&before)
                .filter(|(node, free)| {
                    free.as_ref().is_some_and(|free| could_host(node, free, shape))
                })
                .count();
            let chosen = inventory.choose(shape, *members);
            let taken = inventory.take(shape, *members);
            prop_assert_eq!(&chosen, &taken, "looking and taking agree");
            prop_assert_eq!(taken.is_some(), hosts >= *members, "{} hosts for {:?}", hosts, shape);
            if let Some(taken) = taken {
                let on: BTreeSet<_> = taken.iter().map(|member| &member.node).collect();
                prop_assert_eq!(on.len(), *members);
                for member in &taken {
                    let given: BTreeSet<_> = member.devices.iter().collect();
                    prop_assert_eq!(given.len(), shape.devices as usize);
                }
                held.push((shape.clone(), taken));
            } else {
                prop_assert_eq!(&before, &frees(&inventory, &nodes));
            }
            for free in frees(&inventory, &nodes).into_iter().flatten() {
                prop_assert!(free.cpu_milli >= 0 && free.memory_mib >= 0);
                prop_assert!(free.devices.iter().all(|(share, memory)| *share >= 0 && *memory >= 0));
            }
            inventory.check();
            if *gives_back && let Some((shape, members)) = held.pop() {
                inventory.give_back(&shape, &members);
            }
        }
        for (shape, members) in held {
            inventory.give_back(&shape, &members);
        }
        prop_assert_eq!(frees(&inventory, &nodes), empty);
        inventory.check();
    }
}
