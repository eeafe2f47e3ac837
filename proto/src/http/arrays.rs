//! Arrays and sweeps: many runs of one specification, submitted and shown as one.

use super::RunSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a sweep gives the elements of an array.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepRequest {
    /// One set for each element: text, numbers, true and false by name, the same names in each.
    pub parameters: Vec<BTreeMap<String, Value>>,
    /// Elements that may be queued or alive at once; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_alive: Option<u32>,
}

/// How many runs a submit makes, or would make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ElementCount {
    /// Elements.
    pub size: u32,
    /// Elements that may be queued or alive at once; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_alive: Option<u32>,
    /// What a sweep gives the first few of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_parameters: Vec<BTreeMap<String, Value>>,
}

/// A run's part in an array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ElementView {
    /// `array-17`.
    pub array: String,
    /// Its index, as asked for; `PLATFORM_ARRAY_INDEX` in its environment.
    pub index: u32,
    /// Elements of the array.
    pub size: u32,
    /// What a sweep gives it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
}

/// One array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArrayView {
    /// `array-17`: named after its first run.
    pub id: String,
    /// The resolved spec of its elements.
    pub spec: RunSpec,
    /// Tenant it is charged to.
    pub tenant: String,
    /// Who submitted it.
    pub user: String,
    /// Of its elements the furthest: `running`, `queued`, `held`; once all have ended `failed` when one
    /// has, else `cancelled` when one was, else `succeeded`.
    pub state: String,
    /// Elements.
    pub size: u32,
    /// Elements that may be queued or alive at once; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_alive: Option<u32>,
    /// Elements that wait for their turn, or for what the array follows.
    pub held: u32,
    /// Elements that are queued.
    pub queued: u32,
    /// Elements that hold their devices.
    pub alive: u32,
    /// Elements that have succeeded.
    pub succeeded: u32,
    /// Elements that have failed.
    pub failed: u32,
    /// Elements that were cancelled.
    pub cancelled: u32,
    /// When the submit was recorded.
    pub submitted_us: u64,
    /// When the last element ended, once all have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<u64>,
    /// Code that an attached `platform run` exits with, once ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_exit_code: Option<i32>,
    /// Cost until now, in millionths of the currency.
    pub cost_micro: u64,
    /// GPU-microseconds until now.
    pub gpu_us: u64,
    /// Currency code.
    pub currency: String,
}

impl ArrayView {
    /// Elements that have ended.
    pub fn ended(&self) -> u32 {
        self.succeeded + self.failed + self.cancelled
    }
}
