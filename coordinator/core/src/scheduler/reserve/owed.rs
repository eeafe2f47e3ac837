//! Devices kept for a run that is owed what others borrow, while those are left alone for their first
//! while. Each that came meanwhile would be left alone for a while of its own, and short ones come without
//! end: so what comes free where it will start soonest is kept for it at once.
//!
//! Only nodes are looked at that a claim would ask, and for a minute at most: no order is kept for it.

use super::holders::{End, Holder, UNKNOWN_US};
use super::offers::offer;
use super::{Keeper, Reservation};
use crate::model::{MemberDemand, MemberKey, Node, NodeName, Run};
use crate::policy::fits_empty;
use crate::scheduler::reach::nodes_to_ask;
use crate::state::{MemberPlacement, Placement};

/// How long who gives way has to save what it has, as the agents grant it.
pub const GRACE_US: u64 = 30_000_000;

/// When a member fits, what waits for it, and where.
type OwedOffer<'a> = (u64, u64, &'a NodeName, Vec<usize>);

impl Keeper<'_> {
    /// Keeps devices for a run where it starts soonest as those who borrow from it give way. `None`:
    /// they do not make room for all its members.
    pub fn reserve_owed(
        &mut self,
        run: &Run,
        demand: &MemberDemand,
        placed: &[Placement],
        kept: &[Reservation],
        is_offered: impl Fn(&NodeName) -> bool,
    ) -> Option<Reservation> {
        let state = self.state;
        let pool = run.spec.pool.as_ref()?;
        self.count(placed, kept);
        let gives = |tenant: &_| state.is_owed_by(run, demand, tenant);
        let mut offers: Vec<OwedOffer<'_>> = nodes_to_ask(state, pool, demand, gives)
            .into_iter()
            .filter(|name| is_offered(name))
            .filter_map(|name| self.owed_offer(run, demand, name))
            .collect();
        offers.sort_unstable();
        let members = run.spec.nodes as usize;
        if members == 0 || offers.len() < members {
            return None;
        }
        offers.truncate(members);
        let (start_us, ..) = *offers.last()?;
        (start_us != UNKNOWN_US).then(|| Reservation {
            run: run.id,
            guaranteed: true,
            model: demand.only_model.clone(),
            start_us: Some(start_us),
            backfill_until_us: start_us,
            members: offers
                .into_iter()
                .filter_map(|(_, _, name, devices)| {
                    let described = &state.nodes().get(name)?.description.devices;
                    let id = |position: usize| described[position].id.clone();
                    Some(MemberPlacement {
                        node: name.clone(),
                        devices: devices.into_iter().map(id).collect(),
                    })
                })
                .collect(),
        })
    }

    fn owed_offer<'n>(
        &self,
        run: &Run,
        demand: &MemberDemand,
        name: &'n NodeName,
    ) -> Option<OwedOffer<'n>> {
        let node = self.state.nodes().get(name)?;
        if run.spec.pool.as_ref() != Some(&node.description.pool)
            || !node.is_ready()
            || fits_empty(node, demand).is_err()
        {
            return None;
        }
        let mut holders: Vec<Holder> = node
            .members
            .iter()
            .filter_map(|key| self.until_it_gives_way(run, demand, node, *key))
            .collect();
        holders.extend(self.beside.get(name).into_iter().flatten().cloned());
        let offer = offer(node, demand, &holders, self.now_us)?;
        let start_us = offer.start_us(self.now_us);
        Some((start_us, offer.waits_milli, name, offer.devices))
    }

    /// What a member holds, and until when: sooner than it would end where that is owed to the run.
    fn until_it_gives_way(
        &self,
        run: &Run,
        demand: &MemberDemand,
        node: &Node,
        key: MemberKey,
    ) -> Option<Holder> {
        let mut holder = Holder::of(self.state, node, key)?;
        let held_by = self.state.runs().get(&key.run)?;
        let claim = self
            .state
            .claim_beside(run, held_by, demand, |_, _| 0, |_, _| 0);
        if claim.is_some() {
            let from_us = self.state.exempt_until_us(held_by).max(self.now_us);
            let ends_us = holder.end.moment(self.now_us).at_us(self.now_us);
            holder.end = End::At(ends_us.min(from_us.saturating_add(GRACE_US)));
        }
        Some(holder)
    }
}
