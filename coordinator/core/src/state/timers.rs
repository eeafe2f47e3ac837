//! What comes due by the passing of time alone: runs that wait before they are tried again, and runs
//! that had to start by now.
//!
//! Held outside of the lines that a plan looks along, in order of time, so that a run which waits for
//! a moment costs a plan nothing. Time enters by the log: whatever entry brings it lets go of runs
//! whose wait is over, and the leader sends [`super::Command::Tick`] when something is due and
//! nothing else happens.

use super::{Event, State};
use crate::model::{Cancellation, Run, RunId, RunPhase, Submission};
use std::collections::BTreeSet;

/// Who ends a run that did not start in time.
const BY_DEADLINE: &str = "its start deadline";

/// Moments that something waits for, first to come first. Derived from the runs and not stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timers {
    held: BTreeSet<(u64, RunId)>,
    start_by: BTreeSet<(u64, RunId)>,
}

impl Timers {
    fn next_us(&self) -> Option<u64> {
        [&self.held, &self.start_by]
            .into_iter()
            .filter_map(|moments| moments.first())
            .map(|(at_us, _)| *at_us)
            .min()
    }
}

/// By when a run has to have started; `None` when it has no deadline, or has started already.
fn start_by_us(run: &Run) -> Option<u64> {
    let deadline_ms = run.spec.start_deadline_ms?;
    let has_started = run
        .attempts
        .iter()
        .any(|attempt| attempt.started_us.is_some());
    (!has_started).then(|| {
        run.submitted_us
            .saturating_add(deadline_ms.saturating_mul(1000))
    })
}

fn take_due(moments: &mut BTreeSet<(u64, RunId)>, now_us: u64) -> Option<RunId> {
    let first = *moments.first().filter(|(at_us, _)| *at_us <= now_us)?;
    moments.remove(&first);
    Some(first.1)
}

impl State {
    /// When something happens by the passing of time alone, if anything does.
    pub fn next_due_us(&self) -> Option<u64> {
        self.timers.next_us()
    }

    /// When the first of the runs that are held may be placed again.
    pub fn next_release_us(&self) -> Option<u64> {
        self.timers.held.first().map(|(at_us, _)| *at_us)
    }

    /// Whether a waiting run is held: not to be placed before its time.
    pub fn is_held(&self, run: &Run) -> bool {
        run.phase == RunPhase::Queued && run.held_until_us.is_some_and(|at| at > self.time_us)
    }

    /// How many runs are held.
    pub fn held(&self) -> usize {
        self.timers.held.len()
    }

    /// A run begins to wait: in its line, or for its time.
    pub(super) fn enqueue(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else {
            return;
        };
        let filed = self.filed(run);
        match run.held_until_us.filter(|at_us| *at_us > self.time_us) {
            Some(at_us) => {
                self.timers.held.insert((at_us, id));
            }
            None => self.queues.insert(run, filed),
        }
        self.note_start_deadline(id);
    }

    /// A run waits, in whatever way, and may have to start by some time.
    pub(super) fn note_start_deadline(&mut self, id: RunId) {
        if let Some(at_us) = self.runs.get(&id).and_then(start_by_us) {
            self.timers.start_by.insert((at_us, id));
        }
    }

    /// A run waits no longer. To be called before anything of it changes that says where it waits.
    pub(super) fn dequeue(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else {
            return;
        };
        if let Some(at_us) = run.held_until_us {
            self.timers.held.remove(&(at_us, id));
        }
        if let Some(at_us) = start_by_us(run) {
            self.timers.start_by.remove(&(at_us, id));
        }
        self.queues.remove(run);
        self.claimants.remove(&id);
    }

    /// Runs whose wait is over stand in their lines again. Called whenever time has moved.
    pub(super) fn release_held(&mut self) {
        while let Some(id) = take_due(&mut self.timers.held, self.time_us) {
            self.file_anew(id);
        }
    }

    /// Time has passed: ends the runs that had to start by now.
    pub(super) fn pass_time(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(id) = take_due(&mut self.timers.start_by, self.time_us) {
            let Some(run) = self.runs.get(&id) else {
                continue;
            };
            let spec = run.spec.clone();
            let cancellation = Cancellation {
                by: BY_DEADLINE.to_owned(),
                reason: Some(format!(
                    "it did not start within {} s of its submission",
                    spec.start_deadline_ms.unwrap_or(0).div_ceil(1000)
                )),
            };
            self.end_waiting(id, cancellation);
            self.forget_follower(Submission::Run(id), &spec);
            events.push(Event::RunEnded { run: id });
            events.extend(self.after_end(id));
        }
        events
    }

    /// The timers as they follow from the runs.
    pub(super) fn retime(&mut self) {
        self.timers = Timers::default();
    }
}
