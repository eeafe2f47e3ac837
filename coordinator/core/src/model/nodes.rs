//! Nodes and their devices, with what is granted of each.

use super::{DeviceId, MemberKey, NodeName, PoolName, WHOLE_DEVICE_MILLI};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What an agent says its node has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Name.
    pub name: NodeName,
    /// Pool it serves.
    pub pool: PoolName,
    /// Kernel boot id: a change means that nothing of before can be alive.
    pub boot_id: String,
    /// Devices in index order.
    pub devices: Vec<DeviceDescription>,
    /// CPU capacity, in thousandths.
    pub cpu_milli: u64,
    /// Memory capacity, MiB.
    pub memory_mib: u64,
    /// Runtimes that work: `process`, `docker`.
    pub runtimes: BTreeSet<String>,
    /// Version of the agent.
    pub agent_version: String,
    /// What it shares power and a network switch with; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
}

/// One device as the agent describes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceDescription {
    /// Id.
    pub id: DeviceId,
    /// Index on its node.
    pub index: u32,
    /// Short model: `A100-80G`.
    pub model: String,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Not a real GPU.
    pub simulated: bool,
    /// What it is wired to.
    #[serde(default, skip_serializing_if = "DeviceWiring::is_unknown")]
    pub wiring: DeviceWiring,
}

/// What a device shares with others of its node, from the fastest way between them to the slowest.
/// Devices with equal numbers share the thing; absent: not known. The levels are those of
/// `nvmlDeviceGetTopologyCommonAncestor` and of the NVLink calls in the NVML API reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct DeviceWiring {
    /// Devices that reach each other over NVLink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvlink_island: Option<u32>,
    /// Devices behind one PCIe switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie_switch: Option<u32>,
    /// Devices at one NUMA node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
}

impl DeviceWiring {
    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// The things shared, the fastest first.
    pub fn levels(&self) -> [Option<u32>; 3] {
        [self.nvlink_island, self.pcie_switch, self.numa_node]
    }
}

/// How many nodes there are of each [`NodeDescription::make`].
pub type Makes = BTreeMap<Arc<NodeDescription>, u32>;

/// A node in the replicated state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What its agent said last.
    pub description: NodeDescription,
    /// Grants on each device, in `description.devices` order.
    pub devices: Vec<DeviceGrants>,
    /// Whether runs may be placed.
    pub condition: NodeCondition,
    /// CPU reserved, in thousandths.
    pub cpu_reserved_milli: u64,
    /// Memory reserved, MiB.
    pub memory_reserved_mib: u64,
    /// Members holding something here.
    pub members: BTreeSet<MemberKey>,
    /// Launches that failed in a row by the node's own fault.
    pub launch_failures: u32,
}

/// Whether a node takes runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeCondition {
    /// Takes runs.
    Ready,
    /// Takes no new allocations.
    Cordoned {
        /// Why.
        reason: String,
    },
    /// Takes none, and evicts what is left at the deadline.
    Draining {
        /// Why.
        reason: String,
        /// When.
        deadline_us: u64,
    },
    /// Unheard past its lease.
    Lost,
}

/// What is granted of one device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DeviceGrants {
    /// Holder to its share.
    pub holders: BTreeMap<MemberKey, Grant>,
    /// Sum of the shares, in thousandths.
    pub share_milli: u32,
    /// Sum of the memory, MiB.
    pub memory_mib: u64,
}

/// A share of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Thousandths of compute.
    pub share_milli: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
}

impl DeviceGrants {
    /// Whether `grant` fits beside what is granted already.
    pub fn fits(&self, grant: Grant, device_memory_mib: u64) -> bool {
        self.share_milli + grant.share_milli <= WHOLE_DEVICE_MILLI
            && self.memory_mib.saturating_add(grant.memory_mib) <= device_memory_mib
    }

    /// Adds a holder. The caller has checked [`Self::fits`].
    pub fn add(&mut self, holder: MemberKey, grant: Grant) {
        self.share_milli += grant.share_milli;
        self.memory_mib += grant.memory_mib;
        self.holders.insert(holder, grant);
    }

    /// Removes a holder, giving its grant back.
    pub fn remove(&mut self, holder: MemberKey) -> Option<Grant> {
        let grant = self.holders.remove(&holder)?;
        self.share_milli -= grant.share_milli;
        self.memory_mib -= grant.memory_mib;
        Some(grant)
    }
}

impl NodeDescription {
    /// The same without what tells like nodes apart: nodes of one make can hold the same when empty.
    pub fn make(&self) -> Self {
        let nameless = DeviceId("".into());
        Self {
            name: NodeName::any(),
            boot_id: String::new(),
            agent_version: String::new(),
            rack: None,
            devices: self
                .devices
                .iter()
                .map(|device| DeviceDescription {
                    id: nameless.clone(),
                    index: 0,
                    simulated: false,
                    wiring: DeviceWiring::default(),
                    ..device.clone()
                })
                .collect(),
            ..self.clone()
        }
    }
}

impl Node {
    /// A node that holds nothing yet.
    pub fn new(description: NodeDescription) -> Self {
        let devices = vec![DeviceGrants::default(); description.devices.len()];
        Self {
            description,
            devices,
            condition: NodeCondition::Ready,
            cpu_reserved_milli: 0,
            memory_reserved_mib: 0,
            members: BTreeSet::new(),
            launch_failures: 0,
        }
    }

    /// Whether new allocations may be placed here.
    pub fn is_ready(&self) -> bool {
        self.condition == NodeCondition::Ready
    }

    /// Whether any device is simulated.
    pub fn is_simulated(&self) -> bool {
        self.description
            .devices
            .iter()
            .any(|device| device.simulated)
    }
}
