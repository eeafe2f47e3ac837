//! Which runs leave their devices idle, from readings of the devices.
//!
//! Pure: readings come in with the leader's time, and what is to be said in the log comes out. What was
//! not read is never idle: a reading that a device does not support, an agent that is away, a leader that
//! has just begun and a clock that stands still all begin the stretch anew or do not lengthen it.
//!
//! A device is idle while its compute is used less than the policy says on average over a window; it is
//! in use again at twice that, so that a reading around the line writes nothing into the log. Memory that
//! is at least half full counts as use whatever the compute does: a model that is held ready is not called
//! idle. Drivers tell of a device and not of a run, so one that is shared is idle when all its holders
//! leave it so.

use crate::model::{DeviceId, IdlePolicy, MemberPhase, Run, RunId};
use crate::state::{DeviceUse, IdleStretch, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A device unread for so long is not known to idle. Agents read theirs every ten seconds; a few may go
/// astray.
pub const UNREAD_AFTER_US: u64 = 45_000_000;

/// The longest window of the average: long enough to see a step of training between its pauses.
const LONGEST_WINDOW_US: u64 = 5 * 60 * 1_000_000;

/// Readings of all devices that a stretch begins with at the least.
const LEAST_READINGS: usize = 3;

/// Uses in one command at most, so that one log entry stays small.
const MOST_USES: usize = 1_024;

/// What a node said of one device, and when the leader heard it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// By the leader's clock.
    pub at_us: u64,
    /// Of its compute; absent: the device does not tell.
    pub used_percent: Option<f64>,
    /// Of its memory; absent: the device does not tell.
    pub memory_used_mib: Option<u64>,
}

/// What is kept between looks: the newest reading of each device, and the stretch of each live run.
#[derive(Debug, Default)]
pub struct IdleWatch {
    readings: BTreeMap<DeviceId, Reading>,
    stretches: BTreeMap<RunId, Stretch>,
}

/// Looks at one attempt without a gap, within the window.
#[derive(Debug, Default)]
struct Stretch {
    attempt: u32,
    looks: VecDeque<Look>,
    idle: Option<IdleStretch>,
}

/// All devices of an attempt, as read since the look before.
#[derive(Debug)]
struct Look {
    at_us: u64,
    used_percent: Vec<f64>,
}

/// What the newest readings of all devices of an attempt say together.
enum Seen {
    /// Some device has not been read, or not since the look before, or does not tell.
    Nothing,
    /// Memory is in use.
    InUse,
    /// The compute of each device.
    Compute(Vec<f64>),
}

impl IdleWatch {
    /// Takes what was heard of a device.
    pub fn hear(&mut self, device: DeviceId, reading: Reading) {
        self.readings.insert(device, reading);
    }

    /// Looks at every live run and says what the state does not know yet, or is to act on.
    pub fn look(&mut self, state: &State, now_us: u64) -> Vec<DeviceUse> {
        self.readings
            .retain(|_, reading| now_us.saturating_sub(reading.at_us) <= UNREAD_AFTER_US);
        let policy = &state.policy().idle;
        let mut live = BTreeSet::new();
        let mut uses = Vec::new();
        for run in state.active_runs() {
            let Some(attempt) = run
                .last_attempt()
                .filter(|attempt| attempt.stopping.is_none() && attempt.started_us.is_some())
            else {
                continue;
            };
            let stretch = self.stretches.entry(run.id).or_default();
            if stretch.attempt != attempt.number || policy.warn_after_ms.is_none() {
                *stretch = Stretch {
                    attempt: attempt.number,
                    ..Stretch::default()
                };
            }
            live.insert(run.id);
            if policy.warn_after_ms.is_some() {
                stretch.look(run, &self.readings, policy, now_us);
            }
            if uses.len() < MOST_USES
                && let Some(idle) = stretch.news(state, run)
            {
                uses.push(DeviceUse {
                    run: run.id,
                    attempt: attempt.number,
                    idle,
                });
            }
        }
        self.stretches.retain(|id, _| live.contains(id));
        uses
    }
}

impl Stretch {
    fn look(
        &mut self,
        run: &Run,
        readings: &BTreeMap<DeviceId, Reading>,
        policy: &IdlePolicy,
        now_us: u64,
    ) {
        let last_us = self.looks.back().map(|look| look.at_us);
        if last_us.is_some_and(|at_us| at_us > now_us || now_us - at_us > UNREAD_AFTER_US) {
            self.begin_anew();
        }
        // What was read before the attempt had started tells nothing of it.
        let started_us = run.last_attempt().and_then(|attempt| attempt.started_us);
        match seen(run, readings, last_us.max(started_us)) {
            Seen::Nothing => {}
            Seen::InUse => self.begin_anew(),
            Seen::Compute(used_percent) => self.add(used_percent, policy, now_us),
        }
    }

    fn begin_anew(&mut self) {
        self.looks.clear();
        self.idle = None;
    }

    fn add(&mut self, used_percent: Vec<f64>, policy: &IdlePolicy, now_us: u64) {
        let below = f64::from(policy.below_percent);
        // A member of the gang has ended and its devices are read no more.
        if self
            .looks
            .back()
            .is_some_and(|look| look.used_percent.len() != used_percent.len())
        {
            self.begin_anew();
        }
        let is_idle_now = used_percent.iter().all(|used| *used < below);
        self.looks.push_back(Look {
            at_us: now_us,
            used_percent,
        });
        // Half of the wait for the warning where that is short, so that the window is over before it.
        let window_us = policy
            .warn_after_ms
            .map_or(LONGEST_WINDOW_US, |ms| ms.saturating_mul(500))
            .min(LONGEST_WINDOW_US);
        while self.looks.len() > LEAST_READINGS
            && now_us.saturating_sub(self.looks[1].at_us) >= window_us
        {
            self.looks.pop_front();
        }
        let most = self.most_used_percent();
        match &mut self.idle {
            Some(_) if most >= 2.0 * below => self.begin_anew(),
            // Nothing comes due by a reading that shows use, whatever the average says.
            Some(idle) if is_idle_now => idle.until_us = now_us,
            Some(_) => {}
            None => {
                let since_us = self.looks.front().map_or(now_us, |look| look.at_us);
                let is_long_enough = self.looks.len() >= LEAST_READINGS
                    && now_us.saturating_sub(since_us) >= window_us;
                if is_long_enough && is_idle_now && most < below {
                    self.idle = Some(IdleStretch {
                        since_us,
                        until_us: now_us,
                    });
                }
            }
        }
    }

    /// The average of the device that is used most.
    fn most_used_percent(&self) -> f64 {
        let devices = self.looks.back().map_or(0, |look| look.used_percent.len());
        (0..devices)
            .map(|device| {
                let sum: f64 = self
                    .looks
                    .iter()
                    .map(|look| look.used_percent[device])
                    .sum();
                sum / self.looks.len() as f64
            })
            .fold(0.0, f64::max)
    }

    /// What the state is to be told; `None` when it knows.
    fn news(&self, state: &State, run: &Run) -> Option<Option<IdleStretch>> {
        let known = state.idleness(run);
        match (known, self.idle) {
            (None, None) => None,
            (Some(_), None) => Some(None),
            (None, Some(idle)) => Some(Some(idle)),
            (Some(known), Some(idle)) => {
                let mut seen = *known;
                seen.seen_until_us = idle.until_us;
                let is_due = state
                    .policy()
                    .idle
                    .step(&seen, run.justification.as_deref())
                    .is_some();
                (known.since_us != idle.since_us || is_due).then_some(Some(idle))
            }
        }
    }
}

/// What the devices of a run's live members show, when all of them were read after `last_us`.
fn seen(run: &Run, readings: &BTreeMap<DeviceId, Reading>, last_us: Option<u64>) -> Seen {
    let grants = run
        .last_attempt()
        .into_iter()
        .flat_map(|attempt| &attempt.members)
        .filter(|member| member.phase != MemberPhase::Ended)
        .flat_map(|member| &member.devices);
    let mut compute = Vec::new();
    for grant in grants {
        let Some(reading) = readings
            .get(&grant.device)
            .filter(|reading| last_us.is_none_or(|last_us| reading.at_us > last_us))
        else {
            return Seen::Nothing;
        };
        let (Some(used_percent), Some(used_mib)) = (reading.used_percent, reading.memory_used_mib)
        else {
            return Seen::Nothing;
        };
        if used_mib.saturating_mul(2) >= grant.memory_mib {
            return Seen::InUse;
        }
        if !used_percent.is_finite() {
            return Seen::Nothing;
        }
        compute.push(used_percent.max(0.0));
    }
    match compute.is_empty() {
        // A run without devices leaves none idle.
        true => Seen::Nothing,
        false => Seen::Compute(compute),
    }
}
