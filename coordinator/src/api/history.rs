//! What a period has seen, and what it began with, for whoever plays it again with other quotas. Read
//! in pages, so that no reader holds up the log for long.

use super::App;
use super::auth::Identity;
use super::convert_history;
use super::error::ApiError;
use super::runs::run_id;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use coordinator_core::model::{Array, ArrayId, Role, RunId};
use coordinator_core::state::State as Replicated;
use coordinator_replica::write_snapshot;
use platform_proto::http::HistoryPage;
use raft::eraftpb::SnapshotMetadata;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Runs on a page: a few milliseconds of the state.
const PAGE_RUNS: usize = 1_000;

/// Which page of which period.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    since_us: u64,
    until_us: u64,
    after: Option<String>,
}

/// GET /v1/history.
pub async fn page(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<HistoryPage>, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let HistoryQuery {
        since_us, until_us, ..
    } = query;
    if since_us >= until_us {
        return Err(ApiError::invalid(format!(
            "the period from {since_us} to {until_us} is empty"
        ))
        .allowed("a 'since' before 'until'"));
    }
    let after = query.after.as_deref().map(run_id).transpose()?;
    let page = app.driver.read(|state| {
        let mut past = state
            .past_runs_after(after.unwrap_or(RunId(0)), since_us)
            .take_while(|run| run.submitted_us < until_us);
        let runs: Vec<_> = past
            .by_ref()
            .take(PAGE_RUNS)
            .map(|run| Replicated::past_run(run, since_us, until_us))
            .collect();
        let arrays: BTreeMap<ArrayId, &Array> = runs
            .iter()
            .filter_map(|run| state.arrays().get_key_value(&run.array?))
            .map(|(id, array)| (*id, array))
            .collect();
        let next = past.next().and(runs.last()).map(|last| last.id.to_string());
        HistoryPage {
            runs: runs.iter().map(convert_history::run_to_http).collect(),
            arrays: arrays
                .into_values()
                .map(convert_history::array_to_http)
                .collect(),
            next,
        }
    });
    Ok(Json(page))
}

/// When the period began.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameQuery {
    since_us: u64,
}

/// GET /v1/history/frame: what a replay begins with ([`Replicated::frame`]), in the bytes of a snapshot:
/// whoever replays runs the same core, and settings to come need no words of their own here.
pub async fn frame(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Query(query): Query<FrameQuery>,
) -> Result<Response, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let frame = app.driver.read(|state| state.frame(query.since_us));
    let mut bytes = Vec::new();
    write_snapshot(&mut bytes, &SnapshotMetadata::default(), &frame)
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let media = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((media, bytes).into_response())
}

/// Reads what [`frame`] answers.
///
/// # Errors
///
/// Bytes of a version that this one does not know, in words.
pub fn read_frame(bytes: &[u8]) -> Result<Replicated, String> {
    coordinator_replica::read_snapshot(bytes)
        .map(|(_, frame)| frame)
        .map_err(|error| error.to_string())
}
