//! The nouns: ids, amounts, tenants, nodes, devices, workloads, runs, and what leaves as accounts.
//!
//! Plain values with their grammar. No behaviour that needs to know more than one of them.

mod accounts;
mod amounts;
mod budgets;
mod calendar;
mod dependencies;
mod ids;
mod nodes;
mod policies;
mod prices;
mod retries;
mod runs;
mod tenancy;
mod tenants;
mod workloads;

pub use accounts::*;
pub use amounts::*;
pub use budgets::*;
pub use calendar::*;
pub use dependencies::*;
pub use ids::*;
pub use nodes::*;
pub use policies::*;
pub use prices::*;
pub use retries::*;
pub use runs::*;
pub use tenancy::*;
pub use tenants::*;
pub use workloads::*;
