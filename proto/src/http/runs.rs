//! Runs: what is submitted, listed, watched, explained.

use super::arrays::{ArrayView, ElementCount, ElementView, SweepRequest};
use super::budgets::BudgetView;
use super::outlook::OutlookView;
use super::tracking::{MetricLatest, Progress};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// A priority by its name in the policy, instead of a number; read, the class of its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
    /// Whether it stops no other run of its tenant. A class says so, whatever was asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_preempts: bool,
    /// Longest time to run, from start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    /// How often a failed attempt of the user's own making is tried again.
    #[serde(default)]
    pub retries: u32,
    /// Tenant; absent: the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Whether it may be stopped and queued again for another run; absent: it may. One that may not
    /// never borrows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemptible: Option<bool>,
    /// Longest time from its submission until it first starts; one that has not started by then ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_deadline_ms: Option<u64>,
    /// A signal before its time limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<WarningSpec>,
    /// What must have ended before it may start: `run-17:ok` (with success), `run-17:any`; `run-17`
    /// means the former.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Whether the members of its gang go to as many racks as there are, instead of to as few.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spread: bool,
}

/// A signal that a workload is sent before its time limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarningSpec {
    /// How long before the limit.
    pub before_ms: u64,
    /// `SIGUSR1`, `SIGUSR2`, `SIGHUP` or `SIGINT`.
    #[serde(default = "user_signal")]
    pub signal: String,
}

fn user_signal() -> String {
    "SIGUSR1".to_owned()
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
    /// With `dry_run`: say what it would have before it too, which takes a few plans.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outlook: bool,
    /// Make an array of it: indexes, and how many at once, as in `0-99%8`, `1,3,7`, `0-10:2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// Make an array of it, with an element for each set of parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepRequest>,
}

/// The plan that a submit has, or would have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubmitResponse {
    /// Absent on a dry run, and for an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunView>,
    /// The array that was made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<ArrayView>,
    /// Elements, when it is an array; price and place in the queue are then those of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elements: Option<ElementCount>,
    /// The spec with every default filled in.
    pub spec: RunSpec,
    /// Names of the fields that a default filled in.
    pub defaulted: Vec<String>,
    /// Price for each hour of the whole run, in millionths of the currency; the dearest that fits
    /// when the model is left open.
    pub price_per_hour_micro: u64,
    /// The model is left open and cheaper devices fit too.
    #[serde(default)]
    pub price_at_most: bool,
    /// Currency code.
    pub currency: String,
    /// Runs ahead of it in the pool's queue; 0: next.
    pub queue_ahead: u64,
    /// Whether it would be placed right now.
    pub starts_now: bool,
    /// Why it waits, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_because: Option<String>,
    /// Budgets that it draws on, as they stand, among those that the caller may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetView>,
    /// Guardrails that warned (mode `warn`).
    pub warnings: Vec<String>,
    /// Whether the devices it may get are simulated.
    pub simulated: bool,
    /// Counts of nodes by what they lack, when it waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// What it would have before it, when it was asked for and it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlook: Option<OutlookView>,
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
    /// `held`, `queued`, `assigned`, `preparing`, `running`, `stopping`, `succeeded`, `failed`,
    /// `cancelled`.
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
    /// Its part in an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<ElementView>,
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
    /// Its GPUs idle, all of them; absent: they are used, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleView>,
    /// Why its GPUs may idle, as somebody said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<JustificationView>,
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
    /// When it last said that all its work is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpointed_us: Option<u64>,
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
    /// With `collapse`: arrays of the page, in place of their elements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arrays: Vec<ArrayView>,
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

/// Why a run waits, runs or ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The run.
    pub run: String,
    /// Its state.
    pub state: String,
    /// `over-quota`, `over-budget`, `over-cap`, `waiting-for-capacity`, `held`, `not-waiting`.
    pub tier: String,
    /// In one sentence.
    pub summary: String,
    /// Counts of nodes by reason: "3 of 4 nodes: model mismatch".
    pub reasons: Vec<String>,
    /// Runs of its tenant ahead in its pool's queue.
    pub queue_ahead: u64,
    /// What it has before it, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlook: Option<OutlookView>,
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

/// That the GPUs of a live run idle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdleView {
    /// Since when.
    pub since_us: u64,
    /// When it was warned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warned_us: Option<u64>,
    /// When it is stopped if they go on idling; absent: it is not warned yet, or is not stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_at_us: Option<u64>,
    /// What they have cost since then, in millionths of the currency.
    pub cost_micro: u64,
}

/// Why the GPUs of a run may idle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JustificationView {
    /// Who says so.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was said.
    pub at_us: u64,
    /// Until when it holds.
    pub until_us: u64,
}

/// POST /v1/runs/{run}/justify.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JustifyRequest {
    /// Why its GPUs may idle, for the audit.
    pub reason: String,
    /// For how long from now; absent: as long as the policy lets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// Say what would hold, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}
