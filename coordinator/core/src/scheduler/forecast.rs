//! What a change would do, found by doing it to a copy: the same commands, the same plans.

use super::Trial;
use crate::model::EndKind;
use crate::state::{Command, Event, Preemption, State};

/// Plans looked ahead at most. A plan that stops anybody is followed by one that places who waited for
/// it; a reader of a dry run wants the first rounds, not the week.
const MOST_PLANS: usize = 64;

/// The runs that would be stopped for others if `command` were applied now and every run that is told
/// to stop did so at once. Empty when the command would be refused.
///
/// Takes a copy, best a [`State::live_copy`], for it takes many plans to find out.
pub fn preempted_by(state: State, now_us: u64, command: &Command) -> Vec<Preemption> {
    let mut trial = Trial::new(state, now_us);
    // What would be stopped without the change is not of its making.
    let without = settle(trial.clone());
    if trial
        .apply(command.clone())
        .iter()
        .any(|event| matches!(event, Event::Rejected { .. }))
    {
        return Vec::new();
    }
    let mut with = settle(trial);
    with.retain(|preemption| {
        !without
            .iter()
            .any(|other| (other.run, other.attempt) == (preemption.run, preemption.attempt))
    });
    with
}

/// Plans until a plan has nothing to say, and who was stopped on the way.
fn settle(mut trial: Trial) -> Vec<Preemption> {
    let mut stopped = Vec::new();
    for _ in 0..MOST_PLANS {
        let plan = trial.plan();
        match plan.again_at_us {
            Some(at_us) if plan.is_empty() && at_us > trial.now_us() => trial.advance_to(at_us),
            _ if plan.is_empty() => break,
            _ => {}
        }
        for preemption in &plan.preemptions {
            trial.end(preemption.run, &EndKind::Stopped);
        }
        stopped.extend(plan.preemptions);
    }
    stopped
}
