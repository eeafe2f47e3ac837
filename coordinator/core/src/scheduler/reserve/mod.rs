//! Nodes kept for a run whose turn came and that found no room for too long, so that what is small
//! cannot pass it for ever.
//!
//! It is backfill with reservations (Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995; Mu'alem and
//! Feitelson, IEEE TPDS 12(6), 2001): a waiting run of the front keeps the devices that it will have soonest
//! by the time limits of what runs there, and whoever ends before then may use them meanwhile. What
//! has no time limit has no known end: such nodes are kept last, and those with the least to wait for first.
//!
//! No reservation is remembered, and yet it neither wavers nor slips. Nodes are kept by what they wait for, and
//! nobody comes to one who would make it wait for longer. Who may use it meanwhile is judged by
//! those alone who were there when the wait grew too long: their ends do not move, so a row of guests, each a
//! little late, ends all the same.

mod holders;
mod offers;
mod owed;
mod tenures;

pub use holders::BEYOND_LIMIT_US;
pub use tenures::Tenures;

use crate::model::{MemberDemand, NodeName, Run, RunId};
use crate::state::{MemberPlacement, Placement, State};
use holders::{Holder, UNKNOWN_US};
use offers::offer;
use std::collections::{BTreeMap, BTreeSet};
use tenures::Candidate;

/// Reservations in one pool at most: each keeps devices from all behind it in the order.
pub const MOST_RESERVATIONS: usize = 4;

/// Devices kept for a run that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Reservation {
    /// Who they are kept for.
    pub run: RunId,
    /// Whether it is within a guarantee: kept from everybody behind it, else from those who borrow.
    pub guaranteed: bool,
    /// The device model to which it is narrowed, where quota is stated by model.
    pub model: Option<String>,
    /// Where it will start, by rank.
    pub members: Vec<MemberPlacement>,
    /// When at the latest; `None`: something there has no time limit.
    pub start_us: Option<u64>,
    /// Who will have ended by then may start there meanwhile.
    pub backfill_until_us: u64,
}

impl Reservation {
    /// Whether a run that is placed now would be gone in time.
    pub fn lets_start(&self, run: &Run, now_us: u64) -> bool {
        run.spec.time_limit_ms.is_some() && end_if_placed_us(run, now_us) <= self.backfill_until_us
    }

    /// Whether it is kept for what a run is owed, and whoever borrows there can be asked now: the run
    /// asks wherever that costs least, and does not need these devices in particular.
    pub fn is_owed_at_once(&self, state: &State, now_us: u64) -> bool {
        let is_due = |run: &Run| due_us(state, run) <= now_us;
        let at_once_us = now_us.saturating_add(owed::GRACE_US);
        !state.runs().get(&self.run).is_some_and(is_due)
            && self.start_us.is_some_and(|start_us| start_us <= at_once_us)
    }

    /// The longest time limit with which a run would be gone in time, in milliseconds.
    pub fn longest_limit_ms(&self, now_us: u64) -> Option<u64> {
        self.backfill_until_us
            .checked_sub(now_us.saturating_add(BEYOND_LIMIT_US))
            .map(|left_us| left_us / 1000)
            .filter(|limit_ms| *limit_ms > 0)
    }
}

/// Makes the reservations of one plan in one pool.
pub struct Keeper<'a> {
    state: &'a State,
    now_us: u64,
    tenures: &'a mut Tenures,
    /// What the plan has placed and kept so far, by node.
    beside: BTreeMap<NodeName, Vec<Holder>>,
    /// How many placements and reservations of the plan are counted there.
    counted: (usize, usize),
}

/// Since when a run has waited in its turn.
pub fn waits_since_us(run: &Run) -> u64 {
    run.last_attempt()
        .and_then(|attempt| attempt.ended_us)
        .unwrap_or(run.submitted_us)
}

/// From when devices are kept for a run that finds no room.
pub fn due_us(state: &State, run: &Run) -> u64 {
    waits_since_us(run).saturating_add(state.policy().reservation_after_ms.saturating_mul(1000))
}

impl<'a> Keeper<'a> {
    /// Of a plan that has placed and kept nothing yet.
    pub fn new(state: &'a State, now_us: u64, tenures: &'a mut Tenures) -> Self {
        Self {
            state,
            now_us,
            tenures,
            beside: BTreeMap::new(),
            counted: (0, 0),
        }
    }

    /// Keeps devices for a run that found no room when tried like this: where all its members start
    /// soonest, beside what the plan has placed and what is kept already. `None`: there are not as many
    /// nodes that could ever hold one.
    pub fn reserve(
        &mut self,
        run: &Run,
        (demand, guaranteed): (&MemberDemand, bool),
        placed: &[Placement],
        kept: &[Reservation],
        is_offered: impl Fn(&NodeName) -> bool,
    ) -> Option<Reservation> {
        self.count(placed, kept);
        self.tenures.follow(self.state, demand, self.now_us);
        let chosen = self.soonest(demand, run.spec.nodes as usize, is_offered)?;
        let (start_us, ..) = *chosen.last()?;
        Some(Reservation {
            run: run.id,
            guaranteed,
            model: demand.only_model.clone(),
            start_us: (start_us != UNKNOWN_US).then_some(start_us),
            backfill_until_us: self.backfill_until_us(run, demand, &chosen),
            members: chosen
                .into_iter()
                .map(|(_, _, name)| self.placement(demand, name))
                .collect(),
        })
    }

    /// Adds what the plan has placed and kept since the last look.
    fn count(&mut self, placed: &[Placement], kept: &[Reservation]) {
        let (placed_before, kept_before) = self.counted;
        self.counted = (placed.len(), kept.len());
        for placement in placed.iter().skip(placed_before) {
            if let Some(run) = self.state.runs().get(&placement.run) {
                let end_us = end_if_placed_us(run, self.now_us);
                self.count_members(run, &placement.members, end_us);
            }
        }
        // Who has a reservation before holds its devices from its start to its own end: until then they
        // are no use to anybody who wants them for good.
        for kept in kept.iter().skip(kept_before) {
            if let Some(run) = self.state.runs().get(&kept.run) {
                let end_us = kept
                    .start_us
                    .map_or(UNKNOWN_US, |start_us| end_if_placed_us(run, start_us));
                self.count_members(run, &kept.members, end_us);
            }
        }
    }

    fn count_members(&mut self, run: &Run, members: &[MemberPlacement], end_us: u64) {
        let demand = self.state.policy().demand(&run.spec);
        for member in members {
            if let Some(node) = self.state.nodes().get(&member.node) {
                let holder = Holder::planned(node, &demand, member, end_us, self.now_us);
                let beside = self.beside.entry(member.node.clone()).or_default();
                beside.push(holder);
            }
        }
    }

    /// The nodes on which so many members start soonest, in that order.
    fn soonest(
        &self,
        demand: &MemberDemand,
        members: usize,
        is_offered: impl Fn(&NodeName) -> bool,
    ) -> Option<Vec<Candidate<'_>>> {
        let (order, _) = self.tenures.last()?;
        if members == 0 || order.len() < members {
            return None;
        }
        let mut standing = order.soonest().peekable();
        // Nodes that the plan has changed: they come free no sooner than without it, and are looked at
        // when it is their turn without it.
        let mut changed: BTreeSet<Candidate<'_>> = BTreeSet::new();
        let mut chosen = Vec::with_capacity(members);
        while chosen.len() < members {
            let next =
                match (standing.peek(), changed.first()) {
                    (Some(unchanged), Some(first)) if first < unchanged => changed.pop_first(),
                    (None, _) => changed.pop_first(),
                    _ => {
                        let candidate = standing.next()?;
                        let (_, _, name) = candidate;
                        if !is_offered(name) {
                            continue;
                        }
                        if self.beside.contains_key(name) {
                            let offer = self.offer_on(demand, name);
                            changed.extend(offer.map(|offer| {
                                (offer.start_us(self.now_us), offer.waits_milli, name)
                            }));
                            continue;
                        }
                        Some(candidate)
                    }
                };
            chosen.push(next?);
        }
        Some(chosen)
    }

    /// What a node offers beside what the plan has placed and kept there.
    fn offer_on(&self, demand: &MemberDemand, name: &NodeName) -> Option<offers::Offer> {
        let node = self.state.nodes().get(name)?;
        let (_, holders) = self.tenures.last()?;
        let beside = self.beside.get(name).into_iter().flatten();
        let holders = holders.get(name).into_iter().flatten().chain(beside);
        offer(node, demand, holders, self.now_us)
    }

    fn placement(&self, demand: &MemberDemand, name: &NodeName) -> MemberPlacement {
        let described = self.state.nodes().get(name);
        let offer = self.offer_on(demand, name);
        MemberPlacement {
            node: name.clone(),
            devices: described
                .zip(offer)
                .into_iter()
                .flat_map(|(node, offer)| {
                    let devices = &node.description.devices;
                    let id = |position: usize| devices[position].id.clone();
                    offer.devices.into_iter().map(id)
                })
                .collect(),
        }
    }

    /// Until when others may use what is kept: as if only those were there who were when the wait
    /// grew too long. Where one of them has no known end, as long as anybody may wait before
    /// devices are kept.
    fn backfill_until_us(&self, run: &Run, demand: &MemberDemand, chosen: &[Candidate<'_>]) -> u64 {
        let due_us = due_us(self.state, run);
        let mut until_us = self.now_us;
        for &(_, _, name) in chosen {
            let Some((node, (_, holders))) = self.state.nodes().get(name).zip(self.tenures.last())
            else {
                continue;
            };
            let holders = holders.get(name).into_iter().flatten();
            let there_before = holders.filter(|holder| holder.placed_us < due_us);
            until_us = until_us.max(
                offer(node, demand, there_before, self.now_us)
                    .map_or(UNKNOWN_US, |offer| offer.start_us(self.now_us)),
            );
        }
        if until_us == UNKNOWN_US {
            let after_us = self
                .state
                .policy()
                .reservation_after_ms
                .saturating_mul(1000);
            return self.now_us.saturating_add(after_us);
        }
        until_us
    }
}

/// When a run that is placed now will have left at the latest.
fn end_if_placed_us(run: &Run, now_us: u64) -> u64 {
    run.spec.time_limit_ms.map_or(UNKNOWN_US, |limit_ms| {
        now_us
            .saturating_add(BEYOND_LIMIT_US)
            .saturating_add(limit_ms.saturating_mul(1000))
    })
}
