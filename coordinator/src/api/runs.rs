//! Runs: submit, list, show, explain, cancel.

use super::auth::Identity;
use super::error::ApiError;
use super::{
    App, arrays, budgets, convert, convert_arrays, convert_outlook, convert_priorities,
    idempotency_key, outlook,
};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use coordinator_core::model::{Role, Run, RunId, RunPhase, Submission};
use coordinator_core::policy::{Refusal, RefusalKind};
use coordinator_core::scheduler::{self, Tier};
use coordinator_core::state::{Command, Event, State as Replicated};
use platform_proto::http::{
    ArrayView, CancelRequest, Explanation, JustifyRequest, RunList, RunView, SubmitRequest,
    SubmitResponse,
};
use serde::Deserialize;

const DEFAULT_PAGE: usize = 50;
const LARGEST_PAGE: usize = 1_000;

/// Reads `run-17`.
pub fn run_id(text: &str) -> Result<RunId, ApiError> {
    text.parse::<RunId>().map_err(ApiError::from)
}

/// The run, if it exists and the caller may see it. Another tenant's run is not told from none.
pub fn visible<'a>(
    state: &'a Replicated,
    identity: &Identity,
    id: RunId,
) -> Result<&'a Run, ApiError> {
    state
        .runs()
        .get(&id)
        .filter(|run| identity.may_see(&run.tenant))
        .ok_or_else(|| {
            Refusal::new(RefusalKind::NotFound, format!("{id} does not exist"))
                .hint("see the runs with: platform runs list")
                .into()
        })
}

/// POST /v1/runs.
pub async fn submit(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    Json(request): Json<SubmitRequest>,
) -> Result<Json<SubmitResponse>, ApiError> {
    identity.require(Role::Member)?;
    let spec = convert::spec_from_http(request.spec)?;
    let array = convert_arrays::array_request(request.array.as_deref(), request.sweep)?;
    if let Some(tenant) = &spec.tenant
        && *tenant != identity.tenant
    {
        identity.require(Role::PlatformAdmin)?;
    }
    if let Some(sha256) = spec.source_sha256.as_ref().filter(|_| !request.dry_run)
        && !app.blobs.exists(sha256).await?
    {
        return Err(ApiError::new(
            axum::http::StatusCode::CONFLICT,
            "conflict",
            format!("the package {sha256} is not stored"),
        )
        .hint(format!("store it first: PUT /v1/blobs/{sha256}")));
    }
    let role = Some(identity.role);
    let tenant = spec
        .tenant
        .clone()
        .unwrap_or_else(|| identity.tenant.clone());
    if request.dry_run {
        let asked = request.outlook.then(|| spec.clone());
        let mut plan = app.driver.read(|state| {
            let (admitted, size) = match &array {
                None => (state.admit(&tenant, role, spec)?, None),
                Some(request) => {
                    let (admitted, elements) = state.admit_array(&tenant, role, spec, request)?;
                    (admitted, Some(elements.len()))
                }
            };
            let waiting = scheduler::explain_spec(state, &admitted.spec, &tenant);
            let ahead = state.would_wait_behind(&admitted.spec, &tenant, &identity.user);
            let starts_now = waiting.tier == Tier::NextPlan && ahead == 0;
            let price = convert::price_per_hour(state, &admitted.spec);
            Ok::<_, ApiError>(SubmitResponse {
                run: None,
                array: None,
                elements: convert_arrays::element_count(size, array.as_ref()),
                spec: convert::spec_to_http(&admitted.spec),
                defaulted: admitted.defaulted,
                price_per_hour_micro: price.micro,
                price_at_most: price.at_most,
                currency: state.policy().currency.clone(),
                queue_ahead: ahead,
                starts_now,
                waits_because: (!starts_now).then_some(waiting.summary),
                budgets: budgets::of_run(state, &identity, &tenant, &admitted.spec),
                warnings: admitted.warnings,
                simulated: is_simulated(state, &admitted.spec),
                reasons: waiting.reasons,
                outlook: None,
            })
        })?;
        if let Some(spec) = asked.filter(|_| !plan.starts_now) {
            let user = identity.user.clone();
            plan.outlook = outlook::of_spec(&app, spec, tenant, user, role).await?;
        }
        return Ok(Json(plan));
    }
    let (spec, user) = (Box::new(spec), identity.user.clone());
    let command = match array.clone() {
        None => Command::Submit {
            spec,
            tenant: identity.tenant.clone(),
            user,
            role,
        },
        Some(request) => Command::SubmitArray {
            spec,
            request: Box::new(request),
            tenant: identity.tenant.clone(),
            user,
            role,
        },
    };
    let events = app
        .propose(&identity, idempotency_key(&headers)?, command)
        .await?;
    metrics::counter!("coordinator_submits_total").increment(1);
    let (submitted, warnings) = events
        .iter()
        .find_map(|event| match event {
            Event::RunQueued { run, warnings, .. } | Event::RunHeld { run, warnings } => {
                Some((Submission::Run(*run), warnings.clone()))
            }
            Event::ArraySubmitted { array, warnings } => {
                Some((Submission::Array(*array), warnings.clone()))
            }
            _ => None,
        })
        .ok_or_else(|| {
            ApiError::new(
                axum::http::StatusCode::CONFLICT,
                "conflict",
                "this idempotency key was used for another call",
            )
            .hint("use a fresh key for each call")
        })?;
    tracing::info!(%submitted, user = %identity.user, "submitted");
    app.driver.read(|state| {
        let (id, made) = match submitted {
            Submission::Run(run) => (run, None),
            Submission::Array(id) => (id.first_run(), Some(arrays::visible(state, &identity, id)?)),
        };
        let run = visible(state, &identity, id)?;
        let price = convert::price_per_hour(state, &run.spec);
        let size = made.map(|made| made.size as usize);
        Ok(Json(SubmitResponse {
            run: made
                .is_none()
                .then(|| convert::run_view(state, run, crate::now_us())),
            array: made.map(|made| convert_arrays::array_view(state, made, crate::now_us())),
            elements: convert_arrays::element_count(size, array.as_ref()),
            spec: convert::spec_to_http(&run.spec),
            defaulted: Vec::new(),
            price_per_hour_micro: price.micro,
            price_at_most: price.at_most,
            currency: state.policy().currency.clone(),
            queue_ahead: 0,
            starts_now: false,
            waits_because: None,
            budgets: budgets::of_run(state, &identity, &run.tenant, &run.spec),
            warnings,
            simulated: is_simulated(state, &run.spec),
            reasons: Vec::new(),
            outlook: None,
        }))
    })
}

fn is_simulated(state: &Replicated, spec: &coordinator_core::model::WorkloadSpec) -> bool {
    spec.gpu_milli() > 0
        && state
            .nodes()
            .values()
            .any(|node| Some(&node.description.pool) == spec.pool.as_ref() && node.is_simulated())
}

/// Filters of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    state: Option<String>,
    user: Option<String>,
    tenant: Option<String>,
    tag: Option<String>,
    array: Option<String>,
    #[serde(default)]
    collapse: bool,
    limit: Option<usize>,
    before: Option<String>,
}

/// GET /v1/runs, newest first.
pub async fn list(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Query(query): Query<ListQuery>,
) -> Result<Json<RunList>, ApiError> {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    if limit == 0 || limit > LARGEST_PAGE {
        return Err(ApiError::invalid(format!("limit {limit} is out of range"))
            .allowed(format!("1 to {LARGEST_PAGE}")));
    }
    let before = query
        .before
        .as_deref()
        .map(run_id)
        .transpose()?
        .unwrap_or(RunId(u64::MAX));
    let array = query.array.as_deref().map(arrays::array_id).transpose()?;
    let tag = match query.tag.as_deref() {
        Some(text) => Some(text.split_once('=').ok_or_else(|| {
            ApiError::invalid(format!("tag filter {text:?} is not valid")).allowed("KEY=VALUE")
        })?),
        None => None,
    };
    app.driver.read(|state| {
        let mut runs: Vec<RunView> = Vec::new();
        let mut collapsed: Vec<ArrayView> = Vec::new();
        let mut next = None;
        let range = match array {
            None => RunId(0)..before,
            Some(id) => {
                let runs = arrays::visible(state, &identity, id)?.runs();
                runs.start.min(before)..runs.end.min(before)
            }
        };
        let matching = state
            .runs()
            .range(range)
            .rev()
            .map(|(_, run)| run)
            .filter(|run| {
                identity.may_see(&run.tenant)
                    && query
                        .user
                        .as_deref()
                        .is_none_or(|user| run.user.as_str() == user)
                    && query
                        .tenant
                        .as_deref()
                        .is_none_or(|tenant| run.tenant.as_str() == tenant)
                    && query
                        .state
                        .as_deref()
                        .is_none_or(|wanted| convert::run_state(run) == wanted)
                    && tag.is_none_or(|(key, value)| {
                        run.spec.tags.get(key).is_some_and(|given| given == value)
                    })
            });
        let mut last: Option<RunId> = None;
        let mut shown = None;
        for run in matching {
            let of_array = run
                .element
                .as_ref()
                .filter(|_| query.collapse)
                .and_then(|element| state.arrays().get(&element.array));
            if of_array.is_some_and(|array| shown == Some(array.id)) {
                continue;
            }
            if runs.len() + collapsed.len() == limit {
                next = last.map(|last| last.to_string());
                break;
            }
            match of_array {
                Some(array) => {
                    collapsed.push(convert_arrays::array_view(state, array, crate::now_us()));
                    shown = Some(array.id);
                    // The next page begins below its first element.
                    last = Some(array.id.first_run());
                }
                None => {
                    runs.push(convert::run_view(state, run, crate::now_us()));
                    last = Some(run.id);
                }
            }
        }
        Ok(Json(RunList {
            runs,
            arrays: collapsed,
            next,
        }))
    })
}

/// GET /v1/runs/{run}.
pub async fn show(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(run): Path<String>,
) -> Result<Json<RunView>, ApiError> {
    let id = run_id(&run)?;
    app.driver.read(|state| {
        let run = visible(state, &identity, id)?;
        Ok(Json(convert::run_view(state, run, crate::now_us())))
    })
}

/// GET /v1/runs/{run}/explain.
pub async fn explain(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(run): Path<String>,
) -> Result<Json<Explanation>, ApiError> {
    let id = run_id(&run)?;
    let waits = app.driver.read(|state| {
        visible(state, &identity, id)
            .map(|run| run.phase == RunPhase::Queued && !state.is_held(run))
    })?;
    let outlook = if waits {
        outlook::of_run(&app, id).await?
    } else {
        None
    };
    app.driver.read(|state| {
        let run = visible(state, &identity, id)?;
        let now_us = crate::now_us();
        // The state's own time may be the past: nothing is written while nothing happens.
        let mut waiting =
            scheduler::held(state, run, now_us).unwrap_or_else(|| scheduler::explain(state, run));
        if let Some(outlook) = &outlook {
            waiting = waiting.beside(outlook);
        }
        if run.phase == RunPhase::Queued {
            waiting.reasons.extend(convert_priorities::words(&run.spec));
        }
        let view = convert::run_view(state, run, now_us);
        Ok(Json(Explanation {
            run: view.id,
            state: view.state,
            tier: waiting.tier.as_str().to_owned(),
            summary: match (waiting.tier, view.detail) {
                (Tier::NotWaiting, Some(detail)) => format!("{}: {detail}", waiting.summary),
                _ => waiting.summary,
            },
            reasons: waiting.reasons,
            queue_ahead: state.queues().ahead(run).unwrap_or(0),
            outlook: outlook.map(convert_outlook::outlook_view),
            hint: waiting.hint,
        }))
    })
}

/// POST /v1/runs/{run}/cancel.
pub async fn cancel(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(run): Path<String>,
    headers: HeaderMap,
    Json(request): Json<CancelRequest>,
) -> Result<Json<RunView>, ApiError> {
    identity.require(Role::Member)?;
    let id = run_id(&run)?;
    app.driver.read(|state| {
        let run = visible(state, &identity, id)?;
        identity.require_own(&run.user, &run.tenant)
    })?;
    let command = Command::Cancel {
        run: id,
        reason: request.reason,
    };
    app.propose(&identity, idempotency_key(&headers)?, command)
        .await?;
    tracing::info!(run = %id, user = %identity.user, "cancelled");
    show(State(app), Extension(identity), Path(run)).await
}

/// POST /v1/runs/{run}/justify.
pub async fn justify(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(run): Path<String>,
    headers: HeaderMap,
    Json(request): Json<JustifyRequest>,
) -> Result<Json<RunView>, ApiError> {
    identity.require(Role::Member)?;
    let id = run_id(&run)?;
    app.driver.read(|state| {
        let run = visible(state, &identity, id)?;
        identity.require_own(&run.user, &run.tenant)
    })?;
    if request.dry_run {
        return app.driver.read(|state| {
            let for_ms = state.check_justification(id, &request.reason, request.for_ms)?;
            let run = visible(state, &identity, id)?;
            let now_us = crate::now_us();
            let mut view = convert::run_view(state, run, now_us);
            view.justification = Some(platform_proto::http::JustificationView {
                by: identity.actor(),
                reason: request.reason,
                at_us: now_us,
                until_us: now_us.saturating_add(for_ms.saturating_mul(1000)),
            });
            Ok(Json(view))
        });
    }
    let command = Command::Justify {
        run: id,
        reason: request.reason,
        for_ms: request.for_ms,
    };
    app.propose(&identity, idempotency_key(&headers)?, command)
        .await?;
    show(State(app), Extension(identity), Path(run)).await
}
