//! What a change would do, found by doing it to a copy: the same commands, the same plans.

use super::{Plan, Planner};
use crate::model::{EndKind, MemberEnd, MemberKey, MemberPhase, NodeName};
use crate::state::{Command, Entry, Event, MemberReport, Preemption, State};

/// Plans looked ahead at most. A plan that stops anybody is followed by one that places who waited for
/// it; a reader of a dry run wants the first rounds, not the week.
const MOST_PLANS: usize = 64;

/// The runs that would be stopped for others if `command` were applied now and every run that is told
/// to stop did so at once. Empty when the command would be refused.
///
/// Takes a copy, best a [`State::live_copy`], for it takes many plans to find out.
pub fn preempted_by(state: State, now_us: u64, command: &Command) -> Vec<Preemption> {
    let mut trial = Trial { state, now_us };
    // What would be stopped without the change is not of its making.
    let without = trial.clone().settle();
    if trial
        .apply(command.clone())
        .iter()
        .any(|event| matches!(event, Event::Rejected { .. }))
    {
        return Vec::new();
    }
    let mut with = trial.settle();
    with.retain(|preemption| {
        !without
            .iter()
            .any(|other| (other.run, other.attempt) == (preemption.run, preemption.attempt))
    });
    with
}

#[derive(Clone)]
struct Trial {
    state: State,
    now_us: u64,
}

impl Trial {
    fn apply(&mut self, command: Command) -> Vec<Event> {
        let entry = Entry {
            stamp_us: self.now_us,
            actor: "forecast".to_owned(),
            idempotency_key: None,
            command,
        };
        self.state.apply(self.state.index() + 1, &entry)
    }

    /// Plans until a plan has nothing to say, and who was stopped on the way.
    fn settle(&mut self) -> Vec<Preemption> {
        let mut stopped = Vec::new();
        let mut planner = Planner::default();
        for _ in 0..MOST_PLANS {
            let Plan {
                placements,
                preemptions,
                again_at_us,
                ..
            } = planner.plan(&self.state, self.now_us);
            let nothing = placements.is_empty() && preemptions.is_empty();
            match again_at_us {
                Some(at_us) if nothing && at_us > self.now_us => self.now_us = at_us,
                _ if nothing => break,
                _ => {}
            }
            self.apply(Command::Place { placements });
            self.apply(Command::Preempt {
                preemptions: preemptions.clone(),
            });
            for preemption in &preemptions {
                self.stop(preemption);
            }
            stopped.extend(preemptions);
        }
        stopped
    }

    fn stop(&mut self, preemption: &Preemption) {
        let Some(attempt) = self
            .state
            .runs()
            .get(&preemption.run)
            .and_then(|run| run.attempt(preemption.attempt))
        else {
            return;
        };
        let reports: Vec<(NodeName, MemberReport)> = (0_u32..)
            .zip(&attempt.members)
            .map(|(member, at)| {
                let report = MemberReport {
                    key: MemberKey {
                        run: preemption.run,
                        attempt: preemption.attempt,
                        member,
                    },
                    epoch: attempt.epoch,
                    phase: MemberPhase::Ended,
                    detail: None,
                    end: Some(MemberEnd {
                        kind: EndKind::Stopped,
                        message: String::new(),
                    }),
                    enforcement: None,
                };
                (at.node.clone(), report)
            })
            .collect();
        for (node, report) in reports {
            self.apply(Command::Report {
                node,
                members: vec![report],
            });
        }
    }
}
