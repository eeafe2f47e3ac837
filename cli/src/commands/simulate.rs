//! What `platform simulate` does: traces through the coordinator's own core, with no server.

pub mod placement;
pub mod queue;
