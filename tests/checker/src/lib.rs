//! Judges plans of the scheduler from first principles, sharing no code with it.
//!
//! [`judge`] reads what the state says of nodes, runs, tenants and policy, does its own sums, and
//! compares the plan with what was promised: every placement fits and stands, gangs are whole and lie
//! together, no tenant's run passes one that stands before it, what is kept is free by then, nobody
//! is stopped without a right, too early or in vain, and no device idles while a run waits that may
//! have it. Its code is as plain as it can be, and quadratic where that is plainer.
//!
//! Architecture invariant: of `coordinator_core` it uses the types of `model`, the reads of `state`
//! that nothing is derived in, and the plan itself. It asks no function that the planner or admission
//! decides by; `tests/house` holds that. What it leaves to other tests: in which order tenants take
//! their turns, which of several possible victims is the cheapest, and what is foretold of a run or spent of
//! a budget, for which it takes the state's word.

mod books;
mod completeness;
mod placements;
mod preemptions;
mod promises;
mod room;
mod topology;
mod tree;
mod turns;
mod violation;

pub use violation::Violation;

use books::Books;
use coordinator_core::model::{Run, RunId, RunPhase};
use coordinator_core::scheduler::Plan;
use coordinator_core::state::State;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is wrong with a plan made for this state at this time; empty: it is right.
pub fn judge(state: &State, plan: &Plan, now_us: u64) -> Vec<Violation> {
    let before = Books::of(state);
    let claims = Claims::of(state);
    let mut violations = Vec::new();
    let placed = placements::judge(state, &before, plan, &claims, &mut violations);
    preemptions::judge(state, &placed.books, plan, &claims, now_us, &mut violations);
    promises::judge(state, plan, &placed.books, now_us, &mut violations);
    completeness::judge(state, plan, &placed, &claims, &mut violations);
    violations
}

/// Whether a run that waits may not start yet, whatever is free: its back-off is not over, or a budget
/// that it draws on is spent.
fn is_held(state: &State, run: &Run) -> bool {
    run.held_until_us
        .is_some_and(|at_us| at_us > state.time_us())
        || state.is_stopped(&run.tenant, &run.spec)
}

/// Who is stopping for whom since plans before this one.
struct Claims<'a> {
    /// Waiting runs that await others' end, with those who are stopping for them.
    awaited: BTreeMap<RunId, (&'a Run, BTreeSet<RunId>)>,
    /// Runs stopping for nobody that waits: cancelled, evicted, their claimant cancelled.
    leaving: BTreeSet<RunId>,
}

impl<'a> Claims<'a> {
    fn of(state: &'a State) -> Self {
        let mut claims = Self {
            awaited: BTreeMap::new(),
            leaving: BTreeSet::new(),
        };
        for run in state.runs().values() {
            let stopping = run
                .attempts
                .last()
                .filter(|_| run.phase == RunPhase::Active)
                .and_then(|attempt| attempt.stopping.as_ref());
            let Some(reason) = stopping else { continue };
            let claimant = reason
                .claimant()
                .and_then(|claimant| state.runs().get(&claimant))
                .filter(|claimant| claimant.phase == RunPhase::Queued);
            match claimant {
                Some(claimant) => {
                    let entry = claims.awaited.entry(claimant.id);
                    let (_, victims) = entry.or_insert((claimant, BTreeSet::new()));
                    victims.insert(run.id);
                }
                None => drop(claims.leaving.insert(run.id)),
            }
        }
        // One whose victims have gone may await whoever else is leaving.
        for run in state.runs().values() {
            if run.phase == RunPhase::Queued && run.has_claim && !claims.leaving.is_empty() {
                let entry = claims.awaited.entry(run.id);
                entry.or_insert((run, BTreeSet::new()));
            }
        }
        claims
    }
}
