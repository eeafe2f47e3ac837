//! Histories and public traces replayed through the coordinator's own core: the policies judged here are the ones
//! that place and order real runs, never copies of them.
//!
//! Readers and writers are given by the caller; there is no clock, no randomness and no tokio.

pub mod history;
pub mod placement;
pub mod queue;
