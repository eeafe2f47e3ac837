//! What one member asks of one node, as placement sees it.

use crate::model::{MemberDemand, is_of_model};

/// What one member asks of one node. Equal shapes are placed by one ranking and counted as one in a
/// [`super::Mix`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Devices, all on one node.
    pub devices: u32,
    /// Thousandths of each device.
    pub share_milli: u32,
    /// Memory on each device, MiB; absent: in proportion to the share.
    pub gpu_memory_mib: Option<u64>,
    /// The most memory that the policy lets it have of each device, MiB.
    pub gpu_memory_ceiling_mib: Option<u64>,
    /// Device models that will do; none named: any.
    pub gpu_models: Vec<String>,
    /// The one model of those to which a try is narrowed, by its full name.
    pub only_model: Option<String>,
    /// Reserved CPU, in thousandths.
    pub cpu_milli: u64,
    /// Reserved memory, MiB.
    pub memory_mib: u64,
    /// Runtime the node must offer.
    pub runtime: &'static str,
}

impl From<&MemberDemand> for Shape {
    fn from(demand: &MemberDemand) -> Self {
        Self {
            devices: demand.devices,
            share_milli: demand.share_milli,
            gpu_memory_mib: demand.gpu_memory_mib,
            gpu_memory_ceiling_mib: demand.gpu_memory_ceiling_mib,
            gpu_models: demand.gpu_model.iter().cloned().collect(),
            only_model: demand.only_model.clone(),
            cpu_milli: demand.cpu_milli,
            memory_mib: demand.memory_mib,
            runtime: demand.runtime,
        }
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Self {
        shape.clone()
    }
}

impl Shape {
    /// Whether a device of this model will do.
    pub fn accepts(&self, device_model: &str) -> bool {
        let is_asked = self.gpu_models.is_empty()
            || self
                .gpu_models
                .iter()
                .any(|asked| is_of_model(device_model, asked));
        is_asked
            && self
                .only_model
                .as_deref()
                .is_none_or(|only| only == device_model)
    }

    /// Memory it takes of a device with `device_memory_mib`: the rule is [`MemberDemand::memory_on`]'s.
    pub fn memory_on(&self, device_memory_mib: u64) -> u64 {
        MemberDemand {
            devices: self.devices,
            share_milli: self.share_milli,
            gpu_memory_mib: self.gpu_memory_mib,
            gpu_memory_ceiling_mib: self.gpu_memory_ceiling_mib,
            gpu_model: None,
            only_model: None,
            cpu_milli: self.cpu_milli,
            memory_mib: self.memory_mib,
            runtime: self.runtime,
        }
        .memory_on(device_memory_mib)
    }

    /// Thousandths of devices it holds when placed.
    pub fn gpu_milli(&self) -> u64 {
        u64::from(self.devices) * u64::from(self.share_milli)
    }

    /// Memory needed of a device, `None` when such a device will never do.
    pub(super) fn need_of(&self, model: &str, memory_mib: u64) -> Option<u64> {
        let need_mib = self.memory_on(memory_mib);
        (self.accepts(model) && need_mib <= memory_mib).then_some(need_mib)
    }
}
