//! Whom a start may stop, and in which order they make way.
//!
//! Across tenants only what is borrowed may be stopped. Later levels make way first, and among
//! equals the least lost work; a list is made once for a pass and again only after a change.

use super::{Checkpoint, Entry, Queue};
use crate::model::{QueuePlace, RunId};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Running runs of one tenant looked at as victims, at most. So many hold far more than one start
/// needs, and a pass stays bounded however much a tenant borrows.
const MOST_VICTIMS_OF_A_TENANT: usize = 512;

/// A running run that may have to make way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Victim {
    pub(super) run: RunId,
    pub(super) tenant: usize,
    pub(super) gpu_milli: u64,
    pub(super) key: QueuePlace,
    /// Time lost by its stop, the work since its checkpoint included.
    lost_us: u64,
}

impl Victim {
    /// Ascending in the order in which victims make way. Lost time is compared and not GPU time:
    /// for the room it frees a large run loses no more than as many small ones.
    fn turn(&self) -> impl Ord + use<> {
        (Reverse(self.key.level()), self.lost_us, Reverse(self.key))
    }
}

/// How much of a victim's tenant must remain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Only runs that are borrowed whole.
    Borrowed,
    /// Also a run that is covered in part: its tenant falls below its quota until a smaller run
    /// takes what is left. Only a reclaim that would fail otherwise goes so far.
    CoveredInPart,
}

impl Queue {
    /// What is borrowed, in the order in which it makes way.
    pub(super) fn borrowers(&self, now_us: u64, spent: &BTreeSet<RunId>) -> Vec<Victim> {
        let mut victims: Vec<Victim> = (0..self.books.tenants())
            .filter(|tenant| self.books.over_milli(*tenant) > 0)
            .flat_map(|tenant| self.victims_of(tenant, now_us, spent))
            .collect();
        victims.sort_by_key(Victim::turn);
        victims
    }

    /// The tenant's own runs that one of this place may stop, in the order in which they make way.
    pub(super) fn own_victims(
        &self,
        tenant: usize,
        key: &QueuePlace,
        now_us: u64,
        spent: &BTreeSet<RunId>,
    ) -> Vec<Victim> {
        let mut victims: Vec<Victim> = self
            .victims_of(tenant, now_us, spent)
            .take_while(|victim| key.displaces_own(&victim.key))
            .collect();
        victims.sort_by_key(|victim| (Reverse(victim.key.priority()), victim.turn()));
        victims
    }

    fn victims_of<'a>(
        &'a self,
        tenant: usize,
        now_us: u64,
        spent: &'a BTreeSet<RunId>,
    ) -> impl Iterator<Item = Victim> + 'a {
        self.running[tenant]
            .iter()
            .rev()
            .take(MOST_VICTIMS_OF_A_TENANT)
            .filter(|key| !spent.contains(&key.run()))
            .filter_map(move |key| {
                let entry = &self.entries[&key.run()];
                self.may_stop(entry, now_us).then(|| Victim {
                    run: key.run(),
                    tenant,
                    gpu_milli: entry.contender.demand.gpu_milli,
                    key: *key,
                    lost_us: lost_us(entry, now_us),
                })
            })
    }

    /// Whether a run may be stopped, or moved, for another. One that starts at this very moment has
    /// nothing to lose yet.
    pub(super) fn may_stop(&self, entry: &Entry, now_us: u64) -> bool {
        let ran_us = now_us.saturating_sub(entry.since_us);
        entry.contender.is_preemptible && (ran_us == 0 || ran_us >= self.rules.minimum_run_us)
    }

    /// Whether every tenant keeps what is its own when these go: another tenant its quota, or, at
    /// depth, what of it other runs use; the starting tenant as much as it has now, up to its quota,
    /// so that it does not give up covered room for a smaller run.
    pub(super) fn keeps_quotas(
        &self,
        starting: usize,
        gpu_milli: u64,
        depth: Depth,
        going: &[RunId],
    ) -> bool {
        let mut gone: Vec<(usize, u64, u64)> = Vec::new();
        for run in going {
            let contender = &self.entries[run].contender;
            let more = contender.demand.gpu_milli;
            match gone
                .iter_mut()
                .find(|(tenant, ..)| *tenant == contender.tenant)
            {
                Some((_, sum, least)) => {
                    *sum += more;
                    *least = more.min(*least);
                }
                None => gone.push((contender.tenant, more, more)),
            }
        }
        gone.iter().all(|(tenant, sum, least)| {
            let used = self.books.used_milli(*tenant);
            let left = used.saturating_sub(*sum);
            let quota = self.books.quota_milli(*tenant);
            if *tenant == starting {
                left + gpu_milli >= quota.min(used)
            } else {
                // The last of several victims must still have been over the quota when it went.
                left >= quota || (depth == Depth::CoveredInPart && left + least > quota)
            }
        })
    }
}

fn lost_us(entry: &Entry, now_us: u64) -> u64 {
    let ran_us = now_us.saturating_sub(entry.since_us);
    if ran_us == 0 {
        return 0;
    }
    let work_us = match entry.contender.checkpoint {
        Checkpoint::AtStop => 0,
        Checkpoint::Until(at_us) => now_us.saturating_sub(at_us).min(ran_us),
        Checkpoint::Never => ran_us,
    };
    entry.contender.stop_cost_us.saturating_add(work_us)
}
