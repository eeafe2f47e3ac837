//! Who holds what, summed anew from the members of live attempts.

use crate::tree::Tree;
use coordinator_core::model::{
    DeviceId, MemberPhase, NodeName, PoolName, RunId, RunPhase, TenantName,
};
use coordinator_core::state::State;
use std::collections::BTreeMap;

/// What one member holds of its node.
#[derive(Debug, Clone)]
pub struct Holding {
    pub run: RunId,
    /// Thousandths and MiB of each device.
    pub devices: Vec<(DeviceId, u64, u64)>,
    /// Thousandths by device model, as granted.
    pub models: Vec<(String, u64)>,
    pub cpu_milli: u64,
    pub memory_mib: u64,
}

/// What a run holds altogether.
#[derive(Debug, Clone)]
struct Held {
    tenant: TenantName,
    pool: Option<PoolName>,
    milli: u64,
    models: Vec<(String, u64)>,
}

/// Every holding, by node and by run.
#[derive(Debug, Clone)]
pub struct Books<'a> {
    state: &'a State,
    by_node: BTreeMap<NodeName, Vec<Holding>>,
    by_run: BTreeMap<RunId, Held>,
}

impl<'a> Books<'a> {
    /// What the live members of the state hold.
    pub fn of(state: &'a State) -> Self {
        let mut books = Self {
            state,
            by_node: BTreeMap::new(),
            by_run: BTreeMap::new(),
        };
        for run in state.runs().values() {
            let Some(attempt) = run
                .attempts
                .last()
                .filter(|_| run.phase == RunPhase::Active)
            else {
                continue;
            };
            for member in &attempt.members {
                if member.phase == MemberPhase::Ended {
                    continue;
                }
                let devices = member
                    .devices
                    .iter()
                    .map(|grant| {
                        let share_milli = u64::from(grant.share_milli);
                        (grant.device.clone(), share_milli, grant.memory_mib)
                    })
                    .collect();
                let models = member
                    .devices
                    .iter()
                    .map(|grant| (grant.model.clone(), u64::from(grant.share_milli)))
                    .collect();
                let holding = Holding {
                    run: run.id,
                    devices,
                    models,
                    cpu_milli: member.cpu_milli,
                    memory_mib: member.memory_mib,
                };
                books.add(member.node.clone(), holding);
            }
        }
        books
    }

    /// Writes down one more holding.
    pub fn add(&mut self, node: NodeName, holding: Holding) {
        if let Some(run) = self.state.runs().get(&holding.run) {
            let held = self.by_run.entry(run.id).or_insert_with(|| Held {
                tenant: run.tenant.clone(),
                pool: run.spec.pool.clone(),
                milli: 0,
                models: Vec::new(),
            });
            held.models.extend(holding.models.iter().cloned());
            held.milli += holding
                .devices
                .iter()
                .map(|(_, share, _)| share)
                .sum::<u64>();
        }
        self.by_node.entry(node).or_default().push(holding);
    }

    /// The books without these runs.
    pub fn without<'b>(&self, runs: impl IntoIterator<Item = &'b RunId>) -> Self {
        let mut rest = self.clone();
        for run in runs {
            rest.by_run.remove(run);
            for holdings in rest.by_node.values_mut() {
                holdings.retain(|holding| holding.run != *run);
            }
        }
        rest
    }

    /// What is held on a node.
    pub fn on(&self, node: &NodeName) -> &[Holding] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    /// Thousandths and MiB of one device that are held.
    pub fn of_device(&self, node: &NodeName, device: &DeviceId) -> (u64, u64) {
        self.on(node)
            .iter()
            .flat_map(|holding| &holding.devices)
            .filter(|(held, _, _)| held == device)
            .fold((0, 0), |(share, memory), (_, more_share, more_memory)| {
                (share + more_share, memory + more_memory)
            })
    }

    /// CPU and memory of a node that are reserved.
    pub fn of_node(&self, node: &NodeName) -> (u64, u64) {
        self.on(node).iter().fold((0, 0), |(cpu, memory), holding| {
            (cpu + holding.cpu_milli, memory + holding.memory_mib)
        })
    }

    /// What a tenant and all below it hold in a pool, of one model or of all.
    pub fn used_milli(&self, tenant: &TenantName, pool: &PoolName, model: Option<&str>) -> u64 {
        let tree = Tree::new(self.state.tenants(), pool, None);
        self.by_run
            .values()
            .filter(|held| held.pool.as_ref() == Some(pool) && tree.is_below(&held.tenant, tenant))
            .map(|held| match model {
                None => held.milli,
                Some(model) => {
                    let of_model = held.models.iter().filter(|(held, _)| held == model);
                    of_model.map(|(_, milli)| milli).sum()
                }
            })
            .sum()
    }

    /// Whether a run holds anything of a model.
    pub fn holds_model(&self, run: RunId, model: &str) -> bool {
        self.by_run
            .get(&run)
            .is_some_and(|held| held.models.iter().any(|(held, _)| held == model))
    }

    /// Thousandths of devices on ready nodes of a pool that nobody holds, of one model or of all.
    pub fn idle_milli(&self, pool: &PoolName, model: Option<&str>) -> u64 {
        self.state
            .nodes()
            .values()
            .filter(|node| node.is_ready() && node.description.pool == *pool)
            .flat_map(|node| {
                let name = &node.description.name;
                let devices = node.description.devices.iter();
                let devices =
                    devices.filter(|device| model.is_none_or(|model| device.model == model));
                devices.map(move |device| self.of_device(name, &device.id).0)
            })
            .map(|held| 1000_u64.saturating_sub(held))
            .sum()
    }
}
