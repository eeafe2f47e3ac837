//! Runs whose devices idle: noted, warned, justified, and stopped at last.
//!
//! What the devices do is read by the leader and told in sparse commands: that all devices of an attempt
//! idle, that they do no longer, and once more when a warning or a stop is due. Both happen only by what
//! a reading has seen, so that an agent that is away, a leader that was away and a clock that jumps cost
//! no run anything.

use super::accounts::last_attempt_cost_micro;
use super::runs::unknown_run;
use super::{DeviceUse, Event, Outcome, State};
use crate::model::{
    Cancellation, IdlePolicy, IdleStep, Idleness, Justification, Run, RunId, RunPhase, StopReason,
    money_text, utc_text,
};
use crate::policy::{Refusal, RefusalKind};

/// Who ends a run whose devices idled for too long.
const BY_POLICY: &str = "the policy of idle devices";
const LONGEST_REASON: usize = 500;
/// 30 days: beyond that an idle device is somebody's own.
const LONGEST_IDLE_MS: u64 = 30 * 24 * 3_600 * 1000;
/// A shorter wait would be over before three readings have been taken.
const SHORTEST_IDLE_MS: u64 = 1000;

impl State {
    pub(super) fn note_uses(&mut self, uses: &[DeviceUse]) -> Vec<Event> {
        uses.iter().flat_map(|seen| self.note_use(seen)).collect()
    }

    fn note_use(&mut self, seen: &DeviceUse) -> Vec<Event> {
        let (time_us, policy) = (self.time_us, self.policy.idle.clone());
        let Some(run) = self.runs.get_mut(&seen.run) else {
            return Vec::new();
        };
        let justification = run.justification.as_deref();
        let Some(attempt) = run
            .attempts
            .last_mut()
            .filter(|attempt| attempt.number == seen.attempt)
            .filter(|attempt| !attempt.is_over() && attempt.stopping.is_none())
        else {
            return Vec::new();
        };
        let Some(stretch) = seen.idle.filter(|_| policy.warn_after_ms.is_some()) else {
            return match attempt.idle.take() {
                Some(_) => vec![Event::IdlenessChanged { run: seen.run }],
                None => Vec::new(),
            };
        };
        // Nothing idles before it has started, or in a time that has not come.
        let credible = stretch.since_us <= stretch.until_us
            && stretch.until_us <= time_us
            && attempt
                .started_us
                .is_some_and(|started_us| started_us <= stretch.since_us);
        if !credible {
            return Vec::new();
        }
        let known = attempt
            .idle
            .filter(|known| known.since_us == stretch.since_us);
        let mut idle = Idleness {
            since_us: stretch.since_us,
            seen_until_us: stretch
                .until_us
                .max(known.map_or(0, |known| known.seen_until_us)),
            warned_us: known.and_then(|known| known.warned_us),
        };
        match policy.step(&idle, justification) {
            Some(IdleStep::Warn) => idle.warned_us = Some(time_us),
            Some(IdleStep::Stop) => {
                attempt.idle = Some(idle);
                return self.stop_idle(seen.run, &idle);
            }
            None => {}
        }
        let told_more =
            known.is_none() || known.and_then(|known| known.warned_us) != idle.warned_us;
        attempt.idle = Some(idle);
        match told_more {
            true => vec![Event::IdlenessChanged { run: seen.run }],
            false => Vec::new(),
        }
    }

    /// Stops a run as cancelled, with its grace: what idles does not wait in line for more of it.
    fn stop_idle(&mut self, id: RunId, idle: &Idleness) -> Vec<Event> {
        let currency = self.policy.currency.clone();
        let Some(run) = self.runs.get_mut(&id) else {
            return Vec::new();
        };
        let cost_micro = last_attempt_cost_micro(run, idle.since_us, idle.seen_until_us);
        run.cancelled = Some(Cancellation {
            by: BY_POLICY.to_owned(),
            reason: Some(format!(
                "its devices idled for {}, which cost {}",
                span_words(idle.seen_until_us.saturating_sub(idle.since_us)),
                money_text(cost_micro, &currency)
            )),
        });
        self.stop_attempt(id, StopReason::Idle)
    }

    /// When the run is stopped if its devices go on idling and nobody justifies it; `None`: it is not
    /// warned, or not stopped for that.
    pub fn idle_stop_at_us(&self, run: &Run) -> Option<u64> {
        let idle = self.idleness(run)?;
        self.policy
            .idle
            .stop_at_us(idle, run.justification.as_deref())
    }

    /// That the devices of a live run idle.
    pub fn idleness<'a>(&self, run: &'a Run) -> Option<&'a Idleness> {
        (run.phase == RunPhase::Active)
            .then(|| run.last_attempt()?.idle.as_ref())
            .flatten()
    }

    /// What the devices of a run have cost since they idle, in millionths of the currency, until a
    /// moment.
    pub fn idle_cost_micro(&self, run: &Run, until_us: u64) -> u64 {
        self.idleness(run).map_or(0, |idle| {
            last_attempt_cost_micro(run, idle.since_us, until_us)
        })
    }

    /// The warning that a run has been given, in words that stay the same while it stands.
    pub fn idle_notice(&self, run: &Run) -> Option<String> {
        let idle = self.idleness(run)?;
        let warned_us = idle.warned_us?;
        let mut text = format!(
            "the GPUs of {} have idled since {}, which has cost {} until now",
            run.id,
            utc_text(idle.since_us),
            money_text(self.idle_cost_micro(run, warned_us), &self.policy.currency)
        );
        // Without what a justification adds: that is said where it is asked for.
        if let Some(at_us) = self.policy.idle.stop_at_us(idle, None) {
            text.push_str(&format!(
                "; the run is stopped at {} unless they are used, or it is justified with: platform runs justify {} --reason TEXT",
                utc_text(at_us),
                run.id
            ));
        }
        Some(text)
    }

    /// Whether a justification of so long would be taken, and for how long it would hold.
    pub fn check_justification(
        &self,
        id: RunId,
        reason: &str,
        for_ms: Option<u64>,
    ) -> Result<u64, Refusal> {
        let run = self.runs.get(&id).ok_or_else(|| unknown_run(id))?;
        if run.is_ended() {
            return Err(Refusal::new(
                RefusalKind::Conflict,
                format!("{id} has ended already"),
            ));
        }
        if reason.trim().is_empty()
            || reason.len() > LONGEST_REASON
            || reason.chars().any(char::is_control)
        {
            return Err(Refusal::invalid(
                "the reason is empty, too long or holds control characters",
            )
            .allowed(format!("1 to {LONGEST_REASON} bytes of text"))
            .hint("say what the GPUs are held for: --reason TEXT"));
        }
        let longest_ms = self.policy.idle.longest_justification_ms;
        let for_ms = for_ms.unwrap_or(longest_ms);
        if for_ms == 0 || for_ms > longest_ms {
            let allowed = match longest_ms {
                0 => "none: the policy takes no justification".to_owned(),
                _ => format!("up to {}", span_words(longest_ms.saturating_mul(1000))),
            };
            return Err(Refusal::refused(format!(
                "a justification for {} is not within the policy",
                span_words(for_ms.saturating_mul(1000))
            ))
            .allowed(allowed)
            .hint("justify it again when that is over"));
        }
        Ok(for_ms)
    }

    pub(super) fn justify(
        &mut self,
        id: RunId,
        by: &str,
        reason: &str,
        for_ms: Option<u64>,
    ) -> Outcome {
        let for_ms = self.check_justification(id, reason, for_ms)?;
        let time_us = self.time_us;
        if let Some(run) = self.runs.get_mut(&id) {
            run.justification = Some(Box::new(Justification {
                by: by.to_owned(),
                reason: reason.trim().to_owned(),
                at_us: time_us,
                until_us: time_us.saturating_add(for_ms.saturating_mul(1000)),
            }));
        }
        Ok(vec![Event::RunJustified { run: id }])
    }
}

/// Refuses waits that are out of range, or a stop that would come before its warning.
pub(super) fn check_idle_policy(idle: &IdlePolicy) -> Result<(), Refusal> {
    let in_range = |ms: u64| (SHORTEST_IDLE_MS..=LONGEST_IDLE_MS).contains(&ms);
    for (what, wait_ms) in [
        ("warning", idle.warn_after_ms),
        ("stop", idle.stop_after_ms),
    ] {
        if let Some(ms) = wait_ms.filter(|ms| !in_range(*ms)) {
            return Err(Refusal::invalid(format!(
                "a wait of {} before the {what} of idle devices is out of range",
                span_words(ms.saturating_mul(1000))
            ))
            .allowed("1 s to 30 d, or off"));
        }
    }
    if let Some(stop_ms) = idle.stop_after_ms
        && idle.warn_after_ms.is_none_or(|warn_ms| warn_ms >= stop_ms)
    {
        return Err(Refusal::invalid(format!(
            "a stop after {} of idle devices does not come after its warning",
            span_words(stop_ms.saturating_mul(1000))
        ))
        .allowed("a warning, and a stop later than that")
        .hint("turn the stop off with: --idle-stop-after off"));
    }
    if !(1..=50).contains(&idle.below_percent) {
        return Err(Refusal::invalid(format!(
            "devices that are idle below {} % of use are out of range",
            idle.below_percent
        ))
        .allowed("1 to 50"));
    }
    if idle.longest_justification_ms > LONGEST_IDLE_MS {
        return Err(Refusal::invalid(format!(
            "a justification for {} is out of range",
            span_words(idle.longest_justification_ms.saturating_mul(1000))
        ))
        .allowed("0 s to 30 d"));
    }
    Ok(())
}

/// A span of time in its largest unit that divides it well enough: `45 s`, `30 min`, `2 h`.
fn span_words(span_us: u64) -> String {
    let seconds = span_us / 1_000_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}
