//! Runs, their attempts and members, and how each may end.

use super::{
    DeviceId, Element, Epoch, Idleness, Justification, MemberKey, NodeName, PriceFrom, RunId,
    TenantName, UserName, WorkloadSpec,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One execution, from queue to end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Id.
    pub id: RunId,
    /// Resolved specification; never changes.
    pub spec: Arc<WorkloadSpec>,
    /// Tenant that is charged.
    pub tenant: TenantName,
    /// Who submitted it.
    pub user: UserName,
    /// When the submit was recorded.
    pub submitted_us: u64,
    /// Where it is.
    pub phase: RunPhase,
    /// First to last.
    pub attempts: Vec<Attempt>,
    /// Attempts that failed by the user's own making.
    pub failures: u32,
    /// Attempts that the platform lost.
    pub losses: u32,
    /// Somebody asked to stop it.
    pub cancelled: Option<Cancellation>,
    /// Others were stopped for it: it goes before all others until it is placed.
    #[serde(default)]
    pub has_claim: bool,
    /// Not to be placed before this time, for its last attempt has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until_us: Option<u64>,
    /// How long it was going to hold its devices, as foretold when it was submitted; absent: nothing
    /// was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_ms: Option<u64>,
    /// Its part in an array; absent: it is none's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<Box<Element>>,
    /// Why its devices may idle, as somebody said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<Box<Justification>>,
}

/// Who asked to stop a run, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cancellation {
    /// Who.
    pub by: String,
    /// Why, when told.
    pub reason: Option<String>,
}

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunPhase {
    /// Waits for other runs to end, or for its turn in its array, and is not looked at until then.
    Held,
    /// Waits to be placed.
    Queued,
    /// Its last attempt holds devices.
    Active,
    /// Over.
    Ended {
        /// How.
        outcome: RunOutcome,
        /// When.
        at_us: u64,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// Every member exited with 0.
    Succeeded,
    /// The last attempt's end says why.
    Failed,
    /// On request.
    Cancelled,
}

/// One try of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// Fences older holders.
    pub epoch: Epoch,
    /// When devices were granted.
    pub placed_us: u64,
    /// When the last member began to run.
    pub started_us: Option<u64>,
    /// When the last member was released.
    pub ended_us: Option<u64>,
    /// Why its members are being stopped.
    pub stopping: Option<StopReason>,
    /// How it ended: the first end that was not a success, else success.
    pub end: Option<MemberEnd>,
    /// By rank.
    pub members: Vec<Member>,
    /// What of its devices was above its tenant's quota when they were granted, in thousandths: a
    /// recorded borrow.
    #[serde(default)]
    pub borrowed_milli: u64,
    /// When one of its members last said that all its work is saved: what a stop would lose began then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpointed_us: Option<u64>,
    /// That all its devices idle, or did when it was told to stop; absent: not known to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idleness>,
}

/// Why an attempt is stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Cancelled by a user.
    Cancelled,
    /// Another member of the gang ended without success.
    MemberFailed,
    /// Its devices idled for longer than the policy lets them.
    Idle,
    /// Its node is drained.
    Evicted,
    /// Another run of its tenant, of higher priority, needs its devices.
    Preempted {
        /// That run.
        claimant: RunId,
    },
    /// It borrowed, and the owner of the quota needs it back.
    Reclaimed {
        /// The owner's run.
        claimant: RunId,
    },
}

impl StopReason {
    /// The run that this one was stopped for.
    pub fn claimant(&self) -> Option<RunId> {
        match self {
            Self::Preempted { claimant } | Self::Reclaimed { claimant } => Some(*claimant),
            Self::Cancelled | Self::MemberFailed | Self::Idle | Self::Evicted => None,
        }
    }
}

/// One member of an attempt, on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Where.
    pub node: NodeName,
    /// What it was granted; empty for a run without devices.
    pub devices: Vec<DeviceGrant>,
    /// CPU reserved, in thousandths.
    pub cpu_milli: u64,
    /// Memory reserved, MiB.
    pub memory_mib: u64,
    /// Where it is.
    pub phase: MemberPhase,
    /// What the node is doing while it prepares.
    pub detail: Option<String>,
    /// How caps are enforced, as the node says.
    pub enforcement: Option<String>,
    /// How it ended.
    pub end: Option<MemberEnd>,
    /// When its share came back.
    pub released_us: Option<u64>,
}

/// A granted share of a named device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceGrant {
    /// Device.
    pub device: DeviceId,
    /// Index on its node.
    pub index: u32,
    /// Model.
    pub model: String,
    /// Thousandths.
    pub share_milli: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Not a real GPU.
    pub simulated: bool,
    /// Price for each GPU-hour when granted, in millionths of the currency.
    pub price_per_gpu_hour_micro: u64,
    /// Prices that came into effect while it was held, in order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later_prices: Vec<PriceFrom>,
}

/// Where a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberPhase {
    /// Granted, not yet heard of.
    Assigned,
    /// The node fetches and installs.
    Preparing,
    /// The workload runs.
    Running,
    /// Over, and released.
    Ended,
}

/// How a member ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberEnd {
    /// What happened.
    pub kind: EndKind,
    /// In words, when there is more to say.
    pub message: String,
}

/// What ended a member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndKind {
    /// By itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// By a signal that nobody here sent.
    Signaled {
        /// Signal number.
        signal: i32,
    },
    /// Stopped because the coordinator said so.
    Stopped,
    /// It ran longer than its limit.
    TimeLimit,
    /// It never started.
    LaunchFailed {
        /// The node's fault, not the user's.
        node_fault: bool,
    },
    /// The agent lost its lease and stopped it.
    Fenced,
    /// It vanished: node lost, node rebooted, launcher gone.
    Lost,
    /// It used more memory than it had.
    OutOfMemory,
}

impl EndKind {
    /// Exit code 0.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }

    /// The platform's fault: tried again without counting against the user.
    pub fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::Lost | Self::Fenced | Self::LaunchFailed { node_fault: true }
        )
    }
}

impl Run {
    /// The last attempt, if any was made.
    pub fn last_attempt(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    /// Number that its next attempt will have.
    pub fn next_attempt(&self) -> u32 {
        u32::try_from(self.attempts.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1)
    }

    /// The attempt with this number.
    pub fn attempt(&self, number: u32) -> Option<&Attempt> {
        self.attempts.get((number as usize).checked_sub(1)?)
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, RunPhase::Ended { .. })
    }

    /// Since when its live attempt has held its devices; `None` when nothing is alive.
    pub fn held_since_us(&self) -> Option<u64> {
        (self.phase == RunPhase::Active)
            .then(|| self.last_attempt().map(|attempt| attempt.placed_us))
            .flatten()
    }

    /// Thousandths of devices that it holds now: less than it asked for once members of a gang have
    /// ended.
    pub fn held_milli(&self) -> u64 {
        self.last_attempt()
            .into_iter()
            .flat_map(|attempt| &attempt.members)
            .filter(|member| member.phase != MemberPhase::Ended)
            .flat_map(|member| &member.devices)
            .map(|grant| u64::from(grant.share_milli))
            .sum()
    }

    /// Since when its live attempt has done work that a stop would lose: since its last checkpoint, or
    /// since it has held its devices. `None` when nothing is alive.
    pub fn unsaved_since_us(&self) -> Option<u64> {
        let held_since_us = self.held_since_us()?;
        let checkpointed_us = self.last_attempt()?.checkpointed_us.unwrap_or(0);
        Some(held_since_us.max(checkpointed_us))
    }

    /// Work that a stop at this moment would lose, in thousandths of devices times microseconds.
    pub fn unsaved_work(&self, now_us: u64) -> u128 {
        let since_us = self.unsaved_since_us().unwrap_or(now_us);
        u128::from(self.held_milli()) * u128::from(now_us.saturating_sub(since_us))
    }

    /// How long its attempts that are over held their devices, in all.
    pub fn held_us(&self) -> u64 {
        self.attempts
            .iter()
            .filter_map(|attempt| Some(attempt.ended_us?.saturating_sub(attempt.placed_us)))
            .fold(0, u64::saturating_add)
    }

    /// GPU time that it has had in its attempts that are over, in thousandths of devices times
    /// microseconds.
    pub fn attained_gpu_milli_us(&self) -> u128 {
        self.attempts
            .iter()
            .flat_map(|attempt| {
                attempt.members.iter().filter_map(|member| {
                    let held_us = member.released_us?.saturating_sub(attempt.placed_us);
                    let milli: u64 = member
                        .devices
                        .iter()
                        .map(|grant| u64::from(grant.share_milli))
                        .sum();
                    Some(u128::from(held_us) * u128::from(milli))
                })
            })
            .sum()
    }

    /// The key of one member of its last attempt.
    pub fn member_key(&self, member: usize) -> Option<MemberKey> {
        let attempt = self.last_attempt()?;
        Some(MemberKey {
            run: self.id,
            attempt: attempt.number,
            member: u32::try_from(member).ok()?,
        })
    }
}

impl Member {
    /// Memory that it was granted of all its devices, MiB.
    pub fn gpu_memory_mib(&self) -> u64 {
        self.devices.iter().map(|grant| grant.memory_mib).sum()
    }

    /// What it is charged for each microsecond while it holds its devices, in the units of
    /// [`super::CHARGE_PER_MICRO`].
    pub fn charge_rate(&self) -> u128 {
        self.devices.iter().map(DeviceGrant::charge_rate).sum()
    }
}

impl Attempt {
    /// Every member has ended.
    pub fn is_over(&self) -> bool {
        self.members
            .iter()
            .all(|member| member.phase == MemberPhase::Ended)
    }
}
