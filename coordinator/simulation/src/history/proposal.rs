//! Quotas and settings proposed in place of today's, put onto what a replay begins with by the very
//! commands that would set them, so that what the platform would refuse is refused here.

use coordinator_core::model::{PoolName, PoolOrder, TenantName};
use coordinator_core::policy::Refusal;
use coordinator_core::scheduler::Trial;
use coordinator_core::state::{Command, Event, ParentChange, QuotaChange, State};

/// What is proposed; what is not named stays as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// Lines, each in place of the one that the tenant has in the pool.
    pub lines: Vec<QuotaChange>,
    /// Tenants and their part beside their siblings.
    pub weights: Vec<(TenantName, u32)>,
    /// Pools.
    pub pools: Vec<PoolChange>,
    /// How long an attempt is left alone before it may be stopped.
    pub minimum_run_ms: Option<u64>,
    /// How long a run may find no room before devices are kept for it.
    pub reservation_after_ms: Option<u64>,
    /// After how long what a tenant held counts half as much in its turns.
    pub fair_share_half_life_ms: Option<u64>,
}

/// How a pool orders its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolChange {
    /// Pool.
    pub pool: PoolName,
    /// Order.
    pub order: Option<PoolOrder>,
    /// Age bound.
    pub age_bound_ms: Option<u64>,
}

/// A frame with the changes made.
///
/// # Errors
///
/// The first refusal of the platform's own, once no order of the changes gets past it: what one tenant
/// is to have more may have to be taken from another first.
pub fn propose(frame: State, changes: &Changes) -> Result<State, Refusal> {
    let now_us = frame.time_us();
    let mut trial = Trial::new(frame, now_us);
    let mut left = commands(&trial, changes);
    loop {
        let before = left.len();
        let mut refused = Vec::new();
        let mut first = None;
        for command in left {
            let events = trial.apply(command.clone());
            if let Some(Event::Rejected { refusal }) = events.into_iter().next() {
                first.get_or_insert(refusal);
                refused.push(command);
            }
        }
        match first {
            None => break,
            Some(refusal) if refused.len() == before => return Err(refusal),
            Some(_) => left = refused,
        }
    }
    Ok(trial.into_parts().0.frame(now_us))
}

fn commands(trial: &Trial, changes: &Changes) -> Vec<Command> {
    let mut commands: Vec<Command> = changes
        .weights
        .iter()
        .map(|(tenant, weight)| Command::SetTenant {
            tenant: tenant.clone(),
            parent: ParentChange::Keep,
            weight: Some(*weight),
        })
        .collect();
    commands.extend(
        changes
            .lines
            .iter()
            .map(|line| Command::SetQuota(line.clone())),
    );
    commands.extend(changes.pools.iter().map(|pool| Command::SetPool {
        pool: pool.pool.clone(),
        description: None,
        order: pool.order,
        age_bound_ms: pool.age_bound_ms,
        must_exist: Some(true),
    }));
    let mut policy = trial.state().policy().clone();
    if let Some(minimum_run_ms) = changes.minimum_run_ms {
        policy.minimum_run_ms = minimum_run_ms;
    }
    if let Some(reservation_after_ms) = changes.reservation_after_ms {
        policy.reservation_after_ms = reservation_after_ms;
    }
    if let Some(half_life_ms) = changes.fair_share_half_life_ms {
        policy.fair_share_half_life_ms = half_life_ms;
    }
    if policy != *trial.state().policy() {
        commands.push(Command::SetPolicy {
            policy: Box::new(policy),
        });
    }
    commands
}
