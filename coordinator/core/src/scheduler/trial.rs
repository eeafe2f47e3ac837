//! A state to try things on, with a clock of its own: the same commands, the same plans, and runs that
//! end when the trial says so. What a change would do, when a run would start and what a whole history
//! would have become are all asked of this.

use super::{Plan, Planner};
use crate::model::{EndKind, MemberEnd, MemberKey, MemberPhase, NodeName, RunId, WorkloadSpec};
use crate::state::{Command, Entry, Event, MemberReport, State};

/// A copy of the state, best a [`State::live_copy`], and the time there.
pub struct Trial {
    state: State,
    planner: Planner,
    now_us: u64,
}

impl Clone for Trial {
    /// The copy goes its own way: what was derived of the one is not of the other.
    fn clone(&self) -> Self {
        Self::new(self.state.clone(), self.now_us)
    }
}

impl Trial {
    /// Begins at `now_us`, or at the state's own time if that is later.
    pub fn new(state: State, now_us: u64) -> Self {
        let now_us = now_us.max(state.time_us());
        Self {
            state,
            planner: Planner::default(),
            now_us,
        }
    }

    /// As it is now.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The time there.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The state and the time there, when nothing more is tried.
    pub fn into_parts(self) -> (State, u64) {
        (self.state, self.now_us)
    }

    /// Moves the clock; it never goes back.
    pub fn advance_to(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
    }

    /// Applies a command now.
    pub fn apply(&mut self, command: Command) -> Vec<Event> {
        let entry = Entry {
            stamp_us: self.now_us,
            actor: "trial".to_owned(),
            idempotency_key: None,
            command,
        };
        self.state.apply(self.state.index() + 1, &entry)
    }

    /// Has a waiting run ask for something else, as [`State::supposing`] does.
    pub fn supposing(self, run: RunId, spec: WorkloadSpec) -> Self {
        Self {
            state: self.state.supposing(run, spec),
            ..self
        }
    }

    /// Makes one plan as if it were so late, and applies nothing of it.
    pub fn propose(&mut self, at_us: u64) -> Plan {
        self.planner.plan(&self.state, at_us)
    }

    /// Makes one plan and applies its placements alone.
    pub fn place(&mut self) -> Plan {
        let plan = self.propose(self.now_us);
        if !plan.placements.is_empty() {
            self.apply(Command::Place {
                placements: plan.placements.clone(),
            });
        }
        plan
    }

    /// Makes one plan and applies what it proposes. Runs that it stops are told to; they end when
    /// [`Self::end`] says so.
    pub fn plan(&mut self) -> Plan {
        let plan = self.place();
        if !plan.preemptions.is_empty() {
            self.apply(Command::Preempt {
                preemptions: plan.preemptions.clone(),
            });
        }
        plan
    }

    /// Every member of the run's last attempt begins to work.
    pub fn start(&mut self, run: RunId) {
        self.report(run, MemberPhase::Running, None);
    }

    /// Every member of the run's last attempt ends like this.
    pub fn end(&mut self, run: RunId, kind: &EndKind) {
        self.report(run, MemberPhase::Ended, Some(kind));
    }

    fn report(&mut self, run: RunId, phase: MemberPhase, end: Option<&EndKind>) {
        let Some(attempt) = self
            .state
            .runs()
            .get(&run)
            .and_then(|run| run.last_attempt())
        else {
            return;
        };
        let reports: Vec<(NodeName, MemberReport)> = (0_u32..)
            .zip(&attempt.members)
            .map(|(member, at)| {
                let report = MemberReport {
                    key: MemberKey {
                        run,
                        attempt: attempt.number,
                        member,
                    },
                    epoch: attempt.epoch,
                    phase,
                    detail: None,
                    end: end.map(|kind| MemberEnd {
                        kind: kind.clone(),
                        message: String::new(),
                    }),
                    enforcement: None,
                    checkpointed_us: None,
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
