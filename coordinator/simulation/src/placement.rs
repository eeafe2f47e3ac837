//! Which node and which GPUs each arriving pod of a trace gets, when nobody ever leaves.
//!
//! The experiment of Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with
//! Fragmentation Gradient Descent" (USENIX ATC 2023): pods arrive one after another on an empty
//! cluster, and one that fits nowhere is dropped. The mix is learnt from the list of pods before the
//! first arrival; nothing is known of the order in which they come.

mod trace;

pub use trace::{Fault, Nodes, Pods, read_nodes, read_pods};

use coordinator_core::model::{NodeName, PoolName};
use coordinator_core::scheduler::place::{Inventory, Mix};
use coordinator_core::state::MemberPlacement;
use std::io::{BufRead, Write};

/// A cluster that fills.
pub struct Replay {
    nodes: Nodes,
    pods: Pods,
    inventory: Inventory,
    tally: Tally,
}

/// What has come and what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pods that came.
    pub arrivals: u64,
    /// Pods that fitted nowhere.
    pub refused: u64,
    /// Thousandths of GPUs that the cluster has.
    pub capacity_milli: u64,
    /// Thousandths of GPUs asked for.
    pub arrived_milli: u64,
    /// Thousandths of GPUs given out.
    pub allocated_milli: u64,
}

impl Tally {
    /// Allocated GPU in per cent of the cluster.
    pub fn allocated_percent(&self) -> f64 {
        100.0 * self.allocated_milli as f64 / self.capacity_milli.max(1) as f64
    }

    /// Arrived GPU demand in per cent of the cluster.
    pub fn arrived_percent(&self) -> f64 {
        100.0 * self.arrived_milli as f64 / self.capacity_milli.max(1) as f64
    }
}

/// Where a pod goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The node, as the trace names it.
    pub node: String,
    /// GPUs of the node, by number, each with its thousandths.
    pub gpus: Vec<(usize, u32)>,
}

impl Replay {
    /// An empty cluster, its nodes valued by the mix of these pods.
    pub fn new(nodes: Nodes, pods: Pods) -> Self {
        let pool = PoolName::default_pool();
        let mut inventory = Inventory::of_nodes(&pool, nodes.nodes());
        let mut mix = Mix::new();
        for shape in pods.shapes() {
            mix.observe(shape, 1);
        }
        inventory.learn(&mix);
        let tally = Tally {
            capacity_milli: nodes.capacity_milli(),
            ..Tally::default()
        };
        Self {
            nodes,
            pods,
            inventory,
            tally,
        }
    }

    /// What has come so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Places the pod of this name, or `None` when no node could hold it now.
    ///
    /// # Errors
    /// The name is not in the list of pods.
    pub fn decide(&mut self, pod: &str) -> Result<Option<Decision>, Fault> {
        let shape = self.pods.shape(pod)?;
        self.tally.arrivals += 1;
        self.tally.arrived_milli += shape.gpu_milli();
        let Some(placed) = self.inventory.take(shape, 1) else {
            self.tally.refused += 1;
            return Ok(None);
        };
        self.tally.allocated_milli += shape.gpu_milli();
        let share_milli = shape.share_milli;
        Ok(placed.into_iter().next().map(|member| Decision {
            node: self.nodes.traced_name(&member.node).to_owned(),
            gpus: gpus(&self.nodes, &member, share_milli),
        }))
    }

    /// Answers arrivals one at a time: a line `<index>,<pod>` with a line `<node>,<gpus>`, flushed
    /// before the next is read. A lone comma is a refusal. Empty lines are passed over.
    ///
    /// # Errors
    /// A line is not an arrival, names an unknown pod, or reading or writing fails.
    pub fn answer(&mut self, arrivals: impl BufRead, mut answers: impl Write) -> Result<(), Fault> {
        for (number, line) in (1..).zip(arrivals.lines()) {
            let line = line.map_err(|error| Fault::io("arrivals", &error))?;
            if line.trim().is_empty() {
                continue;
            }
            let Some((_, pod)) = line.split_once(',') else {
                return Err(Fault::arrival(number, &line));
            };
            let decision = self.decide(pod.trim())?;
            writeln!(answers, "{}", row(decision.as_ref()))
                .and_then(|()| answers.flush())
                .map_err(|error| Fault::io("answers", &error))?;
        }
        Ok(())
    }

    /// Decides a whole order, one pod's name on each line, and writes `decisions.csv`. Reads a line
    /// only after the one before it was decided.
    ///
    /// # Errors
    /// A name is not in the list of pods, or reading or writing fails.
    pub fn replay(&mut self, order: impl BufRead, mut decisions: impl Write) -> Result<(), Fault> {
        let written = |error: std::io::Error| Fault::io("decisions", &error);
        writeln!(decisions, "arrival_index,node,gpus").map_err(written)?;
        let mut index = 0_u64;
        for line in order.lines() {
            let line = line.map_err(|error| Fault::io("order", &error))?;
            let pod = line.trim();
            if pod.is_empty() {
                continue;
            }
            let decision = self.decide(pod)?;
            writeln!(decisions, "{index},{}", row(decision.as_ref())).map_err(written)?;
            index += 1;
        }
        decisions.flush().map_err(written)
    }
}

fn gpus(nodes: &Nodes, member: &MemberPlacement, share_milli: u32) -> Vec<(usize, u32)> {
    let name: &NodeName = &member.node;
    member
        .devices
        .iter()
        .filter_map(|device| nodes.gpu_number(name, device))
        .map(|number| (number, share_milli))
        .collect()
}

/// `node,0:1000|1:1000`, or a lone comma.
fn row(decision: Option<&Decision>) -> String {
    let Some(decision) = decision else {
        return ",".to_owned();
    };
    let gpus: Vec<String> = decision
        .gpus
        .iter()
        .map(|(number, milli)| format!("{number}:{milli}"))
        .collect();
    format!("{},{}", decision.node, gpus.join("|"))
}

#[cfg(test)]
mod tests;
