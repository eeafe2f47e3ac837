//! What a waiting run has before it: its position, who holds what it needs and until when, who will
//! give way to it, and the smallest changes that would start it now.
//!
//! Takes a copy of the state and real plans on it, so that it never says what the planner would not
//! do. Everything is bounded: a reader wants a few lines, and wants them soon.

mod changes;
mod holders;
mod position;

pub use changes::Change;
pub use holders::{Holder, Until, until};
pub use position::Position;

use super::Trial;
use super::estimate::{Durations, Estimate, estimate};
use crate::model::{RunId, RunPhase};
use crate::state::State;

/// Plans made to find out what would be placed anyway, before anything is changed.
const MOST_PLANS_BEFORE: usize = 8;
/// Times at which a plan says to look again that are followed to find who gives way.
const MOST_LOOKS_AGAIN: usize = 3;

/// What a waiting run has before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outlook {
    /// Its place in the order; absent when it is in no queue.
    pub position: Option<Position>,
    /// Who holds what it needs, first to end first, at most a few.
    pub holders: Vec<Holder>,
    /// Holders that are not named.
    pub more_holders: usize,
    /// Who is to give way to it as things stand, and when.
    pub gives_way: Option<GivesWay>,
    /// When it starts, as far as that is known.
    pub start: Option<Estimate>,
    /// The next plans place it as it is.
    pub starts_now: bool,
    /// What would start it now, smallest first; empty when it starts as it is.
    pub changes: Vec<Change>,
}

/// Runs that would be stopped for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivesWay {
    /// Those who would be stopped.
    pub runs: Vec<RunId>,
    /// When they may be.
    pub at_us: u64,
}

/// The outlook of a waiting run. Takes a copy of the state, best a [`State::live_copy`], for it takes
/// many plans to find out; `None` when the run does not
/// wait. `durations` are of the whole state.
pub fn outlook(state: State, durations: &Durations, id: RunId, now_us: u64) -> Option<Outlook> {
    let run = state.runs().get(&id)?.clone();
    if run.phase != RunPhase::Queued {
        return None;
    }
    let position = position::of(&state, &run);
    let (holders, more_holders) = holders::of(&state, &run);
    // What is free for anybody else is theirs: changes are judged on what is left then.
    let mut trial = Trial::new(state, now_us);
    let mut gives_way = None;
    let mut kept = Vec::new();
    for _ in 0..MOST_PLANS_BEFORE {
        let plan = trial.place();
        if plan.placements.is_empty() {
            kept.clone_from(&plan.reservations);
            gives_way = giving_way(&mut trial, plan, id);
            break;
        }
    }
    let starts_now = trial
        .state()
        .runs()
        .get(&id)
        .is_some_and(|run| run.phase != RunPhase::Queued);
    let (start, changes) = if starts_now {
        (None, Vec::new())
    } else {
        let (trial, changes) = changes::smallest(trial, &run, &kept);
        let (state, now_us) = trial.into_parts();
        (estimate(state, durations, id, now_us), changes)
    };
    Some(Outlook {
        position,
        holders,
        more_holders,
        gives_way,
        start,
        starts_now,
        changes,
    })
}

/// Who is to give way to this run, now or once those that hold have run for their first while.
fn giving_way(trial: &mut Trial, mut plan: super::Plan, id: RunId) -> Option<GivesWay> {
    let mut at_us = trial.now_us();
    for _ in 0..MOST_LOOKS_AGAIN {
        let runs: Vec<RunId> = victims(&plan, id);
        if !runs.is_empty() {
            return Some(GivesWay { runs, at_us });
        }
        at_us = plan.again_at_us.filter(|again_us| *again_us > at_us)?;
        plan = trial.propose(at_us);
    }
    None
}

/// The runs that a plan stops for this one.
fn victims(plan: &super::Plan, claimant: RunId) -> Vec<RunId> {
    plan.preemptions
        .iter()
        .filter(|preemption| preemption.claimant == claimant)
        .map(|preemption| preemption.run)
        .collect()
}
