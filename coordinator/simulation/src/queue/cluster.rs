//! The simulated cluster, from JSON: nodes, tenants' quotas, what a preemption costs.

use coordinator_core::policy::Refusal;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// Whom the nodes serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each tenant has its own nodes.
    Partition,
    /// All share one pool, by quota.
    Shared,
}

/// Nodes, quotas and costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Whom the nodes serve.
    pub mode: Mode,
    /// In order.
    pub nodes: Vec<ClusterNode>,
    /// Quota by tenant, in thousandths of GPUs.
    pub quota_milli: BTreeMap<String, u64>,
    /// Ascending: gangs up to so many GPUs pay so much at each preemption.
    overhead_us: Vec<(u64, u64)>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its name.
    pub name: String,
    /// Its GPUs.
    pub gpus: u32,
    /// Whose it is, in a partitioned cluster.
    pub tenant: Option<String>,
}

#[derive(Deserialize)]
struct ClusterFile {
    mode: Mode,
    nodes: Vec<NodeEntry>,
    tenants: BTreeMap<String, TenantEntry>,
    #[serde(default)]
    preempt_overhead: Option<BTreeMap<String, f64>>,
}

#[derive(Deserialize)]
struct NodeEntry {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    count: Option<u32>,
    gpus: u32,
    #[serde(default)]
    tenant: Option<String>,
}

#[derive(Deserialize)]
struct TenantEntry {
    quota: f64,
}

/// More nodes than any cluster has, and few enough to hold in memory.
const MOST_NODES: usize = 1_000_000;
/// More GPUs than any node has. Room is filed by free GPUs, one shelf for each number.
const MOST_GPUS_OF_A_NODE: u32 = 1_024;

impl Cluster {
    /// Reads a cluster. `name` is the file's name in errors.
    ///
    /// # Errors
    ///
    /// Refuses what is no such JSON, a node twice, no GPUs, and numbers that cannot be.
    pub fn read(reader: impl Read, name: &str) -> Result<Self, Refusal> {
        let file: ClusterFile = serde_json::from_reader(reader).map_err(|error| {
            Refusal::invalid(format!("cannot read {name}: {error}"))
                .allowed("mode \"shared\" or \"partition\", nodes, tenants, preempt_overhead")
                .hint("see platform simulate queue --help for an example")
        })?;
        let wrong = |what: String, allowed: &str| {
            Refusal::invalid(format!("{name}: {what}")).allowed(allowed)
        };
        let mut nodes = Vec::new();
        let mut names = BTreeSet::new();
        for entry in file.nodes {
            if entry.gpus > MOST_GPUS_OF_A_NODE {
                return Err(wrong(
                    format!("a node of {} GPUs", entry.gpus),
                    "at most 1024 GPUs in a node",
                ));
            }
            let prefix = entry.prefix.as_deref().unwrap_or("n");
            let these: Vec<String> = match (entry.count, entry.id) {
                (Some(count), _) if nodes.len() + count as usize > MOST_NODES => {
                    return Err(wrong(
                        format!("{count} nodes of prefix {prefix:?}"),
                        "at most 1000000 nodes",
                    ));
                }
                (Some(count), _) => (0..count)
                    .map(|number| format!("{prefix}{number:04}"))
                    .collect(),
                (None, Some(id)) => vec![id],
                (None, None) => {
                    return Err(wrong(
                        "a node entry without count or id".to_owned(),
                        "{prefix, count, gpus} or {id, gpus}",
                    ));
                }
            };
            for node in these {
                if !names.insert(node.clone()) {
                    return Err(wrong(format!("node {node:?} twice"), "each node once"));
                }
                nodes.push(ClusterNode {
                    name: node,
                    gpus: entry.gpus,
                    tenant: entry.tenant.clone(),
                });
            }
        }
        if nodes.iter().all(|node| node.gpus == 0) {
            return Err(wrong("no node has a GPU".to_owned(), "one GPU or more"));
        }
        let mut quota_milli = BTreeMap::new();
        for (tenant, entry) in file.tenants {
            let quota = thousandths(entry.quota).ok_or_else(|| {
                wrong(
                    format!("tenant {tenant:?} has the quota {}", entry.quota),
                    "GPUs, 0 or more",
                )
            })?;
            quota_milli.insert(tenant, quota);
        }
        if quota_milli.is_empty() {
            return Err(wrong("no tenants".to_owned(), "{NAME: {quota: GPUS}}"));
        }
        let mut overhead_us = Vec::new();
        for (limit, seconds) in file.preempt_overhead.unwrap_or_else(published_overheads) {
            let gpus = match limit.trim() {
                "inf" => Some(u64::MAX),
                number => number.parse().ok(),
            };
            let us = thousandths(seconds).map(|milli| milli * 1_000);
            let (Some(gpus), Some(us)) = (gpus, us) else {
                return Err(wrong(
                    format!("preempt_overhead {limit:?}: {seconds}"),
                    "{MAXIMUM GPUS or \"inf\": SECONDS}",
                ));
            };
            overhead_us.push((gpus, us));
        }
        overhead_us.sort_unstable();
        Ok(Self {
            mode: file.mode,
            nodes,
            quota_milli,
            overhead_us,
        })
    }

    /// What stopping a gang of so many GPUs costs: time added to the work that it has left.
    pub fn overhead_us(&self, gpus: u32) -> u64 {
        self.overhead_us
            .iter()
            .find(|(limit, _)| u64::from(gpus) <= *limit)
            .map_or(0, |(_, us)| *us)
    }
}

/// Checkpoint costs of the published simulators, where a file names none.
fn published_overheads() -> BTreeMap<String, f64> {
    [("1", 7.0), ("8", 30.0), ("inf", 60.0)]
        .map(|(limit, seconds)| (limit.to_owned(), seconds))
        .into()
}

fn thousandths(amount: f64) -> Option<u64> {
    (amount.is_finite() && (0.0..=1e9).contains(&amount)).then(|| (amount * 1_000.0).round() as u64)
}
