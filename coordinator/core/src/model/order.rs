//! Who goes first among a tenant's runs: priority, then level, then the order within a level, then
//! submission. The planner's queues and the queueing engine of traces order by the same places.

use super::RunId;
use serde::{Deserialize, Serialize};

/// Before every level of service: those that have waited as long as the rules allow.
pub const OVERDUE: u32 = 0;

/// How a pool orders a tenant's waiting runs of one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolOrder {
    /// As they were submitted.
    #[default]
    Fifo,
    /// The shortest first, as predicted from what its user's runs took before; those of which nothing
    /// is known last.
    ShortestPredicted,
    /// By level of the GPU time that they have had so far, the least first; within a level as they were
    /// submitted.
    LeastAttained,
}

impl PoolOrder {
    /// Every order, as written in the API.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Fifo, "fifo"),
        (Self::ShortestPredicted, "shortest-predicted"),
        (Self::LeastAttained, "least-attained"),
    ];

    /// As written in the API.
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find(|(order, _)| *order == self)
            .map_or("fifo", |(_, text)| text)
    }

    /// Reads [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(_, written)| *written == text)
            .map(|(order, _)| order)
    }
}

/// Order of runs of one priority and level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithinLevel {
    /// By size, then predicted duration where there is one, then submission.
    SmallestGang,
    /// By predicted duration, those without a prediction last, then submission.
    ShortestPredicted,
    /// By submission.
    FirstSubmitted,
}

impl WithinLevel {
    /// What a run of this size and predicted duration is ordered by in a level; smaller goes first.
    pub fn rank(self, level: u32, gpu_milli: u64, predicted_us: Option<u64>) -> (u64, u64) {
        let predicted_us = predicted_us.unwrap_or(u64::MAX);
        match self {
            // Whoever came first has waited longest.
            _ if level == OVERDUE => (0, 0),
            Self::SmallestGang => (gpu_milli, predicted_us),
            Self::ShortestPredicted => (predicted_us, 0),
            Self::FirstSubmitted => (0, 0),
        }
    }
}

/// The place of a run among a tenant's: the smaller goes first, the largest makes way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueuePlace {
    priority: u32,
    level: u32,
    rank: (u64, u64),
    submitted_us: u64,
    run: RunId,
}

impl QueuePlace {
    /// A place; of `priority` 0 goes first, and `rank` is [`WithinLevel::rank`]'s.
    pub fn new(priority: u32, level: u32, rank: (u64, u64), submitted_us: u64, run: RunId) -> Self {
        Self {
            priority,
            level,
            rank,
            submitted_us,
            run,
        }
    }

    /// The run that stands here.
    pub fn run(self) -> RunId {
        self.run
    }

    /// Its priority; 0 goes first.
    pub fn priority(self) -> u32 {
        self.priority
    }

    /// Its level; [`OVERDUE`] goes first.
    pub fn level(self) -> u32 {
        self.level
    }

    /// Whether a run of this place may stop another of its own tenant. Equals never displace each
    /// other, so that two runs of a level cannot do so in turn.
    pub fn displaces_own(&self, other: &Self) -> bool {
        (self.priority, self.level) < (other.priority, other.level)
    }

    /// Order of heads of different tenants, whose priorities do not compare.
    pub fn across_tenants(&self) -> (u32, (u64, u64), u64, RunId) {
        (self.level, self.rank, self.submitted_us, self.run)
    }
}
