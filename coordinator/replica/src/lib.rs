//! A replica without I/O: raft's `RawNode` beside the [`State`](coordinator_core::state::State), inputs in, effects out.
//!
//! The shell feeds ticks, proposals and peers' messages, takes [`Effects`], makes them durable, sends
//! their messages, and hands them back with [`Replica::persisted`]; only then are commands applied and
//! answered. So the order "persist, send, reply" is the shell's to keep and ours to demand.
//!
//! Architecture invariant: no file, socket, clock or thread is touched here, and equal inputs give
//! equal effects (but for raft's election timeout, which a simulation pins by
//! [`ReplicaConfig::pinned_election_ticks`]). What it deliberately lacks: the log on disk, the wire
//! between members, and time.

mod codec;
mod log;
mod replica;
mod validate;

pub use codec::{
    CodecError, ENTRY_VERSION, SNAPSHOT_VERSION, decode_entry, encode_entry, encode_snapshot,
    read_snapshot, write_snapshot,
};
pub use replica::{
    AppliedEntry, Effects, Fatal, Input, Outcome, ProposalRefused, ReadToken, Replica,
    ReplicaConfig, Restored, Role, Token, bootstrap_metadata,
};
