//! What reads answer with. Plain values; the coordinator's API turns them into its own.

use crate::points::Point;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// On whose behalf lines are appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// User, remembered for a run seen for the first time.
    pub user: String,
    /// Tenant that the run belongs to: it owns the names of models that the run is first to register.
    pub tenant: String,
}

/// Answer to [`crate::Tracking::append_journal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Highest sequence of this writer that the store holds, on disk.
    pub watermark: u64,
    /// One JSON object for each record of the call that has an answer, in order of sequence:
    /// `{"sequence":5,"model":"digits","version":2}` or `{"sequence":6,"error":"..."}`. A record sent
    /// again is answered the same.
    pub results: Vec<String>,
}

/// A run, without its metrics, parameters, artifacts and models.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// `run-17`, or the id that an SDK outside made.
    pub run: String,
    /// Name; empty while no SDK has opened it.
    pub name: String,
    /// Parent, when nested.
    pub parent: Option<String>,
    /// `running`, `finished`, `failed`, or `unknown` while no SDK has opened it.
    pub status: String,
    /// User that wrote its first record.
    pub user: String,
    /// When it was opened; 0 while no SDK has opened it.
    pub started_us: u64,
    /// When it was closed.
    pub ended_us: Option<u64>,
    /// Traceback, when the block raised.
    pub error: Option<String>,
    /// Script, Python, SDK and host, as the SDK wrote them: a JSON object.
    pub context: serde_json::Value,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Progress last reported.
    pub progress: Option<Progress>,
}

/// Everything tracked of a run but its points.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackedRun {
    /// The run itself.
    pub summary: RunSummary,
    /// Parameters, JSON scalars.
    pub params: BTreeMap<String, serde_json::Value>,
    /// Newest point of each series.
    pub metrics: BTreeMap<String, Latest>,
    /// Artifacts by path.
    pub artifacts: Vec<Artifact>,
    /// Model versions registered from it.
    pub models: Vec<ModelVersion>,
}

/// How far a script says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
}

/// The newest point of a series: the last that arrived, whatever its clock says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latest {
    /// The point.
    pub point: Point,
    /// How many points the series holds.
    pub count: u64,
}

/// Points of one metric of one run, in the order logged.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Points stored; more than `points` when thinned.
    pub count: u64,
    /// The points: all, or the first, the last and the extremes of equal stretches between.
    pub points: Vec<Point>,
}

/// One stored file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Relative path, `/` between parts.
    pub path: String,
    /// Content address, as the [`crate::BlobStore`] names it.
    pub sha256: String,
    /// Size.
    pub size_bytes: u64,
}

/// A registered model.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisteredModel {
    /// Tenant whose members add versions; empty when not known.
    pub tenant: String,
    /// Name.
    pub name: String,
    /// Oldest first, at least one.
    pub versions: Vec<ModelVersion>,
}

/// One version of a registered model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelVersion {
    /// Model.
    pub name: String,
    /// From 1.
    pub version: u64,
    /// Run that registered it.
    pub run: String,
    /// Framework, as the manifest says.
    pub framework: String,
    /// When the store took it, by this machine's clock.
    pub created_us: u64,
    /// The manifest written at save time.
    pub manifest: serde_json::Value,
    /// Files, the manifest included.
    pub files: Vec<Artifact>,
}
