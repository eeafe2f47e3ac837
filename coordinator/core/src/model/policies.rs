//! What a platform team sets beside tenants: pools, tokens, and the policy of cost tags, caps, prices and
//! preemption.

use super::{
    IdlePolicy, MemberDemand, PoolName, PoolOrder, PriorityClass, RetryPolicy, ScheduledPrice,
    TenantName, UserName, WorkloadSpec,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Name.
    pub name: PoolName,
    /// For people.
    pub description: String,
    /// How a tenant's waiting runs of one priority are ordered.
    #[serde(default)]
    pub order: PoolOrder,
    /// How long a run may wait, in all, before it goes before every other of its tenant and priority,
    /// whatever the order.
    #[serde(default = "Pool::default_age_bound_ms")]
    pub age_bound_ms: u64,
}

impl Pool {
    /// A pool without a description, in which runs go as they were submitted.
    pub fn new(name: PoolName) -> Self {
        Self {
            name,
            description: String::new(),
            order: PoolOrder::default(),
            age_bound_ms: Self::default_age_bound_ms(),
        }
    }

    /// A day: what was submitted yesterday at this time is not passed by any more.
    fn default_age_bound_ms() -> u64 {
        24 * 3_600 * 1000
    }
}

/// What the platform requires of every run, and what a GPU-hour costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Grows with each change.
    pub version: u64,
    /// Required cost tags, with the values allowed; an empty list allows any.
    pub required_tags: BTreeMap<String, Vec<String>>,
    /// What happens without them.
    pub tag_mode: TagMode,
    /// Model name, or `prefix*`, to the most memory a device may give it, MiB.
    pub gpu_memory_caps_mib: BTreeMap<String, u64>,
    /// Model name, or `prefix*`, to the most memory that all its live runs may hold together, MiB.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpu_memory_cap_sums_mib: BTreeMap<String, u64>,
    /// Price for each GPU-hour by device model, in millionths of the currency.
    pub gpu_hour_price_micro: BTreeMap<String, u64>,
    /// For device models without a line.
    pub default_gpu_hour_price_micro: u64,
    /// Prices to come, by moment and model: each replaces its model's when its moment comes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduled_prices: Vec<ScheduledPrice>,
    /// ISO 4217 code.
    pub currency: String,
    /// How long an attempt is left alone before it may be stopped for another run.
    #[serde(default = "Policy::default_minimum_run_ms")]
    pub minimum_run_ms: u64,
    /// After how long what a tenant held counts half as much in its turns; 0: only what it holds now
    /// counts.
    #[serde(default = "Policy::default_fair_share_half_life_ms")]
    pub fair_share_half_life_ms: u64,
    /// How long a run may find no room in its turn before devices are kept for it.
    #[serde(default = "Policy::default_reservation_after_ms")]
    pub reservation_after_ms: u64,
    /// How long a run waits after a failure before it is tried again.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// Names of priorities, and who may use each; with none, every priority is everybody's.
    #[serde(default = "PriorityClass::standard")]
    pub priority_classes: BTreeMap<String, PriorityClass>,
    /// What happens to a run whose devices idle.
    #[serde(default)]
    pub idle: IdlePolicy,
}

/// What a missing cost tag does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagMode {
    /// Nothing.
    Off,
    /// A warning on the submit.
    Warn,
    /// A refusal.
    Enforce,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            version: 1,
            required_tags: BTreeMap::from([("team".to_owned(), Vec::new())]),
            tag_mode: TagMode::Enforce,
            gpu_memory_caps_mib: BTreeMap::new(),
            gpu_memory_cap_sums_mib: BTreeMap::new(),
            // List prices of on-demand cloud GPUs, so that a first cost report has an order of
            // magnitude that finance recognises; every platform sets its own.
            gpu_hour_price_micro: BTreeMap::from([
                ("A100-80G".to_owned(), 2_500_000),
                ("A100-40G".to_owned(), 1_800_000),
                ("H100-80G".to_owned(), 4_000_000),
                ("H200-141G".to_owned(), 5_000_000),
                ("L4-24G".to_owned(), 700_000),
                ("T4-16G".to_owned(), 400_000),
                ("V100-16G".to_owned(), 900_000),
            ]),
            default_gpu_hour_price_micro: 1_000_000,
            scheduled_prices: Vec::new(),
            currency: "USD".to_owned(),
            minimum_run_ms: Self::default_minimum_run_ms(),
            fair_share_half_life_ms: Self::default_fair_share_half_life_ms(),
            reservation_after_ms: Self::default_reservation_after_ms(),
            retry: RetryPolicy::default(),
            priority_classes: PriorityClass::standard(),
            idle: IdlePolicy::default(),
        }
    }
}

impl Policy {
    /// Half of the minute within which an owner has its quota back: long enough to load a model and
    /// save something, short enough to keep the promise.
    fn default_minimum_run_ms() -> u64 {
        30_000
    }

    /// Five minutes: what is short passes without harm, and nobody large waits for longer than that
    /// beyond what runs before it.
    fn default_reservation_after_ms() -> u64 {
        300_000
    }

    /// A day: whoever used much yesterday goes second today, and is forgiven within the week.
    fn default_fair_share_half_life_ms() -> u64 {
        24 * 3_600 * 1000
    }

    /// Price for each GPU-hour of a device model.
    pub fn price_per_gpu_hour_micro(&self, device_model: &str) -> u64 {
        self.gpu_hour_price_micro
            .get(device_model)
            .copied()
            .unwrap_or(self.default_gpu_hour_price_micro)
    }

    /// The demand of each member of a resolved spec, under the caps in force now: a device that
    /// joined, or a cap that was lowered, after the run was admitted gives it no more (I13).
    pub fn demand(&self, spec: &WorkloadSpec) -> MemberDemand {
        MemberDemand {
            gpu_memory_ceiling_mib: spec
                .model
                .as_ref()
                .and_then(|model| self.gpu_memory_cap_mib(model)),
            ..spec.demand()
        }
    }

    /// The most device memory a model may be given: its own line, else the longest `prefix*`.
    pub fn gpu_memory_cap_mib(&self, model: &str) -> Option<u64> {
        self.gpu_memory_caps_mib.get(model).copied().or_else(|| {
            self.gpu_memory_caps_mib
                .iter()
                .filter_map(|(pattern, cap)| Some((pattern.strip_suffix('*')?, cap)))
                .filter(|(prefix, _)| model.starts_with(prefix))
                .max_by_key(|(prefix, _)| prefix.len())
                .map(|(_, cap)| *cap)
        })
    }
}

/// What a token may do; each includes what the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Submits and stops own runs.
    Member,
    /// Stops any run of the tenant.
    TenantAdmin,
    /// Everything.
    PlatformAdmin,
    /// An agent's session and nothing else; not a step of the ladder.
    Agent,
}

impl Role {
    /// As written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::TenantAdmin => "tenant-admin",
            Self::PlatformAdmin => "platform-admin",
            Self::Agent => "agent",
        }
    }

    /// Reads [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Viewer,
            Self::Member,
            Self::TenantAdmin,
            Self::PlatformAdmin,
            Self::Agent,
        ]
        .into_iter()
        .find(|role| role.as_str() == text)
    }

    /// Whether a user with this role may do what wants `needed`. Agents may do nothing of users'.
    pub fn includes(self, needed: Self) -> bool {
        match (self, needed) {
            (Self::Agent, other) | (other, Self::Agent) => other == Self::Agent && self == needed,
            (mine, wanted) => mine >= wanted,
        }
    }
}

/// A bearer token, hashed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// Shown in lists.
    pub id: String,
    /// Who it speaks for.
    pub user: UserName,
    /// Tenant whose quota it uses.
    pub tenant: TenantName,
    /// What it may do.
    pub role: Role,
    /// When it was created.
    pub created_us: u64,
    /// When it ends.
    pub expires_us: Option<u64>,
    /// Withdrawn.
    pub revoked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pattern_caps_a_model() {
        let policy = Policy {
            gpu_memory_caps_mib: BTreeMap::from([
                ("bert*".to_owned(), 20_000),
                ("bert-large*".to_owned(), 40_000),
                ("bert-tiny".to_owned(), 1_000),
            ]),
            ..Policy::default()
        };
        assert_eq!(policy.gpu_memory_cap_mib("bert-base"), Some(20_000));
        assert_eq!(policy.gpu_memory_cap_mib("bert-large-2"), Some(40_000));
        assert_eq!(policy.gpu_memory_cap_mib("bert-tiny"), Some(1_000));
        assert_eq!(policy.gpu_memory_cap_mib("gpt"), None);
    }

    #[test]
    fn roles_include_the_ones_below_and_agents_stand_apart() {
        assert!(Role::PlatformAdmin.includes(Role::Viewer));
        assert!(Role::Member.includes(Role::Member));
        assert!(!Role::Viewer.includes(Role::Member));
        assert!(!Role::PlatformAdmin.includes(Role::Agent));
        assert!(!Role::Agent.includes(Role::Viewer));
        assert!(Role::Agent.includes(Role::Agent));
    }
}
