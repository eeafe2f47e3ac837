//! Where a run stands in the order in which a plan looks at those that wait.

use crate::model::{PoolName, Run, TenantName};
use crate::policy::quotas::{self, Standing};
use crate::scheduler::fairness::{Phase, PlannedUse};
use crate::state::{Lines, State};

/// A place in the order: the tenant's turn in the pool, and the run's place within its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Runs of its tenant that are looked at before it.
    pub ahead: u64,
    /// Runs of its tenant that wait in the pool, itself among them.
    pub waiting: u64,
    /// Its tenant's turn among the tenants that wait in the pool, from 1.
    pub turn: u64,
    /// Tenants that wait in the pool.
    pub turns: u64,
}

/// The position of a run that waits; `None` when it is in no queue.
pub fn of(state: &State, run: &Run) -> Option<Position> {
    let ahead = state.queues().ahead(run)?;
    let pool = run.spec.pool.as_ref()?;
    let (_, tenants) = state.queues().pools().find(|(name, _)| *name == pool)?;
    let planned = PlannedUse::new(state, pool);
    let own = turn_key(
        state,
        &planned,
        pool,
        &run.tenant,
        tenants.get(&run.tenant)?,
    )?;
    let before = tenants
        .iter()
        .filter(|(tenant, _)| **tenant != run.tenant)
        .filter_map(|(tenant, lines)| turn_key(state, &planned, pool, tenant, lines))
        .filter(|other| *other < own)
        .count();
    Some(Position {
        ahead,
        waiting: tenants
            .get(&run.tenant)?
            .values()
            .map(|line| line.len() as u64)
            .sum(),
        turn: before as u64 + 1,
        turns: tenants.len() as u64,
    })
}

/// What tenants are ordered by: the phase in which their first run would start, their turn in it, and
/// the run itself.
fn turn_key(
    state: &State,
    planned: &PlannedUse<'_>,
    pool: &PoolName,
    tenant: &TenantName,
    lines: &Lines,
) -> Option<impl Ord + use<>> {
    let first = lines.values().filter_map(|line| line.first()).min()?;
    let asked = state.runs().get(&first.run())?.spec.gpu_milli();
    let used = |name: &TenantName| state.used_milli(name, pool);
    let (rank, phase) = match quotas::standing(state.tenants(), pool, tenant, asked, used) {
        Standing::Guaranteed => (0, Phase::Guaranteed),
        Standing::Borrows { .. } => (1, Phase::Borrowing),
        Standing::OverLimit { .. } => (2, Phase::Borrowing),
    };
    Some((rank, planned.turn(tenant, phase), *first))
}
