//! A pool's free capacity, worked down while a plan is made.

use crate::model::{
    DeviceGrants, Grant, MemberDemand, MemberPhase, Node, PoolName, Run, WHOLE_DEVICE_MILLI,
};
use crate::state::{MemberPlacement, State};

/// Free capacity of a pool's ready nodes.
pub struct Scratch<'a> {
    nodes: Vec<Free<'a>>,
}

#[derive(Clone)]
struct Free<'a> {
    node: &'a Node,
    /// Thousandths and memory granted on each device, holders left out.
    granted: Vec<(u32, u64)>,
    cpu_reserved_milli: u64,
    memory_reserved_mib: u64,
    /// Kept for a run that others are being stopped for.
    held: bool,
}

impl<'a> Scratch<'a> {
    /// The free capacity of a pool, as the state has it.
    pub fn of(state: &'a State, pool: &PoolName) -> Self {
        let nodes = state
            .nodes()
            .values()
            .filter(|node| node.is_ready() && node.description.pool == *pool)
            .map(|node| Free {
                node,
                granted: node
                    .devices
                    .iter()
                    .map(|grants| (grants.share_milli, grants.memory_mib))
                    .collect(),
                cpu_reserved_milli: node.cpu_reserved_milli,
                memory_reserved_mib: node.memory_reserved_mib,
                held: false,
            })
            .collect();
        Self { nodes }
    }

    /// Thousandths of devices that nobody holds.
    pub fn idle_milli(&self) -> u64 {
        self.nodes.iter().map(Free::idle_milli).sum()
    }

    /// Keeps the nodes where a gang will fit once `leaving` have given back what they hold there.
    /// Whole nodes, for the short while until it starts: so the tightest that will do.
    pub fn hold_for(&mut self, demand: &MemberDemand, members: usize, leaving: &[&Run]) {
        let mut later: Vec<(u64, usize)> = self
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(position, free)| {
                let mut free = free.clone();
                leaving.iter().for_each(|run| free.give_back(run));
                Some((free.choose(demand)?.1, position))
            })
            .collect();
        if later.len() < members {
            return;
        }
        later.sort_unstable();
        for (_, position) in later.into_iter().take(members) {
            self.nodes[position].held = true;
        }
    }

    /// Takes room for every member, or nothing.
    pub fn take(&mut self, demand: &MemberDemand, members: usize) -> Option<Vec<MemberPlacement>> {
        let mut chosen: Vec<(usize, Vec<usize>, u64)> = self
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(position, free)| {
                let (devices, left) = free.choose(demand)?;
                Some((position, devices, left))
            })
            .collect();
        if chosen.len() < members {
            return None;
        }
        // The tightest nodes first, so that large requests find whole nodes later.
        chosen.sort_by_key(|(position, _, left)| (*left, *position));
        chosen.truncate(members);
        Some(
            chosen
                .into_iter()
                .map(|(position, devices, _)| self.nodes[position].commit(demand, &devices))
                .collect(),
        )
    }
}

impl Free<'_> {
    /// Devices for one member, fullest first, and the thousandths that would stay free on the node.
    fn choose(&self, demand: &MemberDemand) -> Option<(Vec<usize>, u64)> {
        let description = &self.node.description;
        if self.held
            || !description.runtimes.contains(demand.runtime)
            || self.cpu_reserved_milli.saturating_add(demand.cpu_milli) > description.cpu_milli
            || self.memory_reserved_mib.saturating_add(demand.memory_mib) > description.memory_mib
        {
            return None;
        }
        let mut fitting: Vec<usize> = Vec::new();
        if demand.devices > 0 {
            fitting = (0..description.devices.len())
                .filter(|position| self.fits(demand, *position))
                .collect();
            if fitting.len() < demand.devices as usize {
                return None;
            }
            fitting
                .sort_by_key(|position| (std::cmp::Reverse(self.granted[*position].0), *position));
            fitting.truncate(demand.devices as usize);
        }
        let free = self.idle_milli();
        Some((fitting, free - demand.gpu_milli().min(free)))
    }

    fn idle_milli(&self) -> u64 {
        self.granted
            .iter()
            .map(|(share, _)| u64::from(WHOLE_DEVICE_MILLI - (*share).min(WHOLE_DEVICE_MILLI)))
            .sum()
    }

    fn give_back(&mut self, run: &Run) {
        let description = &self.node.description;
        let held = run
            .last_attempt()
            .into_iter()
            .flat_map(|attempt| &attempt.members)
            .filter(|member| member.node == description.name && member.phase != MemberPhase::Ended);
        for member in held {
            for grant in &member.devices {
                if let Some(position) = description
                    .devices
                    .iter()
                    .position(|device| device.id == grant.device)
                {
                    let granted = &mut self.granted[position];
                    granted.0 = granted.0.saturating_sub(grant.share_milli);
                    granted.1 = granted.1.saturating_sub(grant.memory_mib);
                }
            }
            self.cpu_reserved_milli = self.cpu_reserved_milli.saturating_sub(member.cpu_milli);
            self.memory_reserved_mib = self.memory_reserved_mib.saturating_sub(member.memory_mib);
        }
    }

    fn fits(&self, demand: &MemberDemand, position: usize) -> bool {
        let device = &self.node.description.devices[position];
        if !demand.accepts(&device.model) {
            return false;
        }
        let (share_milli, memory_mib) = self.granted[position];
        DeviceGrants {
            share_milli,
            memory_mib,
            ..DeviceGrants::default()
        }
        .fits(
            Grant {
                share_milli: demand.share_milli,
                memory_mib: demand.memory_on(device.memory_mib),
            },
            device.memory_mib,
        )
    }

    fn commit(&mut self, demand: &MemberDemand, devices: &[usize]) -> MemberPlacement {
        let description = &self.node.description;
        for position in devices {
            let granted = &mut self.granted[*position];
            granted.0 += demand.share_milli;
            granted.1 += demand.memory_on(description.devices[*position].memory_mib);
        }
        self.cpu_reserved_milli += demand.cpu_milli;
        self.memory_reserved_mib += demand.memory_mib;
        MemberPlacement {
            node: description.name.clone(),
            devices: devices
                .iter()
                .map(|position| description.devices[*position].id.clone())
                .collect(),
        }
    }
}
