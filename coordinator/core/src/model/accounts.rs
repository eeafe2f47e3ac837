//! What leaves the replicated state for the books: ledger rows and audit entries, in an outbox.

use super::{
    Decision, DeviceId, NodeName, PoolName, RunId, TenantName, UserName, cost_micro, gpu_milli_us,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One record on its way to the tracking store, exported in order of `sequence`, each once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboxRecord {
    /// From 1, without a gap.
    pub sequence: u64,
    /// Stamp of the log entry that made it.
    pub at_us: u64,
    /// What it says.
    pub body: OutboxBody,
}

/// What an outbox record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutboxBody {
    /// A share was held and has been released.
    Ledger(LedgerRow),
    /// Something was changed.
    Audit(AuditEntry),
    /// Something was decided.
    Decision(Box<Decision>),
}

/// A share of one device, held by one member from start to end. A member without devices has one
/// row with no device, so that its run is counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// Run.
    pub run: RunId,
    /// Its name.
    pub run_name: String,
    /// Attempt.
    pub attempt: u32,
    /// Member.
    pub member: u32,
    /// Who is charged.
    pub tenant: TenantName,
    /// Who submitted it.
    pub user: UserName,
    /// Pool.
    pub pool: PoolName,
    /// Node.
    pub node: NodeName,
    /// Device.
    pub device: Option<DeviceId>,
    /// Its model.
    pub device_model: Option<String>,
    /// Not a real GPU.
    pub simulated: bool,
    /// Thousandths.
    pub share_milli: u32,
    /// Memory granted, MiB.
    pub memory_mib: u64,
    /// Cost tags.
    pub tags: BTreeMap<String, String>,
    /// Model the run is for.
    pub model: Option<String>,
    /// When it was granted.
    pub start_us: u64,
    /// When it was released.
    pub end_us: u64,
    /// Price for each GPU-hour, in millionths of the currency.
    pub price_per_gpu_hour_micro: u64,
}

impl LedgerRow {
    /// Thousandths of a device times microseconds.
    pub fn gpu_milli_us(&self) -> u128 {
        gpu_milli_us(self.share_milli, self.start_us, self.end_us)
    }

    /// Millionths of the currency, rounded down.
    pub fn cost_micro(&self) -> u64 {
        cost_micro(self.gpu_milli_us(), self.price_per_gpu_hour_micro)
    }

    /// The part of it within a window, if any.
    pub fn clipped(&self, since_us: u64, until_us: u64) -> Option<Self> {
        let start_us = self.start_us.max(since_us);
        let end_us = self.end_us.min(until_us);
        (start_us < end_us || (self.start_us == self.end_us && start_us == end_us)).then(|| Self {
            start_us,
            end_us,
            ..self.clone()
        })
    }
}

/// One mutation, chained to the one before by its hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// From 1, without a gap.
    pub sequence: u64,
    /// Stamp of the log entry.
    pub at_us: u64,
    /// Who: `user:ana`, `agent:node-1`, `leader`.
    pub actor: String,
    /// What: `run.submit`.
    pub action: String,
    /// On what: `run-17`.
    pub subject: String,
    /// More, as short text.
    pub detail: String,
    /// Hash of the entry before, hex.
    pub previous: String,
    /// BLAKE3 over every field above, hex.
    pub hash: String,
}

impl AuditEntry {
    /// The hash that this entry must carry. Fields are length-prefixed, so no two entries collide by
    /// shifting text from one field to the next.
    pub fn expected_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.sequence.to_le_bytes());
        hasher.update(&self.at_us.to_le_bytes());
        for field in [
            &self.actor,
            &self.action,
            &self.subject,
            &self.detail,
            &self.previous,
        ] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}
