//! What reservations ask of a pool's nodes, kept between plans: who holds what of each, and for each
//! demand the nodes in the order in which they come free for it.
//!
//! Ends move with the time where somebody has been told to stop or has not begun. So a node's place in
//! an order is said without the time: at once, at a time, or so long after it is asked. Each of the three is
//! ordered alone and they are merged when asked; and each node says from when its place may be another if
//! nothing happens to it. Then it is looked at again, as is every node that an entry has changed. So a
//! plan costs what has changed since the last that asked, and the nodes that it keeps.
//!
//! The order is the one that a scan of every node would give, whatever was kept for how long: a test holds
//! it to that.

use super::holders::{Holder, Moment};
use super::offers::{changes_us, offer};
use crate::model::{MemberDemand, Node, NodeName, PoolName};
use crate::policy::fits_empty;
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};

/// Demands for which the nodes stay in order, those asked for last. Each takes about 150 bytes of
/// memory for each node; few reservations are made at once, and people ask for a few dozen shapes.
const MOST_ORDERS: usize = 16;

/// Of one pool.
#[derive(Debug)]
pub struct Tenures {
    pool: PoolName,
    /// Log index of the state whose holders these are; absent: none were read yet.
    index: Option<u64>,
    /// Of every ready node.
    holders: BTreeMap<NodeName, Vec<Holder>>,
    /// The one asked for last stands last.
    orders: Vec<Order>,
}

/// The nodes that could ever hold a demand, in the order in which they come free for it.
#[derive(Debug)]
pub struct Order {
    demand: MemberDemand,
    /// Log index of the state that it was followed on last; absent: on none yet.
    index: Option<u64>,
    now_us: u64,
    ranks: BTreeMap<NodeName, Rank>,
    /// By the kind of moment: at once, at a time, so long after it is asked.
    ranked: [BTreeSet<(u64, u64, NodeName)>; 3],
    /// When nodes are to be looked at again.
    changes: BTreeSet<(u64, NodeName)>,
}

/// Where a node stands in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rank {
    moment: Moment,
    waits_milli: u64,
    changes_us: Option<u64>,
}

/// A node, and when it is free: the start, then what waits for it in thousandths of devices.
pub type Candidate<'a> = (u64, u64, &'a NodeName);

impl Tenures {
    /// Of this pool, with nothing read yet.
    pub fn new(pool: &PoolName) -> Self {
        Self {
            pool: pool.clone(),
            index: None,
            holders: BTreeMap::new(),
            orders: Vec::new(),
        }
    }

    /// Reads what changed, and has the nodes in order for this demand.
    pub fn follow(&mut self, state: &State, demand: &MemberDemand, now_us: u64) {
        self.follow_holders(state);
        let known = self.orders.iter().position(|order| order.demand == *demand);
        let order = match known {
            Some(position) => {
                let mut order = self.orders.remove(position);
                if order.now_us > now_us {
                    order = Order::new(demand.clone());
                }
                order
            }
            None => {
                if self.orders.len() >= MOST_ORDERS {
                    self.orders.remove(0);
                }
                Order::new(demand.clone())
            }
        };
        self.orders.push(order);
        let (Some(order), holders) = (self.orders.last_mut(), &self.holders) else {
            return;
        };
        order.follow(state, holders, now_us);
        #[cfg(test)]
        order.check(state);
    }

    /// The order of the demand that was followed last, and the holders of each of its nodes.
    pub fn last(&self) -> Option<(&Order, &BTreeMap<NodeName, Vec<Holder>>)> {
        Some((self.orders.last()?, &self.holders))
    }

    fn follow_holders(&mut self, state: &State) {
        match self.index {
            Some(index) => {
                for node in state.nodes_changed_after(index) {
                    self.read(state, node);
                }
            }
            None => {
                for node in state.nodes().values() {
                    self.read(state, node);
                }
            }
        }
        self.index = Some(state.index());
    }

    fn read(&mut self, state: &State, node: &Node) {
        let name = &node.description.name;
        if node.is_ready() && node.description.pool == self.pool {
            self.holders.insert(name.clone(), Holder::on(state, node));
        } else {
            self.holders.remove(name);
        }
    }
}

impl Order {
    /// With nothing in it yet.
    fn new(demand: MemberDemand) -> Self {
        Self {
            demand,
            index: None,
            now_us: 0,
            ranks: BTreeMap::new(),
            ranked: Default::default(),
            changes: BTreeSet::new(),
        }
    }

    /// How many nodes could ever hold the demand.
    pub fn len(&self) -> usize {
        self.ranks.len()
    }

    /// Every node, the one that comes free first before all others; of equal ones the one with the least to
    /// wait for, and then the one whose name comes first.
    pub fn soonest(&self) -> impl Iterator<Item = Candidate<'_>> {
        let now_us = self.now_us;
        let mut lines = self.ranked.each_ref().map(|line| line.iter().peekable());
        std::iter::from_fn(move || {
            let heads = (0..).zip(&mut lines).filter_map(|(kind, line)| {
                let (amount_us, waits_milli, name) = line.peek()?;
                let start_us = unlined(kind, *amount_us).at_us(now_us);
                Some(((start_us, *waits_milli, name), kind))
            });
            let (candidate, kind) = heads.min()?;
            lines[kind].next();
            Some(candidate)
        })
    }

    fn follow(&mut self, state: &State, holders: &BTreeMap<NodeName, Vec<Holder>>, now_us: u64) {
        self.now_us = now_us;
        match self.index {
            Some(index) => {
                for node in state.nodes_changed_after(index) {
                    let name = &node.description.name;
                    self.look(state, name, holders.get(name));
                }
            }
            None => {
                for (name, holders) in holders {
                    self.look(state, name, Some(holders));
                }
            }
        }
        self.index = Some(state.index());
        while let Some((at_us, _)) = self.changes.first()
            && *at_us <= now_us
            && let Some((_, name)) = self.changes.pop_first()
        {
            self.look(state, &name, holders.get(&name));
        }
    }

    /// Gives a node the place that it has now; without holders it is not one to be kept.
    fn look(&mut self, state: &State, name: &NodeName, holders: Option<&Vec<Holder>>) {
        let rank = state
            .nodes()
            .get(name)
            .zip(holders)
            .and_then(|(node, holders)| {
                fits_empty(node, &self.demand).ok()?;
                let offer = offer(node, &self.demand, holders, self.now_us)?;
                Some(Rank {
                    moment: offer.moment,
                    waits_milli: offer.waits_milli,
                    changes_us: changes_us(&offer, holders, self.now_us),
                })
            });
        let before = match rank {
            Some(rank) => self.ranks.insert(name.clone(), rank),
            None => self.ranks.remove(name),
        };
        if before == rank {
            // Its change may have been what brought it here.
            if let Some(at_us) = rank.and_then(|rank| rank.changes_us) {
                self.changes.insert((at_us, name.clone()));
            }
            return;
        }
        if let Some(before) = before {
            let (kind, amount_us) = lined(before.moment);
            let entry = (amount_us, before.waits_milli, name.clone());
            self.ranked[kind].remove(&entry);
            if let Some(at_us) = before.changes_us {
                self.changes.remove(&(at_us, name.clone()));
            }
        }
        if let Some(rank) = rank {
            let (kind, amount_us) = lined(rank.moment);
            let entry = (amount_us, rank.waits_milli, name.clone());
            self.ranked[kind].insert(entry);
            if let Some(at_us) = rank.changes_us {
                self.changes.insert((at_us, name.clone()));
            }
        }
    }
}

/// The line in which a moment stands, and its place there.
fn lined(moment: Moment) -> (usize, u64) {
    match moment {
        Moment::Now => (0, 0),
        Moment::At(at_us) => (1, at_us),
        Moment::After(after_us) => (2, after_us),
    }
}

fn unlined(line: usize, amount_us: u64) -> Moment {
    match line {
        0 => Moment::Now,
        1 => Moment::At(amount_us),
        _ => Moment::After(amount_us),
    }
}

#[cfg(test)]
impl Order {
    /// That the nodes stand in the order that a scan of all of them gives.
    fn check(&self, state: &State) {
        let pool = self.ranks.keys().next();
        let pool = pool.and_then(|name| Some(&state.nodes().get(name)?.description.pool));
        let mut scanned: Vec<(u64, u64, &NodeName)> = state
            .nodes()
            .values()
            .filter(|node| node.is_ready() && Some(&node.description.pool) == pool)
            .filter(|node| fits_empty(node, &self.demand).is_ok())
            .filter_map(|node| {
                let holders = Holder::on(state, node);
                let offer = offer(node, &self.demand, &holders, self.now_us)?;
                let start_us = offer.start_us(self.now_us);
                Some((start_us, offer.waits_milli, &node.description.name))
            })
            .collect();
        scanned.sort_unstable();
        let kept: Vec<Candidate<'_>> = self.soonest().collect();
        assert_eq!(kept, scanned, "an order that was kept agrees with a scan");
    }
}
