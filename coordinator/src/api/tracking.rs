//! Tracked runs, metrics and models: the SDK writes journals, people read.

use super::App;
use super::auth::Identity;
use super::error::ApiError;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use coordinator_core::model::{Role, RunId};
use coordinator_tracking as store;
use platform_proto::http::{
    ArtifactView, JournalAnswer, MetricLatest, MetricPoint, MetricSeries, ModelList,
    ModelVersionView, ModelView, Progress, RecordResult, TrackedList, TrackedRun,
};
use serde::Deserialize;
use std::collections::BTreeMap;

const DEFAULT_PAGE: u32 = 50;
const LARGEST_PAGE: u32 = 1_000;
const DEFAULT_POINTS: usize = 1_000;
const LARGEST_POINTS: usize = store::MAX_SERIES_POINTS;

/// The platform run that a tracked run is, or is nested in.
pub fn platform_run(tracked: &str) -> Option<RunId> {
    tracked.split('.').next()?.parse().ok()
}

/// Whether the text may name a tracked run at all.
pub fn check_tracked_name(tracked: &str) -> Result<(), ApiError> {
    if store::is_tracked_run(tracked) {
        Ok(())
    } else {
        Err(
            ApiError::invalid(format!("tracked run {tracked:?} is not valid"))
                .allowed("run-N, run-N.HEX, local-ID or dev-ID"),
        )
    }
}

/// Whether a process that records may write under this name: the SDK's, in a workload or elsewhere.
/// Every other name is the agents'.
pub fn is_workload_writer(writer: &str) -> bool {
    writer.strip_prefix("w-").is_some_and(|rest| {
        rest.len() == 16
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// Refuses a caller who may read a run but not change it: another user's, below a tenant-admin.
fn check_own(app: &App, identity: &Identity, tracked: &str) -> Result<(), ApiError> {
    let Some(id) = platform_run(tracked) else {
        return Ok(());
    };
    let owner = app.driver.read(|state| {
        let run = state.runs().get(&id)?;
        (!identity.owns(&run.user, &run.tenant)).then(|| run.user.clone())
    });
    match owner {
        Some(owner) if !identity.role.includes(Role::TenantAdmin) => {
            Err(ApiError::forbidden(format!(
                "{id} is {owner}'s, and {} has the role {}",
                identity.user,
                identity.role.as_str()
            ))
            .allowed("own runs, or role tenant-admin and above")
            .hint("record into a run of your own, or ask its owner to"))
        }
        _ => Ok(()),
    }
}

/// Refuses a caller who may not touch this tracked run: another tenant's, or another user's own.
async fn check_access(
    app: &App,
    identity: &Identity,
    tracked: &str,
) -> Result<Option<store::TrackedRun>, ApiError> {
    check_tracked_name(tracked)?;
    let hidden = || {
        ApiError::not_found(format!("tracked run {tracked:?} does not exist"))
            .hint("see the runs with: platform runs list")
    };
    let known = app.tracking.run(tracked).await?;
    if let Some(id) = platform_run(tracked) {
        let seen = app.driver.read(|state| {
            state
                .runs()
                .get(&id)
                .is_some_and(|run| identity.may_see(&run.tenant))
        });
        if !seen {
            return Err(hidden());
        }
    } else if let Some(run) = &known
        && run.summary.user != identity.user.as_str()
        && !identity.role.includes(Role::PlatformAdmin)
    {
        return Err(hidden());
    }
    Ok(known)
}

/// POST /v1/tracking/{run}/journal: the SDK outside the platform, and `platform sync`.
pub async fn append(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(tracked): Path<String>,
    Query(query): Query<AppendQuery>,
    lines: Bytes,
) -> Result<Json<JournalAnswer>, ApiError> {
    identity.require(Role::Member)?;
    if query.writer.starts_with("agent-") {
        return Err(ApiError::forbidden(format!(
            "writer {:?} is an agent's: what a node records itself is written by that node alone",
            query.writer
        ))
        .allowed("w- and 16 hexadecimal digits"));
    }
    if !is_workload_writer(&query.writer) {
        return Err(ApiError::invalid(format!(
            "writer {:?} is not valid",
            query.writer.chars().take(80).collect::<String>()
        ))
        .allowed("w- and 16 hexadecimal digits"));
    }
    check_access(&app, &identity, &tracked).await?;
    check_own(&app, &identity, &tracked)?;
    let tenant = platform_run(&tracked).and_then(|id| {
        app.driver
            .read(|state| Some(state.runs().get(&id)?.tenant.clone()))
    });
    let author = store::Author {
        user: identity.user.to_string(),
        tenant: tenant
            .unwrap_or_else(|| identity.tenant.clone())
            .to_string(),
    };
    let outcome = app
        .tracking
        .append_journal(&tracked, &author, &query.writer, lines)
        .await?;
    let results = outcome
        .results
        .iter()
        .map(|result| serde_json::from_str::<RecordResult>(result))
        .collect::<Result<_, _>>()
        .map_err(|error| {
            ApiError::internal(format!("the store's answer cannot be read: {error}"))
        })?;
    Ok(Json(JournalAnswer {
        watermark: outcome.watermark,
        results,
    }))
}

/// Who writes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppendQuery {
    writer: String,
}

/// A page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<u32>,
    before: Option<String>,
}

/// GET /v1/tracking, newest first.
pub async fn list(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Query(query): Query<ListQuery>,
) -> Result<Json<TrackedList>, ApiError> {
    let limit: u32 = query.limit.unwrap_or(DEFAULT_PAGE);
    if limit == 0 || limit > LARGEST_PAGE {
        return Err(ApiError::invalid(format!("limit {limit} is out of range"))
            .allowed(format!("1 to {LARGEST_PAGE}")));
    }
    let runs = app.tracking.runs(limit, query.before.as_deref()).await?;
    let visible = runs.into_iter().filter(|run| {
        identity.role.includes(Role::PlatformAdmin)
            || run.user == identity.user.as_str()
            || platform_run(&run.run).is_some_and(|id| {
                app.driver.read(|state| {
                    state
                        .runs()
                        .get(&id)
                        .is_some_and(|run| identity.may_see(&run.tenant))
                })
            })
    });
    Ok(Json(TrackedList {
        runs: visible.map(summary_view).collect(),
    }))
}

/// GET /v1/tracking/{run}.
pub async fn show(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(tracked): Path<String>,
) -> Result<Json<TrackedRun>, ApiError> {
    let run = check_access(&app, &identity, &tracked)
        .await?
        .ok_or_else(|| {
            ApiError::not_found(format!("nothing is tracked of {tracked:?}"))
                .hint("log from the script with: import engineersofai_platform as platform")
        })?;
    Ok(Json(tracked_view(run)))
}

/// Which series, how fine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesQuery {
    key: String,
    max_points: Option<usize>,
}

/// GET /v1/tracking/{run}/metrics?key=.
pub async fn series(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(tracked): Path<String>,
    Query(query): Query<SeriesQuery>,
) -> Result<Json<MetricSeries>, ApiError> {
    check_access(&app, &identity, &tracked).await?;
    let most = query.max_points.unwrap_or(DEFAULT_POINTS);
    if !(2..=LARGEST_POINTS).contains(&most) {
        return Err(
            ApiError::invalid(format!("max_points {most} is out of range"))
                .allowed(format!("2 to {LARGEST_POINTS}")),
        );
    }
    let Some(series) = app.tracking.series(&tracked, &query.key, most).await? else {
        return Err(ApiError::not_found(format!(
            "{tracked} has no metric {:?}",
            query.key
        )));
    };
    Ok(Json(MetricSeries {
        key: query.key,
        count: series.count,
        points: series
            .points
            .into_iter()
            .map(|point| MetricPoint {
                step: point.step,
                time_us: point.time_us,
                value: point.value,
            })
            .collect(),
    }))
}

/// GET /v1/models.
pub async fn models(State(app): State<App>) -> Result<Json<ModelList>, ApiError> {
    let models = app.tracking.models().await?;
    Ok(Json(ModelList {
        models: models.into_iter().map(model_view).collect(),
    }))
}

/// GET /v1/models/{name}.
pub async fn model(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<ModelView>, ApiError> {
    let model = app.tracking.model(&name).await?.ok_or_else(|| {
        ApiError::not_found(format!("model {name:?} does not exist"))
            .hint("see the models with: platform models list")
    })?;
    Ok(Json(model_view(model)))
}

/// Newest point of each series.
pub fn latest_view(latest: BTreeMap<String, store::Latest>) -> BTreeMap<String, MetricLatest> {
    latest
        .into_iter()
        .map(|(key, latest)| {
            (
                key,
                MetricLatest {
                    step: latest.point.step,
                    value: latest.point.value,
                    count: latest.count,
                },
            )
        })
        .collect()
}

/// Progress as clients read it.
pub fn progress_view(progress: store::Progress) -> Progress {
    Progress {
        done: progress.done,
        total: progress.total,
    }
}

fn artifact_view(artifact: store::Artifact) -> ArtifactView {
    ArtifactView {
        path: artifact.path,
        sha256: artifact.sha256,
        size_bytes: artifact.size_bytes,
    }
}

fn version_view(version: store::ModelVersion) -> ModelVersionView {
    ModelVersionView {
        name: version.name,
        version: version.version,
        run: version.run,
        framework: version.framework,
        created_us: version.created_us,
        manifest: version.manifest,
        files: version.files.into_iter().map(artifact_view).collect(),
    }
}

fn model_view(model: store::RegisteredModel) -> ModelView {
    ModelView {
        name: model.name,
        tenant: model.tenant,
        versions: model.versions.into_iter().map(version_view).collect(),
    }
}

fn summary_view(run: store::RunSummary) -> TrackedRun {
    TrackedRun {
        run: run.run,
        name: run.name,
        parent: run.parent,
        status: run.status,
        user: run.user,
        started_us: run.started_us,
        ended_us: run.ended_us,
        error: run.error,
        tags: run.tags,
        params: BTreeMap::new(),
        metrics: BTreeMap::new(),
        artifacts: Vec::new(),
        models: Vec::new(),
        progress: run.progress.map(progress_view),
    }
}

fn tracked_view(run: store::TrackedRun) -> TrackedRun {
    TrackedRun {
        params: run.params,
        metrics: latest_view(run.metrics),
        artifacts: run.artifacts.into_iter().map(artifact_view).collect(),
        models: run.models.into_iter().map(version_view).collect(),
        ..summary_view(run.summary)
    }
}
