//! How long runs that are alike took lately, and what that foretells of the next.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Ended runs that the median is taken over.
const RECENT_RUNS: usize = 16;
/// Ended runs without which there is no prediction.
const FEWEST_RUNS: usize = 3;

/// Durations of the latest ended runs of a group, in whatever unit the caller counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecentDurations(VecDeque<u64>);

impl RecentDurations {
    /// A run of the group has ended.
    pub fn add(&mut self, took: u64) {
        if self.0.len() >= RECENT_RUNS {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    /// Their median; absent while there are too few to say anything.
    pub fn median(&self) -> Option<u64> {
        if self.0.len() < FEWEST_RUNS {
            return None;
        }
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        Some(sorted[sorted.len() / 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_predicted_by_the_median_of_its_recent_runs() {
        let mut recent = RecentDurations::default();
        for took in [10, 1_000] {
            recent.add(took);
        }
        assert_eq!(recent.median(), None);
        recent.add(30);
        assert_eq!(recent.median(), Some(30));
        for _ in 0..RECENT_RUNS {
            recent.add(500);
        }
        assert_eq!(recent.median(), Some(500));
    }
}
