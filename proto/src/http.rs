//! The HTTP/JSON API: request and response bodies, shared by the coordinator and its clients.
//!
//! Every route but `GET /healthz` wants `Authorization: Bearer TOKEN`. Every mutating route takes an
//! `Idempotency-Key` header: the same key within 24 hours gives the same answer, done once. Errors
//! of every route are an [`ErrorBody`]. Unknown fields are refused in requests, so that a misspelt
//! override is never silently ignored. Times are microseconds since the Unix epoch (`_us`), money is
//! millionths of the currency (`_micro`), memory is MiB, a share of a GPU is thousandths (`_milli`).
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | GET /healthz | | `ok`, anonymous |
//! | GET /metrics | | Prometheus text |
//! | GET /v1/whoami | | [`Whoami`] |
//! | POST /v1/runs | [`SubmitRequest`] | [`SubmitResponse`] |
//! | GET /v1/runs?state=&user=&tenant=&tag=k=v&limit=&before= | | [`RunList`] |
//! | GET /v1/runs/{run} | | [`RunView`] |
//! | GET /v1/runs/{run}/explain | | [`Explanation`] |
//! | GET /v1/runs/{run}/watch | | newline-delimited [`WatchLine`], until the run has ended |
//! | GET /v1/runs/{run}/logs?offset=&follow=&attempt=&member= | | bytes, chunked |
//! | POST /v1/runs/{run}/cancel | [`CancelRequest`] | [`RunView`] |
//! | GET /v1/nodes | | [`NodeList`] |
//! | GET /v1/nodes/{node} | | [`NodeView`] |
//! | POST /v1/nodes/{node}/cordon, uncordon, drain | [`NodeRequest`] | [`NodeChange`] |
//! | GET, POST /v1/tenants | [`TenantRequest`] | [`TenantList`], [`TenantView`] |
//! | GET /v1/quotas, PUT /v1/quotas | [`QuotaRequest`] | [`QuotaList`], [`QuotaView`] |
//! | GET /v1/pools, PUT /v1/pools/{pool} | [`PoolRequest`] | [`PoolList`], [`PoolView`] |
//! | GET, PUT /v1/policy | [`PolicyView`] | [`PolicyView`] |
//! | GET /v1/cost?by=&since_us=&until_us= | | [`CostReport`] |
//! | GET, POST /v1/tokens | [`TokenRequest`] | [`TokenList`], [`TokenCreated`] |
//! | DELETE /v1/tokens/{id} | | [`TokenView`] |
//! | HEAD, GET, PUT /v1/blobs/{sha256} | bytes | bytes |
//! | POST /v1/tracking/{run}/journal?writer= | journal lines | [`JournalAnswer`] |
//! | GET /v1/tracking?limit=&before= | | [`TrackedList`] |
//! | GET /v1/tracking/{run} | | [`TrackedRun`] |
//! | GET /v1/tracking/{run}/metrics?key=&max_points= | | [`MetricSeries`] |
//! | GET /v1/models | | [`ModelList`] |
//! | GET /v1/models/{name} | | [`ModelView`] |

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Header that makes a mutating call safe to repeat.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What every refused or failed call answers with. `message` gives the value, `allowed` what would
/// have been accepted, `hint` what to do next. Lower case, no final dot.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Stable, for programs: `unauthenticated`, `forbidden`, `not-found`, `invalid`, `refused`,
    /// `conflict`, `too-large`, `unavailable`, `internal`.
    pub code: String,
    /// What was wrong, with the value given.
    pub message: String,
    /// What is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// What to do next: a command or a flag where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// With `conflict` on a journal: the highest sequence stored; send again from the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<u64>,
}

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

/// What to run. Absent fields take the pool's or the policy's default, on the server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// Name for people; not unique.
    pub name: String,
    /// Program and arguments, at least one.
    pub command: Vec<String>,
    /// SHA-256 (lower-case hex) of the packed folder (tar.zst), already stored as a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_sha256: Option<String>,
    /// Path of the requirements file within the package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements_path: Option<String>,
    /// Folder within the package where the command starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_folder: Option<String>,
    /// Environment variables of the workload.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Container image; absent: the process runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Whole GPUs for each node. Absent with no fraction: 1 where the pool has GPUs, else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// Thousandths of one GPU, 1 to 999, in place of `gpus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_share_milli: Option<u32>,
    /// Cap on GPU memory for each device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_mib: Option<u64>,
    /// GPU model, as `platform nodes list` shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_model: Option<String>,
    /// Nodes of the gang, at least 1.
    #[serde(default = "one")]
    pub nodes: u32,
    /// Thousandths of a CPU for each node, reserved; absent: not reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_milli: Option<u64>,
    /// Memory for each node, reserved; absent: not reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Pool; absent: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Cost tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Name of the model this run is for: caps and cost by model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Higher first, -100 to 100.
    #[serde(default)]
    pub priority: i32,
    /// Longest time to run, from start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    /// How often a failed attempt of the user's own making is tried again.
    #[serde(default)]
    pub retries: u32,
    /// Tenant; absent: the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

fn one() -> u32 {
    1
}

/// POST /v1/runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// What to run.
    pub spec: RunSpec,
    /// Resolve and check everything, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The plan that a submit has, or would have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubmitResponse {
    /// Absent on a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunView>,
    /// The spec with every default filled in.
    pub spec: RunSpec,
    /// Names of the fields that a default filled in.
    pub defaulted: Vec<String>,
    /// Price for each hour of the whole run, in millionths of the currency; the dearest that fits
    /// when the model is left open.
    pub price_per_hour_micro: u64,
    /// Currency code.
    pub currency: String,
    /// Runs ahead of it in the pool's queue; 0: next.
    pub queue_ahead: u64,
    /// Whether it would be placed right now.
    pub starts_now: bool,
    /// Why it waits, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_because: Option<String>,
    /// Guardrails that warned (mode `warn`).
    pub warnings: Vec<String>,
    /// Whether the devices it may get are simulated.
    pub simulated: bool,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// `run-17`.
    pub id: String,
    /// The resolved spec.
    pub spec: RunSpec,
    /// Tenant it is charged to.
    pub tenant: String,
    /// Who submitted it.
    pub user: String,
    /// `queued`, `assigned`, `preparing`, `running`, `stopping`, `succeeded`, `failed`, `cancelled`.
    pub state: String,
    /// What the node is doing while preparing, or why it waits or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When the submit was recorded.
    pub submitted_us: u64,
    /// When the last attempt began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_us: Option<u64>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<u64>,
    /// The workload's own exit code, once it has ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Code that `platform run` and `platform runs wait` exit with, once ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_exit_code: Option<i32>,
    /// Every attempt, first to last.
    pub attempts: Vec<AttemptView>,
    /// Cost until now, in millionths of the currency.
    pub cost_micro: u64,
    /// GPU-microseconds until now: share times time.
    pub gpu_us: u64,
    /// Currency code.
    pub currency: String,
    /// Whether it holds or held simulated devices.
    pub simulated: bool,
}

/// One try of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// From 1.
    pub number: u32,
    /// Fences older holders.
    pub epoch: u64,
    /// `assigned`, `preparing`, `running`, `stopping`, `ended`.
    pub state: String,
    /// When devices were granted.
    pub placed_us: u64,
    /// When every member ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_us: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<u64>,
    /// How it ended, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Members of the gang, by rank.
    pub members: Vec<MemberView>,
}

/// One member of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    /// Node it runs on.
    pub node: String,
    /// `assigned`, `preparing`, `running`, `ended`.
    pub state: String,
    /// Devices it holds or held.
    pub devices: Vec<GrantView>,
    /// How caps are enforced there and what that does not cover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<String>,
}

/// A granted share of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrantView {
    /// Device id.
    pub device: String,
    /// Index on its node.
    pub index: u32,
    /// Model.
    pub model: String,
    /// Thousandths of the device.
    pub share_milli: u32,
    /// Memory granted.
    pub memory_mib: u64,
    /// Not a real GPU.
    pub simulated: bool,
}

/// GET /v1/runs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunList {
    /// The page.
    pub runs: Vec<RunView>,
    /// Pass as `before` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One line of a watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchLine {
    /// Log index this view is of; resuming with it neither repeats nor skips.
    pub index: u64,
    /// The run then.
    pub run: RunView,
    /// Latest metrics by key, when they changed.
    #[serde(default)]
    pub metrics: BTreeMap<String, MetricLatest>,
    /// Progress the script reported with `log_progress`, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// The newest point of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricLatest {
    /// Step.
    pub step: i64,
    /// Value; NaN and infinities as strings.
    #[serde(with = "number")]
    pub value: f64,
    /// How many points the series holds.
    pub count: u64,
}

/// How far a script says it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
}

/// Why a run waits, runs or ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The run.
    pub run: String,
    /// Its state.
    pub state: String,
    /// `over-quota`, `waiting-for-capacity`, `held`, `not-waiting`.
    pub tier: String,
    /// In one sentence.
    pub summary: String,
    /// Counts of nodes by reason: "3 of 4 nodes: model mismatch".
    pub reasons: Vec<String>,
    /// Runs ahead in its pool's queue.
    pub queue_ahead: u64,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// POST /v1/runs/{run}/cancel.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Why, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// GET /v1/nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeList {
    /// By name.
    pub nodes: Vec<NodeView>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Name.
    pub name: String,
    /// Pool.
    pub pool: String,
    /// `ready`, `cordoned`, `draining`, `lost`.
    pub state: String,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Devices with their use.
    pub devices: Vec<DeviceView>,
    /// CPU capacity.
    pub cpu_milli: u64,
    /// CPU reserved.
    pub cpu_reserved_milli: u64,
    /// Memory capacity.
    pub memory_mib: u64,
    /// Memory reserved.
    pub memory_reserved_mib: u64,
    /// Runs holding something here.
    pub runs: Vec<String>,
    /// Agent version.
    pub agent_version: String,
    /// Runtimes that work there.
    pub runtimes: Vec<String>,
    /// Seconds since the agent was heard, absent when it never was since this coordinator started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ago_ms: Option<u64>,
    /// Processes on its devices that no run of ours owns.
    #[serde(default)]
    pub off_platform: Vec<String>,
    /// Its devices are simulated.
    pub simulated: bool,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Id.
    pub id: String,
    /// Index on its node.
    pub index: u32,
    /// Model.
    pub model: String,
    /// Memory.
    pub memory_mib: u64,
    /// Memory granted.
    pub memory_allocated_mib: u64,
    /// Thousandths granted.
    pub share_allocated_milli: u32,
    /// Not a real GPU.
    pub simulated: bool,
    /// Runs holding a share.
    pub runs: Vec<String>,
    /// Last telemetry, where the device gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<f64>,
    /// Memory in use, by telemetry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used_mib: Option<u64>,
}

/// POST /v1/nodes/{node}/cordon|uncordon|drain.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRequest {
    /// Why, for the audit and whoever comes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Drain: how long runs may still finish before they are evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a node change did, or would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeChange {
    /// The node, after.
    pub node: NodeView,
    /// Runs that a drain evicts at its deadline.
    pub affected_runs: Vec<String>,
    /// Nothing was changed.
    pub dry_run: bool,
}

/// POST /v1/tenants: create, or change the parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantRequest {
    /// Name: lower-case letters, digits, `-`, `_`, `.`.
    pub name: String,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantView {
    /// Name.
    pub name: String,
    /// When it was created.
    pub created_us: u64,
    /// Its runs that have not ended.
    pub live_runs: u64,
    /// Its quotas.
    pub quotas: Vec<QuotaView>,
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
    /// GPUs, in thousandths; absent: no quota (unlimited).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_milli: Option<u64>,
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A tenant's quota in a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuotaView {
    /// Tenant.
    pub tenant: String,
    /// Pool.
    pub pool: String,
    /// Guaranteed GPUs, in thousandths; absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_milli: Option<u64>,
    /// In use now.
    pub used_milli: u64,
    /// Asked for by runs that wait.
    pub waiting_milli: u64,
}

/// GET /v1/quotas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuotaList {
    /// By tenant, then pool.
    pub quotas: Vec<QuotaView>,
}

/// PUT /v1/pools/{pool}: create or change.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolRequest {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Refuse a pool that exists already (create), or one that does not (set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub must_exist: Option<bool>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    /// Name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Nodes in it.
    pub nodes: u64,
    /// Devices by model: count.
    pub devices: BTreeMap<String, u64>,
    /// Thousandths of GPUs in all.
    pub gpu_milli: u64,
    /// Granted now.
    pub used_milli: u64,
    /// Runs waiting.
    pub waiting: u64,
    /// Has simulated devices.
    pub simulated: bool,
}

/// GET /v1/pools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolList {
    /// By name.
    pub pools: Vec<PoolView>,
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
    /// GPU model to price for each GPU-hour, in millionths of the currency.
    pub gpu_hour_price_micro: BTreeMap<String, u64>,
    /// For GPU models with no line of their own.
    pub default_gpu_hour_price_micro: u64,
    /// Currency code.
    pub currency: String,
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

/// POST /v1/tracking/{run}/journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalAnswer {
    /// Highest sequence of this writer that the store holds.
    pub watermark: u64,
    /// Answers to records that have one, as `{"sequence":..,"version":..}`.
    pub results: Vec<RecordResult>,
}

/// The answer to one record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordResult {
    /// Sequence of the record.
    pub sequence: u64,
    /// Name of the registered model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Version it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The record was not taken, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// GET /v1/tracking: newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackedList {
    /// The page, without metrics' details.
    pub runs: Vec<TrackedRun>,
}

/// What is tracked of a run, on the platform or elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackedRun {
    /// `run-17`, or the id that an SDK outside made.
    pub run: String,
    /// Name.
    pub name: String,
    /// Parent, when nested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// `running`, `finished`, `failed`, or `unknown` when never opened by an SDK.
    pub status: String,
    /// User that wrote it.
    pub user: String,
    /// When it was opened.
    pub started_us: u64,
    /// When it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<u64>,
    /// Traceback, when the block raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Parameters, as JSON values.
    pub params: BTreeMap<String, serde_json::Value>,
    /// Newest point of each series.
    pub metrics: BTreeMap<String, MetricLatest>,
    /// Artifacts by path.
    pub artifacts: Vec<ArtifactView>,
    /// Models registered from it, `name/version`.
    pub models: Vec<ModelVersionView>,
    /// Progress last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// One stored file of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArtifactView {
    /// Relative path, `/` between parts.
    pub path: String,
    /// Content address.
    pub sha256: String,
    /// Size.
    pub size_bytes: u64,
}

/// GET /v1/tracking/{run}/metrics?key=.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricSeries {
    /// Key.
    pub key: String,
    /// Points stored; more than `points` when thinned.
    pub count: u64,
    /// In the order logged.
    pub points: Vec<MetricPoint>,
}

/// One point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricPoint {
    /// Step.
    pub step: i64,
    /// When it was logged.
    pub time_us: u64,
    /// Value; NaN and infinities as strings.
    #[serde(with = "number")]
    pub value: f64,
}

/// GET /v1/models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelList {
    /// By name.
    pub models: Vec<ModelView>,
}

/// A registered model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelView {
    /// Name.
    pub name: String,
    /// Oldest first.
    pub versions: Vec<ModelVersionView>,
}

/// One version of a registered model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelVersionView {
    /// Model name.
    pub name: String,
    /// From 1.
    pub version: u64,
    /// Run that registered it.
    pub run: String,
    /// Framework, as the manifest says.
    pub framework: String,
    /// When.
    pub created_us: u64,
    /// The manifest written at save time.
    pub manifest: serde_json::Value,
    /// Files, the manifest included.
    pub files: Vec<ArtifactView>,
}

/// A number that JSON may be unable to write: NaN and infinities travel as strings.
pub mod number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes a number, or `"NaN"`, `"Infinity"`, `"-Infinity"`.
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            serializer.serialize_f64(*value)
        } else if value.is_nan() {
            serializer.serialize_str("NaN")
        } else if *value > 0.0 {
            serializer.serialize_str("Infinity")
        } else {
            serializer.serialize_str("-Infinity")
        }
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Word(String),
    }

    /// Reads what [`serialize`] writes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(number),
            Written::Word(word) => match word.as_str() {
                "NaN" => Ok(f64::NAN),
                "Infinity" => Ok(f64::INFINITY),
                "-Infinity" => Ok(f64::NEG_INFINITY),
                other => Err(D::Error::custom(format!(
                    "{other:?} is not a number, NaN, Infinity or -Infinity"
                ))),
            },
        }
    }
}
