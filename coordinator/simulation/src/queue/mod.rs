//! Queueing traces: who waits how long when the core's queueing policy decides.
//!
//! A simulated cluster of whole GPUs, gangs consolidated, preemption at a fixed cost. The policy sees
//! what a coordinator would see: durations of ended runs alone.

mod cluster;
mod engine;
mod fairness;
mod report;
mod schedule;
mod seconds;
mod trace;

pub use cluster::{Cluster, Mode};
pub use engine::{Outcome, Progress, Replayed, Segment, simulate};
pub use report::{Report, TenantReport};
pub use schedule::write_schedule;
pub use trace::{Trace, TraceRun};

#[cfg(test)]
mod tests;
