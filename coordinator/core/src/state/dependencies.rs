//! Runs that follow others: held until what goes before has ended, and never looked at by a plan.
//!
//! One may only follow what exists already, so every dependency points to a smaller id and no cycle
//! can be made. Whoever waits is filed under what it waits for, so an end looks at its own followers
//! alone. The index is derived from the runs: [`super::State::reindex`] makes it anew.

use super::{Event, State, Violation};
use crate::model::{
    Cancellation, Condition, Dependency, Run, RunId, RunOutcome, RunPhase, TenantName, WorkloadSpec,
};
use crate::policy::{Refusal, RefusalKind};
use std::collections::{BTreeMap, BTreeSet};

/// The most that one run may follow: each is looked at whenever one of them ends.
pub const MOST_DEPENDENCIES: usize = 100;

/// In whose name a run ends that can never start.
const PLATFORM: &str = "the platform";

/// Held runs by what they wait for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Followers {
    by_awaited: BTreeMap<RunId, BTreeSet<RunId>>,
}

impl Followers {
    fn insert(&mut self, awaited: RunId, follower: RunId) {
        self.by_awaited.entry(awaited).or_default().insert(follower);
    }

    fn remove(&mut self, awaited: RunId, follower: RunId) {
        if let Some(followers) = self.by_awaited.get_mut(&awaited) {
            followers.remove(&follower);
            if followers.is_empty() {
                self.by_awaited.remove(&awaited);
            }
        }
    }

    fn take(&mut self, awaited: RunId) -> BTreeSet<RunId> {
        self.by_awaited.remove(&awaited).unwrap_or_default()
    }

    pub(super) fn clear(&mut self) {
        self.by_awaited.clear();
    }
}

impl State {
    /// Whether what a run is to follow may be followed by this tenant, and can still end as asked.
    pub(super) fn check_dependencies(
        &self,
        after: &[Dependency],
        tenant: &TenantName,
    ) -> Result<(), Refusal> {
        if after.len() > MOST_DEPENDENCIES {
            return Err(
                Refusal::invalid(format!("the run is to follow {} others", after.len()))
                    .allowed(format!("at most {MOST_DEPENDENCIES}"))
                    .hint("put a run between that follows them, and let this one follow that"),
            );
        }
        for dependency in after {
            let awaited = self
                .runs
                .get(&dependency.run)
                // Another tenant's run is not told from none.
                .filter(|run| run.tenant == *tenant)
                .ok_or_else(|| {
                    Refusal::new(
                        RefusalKind::NotFound,
                        format!("{} does not exist", dependency.run),
                    )
                    .allowed(format!(
                        "runs of tenant {tenant} that were submitted before"
                    ))
                    .hint("see the runs with: platform runs list")
                })?;
            if let Some(word) = outcome_word(awaited).filter(|_| fails(awaited, dependency)) {
                return Err(Refusal::refused(format!(
                    "{} has {word} already, so what follows its success can never start",
                    awaited.id
                ))
                .allowed(format!(
                    "a run that has succeeded or can still, or {}:any",
                    awaited.id
                ))
                .hint(format!("see why with: platform runs show {}", awaited.id)));
            }
        }
        Ok(())
    }

    /// What a run with this spec still waits for to end. One that is not there any more has ended long ago, and
    /// well enough: else the run would have ended with it.
    pub fn awaited_by<'a>(
        &'a self,
        spec: &'a WorkloadSpec,
    ) -> impl Iterator<Item = (Dependency, &'a Run)> + 'a {
        spec.after
            .iter()
            .filter_map(|dependency| Some((*dependency, self.runs.get(&dependency.run)?)))
            .filter(|(_, awaited)| !awaited.is_ended())
    }

    /// Where a run that may start as far as it goes is held or queued.
    pub(super) fn hold_or_queue(&mut self, id: RunId) -> bool {
        let Some(run) = self.runs.get(&id) else {
            return false;
        };
        let awaited: Vec<RunId> = self
            .awaited_by(&run.spec)
            .map(|(dependency, _)| dependency.run)
            .collect();
        let held = !awaited.is_empty();
        for awaited in awaited {
            self.followers.insert(awaited, id);
        }
        if let Some(run) = self.runs.get_mut(&id) {
            run.phase = if held {
                RunPhase::Held
            } else {
                RunPhase::Queued
            };
        }
        if held {
            self.note_start_deadline(id);
        } else {
            self.enqueue(id);
        }
        held
    }

    /// A held run is over: nothing it waited for need tell it.
    pub(super) fn forget_follower(&mut self, id: RunId) {
        let after = self
            .runs
            .get(&id)
            .map(|run| run.spec.after.clone())
            .unwrap_or_default();
        for dependency in after {
            self.followers.remove(dependency.run, id);
        }
    }

    /// A run has ended: whoever follows it is queued, waits for others still, or can never start and
    /// ends too, and with it whoever follows that. Not recursive, for such a line has no bound.
    pub(super) fn tell_followers(&mut self, ended: RunId) -> Vec<Event> {
        let mut events = Vec::new();
        let mut ended = vec![ended];
        while let Some(awaited) = ended.pop() {
            for follower in self.followers.take(awaited) {
                let (Some(before), Some(run)) = (self.runs.get(&awaited), self.runs.get(&follower))
                else {
                    continue;
                };
                let failed = run
                    .spec
                    .after
                    .iter()
                    .any(|dependency| dependency.run == awaited && fails(before, dependency));
                if failed {
                    let word = outcome_word(before).unwrap_or("ended");
                    let reason = format!("{awaited}, whose success it was to follow, has {word}");
                    self.end_held(follower, PLATFORM, Some(reason));
                    events.push(Event::RunEnded { run: follower });
                    ended.push(follower);
                } else if self.awaited_by(&run.spec).next().is_none() {
                    self.hold_or_queue(follower);
                    events.push(Event::RunQueued {
                        run: follower,
                        again: false,
                        warnings: Vec::new(),
                    });
                }
            }
        }
        events
    }

    /// Ends a run that is held.
    pub(super) fn end_held(&mut self, id: RunId, by: &str, reason: Option<String>) {
        self.dequeue(id);
        self.forget_follower(id);
        let time_us = self.time_us;
        if let Some(run) = self.runs.get_mut(&id) {
            run.cancelled = Some(Cancellation {
                by: by.to_owned(),
                reason,
            });
            run.phase = RunPhase::Ended {
                outcome: RunOutcome::Cancelled,
                at_us: time_us,
            };
            self.live.remove(&id);
        }
    }

    /// I6: whoever follows others waits exactly until they have ended as asked, and is filed under them.
    pub(super) fn followers_wait_for_what_went_before(&self) -> Vec<Violation> {
        let mut fresh = self.clone();
        fresh.reindex();
        let mut wrong = self.dependencies_that_do_not_hold();
        if fresh.followers != self.followers {
            wrong.push(format!(
                "{:?} filed, {:?} wait",
                self.followers, fresh.followers
            ));
        }
        wrong
            .into_iter()
            .map(|seen| Violation {
                invariant: "I6",
                seen,
            })
            .collect()
    }

    fn dependencies_that_do_not_hold(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for run in self.runs.values() {
            for dependency in &run.spec.after {
                if dependency.run >= run.id {
                    wrong.push(format!("{} follows {dependency}, which came later", run.id));
                }
                let failed = self
                    .runs
                    .get(&dependency.run)
                    .is_some_and(|awaited| fails(awaited, dependency));
                if failed && !run.is_ended() {
                    wrong.push(format!("{} goes on, and {dependency} did not hold", run.id));
                }
            }
            let waits = self.awaited_by(&run.spec).next().is_some();
            let held = run.phase == RunPhase::Held;
            if held != (waits && !run.is_ended()) {
                wrong.push(format!("{}: held {held}, waits for others {waits}", run.id));
            }
        }
        wrong
    }
}

/// Whether it has ended otherwise than it must have.
fn fails(awaited: &Run, dependency: &Dependency) -> bool {
    dependency.condition == Condition::Ok
        && matches!(
            awaited.phase,
            RunPhase::Ended {
                outcome: RunOutcome::Failed | RunOutcome::Cancelled,
                ..
            }
        )
}

fn outcome_word(run: &Run) -> Option<&'static str> {
    match &run.phase {
        RunPhase::Ended { outcome, .. } => Some(match outcome {
            RunOutcome::Succeeded => "succeeded",
            RunOutcome::Failed => "failed",
            RunOutcome::Cancelled => "been cancelled",
        }),
        RunPhase::Held | RunPhase::Queued | RunPhase::Active => None,
    }
}
