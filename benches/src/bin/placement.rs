//! Decisions per second of the placement inventory alone, filling empty clusters of three sizes with
//! fractions, single GPUs, whole nodes and gangs; and how long one gang of 4,096 GPUs takes.

use coordinator_core::model::{
    DeviceDescription, DeviceId, DeviceWiring, Node, NodeDescription, NodeName, PoolName,
};
use coordinator_core::scheduler::place::{Inventory, Mix, Shape};
use platform_benches::print;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Instant;

const GPUS_PER_NODE: u32 = 8;
const SIZES: [usize; 3] = [1_000, 10_000, 50_000];

fn main() -> anyhow::Result<()> {
    for nodes in SIZES {
        let pool = PoolName::default_pool();
        let cluster = (0..nodes).map(node).collect::<anyhow::Result<Vec<_>>>()?;
        for mix_is_known in [false, true] {
            let started = Instant::now();
            let mut inventory = Inventory::of_nodes(&pool, &cluster);
            let built = started.elapsed();
            let started = Instant::now();
            if mix_is_known {
                let mut mix = Mix::new();
                for (shape, members) in MIX.iter().map(asked) {
                    mix.observe(&shape, members as u64);
                }
                inventory.learn(&mix);
            }
            let learnt = started.elapsed();
            let gang = shape(GPUS_PER_NODE, 1_000);
            let started = Instant::now();
            let members = inventory.take(&gang, 512);
            let gang_took = started.elapsed();
            anyhow::ensure!(members.is_some(), "an empty cluster holds 4,096 GPUs");
            if let Some(members) = members {
                inventory.give_back(&gang, &members);
            }
            let started = Instant::now();
            let (decisions, placed_milli) = fill(&mut inventory, nodes);
            let filled = started.elapsed();
            let capacity_milli = nodes as f64 * f64::from(GPUS_PER_NODE) * 1_000.0;
            print(
                "placement",
                decisions as f64 / filled.as_secs_f64(),
                "decisions/s",
                "at or above 100000 at 10,000 nodes; the gang below 50 ms",
                json!({
                    "nodes": nodes,
                    "mix_is_known": mix_is_known,
                    "decisions": decisions,
                    "us_per_decision": filled.as_secs_f64() * 1e6 / decisions as f64,
                    "allocated_pct": 100.0 * placed_milli as f64 / capacity_milli,
                    "gang_of_4096_gpus_ms": gang_took.as_secs_f64() * 1e3,
                    "build_ms": built.as_secs_f64() * 1e3,
                    "learn_ms": learnt.as_secs_f64() * 1e3,
                }),
            );
        }
    }
    Ok(())
}

/// GPUs, thousandths of each, members.
type Asked = (u32, u32, usize);

/// One after another, again and again.
const MIX: [Asked; 16] = [
    (1, 500, 1),
    (1, 1_000, 1),
    (1, 250, 1),
    (2, 1_000, 1),
    (1, 750, 1),
    (1, 1_000, 1),
    (8, 1_000, 1),
    (1, 500, 1),
    (1, 300, 1),
    (1, 1_000, 1),
    (4, 1_000, 1),
    (1, 200, 1),
    (8, 1_000, 4),
    (1, 1_000, 1),
    (1, 500, 1),
    (1, 100, 1),
];

fn asked((gpus, share_milli, members): &Asked) -> (Shape, usize) {
    (shape(*gpus, *share_milli), *members)
}

fn shape(devices: u32, share_milli: u32) -> Shape {
    Shape {
        devices,
        share_milli,
        gpu_memory_mib: None,
        gpu_memory_ceiling_mib: None,
        gpu_models: Vec::new(),
        only_model: None,
        cpu_milli: u64::from(devices) * u64::from(share_milli) * 8,
        memory_mib: u64::from(devices) * u64::from(share_milli) * 48,
        runtime: "process",
    }
}

/// Asks until as much was asked for as there is.
fn fill(inventory: &mut Inventory, nodes: usize) -> (u64, u64) {
    let capacity_milli = nodes as u64 * u64::from(GPUS_PER_NODE) * 1_000;
    let shapes: Vec<(Shape, usize)> = MIX.iter().map(asked).collect();
    let (mut decisions, mut asked_milli, mut placed_milli) = (0, 0, 0);
    for (shape, members) in shapes.iter().cycle() {
        if asked_milli >= capacity_milli {
            break;
        }
        let milli = shape.gpu_milli() * *members as u64;
        asked_milli += milli;
        decisions += 1;
        if inventory.take(shape, *members).is_some() {
            placed_milli += milli;
        }
    }
    (decisions, placed_milli)
}

fn node(number: usize) -> anyhow::Result<Node> {
    Ok(Node::new(NodeDescription {
        name: NodeName::new(&format!("node-{number:05}"))?,
        pool: PoolName::default_pool(),
        boot_id: String::new(),
        devices: (0..GPUS_PER_NODE)
            .map(|index| DeviceDescription {
                id: DeviceId(format!("GPU-{number}-{index}").into()),
                index,
                model: "A100-80G".to_owned(),
                memory_mib: 81_920,
                simulated: true,
                wiring: DeviceWiring::default(),
            })
            .collect(),
        cpu_milli: 96_000,
        memory_mib: 524_288,
        runtimes: BTreeSet::from(["process".to_owned()]),
        agent_version: String::new(),
        rack: None,
    }))
}
