//! Whose turn it is: tenants by how much they hold beside what is theirs, from the top of the tree
//! down, so that a department with many teams gets no more turns than one with few.

use crate::model::{PoolName, Tenant, TenantName, tenant_and_above};
use crate::policy::quotas::Tenants;
use crate::state::State;
use std::collections::BTreeMap;

/// What tenants hold in a pool, with what a plan has proposed so far.
pub struct PlannedUse<'a> {
    state: &'a State,
    pool: &'a PoolName,
    more_milli: BTreeMap<&'a TenantName, u64>,
    /// Of that, what runs ask for which others were stopped and that have not got it yet.
    awaited_milli: BTreeMap<&'a TenantName, u64>,
}

/// How far along its turn a tenant is: the part of its own that it holds, top of the tree first, in
/// millionths. Smaller goes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn(Vec<u64>);

/// What is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Guarantees: what is held beside the quota; beside the weight where nobody has one.
    Guaranteed,
    /// What is above them, beside the weight.
    Borrowing,
}

impl<'a> PlannedUse<'a> {
    pub fn new(state: &'a State, pool: &'a PoolName) -> Self {
        Self {
            state,
            pool,
            more_milli: BTreeMap::new(),
            awaited_milli: BTreeMap::new(),
        }
    }

    pub fn tenants(&self) -> &'a Tenants {
        self.state.tenants()
    }

    /// What a tenant and all below it would hold, with what is awaited.
    pub fn used_milli(&self, tenant: &TenantName) -> u64 {
        self.state
            .used_milli(tenant, self.pool)
            .saturating_add(self.more_milli.get(tenant).copied().unwrap_or(0))
    }

    /// Counts a proposal for a tenant and all above it.
    pub fn add(&mut self, tenant: &TenantName, milli: u64) {
        for above in tenant_and_above(self.state.tenants(), tenant) {
            *self.more_milli.entry(&above.name).or_default() += milli;
        }
    }

    /// Counts what is kept for a run until others have left: it has a place in the turns already, and
    /// holds nothing yet.
    pub fn await_milli(&mut self, tenant: &TenantName, milli: u64) {
        self.add(tenant, milli);
        for above in tenant_and_above(self.state.tenants(), tenant) {
            *self.awaited_milli.entry(&above.name).or_default() += milli;
        }
    }

    /// What a tenant and all below it would hold once the proposals are applied.
    pub fn granted_milli(&self, tenant: &TenantName) -> u64 {
        let awaited = self.awaited_milli.get(tenant).copied().unwrap_or(0);
        self.used_milli(tenant).saturating_sub(awaited)
    }

    /// How far along its turn a tenant is.
    pub fn turn(&self, tenant: &TenantName, phase: Phase) -> Turn {
        let mut levels: Vec<u64> = tenant_and_above(self.tenants(), tenant)
            .map(|above| self.part(above, phase))
            .collect();
        levels.reverse();
        Turn(levels)
    }

    fn part(&self, tenant: &Tenant, phase: Phase) -> u64 {
        let used = self.used_milli(&tenant.name);
        let quota = tenant.quotas.get(self.pool).map(|line| line.quota_milli);
        let (held, own) = match (phase, quota) {
            (Phase::Guaranteed, Some(quota)) if quota > 0 => (used, quota),
            (Phase::Guaranteed, _) => (used, weight_milli(tenant)),
            (Phase::Borrowing, quota) => (
                used.saturating_sub(quota.unwrap_or(0)),
                weight_milli(tenant),
            ),
        };
        // Divided as wide as it must be: this is asked several times for every decision.
        match held.checked_mul(1_000_000) {
            Some(millionths) => millionths / own,
            None => {
                u64::try_from(u128::from(held) * 1_000_000 / u128::from(own)).unwrap_or(u64::MAX)
            }
        }
    }
}

fn weight_milli(tenant: &Tenant) -> u64 {
    u64::from(tenant.weight.max(1)) * 1000
}
