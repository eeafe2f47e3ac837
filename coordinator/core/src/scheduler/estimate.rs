//! When a waiting run starts: an interval, from how long runs like those that hold have lasted and from
//! their time limits, played forward through real plans. Where nothing is known it says nothing.
//!
//! Two futures are played: one in which every run ends as early as one in ten like it did, one in which
//! it ends as late as nine in ten. The truth mixes early and late ends, so the interval errs on the wide
//! side. How many starts fall within theirs has not been measured, so nobody is told a probability.

use super::Trial;
use super::outlook::{Until, until};
use crate::model::{EndKind, Run, RunId, RunPhase, UserName};
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};

/// Ended runs looked at, newest first: weeks of a team's work, and a scan that takes no time.
const MOST_ENDED: usize = 4096;
/// Fewer say nothing about the next.
const LEAST_SAMPLES: usize = 3;
/// Plans made for each future. Where more runs end, several end at once.
const MOST_PLANS: usize = 24;
/// What a run that is told to stop is given to save what it has.
const STOP_GRACE_US: u64 = 30_000_000;

/// An interval for a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// When others end early.
    pub earliest_us: u64,
    /// When they end late.
    pub latest_us: u64,
}

impl Estimate {
    /// Whether a start at this time is as estimated.
    pub fn holds(&self, start_us: u64) -> bool {
        (self.earliest_us..=self.latest_us).contains(&start_us)
    }
}

/// How long ended runs held their devices, by who submitted them and for what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Durations {
    of_likes: BTreeMap<(UserName, String), Vec<u64>>,
    of_users: BTreeMap<UserName, Vec<u64>>,
}

/// Which future is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Future {
    Early,
    Late,
}

impl Durations {
    /// What the newest ended runs of a state have to say: of the whole state, for a live copy has
    /// forgotten them.
    pub fn of(state: &State) -> Self {
        let mut durations = Self::default();
        let ended = state.runs().values().rev().filter(|run| run.is_ended());
        for run in ended.take(MOST_ENDED) {
            durations.add(run);
        }
        for samples in durations.of_likes.values_mut() {
            samples.sort_unstable();
        }
        for samples in durations.of_users.values_mut() {
            samples.sort_unstable();
        }
        durations
    }

    fn add(&mut self, run: &Run) {
        let Some((placed_us, ended_us)) = run
            .last_attempt()
            .and_then(|attempt| Some((attempt.placed_us, attempt.ended_us?)))
        else {
            return;
        };
        let held_us = ended_us.saturating_sub(placed_us);
        self.of_likes
            .entry(likeness(run))
            .or_default()
            .push(held_us);
        self.of_users
            .entry(run.user.clone())
            .or_default()
            .push(held_us);
    }

    /// Of runs like this one, how long those lasted that lasted longer than `held_us`; `None` when too
    /// few are known.
    fn beyond(&self, run: &Run, held_us: u64) -> Option<&[u64]> {
        let samples = self
            .of_likes
            .get(&likeness(run))
            .filter(|samples| samples.len() >= LEAST_SAMPLES)
            .or_else(|| self.of_users.get(&run.user))
            .filter(|samples| samples.len() >= LEAST_SAMPLES)?;
        let first = samples.partition_point(|sample| *sample <= held_us);
        Some(&samples[first..]).filter(|beyond| !beyond.is_empty())
    }

    /// When a run that was placed then ends, if its time limit ends it at `limit_us` at the latest;
    /// `None`: for all that is known it never does.
    fn end_us(
        &self,
        run: &Run,
        placed_us: u64,
        now_us: u64,
        limit_us: Option<u64>,
        future: Future,
    ) -> Option<u64> {
        let held_us = now_us.saturating_sub(placed_us);
        let sampled = self.beyond(run, held_us).map(|samples| {
            let last = samples.len() - 1;
            placed_us.saturating_add(match future {
                Future::Early => samples[last / 10],
                Future::Late => samples[(last * 9).div_ceil(10)],
            })
        });
        let end_us = match (sampled, future) {
            (Some(end_us), _) => Some(end_us.min(limit_us.unwrap_or(u64::MAX))),
            (None, Future::Early) => Some(now_us),
            (None, Future::Late) => limit_us,
        };
        end_us.map(|end_us| end_us.max(now_us))
    }
}

fn likeness(run: &Run) -> (UserName, String) {
    let what = run.spec.model.as_ref().unwrap_or(&run.spec.name);
    (run.user.clone(), what.clone())
}

/// When a waiting run starts. Takes a copy of the state, best a [`State::live_copy`]; `None` when too
/// little is known, or the run does not wait.
pub fn estimate(state: State, durations: &Durations, id: RunId, now_us: u64) -> Option<Estimate> {
    let latest_us = start_in(state.clone(), durations, id, now_us, Future::Late)?;
    let earliest_us = start_in(state, durations, id, now_us, Future::Early)?;
    Some(Estimate {
        earliest_us: earliest_us.min(latest_us),
        latest_us,
    })
}

/// When the run starts in this future.
fn start_in(
    state: State,
    durations: &Durations,
    id: RunId,
    now_us: u64,
    future: Future,
) -> Option<u64> {
    let mut trial = Trial::new(state, now_us);
    let mut ends: BTreeSet<(u64, RunId, u32)> = trial
        .state()
        .active_runs()
        .filter_map(|run| {
            let at_us = end_us(run, durations, trial.now_us(), future)?;
            Some((at_us, run.id, run.last_attempt()?.number))
        })
        .collect();
    for plans_made in 0..MOST_PLANS {
        let plan = trial.plan();
        for preemption in &plan.preemptions {
            trial.end(preemption.run, &EndKind::Stopped);
        }
        for placement in &plan.placements {
            if placement.run == id {
                return Some(trial.now_us());
            }
            let run = trial.state().runs().get(&placement.run)?;
            if let Some(at_us) = end_us(run, durations, trial.now_us(), future) {
                ends.insert((at_us, placement.run, placement.attempt));
            }
        }
        if !plan.is_empty() {
            continue;
        }
        // What is left is spread over the plans that are left; the last sees them all.
        let at_once = ends.len().div_ceil((MOST_PLANS - 1 - plans_made).max(1));
        let again_us = plan.again_at_us.filter(|at_us| *at_us > trial.now_us());
        match (ends.first(), again_us) {
            (Some((end_us, ..)), Some(again_us)) if again_us < *end_us => {
                trial.advance_to(again_us);
            }
            (Some(_), _) => {
                for _ in 0..at_once {
                    let Some((at_us, run, attempt)) = ends.pop_first() else {
                        break;
                    };
                    trial.advance_to(at_us);
                    end_if_active(&mut trial, run, attempt);
                }
            }
            (None, Some(again_us)) => trial.advance_to(again_us),
            (None, None) => return None,
        }
    }
    None
}

fn end_if_active(trial: &mut Trial, id: RunId, attempt: u32) {
    let is_active = trial.state().runs().get(&id).is_some_and(|run| {
        run.phase == RunPhase::Active
            && run
                .last_attempt()
                .is_some_and(|last| last.number == attempt)
    });
    if is_active {
        trial.end(id, &EndKind::Exited { code: 0 });
    }
}

/// When a live run ends in this future.
fn end_us(run: &Run, durations: &Durations, now_us: u64, future: Future) -> Option<u64> {
    let placed_us = run.last_attempt()?.placed_us;
    let limit_us = match until(run) {
        Until::Stopping => {
            let grace_us = match future {
                Future::Early => 0,
                Future::Late => STOP_GRACE_US,
            };
            return Some(now_us.saturating_add(grace_us));
        }
        Until::Latest { at_us } => Some(at_us),
        Until::AfterStart { limit_us } => Some(now_us.saturating_add(limit_us)),
        Until::NoLimit => None,
    };
    durations.end_us(run, placed_us, now_us, limit_us, future)
}
