//! Devices that are granted and not used: since when, what the policy does about it, and who says that it
//! is right so.

use serde::{Deserialize, Serialize};

/// What happens to a run whose devices idle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdlePolicy {
    /// A device is idle while its compute is used less than this, in percent, on average.
    pub below_percent: u32,
    /// From when all devices of a run idle until its owner is warned, in milliseconds; absent: nobody is
    /// warned or stopped.
    pub warn_after_ms: Option<u64>,
    /// From when they idle until the run is stopped, in milliseconds; absent: it is not. Longer than
    /// the wait for the warning, for nobody is stopped unwarned.
    pub stop_after_ms: Option<u64>,
    /// The longest that one justification holds, in milliseconds.
    pub longest_justification_ms: u64,
}

impl Default for IdlePolicy {
    /// Half an hour passes over a meal; after two hours nobody comes back to it today. One reading of a
    /// hundred percent in twenty is still use, so less than one in twenty is none. Who justifies does
    /// so for a day's experiment, and again tomorrow.
    fn default() -> Self {
        Self {
            below_percent: 5,
            warn_after_ms: Some(30 * 60 * 1000),
            stop_after_ms: Some(120 * 60 * 1000),
            longest_justification_ms: 24 * 3_600 * 1000,
        }
    }
}

/// That every device of an attempt idles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idleness {
    /// Since when, without a gap in the readings.
    pub since_us: u64,
    /// When a reading last said so. What nobody has read is not counted against a run.
    pub seen_until_us: u64,
    /// When its owner was warned.
    pub warned_us: Option<u64>,
}

/// Why a run may hold devices that idle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Justification {
    /// Who says so.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was said.
    pub at_us: u64,
    /// Until when it holds.
    pub until_us: u64,
}

/// What is due of a run whose devices idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleStep {
    /// Its owner is to be warned.
    Warn,
    /// It is to be stopped.
    Stop,
}

impl IdlePolicy {
    /// When a run that idles is stopped if nothing changes; `None`: it has not been warned, or the
    /// policy stops nobody. Between its warning and its stop lies at least what lies between the two in
    /// the policy, also where the policy was changed or the warning came late.
    pub fn stop_at_us(
        &self,
        idle: &Idleness,
        justification: Option<&Justification>,
    ) -> Option<u64> {
        let (warn_ms, stop_ms) = (self.warn_after_ms?, self.stop_after_ms?);
        let notice_us = stop_ms.saturating_sub(warn_ms).saturating_mul(1000);
        let by_idleness = idle.since_us.saturating_add(stop_ms.saturating_mul(1000));
        let by_warning = idle.warned_us?.saturating_add(notice_us);
        let justified_us = justification.map_or(0, |justification| justification.until_us);
        Some(by_idleness.max(by_warning).max(justified_us))
    }

    /// What is due by what was last seen, and by nothing that was not seen.
    pub fn step(&self, idle: &Idleness, justification: Option<&Justification>) -> Option<IdleStep> {
        let warn_us = self.warn_after_ms?.saturating_mul(1000);
        if idle.warned_us.is_none() {
            let due_us = idle.since_us.saturating_add(warn_us);
            return (idle.seen_until_us >= due_us).then_some(IdleStep::Warn);
        }
        let stop_at_us = self.stop_at_us(idle, justification)?;
        (idle.seen_until_us >= stop_at_us).then_some(IdleStep::Stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: u64 = 60 * 1_000_000;

    fn idle(seen_minutes: u64, warned_minutes: Option<u64>) -> Idleness {
        Idleness {
            since_us: 0,
            seen_until_us: seen_minutes * MINUTE_US,
            warned_us: warned_minutes.map(|minutes| minutes * MINUTE_US),
        }
    }

    fn until(minutes: u64) -> Justification {
        Justification {
            by: "user:ana".to_owned(),
            reason: "a demonstration".to_owned(),
            at_us: 0,
            until_us: minutes * MINUTE_US,
        }
    }

    #[test]
    fn a_run_is_warned_then_stopped_and_never_stopped_without_its_notice() {
        let policy = IdlePolicy::default();
        let justified = until(300);
        let table = [
            ("just begun", idle(29, None), None, None),
            ("half an hour", idle(30, None), None, Some(IdleStep::Warn)),
            (
                "unwarned for hours",
                idle(500, None),
                None,
                Some(IdleStep::Warn),
            ),
            ("warned", idle(119, Some(30)), None, None),
            ("two hours", idle(120, Some(30)), None, Some(IdleStep::Stop)),
            ("warned late", idle(120, Some(100)), None, None),
            (
                "its notice over",
                idle(190, Some(100)),
                None,
                Some(IdleStep::Stop),
            ),
            ("justified", idle(120, Some(30)), Some(&justified), None),
            (
                "no longer",
                idle(300, Some(30)),
                Some(&justified),
                Some(IdleStep::Stop),
            ),
        ];
        for (story, idle, justification, expected) in table {
            assert_eq!(policy.step(&idle, justification), expected, "{story}");
        }
    }

    #[test]
    fn a_policy_that_stops_nobody_only_warns_and_one_without_a_warning_does_nothing() {
        let warns = IdlePolicy {
            stop_after_ms: None,
            ..IdlePolicy::default()
        };
        assert_eq!(warns.step(&idle(30, None), None), Some(IdleStep::Warn));
        assert_eq!(warns.step(&idle(9_999, Some(30)), None), None);
        let off = IdlePolicy {
            warn_after_ms: None,
            ..IdlePolicy::default()
        };
        assert_eq!(off.step(&idle(9_999, None), None), None);
        assert_eq!(off.step(&idle(9_999, Some(30)), None), None);
    }
}
