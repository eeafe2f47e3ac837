//! What may be asked of the state. A command asks; [`super::Event`]s say what happened.

use crate::model::{
    ArrayId, ArrayRequest, Budget, Decision, DeviceId, Epoch, MemberEnd, MemberKey, MemberPhase,
    Meter, NodeDescription, NodeName, Policy, PoolName, PoolOrder, Role, RunId, TenantName, Token,
    UserName, WorkloadSpec,
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
        /// Role of the submitter's token; absent in entries written before priorities had classes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Role>,
    },
    /// Queue an array of runs.
    SubmitArray {
        /// What every element is, as submitted; resolved in `apply`.
        spec: Box<WorkloadSpec>,
        /// Which elements.
        request: Box<ArrayRequest>,
        /// Tenant of the submitter.
        tenant: TenantName,
        /// Submitter.
        user: UserName,
        /// Role of the submitter's token; absent in entries written before priorities had classes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Role>,
    },
    /// Stop every element of an array that has not ended.
    CancelArray {
        /// Array.
        array: ArrayId,
        /// Why.
        reason: Option<String>,
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
    /// Stop runs for others, as far as the plan still holds.
    Preempt {
        /// Each is checked on its own.
        preemptions: Vec<Preemption>,
    },
    /// What a node says of its members.
    Report {
        /// Node.
        node: NodeName,
        /// In order.
        members: Vec<MemberReport>,
    },
    /// What readings say of whether runs use their devices.
    NoteUse {
        /// Each is checked on its own.
        uses: Vec<DeviceUse>,
    },
    /// Say why the devices of a run may idle, and for how long.
    Justify {
        /// Run.
        run: RunId,
        /// Why.
        reason: String,
        /// For how long from now, in milliseconds; absent: as long as the policy lets one.
        for_ms: Option<u64>,
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
        /// How a tenant's waiting runs of one priority are ordered; absent: as before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        order: Option<PoolOrder>,
        /// How long a run may wait before it goes first whatever the order; absent: as before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        age_bound_ms: Option<u64>,
        /// `Some(true)`: must exist already; `Some(false)`: must not.
        must_exist: Option<bool>,
    },
    /// Create a tenant.
    CreateTenant {
        /// Tenant.
        tenant: TenantName,
        /// The tenant above it; absent: at the top.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<TenantName>,
        /// Its part beside its siblings; absent: 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
    },
    /// Move a tenant in the tree, or weigh it anew.
    SetTenant {
        /// Tenant.
        tenant: TenantName,
        /// Where it goes.
        parent: ParentChange,
        /// Its part beside its siblings; absent: as it is.
        weight: Option<u32>,
    },
    /// Set or take away a tenant's line in a pool.
    SetQuota(QuotaChange),
    /// Make a budget, or replace the one of its name; `created_us` is the state's to say.
    SetBudget {
        /// As it is to be.
        budget: Box<Budget>,
    },
    /// Remove a budget.
    RemoveBudget {
        /// Its name.
        name: String,
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
    /// Time has passed: what was due takes effect, and runs end that had to start by now.
    Tick,
    /// Keep what was decided for the books.
    KeepDecisions {
        /// In order.
        decisions: Vec<Decision>,
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

/// A run to be stopped and queued again, so that another can start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preemption {
    /// The run that gives way.
    pub run: RunId,
    /// Its attempt; refused when another came between.
    pub attempt: u32,
    /// The run that it gives way to.
    pub claimant: RunId,
}

/// A tenant's line in a pool, as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaChange {
    /// Tenant.
    pub tenant: TenantName,
    /// Pool.
    pub pool: PoolName,
    /// Device model, as nodes report it; absent: the line over all models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Guaranteed thousandths of devices; absent: no line.
    pub gpu_milli: Option<u64>,
    /// Ceiling; absent: none.
    #[serde(default)]
    pub limit_milli: Option<u64>,
    /// The most that others may use of it while it is idle; absent: all.
    #[serde(default)]
    pub lend_milli: Option<u64>,
}

impl QuotaChange {
    /// What the line is about.
    pub fn meter(&self) -> Meter<'_> {
        Meter {
            pool: &self.pool,
            model: self.model.as_deref(),
        }
    }
}

/// Where a tenant goes in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParentChange {
    /// It stays.
    Keep,
    /// To the top.
    Top,
    /// Under this tenant.
    Under(TenantName),
}

/// Whether an attempt uses its devices, as read from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceUse {
    /// Run.
    pub run: RunId,
    /// Its attempt; ignored when another came between.
    pub attempt: u32,
    /// That all its devices idle; absent: they are used, or it is not known.
    pub idle: Option<IdleStretch>,
}

/// A stretch without a gap in which every reading said idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleStretch {
    /// From the first of them.
    pub since_us: u64,
    /// To the last.
    pub until_us: u64,
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
    /// When the workload last said that all its work is saved, by the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpointed_us: Option<u64>,
}

impl Command {
    /// Name in the audit log.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Submit { .. } => "run.submit",
            Self::SubmitArray { .. } => "array.submit",
            Self::CancelArray { .. } => "array.cancel",
            Self::Cancel { .. } => "run.cancel",
            Self::Place { .. } => "plan.place",
            Self::Preempt { .. } => "plan.preempt",
            Self::Report { .. } => "node.report",
            Self::NoteUse { .. } => "run.use",
            Self::Justify { .. } => "run.justify",
            Self::RegisterNode { .. } => "node.register",
            Self::LoseNode { .. } => "node.lose",
            Self::Cordon { .. } => "node.cordon",
            Self::Uncordon { .. } => "node.uncordon",
            Self::Drain { .. } => "node.drain",
            Self::Evict { .. } => "node.evict",
            Self::SetPool { .. } => "pool.set",
            Self::CreateTenant { .. } => "tenant.create",
            Self::SetTenant { .. } => "tenant.set",
            Self::SetQuota(_) => "quota.set",
            Self::SetBudget { .. } => "budget.set",
            Self::RemoveBudget { .. } => "budget.remove",
            Self::SetPolicy { .. } => "policy.set",
            Self::CreateToken { .. } => "token.create",
            Self::RevokeToken { .. } => "token.revoke",
            Self::Tick => "clock.tick",
            Self::KeepDecisions { .. } => "decisions.keep",
            Self::AcknowledgeOutbox { .. } => "outbox.acknowledge",
        }
    }
}
