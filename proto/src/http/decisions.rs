//! What was decided about runs, and whether it is decided again alike.

use serde::{Deserialize, Serialize};

/// GET /v1/runs/{run}/decisions and GET /v1/decisions: in order of time, the newest of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionList {
    /// Decisions.
    pub decisions: Vec<DecisionView>,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    /// Number that it is asked for by.
    pub id: u64,
    /// When it was recorded.
    pub at_us: u64,
    /// Log index of the state that was looked at.
    pub index: u64,
    /// The time that was decided at.
    pub decided_us: u64,
    /// Version of the coordinator that decided.
    pub version: String,
    /// The run; absent: its submit was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Whose it is.
    pub tenant: String,
    /// `granted`, `preempted`, `waits` or `refused`.
    pub verdict: String,
    /// Granted or preempted: which attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Granted: where each member went, by rank.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<DecidedMember>,
    /// Preempted: for which run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimant: Option<String>,
    /// Preempted: GPU-microseconds of work that it had not saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_gpu_us: Option<u64>,
    /// Waits: for what kind of thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Waits or refused: why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Waits: counts of nodes by what they lack.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Refused: who submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Granted or preempted: digest of the whole plan, BLAKE3 in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
}

/// Where a member went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedMember {
    /// Node.
    pub node: String,
    /// Devices.
    pub devices: Vec<String>,
}

/// GET /v1/decisions/{id}/replay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionReplay {
    /// As it was decided.
    pub decision: DecisionView,
    /// Whether the same state and time decide it again alike.
    pub same: bool,
    /// What is decided instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
    /// Version of the coordinator that decided again.
    pub version: String,
}
