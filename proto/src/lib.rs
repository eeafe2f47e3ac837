//! Messages between processes: the agent protocol (gRPC) and the HTTP/JSON types.
//!
//! Depends on none of our crates, and holds no behaviour but what (de)serialises. Architecture
//! invariant: these types stop at the edges (`coordinator::api`, `agent::session`, the CLI); inside,
//! each crate has its own.

pub mod http;

/// The agent protocol, generated from `proto/platform/agent/v1/agent.proto`.
#[allow(missing_docs, clippy::all)]
pub mod agent {
    tonic::include_proto!("platform.agent.v1");
}

/// Version of the agent protocol that this build speaks.
pub const AGENT_PROTOCOL_VERSION: u32 = 1;
