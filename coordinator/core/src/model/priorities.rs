//! Priorities by name, and who may use each.

use super::{Role, TenantName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Priorities reach from its negative to it.
pub const PRIORITY_BOUND: i32 = 100;

/// A priority with a name. It is for its own number and for every lower one down to the next class, so
/// that nobody passes it by with a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriorityClass {
    /// Its number; higher first, -100 to 100.
    pub priority: i32,
    /// The least role that may use it; absent: whoever may submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Tenants whose runs may use it, with all below them; none: every tenant's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tenants: BTreeSet<TenantName>,
    /// Whether its runs only go first, and stop nobody of their tenant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_preempts: bool,
}

impl PriorityClass {
    /// A class that is open to all, and whose runs may stop lower ones of their tenant.
    pub fn open(priority: i32) -> Self {
        Self {
            priority,
            role: None,
            tenants: BTreeSet::new(),
            never_preempts: false,
        }
    }

    /// The classes of a new platform. Colleagues may go before one another, and whoever answers for the
    /// tenant goes before all of them. Together they are for every number that there is.
    pub fn standard() -> BTreeMap<String, Self> {
        let urgent = Self {
            role: Some(Role::TenantAdmin),
            ..Self::open(PRIORITY_BOUND)
        };
        [
            ("low", Self::open(-50)),
            ("normal", Self::open(0)),
            ("high", Self::open(50)),
            ("urgent", urgent),
        ]
        .map(|(name, class)| (name.to_owned(), class))
        .into()
    }
}
