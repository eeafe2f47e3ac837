//! A platform's own history played again through the scheduler that planned it, with its quotas or
//! others: who would have waited how long, who would have been stopped, and what it would have cost.
//!
//! Played by [`coordinator_core::scheduler::Trial`]: the same commands, the same admission, the same
//! plans. What is known of a run is when it was submitted and how long it held its devices at last.
//! What cannot be known is assumed, and each assumption stands beside its code in [`replay`].

mod calibration;
mod figures;
mod proposal;
mod replay;

pub use calibration::{Calibration, Lead};
pub use figures::{Comparison, Figures, TenantComparison, compare};
pub use proposal::{Changes, PoolChange, propose};
pub use replay::{Progress, Replayed, replay};

use coordinator_core::model::{Array, PastRun};

/// What a period has seen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// When it begins.
    pub since_us: u64,
    /// When it ends.
    pub until_us: u64,
    /// Every run that had not ended when it began, first submitted first.
    pub runs: Vec<PastRun>,
    /// The arrays that any of them is of.
    pub arrays: Vec<Array>,
}

#[cfg(test)]
mod tests;
