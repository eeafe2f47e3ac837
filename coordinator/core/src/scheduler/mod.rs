//! Who gets which devices next: [`plan`] proposes, [`crate::state::State::apply`] decides.
//!
//! Reads the state and changes nothing. A plan may be stale or cut short without harm, for every
//! item is checked again when it is applied. Within a pool runs are taken by priority, then in order
//! of submission; a run that does not fit lets smaller ones behind it pass, but only within
//! [`MOST_PASSED_OVER`] of them, so that one pass stays bounded.

mod explain;
mod scratch;

pub use explain::{Tier, Waiting, explain, explain_spec};

use crate::model::{PoolName, Run, TenantName};
use crate::state::{MemberPlacement, Placement, State};
use scratch::Scratch;
use std::collections::BTreeMap;

/// Placements proposed in one plan at most: one log entry stays small, and the next plan sees what
/// became of them.
pub const MOST_PLACEMENTS: usize = 256;

/// Runs that do not fit and are passed over in one pool before the pass gives up on it.
pub const MOST_PASSED_OVER: usize = 256;

/// Proposes devices for waiting runs.
pub fn plan(state: &State) -> Vec<Placement> {
    let mut placements = Vec::new();
    for (pool, queue) in state.queues() {
        if queue.is_empty() {
            continue;
        }
        let mut scratch = Scratch::of(state, pool);
        let mut used: BTreeMap<TenantName, u64> = BTreeMap::new();
        let mut passed_over = 0;
        for place in queue {
            if placements.len() >= MOST_PLACEMENTS || passed_over >= MOST_PASSED_OVER {
                break;
            }
            let Some(run) = state.runs().get(&place.run()) else {
                continue;
            };
            match place_one(state, pool, &mut scratch, &mut used, run) {
                Some(placement) => placements.push(placement),
                None => passed_over += 1,
            }
        }
    }
    placements
}

fn place_one(
    state: &State,
    pool: &PoolName,
    scratch: &mut Scratch<'_>,
    used: &mut BTreeMap<TenantName, u64>,
    run: &Run,
) -> Option<Placement> {
    let asked = run.spec.gpu_milli();
    let planned = used.entry(run.tenant.clone()).or_default();
    if let Some(quota) = state
        .tenants()
        .get(&run.tenant)
        .and_then(|tenant| tenant.quota_milli.get(pool))
        && state.used_milli(&run.tenant, pool) + *planned + asked > *quota
    {
        return None;
    }
    let members: Vec<MemberPlacement> =
        scratch.take(&run.spec.demand(), run.spec.nodes as usize)?;
    *planned += asked;
    Some(Placement {
        run: run.id,
        attempt: u32::try_from(run.attempts.len()).ok()?.checked_add(1)?,
        members,
    })
}

#[cfg(test)]
mod tests;
