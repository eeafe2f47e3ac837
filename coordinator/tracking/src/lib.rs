//! Experiments, metrics, registry and ledger on SQL; artifacts on an object store.
//!
//! Three things are kept here and nowhere else: what the SDK's journals say of runs ([`Tracking`],
//! format in `docs/reference/journal.md`), the books that leave the replicated state through its
//! outbox ([`Tracking::export`]), and the bytes that both refer to ([`BlobStore`]).
//!
//! What this crate deliberately lacks: who may read or write what (the coordinator's API decides),
//! open allocations (only the replicated state knows them; a caller adds them to a
//! [`CostReport`]), and HTTP or protobuf types.
//!
//! Architecture invariants: a watermark moves in the transaction that stores what it counts, and is
//! told to a caller only after that transaction is on disk. All writes go through one task, which
//! takes what waits and commits it together. Scheduling never waits for anything in here.

mod blobs;
mod cost;
mod decisions;
mod error;
mod export;
mod journal;
mod names;
mod points;
mod reads;
mod series;
mod store;
mod views;
mod writer;

pub use blobs::{BlobError, BlobStore, Stored};
pub use cost::{CostBy, CostReport, CostTotal};
pub use decisions::KeptDecision;
pub use error::TrackingError;
pub use names::{is_sha256, is_tracked_run};
pub use points::{CHUNK_POINTS, Point};
pub use store::Tracking;
pub use views::{
    Appended, Artifact, Author, Latest, ModelVersion, Progress, RegisteredModel, RunSummary,
    Series, TrackedRun,
};

/// Most bytes of a metric's, parameter's or tag's name.
pub const MAX_NAME_BYTES: usize = 250;
/// Most metric names of one run.
pub const MAX_KEYS_PER_RUN: usize = 10_000;
/// Most bytes of one journal record.
pub const MAX_RECORD_BYTES: usize = 4 << 20;
/// Most bytes of one call of [`Tracking::append_journal`]. Senders stop at 4 MiB; the double leaves
/// room for one largest record behind others.
pub const MAX_CALL_BYTES: usize = 8 << 20;
/// Most points that one read of a series returns.
pub const MAX_SERIES_POINTS: usize = 100_000;
