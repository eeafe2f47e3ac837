//! Arrays: show, watch, cancel. They are submitted and listed with the runs.

use super::auth::Identity;
use super::error::ApiError;
use super::lines::{Lines, NDJSON};
use super::{App, convert_arrays, idempotency_key};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use coordinator_core::model::{Array, ArrayId, Role};
use coordinator_core::policy::{Refusal, RefusalKind};
use coordinator_core::state::{Command, State as Replicated};
use platform_proto::http::{ArrayView, CancelRequest};
use std::time::Duration;

/// Lines of a watch come at most so often: thousands of elements may change within a second.
const INTERVAL: Duration = Duration::from_millis(200);
/// Lines waiting for a slow reader.
const LINES_IN_FLIGHT: usize = 4;

/// Reads `array-17`.
pub fn array_id(text: &str) -> Result<ArrayId, ApiError> {
    text.parse::<ArrayId>().map_err(ApiError::from)
}

/// The array, if it exists and the caller may see it. Another tenant's is not told from none.
pub fn visible<'a>(
    state: &'a Replicated,
    identity: &Identity,
    id: ArrayId,
) -> Result<&'a Array, ApiError> {
    state
        .arrays()
        .get(&id)
        .filter(|array| identity.may_see(&array.tenant))
        .ok_or_else(|| {
            Refusal::new(RefusalKind::NotFound, format!("{id} does not exist"))
                .hint("see the arrays with: platform runs list")
                .into()
        })
}

/// GET /v1/arrays/{array}.
pub async fn show(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(array): Path<String>,
) -> Result<Json<ArrayView>, ApiError> {
    view(&app, &identity, array_id(&array)?).map(Json)
}

fn view(app: &App, identity: &Identity, id: ArrayId) -> Result<ArrayView, ApiError> {
    app.driver.read(|state| {
        let array = visible(state, identity, id)?;
        Ok(convert_arrays::array_view(state, array, crate::now_us()))
    })
}

/// GET /v1/arrays/{array}/watch.
pub async fn watch(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(array): Path<String>,
) -> Result<Response, ApiError> {
    let id = array_id(&array)?;
    view(&app, &identity, id)?;
    let body = Lines::body(LINES_IN_FLIGHT, move |lines| async move {
        follow(&app, &identity, id, &lines).await
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], body).into_response())
}

async fn follow(
    app: &App,
    identity: &Identity,
    id: ArrayId,
    lines: &Lines,
) -> Result<(), ApiError> {
    let mut applied = app.driver.watch();
    let mut last: Option<ArrayView> = None;
    loop {
        applied.borrow_and_update();
        let line = view(app, identity, id)?;
        let ended = line.ended_us.is_some();
        if ended || last.as_ref().is_none_or(|last| differs(last, &line)) {
            if !lines.send_json(&line).await? || ended {
                return Ok(());
            }
            last = Some(line);
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = lines.closed() => return Ok(()),
        }
        tokio::select! {
            changed = applied.changed() => {
                changed.map_err(|_| ApiError::unavailable("the coordinator is stopping"))?;
            }
            () = lines.closed() => return Ok(()),
        }
    }
}

/// Two views differ when more than the running cost does.
fn differs(last: &ArrayView, line: &ArrayView) -> bool {
    (last.held, last.queued, last.alive) != (line.held, line.queued, line.alive)
        || (last.succeeded, last.failed, last.cancelled)
            != (line.succeeded, line.failed, line.cancelled)
}

/// POST /v1/arrays/{array}/cancel.
pub async fn cancel(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(array): Path<String>,
    headers: HeaderMap,
    Json(request): Json<CancelRequest>,
) -> Result<Json<ArrayView>, ApiError> {
    identity.require(Role::Member)?;
    let id = array_id(&array)?;
    app.driver.read(|state| {
        let array = visible(state, &identity, id)?;
        identity.require_own(&array.user, &array.tenant)
    })?;
    let command = Command::CancelArray {
        array: id,
        reason: request.reason,
    };
    app.propose(&identity, idempotency_key(&headers)?, command)
        .await?;
    tracing::info!(array = %id, user = %identity.user, "cancelled");
    view(&app, &identity, id).map(Json)
}
