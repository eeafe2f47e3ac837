//! The nouns: ids, amounts, tenants, nodes, devices, workloads, runs, and what leaves as accounts.
//!
//! Plain values with their grammar. No behaviour that needs to know more than one of them.

mod accounts;
mod amounts;
mod arrays;
mod budgets;
mod calendar;
mod decisions;
mod dependencies;
mod durations;
mod idleness;
mod ids;
mod levels;
mod meters;
mod nodes;
mod order;
mod past;
mod policies;
mod prices;
mod priorities;
mod recent;
mod retries;
mod runs;
mod tenancy;
mod tenants;
mod workloads;

pub use accounts::*;
pub use amounts::*;
pub use arrays::*;
pub use budgets::*;
pub use calendar::*;
pub use decisions::*;
pub use dependencies::*;
pub use durations::*;
pub use idleness::*;
pub use ids::*;
pub use levels::*;
pub use meters::*;
pub use nodes::*;
pub use order::*;
pub use past::*;
pub use policies::*;
pub use prices::*;
pub use priorities::*;
pub use recent::*;
pub use retries::*;
pub use runs::*;
pub use tenancy::*;
pub use tenants::*;
pub use workloads::*;
