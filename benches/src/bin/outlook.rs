//! What it costs to explain a wait in full on a full cluster: the copy of the state, which the
//! coordinator makes while it serves nobody else, and the plans on it, which run beside. Processor time,
//! for both are work and no waiting. Three sizes.

use anyhow::Context as _;
use coordinator_core::model::{
    NodeDescription, PoolName, RunId, TenantName, UserName, WorkloadSpec,
};
use coordinator_core::scheduler::{Durations, Trial, outlook};
use coordinator_core::state::{Command, Event, State};
use platform_benches::print;
use serde_json::json;
use std::time::Duration;

const GPUS_PER_NODE: u32 = 8;
const SIZES: [usize; 3] = [100, 1_000, 4_000];
const WAITING_PER_NODE: usize = 10;
/// Past the first while, in which nobody is stopped.
const HOUR_US: u64 = 3_600_000_000;

fn main() -> anyhow::Result<()> {
    for nodes in SIZES {
        let trial = full_cluster(nodes)?;
        let (state, now_us) = trial.into_parts();
        let waiting = state.queues().waiting(&PoolName::default_pool());
        let gang = first_waiting(&state).context("a gang waits")?;
        let (mut copying, mut looking, mut changes) = (Duration::MAX, Duration::MAX, 0);
        for _ in 0..5 {
            let started = processor_time();
            let (copy, durations) = (state.live_copy(), Durations::of(&state));
            copying = copying.min(processor_time().saturating_sub(started));
            let started = processor_time();
            let seen = outlook(copy, &durations, gang, now_us).context("it waits")?;
            looking = looking.min(processor_time().saturating_sub(started));
            changes = seen.changes.len();
        }
        print(
            "outlook",
            looking.as_secs_f64() * 1e3,
            "ms",
            "below 50 at 1,000 nodes",
            json!({
                "nodes": nodes,
                "waiting": waiting,
                "changes": changes,
                "copy_ms": copying.as_secs_f64() * 1e3,
            }),
        );
    }
    Ok(())
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

/// A gang that no node has room for.
fn first_waiting(state: &State) -> Option<RunId> {
    state
        .live()
        .iter()
        .filter_map(|id| state.runs().get(id))
        .find(|run| run.attempts.is_empty() && run.spec.nodes > 1)
        .map(|run| run.id)
}

/// One GPU is left idle on every other node, and whole nodes are asked for in gangs.
fn full_cluster(nodes: usize) -> anyhow::Result<Trial> {
    let mut trial = Trial::new(State::default(), 1);
    for node in 0..nodes {
        apply(
            &mut trial,
            Command::RegisterNode {
                description: Box::new(description(node)?),
            },
        )?;
    }
    for node in 0..nodes {
        let gpus = GPUS_PER_NODE - u32::try_from(node % 2)?;
        submit(&mut trial, gpus, 1)?;
    }
    while !trial.place().placements.is_empty() {}
    for _ in 0..nodes * WAITING_PER_NODE {
        submit(&mut trial, GPUS_PER_NODE, 4)?;
    }
    trial.advance_to(HOUR_US);
    Ok(trial)
}

fn submit(trial: &mut Trial, gpus: u32, nodes: u32) -> anyhow::Result<()> {
    let spec: WorkloadSpec = serde_json::from_value(json!({
        "name": "bench", "command": ["true"], "environment": {}, "gpus": gpus, "nodes": nodes,
        "tags": {"team": "bench"}, "priority": 0, "retries": 0,
    }))?;
    apply(
        trial,
        Command::Submit {
            spec: Box::new(spec),
            tenant: TenantName::default_tenant(),
            user: UserName::new("bench")?,
            role: None,
        },
    )
}

fn apply(trial: &mut Trial, command: Command) -> anyhow::Result<()> {
    for event in trial.apply(command) {
        if let Event::Rejected { refusal } = event {
            anyhow::bail!("refused: {}", refusal.message);
        }
    }
    Ok(())
}

fn description(number: usize) -> anyhow::Result<NodeDescription> {
    let name = format!("node-{number}");
    let devices: Vec<_> = (0..GPUS_PER_NODE)
        .map(|index| {
            json!({
                "id": format!("{name}-gpu-{index}"), "index": index, "model": "A100-80G",
                "memory_mib": 81_920, "simulated": true,
            })
        })
        .collect();
    Ok(serde_json::from_value(json!({
        "name": name, "pool": "default", "boot_id": "boot", "devices": devices,
        "cpu_milli": 128_000, "memory_mib": 1 << 20, "runtimes": ["process"],
        "agent_version": "0.1.0",
    }))?)
}
