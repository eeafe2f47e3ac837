//! What a period has seen, for a replay of it.

use super::runs::RunSpec;
use serde::{Deserialize, Serialize};

/// GET /v1/history: a page of the runs that had not ended when the period began, first submitted first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// Runs.
    pub runs: Vec<HistoryRun>,
    /// The arrays that they are of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arrays: Vec<HistoryArray>,
    /// The last run of this page, when there are more: `after` of the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A run of a period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryRun {
    /// `run-17`.
    pub id: String,
    /// What it asked for, without its command and environment.
    pub spec: RunSpec,
    /// Tenant that is charged.
    pub tenant: String,
    /// Who submitted it.
    pub user: String,
    /// When the submit was recorded.
    pub submitted_us: u64,
    /// The array that it is an element of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// When it held devices, first to last.
    pub spells: Vec<HistorySpell>,
    /// `succeeded`, `failed` or `cancelled`; absent: it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<u64>,
    /// GPU-microseconds held within the period: share times time.
    pub gpu_us: u64,
    /// What they cost, in millionths of the currency.
    pub cost_micro: u64,
}

/// A time in which a run held devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistorySpell {
    /// When they were granted.
    pub placed_us: u64,
    /// When the last was released; absent: it holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<u64>,
    /// It was stopped for another run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preempted: bool,
}

/// An array of a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryArray {
    /// `array-17`.
    pub id: String,
    /// Tenant that is charged.
    pub tenant: String,
    /// Who submitted it.
    pub user: String,
    /// Number of elements.
    pub size: u32,
    /// Elements that may be queued or alive at once; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_alive: Option<u32>,
}
