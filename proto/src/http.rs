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
//! | GET /v1/runs?state=&user=&tenant=&tag=k=v&array=&collapse=&limit=&before= | | [`RunList`] |
//! | GET /v1/runs/{run} | | [`RunView`] |
//! | GET /v1/runs/{run}/explain | | [`Explanation`] |
//! | GET /v1/runs/{run}/watch | | newline-delimited [`WatchLine`], until the run has ended |
//! | GET /v1/runs/{run}/logs?offset=&follow=&attempt=&member= | | bytes, chunked |
//! | POST /v1/runs/{run}/cancel | [`CancelRequest`] | [`RunView`] |
//! | POST /v1/runs/{run}/justify | [`JustifyRequest`] | [`RunView`] |
//! | GET /v1/arrays/{array} | | [`ArrayView`] |
//! | GET /v1/arrays/{array}/watch | | newline-delimited [`ArrayView`], until all have ended |
//! | POST /v1/arrays/{array}/cancel | [`CancelRequest`] | [`ArrayView`] |
//! | GET /v1/nodes | | [`NodeList`] |
//! | GET /v1/nodes/{node} | | [`NodeView`] |
//! | POST /v1/nodes/{node}/cordon, uncordon, drain | [`NodeRequest`] | [`NodeChange`] |
//! | GET, POST /v1/tenants | [`TenantRequest`] | [`TenantList`], [`TenantView`] |
//! | PUT /v1/tenants/{tenant} | [`TenantChange`] | [`TenantView`] |
//! | GET /v1/quotas, PUT /v1/quotas | [`QuotaRequest`] | [`QuotaList`], [`QuotaView`] |
//! | GET /v1/pools, PUT /v1/pools/{pool} | [`PoolRequest`] | [`PoolList`], [`PoolView`] |
//! | GET, PUT /v1/policy | [`PolicyView`] | [`PolicyView`] |
//! | GET /v1/budgets | | [`BudgetList`] |
//! | PUT, DELETE /v1/budgets/{name} | [`BudgetRequest`] | [`BudgetView`] |
//! | GET /v1/cost?by=&since_us=&until_us= | | [`CostReport`] |
//! | GET /v1/runs/{run}/decisions, GET /v1/decisions?limit= | | [`DecisionList`] |
//! | GET /v1/decisions/{id}/replay | | [`DecisionReplay`] |
//! | GET /v1/history?since_us=&until_us=&after= | | [`HistoryPage`] |
//! | GET /v1/history/frame?since_us= | | what a replay of it begins with, as bytes of a snapshot |
//! | GET, POST /v1/tokens | [`TokenRequest`] | [`TokenList`], [`TokenCreated`] |
//! | DELETE /v1/tokens/{id} | | [`TokenView`] |
//! | HEAD, GET, PUT /v1/blobs/{sha256} | bytes | bytes |
//! | POST /v1/tracking/{run}/journal?writer= | journal lines | [`JournalAnswer`] |
//! | GET /v1/tracking?limit=&before= | | [`TrackedList`] |
//! | GET /v1/tracking/{run} | | [`TrackedRun`] |
//! | GET /v1/tracking/{run}/metrics?key=&max_points= | | [`MetricSeries`] |
//! | GET /v1/models | | [`ModelList`] |
//! | GET /v1/models/{name} | | [`ModelView`] |

mod arrays;
mod budgets;
mod decisions;
mod history;
mod nodes;
pub mod number;
mod outlook;
mod runs;
mod settings;
mod tracking;

pub use arrays::*;
pub use budgets::*;
pub use decisions::*;
pub use history::*;
pub use nodes::*;
pub use outlook::*;
pub use runs::*;
pub use settings::*;
pub use tracking::*;

use serde::{Deserialize, Serialize};

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
