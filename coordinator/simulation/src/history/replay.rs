//! The replay itself: submissions at their times, ends as long after a grant as they were, and plans in
//! between for as long as a plan changes something.

use super::History;
use super::calibration::{Calibration, Scored};
use coordinator_core::model::{
    Array, ArrayId, ArrayRequest, Charge, Dependency, EndKind, IndexRange, OutboxBody, PastRun,
    RunId, RunOutcome, RunPhase, Submission, TenantName, WorkloadSpec,
};
use coordinator_core::scheduler::{Durations, Trial, estimate};
use coordinator_core::state::{Command, Event, State};
use std::collections::{BTreeMap, BTreeSet};

/// How long a run that is told to stop holds on to its devices. It is not recorded; most programs end
/// with the signal, and the agent waits half a minute at most.
const STOP_US: u64 = 1_000_000;
/// Records that the books of the replay gather before they are summed.
const GATHERED_RECORDS: usize = 4_096;
/// Estimates that are made in one replay: each plays two futures, and some hundreds tell a share
/// within a few per cent.
const MOST_ESTIMATES: usize = 300;

/// How far a replay has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The time there.
    pub now_us: u64,
    /// Runs that have been submitted.
    pub submitted: usize,
}

/// What became of a history.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// What became of each run of the history, in its order; absent: it was refused.
    pub runs: Vec<Option<PastRun>>,
    /// Why runs were refused, by their place in the history.
    pub refused: BTreeMap<usize, String>,
    /// What each tenant held and was charged.
    pub charges: BTreeMap<TenantName, Charge>,
    /// How good the estimates of starts were; absent unless asked for.
    pub calibration: Option<Calibration>,
}

/// What is to happen, at one time in this order: what ends makes room for what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A run's attempt ends, as it did.
    End { run: RunId, attempt: u32 },
    /// A run that was told to stop has.
    Stopped { run: RunId, attempt: u32 },
    /// Somebody stops the run of this place in the history.
    Cancel { run: usize },
    /// The run of this place, or the array that begins with it, is submitted. Those that held devices
    /// when the period began come before those that waited.
    Submit { waits: bool, run: usize },
}

struct Replay<'a> {
    history: &'a History,
    trial: Trial,
    due: BTreeSet<(u64, Due)>,
    /// Runs of the trial, by their place in the history, and the other way about.
    ids: Vec<Option<RunId>>,
    places: BTreeMap<RunId, usize>,
    by_old_id: BTreeMap<RunId, usize>,
    whole_arrays: BTreeMap<ArrayId, &'a Array>,
    new_arrays: BTreeMap<ArrayId, ArrayId>,
    refused: BTreeMap<usize, String>,
    charges: BTreeMap<TenantName, Charge>,
    submitted: usize,
    estimates: Option<Vec<Scored>>,
}

/// Plays a history on what it began with ([`State::frame`], changed as one likes). With `calibrates`,
/// starts are estimated on the way as they are for people, and scored.
pub fn replay(
    history: &History,
    frame: State,
    calibrates: bool,
    progress: &mut dyn FnMut(Progress),
) -> Replayed {
    let mut replay = Replay::new(history, frame, calibrates);
    replay.run(progress);
    replay.into_replayed()
}

impl<'a> Replay<'a> {
    fn new(history: &'a History, frame: State, calibrates: bool) -> Self {
        let by_old_id: BTreeMap<RunId, usize> = history
            .runs
            .iter()
            .enumerate()
            .map(|(place, run)| (run.id, place))
            .collect();
        let is_whole = |array: &Array| {
            by_old_id.range(array.runs()).count() == array.size as usize
                && by_old_id
                    .get(&array.id.first_run())
                    .is_some_and(|place| history.runs[*place].submitted_us >= history.since_us)
        };
        let whole_arrays: BTreeMap<ArrayId, &Array> = history
            .arrays
            .iter()
            .filter(|array| is_whole(array))
            .map(|array| (array.id, array))
            .collect();
        let mut due = BTreeSet::new();
        for (place, run) in history.runs.iter().enumerate() {
            let is_later_element = run.array.is_some_and(|array| {
                whole_arrays.contains_key(&array) && array.first_run() != run.id
            });
            if !is_later_element {
                let waits = !held_at(run, history.since_us);
                let at_us = run.submitted_us.max(history.since_us);
                due.insert((at_us, Due::Submit { waits, run: place }));
            }
            if let Some(at_us) = cancelled_waiting_us(run) {
                due.insert((at_us, Due::Cancel { run: place }));
            }
        }
        Self {
            history,
            trial: Trial::new(frame, history.since_us),
            due,
            ids: vec![None; history.runs.len()],
            places: BTreeMap::new(),
            by_old_id,
            whole_arrays,
            new_arrays: BTreeMap::new(),
            refused: BTreeMap::new(),
            charges: BTreeMap::new(),
            submitted: 0,
            estimates: calibrates.then(Vec::new),
        }
    }

    fn run(&mut self, progress: &mut dyn FnMut(Progress)) {
        let mut again_us = None;
        loop {
            let next_us = [
                self.due.first().map(|(at_us, _)| *at_us),
                again_us,
                self.trial.state().next_due_us(),
            ]
            .into_iter()
            .flatten()
            .min()
            .map(|at_us| at_us.max(self.trial.now_us()));
            let Some(now_us) = next_us.filter(|at_us| *at_us < self.history.until_us) else {
                break;
            };
            self.trial.advance_to(now_us);
            if self
                .trial
                .state()
                .next_due_us()
                .is_some_and(|at_us| at_us <= now_us)
            {
                self.trial.apply(Command::Tick);
            }
            let mut came = Vec::new();
            // Who waited when the period began is let in behind those that held devices then.
            let mut waits_now = None;
            while let Some((at_us, what)) = self.due.first().copied()
                && at_us <= now_us
            {
                if let Due::Submit { waits, .. } = what
                    && *waits_now.get_or_insert(waits) != waits
                {
                    break;
                }
                self.due.pop_first();
                came.extend(self.happen(what));
            }
            again_us = self.settle().filter(|at_us| *at_us > now_us);
            self.estimate(&came);
            self.gather(GATHERED_RECORDS);
            progress(Progress {
                now_us,
                submitted: self.submitted,
            });
        }
        self.trial.advance_to(self.history.until_us);
        self.gather(0);
    }

    /// Lets something happen; answers the runs that came by it.
    fn happen(&mut self, what: Due) -> Vec<RunId> {
        match what {
            Due::End { run, attempt } if self.is_active(run, attempt) => {
                self.end(run);
            }
            Due::Stopped { run, attempt } if self.is_active(run, attempt) => {
                self.trial.end(run, &EndKind::Stopped);
            }
            Due::Cancel { run } => {
                if let Some(id) = self.ids[run] {
                    self.trial.apply(Command::Cancel {
                        run: id,
                        reason: None,
                    });
                    self.trial.end(id, &EndKind::Stopped);
                }
            }
            Due::Submit { run, .. } => return self.submit(run),
            Due::End { .. } | Due::Stopped { .. } => {}
        }
        Vec::new()
    }

    fn is_active(&self, id: RunId, attempt: u32) -> bool {
        self.trial.state().runs().get(&id).is_some_and(|run| {
            run.phase == RunPhase::Active
                && run
                    .last_attempt()
                    .is_some_and(|last| last.number == attempt)
        })
    }

    /// Ends a run as it ended.
    fn end(&mut self, id: RunId) {
        let Some(place) = self.places.get(&id) else {
            return;
        };
        match self.history.runs[*place].end {
            Some((RunOutcome::Failed, _)) => self.trial.end(id, &EndKind::Exited { code: 1 }),
            Some((RunOutcome::Cancelled, _)) => {
                self.trial.apply(Command::Cancel {
                    run: id,
                    reason: None,
                });
                self.trial.end(id, &EndKind::Stopped);
            }
            Some((RunOutcome::Succeeded, _)) | None => {
                self.trial.end(id, &EndKind::Exited { code: 0 });
            }
        }
    }

    fn submit(&mut self, place: usize) -> Vec<RunId> {
        let run = &self.history.runs[place];
        let spec = Box::new(self.spec(run));
        let (tenant, user) = (run.tenant.clone(), run.user.clone());
        let whole = run
            .array
            .and_then(|array| self.whole_arrays.get(&array).copied());
        let command = match whole {
            // Its priority is what it was admitted with, whoever may use which now.
            None => Command::Submit {
                spec,
                tenant,
                user,
                role: None,
            },
            Some(array) => Command::SubmitArray {
                spec,
                request: Box::new(ArrayRequest {
                    indexes: vec![IndexRange {
                        first: 0,
                        last: array.size.saturating_sub(1),
                        step: 1,
                    }],
                    most_alive: array.most_alive,
                    parameters: Vec::new(),
                }),
                tenant,
                user,
                role: None,
            },
        };
        let events = self.trial.apply(command);
        let size = whole.map_or(1, |array| array.size as usize);
        self.submitted += size;
        let first = events.iter().find_map(|event| match event {
            Event::RunQueued { run, .. } | Event::RunHeld { run, .. } => Some(*run),
            Event::ArraySubmitted { array, .. } => Some(array.first_run()),
            _ => None,
        });
        let Some(first) = first else {
            let why = events.iter().find_map(|event| match event {
                Event::Rejected { refusal } => Some(refusal.message.clone()),
                _ => None,
            });
            for element in place..place + size {
                self.refused
                    .insert(element, why.clone().unwrap_or_default());
            }
            return Vec::new();
        };
        if let Some(array) = whole {
            self.new_arrays.insert(array.id, ArrayId(first.0));
        }
        (0..size)
            .map(|nth| {
                let id = RunId(first.0 + nth as u64);
                // Elements have ids that follow, here and there.
                self.ids[place + nth] = Some(id);
                self.places.insert(id, place + nth);
                id
            })
            .collect()
    }

    /// What a run asked for, with the names of here for what it follows. What it followed that is not
    /// of this history has ended. Its failures are not played again: only its last attempt is.
    fn spec(&self, run: &PastRun) -> WorkloadSpec {
        let follows = |dependency: &Dependency| {
            let before = match dependency.before {
                Submission::Run(run) => Submission::Run(self.ids[*self.by_old_id.get(&run)?]?),
                Submission::Array(array) => Submission::Array(*self.new_arrays.get(&array)?),
            };
            Some(Dependency {
                before,
                condition: dependency.condition,
            })
        };
        WorkloadSpec {
            after: run.spec.after.iter().filter_map(follows).collect(),
            retries: 0,
            tenant: Some(run.tenant.clone()),
            ..run.spec.clone()
        }
    }

    /// Plans until a plan changes nothing; answers when to plan again if nothing happens until then.
    fn settle(&mut self) -> Option<u64> {
        loop {
            let before = self.trial.state().index();
            let plan = self.trial.plan();
            let mut changed = false;
            for placement in &plan.placements {
                if self.is_active(placement.run, placement.attempt) {
                    changed = true;
                    self.trial.start(placement.run);
                    self.foresee(placement.run, placement.attempt);
                }
            }
            for preemption in &plan.preemptions {
                if self.is_stopping(preemption.run) {
                    changed = true;
                    let at_us = self.trial.now_us().saturating_add(STOP_US);
                    let (run, attempt) = (preemption.run, preemption.attempt);
                    self.due.insert((at_us, Due::Stopped { run, attempt }));
                }
            }
            if plan.is_empty() || !changed || self.trial.state().index() == before {
                return plan.again_at_us;
            }
        }
    }

    fn is_stopping(&self, id: RunId) -> bool {
        self.trial
            .state()
            .runs()
            .get(&id)
            .and_then(|run| run.last_attempt())
            .is_some_and(|attempt| attempt.stopping.is_some())
    }

    /// Notes when a run that was just placed ends.
    fn foresee(&mut self, id: RunId, attempt: u32) {
        let Some(place) = self.places.get(&id) else {
            return;
        };
        let stay_us = stay_us(&self.history.runs[*place], self.history.since_us, attempt);
        if let Some(stay_us) = stay_us {
            let at_us = self.trial.now_us().saturating_add(stay_us);
            self.due.insert((at_us, Due::End { run: id, attempt }));
        }
    }

    /// Estimates the starts of some of those that came and wait.
    fn estimate(&mut self, came: &[RunId]) {
        let Some(estimates) = &mut self.estimates else {
            return;
        };
        let each = self.history.runs.len().div_ceil(MOST_ESTIMATES).max(1);
        let now_us = self.trial.now_us();
        for id in came {
            let state = self.trial.state();
            let waits = state
                .runs()
                .get(id)
                .is_some_and(|run| run.phase == RunPhase::Queued && !state.is_held(run));
            let is_chosen = self.places.get(id).is_some_and(|place| place % each == 0);
            if waits && is_chosen {
                let estimate = estimate(state.live_copy(), &Durations::of(state), *id, now_us);
                estimates.push(Scored {
                    run: *id,
                    at_us: now_us,
                    estimate,
                });
            }
        }
    }

    /// Sums what the books of the trial have gathered, once it is more than `most`.
    fn gather(&mut self, most: usize) {
        let state = self.trial.state();
        if state.outbox().len() <= most {
            return;
        }
        for record in state.outbox() {
            if let OutboxBody::Ledger(row) = &record.body {
                self.charges.entry(row.tenant.clone()).or_default().add(
                    row,
                    self.history.since_us,
                    self.history.until_us,
                );
            }
        }
        let through = state.outbox_sequence();
        self.trial.apply(Command::AcknowledgeOutbox { through });
    }

    fn into_replayed(mut self) -> Replayed {
        let until_us = self.history.until_us;
        for row in self.trial.state().open_ledger_rows(until_us) {
            self.charges.entry(row.tenant.clone()).or_default().add(
                &row,
                self.history.since_us,
                until_us,
            );
        }
        let state = self.trial.state();
        let calibration = self
            .estimates
            .as_deref()
            .map(|scored| Calibration::of(scored, state, until_us));
        Replayed {
            runs: self
                .ids
                .iter()
                .map(|id| Some(PastRun::of(state.runs().get(&(*id)?)?)))
                .collect(),
            refused: self.refused,
            charges: self.charges,
            calibration,
        }
    }
}

/// Whether a run held devices when the period began.
fn held_at(run: &PastRun, since_us: u64) -> bool {
    run.spells.iter().any(|spell| {
        spell.placed_us < since_us && spell.ended_us.is_none_or(|ended_us| ended_us >= since_us)
    })
}

/// When a run was cancelled that never held devices, unless a deadline did it, which does it again.
fn cancelled_waiting_us(run: &PastRun) -> Option<u64> {
    let (RunOutcome::Cancelled, at_us) = run.end.as_ref()? else {
        return None;
    };
    let deadline_us = run.spec.start_deadline_ms.map(|wait_ms| {
        run.submitted_us
            .saturating_add(wait_ms.saturating_mul(1_000))
    });
    let by_deadline = deadline_us.is_some_and(|deadline_us| deadline_us <= *at_us);
    (run.spells.is_empty() && !by_deadline).then_some(*at_us)
}

/// How long a run holds devices: as long as its last attempt did, what lies before the period not
/// counted, and in full again after it was stopped, for what it had saved by then is not known. One
/// that never started takes as long as it might. `None`: to the end of the period.
fn stay_us(run: &PastRun, since_us: u64, attempt: u32) -> Option<u64> {
    let Some(last) = run.spells.last() else {
        return run
            .spec
            .time_limit_ms
            .map(|limit_ms| limit_ms.saturating_mul(1_000));
    };
    let began_us = if attempt == 1 {
        // Its first devices here are those that it held when the period began.
        last.placed_us.max(since_us)
    } else {
        last.placed_us
    };
    let (_, at_us) = run.end.as_ref()?;
    Some(last.ended_us.unwrap_or(*at_us).saturating_sub(began_us))
}
