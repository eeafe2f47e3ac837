//! Runs and arrays that follow others: held until what goes before has ended, and never looked at by a
//! plan.
//!
//! One may only follow what exists already, so every dependency points to a smaller id and no cycle
//! can be made. Whoever waits is filed under what it waits for, so an end looks at its own followers
//! alone. The index is derived from the runs: [`super::State::reindex`] makes it anew.

use super::{Event, State};
use crate::model::{
    Cancellation, Condition, Dependency, RunOutcome, RunPhase, Submission, TenantName, WorkloadSpec,
};
use crate::policy::{Refusal, RefusalKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most that one run may follow: each is looked at whenever one of them ends.
pub const MOST_DEPENDENCIES: usize = 100;

/// In whose name a run ends that can never start.
const PLATFORM: &str = "the platform";

/// Held runs and arrays by what they wait for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Followers {
    by_awaited: BTreeMap<Submission, BTreeSet<Submission>>,
}

impl Followers {
    fn insert(&mut self, awaited: Submission, follower: Submission) {
        self.by_awaited.entry(awaited).or_default().insert(follower);
    }

    fn remove(&mut self, awaited: Submission, follower: Submission) {
        if let Some(followers) = self.by_awaited.get_mut(&awaited) {
            followers.remove(&follower);
            if followers.is_empty() {
                self.by_awaited.remove(&awaited);
            }
        }
    }

    fn of(&self, awaited: Submission) -> Vec<Submission> {
        let followers = self.by_awaited.get(&awaited);
        followers.into_iter().flatten().copied().collect()
    }

    pub(super) fn clear(&mut self) {
        self.by_awaited.clear();
    }
}

/// What may still become of a run or an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// It goes on, and may end well.
    Open,
    /// It goes on, and will not have ended well: an element has not.
    Spoilt,
    /// It ended well. So did what is not there any more, for its followers would have ended with it.
    Succeeded,
    /// It ended otherwise.
    Over,
}

impl Outlook {
    fn meets(self, condition: Condition) -> bool {
        match condition {
            Condition::Ok => self == Self::Succeeded,
            Condition::Any => matches!(self, Self::Succeeded | Self::Over),
        }
    }

    fn never_meets(self, condition: Condition) -> bool {
        condition == Condition::Ok && matches!(self, Self::Spoilt | Self::Over)
    }
}

impl State {
    fn outlook(&self, before: Submission) -> Outlook {
        match before {
            Submission::Run(run) => match self.runs.get(&run).map(|run| &run.phase) {
                Some(RunPhase::Held | RunPhase::Queued | RunPhase::Active) => Outlook::Open,
                Some(RunPhase::Ended { outcome, .. }) if *outcome != RunOutcome::Succeeded => {
                    Outlook::Over
                }
                Some(RunPhase::Ended { .. }) | None => Outlook::Succeeded,
            },
            Submission::Array(array) => match self.array_lines.get(&array) {
                Some(line) => match (line.is_over(), line.is_spoilt()) {
                    (false, false) => Outlook::Open,
                    (false, true) => Outlook::Spoilt,
                    (true, true) => Outlook::Over,
                    (true, false) => Outlook::Succeeded,
                },
                None => Outlook::Succeeded,
            },
        }
    }

    /// Why it is no success, in words that follow its name.
    fn failure_words(&self, before: Submission) -> String {
        match before {
            Submission::Run(run) => match self.runs.get(&run).map(|run| &run.phase) {
                Some(RunPhase::Ended {
                    outcome: RunOutcome::Cancelled,
                    ..
                }) => "has been cancelled".to_owned(),
                _ => "has failed".to_owned(),
            },
            Submission::Array(array) => {
                let spoilt = self
                    .array_lines
                    .get(&array)
                    .map_or(0, |line| line.failed() + line.cancelled());
                let elements = if spoilt == 1 { "element" } else { "elements" };
                format!("has {spoilt} {elements} without success")
            }
        }
    }

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
        for Dependency { before, condition } in after {
            let owner = match before {
                Submission::Run(run) => self.runs.get(run).map(|run| &run.tenant),
                Submission::Array(array) => self.arrays.get(array).map(|array| &array.tenant),
            };
            // Another tenant's is not told from none.
            if owner != Some(tenant) {
                return Err(Refusal::new(
                    RefusalKind::NotFound,
                    format!("{before} does not exist"),
                )
                .allowed(format!("what tenant {tenant} has submitted before"))
                .hint("see the runs with: platform runs list"));
            }
            if self.outlook(*before).never_meets(*condition) {
                let look = match before {
                    Submission::Run(run) => format!("platform runs show {run}"),
                    Submission::Array(array) => format!("platform runs list --array {array}"),
                };
                return Err(Refusal::refused(format!(
                    "{before} {} already, so what follows its success can never start",
                    self.failure_words(*before)
                ))
                .allowed(format!("what can still succeed, or {before}:any"))
                .hint(format!("see why with: {look}")));
            }
        }
        Ok(())
    }

    /// What a run with this spec still waits for to end.
    pub fn awaited_by<'a>(
        &'a self,
        spec: &'a WorkloadSpec,
    ) -> impl Iterator<Item = Dependency> + 'a {
        spec.after
            .iter()
            .copied()
            .filter(|dependency| !self.outlook(dependency.before).meets(dependency.condition))
    }

    /// Files a run or an array under all that it waits for; false when that is nothing.
    pub(super) fn file_under_awaited(&mut self, follower: Submission, spec: &WorkloadSpec) -> bool {
        let awaited: Vec<Dependency> = self.awaited_by(spec).collect();
        for dependency in &awaited {
            self.followers.insert(dependency.before, follower);
        }
        !awaited.is_empty()
    }

    /// It waits for nothing any more.
    pub(super) fn forget_follower(&mut self, follower: Submission, spec: &WorkloadSpec) {
        for dependency in &spec.after {
            self.followers.remove(dependency.before, follower);
        }
    }

    /// These have ended, or will not be a success any more: whoever follows them is queued, waits for
    /// others still, or can never start and ends too, and with it whoever follows that. Not recursive,
    /// for such a line has no bound.
    pub(super) fn tell_followers(&mut self, mut told: Vec<Submission>) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(before) = told.pop() {
            for follower in self.followers.of(before) {
                let Some(spec) = self.spec_of(follower) else {
                    continue;
                };
                let outlook = self.outlook(before);
                let never = spec.after.iter().any(|dependency| {
                    dependency.before == before && outlook.never_meets(dependency.condition)
                });
                if never {
                    let reason = format!(
                        "{before}, whose success it was to follow, {}",
                        self.failure_words(before)
                    );
                    events.push(self.end_follower(follower, &spec, reason, &mut told));
                    continue;
                }
                let awaited: Vec<Dependency> = self.awaited_by(&spec).collect();
                if awaited.is_empty() {
                    self.forget_follower(follower, &spec);
                    events.push(self.release_follower(follower));
                } else if awaited.iter().all(|dependency| dependency.before != before) {
                    self.followers.remove(before, follower);
                }
            }
        }
        events
    }

    fn spec_of(&self, submission: Submission) -> Option<Arc<WorkloadSpec>> {
        let run = match submission {
            Submission::Run(run) => run,
            Submission::Array(array) => array.first_run(),
        };
        self.runs.get(&run).map(|run| run.spec.clone())
    }

    /// Queues what has waited for others.
    fn release_follower(&mut self, follower: Submission) -> Event {
        match follower {
            Submission::Run(run) => {
                self.queue(run);
                Event::RunQueued {
                    run,
                    again: false,
                    warnings: Vec::new(),
                }
            }
            Submission::Array(array) => {
                self.release_elements(array);
                Event::ArrayChanged { array }
            }
        }
    }

    /// Ends what can never start, and names what has ended with it.
    fn end_follower(
        &mut self,
        follower: Submission,
        spec: &WorkloadSpec,
        reason: String,
        told: &mut Vec<Submission>,
    ) -> Event {
        let cancellation = Cancellation {
            by: PLATFORM.to_owned(),
            reason: Some(reason),
        };
        self.forget_follower(follower, spec);
        told.push(follower);
        match follower {
            Submission::Run(run) => {
                self.end_waiting(run, cancellation);
                Event::RunEnded { run }
            }
            Submission::Array(id) => {
                if let Some(array) = self.arrays.get(&id).cloned() {
                    told.extend(self.end_waiting_elements(&array, &cancellation));
                }
                Event::ArrayChanged { array: id }
            }
        }
    }

    /// I6: whoever follows others waits exactly until they have ended as asked, and is filed under them.
    /// `fresh` is this state with what is derived made anew.
    pub(super) fn followers_wait_for_what_went_before(&self, fresh: &Self) -> Vec<String> {
        let mut wrong = self.dependencies_that_do_not_hold();
        if fresh.followers != self.followers {
            wrong.push(format!(
                "{:?} filed, {:?} wait",
                self.followers, fresh.followers
            ));
        }
        wrong
    }

    fn dependencies_that_do_not_hold(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for run in self.runs.values() {
            for dependency in &run.spec.after {
                let last = match dependency.before {
                    Submission::Run(before) => before,
                    Submission::Array(array) => array.first_run(),
                };
                if last >= run.id {
                    wrong.push(format!("{} follows {dependency}, which came later", run.id));
                }
                let never = self
                    .outlook(dependency.before)
                    .never_meets(dependency.condition);
                // An element that was told to stop has its grace.
                let goes_on = matches!(run.phase, RunPhase::Held | RunPhase::Queued);
                if never && goes_on {
                    wrong.push(format!("{} goes on, and {dependency} did not hold", run.id));
                }
            }
            let waits = self.awaited_by(&run.spec).next().is_some();
            let held = run.phase == RunPhase::Held;
            let for_its_array = run.element.is_some() && held && !waits;
            if held != (waits && !run.is_ended()) && !for_its_array {
                wrong.push(format!("{}: held {held}, waits for others {waits}", run.id));
            }
        }
        wrong
    }
}
