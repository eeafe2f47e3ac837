//! Whose turn it is: tenants by how much they hold, and held of late, beside what is theirs, from the top
//! of the tree down, so that a department with many teams gets no more turns than one with few.
//!
//! The past counts with a half-life, as in the fair share of Kay and Lauder (Communications of the ACM,
//! 1988). A guarantee knows no past: within its quota a tenant goes by what it holds now.

use crate::model::{MOST_TENANT_LEVELS, Meter, Tenant, TenantName, tenant_and_above};
use crate::policy::quotas::Tenants;
use crate::state::State;
use std::collections::BTreeMap;

/// How much more what a tenant held of late counts than what it holds now. The present alone is a matter
/// of whole devices: of four, three tenants of weights 2, 2 and 1 would have 1 each and the last of them
/// more than its part for ever. The past evens that out to within this part of a device.
const RECENT_COUNTS: u64 = 8;

/// What tenants hold in a pool, or of one model in it, with what a plan has proposed so far. Asked several times for every
/// decision, so what it needs of a tenant is read once, when the tenant is first met.
pub struct PlannedUse<'a> {
    state: &'a State,
    meter: Meter<'a>,
    positions: BTreeMap<&'a TenantName, usize>,
    met: Vec<Met<'a>>,
}

/// A tenant that a plan has to do with.
struct Met<'a> {
    tenant: &'a Tenant,
    above: Option<usize>,
    /// Thousandths held by it and all below it, with what is proposed and awaited.
    used_milli: u64,
    /// Of that, what runs ask for which others were stopped and that have not got it yet.
    awaited_milli: u64,
    /// What it and all below it held of late.
    recent_milli: u64,
    quota_milli: u64,
}

/// How far along its turn a tenant is: the part of its own that it holds and held of late, top of the
/// tree first, in millionths and one more; nothing where its branch has no more levels. Smaller goes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn([u64; MOST_TENANT_LEVELS]);

/// What is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Guarantees: what is held beside the quota; beside the weight where nobody has one.
    Guaranteed,
    /// What is above them, beside the weight.
    Borrowing,
}

impl<'a> PlannedUse<'a> {
    pub fn new(state: &'a State, meter: impl Into<Meter<'a>>) -> Self {
        Self {
            state,
            meter: meter.into(),
            positions: BTreeMap::new(),
            met: Vec::new(),
        }
    }

    pub fn tenants(&self) -> &'a Tenants {
        self.state.tenants()
    }

    /// The position of a tenant, and of those above it, met now or before. `None`: there is no such.
    pub fn meet(&mut self, name: &TenantName) -> Option<usize> {
        let mut unmet: Vec<&'a Tenant> = Vec::new();
        let mut above = None;
        for tenant in tenant_and_above(self.state.tenants(), name) {
            above = self.positions.get(&tenant.name).copied();
            if above.is_some() {
                break;
            }
            unmet.push(tenant);
        }
        for tenant in unmet.into_iter().rev() {
            self.met.push(Met {
                tenant,
                above,
                used_milli: self.state.used_on(&tenant.name, self.meter),
                awaited_milli: 0,
                recent_milli: self.state.recent_milli(&tenant.name, self.meter.pool),
                quota_milli: tenant.line(self.meter).map_or(0, |line| line.quota_milli),
            });
            above = Some(self.met.len() - 1);
            self.positions.insert(&tenant.name, self.met.len() - 1);
        }
        above
    }

    /// What a tenant and all below it would hold, with what is awaited.
    pub fn used_milli(&self, tenant: &TenantName) -> u64 {
        match self.positions.get(tenant) {
            Some(position) => self.met[*position].used_milli,
            None => self.state.used_on(tenant, self.meter),
        }
    }

    /// Counts a proposal for a tenant and all above it.
    pub fn add(&mut self, tenant: &TenantName, milli: u64) {
        let mut next = self.meet(tenant);
        while let Some(position) = next {
            let met = &mut self.met[position];
            met.used_milli = met.used_milli.saturating_add(milli);
            next = met.above;
        }
    }

    /// Counts what is kept for a run until others have left: it has a place in the turns already, and
    /// holds nothing yet.
    pub fn await_milli(&mut self, tenant: &TenantName, milli: u64) {
        self.add(tenant, milli);
        let mut next = self.meet(tenant);
        while let Some(position) = next {
            let met = &mut self.met[position];
            met.awaited_milli = met.awaited_milli.saturating_add(milli);
            next = met.above;
        }
    }

    /// What a tenant and all below it would hold once the proposals are applied.
    pub fn granted_milli(&self, tenant: &TenantName) -> u64 {
        let awaited = self
            .positions
            .get(tenant)
            .map_or(0, |position| self.met[*position].awaited_milli);
        self.used_milli(tenant).saturating_sub(awaited)
    }

    /// How far along its turn a tenant is, met or not.
    pub fn turn(&self, tenant: &TenantName, phase: Phase) -> Turn {
        let mut met = Self::new(self.state, self.meter);
        let mut next = met.meet(tenant);
        let mut turn = Turn::default();
        while let Some(position) = next {
            met.met[position].used_milli = self.used_milli(&met.met[position].tenant.name);
            turn = turn.under(met.part(position, phase));
            next = met.above(position);
        }
        turn
    }

    /// How many tenants have been met.
    pub fn met(&self) -> usize {
        self.met.len()
    }

    /// The position of the tenant above a met one.
    pub fn above(&self, position: usize) -> Option<usize> {
        self.met[position].above
    }

    /// How much of its own a met tenant holds, in millionths.
    pub fn part(&self, position: usize, phase: Phase) -> u64 {
        self.met[position].part(phase)
    }
}

impl Turn {
    /// The same below a tenant that holds such a part of its own.
    pub fn under(self, part: u64) -> Self {
        let mut turn = [0; MOST_TENANT_LEVELS];
        turn[0] = part.saturating_add(1);
        // No tree is deeper; what would be below counts no more.
        turn[1..].copy_from_slice(&self.0[..MOST_TENANT_LEVELS - 1]);
        Self(turn)
    }
}

impl Met<'_> {
    fn part(&self, phase: Phase) -> u64 {
        let (held, own) = match phase {
            Phase::Guaranteed if self.quota_milli > 0 => (self.used_milli, self.quota_milli),
            Phase::Guaranteed => (
                counted(self.used_milli, self.recent_milli),
                weight_milli(self.tenant),
            ),
            Phase::Borrowing => (
                counted(
                    self.used_milli.saturating_sub(self.quota_milli),
                    self.recent_milli.saturating_sub(self.quota_milli),
                ),
                weight_milli(self.tenant),
            ),
        };
        // Divided as wide as it must be, which is hardly ever more than this.
        match held.checked_mul(1_000_000) {
            Some(millionths) => millionths / own,
            None => {
                u64::try_from(u128::from(held) * 1_000_000 / u128::from(own)).unwrap_or(u64::MAX)
            }
        }
    }
}

/// What counts in a turn of what is held now and was held of late.
fn counted(now_milli: u64, recent_milli: u64) -> u64 {
    now_milli.saturating_add(recent_milli.saturating_mul(RECENT_COUNTS))
}

fn weight_milli(tenant: &Tenant) -> u64 {
    u64::from(tenant.weight.max(1)) * 1000
}
