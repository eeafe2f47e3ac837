//! `platform simulate`.

pub mod history;
pub mod placement;
mod proposal;
pub mod queue;
