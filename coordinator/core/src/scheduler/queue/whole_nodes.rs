//! Room of whole GPUs on nodes, gangs consolidated: the cluster of the queueing traces.
//!
//! A gang takes as few nodes as hold it, and at most one of them in part. Nodes are filed by their
//! free GPUs, so that taking and freeing look at no others.

use super::{Demand, Room};
use crate::model::RunId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

const WHOLE_GPU_MILLI: u64 = 1_000;

/// Nodes that [`WholeNodes::moving`] weighs at most for one start: the emptiest come first, and
/// what they cannot give the fuller ones rarely can.
const MOST_NODES_WEIGHED: usize = 64;

/// Nodes and who holds how many of their GPUs.
#[derive(Debug, Clone)]
pub struct WholeNodes {
    nodes: Vec<Node>,
    /// Nodes by free GPUs.
    by_free: Vec<BTreeSet<u32>>,
    /// GPUs of the largest nodes. Gangs of more span nodes of this size.
    largest: u32,
    held: BTreeMap<RunId, Vec<(u32, u32)>>,
}

#[derive(Debug, Clone)]
struct Node {
    free: u32,
    holders: BTreeMap<RunId, u32>,
}

impl WholeNodes {
    /// Empty nodes, by their GPUs.
    pub fn new(gpus: &[u32]) -> Self {
        let largest = gpus.iter().copied().max().unwrap_or(0);
        let mut by_free = vec![BTreeSet::new(); largest as usize + 1];
        for (node, free) in (0..).zip(gpus) {
            by_free[*free as usize].insert(node);
        }
        Self {
            nodes: gpus
                .iter()
                .map(|free| Node {
                    free: *free,
                    holders: BTreeMap::new(),
                })
                .collect(),
            by_free,
            largest,
            held: BTreeMap::new(),
        }
    }

    /// What a gang of so many GPUs asks for.
    pub fn demand(gpus: u32) -> Demand {
        Demand {
            shape: gpus,
            gpu_milli: u64::from(gpus) * WHOLE_GPU_MILLI,
        }
    }

    /// Where a run sits: nodes by position, and GPUs on each.
    pub fn holding(&self, run: RunId) -> &[(u32, u32)] {
        self.held.get(&run).map_or(&[], Vec::as_slice)
    }

    /// Free GPUs in all.
    pub fn free_gpus(&self) -> u64 {
        (0..)
            .zip(&self.by_free)
            .map(|(free, nodes): (u64, _)| free * nodes.len() as u64)
            .sum()
    }

    /// Nodes to take whole, and GPUs beside them on one more.
    fn parts(&self, gpus: u32) -> (usize, u32) {
        if gpus <= self.largest || self.largest == 0 {
            (0, gpus)
        } else {
            ((gpus / self.largest) as usize, gpus % self.largest)
        }
    }

    fn empty(&self) -> &BTreeSet<u32> {
        &self.by_free[self.largest as usize]
    }

    /// The fullest node with so many free GPUs, outside `taken`.
    fn tightest(&self, gpus: u32, taken: &[u32]) -> Option<u32> {
        self.by_free
            .get(gpus as usize..)?
            .iter()
            .find_map(|nodes| nodes.iter().find(|node| !taken.contains(node)))
            .copied()
    }

    fn choose(&self, gpus: u32) -> Option<Vec<(u32, u32)>> {
        let (whole, rest) = self.parts(gpus);
        if self.empty().len() < whole {
            return None;
        }
        let taken: Vec<u32> = self.empty().iter().take(whole).copied().collect();
        let mut chosen: Vec<(u32, u32)> = taken.iter().map(|node| (*node, self.largest)).collect();
        if rest > 0 {
            chosen.push((self.tightest(rest, &taken)?, rest));
        }
        Some(chosen)
    }

    fn set_free(&mut self, node: u32, free: u32) {
        let before = std::mem::replace(&mut self.nodes[node as usize].free, free);
        self.by_free[before as usize].remove(&node);
        self.by_free[free as usize].insert(node);
    }

    fn gpus_on(&self, run: RunId, node: u32) -> u32 {
        self.holding(run)
            .iter()
            .find(|(on, _)| *on == node)
            .map_or(0, |(_, gpus)| *gpus)
    }

    /// The nodes that a gang would take, given what else is released: what each must have free.
    fn cleared(
        &self,
        (whole, rest): (usize, u32),
        emptied: &[u32],
        released: &BTreeMap<u32, u32>,
    ) -> Option<Vec<(u32, u32)>> {
        if self.empty().len() + emptied.len() < whole {
            return None;
        }
        let taken: Vec<u32> = self
            .empty()
            .iter()
            .chain(emptied)
            .take(whole)
            .copied()
            .collect();
        let mut nodes: Vec<(u32, u32)> = taken.iter().map(|node| (*node, self.largest)).collect();
        if rest > 0 {
            let node = self.tightest(rest, &taken).or_else(|| {
                released
                    .iter()
                    .find(|(node, more)| {
                        !taken.contains(node) && self.nodes[**node as usize].free + **more >= rest
                    })
                    .map(|(node, _)| *node)
            })?;
            nodes.push((node, rest));
        }
        Some(nodes)
    }

    /// Those of `seen` that must go for `nodes`; the last are spared first.
    fn needed(&self, seen: &[RunId], nodes: &[(u32, u32)]) -> Vec<RunId> {
        let mut going: Vec<RunId> = seen
            .iter()
            .copied()
            .filter(|run| nodes.iter().any(|(node, _)| self.gpus_on(*run, *node) > 0))
            .collect();
        let mut spare: Vec<(u32, u32)> = nodes
            .iter()
            .map(|(node, need)| {
                let freed: u32 = going.iter().map(|run| self.gpus_on(*run, *node)).sum();
                (*node, self.nodes[*node as usize].free + freed - need)
            })
            .collect();
        for position in (0..going.len()).rev() {
            let run = going[position];
            if spare
                .iter()
                .all(|(node, gpus)| self.gpus_on(run, *node) <= *gpus)
            {
                for (node, gpus) in &mut spare {
                    *gpus -= self.gpus_on(run, *node);
                }
                going.remove(position);
            }
        }
        going
    }

    /// Whether runs of these sizes, largest first, all fit into what is free beside `taken`.
    fn fit_elsewhere(&self, sizes: &[u32], taken: &[(u32, u32)]) -> bool {
        let mut counts: Vec<usize> = self.by_free.iter().map(BTreeSet::len).collect();
        for (node, _) in taken {
            counts[self.nodes[*node as usize].free as usize] -= 1;
        }
        sizes.iter().all(|size| {
            let found = (*size as usize..counts.len()).find(|free| counts[*free] > 0);
            found.is_some_and(|free| {
                counts[free] -= 1;
                counts[free - *size as usize] += 1;
                true
            })
        })
    }

    fn sizes(&self, runs: &[RunId]) -> Vec<u32> {
        let mut sizes: Vec<u32> = runs
            .iter()
            .map(|run| self.holding(*run).iter().map(|(_, gpus)| gpus).sum())
            .collect();
        sizes.sort_by_key(|size| Reverse(*size));
        sizes
    }

    /// The runs that leave `node` with `gpus` free when they move, fewest GPUs first.
    fn movable(
        &self,
        node: u32,
        gpus: u32,
        may_move: &dyn Fn(RunId) -> bool,
    ) -> Option<Vec<RunId>> {
        let state = &self.nodes[node as usize];
        let mut holders: Vec<(u32, RunId)> = state
            .holders
            .iter()
            .map(|(run, held)| (*held, *run))
            .filter(|(held, run)| *held < gpus && self.holding(*run).len() == 1 && may_move(*run))
            .collect();
        holders.sort();
        let mut free = state.free;
        let mut moved = Vec::new();
        for (held, run) in holders {
            if free >= gpus {
                break;
            }
            free += held;
            moved.push(run);
        }
        (free >= gpus).then_some(moved)
    }
}

impl Room for WholeNodes {
    fn try_take(&mut self, run: RunId, demand: Demand) -> bool {
        let Some(chosen) = self.choose(demand.shape) else {
            return false;
        };
        for (node, gpus) in &chosen {
            self.set_free(*node, self.nodes[*node as usize].free - gpus);
            self.nodes[*node as usize].holders.insert(run, *gpus);
        }
        self.held.insert(run, chosen);
        true
    }

    fn give_back(&mut self, run: RunId) {
        for (node, gpus) in self.held.remove(&run).unwrap_or_default() {
            self.nodes[node as usize].holders.remove(&run);
            self.set_free(node, self.nodes[node as usize].free + gpus);
        }
    }

    fn clearing(
        &self,
        demand: Demand,
        candidates: &[RunId],
        admissible: &dyn Fn(&[RunId]) -> bool,
    ) -> Option<Vec<RunId>> {
        let parts = self.parts(demand.shape);
        let mut seen: Vec<RunId> = Vec::new();
        let mut released: BTreeMap<u32, u32> = BTreeMap::new();
        let mut emptied: Vec<u32> = Vec::new();
        for run in candidates {
            seen.push(*run);
            let mut roomy = None;
            for (node, gpus) in self.holding(*run) {
                let more = released.entry(*node).or_default();
                *more += gpus;
                let free = self.nodes[*node as usize].free + *more;
                if free == self.largest {
                    emptied.push(*node);
                }
                if free >= demand.shape && roomy.is_none() {
                    roomy = Some(vec![(*node, demand.shape)]);
                }
            }
            let nodes = if parts.0 == 0 {
                roomy
            } else {
                self.cleared(parts, &emptied, &released)
            };
            let Some(nodes) = nodes else { continue };
            let going = self.needed(&seen, &nodes);
            if admissible(&going) {
                return Some(going);
            }
            // This one spoils the set; another may complete it.
            seen.pop();
            for (node, gpus) in self.holding(*run) {
                if let Some(more) = released.get_mut(node) {
                    *more -= gpus;
                }
                emptied.retain(|other| other != node);
            }
        }
        None
    }

    fn moving(
        &self,
        demand: Demand,
        most_gpu_milli: u64,
        may_move: &dyn Fn(RunId) -> bool,
    ) -> Option<Vec<RunId>> {
        if self.free_gpus() < u64::from(demand.shape) {
            return None;
        }
        let (whole, rest) = self.parts(demand.shape);
        let most = u32::try_from(most_gpu_milli / WHOLE_GPU_MILLI).unwrap_or(u32::MAX);
        // Nodes by how little must move away.
        let emptiest = |gpus: u32| {
            self.by_free[..gpus as usize]
                .iter()
                .rev()
                .flatten()
                .copied()
                .take(MOST_NODES_WEIGHED)
        };
        if whole == 0 {
            return emptiest(rest).find_map(|node| {
                let moved = self.movable(node, rest, may_move)?;
                let sizes = self.sizes(&moved);
                (sizes.iter().sum::<u32>() <= most && self.fit_elsewhere(&sizes, &[(node, rest)]))
                    .then_some(moved)
            });
        }
        let mut taken: Vec<(u32, u32)> = self
            .empty()
            .iter()
            .take(whole)
            .map(|node| (*node, self.largest))
            .collect();
        let mut moved = Vec::new();
        for node in emptiest(self.largest) {
            if taken.len() == whole {
                break;
            }
            if let Some(more) = self.movable(node, self.largest, may_move) {
                // A smaller node never has room for its part, full or empty.
                let held = self.sizes(&more).iter().sum::<u32>();
                if self.nodes[node as usize].free + held == self.largest {
                    taken.push((node, self.largest));
                    moved.extend(more);
                }
            }
        }
        if taken.len() < whole {
            return None;
        }
        let mut sizes = self.sizes(&moved);
        if sizes.iter().sum::<u32>() > most {
            return None;
        }
        if rest > 0 {
            sizes.push(rest);
            sizes.sort_by_key(|size| Reverse(*size));
        }
        self.fit_elsewhere(&sizes, &taken).then_some(moved)
    }
}
