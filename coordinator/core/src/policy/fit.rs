//! Whether a member fits a node: an empty one (can it ever run?) or as it is now (can it run here?).

use super::{Refusal, gpus};
use crate::model::{Grant, MemberDemand, Node, NodeDescription, PoolName, WorkloadSpec};

/// The first thing a node lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortfall {
    /// Lost, cordoned or draining.
    NotReady,
    /// It does not offer the runtime.
    Runtime,
    /// No device of that model.
    Model,
    /// Devices of that model, but none with so much memory.
    DeviceMemory,
    /// Too few devices free, or with enough left.
    Devices,
    /// Reserved CPU.
    Cpu,
    /// Reserved memory.
    Memory,
}

impl Shortfall {
    /// In words, for counts of nodes.
    pub fn words(self) -> &'static str {
        match self {
            Self::NotReady => "not ready (cordoned, draining or lost)",
            Self::Runtime => "runtime not offered",
            Self::Model => "model mismatch",
            Self::DeviceMemory => "GPU memory exhausted",
            Self::Devices => "GPUs exhausted",
            Self::Cpu => "CPU exhausted",
            Self::Memory => "memory exhausted",
        }
    }
}

/// Whether the demand would fit the node if nothing else ran there.
pub fn fits_empty(node: &Node, demand: &MemberDemand) -> Result<(), Shortfall> {
    fits(&node.description, demand, |_| true, 0, 0)
}

/// Whether the demand fits beside what is granted now. Does not look at the node's condition.
pub fn fits_now(node: &Node, demand: &MemberDemand) -> Result<(), Shortfall> {
    fits(
        &node.description,
        demand,
        |position| {
            let memory_mib = node.description.devices[position].memory_mib;
            let grant = Grant {
                share_milli: demand.share_milli,
                memory_mib: demand.memory_on(memory_mib),
            };
            node.devices[position].fits(grant, memory_mib)
        },
        node.cpu_reserved_milli,
        node.memory_reserved_mib,
    )
}

/// Whether the demand fits on the devices that are free and beside what is reserved, whatever the node
/// holds now.
pub fn fits_beside(
    node: &Node,
    demand: &MemberDemand,
    is_free: impl Fn(usize) -> bool,
    cpu_reserved_milli: u64,
    memory_reserved_mib: u64,
) -> Result<(), Shortfall> {
    fits(
        &node.description,
        demand,
        is_free,
        cpu_reserved_milli,
        memory_reserved_mib,
    )
}

fn fits(
    description: &NodeDescription,
    demand: &MemberDemand,
    is_free: impl Fn(usize) -> bool,
    cpu_reserved_milli: u64,
    memory_reserved_mib: u64,
) -> Result<(), Shortfall> {
    if !description.runtimes.contains(demand.runtime) {
        return Err(Shortfall::Runtime);
    }
    if demand.devices > 0 {
        let (mut of_model, mut large_enough, mut free) = (0, 0, 0);
        for (position, device) in description.devices.iter().enumerate() {
            if !demand.accepts(&device.model) {
                continue;
            }
            of_model += 1;
            if demand.memory_on(device.memory_mib) > device.memory_mib {
                continue;
            }
            large_enough += 1;
            free += u32::from(is_free(position));
        }
        if of_model == 0 {
            return Err(Shortfall::Model);
        }
        if large_enough == 0 {
            return Err(Shortfall::DeviceMemory);
        }
        if free < demand.devices {
            return Err(Shortfall::Devices);
        }
    }
    if cpu_reserved_milli.saturating_add(demand.cpu_milli) > description.cpu_milli {
        return Err(Shortfall::Cpu);
    }
    if memory_reserved_mib.saturating_add(demand.memory_mib) > description.memory_mib {
        return Err(Shortfall::Memory);
    }
    Ok(())
}

/// Refuses what no set of nodes of the pool could ever hold, with the largest that would fit. Looks at
/// makes of nodes, each with how many there are.
pub fn check_ever_fits(
    pool: &PoolName,
    makes: &[(&NodeDescription, u32)],
    spec: &WorkloadSpec,
    demand: &MemberDemand,
) -> Result<(), Refusal> {
    let mut fitting = 0_u32;
    let mut worst: Vec<Shortfall> = Vec::new();
    for (make, count) in makes {
        match fits(make, demand, |_| true, 0, 0) {
            Ok(()) => fitting = fitting.saturating_add(*count),
            Err(shortfall) => worst.push(shortfall),
        }
    }
    if fitting >= spec.nodes {
        return Ok(());
    }
    if fitting > 0 {
        return Err(Refusal::refused(format!(
            "{} nodes are asked for, and pool {pool} has {fitting} that can hold a member",
            spec.nodes
        ))
        .allowed(format!("up to --nodes {fitting}")));
    }
    // The last shortfall in the order of checks came closest to fitting: speak of that one.
    let closest = worst.iter().max().copied().unwrap_or(Shortfall::Devices);
    let matching = || {
        makes
            .iter()
            .flat_map(|(make, _)| &make.devices)
            .filter(|device| demand.accepts(&device.model))
    };
    Err(match closest {
        Shortfall::Runtime | Shortfall::NotReady => Refusal::refused(format!(
            "no node of pool {pool} offers the {} runtime",
            demand.runtime
        ))
        .hint("leave out --image to use the process runtime, or choose another pool"),
        Shortfall::Model => Refusal::refused(format!("pool {pool} has no GPUs"))
            .allowed("--gpus 0")
            .hint("choose a pool with GPUs: platform pools list"),
        Shortfall::DeviceMemory => {
            let largest = matching()
                .map(|device| device.memory_mib)
                .max()
                .unwrap_or(0);
            Refusal::refused(format!(
                "{} MiB of GPU memory are asked for, and the largest GPU of pool {pool} has {largest} MiB",
                demand.gpu_memory_mib.unwrap_or(0)
            ))
            .allowed(format!("up to --gpu-memory {largest}M"))
        }
        Shortfall::Devices => {
            let largest = makes
                .iter()
                .map(|(make, _)| {
                    make.devices
                        .iter()
                        .filter(|device| {
                            demand.accepts(&device.model)
                                && demand.memory_on(device.memory_mib) <= device.memory_mib
                        })
                        .count()
                })
                .max()
                .unwrap_or(0);
            Refusal::refused(format!(
                "{} GPUs on one node are asked for, and the largest node of pool {pool} has {largest} that match",
                gpus(demand.gpu_milli())
            ))
            .allowed(format!("up to --gpus {largest}"))
            .hint("ask for less, or for several nodes with --nodes N")
        }
        Shortfall::Cpu => {
            let largest = makes
                .iter()
                .map(|(make, _)| make.cpu_milli)
                .max()
                .unwrap_or(0);
            Refusal::refused(format!(
                "{} CPUs are asked for, and the largest node of pool {pool} has {}",
                gpus(demand.cpu_milli),
                gpus(largest)
            ))
            .allowed(format!("up to --cpus {}", gpus(largest)))
        }
        Shortfall::Memory => {
            let largest = makes
                .iter()
                .map(|(make, _)| make.memory_mib)
                .max()
                .unwrap_or(0);
            Refusal::refused(format!(
                "{} MiB of memory are asked for, and the largest node of pool {pool} has {largest} MiB",
                demand.memory_mib
            ))
            .allowed(format!("up to --memory {largest}M"))
        }
    })
}
