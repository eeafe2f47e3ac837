//! What tenants held of late in each pool, brought up to date when what they hold changes and not in
//! between.
//!
//! Replicated, for it cannot be derived from what is live: a tenant that has just given everything back
//! would otherwise have no past after a snapshot. A tenant without an entry held nothing.

use super::State;
use crate::model::{PoolName, RecentUse, TenantName, tenant_and_above};
use std::collections::BTreeMap;

/// What tenants, with all below them, held of late, by pool.
pub(super) type Recent = BTreeMap<PoolName, BTreeMap<TenantName, RecentUse>>;

/// How far the sum of those below may pass the one above by rounding, in thousandths of devices: each
/// change rounds by a part in 2^32 of one.
const ROUNDING_MILLI: u64 = 1;

impl State {
    /// What a tenant and all below it held of late in a pool, in thousandths of devices: a mean over
    /// its past in which an hour counts half as much as the one a half-life later. 0 where the policy
    /// counts the present alone.
    pub fn recent_milli(&self, tenant: &TenantName, pool: &PoolName) -> u64 {
        self.recent_use(tenant, pool).milli()
    }

    fn recent_use(&self, tenant: &TenantName, pool: &PoolName) -> RecentUse {
        let before = self.recent.get(pool).and_then(|known| known.get(tenant));
        match before {
            None => RecentUse::nothing(self.time_us),
            Some(before) => before.at(
                self.time_us,
                self.used_milli(tenant, pool),
                self.half_life_us(),
            ),
        }
    }

    fn half_life_us(&self) -> u64 {
        self.policy.fair_share_half_life_ms.saturating_mul(1000)
    }

    /// Brings what a tenant and those above it held of late up to now: what they hold is about to
    /// change.
    pub(super) fn settle_recent(&mut self, tenant: &TenantName, pool: &PoolName) {
        if self.policy.fair_share_half_life_ms == 0 {
            return;
        }
        let settled: Vec<(TenantName, RecentUse)> = tenant_and_above(&self.tenants, tenant)
            .map(|above| (above.name.clone(), self.recent_use(&above.name, pool)))
            .collect();
        match self.recent.get_mut(pool) {
            Some(known) => known.extend(settled),
            None => drop(
                self.recent
                    .insert(pool.clone(), settled.into_iter().collect()),
            ),
        }
    }

    /// Brings everything up to now before it decays at another pace: the past is not rewritten. What
    /// does not count any more is forgotten, and what begins to count begins with nothing.
    pub(super) fn pace_recent(&mut self, half_life_ms: u64) {
        match (self.policy.fair_share_half_life_ms, half_life_ms) {
            (before, after) if before == after => {}
            (_, 0) => self.recent.clear(),
            (0, _) => {
                for (tenant, pools) in &self.used_milli {
                    for pool in pools.keys() {
                        let known = self.recent.entry(pool.clone()).or_default();
                        known.insert(tenant.clone(), RecentUse::nothing(self.time_us));
                    }
                }
            }
            _ => self.settle_all_recent(),
        }
    }

    fn settle_all_recent(&mut self) {
        let mut settled = Recent::new();
        for (pool, known) in &self.recent {
            let now = known
                .keys()
                .map(|tenant| (tenant.clone(), self.recent_use(tenant, pool)))
                .collect();
            settled.insert(pool.clone(), now);
        }
        self.recent = settled;
    }

    /// What a tenant held of late leaves those above it, and counts for `under` and those above that.
    /// Asked for before the tenant moves.
    pub(super) fn move_recent(&mut self, tenant: &TenantName, under: Option<&TenantName>) {
        self.settle_all_recent();
        let names = |from: &TenantName| -> Vec<TenantName> {
            tenant_and_above(&self.tenants, from)
                .map(|above| above.name.clone())
                .collect()
        };
        let leaves: Vec<TenantName> = names(tenant).into_iter().skip(1).collect();
        let joins = under.map(names).unwrap_or_default();
        let time_us = self.time_us;
        for known in self.recent.values_mut() {
            let Some(moved) = known.get(tenant).copied() else {
                continue;
            };
            for name in &leaves {
                if let Some(above) = known.get_mut(name) {
                    *above = above.without(moved);
                }
            }
            for name in &joins {
                let above = known.entry(name.clone());
                let above = above.or_insert_with(|| RecentUse::nothing(time_us));
                *above = above.with(moved);
            }
        }
    }

    /// What was held of late is known of tenants that there are, until now, and of each above at least
    /// what those right below it held together.
    pub(super) fn recent_adds_up(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for (pool, known) in &self.recent {
            for (name, recent) in known {
                let below: u64 = self
                    .tenants
                    .below(Some(name))
                    .map(|below| self.recent_milli(&below.name, pool))
                    .sum();
                let own = self.recent_milli(name, pool);
                if below > own.saturating_add(known.len() as u64 * ROUNDING_MILLI)
                    || recent.at_us() > self.time_us
                    || !self.tenants.contains_key(name)
                {
                    seen.push(format!(
                        "{name} in {pool}: {own} held of late at {}, {below} below it",
                        recent.at_us()
                    ));
                }
            }
        }
        seen
    }
}
