//! The coordinator's pure core: what the cluster is, how it changes, who gets which GPU and who may ask.
//!
//! Everything here is synchronous and total: no clock, no randomness, no I/O, no `HashMap` whose
//! order could differ between replicas. Time enters as a stamp in the log, ids come from the log or
//! the caller, and a refused command is an event, never a panic.
//!
//! Architecture invariant: `scheduler -> state -> policy -> model`; the scheduler only reads state,
//! and nothing here imports another of our crates.

#[cfg(test)]
extern crate self as coordinator_core;
#[cfg(test)]
mod fixtures;
pub mod model;
pub mod policy;
pub mod scheduler;
pub mod state;
