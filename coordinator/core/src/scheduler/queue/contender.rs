//! What the engine is told: who contends, for how much, by which rules.

use crate::model::{Levels, QueuePlace, RunId, WithinLevel};

/// What a run asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Demand {
    /// Equal for runs that any room serves alike, so that one's refusal speaks for the others.
    pub shape: u32,
    /// Thousandths of GPUs of the whole gang.
    pub gpu_milli: u64,
}

/// How much of a run's work its stop would lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// Nothing: it writes a checkpoint when told to stop.
    AtStop,
    /// All since this moment.
    Until(u64),
    /// All since it started.
    Never,
}

/// A run that waits or holds room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contender {
    /// Which.
    pub run: RunId,
    /// Index into the shares.
    pub tenant: usize,
    /// What it asks for.
    pub demand: Demand,
    /// 0 goes first. Counts within the tenant only.
    pub priority: u32,
    /// When it was submitted.
    pub submitted_us: u64,
    /// Service so far, the current spell left out.
    pub attained_gpu_milli_us: u128,
    /// Waiting so far, the current spell left out.
    pub waited_us: u64,
    /// Whether it may be stopped for others. One that may not never borrows.
    pub is_preemptible: bool,
    /// Whole duration as predicted, where a predictor has proved itself.
    pub predicted_us: Option<u64>,
    /// Time that a stop and another start cost in any case.
    pub stop_cost_us: u64,
    /// What a stop would lose beside that.
    pub checkpoint: Checkpoint,
}

impl Contender {
    /// Its place among its tenant's while it stands in this level.
    pub(super) fn place(&self, level: u32, within: WithinLevel) -> QueuePlace {
        let rank = within.rank(level, self.demand.gpu_milli, self.predicted_us);
        QueuePlace::new(self.priority, level, rank, self.submitted_us, self.run)
    }
}

/// What a tenant may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Guaranteed, in thousandths of GPUs.
    pub quota_milli: u64,
    /// Ceiling with borrowing.
    pub limit_milli: u64,
    /// How much of its idle quota others may use.
    pub lend_milli: u64,
}

impl Share {
    /// A quota that lends all that idles and borrows without a ceiling.
    pub fn of_quota(quota_milli: u64) -> Self {
        Self {
            quota_milli,
            limit_milli: u64::MAX,
            lend_milli: u64::MAX,
        }
    }
}

/// What an operator may set of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The thresholds of attained service.
    pub levels: Levels,
    /// Order within a level.
    pub within: WithinLevel,
    /// Waiting, in all, after which a run stands before every level, for good.
    pub starvation_bound_us: Option<u64>,
    /// Thousandths of GPUs of running runs that may move to make room for one start. 0: none moves.
    pub most_moved_gpu_milli: u64,
    /// How long a run holds its room before it may be stopped for others.
    pub minimum_run_us: u64,
}

impl Rules {
    /// The standard levels; twelve days until nothing more may pass a run by; up to one node of eight
    /// GPUs moved for one start. Found on the Philly trace and held on resampled ones
    /// (docs/performance.md).
    pub fn standard() -> Self {
        const DAY_US: u64 = 86_400_000_000;
        Self {
            levels: Levels::standard(),
            within: WithinLevel::SmallestGang,
            starvation_bound_us: Some(12 * DAY_US),
            most_moved_gpu_milli: 8_000,
            minimum_run_us: 0,
        }
    }

    /// Plain least-attained service as Tiresias has it: two levels at an hour of one GPU, in order
    /// of submission, no bound and no moving. To compare with.
    pub fn least_attained() -> Self {
        Self {
            levels: Levels::geometric(2, 3_600 * 1_000 * 1_000_000, 2),
            within: WithinLevel::FirstSubmitted,
            starvation_bound_us: None,
            most_moved_gpu_milli: 0,
            minimum_run_us: 0,
        }
    }
}
