//! Nodes kept for a run whose turn came and that found no room for too long, so that what is small
//! cannot pass it for ever.
//!
//! It is backfill with reservations (Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995; Mu'alem and
//! Feitelson, IEEE TPDS 12(6), 2001): a waiting run of the front keeps the devices that it will have soonest
//! by the time limits of what runs there, and whoever ends before then may use them meanwhile. What
//! has no time limit has no known end: such nodes are kept last, and those with the least to wait for first.
//!
//! Nothing is remembered, and yet it neither wavers nor slips. Nodes are kept by what they wait for, and
//! nobody comes to one who would make it wait for longer. Who may use it meanwhile is judged by
//! those alone who were there when the wait grew too long: their ends do not move, so a row of guests, each a
//! little late, ends all the same.

use crate::model::{Attempt, Grant, MemberDemand, Node, NodeName, Run, RunId, WHOLE_DEVICE_MILLI};
use crate::policy::{fits_beside, fits_empty};
use crate::state::{MemberPlacement, Placement, State};
use std::collections::BTreeMap;

/// Reservations in one pool at most: each keeps devices from all behind it in the order.
pub const MOST_RESERVATIONS: usize = 4;

/// What a run takes beyond its time limit: to be fetched and installed before it begins, and to save
/// what it has after it is told to stop (the agents' grace is 30 s).
pub const BEYOND_LIMIT_US: u64 = 60_000_000;

/// The end of what has no time limit.
const UNKNOWN_US: u64 = u64::MAX;

/// Devices kept for a run that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Reservation {
    /// Who they are kept for.
    pub run: RunId,
    /// Whether it is within a guarantee: kept from everybody behind it, else from those who borrow.
    pub guaranteed: bool,
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

    /// The longest time limit with which a run would be gone in time, in milliseconds.
    pub fn longest_limit_ms(&self, now_us: u64) -> Option<u64> {
        self.backfill_until_us
            .checked_sub(now_us.saturating_add(BEYOND_LIMIT_US))
            .map(|left_us| left_us / 1000)
            .filter(|limit_ms| *limit_ms > 0)
    }
}

/// What a reservation is made beside.
pub struct Surroundings<'a> {
    /// The state.
    pub state: &'a State,
    /// Now.
    pub now_us: u64,
    /// What the plan has placed already.
    pub planned: &'a [Placement],
    /// What is kept for others already.
    pub kept: &'a [Reservation],
}

/// Something that holds a part of a node.
struct Holder {
    end_us: u64,
    /// Thousandths of devices.
    milli: u64,
    placed_us: u64,
    cpu_milli: u64,
    memory_mib: u64,
    /// Positions on the node, with what it holds there.
    devices: Vec<(usize, Grant)>,
}

/// When one member fits a node, and on which devices.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Offer<'a> {
    start_us: u64,
    /// What has to end before, in thousandths of devices.
    waits_milli: u64,
    node: &'a NodeName,
    devices: Vec<usize>,
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

/// Keeps devices for a run that found no room: where all its members start soonest. `None`: there
/// are not as many nodes that could ever hold one.
pub fn reserve(
    around: &Surroundings<'_>,
    run: &Run,
    guaranteed: bool,
    is_offered: impl Fn(&NodeName) -> bool,
) -> Option<Reservation> {
    let state = around.state;
    let demand = state.policy().demand(&run.spec);
    let pool = run.spec.pool.as_ref()?;
    let mut planned: BTreeMap<&NodeName, Vec<Holder>> = BTreeMap::new();
    around.add_planned(&mut planned);
    around.add_kept(&mut planned);
    let mut offers: Vec<Offer<'_>> = Vec::new();
    for node in state.nodes().values() {
        let name = &node.description.name;
        if node.description.pool == *pool
            && node.is_ready()
            && fits_empty(node, &demand).is_ok()
            && is_offered(name)
        {
            let mut holders = around.holders(node);
            holders.extend(planned.remove(name).into_iter().flatten());
            offers.extend(offer(node, &demand, holders, around.now_us));
        }
    }
    let members = run.spec.nodes as usize;
    if members == 0 || offers.len() < members {
        return None;
    }
    if offers.len() > members {
        offers.select_nth_unstable(members - 1);
        offers.truncate(members);
    }
    offers.sort_unstable();
    let start_us = offers.last()?.start_us;
    Some(Reservation {
        run: run.id,
        guaranteed,
        start_us: (start_us != UNKNOWN_US).then_some(start_us),
        backfill_until_us: around.backfill_until_us(run, &demand, &offers),
        members: offers
            .into_iter()
            .map(|offer| MemberPlacement {
                node: offer.node.clone(),
                devices: state
                    .nodes()
                    .get(offer.node)
                    .into_iter()
                    .flat_map(|node| {
                        offer
                            .devices
                            .iter()
                            .map(|position| node.description.devices[*position].id.clone())
                    })
                    .collect(),
            })
            .collect(),
    })
}

impl<'a> Surroundings<'a> {
    /// Those who hold something of a node.
    fn holders(&self, node: &'a Node) -> Vec<Holder> {
        let mut holders = Vec::with_capacity(node.members.len());
        for key in &node.members {
            let Some(run) = self.state.runs().get(&key.run) else {
                continue;
            };
            let Some(attempt) = run.attempt(key.attempt) else {
                continue;
            };
            let Some(member) = attempt.members.get(key.member as usize) else {
                continue;
            };
            let mut devices = Vec::with_capacity(member.devices.len());
            for (position, grants) in node.devices.iter().enumerate() {
                if let Some(grant) = grants.holders.get(key) {
                    devices.push((position, *grant));
                }
            }
            holders.push(Holder {
                end_us: end_us(run, attempt, self.now_us),
                milli: milli(&devices),
                placed_us: attempt.placed_us,
                cpu_milli: member.cpu_milli,
                memory_mib: member.memory_mib,
                devices,
            });
        }
        holders
    }

    fn add_planned(&self, holders: &mut BTreeMap<&'a NodeName, Vec<Holder>>) {
        for placement in self.planned {
            if let Some(run) = self.state.runs().get(&placement.run) {
                let end_us = end_if_placed_us(run, self.now_us);
                self.add_members(run, &placement.members, end_us, holders);
            }
        }
    }

    /// Who has a reservation before holds its devices from its start to its own end: until then they
    /// are no use to anybody who wants them for good.
    fn add_kept(&self, holders: &mut BTreeMap<&'a NodeName, Vec<Holder>>) {
        for kept in self.kept {
            if let Some(run) = self.state.runs().get(&kept.run) {
                let end_us = kept
                    .start_us
                    .map_or(UNKNOWN_US, |start_us| end_if_placed_us(run, start_us));
                self.add_members(run, &kept.members, end_us, holders);
            }
        }
    }

    fn add_members(
        &self,
        run: &Run,
        members: &'a [MemberPlacement],
        end_us: u64,
        holders: &mut BTreeMap<&'a NodeName, Vec<Holder>>,
    ) {
        let demand = self.state.policy().demand(&run.spec);
        for member in members {
            let Some(node) = self.state.nodes().get(&member.node) else {
                continue;
            };
            let devices: Vec<(usize, Grant)> = (0..)
                .zip(&node.description.devices)
                .filter(|(_, device)| member.devices.contains(&device.id))
                .map(|(position, device)| (position, grant(&demand, device.memory_mib)))
                .collect();
            holders.entry(&member.node).or_default().push(Holder {
                end_us,
                milli: milli(&devices),
                placed_us: self.now_us,
                cpu_milli: demand.cpu_milli,
                memory_mib: demand.memory_mib,
                devices,
            });
        }
    }

    /// Until when others may use what is kept: as if only those were there who were when the wait
    /// grew too long. Where one of them has no known end, as long as anybody may wait before
    /// devices are kept.
    fn backfill_until_us(&self, run: &Run, demand: &MemberDemand, offers: &[Offer<'_>]) -> u64 {
        let due_us = due_us(self.state, run);
        let mut until_us = self.now_us;
        for node in offers
            .iter()
            .filter_map(|offer| self.state.nodes().get(offer.node))
        {
            let mut holders = self.holders(node);
            holders.retain(|holder| holder.placed_us < due_us);
            until_us = until_us.max(
                offer(node, demand, holders, self.now_us)
                    .map_or(UNKNOWN_US, |offer| offer.start_us),
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

/// When one member fits a node, as its holders end one after the other; `None`: it never does.
fn offer<'a>(
    node: &'a Node,
    demand: &MemberDemand,
    mut holders: Vec<Holder>,
    now_us: u64,
) -> Option<Offer<'a>> {
    let described = &node.description.devices;
    let mut granted = vec![(0_u32, 0_u64); described.len()];
    let (mut cpu_milli, mut memory_mib) = (0_u64, 0_u64);
    for holder in &holders {
        cpu_milli = cpu_milli.saturating_add(holder.cpu_milli);
        memory_mib = memory_mib.saturating_add(holder.memory_mib);
        for (position, grant) in &holder.devices {
            let (share, memory) = &mut granted[*position];
            *share = share.saturating_add(grant.share_milli);
            *memory = memory.saturating_add(grant.memory_mib);
        }
    }
    let is_free = |granted: &[(u32, u64)], position: usize| {
        let memory_mib = described[position].memory_mib;
        let wanted = grant(demand, memory_mib);
        let (share, memory) = granted[position];
        share.saturating_add(wanted.share_milli) <= WHOLE_DEVICE_MILLI
            && memory.saturating_add(wanted.memory_mib) <= memory_mib
    };
    // The first device that comes free is the first to be taken: the order of coming free.
    let mut free: Vec<usize> = Vec::new();
    let mut note_free = |granted: &[(u32, u64)]| {
        for (position, device) in described.iter().enumerate() {
            if demand.accepts(&device.model)
                && !free.contains(&position)
                && is_free(granted, position)
            {
                free.push(position);
            }
        }
    };
    note_free(&granted);
    holders.sort_by_key(|holder| (holder.end_us, holder.milli));
    let (mut start_us, mut waits_milli) = (now_us, 0_u64);
    let mut leaving = holders.into_iter();
    while fits_beside(
        node,
        demand,
        |position| is_free(&granted, position),
        cpu_milli,
        memory_mib,
    )
    .is_err()
    {
        let holder = leaving.next()?;
        start_us = start_us.max(holder.end_us);
        waits_milli = waits_milli.saturating_add(holder.milli);
        cpu_milli = cpu_milli.saturating_sub(holder.cpu_milli);
        memory_mib = memory_mib.saturating_sub(holder.memory_mib);
        for (position, grant) in holder.devices {
            let (share, memory) = &mut granted[position];
            *share = share.saturating_sub(grant.share_milli);
            *memory = memory.saturating_sub(grant.memory_mib);
        }
        note_free(&granted);
    }
    free.truncate(demand.devices as usize);
    Some(Offer {
        start_us,
        waits_milli,
        node: &node.description.name,
        devices: free,
    })
}

fn grant(demand: &MemberDemand, device_memory_mib: u64) -> Grant {
    Grant {
        share_milli: demand.share_milli,
        memory_mib: demand.memory_on(device_memory_mib),
    }
}

fn milli(devices: &[(usize, Grant)]) -> u64 {
    devices
        .iter()
        .map(|(_, grant)| u64::from(grant.share_milli))
        .sum()
}

/// When a live attempt will have left at the latest.
fn end_us(run: &Run, attempt: &Attempt, now_us: u64) -> u64 {
    let limit_us = run
        .spec
        .time_limit_ms
        .map(|limit| limit.saturating_mul(1000));
    if attempt.stopping.is_some() {
        return now_us.saturating_add(BEYOND_LIMIT_US);
    }
    match (limit_us, attempt.started_us) {
        (None, _) => UNKNOWN_US,
        (Some(limit_us), Some(started_us)) => started_us
            .saturating_add(limit_us)
            .saturating_add(BEYOND_LIMIT_US),
        // It will begin at any moment.
        (Some(limit_us), None) => attempt
            .placed_us
            .saturating_add(BEYOND_LIMIT_US)
            .max(now_us)
            .saturating_add(limit_us),
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
