//! What is tracked of runs, and the models they registered.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The newest point of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricLatest {
    /// Step.
    pub step: i64,
    /// Value; NaN and infinities as strings.
    #[serde(with = "super::number")]
    pub value: f64,
    /// How many points the series holds.
    pub count: u64,
}

/// How far a script says it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
}

/// POST /v1/tracking/{run}/journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalAnswer {
    /// Highest sequence of this writer that the store holds.
    pub watermark: u64,
    /// Answers to records that have one, as `{"sequence":..,"version":..}`.
    pub results: Vec<RecordResult>,
}

/// The answer to one record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordResult {
    /// Sequence of the record.
    pub sequence: u64,
    /// Name of the registered model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Version it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The record was not taken, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// GET /v1/tracking: newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackedList {
    /// The page, without metrics' details.
    pub runs: Vec<TrackedRun>,
}

/// What is tracked of a run, on the platform or elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackedRun {
    /// `run-17`, or the id that an SDK outside made.
    pub run: String,
    /// Name.
    pub name: String,
    /// Parent, when nested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// `running`, `finished`, `failed`, or `unknown` when never opened by an SDK.
    pub status: String,
    /// User that wrote it.
    pub user: String,
    /// When it was opened.
    pub started_us: u64,
    /// When it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<u64>,
    /// Traceback, when the block raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Parameters, as JSON values.
    pub params: BTreeMap<String, serde_json::Value>,
    /// Newest point of each series.
    pub metrics: BTreeMap<String, MetricLatest>,
    /// Artifacts by path.
    pub artifacts: Vec<ArtifactView>,
    /// Models registered from it, `name/version`.
    pub models: Vec<ModelVersionView>,
    /// Progress last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// One stored file of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArtifactView {
    /// Relative path, `/` between parts.
    pub path: String,
    /// Content address.
    pub sha256: String,
    /// Size.
    pub size_bytes: u64,
}

/// GET /v1/tracking/{run}/metrics?key=.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricSeries {
    /// Key.
    pub key: String,
    /// Points stored; more than `points` when thinned.
    pub count: u64,
    /// In the order logged.
    pub points: Vec<MetricPoint>,
}

/// One point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricPoint {
    /// Step.
    pub step: i64,
    /// When it was logged.
    pub time_us: u64,
    /// Value; NaN and infinities as strings.
    #[serde(with = "super::number")]
    pub value: f64,
}

/// GET /v1/models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelList {
    /// By name.
    pub models: Vec<ModelView>,
}

/// A registered model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelView {
    /// Name.
    pub name: String,
    /// Tenant that registered it first, and whose members add versions; empty when not known.
    #[serde(default)]
    pub tenant: String,
    /// Oldest first.
    pub versions: Vec<ModelVersionView>,
}

/// One version of a registered model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelVersionView {
    /// Model name.
    pub name: String,
    /// From 1.
    pub version: u64,
    /// Run that registered it.
    pub run: String,
    /// Framework, as the manifest says.
    pub framework: String,
    /// When.
    pub created_us: u64,
    /// The manifest written at save time.
    pub manifest: serde_json::Value,
    /// Files, the manifest included.
    pub files: Vec<ArtifactView>,
}
