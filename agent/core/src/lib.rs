//! The agent's pure core: desired, observed and now become actions.
//!
//! Architecture invariant: no I/O, no clock, no randomness, no tokio, none of our other crates. Time is
//! a number the shell passes in (CLOCK_BOOTTIME in microseconds), so every test can say when it is.

mod member;
mod model;
mod outbox;
mod reconcile;

pub use model::{
    Assignment, Device, End, Exit, GrantedDevice, Intent, Key, MemberReport, Now, Observation,
    Signal, State, StopCause, Warning, WarningSignal, Wiring, Workload,
};
pub use reconcile::{Action, Core, Desired, StaleSession};
