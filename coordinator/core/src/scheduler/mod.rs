//! Who gets which devices next: [`plan`] proposes, [`crate::state::State::apply`] decides.
//!
//! Reads the state and changes nothing. A plan may be stale or cut short without harm, for every
//! item is checked again when it is applied. Within a pool runs are taken by priority, then in order
//! of submission; a run that does not fit lets smaller ones behind it pass.
//!
//! Capacity only shrinks while a plan is made, so a demand that found no room finds none later in
//! the same pass: equal ones behind it are passed over without looking. The pass is bounded by
//! [`MOST_DEMANDS_REFUSED`], which counts distinct demands and not runs, so that nobody's long queue
//! of runs that do not fit can hide another tenant's run that would.

mod explain;
mod scratch;

pub use explain::{Tier, Waiting, explain, explain_spec};

use crate::model::{MemberDemand, PoolName, Run, TenantName};
use crate::state::{Placement, State};
use scratch::Scratch;
use std::collections::BTreeMap;

/// Placements proposed in one plan at most: one log entry stays small, and the next plan sees what
/// became of them.
pub const MOST_PLACEMENTS: usize = 256;

/// Distinct demands that may find no room in one pool before the pass gives up on it. Each costs a
/// look at every node of the pool; people ask for a few dozen different shapes.
pub const MOST_DEMANDS_REFUSED: usize = 256;

/// Proposes devices for waiting runs.
pub fn plan(state: &State) -> Vec<Placement> {
    plan_counted(state).0
}

/// The plan, and how often it looked for room: its cost, which tests hold down.
fn plan_counted(state: &State) -> (Vec<Placement>, usize) {
    let mut placements = Vec::new();
    let mut looks = 0;
    for (pool, queue) in state.queues() {
        if queue.is_empty() {
            continue;
        }
        let mut scratch = Scratch::of(state, pool);
        let mut planned: BTreeMap<&TenantName, u64> = BTreeMap::new();
        // The fewest members that found no room, by what each member asks.
        let mut refused: BTreeMap<MemberDemand, u32> = BTreeMap::new();
        for place in queue {
            if placements.len() >= MOST_PLACEMENTS || refused.len() >= MOST_DEMANDS_REFUSED {
                break;
            }
            let Some(run) = state.runs().get(&place.run()) else {
                continue;
            };
            let asked = run.spec.gpu_milli();
            let planned = planned.entry(&run.tenant).or_default();
            if is_over_quota(state, pool, run, *planned + asked) {
                continue;
            }
            let demand = state.policy().demand(&run.spec);
            let members = run.spec.nodes;
            if refused.get(&demand).is_some_and(|least| members >= *least) {
                continue;
            }
            looks += 1;
            match scratch.take(&demand, members as usize) {
                Some(members) => {
                    *planned += asked;
                    placements.push(Placement {
                        run: run.id,
                        attempt: run.next_attempt(),
                        members,
                    });
                }
                None => {
                    refused.insert(demand, members);
                }
            }
        }
    }
    (placements, looks)
}

fn is_over_quota(state: &State, pool: &PoolName, run: &Run, more_milli: u64) -> bool {
    state
        .tenants()
        .get(&run.tenant)
        .and_then(|tenant| tenant.quota_milli.get(pool))
        .is_some_and(|quota| state.used_milli(&run.tenant, pool) + more_milli > *quota)
}

#[cfg(test)]
mod tests;
