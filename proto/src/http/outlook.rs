//! What a waiting run has before it: shared by `runs explain` and the dry run of a submit.

use serde::{Deserialize, Serialize};

/// What a waiting run has before it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct OutlookView {
    /// Its place in the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<PositionView>,
    /// Who holds what it needs, first to leave first; at most a few.
    #[serde(default)]
    pub holders: Vec<HolderView>,
    /// Holders that are not named.
    #[serde(default)]
    pub more_holders: u64,
    /// Who is to give way to it as things stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gives_way: Option<GivesWayView>,
    /// When it starts, where enough is known to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartView>,
    /// The next plans place it as it is.
    #[serde(default)]
    pub starts_now: bool,
    /// The smallest changes that would start it now, smallest first; each was planned.
    #[serde(default)]
    pub changes: Vec<ChangeView>,
}

/// A place in the order: the tenant's turn in the pool, and the run's place within its tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PositionView {
    /// Runs of its tenant that are looked at before it.
    pub ahead: u64,
    /// Runs of its tenant that wait in the pool, itself among them.
    pub waiting: u64,
    /// Its tenant's turn among the tenants that wait in the pool, from 1.
    pub turn: u64,
    /// Tenants that wait in the pool.
    pub turns: u64,
    /// Why the tenant right before it goes first; absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A run that holds some of what another waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HolderView {
    /// Run.
    pub run: String,
    /// Its tenant.
    pub tenant: String,
    /// What it holds, in thousandths of GPUs.
    pub held_milli: u64,
    /// It has been told to stop.
    #[serde(default)]
    pub stopping: bool,
    /// Its time limit ends it then at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<u64>,
    /// Its time limit, where it has not begun to count yet. Without this and `until_us`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_us: Option<u64>,
}

/// Runs that are to be stopped for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GivesWayView {
    /// Those runs.
    pub runs: Vec<String>,
    /// From when on they may be stopped.
    pub at_us: u64,
}

/// An interval for a start: four of five are meant to fall within.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartView {
    /// When those before it end as early as one in ten like them did.
    pub earliest_us: u64,
    /// When they end as late as nine in ten, or at their time limits.
    pub latest_us: u64,
}

/// A change that would start it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeView {
    /// As typed: `--gpus 3`.
    pub flags: String,
    /// What it means.
    pub words: String,
    /// Who would be stopped for it; empty: there is room.
    #[serde(default)]
    pub gives_way: Vec<String>,
}
