//! What happened when a command was applied.

use crate::model::{ArrayId, MemberKey, NodeName, RunId};
use crate::policy::Refusal;
use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Nothing was changed, and why.
    Rejected {
        /// Why.
        refusal: Refusal,
    },
    /// A run waits for others to end before it is queued.
    RunHeld {
        /// Run.
        run: RunId,
        /// Guardrails that warn.
        warnings: Vec<String>,
    },
    /// A run waits in the queue.
    RunQueued {
        /// Run.
        run: RunId,
        /// It has waited before: its last attempt did not end it.
        again: bool,
        /// Guardrails that warn.
        warnings: Vec<String>,
    },
    /// The elements of an array are queued, or held.
    ArraySubmitted {
        /// Array.
        array: ArrayId,
        /// Guardrails that warn.
        warnings: Vec<String>,
    },
    /// Elements of an array were queued, or ended, all at once.
    ArrayChanged {
        /// Array.
        array: ArrayId,
    },
    /// A run holds devices.
    RunPlaced {
        /// Run.
        run: RunId,
    },
    /// A proposed placement no longer held.
    PlacementRefused {
        /// Run.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// A proposed preemption no longer held.
    PreemptionRefused {
        /// The run that goes on.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// A member moved on.
    MemberChanged {
        /// Member.
        key: MemberKey,
        /// Where it runs.
        node: NodeName,
    },
    /// A member of an older epoch reported; nothing was written.
    StaleReport {
        /// Member.
        key: MemberKey,
        /// Who reported.
        node: NodeName,
    },
    /// The members of a run's attempt are to be stopped.
    RunStopping {
        /// Run.
        run: RunId,
    },
    /// The devices of a run idle, its owner is warned of it, or they are used again.
    IdlenessChanged {
        /// Run.
        run: RunId,
    },
    /// Somebody said why the devices of a run may idle.
    RunJustified {
        /// Run.
        run: RunId,
    },
    /// A run is over.
    RunEnded {
        /// Run.
        run: RunId,
    },
    /// A node registered, or changed its condition.
    NodeChanged {
        /// Node.
        node: NodeName,
    },
    /// A tenant, quota, pool, token or the policy changed.
    SettingsChanged,
    /// Outbox records were dropped.
    OutboxAcknowledged {
        /// Up to here.
        through: u64,
    },
}

impl Event {
    /// Whether it tells of a change that the audit must name. Refusals, stale reports and what has
    /// left the outbox are not.
    pub fn is_change(&self) -> bool {
        !matches!(
            self,
            Self::Rejected { .. }
                | Self::PlacementRefused { .. }
                | Self::PreemptionRefused { .. }
                | Self::StaleReport { .. }
                | Self::OutboxAcknowledged { .. }
        )
    }
}
