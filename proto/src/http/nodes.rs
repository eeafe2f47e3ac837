//! Nodes, their devices, and the pools they serve.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// GET /v1/nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeList {
    /// By name.
    pub nodes: Vec<NodeView>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Name.
    pub name: String,
    /// Pool.
    pub pool: String,
    /// Rack, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// `ready`, `cordoned`, `draining`, `lost`.
    pub state: String,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Devices with their use.
    pub devices: Vec<DeviceView>,
    /// CPU capacity.
    pub cpu_milli: u64,
    /// CPU reserved.
    pub cpu_reserved_milli: u64,
    /// Memory capacity.
    pub memory_mib: u64,
    /// Memory reserved.
    pub memory_reserved_mib: u64,
    /// Runs holding something here.
    pub runs: Vec<String>,
    /// Agent version.
    pub agent_version: String,
    /// Runtimes that work there.
    pub runtimes: Vec<String>,
    /// Seconds since the agent was heard, absent when it never was since this coordinator started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ago_ms: Option<u64>,
    /// Processes on its devices that no run of ours owns.
    #[serde(default)]
    pub off_platform: Vec<String>,
    /// Its devices are simulated.
    pub simulated: bool,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Id.
    pub id: String,
    /// Index on its node.
    pub index: u32,
    /// Model.
    pub model: String,
    /// Memory.
    pub memory_mib: u64,
    /// Memory granted.
    pub memory_allocated_mib: u64,
    /// Thousandths granted.
    pub share_allocated_milli: u32,
    /// Not a real GPU.
    pub simulated: bool,
    /// Devices of the node with equal numbers reach each other over NVLink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvlink_island: Option<u32>,
    /// Those with equal numbers are behind one PCIe switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie_switch: Option<u32>,
    /// Those with equal numbers are at one NUMA node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Runs holding a share.
    pub runs: Vec<String>,
    /// Last telemetry, where the device gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<f64>,
    /// Memory in use, by telemetry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used_mib: Option<u64>,
}

/// POST /v1/nodes/{node}/cordon|uncordon|drain.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRequest {
    /// Why, for the audit and whoever comes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Drain: how long runs may still finish before they are evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a node change did, or would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeChange {
    /// The node, after.
    pub node: NodeView,
    /// Runs that a drain evicts at its deadline.
    pub affected_runs: Vec<String>,
    /// Nothing was changed.
    pub dry_run: bool,
}

/// PUT /v1/pools/{pool}: create or change.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolRequest {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How a tenant's waiting runs of one priority are ordered: `fifo`, `shortest-predicted` or
    /// `least-attained`; absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// How long a run may wait before it goes first whatever the order; absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_bound_ms: Option<u64>,
    /// Refuse a pool that exists already (create), or one that does not (set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub must_exist: Option<bool>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    /// Name.
    pub name: String,
    /// For people.
    pub description: String,
    /// How a tenant's waiting runs of one priority are ordered: `fifo`, `shortest-predicted` or
    /// `least-attained`.
    #[serde(default = "fifo")]
    pub order: String,
    /// How long a run may wait before it goes first whatever the order; absent with `fifo`, in which
    /// nobody is passed by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_bound_ms: Option<u64>,
    /// Nodes in it.
    pub nodes: u64,
    /// Devices by model: count.
    pub devices: BTreeMap<String, u64>,
    /// Thousandths of GPUs in all.
    pub gpu_milli: u64,
    /// Granted now.
    pub used_milli: u64,
    /// Runs waiting.
    pub waiting: u64,
    /// Has simulated devices.
    pub simulated: bool,
}

fn fifo() -> String {
    "fifo".to_owned()
}

/// GET /v1/pools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolList {
    /// By name.
    pub pools: Vec<PoolView>,
}
