//! When one member fits a node, as those who hold something of it leave one after the other.

use super::holders::{Holder, Moment, UNKNOWN_US, grant};
use crate::model::{MemberDemand, Node, WHOLE_DEVICE_MILLI};
use crate::policy::fits_beside;

/// What a node offers a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// When it fits.
    pub moment: Moment,
    /// What has to end before, in thousandths of devices.
    pub waits_milli: u64,
    /// Positions of the devices, the first that come free.
    pub devices: Vec<usize>,
}

impl Offer {
    /// When it fits, asked now.
    pub fn start_us(&self, now_us: u64) -> u64 {
        self.moment.at_us(now_us)
    }
}

/// When one member fits a node beside these; `None`: it never does.
pub fn offer<'a>(
    node: &Node,
    demand: &MemberDemand,
    holders: impl IntoIterator<Item = &'a Holder>,
    now_us: u64,
) -> Option<Offer> {
    let described = &node.description.devices;
    let mut granted = vec![(0_u32, 0_u64); described.len()];
    let (mut cpu_milli, mut memory_mib) = (0_u64, 0_u64);
    let mut holders: Vec<(u64, Moment, &Holder)> = holders
        .into_iter()
        .map(|holder| {
            let moment = holder.end.moment(now_us);
            (moment.at_us(now_us), moment, holder)
        })
        .collect();
    for (_, _, holder) in &holders {
        cpu_milli = cpu_milli.saturating_add(holder.cpu_milli);
        memory_mib = memory_mib.saturating_add(holder.memory_mib);
        for (position, grant) in &holder.devices {
            let (share, memory) = &mut granted[*position];
            *share = share.saturating_add(grant.share_milli);
            *memory = memory.saturating_add(grant.memory_mib);
        }
    }
    let wanted: Vec<_> = described
        .iter()
        .map(|device| {
            demand
                .accepts(&device.model)
                .then(|| grant(demand, device.memory_mib))
        })
        .collect();
    let is_free = |granted: &[(u32, u64)], position: usize| {
        let (share, memory) = granted[position];
        wanted[position].is_some_and(|wanted| {
            share.saturating_add(wanted.share_milli) <= WHOLE_DEVICE_MILLI
                && memory.saturating_add(wanted.memory_mib) <= described[position].memory_mib
        })
    };
    // The first device that comes free is the first to be taken: the order of coming free.
    let mut free: Vec<usize> = Vec::new();
    let note_free = |granted: &[(u32, u64)], free: &mut Vec<usize>| {
        for position in 0..described.len() {
            if !free.contains(&position) && is_free(granted, position) {
                free.push(position);
            }
        }
    };
    note_free(&granted, &mut free);
    holders.sort_by_key(|(end_us, _, holder)| (*end_us, holder.milli));
    let (mut moment, mut waits_milli) = (Moment::Now, 0_u64);
    let mut leaving = holders.into_iter();
    // Whether it fits is only asked where enough is free: it asks every device for its model.
    while free.len() < demand.devices as usize
        || fits_beside(
            node,
            demand,
            |position| free.contains(&position),
            cpu_milli,
            memory_mib,
        )
        .is_err()
    {
        let (end_us, ends, holder) = leaving.next()?;
        if end_us > now_us {
            moment = ends;
        }
        waits_milli = waits_milli.saturating_add(holder.milli);
        cpu_milli = cpu_milli.saturating_sub(holder.cpu_milli);
        memory_mib = memory_mib.saturating_sub(holder.memory_mib);
        for (position, grant) in &holder.devices {
            let (share, memory) = &mut granted[*position];
            *share = share.saturating_sub(grant.share_milli);
            *memory = memory.saturating_sub(grant.memory_mib);
        }
        note_free(&granted, &mut free);
    }
    free.truncate(demand.devices as usize);
    Some(Offer {
        moment,
        waits_milli,
        devices: free,
    })
}

/// From when the offer of a node may be another, if nothing happens; `None`: never. Until then its
/// moment and what it waits for stay as they are.
pub fn changes_us(offer: &Offer, holders: &[Holder], now_us: u64) -> Option<u64> {
    let mut soonest: Option<u64> = None;
    let mut may_change = |at_us: u64| {
        if at_us > now_us && soonest.is_none_or(|soonest| at_us < soonest) {
            soonest = Some(at_us);
        }
    };
    // What it waits for has passed.
    if let Moment::At(at_us) = offer.moment
        && at_us != UNKNOWN_US
    {
        may_change(at_us);
    }
    for holder in holders {
        if let Some(at_us) = holder.end.changes_us(now_us) {
            may_change(at_us);
        }
        // An end that moves with the time comes level with one that stands, and then passes it.
        let Moment::After(after_us) = holder.end.moment(now_us) else {
            continue;
        };
        for other in holders {
            if let Moment::At(at_us) = other.end.moment(now_us)
                && at_us != UNKNOWN_US
                && let Some(level_us) = at_us.checked_sub(after_us)
            {
                may_change(level_us);
                may_change(level_us + 1);
            }
        }
    }
    soonest
}
