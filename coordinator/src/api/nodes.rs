//! Nodes: list, show, cordon, uncordon, drain.

use super::auth::Identity;
use super::error::ApiError;
use super::{App, convert, idempotency_key};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use coordinator_core::model::{NodeName, Role};
use coordinator_core::state::{Command, unknown_node};
use platform_proto::http::{NodeChange, NodeList, NodeRequest, NodeView};

/// From a drain until what is left is evicted, unless told otherwise: long enough for a checkpoint.
const DEFAULT_DRAIN_MS: u64 = 10 * 60 * 1000;

fn view(app: &App, name: &NodeName) -> Result<NodeView, ApiError> {
    let seen = app.hub.seen(name);
    app.driver.read(|state| match state.nodes().get(name) {
        Some(node) => Ok(convert::node_view(node, seen.as_ref())),
        None => Err(unknown_node(name.as_str(), state.nodes().keys()).into()),
    })
}

/// GET /v1/nodes.
pub async fn list(State(app): State<App>) -> Json<NodeList> {
    let nodes = app.driver.read(|state| {
        state
            .nodes()
            .values()
            .map(|node| convert::node_view(node, app.hub.seen(&node.description.name).as_ref()))
            .collect()
    });
    Json(NodeList { nodes })
}

/// GET /v1/nodes/{node}.
pub async fn show(
    State(app): State<App>,
    Path(node): Path<String>,
) -> Result<Json<NodeView>, ApiError> {
    Ok(Json(view(&app, &NodeName::new(&node)?)?))
}

async fn change(
    app: App,
    identity: Identity,
    headers: HeaderMap,
    node: String,
    request: &NodeRequest,
    command: impl FnOnce(NodeName) -> Command,
    evicts: bool,
) -> Result<Json<NodeChange>, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let name = NodeName::new(&node)?;
    let before = view(&app, &name)?;
    if !request.dry_run {
        app.propose(&identity, idempotency_key(&headers)?, command(name.clone()))
            .await?;
    }
    Ok(Json(NodeChange {
        node: view(&app, &name)?,
        affected_runs: if evicts { before.runs } else { Vec::new() },
        dry_run: request.dry_run,
    }))
}

fn reason(request: &NodeRequest) -> String {
    request
        .reason
        .clone()
        .unwrap_or_else(|| "no reason given".to_owned())
}

/// POST /v1/nodes/{node}/cordon.
pub async fn cordon(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(node): Path<String>,
    headers: HeaderMap,
    Json(request): Json<NodeRequest>,
) -> Result<Json<NodeChange>, ApiError> {
    let reason = reason(&request);
    change(
        app,
        identity,
        headers,
        node,
        &request,
        |node| Command::Cordon { node, reason },
        false,
    )
    .await
}

/// POST /v1/nodes/{node}/uncordon.
pub async fn uncordon(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(node): Path<String>,
    headers: HeaderMap,
    Json(request): Json<NodeRequest>,
) -> Result<Json<NodeChange>, ApiError> {
    change(
        app,
        identity,
        headers,
        node,
        &request,
        |node| Command::Uncordon { node },
        false,
    )
    .await
}

/// POST /v1/nodes/{node}/drain.
pub async fn drain(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(node): Path<String>,
    headers: HeaderMap,
    Json(request): Json<NodeRequest>,
) -> Result<Json<NodeChange>, ApiError> {
    let reason = reason(&request);
    let grace_ms = request.deadline_ms.unwrap_or(DEFAULT_DRAIN_MS);
    change(
        app,
        identity,
        headers,
        node,
        &request,
        |node| Command::Drain {
            node,
            reason,
            grace_ms,
        },
        true,
    )
    .await
}
