//! The edge: HTTP/JSON for people and the SDK, gRPC for agents, one port for both.
//!
//! Handlers check who may, propose or read, and convert. They decide nothing: rules live in
//! `coordinator_core::policy`, changes in `State::apply`.

mod agents;
mod arrays;
mod auth;
mod blobs;
mod budgets;
mod convert;
pub(crate) mod convert_arrays;
mod convert_budgets;
mod convert_decisions;
mod convert_history;
mod convert_idle;
mod convert_outlook;
mod convert_priorities;
mod cost;
mod decisions;
mod error;
mod history;
mod lines;
mod logs;
mod outlook;
mod refusals;
mod runs;
mod settings;
mod tracking;
mod watch;

mod nodes;

pub use auth::hash_secret;
pub use convert_history::{array_from_http, run_from_http};
pub use error::ApiError;
pub use history::read_frame;
pub use refusals::Refusals;

use crate::driver::DriverHandle;
use crate::sessions::Hub;
use auth::Identity;
use axum::extract::DefaultBodyLimit;
use axum::http::HeaderMap;
use axum::routing::{delete, get, post, put};
use axum::{Router, middleware};
use coordinator_core::state::{Command, Event};
use coordinator_tracking::{BlobStore, Tracking};
use metrics_exporter_prometheus::PrometheusHandle;
use platform_proto::agent::agent_service_server::AgentServiceServer;
use platform_proto::http::IDEMPOTENCY_KEY;
use std::sync::Arc;
use std::time::Duration;

/// Largest JSON body. A submit is at most a few hundred KiB, a journal call 4 MiB.
const LARGEST_BODY_BYTES: usize = 8 * 1024 * 1024;
/// Largest message to an agent: everything that should run on a node full of runs, whose specs are up to
/// 256 KiB each. Agents take as much.
const LARGEST_SESSION_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
const LONGEST_IDEMPOTENCY_KEY: usize = 200;

/// What every handler may use.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The parts behind [`App`].
pub struct Parts {
    /// Proposals and reads.
    pub driver: DriverHandle,
    /// Experiments, metrics, registry, ledger.
    pub tracking: Tracking,
    /// Content-addressed bytes.
    pub blobs: BlobStore,
    /// Agents' sessions.
    pub hub: Hub,
    /// Refused submits that were kept lately.
    pub refusals: Refusals,
    /// Lease granted to agents.
    pub lease: Duration,
    /// The process's metrics; absent when the process has no recorder.
    pub metrics: Option<PrometheusHandle>,
}

impl std::ops::Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Wraps the parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Proposes on behalf of a caller; a rejection becomes the error it is.
    async fn propose(
        &self,
        identity: &Identity,
        idempotency_key: Option<String>,
        command: Command,
    ) -> Result<std::sync::Arc<Vec<Event>>, ApiError> {
        let submits = matches!(
            command,
            Command::Submit { .. } | Command::SubmitArray { .. }
        );
        let applied = self
            .driver
            .propose(identity.actor(), idempotency_key, command)
            .await?;
        match applied.events.first() {
            Some(Event::Rejected { refusal }) => {
                if submits {
                    self.keep_refusal(identity, applied.index, refusal);
                }
                Err(refusal.clone().into())
            }
            _ => Ok(applied.events),
        }
    }
}

/// The caller's idempotency key, checked.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("");
    if text.is_empty() || text.len() > LONGEST_IDEMPOTENCY_KEY {
        return Err(
            ApiError::invalid("the idempotency key is not valid").allowed(format!(
                "1 to {LONGEST_IDEMPOTENCY_KEY} visible ASCII characters"
            )),
        );
    }
    Ok(Some(text.to_owned()))
}

/// Every route.
pub fn router(app: App) -> Router {
    let authenticated = Router::new()
        .route("/metrics", get(prometheus))
        .route("/v1/whoami", get(settings::whoami))
        .route("/v1/runs", get(runs::list).post(runs::submit))
        .route("/v1/runs/{run}", get(runs::show))
        .route("/v1/runs/{run}/explain", get(runs::explain))
        .route("/v1/runs/{run}/decisions", get(decisions::of_run))
        .route("/v1/decisions", get(decisions::list))
        .route("/v1/decisions/{id}/replay", get(decisions::replay))
        .route("/v1/runs/{run}/watch", get(watch::watch))
        .route("/v1/runs/{run}/logs", get(logs::logs))
        .route("/v1/runs/{run}/cancel", post(runs::cancel))
        .route("/v1/runs/{run}/justify", post(runs::justify))
        .route("/v1/arrays/{array}", get(arrays::show))
        .route("/v1/arrays/{array}/watch", get(arrays::watch))
        .route("/v1/arrays/{array}/cancel", post(arrays::cancel))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{node}", get(nodes::show))
        .route("/v1/nodes/{node}/cordon", post(nodes::cordon))
        .route("/v1/nodes/{node}/uncordon", post(nodes::uncordon))
        .route("/v1/nodes/{node}/drain", post(nodes::drain))
        .route(
            "/v1/tenants",
            get(settings::tenants).post(settings::create_tenant),
        )
        .route("/v1/tenants/{tenant}", put(settings::set_tenant))
        .route("/v1/quotas", get(settings::quotas).put(settings::set_quota))
        .route("/v1/pools", get(settings::pools))
        .route("/v1/pools/{pool}", put(settings::set_pool))
        .route(
            "/v1/policy",
            get(settings::policy).put(settings::set_policy),
        )
        .route("/v1/budgets", get(budgets::list))
        .route(
            "/v1/budgets/{name}",
            put(budgets::set).delete(budgets::remove),
        )
        .route("/v1/cost", get(cost::cost))
        .route("/v1/history", get(history::page))
        .route("/v1/history/frame", get(history::frame))
        .route(
            "/v1/tokens",
            get(settings::tokens).post(settings::create_token),
        )
        .route("/v1/tokens/{id}", delete(settings::revoke_token))
        .route("/v1/tracking", get(tracking::list))
        .route("/v1/tracking/{run}", get(tracking::show))
        .route("/v1/tracking/{run}/metrics", get(tracking::series))
        .route("/v1/tracking/{run}/journal", post(tracking::append))
        .route("/v1/models", get(tracking::models))
        .route("/v1/models/{name}", get(tracking::model))
        .layer(DefaultBodyLimit::max(LARGEST_BODY_BYTES))
        // Blobs are streamed with their own limit.
        .route("/v1/blobs/{sha256}", get(blobs::get).put(blobs::put))
        .fallback(unknown_route)
        .layer(middleware::map_response(error::in_one_shape))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            auth::authenticate,
        ));
    let agents = AgentServiceServer::new(agents::Agents::new(app.clone()))
        .max_decoding_message_size(LARGEST_BODY_BYTES)
        .max_encoding_message_size(LARGEST_SESSION_MESSAGE_BYTES);
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .merge(authenticated.with_state(app))
        .route_service("/platform.agent.v1.AgentService/{*method}", agents)
}

async fn unknown_route(request: axum::extract::Request) -> ApiError {
    ApiError::not_found(format!(
        "{} {} is not a route",
        request.method(),
        request.uri().path()
    ))
}

async fn prometheus(
    axum::extract::State(app): axum::extract::State<App>,
) -> Result<String, ApiError> {
    let Some(handle) = &app.metrics else {
        return Err(ApiError::not_found("this process records no metrics"));
    };
    let (live, queued, nodes) = app.driver.read(|state| {
        (
            state.live().len(),
            state
                .pools()
                .keys()
                .map(|pool| state.queues().waiting(pool))
                .sum::<usize>(),
            state.nodes().len(),
        )
    });
    metrics::gauge!("coordinator_runs_live").set(live as f64);
    metrics::gauge!("coordinator_runs_queued").set(queued as f64);
    metrics::gauge!("coordinator_nodes").set(nodes as f64);
    Ok(handle.render())
}
