//! What nodes have in sum, pool by pool, and which of them changed since when. Kept beside the nodes
//! so that neither admission nor a plan scans them: a submit looks at makes of nodes and a plan at what
//! changed since the last.
//!
//! Derived and not stored. Whatever changes a node says so ([`super::State::note_node`],
//! [`super::State::note_grants`]), as does what changes when a run there will end
//! ([`super::State::note_end`]), and [`super::State::violations`] compares all of it with a scan.

use super::State;
use crate::model::{Makes, Node, NodeDescription, NodeName, PoolName, RunId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Sums over the nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Capacity {
    counted: BTreeMap<NodeName, Counted>,
    makes: BTreeMap<PoolName, Makes>,
    sums: BTreeMap<PoolName, Sums>,
    /// The nodes of each pool by what of them is idle, in thousandths.
    by_idle: BTreeMap<PoolName, BTreeSet<(u64, NodeName)>>,
    /// What of each model is idle, in thousandths, in the pools where quota is stated by model.
    idle_by_model: BTreeMap<PoolName, BTreeMap<String, u64>>,
    /// Every node once, by the log index at which it last changed.
    changed: BTreeSet<(u64, NodeName)>,
}

/// What of the sums is one node's.
#[derive(Debug, Clone)]
struct Counted {
    make: Arc<NodeDescription>,
    sums: Sums,
    /// Idle thousandths of each model, where they are counted.
    idle_by_model: BTreeMap<String, u64>,
    changed_index: u64,
}

/// Thousandths of devices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    /// Of all nodes, whatever their condition.
    capacity_milli: u64,
    /// Of ready nodes, and held by nobody.
    idle_milli: u64,
}

/// Equal sums are equal. Which entry last changed a node is not part of what a state is: a state read
/// from a snapshot has forgotten it.
impl PartialEq for Capacity {
    fn eq(&self, other: &Self) -> bool {
        self.makes == other.makes
            && self.sums == other.sums
            && self.by_idle == other.by_idle
            && self.idle_by_model == other.idle_by_model
    }
}

impl Capacity {
    /// The sums over these nodes, all of them changed at `index`; those of models in these pools.
    fn of<'a>(
        nodes: impl Iterator<Item = &'a Node>,
        index: u64,
        by_model: impl Iterator<Item = PoolName>,
    ) -> Self {
        let mut capacity = Self {
            idle_by_model: by_model.map(|pool| (pool, BTreeMap::new())).collect(),
            ..Self::default()
        };
        for node in nodes {
            capacity.count(node, index);
        }
        capacity
    }

    /// Takes over everything about a node.
    fn count(&mut self, node: &Node, index: u64) {
        let name = &node.description.name;
        if let Some(before) = self.counted.remove(name) {
            self.changed.remove(&(before.changed_index, name.clone()));
            self.uncount(name, &before);
        }
        let make = Arc::new(node.description.make());
        let makes = self.makes.entry(make.pool.clone()).or_default();
        // Nodes of one make share its description.
        let make = makes
            .get_key_value(&make)
            .map_or(make, |(known, _)| known.clone());
        *makes.entry(make.clone()).or_default() += 1;
        let own = Sums {
            capacity_milli: node.description.devices.len() as u64 * 1000,
            idle_milli: idle_milli(node),
        };
        let sums = self.sums.entry(make.pool.clone()).or_default();
        sums.capacity_milli += own.capacity_milli;
        sums.idle_milli += own.idle_milli;
        self.by_idle
            .entry(make.pool.clone())
            .or_default()
            .insert((own.idle_milli, name.clone()));
        self.changed.insert((index, name.clone()));
        let idle_by_model = self.count_models(&make.pool, node, &BTreeMap::new());
        self.counted.insert(
            name.clone(),
            Counted {
                make,
                sums: own,
                idle_by_model,
                changed_index: index,
            },
        );
    }

    /// Counts what of each model is idle on a node in place of what was; nothing where it is not asked.
    fn count_models(
        &mut self,
        pool: &PoolName,
        node: &Node,
        before: &BTreeMap<String, u64>,
    ) -> BTreeMap<String, u64> {
        let mut own: BTreeMap<String, u64> = BTreeMap::new();
        let Some(models) = self.idle_by_model.get_mut(pool) else {
            return own;
        };
        if node.is_ready() {
            for (device, grants) in node.description.devices.iter().zip(&node.devices) {
                let idle_milli = u64::from(1000_u32.saturating_sub(grants.share_milli));
                *own.entry(device.model.clone()).or_default() += idle_milli;
            }
        }
        for (model, idle_milli) in &own {
            *models.entry(model.clone()).or_default() += idle_milli;
        }
        forget(models, before);
        own
    }

    /// Thousandths of devices of one model that are idle, in a pool where that is counted.
    pub(super) fn idle_of_model(&self, pool: &PoolName, model: &str) -> u64 {
        let models = self.idle_by_model.get(pool);
        models
            .and_then(|models| models.get(model))
            .copied()
            .unwrap_or(0)
    }

    fn uncount(&mut self, name: &NodeName, before: &Counted) {
        let pool = &before.make.pool;
        if let Some(models) = self.idle_by_model.get_mut(pool) {
            forget(models, &before.idle_by_model);
        }
        if let Some(nodes) = self.by_idle.get_mut(pool) {
            nodes.remove(&(before.sums.idle_milli, name.clone()));
        }
        if let Some(sums) = self.sums.get_mut(pool) {
            sums.capacity_milli -= before.sums.capacity_milli;
            sums.idle_milli -= before.sums.idle_milli;
        }
        let Some(makes) = self.makes.get_mut(pool) else {
            return;
        };
        if let Some(count) = makes.get_mut(&before.make) {
            *count -= 1;
            if *count == 0 {
                makes.remove(&before.make);
            }
        }
        if makes.is_empty() {
            self.makes.remove(pool);
            self.sums.remove(pool);
            self.by_idle.remove(pool);
        }
    }

    /// Takes over what is granted on a node, of which nothing else changed.
    fn recount(&mut self, node: &Node, index: u64) {
        let name = &node.description.name;
        let is_by_model = |counted: &Counted| self.idle_by_model.contains_key(&counted.make.pool);
        if !self.idle_by_model.is_empty()
            && let Some(mut counted) = self.counted.get(name).filter(|c| is_by_model(c)).cloned()
        {
            let pool = counted.make.pool.clone();
            counted.idle_by_model = self.count_models(&pool, node, &counted.idle_by_model);
            self.counted.insert(name.clone(), counted);
        }
        let Some(counted) = self.counted.get_mut(name) else {
            return;
        };
        let idle_milli = idle_milli(node);
        if let Some(sums) = self.sums.get_mut(&counted.make.pool) {
            sums.idle_milli = sums.idle_milli + idle_milli - counted.sums.idle_milli;
        }
        if let Some(nodes) = self.by_idle.get_mut(&counted.make.pool) {
            let mut entry = (counted.sums.idle_milli, name.clone());
            nodes.remove(&entry);
            entry.0 = idle_milli;
            nodes.insert(entry);
        }
        counted.sums.idle_milli = idle_milli;
        if counted.changed_index != index {
            let mut entry = (counted.changed_index, name.clone());
            self.changed.remove(&entry);
            entry.0 = index;
            self.changed.insert(entry);
            counted.changed_index = index;
        }
    }
}

/// Takes away what was counted of each model.
fn forget(models: &mut BTreeMap<String, u64>, before: &BTreeMap<String, u64>) {
    for (model, idle_milli) in before {
        if let Some(idle) = models.get_mut(model) {
            *idle = idle.saturating_sub(*idle_milli);
        }
    }
    models.retain(|_, idle| *idle > 0);
}

fn idle_milli(node: &Node) -> u64 {
    if !node.is_ready() {
        return 0;
    }
    node.devices
        .iter()
        .map(|grants| u64::from(1000_u32.saturating_sub(grants.share_milli)))
        .sum()
}

impl State {
    /// A node joined, or its description or condition changed.
    pub(super) fn note_node(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.get(name) {
            self.capacity.count(node, self.index);
        }
    }

    /// Something was granted on a node, or given back, or will be at another time.
    pub(super) fn note_grants(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.get(name) {
            self.capacity.recount(node, self.index);
        }
    }

    /// When a run's last attempt ends may be another time than before: its nodes come free then.
    pub(super) fn note_end(&mut self, run: RunId) {
        let attempt = self.runs.get(&run).and_then(|run| run.last_attempt());
        let nodes: Vec<NodeName> = attempt
            .into_iter()
            .flat_map(|attempt| &attempt.members)
            .map(|member| member.node.clone())
            .collect();
        for node in nodes {
            self.note_grants(&node);
        }
    }

    /// Counts every node anew.
    pub(super) fn recount_nodes(&mut self) {
        self.capacity = Capacity::of(
            self.nodes.values(),
            self.index,
            self.tenants.pools_by_model().cloned(),
        );
    }

    /// Thousandths of devices that a pool's nodes have, whatever their condition: a quota outlives a
    /// night in which a node is away.
    pub fn capacity_milli(&self, pool: &PoolName) -> u64 {
        self.capacity
            .sums
            .get(pool)
            .map_or(0, |sums| sums.capacity_milli)
    }

    /// Thousandths of devices of ready nodes of a pool that nobody holds.
    pub fn idle_milli(&self, pool: &PoolName) -> u64 {
        self.capacity
            .sums
            .get(pool)
            .map_or(0, |sums| sums.idle_milli)
    }

    /// Nodes of a pool of whose devices at least so much is idle, in thousandths; the most idle first.
    pub fn nodes_with_idle(
        &self,
        pool: &PoolName,
        at_least_milli: u64,
    ) -> impl Iterator<Item = &Node> {
        self.capacity
            .by_idle
            .get(pool)
            .into_iter()
            .flat_map(|nodes| nodes.iter().rev())
            .take_while(move |(idle_milli, _)| *idle_milli >= at_least_milli)
            .filter_map(|(_, name)| self.nodes.get(name))
    }

    /// Makes of nodes in each pool that has any, with how many there are of each.
    pub fn makes(&self) -> &BTreeMap<PoolName, Makes> {
        &self.capacity.makes
    }

    /// Nodes that changed in an entry after the one at `index`, or the end of something there. After
    /// reading a snapshot that is every node to whom held an older index, and none to whom held that of the
    /// snapshot.
    pub fn nodes_changed_after(&self, index: u64) -> impl Iterator<Item = &Node> {
        self.capacity
            .changed
            .iter()
            .rev()
            .take_while(move |(changed_index, _)| *changed_index > index)
            .filter_map(|(_, name)| self.nodes.get(name))
    }
}
