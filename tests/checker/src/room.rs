//! Whether a member fits a node beside what is held there, read straight off the specification.

use crate::books::{Books, Holding};
use crate::tree::Tree;
use coordinator_core::model::{DeviceDescription, Node, NodeName, Policy, Run, WorkloadSpec};
use coordinator_core::state::State;

/// What one member asks of a node.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    spec: &'a WorkloadSpec,
    /// The most memory of each device that the policy lets its model have.
    cap_mib: Option<u64>,
    /// The one device model that it is tried on.
    only: Option<&'a str>,
}

impl<'a> Ask<'a> {
    pub fn of(run: &'a Run, policy: &Policy) -> Self {
        Self {
            spec: &run.spec,
            cap_mib: run
                .spec
                .model
                .as_deref()
                .and_then(|model| cap_mib(policy, model)),
            only: None,
        }
    }

    /// What a run may be tried as: on one model after another where any line of its pool is for one.
    pub fn ways(state: &'a State, run: &'a Run) -> Vec<Self> {
        let ask = Self::of(run, state.policy());
        let is_by_model = run.spec.pool.as_ref().is_some_and(|pool| {
            let mut tenants = state.tenants().values();
            tenants.any(|tenant| tenant.model_quotas.contains_key(pool))
        });
        if !is_by_model || ask.devices() == 0 {
            return vec![ask];
        }
        let mut models: Vec<&str> = state
            .nodes()
            .values()
            .filter(|node| Some(&node.description.pool) == run.spec.pool.as_ref())
            .flat_map(|node| &node.description.devices)
            .filter(|device| ask.accepts(device))
            .map(|device| device.model.as_str())
            .collect();
        models.sort_unstable();
        models.dedup();
        let on = |model| Self {
            only: Some(model),
            ..ask.clone()
        };
        models.into_iter().map(on).collect()
    }

    /// The lines that bind it: those over all models, and those for the one it is tried on.
    pub fn meters(&self, state: &State) -> Vec<Option<&'a str>> {
        let mut meters = vec![None];
        if let (Some(pool), Some(model)) = (&self.spec.pool, self.only)
            && Tree::new(state.tenants(), pool, Some(model)).is_metered()
        {
            meters.push(Some(model));
        }
        meters
    }

    /// Devices for each member.
    pub fn devices(&self) -> u64 {
        match self.spec.gpu_share_milli {
            Some(_) => 1,
            None => u64::from(self.spec.gpus.unwrap_or(0)),
        }
    }

    /// Thousandths of each device.
    pub fn share_milli(&self) -> u64 {
        u64::from(self.spec.gpu_share_milli.unwrap_or(1000))
    }

    /// Memory that it takes of a device.
    pub fn memory_mib(&self, device: &DeviceDescription) -> u64 {
        let asked = match self.spec.gpu_memory_mib {
            Some(asked) => asked,
            None => {
                let part = u128::from(device.memory_mib) * u128::from(self.share_milli()) / 1000;
                u64::try_from(part).unwrap_or(u64::MAX)
            }
        };
        match self.cap_mib {
            Some(cap) if cap < asked => cap,
            _ => asked,
        }
    }

    pub fn cpu_milli(&self) -> u64 {
        self.spec.cpu_milli.unwrap_or(0)
    }

    pub fn node_memory_mib(&self) -> u64 {
        self.spec.memory_mib.unwrap_or(0)
    }

    /// Thousandths of devices that all members hold together.
    pub fn total_milli(&self) -> u64 {
        self.devices() * self.share_milli() * u64::from(self.spec.nodes)
    }

    /// Whether a device is of the model asked for: the very name, or its family without the memory.
    pub fn accepts(&self, device: &DeviceDescription) -> bool {
        self.only.is_none_or(|only| device.model == only) && self.accepts_model(&device.model)
    }

    /// The same of a model's name.
    pub fn accepts_model(&self, model: &str) -> bool {
        let Some(asked) = &self.spec.gpu_model else {
            return true;
        };
        let (asked, model) = (asked.to_lowercase(), model.to_lowercase());
        model == asked || model.starts_with(&format!("{asked}-"))
    }

    /// Why a node takes no member at all, whatever is free there.
    pub fn why_never_on(&self, node: &Node) -> Option<&'static str> {
        let runtime = match self.spec.image {
            Some(_) => "docker",
            None => "process",
        };
        if !node.is_ready() {
            Some("it is not ready")
        } else if Some(&node.description.pool) != self.spec.pool.as_ref() {
            Some("it is in another pool")
        } else if !node.description.runtimes.contains(runtime) {
            Some("it does not offer the runtime")
        } else {
            None
        }
    }

    /// Whether one device has room for its part of a member.
    pub fn fits_device(
        &self,
        node: &NodeName,
        device: &DeviceDescription,
        books: &Books<'_>,
    ) -> bool {
        let (share, memory) = books.of_device(node, &device.id);
        self.accepts(device)
            && share + self.share_milli() <= 1000
            && memory + self.memory_mib(device) <= device.memory_mib
    }

    /// Whether CPU and memory of a node suffice.
    pub fn fits_host(&self, node: &Node, books: &Books<'_>) -> bool {
        let (cpu, memory) = books.of_node(&node.description.name);
        cpu + self.cpu_milli() <= node.description.cpu_milli
            && memory + self.node_memory_mib() <= node.description.memory_mib
    }

    /// Whether a member fits a node.
    pub fn fits(&self, node: &Node, books: &Books<'_>) -> bool {
        let with_room = node
            .description
            .devices
            .iter()
            .filter(|device| self.fits_device(&node.description.name, device, books))
            .count();
        self.why_never_on(node).is_none()
            && self.fits_host(node, books)
            && with_room as u64 >= self.devices()
    }

    /// The nodes on each of which a member fits.
    pub fn fitting<'s>(&self, state: &'s State, books: &Books<'_>) -> Vec<&'s NodeName> {
        state
            .nodes()
            .values()
            .filter(|node| self.fits(node, books))
            .map(|node| &node.description.name)
            .collect()
    }

    /// What a member holds once it is on these devices.
    pub fn holding<'d>(
        &self,
        run: &Run,
        devices: impl IntoIterator<Item = &'d DeviceDescription>,
    ) -> Holding {
        let devices: Vec<&DeviceDescription> = devices.into_iter().collect();
        Holding {
            run: run.id,
            models: devices
                .iter()
                .map(|device| (device.model.clone(), self.share_milli()))
                .collect(),
            devices: devices
                .into_iter()
                .map(|device| {
                    (
                        device.id.clone(),
                        self.share_milli(),
                        self.memory_mib(device),
                    )
                })
                .collect(),
            cpu_milli: self.cpu_milli(),
            memory_mib: self.node_memory_mib(),
        }
    }
}

/// The cap of a model: its own line, else that of the longest pattern `prefix*` that it begins with.
fn cap_mib(policy: &Policy, model: &str) -> Option<u64> {
    if let Some(cap) = policy.gpu_memory_caps_mib.get(model) {
        return Some(*cap);
    }
    let mut longest: Option<(usize, u64)> = None;
    for (pattern, cap) in &policy.gpu_memory_caps_mib {
        let Some(prefix) = pattern.strip_suffix('*') else {
            continue;
        };
        if model.starts_with(prefix) && longest.is_none_or(|(length, _)| prefix.len() > length) {
            longest = Some((prefix.len(), *cap));
        }
    }
    longest.map(|(_, cap)| cap)
}
