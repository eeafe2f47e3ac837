//! How long a run waits after an attempt failed before it is tried again, and in what words an end is
//! told.

use super::{EndKind, MemberEnd, Run};
use serde::{Deserialize, Serialize};

/// How long a run waits before it is tried again: twice as long after each failure, up to the longest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// After the first failure, in milliseconds; 0: at once, after every failure.
    pub first_wait_ms: u64,
    /// The longest, in milliseconds.
    pub longest_wait_ms: u64,
}

impl Default for RetryPolicy {
    /// Long enough that a run which fails at once does not take and give back its devices many times a
    /// second, short enough that whoever watches does not look away; the longest is what a service
    /// that is being restarted needs.
    fn default() -> Self {
        Self {
            first_wait_ms: 5_000,
            longest_wait_ms: 300_000,
        }
    }
}

impl RetryPolicy {
    /// How long a run waits that has failed so often, in milliseconds.
    pub fn wait_ms(&self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1);
        2_u64
            .checked_pow(doublings)
            .and_then(|times| self.first_wait_ms.checked_mul(times))
            .unwrap_or(if self.first_wait_ms == 0 { 0 } else { u64::MAX })
            .min(self.longest_wait_ms)
    }
}

impl MemberEnd {
    /// How it ended, in words: `exited with 1: no such file`.
    pub fn words(&self) -> String {
        let kind = match &self.kind {
            EndKind::Exited { code } => format!("exited with {code}"),
            EndKind::Signaled { signal } => format!("killed by signal {signal}"),
            EndKind::Stopped => "stopped".to_owned(),
            EndKind::TimeLimit => "ran into its time limit".to_owned(),
            EndKind::LaunchFailed { node_fault: true } => {
                "could not be started, by the node's fault".to_owned()
            }
            EndKind::LaunchFailed { node_fault: false } => "could not be started".to_owned(),
            EndKind::Fenced => "stopped by its node, which had lost its lease".to_owned(),
            EndKind::Lost => "lost".to_owned(),
            EndKind::OutOfMemory => "ran out of memory".to_owned(),
        };
        if self.message.is_empty() {
            kind
        } else {
            format!("{kind}: {}", self.message)
        }
    }
}

impl Run {
    /// What it waits for when it is held after a failure: `tries again in 20 s, attempt 2 of 4, because
    /// attempt 1 exited with 1`. `None` when it is not held.
    pub fn held_words(&self, now_us: u64) -> Option<String> {
        let until_us = self.held_until_us?;
        let last = self.last_attempt()?;
        let number = self.next_attempt();
        let most = number.saturating_add(self.spec.retries.saturating_sub(self.failures));
        let because = last
            .end
            .as_ref()
            .map_or_else(|| "failed".to_owned(), MemberEnd::words);
        Some(format!(
            "tries again in {} s, attempt {number} of {most}, because attempt {} {because}",
            until_us.saturating_sub(now_us).div_ceil(1_000_000),
            last.number
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_with_each_failure_up_to_the_longest() {
        let policy = RetryPolicy::default();
        for (failures, wait_ms) in [
            (1, 5_000),
            (2, 10_000),
            (3, 20_000),
            (6, 160_000),
            (7, 300_000),
            (64, 300_000),
            (u32::MAX, 300_000),
        ] {
            assert_eq!(policy.wait_ms(failures), wait_ms, "{failures} failures");
        }
        let at_once = RetryPolicy {
            first_wait_ms: 0,
            ..policy
        };
        assert_eq!((at_once.wait_ms(1), at_once.wait_ms(100)), (0, 0));
    }
}
