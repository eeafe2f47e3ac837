//! Where a run lies to the wires and racks: a member's devices behind one island where one has room, a gang in
//! as few racks as hold it, or, where it asks for that, in as many as there are.

use crate::Violation;
use crate::books::Books;
use crate::room::Ask;
use coordinator_core::model::{DeviceDescription, Node, NodeName, Run};
use coordinator_core::scheduler::Reservation;
use coordinator_core::state::{MemberPlacement, Placement, State};
use std::collections::{BTreeMap, BTreeSet};

/// Judges one placement beside what is held before it. Where devices are kept for others, or may be, what a
/// run could have had of other nodes is not known, and only devices of nodes of which nothing is kept are judged.
pub fn judge(
    state: &State,
    (run, ask): (&Run, &Ask<'_>),
    placement: &Placement,
    books: &Books<'_>,
    kept: &[Reservation],
    is_free_choice: bool,
    violations: &mut Vec<Violation>,
) {
    let mut is_split = None;
    for member in &placement.members {
        let Some(node) = state.nodes().get(&member.node) else {
            continue;
        };
        if islands(node, member) <= 1 {
            continue;
        }
        is_split.get_or_insert(&member.node);
        let is_kept = kept
            .iter()
            .flat_map(|reservation| &reservation.members)
            .any(|kept| kept.node == member.node);
        if !is_kept && has_island(ask, node, books) {
            violations.push(Violation::SplitOverIslands {
                run: run.id,
                node: member.node.clone(),
                whole_on: member.node.clone(),
            });
        }
    }
    if !is_free_choice {
        return;
    }
    if placement.members.len() == 1
        && let Some(split_on) = is_split
    {
        let whole_on = ask.fitting(state, books).into_iter().find(|name| {
            let node = state.nodes().get(*name);
            node.is_some_and(|node| has_island(ask, node, books))
        });
        if let Some(whole_on) = whole_on {
            violations.push(Violation::SplitOverIslands {
                run: run.id,
                node: split_on.clone(),
                whole_on: whole_on.clone(),
            });
        }
    }
    if placement.members.len() > 1 {
        judge_racks(
            state,
            run,
            placement,
            &ask.fitting(state, books),
            violations,
        );
    }
}

/// What each device of a node shares at the fastest level that is known there.
fn shared(node: &Node) -> Vec<(&DeviceDescription, Option<u32>)> {
    let devices = &node.description.devices;
    let islands = |device: &DeviceDescription| device.wiring.nvlink_island;
    let switches = |device: &DeviceDescription| device.wiring.pcie_switch;
    let numa_nodes = |device: &DeviceDescription| device.wiring.numa_node;
    let level: &dyn Fn(&DeviceDescription) -> Option<u32> =
        if devices.iter().any(|device| islands(device).is_some()) {
            &islands
        } else if devices.iter().any(|device| switches(device).is_some()) {
            &switches
        } else {
            &numa_nodes
        };
    devices
        .iter()
        .map(|device| (device, level(device)))
        .collect()
}

/// Over how many islands a member lies.
fn islands(node: &Node, member: &MemberPlacement) -> usize {
    let distinct: BTreeSet<Option<u32>> = shared(node)
        .into_iter()
        .filter(|(device, _)| member.devices.contains(&device.id))
        .map(|(_, island)| island)
        .collect();
    distinct.len()
}

/// Whether one island of a node has room for a whole member.
fn has_island(ask: &Ask<'_>, node: &Node, books: &Books<'_>) -> bool {
    let mut room: BTreeMap<u32, u64> = BTreeMap::new();
    for (device, island) in shared(node) {
        if let Some(island) = island
            && ask.fits_device(&node.description.name, device, books)
        {
            *room.entry(island).or_default() += 1;
        }
    }
    room.values().any(|room| *room >= ask.devices())
}

fn judge_racks(
    state: &State,
    run: &Run,
    placement: &Placement,
    fitting: &[&NodeName],
    violations: &mut Vec<Violation>,
) {
    // Nodes of which no rack is known are as one rack.
    let rack = |name: &NodeName| state.nodes().get(name)?.description.rack.clone();
    let mut room: BTreeMap<Option<String>, usize> = BTreeMap::new();
    for name in fitting {
        *room.entry(rack(name)).or_default() += 1;
    }
    let members = placement.members.len();
    let needed = if run.spec.spread {
        members.min(room.len())
    } else {
        let mut rooms: Vec<usize> = room.into_values().collect();
        rooms.sort_unstable();
        let (mut held, mut racks) = (0, 0);
        while let Some(largest) = rooms.pop()
            && held < members
        {
            held += largest;
            racks += 1;
        }
        racks
    };
    let lies_in: BTreeSet<Option<String>> = placement
        .members
        .iter()
        .map(|member| rack(&member.node))
        .collect();
    if lies_in.len() != needed {
        violations.push(Violation::WrongRacks {
            run: run.id,
            racks: lies_in.len(),
            needed,
        });
    }
}
