//! Where a run stands in the order in which a plan looks at those that wait.

use crate::model::{Meter, PoolName, QueuePlace, Run, Tenant, TenantName, tenant_and_above};
use crate::policy::gpus;
use crate::policy::quotas::{self, Standing};
use crate::scheduler::fairness::{Phase, PlannedUse, Turn};
use crate::state::{Lines, State};

/// A place in the order: the tenant's turn in the pool, and the run's place within its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Runs of its tenant that are looked at before it.
    pub ahead: u64,
    /// Runs of its tenant that wait in the pool, itself among them.
    pub waiting: u64,
    /// Its tenant's turn among the tenants that wait in the pool, from 1.
    pub turn: u64,
    /// Tenants that wait in the pool.
    pub turns: u64,
    /// Why the tenant right before it in the turns goes first; absent where it is the first itself.
    pub why: Option<String>,
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
    let before: Vec<(TurnKey, &TenantName)> = tenants
        .iter()
        .filter(|(tenant, _)| **tenant != run.tenant)
        .filter_map(|(tenant, lines)| {
            Some((turn_key(state, &planned, pool, tenant, lines)?, tenant))
        })
        .filter(|(other, _)| *other < own)
        .collect();
    Some(Position {
        ahead,
        waiting: tenants
            .get(&run.tenant)?
            .values()
            .map(|line| line.len() as u64)
            .sum(),
        turn: before.len() as u64 + 1,
        turns: tenants.len() as u64,
        why: before
            .iter()
            .max()
            .map(|(key, tenant)| why_before(state, pool, (key.0, tenant), (own.0, &run.tenant))),
    })
}

type TurnKey = (Rank, Turn, QueuePlace);

/// In which phase of a plan a tenant's first run would start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Guaranteed,
    Borrows,
    OverLimit,
}

impl Rank {
    fn phase(self) -> Phase {
        match self {
            Self::Guaranteed => Phase::Guaranteed,
            Self::Borrows | Self::OverLimit => Phase::Borrowing,
        }
    }
}

/// Why one tenant goes before another, in one sentence: by what it is owed, or by what the branches of
/// both hold, and held of late, where they part.
fn why_before(
    state: &State,
    pool: &PoolName,
    (rank, first): (Rank, &TenantName),
    (own_rank, own): (Rank, &TenantName),
) -> String {
    if rank < own_rank {
        return match rank {
            Rank::Guaranteed => format!("{first} goes first: what it asks for is guaranteed to it"),
            _ => format!("{first} goes first: {own} is at its limit"),
        };
    }
    let path = |tenant| -> Vec<&Tenant> {
        let mut path: Vec<&Tenant> = tenant_and_above(state.tenants(), tenant).collect();
        path.reverse();
        path
    };
    let (first_path, own_path) = (path(first), path(own));
    let parts = first_path
        .iter()
        .zip(&own_path)
        .find(|(a, b)| a.name != b.name);
    let Some((branch, own_branch)) = parts else {
        return format!("{first} goes first: its run was submitted before");
    };
    let named = if branch.name == *first {
        first.to_string()
    } else {
        format!("{first} of {}", branch.name)
    };
    let phase = rank.phase();
    format!(
        "{named} goes first: {} {}, and {} {}",
        branch.name,
        holds(state, pool, branch, phase),
        own_branch.name,
        holds(state, pool, own_branch, phase)
    )
}

/// What counts of a branch in its turn: beside its quota what it holds, else beside its weight what it
/// held of late too.
fn holds(state: &State, pool: &PoolName, branch: &Tenant, phase: Phase) -> String {
    let quota_milli = branch.quotas.get(pool).map_or(0, |line| line.quota_milli);
    let held = state.used_milli(&branch.name, pool);
    if phase == Phase::Guaranteed && quota_milli > 0 {
        return format!("holds {} of its {} GPUs", gpus(held), gpus(quota_milli));
    }
    let mut said = format!("holds {}", gpus(held));
    if state.policy().fair_share_half_life_ms > 0 {
        let recent = state.recent_milli(&branch.name, pool);
        said.push_str(&format!(" and held {} of late", gpus(recent)));
    }
    if quota_milli > 0 {
        said.push_str(&format!(", {} of it its own,", gpus(quota_milli)));
    }
    if branch.weight > 1 {
        said.push_str(&format!(" at weight {}", branch.weight));
    }
    said
}

/// What tenants are ordered by: the phase in which their first run would start, their turn in it, and
/// the run itself.
fn turn_key(
    state: &State,
    planned: &PlannedUse<'_>,
    pool: &PoolName,
    tenant: &TenantName,
    lines: &Lines,
) -> Option<TurnKey> {
    let first = lines.values().filter_map(|line| line.first()).min()?;
    let spec = &state.runs().get(&first.run())?.spec;
    let asked = spec.gpu_milli();
    let rank_on = |meter: Meter<'_>| {
        let used = |name: &TenantName| state.used_on(name, meter);
        match quotas::standing(state.tenants(), meter, tenant, asked, used) {
            Standing::Guaranteed => Rank::Guaranteed,
            Standing::Borrows { .. } => Rank::Borrows,
            Standing::OverLimit { .. } => Rank::OverLimit,
        }
    };
    // The way in which it stands best, and of that the line that binds most.
    let ways = state.ways(spec);
    let ranks = ways
        .iter()
        .filter_map(|way| state.meters(pool, way).map(rank_on).max());
    let rank = ranks.min()?;
    Some((rank, planned.turn(tenant, rank.phase()), *first))
}
