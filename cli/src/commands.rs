//! What each command does: one file for each verb that has something to say, one for a noun whose
//! verbs are a call and a table. They take plain values, never clap's types.

pub mod access;
pub mod artifacts;
pub mod budgets;
pub mod completion;
pub mod cost;
pub mod decisions;
pub mod models;
pub mod nodes;
pub mod policy;
pub mod pools;
pub mod quotas;
pub mod run;
pub mod runs;
pub mod serve;
pub mod simulate;
pub mod sync;
pub mod tenants;

/// What every client command answers with: the code to exit with.
pub type Outcome = Result<u8, crate::failure::Failure>;
