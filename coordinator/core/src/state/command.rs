//! What may be asked of the state. A command asks; [`super::Event`]s say what happened.

use crate::model::{
    DeviceId, Epoch, MemberEnd, MemberKey, MemberPhase, NodeDescription, NodeName, Policy,
    PoolName, RunId, TenantName, Token, UserName, WorkloadSpec,
};
use serde::{Deserialize, Serialize};

/// One entry of the log: who asked for what, when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's clock when it proposed. `apply` takes the larger of this and the last.
    pub stamp_us: u64,
    /// Who: `user:ana`, `agent:node-1`, `leader`.
    pub actor: String,
    /// The same key gives the same answer, done once.
    pub idempotency_key: Option<String>,
    /// What.
    pub command: Command,
}

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Queue a run.
    Submit {
        /// As submitted; resolved in `apply`.
        spec: Box<WorkloadSpec>,
        /// Tenant of the submitter.
        tenant: TenantName,
        /// Submitter.
        user: UserName,
    },
    /// Stop a run, queued or active.
    Cancel {
        /// Run.
        run: RunId,
        /// Why.
        reason: Option<String>,
    },
    /// Grant what a plan proposes, as far as it still holds.
    Place {
        /// Each is checked on its own.
        placements: Vec<Placement>,
    },
    /// What a node says of its members.
    Report {
        /// Node.
        node: NodeName,
        /// In order.
        members: Vec<MemberReport>,
    },
    /// An agent has opened a session.
    RegisterNode {
        /// What it has.
        description: Box<NodeDescription>,
    },
    /// A node was unheard past its lease and margin.
    LoseNode {
        /// Node.
        node: NodeName,
    },
    /// No new allocations.
    Cordon {
        /// Node.
        node: NodeName,
        /// Why.
        reason: String,
    },
    /// Takes allocations again.
    Uncordon {
        /// Node.
        node: NodeName,
    },
    /// Cordon, then evict by a deadline.
    Drain {
        /// Node.
        node: NodeName,
        /// Why.
        reason: String,
        /// How long runs may still finish.
        grace_ms: u64,
    },
    /// The deadline of a drain has passed: stop what is left.
    Evict {
        /// Node.
        node: NodeName,
    },
    /// Create or describe a pool.
    SetPool {
        /// Pool.
        pool: PoolName,
        /// New description.
        description: Option<String>,
        /// `Some(true)`: must exist already; `Some(false)`: must not.
        must_exist: Option<bool>,
    },
    /// Create a tenant.
    CreateTenant {
        /// Tenant.
        tenant: TenantName,
    },
    /// Set or lift a quota.
    SetQuota {
        /// Tenant.
        tenant: TenantName,
        /// Pool.
        pool: PoolName,
        /// Thousandths of devices; absent: unlimited.
        gpu_milli: Option<u64>,
    },
    /// Replace the policy; its `version` must be the one in force.
    SetPolicy {
        /// New policy.
        policy: Box<Policy>,
    },
    /// Add a token.
    CreateToken {
        /// BLAKE3 of the secret, hex.
        hash: String,
        /// What it is for.
        token: Token,
    },
    /// Withdraw a token.
    RevokeToken {
        /// Its id.
        id: String,
    },
    /// The tracking store holds every outbox record up to here.
    AcknowledgeOutbox {
        /// Sequence.
        through: u64,
    },
}

/// Devices proposed for the next attempt of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// Run.
    pub run: RunId,
    /// Number that the attempt will have; refused when another attempt came between.
    pub attempt: u32,
    /// One for each member, by rank.
    pub members: Vec<MemberPlacement>,
}

/// Where one member goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberPlacement {
    /// Node.
    pub node: NodeName,
    /// Devices.
    pub devices: Vec<DeviceId>,
}

/// What a node says of one member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Member.
    pub key: MemberKey,
    /// Epoch it was granted with.
    pub epoch: Epoch,
    /// Where it is.
    pub phase: MemberPhase,
    /// What the node is doing.
    pub detail: Option<String>,
    /// How it ended, with `Ended`.
    pub end: Option<MemberEnd>,
    /// How caps are enforced.
    pub enforcement: Option<String>,
}

impl Command {
    /// Name in the audit log.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Submit { .. } => "run.submit",
            Self::Cancel { .. } => "run.cancel",
            Self::Place { .. } => "plan.place",
            Self::Report { .. } => "node.report",
            Self::RegisterNode { .. } => "node.register",
            Self::LoseNode { .. } => "node.lose",
            Self::Cordon { .. } => "node.cordon",
            Self::Uncordon { .. } => "node.uncordon",
            Self::Drain { .. } => "node.drain",
            Self::Evict { .. } => "node.evict",
            Self::SetPool { .. } => "pool.set",
            Self::CreateTenant { .. } => "tenant.create",
            Self::SetQuota { .. } => "quota.set",
            Self::SetPolicy { .. } => "policy.set",
            Self::CreateToken { .. } => "token.create",
            Self::RevokeToken { .. } => "token.revoke",
            Self::AcknowledgeOutbox { .. } => "outbox.acknowledge",
        }
    }
}
