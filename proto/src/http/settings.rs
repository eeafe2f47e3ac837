//! Who is who and what is set: tenants, quotas, policy, tokens, cost.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who the token belongs to and what they talk to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Whoami {
    /// User name.
    pub user: String,
    /// Tenant whose quota the user's runs use.
    pub tenant: String,
    /// `viewer`, `member`, `tenant-admin` or `platform-admin`.
    pub role: String,
    /// Id of the token in use, as in `platform tokens list`.
    pub token: String,
    /// Version of the coordinator.
    pub server_version: String,
    /// Whether any node here has simulated devices.
    pub simulated: bool,
    /// Currency of every price and cost.
    pub currency: String,
}

/// POST /v1/tenants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantRequest {
    /// Name: lower-case letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// Tenant above it; absent: at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its part beside its siblings, 1 to 1000; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// PUT /v1/tenants/{tenant}; what is absent stays.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantChange {
    /// Tenant above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// To the top; exclusive with `parent`.
    #[serde(default)]
    pub top: bool,
    /// Its part beside its siblings, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantView {
    /// Name.
    pub name: String,
    /// When it was created.
    pub created_us: u64,
    /// Tenant above it; absent: at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its part beside its siblings.
    #[serde(default = "one")]
    pub weight: u32,
    /// Its runs that have not ended.
    pub live_runs: u64,
    /// Its quotas.
    pub quotas: Vec<QuotaView>,
}

fn one() -> u32 {
    1
}

/// GET /v1/tenants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantList {
    /// By name.
    pub tenants: Vec<TenantView>,
}

/// PUT /v1/quotas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaRequest {
    /// Tenant.
    pub tenant: String,
    /// Pool.
    pub pool: String,
    /// Device model that the line is for; absent: over all models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Guaranteed GPUs, in thousandths; absent: no line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_milli: Option<u64>,
    /// Ceiling with what is borrowed; absent: whatever is idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_milli: Option<u64>,
    /// The most of its idle quota that others may use; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lend_milli: Option<u64>,
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A tenant's quota in a pool, over all models or of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuotaView {
    /// Tenant.
    pub tenant: String,
    /// Pool.
    pub pool: String,
    /// Device model that the line is for; absent: over all models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Guaranteed GPUs, in thousandths; absent: no line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_milli: Option<u64>,
    /// Ceiling with what is borrowed; absent: whatever is idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_milli: Option<u64>,
    /// The most of its idle quota that others may use; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lend_milli: Option<u64>,
    /// In use now, by it and the tenants below it.
    pub used_milli: u64,
    /// What it and those below it held of late: a mean in which older hours count less.
    #[serde(default)]
    pub recent_milli: u64,
    /// Of what is in use, above what is guaranteed.
    pub borrowed_milli: u64,
    /// Of what is guaranteed and it does not use, in use by others.
    pub lent_milli: u64,
    /// Asked for by its own runs that wait.
    pub waiting_milli: u64,
    /// On a dry run: runs that would be stopped and queued again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preempts: Vec<PreemptedView>,
}

/// A run that gives way to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreemptedView {
    /// Run.
    pub run: String,
    /// Its name.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// The run that takes its place.
    pub claimant: String,
    /// The claimant's tenant.
    pub claimant_tenant: String,
}

/// GET /v1/quotas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuotaList {
    /// By tenant, then pool.
    pub quotas: Vec<QuotaView>,
}

/// GET and PUT /v1/policy: the whole policy; PUT replaces it and must name the version it read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyView {
    /// Version that was read; a PUT with another is a conflict.
    pub version: u64,
    /// Required cost tags: key to rule.
    pub required_tags: BTreeMap<String, TagRule>,
    /// `off`, `warn` or `enforce`.
    pub tag_mode: String,
    /// Model name (or `prefix*`) to the most GPU memory a device may give it, MiB.
    pub gpu_memory_caps_mib: BTreeMap<String, u64>,
    /// Model name (or `prefix*`) to the most GPU memory that all its runs may hold together, MiB.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpu_memory_cap_sums_mib: BTreeMap<String, u64>,
    /// GPU model to price for each GPU-hour, in millionths of the currency.
    pub gpu_hour_price_micro: BTreeMap<String, u64>,
    /// For GPU models with no line of their own.
    pub default_gpu_hour_price_micro: u64,
    /// Prices to come, first to come into effect first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduled_prices: Vec<ScheduledPriceView>,
    /// Currency code.
    pub currency: String,
    /// How long an attempt is left alone before it may be stopped for another run.
    #[serde(default = "half_a_minute_ms")]
    pub minimum_run_ms: u64,
    /// After how long what a tenant held counts half as much in its turns; 0: only what it holds now
    /// counts.
    #[serde(default = "a_day_ms")]
    pub fair_share_half_life_ms: u64,
    /// How long a run may find no room in its turn before devices are kept for it.
    #[serde(default = "five_minutes_ms")]
    pub reservation_after_ms: u64,
    /// How long a run waits after its first failure before it is tried again; doubled with each.
    #[serde(default = "five_seconds_ms")]
    pub retry_wait_ms: u64,
    /// The longest that it waits.
    #[serde(default = "five_minutes_ms")]
    pub retry_wait_longest_ms: u64,
    /// GPUs are idle while they are used less than this, in percent, on average.
    pub idle_below_percent: u32,
    /// From when all GPUs of a run idle until it is warned; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_warn_after_ms: Option<u64>,
    /// From when they idle until it is stopped; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_stop_after_ms: Option<u64>,
    /// The longest that one justification of idle GPUs holds.
    pub longest_justification_ms: u64,
    /// Names of priorities, and who may use each. Absent: as the platform has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_classes: Option<BTreeMap<String, PriorityClassView>>,
}

/// A priority with a name: for its own number and every lower one down to the next class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorityClassView {
    /// Its number; higher first, -100 to 100.
    pub priority: i32,
    /// The least role that may use it; absent: whoever may submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Tenants whose runs may use it, with all below them; none: every tenant's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// Whether its runs may stop lower ones of their tenant.
    #[serde(default = "yes")]
    pub preempts: bool,
}

fn yes() -> bool {
    true
}

fn five_seconds_ms() -> u64 {
    5_000
}

fn five_minutes_ms() -> u64 {
    300_000
}

fn a_day_ms() -> u64 {
    24 * 3_600 * 1000
}

fn half_a_minute_ms() -> u64 {
    30_000
}

/// A price that comes into effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduledPriceView {
    /// When, in microseconds since 1970 in UTC.
    pub from_us: u64,
    /// GPU model.
    pub gpu_model: String,
    /// For each GPU-hour, in millionths of the currency.
    pub price_micro: u64,
}

/// What a required tag must hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagRule {
    /// Empty: any value.
    #[serde(default)]
    pub allowed: Vec<String>,
}

/// GET /v1/cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostReport {
    /// `tenant`, `team`, `project`, `user`, `model`, `run` or any tag key.
    pub by: String,
    /// From.
    pub since_us: u64,
    /// Until.
    pub until_us: u64,
    /// Largest cost first.
    pub rows: Vec<CostRow>,
    /// Sum of the rows.
    pub total: CostRow,
    /// The same by GPU model and the price it was charged at, as the prices changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<CostRate>,
    /// Currency code.
    pub currency: String,
    /// Some of it was on simulated devices.
    pub simulated: bool,
}

/// One line of a cost report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostRow {
    /// Value of the grouping key; empty: none given.
    pub key: String,
    /// Runs that held something.
    pub runs: u64,
    /// GPU-microseconds: share times time.
    pub gpu_us: u64,
    /// Millionths of the currency.
    pub cost_micro: u64,
}

/// What was charged at one price of one GPU model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostRate {
    /// GPU model.
    pub gpu_model: String,
    /// For each GPU-hour, in millionths of the currency.
    pub price_micro: u64,
    /// GPU-microseconds: share times time.
    pub gpu_us: u64,
    /// Millionths of the currency.
    pub cost_micro: u64,
}

/// POST /v1/tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// User it speaks for.
    pub user: String,
    /// Tenant whose quota it uses.
    pub tenant: String,
    /// `viewer`, `member`, `tenant-admin`, `platform-admin` or `agent`.
    pub role: String,
    /// Time to live; absent: 90 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// The only time a token's secret is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// What the list shows.
    pub token: TokenView,
    /// The bearer token itself.
    pub secret: String,
}

/// One token, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenView {
    /// Id.
    pub id: String,
    /// User.
    pub user: String,
    /// Tenant.
    pub tenant: String,
    /// Role.
    pub role: String,
    /// When it was created.
    pub created_us: u64,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_us: Option<u64>,
    /// Revoked.
    pub revoked: bool,
}

/// GET /v1/tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenList {
    /// Newest first.
    pub tokens: Vec<TokenView>,
}
