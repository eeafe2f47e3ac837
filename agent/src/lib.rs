//! The agent's shell: session, supervisor, runtimes and telemetry.

pub mod blobs;
pub mod launcher;
pub mod package;
pub mod runtime;
pub mod telemetry;
