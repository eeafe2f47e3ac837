//! Watching one run: a line whenever it or its metrics change, until it has ended.

use super::auth::Identity;
use super::error::ApiError;
use super::lines::{Lines, NDJSON};
use super::runs::{run_id, visible};
use super::{App, convert, tracking};
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use coordinator_core::model::{MemberKey, RunId};
use platform_proto::http::WatchLine;
use std::time::Duration;
use tokio::sync::broadcast;

/// Metrics are sent at most so often: a terminal shows no more.
const METRICS_INTERVAL: Duration = Duration::from_millis(200);
/// After the end, how long the last line waits for the node to have relayed the run's journal.
const DRAIN_BOUND: Duration = Duration::from_secs(5);
/// Lines waiting for a slow reader; past it the watch waits and skips to the newest view.
const LINES_IN_FLIGHT: usize = 16;

/// GET /v1/runs/{run}/watch.
pub async fn watch(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(run): Path<String>,
) -> Result<Response, ApiError> {
    let id = run_id(&run)?;
    app.driver
        .read(|state| visible(state, &identity, id).map(|_| ()))?;
    let body = Lines::body(LINES_IN_FLIGHT, move |lines| async move {
        follow(&app, id, &lines).await
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], body).into_response())
}

async fn follow(app: &App, id: RunId, lines: &Lines) -> Result<(), ApiError> {
    let mut applied = app.driver.watch();
    let mut tracked = app.tracking.changed();
    let name = id.to_string();
    let mut last: Option<WatchLine> = None;
    let mut last_metrics_at = tokio::time::Instant::now();
    let mut metrics_due = true;
    loop {
        applied.borrow_and_update();
        let mut line = view(app, id)?;
        let ended = line.run.ended_us.is_some();
        let ended_just_now = line.run.ended_us.is_some_and(|at| {
            crate::now_us().saturating_sub(at)
                < u64::try_from(DRAIN_BOUND.as_micros()).unwrap_or(u64::MAX)
        });
        if ended_just_now {
            wait_until_drained(app, id).await;
            line = view(app, id)?;
        }
        if metrics_due || ended {
            let (latest, progress) = app.tracking.latest(&name).await?;
            line.metrics = tracking::latest_view(latest);
            line.progress = progress.map(tracking::progress_view);
            metrics_due = false;
            last_metrics_at = tokio::time::Instant::now();
        } else if let Some(last) = &last {
            line.metrics.clone_from(&last.metrics);
            line.progress.clone_from(&last.progress);
        }
        if ended || last.as_ref().is_none_or(|last| differs(last, &line)) {
            if !lines.send_json(&line).await? || ended {
                return Ok(());
            }
            last = Some(line);
        }
        loop {
            tokio::select! {
                changed = applied.changed() => {
                    changed.map_err(|_| ApiError::unavailable("the coordinator is stopping"))?;
                    break;
                }
                event = tracked.recv(), if !metrics_due => match event {
                    Ok(run) if run != name => {}
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(ApiError::unavailable("the coordinator is stopping"));
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => metrics_due = true,
                },
                () = tokio::time::sleep_until(last_metrics_at + METRICS_INTERVAL), if metrics_due => break,
                () = lines.closed() => return Ok(()),
            }
        }
        metrics_due = metrics_due && last_metrics_at.elapsed() >= METRICS_INTERVAL;
    }
}

/// Two views differ when more than the running cost does.
fn differs(last: &WatchLine, line: &WatchLine) -> bool {
    last.run.state != line.run.state
        || last.run.detail != line.run.detail
        || last.run.attempts != line.run.attempts
        || last.metrics != line.metrics
        || last.progress != line.progress
}

fn view(app: &App, id: RunId) -> Result<WatchLine, ApiError> {
    app.driver.read(|state| {
        let run = state
            .runs()
            .get(&id)
            .ok_or_else(|| ApiError::not_found(format!("{id} does not exist")))?;
        Ok(WatchLine {
            index: state.index(),
            run: convert::run_view(state, run, crate::now_us()),
            metrics: std::collections::BTreeMap::new(),
            progress: None,
        })
    })
}

/// Waits, within a bound, until every node that ran a member has relayed what the run recorded.
async fn wait_until_drained(app: &App, id: RunId) {
    let members: Vec<(MemberKey, coordinator_core::model::NodeName)> = app.driver.read(|state| {
        let Some(run) = state.runs().get(&id) else {
            return Vec::new();
        };
        let Some(attempt) = run.last_attempt() else {
            return Vec::new();
        };
        (0_u32..)
            .zip(&attempt.members)
            .map(|(member, at)| {
                (
                    MemberKey {
                        run: id,
                        attempt: attempt.number,
                        member,
                    },
                    at.node.clone(),
                )
            })
            .collect()
    });
    let drained = async {
        for (key, node) in &members {
            app.hub.wait_until_drained(*key, node).await;
        }
    };
    if tokio::time::timeout(DRAIN_BOUND, drained).await.is_err() {
        tracing::warn!(run = %id, "the journal was not relayed within the bound; what is left follows later");
    }
}
