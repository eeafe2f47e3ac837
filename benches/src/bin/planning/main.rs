//! What a plan costs on the replicated state itself: filling an empty cluster plan by plan, one plan when
//! a run ends on a full cluster while ten times as many runs wait as there are nodes, the refusal of what
//! can never run, a large gang, the plans that keep devices for who waits, and the memory of what waits. Three sizes, so that growth is seen. Times
//! are processor time of the one thread, so that a busy machine tells the same.
//!
//! Nodes as arguments run only these sizes; `planning reservations NODES` only the plans that keep devices
//! for who has waited for long; `planning count NODES` only fills, and prints how many decisions that took,
//! for whoever counts instructions.

mod cluster;

use anyhow::Context as _;
use cluster::{Cluster, DEPARTMENTS, GPUS_PER_NODE, ProcessorTime, TEAMS};
use coordinator_core::model::{PoolName, TenantName, WorkloadSpec};
use coordinator_core::policy;
use coordinator_core::scheduler::Plan;
use coordinator_core::state;
use platform_benches::print;
use serde_json::json;
use std::process::Command;
use std::time::Duration;

const SIZES: [usize; 3] = [1_000, 10_000, 50_000];
/// Runs that a node holds at the end, on average, with some to spare.
const FILLING_PER_NODE: usize = 6;
const WAITING_PER_NODE: usize = 10;
/// Members of the large gang, 8 GPUs each.
const GANG_MEMBERS: u32 = 512;
/// Time limits of what runs where devices are kept: an hour, four, twelve and a day.
const TIME_LIMITS_MS: [u64; 4] = [3_600_000, 14_400_000, 43_200_000, 86_400_000];
/// Repetitions of what takes too little time to be measured once; the median is told.
const REPETITIONS: usize = 21;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [count, nodes] = arguments.as_slice()
        && count == "count"
    {
        return count_decisions(nodes.parse()?);
    }
    if let [only, nodes] = arguments.as_slice()
        && only == "reservations"
    {
        return reservations(nodes.parse()?);
    }
    if let [nodes] = arguments.as_slice() {
        let nodes = nodes.parse()?;
        measure(nodes)?;
        return reservations(nodes);
    }
    let sizes = if arguments.is_empty() {
        SIZES.map(|nodes| nodes.to_string()).to_vec()
    } else {
        arguments
    };
    // Each in a process of its own: memory that one size gave back would hide what the next one takes.
    let this = std::env::current_exe().context("the path of this program")?;
    for nodes in sizes {
        let status = Command::new(&this).arg(&nodes).status();
        let status = status.with_context(|| format!("cannot start {}", this.display()))?;
        anyhow::ensure!(status.success(), "with {nodes} nodes: {status}");
    }
    Ok(())
}

fn count_decisions(nodes: usize) -> anyhow::Result<()> {
    let mut cluster = Cluster::new(nodes)?;
    for number in 0..nodes * FILLING_PER_NODE {
        cluster.submit(number)?;
    }
    // Without a look at the clock, which instrumented programs may not have.
    let mut decisions = 0;
    loop {
        let Plan { placements, .. } = cluster.plan();
        if placements.is_empty() {
            break;
        }
        decisions += placements.len();
        cluster.apply(state::Command::Place { placements })?;
    }
    println!("{decisions}");
    Ok(())
}

fn measure(nodes: usize) -> anyhow::Result<()> {
    let before = resident_bytes()?;
    let mut cluster = Cluster::new(nodes)?;
    let with_nodes = resident_bytes()?;
    large_gang(&mut cluster, nodes)?;
    never(&cluster, nodes)?;

    // Asked for in all: what fills the cluster, and what waits behind it.
    let runs = nodes * (FILLING_PER_NODE + WAITING_PER_NODE);
    let empty = resident_bytes()?;
    let started = ProcessorTime::now();
    for number in 0..runs {
        cluster.submit(number)?;
    }
    let submit = started.elapsed();
    let with_runs = resident_bytes()?;
    print(
        "planning_submit",
        submit.as_secs_f64() * 1e6 / runs as f64,
        "us",
        "the same at every size",
        json!({"nodes": nodes}),
    );
    print(
        "planning_memory",
        with_runs.saturating_sub(empty) as f64 / runs as f64,
        "bytes of each pending run",
        "",
        json!({
            "nodes": nodes,
            "bytes_of_each_node": with_nodes.saturating_sub(before) / nodes as u64,
        }),
    );

    let (decisions, planned, applied) = cluster.fill()?;
    print(
        "planning",
        decisions as f64 / planned.as_secs_f64(),
        "decisions/s",
        "at or above 100000 at 10,000 nodes",
        json!({
            "nodes": nodes,
            "tenants": TEAMS + DEPARTMENTS,
            "decisions": decisions,
            "with_apply_per_second": decisions as f64 / (planned + applied).as_secs_f64(),
        }),
    );
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let (giving, finding_nothing) = cluster.one_ends()?;
        first.push(giving);
        second.push(finding_nothing);
    }
    print(
        "plan_when_one_ends",
        median_ms(first),
        "ms",
        "below 5 at 10,000 nodes with 100,000 waiting",
        json!({
            "nodes": nodes,
            "waiting": cluster.state.queues().waiting(&PoolName::default_pool()),
            "next_plan_finds_nothing_ms": median_ms(second),
        }),
    );
    Ok(())
}

/// The plan when a run ends on a full cluster where everybody who waits has waited for long enough to
/// have devices kept, and what runs has time limits by which they will come free.
fn reservations(nodes: usize) -> anyhow::Result<()> {
    let mut cluster = Cluster::new(nodes)?;
    cluster.limits_ms = &TIME_LIMITS_MS;
    for number in 0..nodes * (FILLING_PER_NODE + WAITING_PER_NODE) {
        cluster.submit(number)?;
    }
    cluster.fill()?;
    cluster.all_begin()?;
    cluster.pass(2 * cluster.state.policy().reservation_after_ms * 1000);
    // The first plan that keeps anything reads every node; those after it follow what has changed.
    let (first, _) = cluster.one_ends_beside_reservations()?;
    let mut times = Vec::new();
    let mut kept = 0;
    for _ in 0..REPETITIONS {
        cluster.pass(1_000_000);
        let (took, reservations) = cluster.one_ends_beside_reservations()?;
        times.push(took);
        kept += reservations;
    }
    anyhow::ensure!(kept > 0, "devices are kept for who has waited for long");
    print(
        "plan_when_one_ends_beside_reservations",
        median_ms(times.clone()),
        "ms",
        "below 5 at 10,000 nodes with 100,000 waiting",
        json!({
            "nodes": nodes,
            "waiting": cluster.state.queues().waiting(&PoolName::default_pool()),
            "reservations_of_a_plan": kept as f64 / REPETITIONS as f64,
            "worst_ms": times.iter().max().map(|worst| worst.as_secs_f64() * 1e3),
            "first_plan_ms": first.as_secs_f64() * 1e3,
        }),
    );
    Ok(())
}

/// A gang of 4,096 GPUs on the empty cluster: the plan alone, for it is not applied.
fn large_gang(cluster: &mut Cluster, nodes: usize) -> anyhow::Result<()> {
    if nodes < GANG_MEMBERS as usize {
        return Ok(());
    }
    let gang = WorkloadSpec {
        gpus: Some(GPUS_PER_NODE),
        nodes: GANG_MEMBERS,
        ..cluster.bare.clone()
    };
    // The first plan of all reads every node; those after it follow what has changed.
    let share = WorkloadSpec {
        gpu_share_milli: Some(10),
        ..cluster.bare.clone()
    };
    cluster.ask(share, TenantName::new("default")?)?;
    cluster.fill()?;
    let run = cluster.ask(gang, TenantName::new("default")?)?;
    let mut times = Vec::new();
    for _ in 0..REPETITIONS {
        let started = ProcessorTime::now();
        let plan = cluster.plan();
        times.push(started.elapsed());
        anyhow::ensure!(
            plan.placements.len() == 1 && plan.placements[0].members.len() == GANG_MEMBERS as usize,
            "the gang is placed"
        );
    }
    cluster.cancel(run)?;
    print(
        "planning_gang_of_4096_gpus",
        median_ms(times),
        "ms",
        "below 50 at 10,000 nodes",
        json!({"nodes": nodes}),
    );
    Ok(())
}

/// The refusal of a run that no node can ever hold.
fn never(cluster: &Cluster, nodes: usize) -> anyhow::Result<()> {
    let tenant = TenantName::new("default")?;
    let mut times = Vec::new();
    for _ in 0..REPETITIONS {
        let spec = WorkloadSpec {
            gpus: Some(GPUS_PER_NODE + 1),
            ..cluster.bare.clone()
        };
        let around = cluster
            .state
            .surroundings(&tenant)
            .map_err(|refusal| anyhow::anyhow!("no surroundings: {}", refusal.message))?;
        let started = ProcessorTime::now();
        let verdict = policy::resolve(around, spec);
        times.push(started.elapsed());
        anyhow::ensure!(verdict.is_err(), "nine GPUs never fit a node of eight");
    }
    print(
        "planning_never",
        median_ms(times),
        "ms",
        "below 1",
        json!({"nodes": nodes}),
    );
    Ok(())
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Memory of this process that is in RAM.
fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kibibytes: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_whitespace().next())
        .context("the kernel tells what is resident")?
        .parse()?;
    Ok(kibibytes * 1024)
}
