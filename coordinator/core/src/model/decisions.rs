//! What was decided about a run and why, with what it takes to decide it again: the log index that was
//! looked at and the time. A state is the same wherever it stands at one index (I11), and plans and
//! admission are functions of state and time, so the inputs of a decision are the log itself and nothing
//! of them is copied.

use super::{DeviceId, NodeName, RunId, TenantName};
use serde::{Deserialize, Serialize};

/// One decision about one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Log index of the state that was looked at.
    pub index: u64,
    /// The time that was decided at.
    pub now_us: u64,
    /// Version of the program that decided.
    pub version: String,
    /// The run; absent: its submit was refused.
    pub run: Option<RunId>,
    /// Whose it is.
    pub tenant: TenantName,
    /// What was decided.
    pub verdict: Verdict,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was given devices.
    Granted {
        /// For which attempt.
        attempt: u32,
        /// By rank.
        members: Vec<GrantedMember>,
        /// Digest of the whole plan.
        plan: String,
    },
    /// It was told to stop for another.
    Preempted {
        /// Which attempt.
        attempt: u32,
        /// For which run.
        claimant: RunId,
        /// Devices times microseconds of work that it had not saved.
        lost_gpu_us: u64,
        /// Digest of the whole plan.
        plan: String,
    },
    /// It is the first of its tenant in its pool and has to wait.
    Waits {
        /// For what kind of thing.
        tier: String,
        /// In one sentence.
        summary: String,
        /// Counts.
        reasons: Vec<String>,
    },
    /// Its submit was refused.
    Refused {
        /// Who submitted it.
        actor: String,
        /// Why.
        message: String,
    },
}

/// Where a member went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedMember {
    /// Node.
    pub node: NodeName,
    /// Devices.
    pub devices: Vec<DeviceId>,
}
