//! Who goes first: priority, then level, then the order within a level, then submission.

use super::levels::OVERDUE;
use super::{Contender, WithinLevel};
use crate::model::RunId;

/// The place of a run among a tenant's: the smaller goes first, the largest makes way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) priority: u32,
    pub(super) level: u32,
    within: (u64, u64),
    submitted_us: u64,
    pub(super) run: RunId,
}

impl Key {
    pub(super) fn of(contender: &Contender, level: u32, within: WithinLevel) -> Self {
        let predicted_us = contender.predicted_us.unwrap_or(u64::MAX);
        Self {
            priority: contender.priority,
            level,
            within: match within {
                // Whoever came first has waited longest.
                _ if level == OVERDUE => (0, 0),
                WithinLevel::SmallestGang => (contender.demand.gpu_milli, predicted_us),
                WithinLevel::ShortestPredicted => (predicted_us, 0),
                WithinLevel::FirstSubmitted => (0, 0),
            },
            submitted_us: contender.submitted_us,
            run: contender.run,
        }
    }

    /// Whether a run of this place may stop another of its own tenant. Equals never displace each
    /// other, so that two runs of a level cannot do so in turn.
    pub(super) fn displaces_own(&self, other: &Self) -> bool {
        (self.priority, self.level) < (other.priority, other.level)
    }

    /// Order of heads of different tenants, whose priorities do not compare.
    pub(super) fn across_tenants(&self) -> (u32, (u64, u64), u64, RunId) {
        (self.level, self.within, self.submitted_us, self.run)
    }
}
