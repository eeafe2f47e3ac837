//! What was decided about runs, from the books; and decided again, from the log.

use super::App;
use super::auth::Identity;
use super::convert_decisions::decision_view;
use super::error::ApiError;
use super::runs::{run_id, visible};
use crate::storage::Past;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use coordinator_core::model::Role;
use coordinator_core::scheduler::decisions::repeat;
use platform_proto::http::{DecisionList, DecisionReplay};
use serde::Deserialize;
use tokio::sync::Mutex;

/// Decisions of one answer. A run that is stopped and started all day has some hundreds.
const MOST: u32 = 500;
/// One at a time: each holds a second state in memory.
static REPLAYS: Mutex<()> = Mutex::const_new(());

/// GET /v1/runs/{run}/decisions.
pub async fn of_run(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(run): Path<String>,
) -> Result<Json<DecisionList>, ApiError> {
    let id = run_id(&run)?;
    app.driver
        .read(|state| visible(state, &identity, id).map(|_| ()))?;
    let mut kept = app.tracking.decisions_of(id, MOST).await?;
    // Whom it displaced is its own tenant's to know by name, and another's only to who may see that.
    kept.retain(|kept| kept.decision.run == Some(id) || identity.may_see(&kept.decision.tenant));
    Ok(Json(DecisionList {
        decisions: kept.iter().map(decision_view).collect(),
    }))
}

/// How many.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<u32>,
}

/// GET /v1/decisions: of the caller's tenant, for a platform administrator of all.
pub async fn list(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Query(query): Query<ListQuery>,
) -> Result<Json<DecisionList>, ApiError> {
    let limit = query.limit.unwrap_or(50);
    if limit == 0 || limit > MOST {
        return Err(ApiError::invalid(format!("limit {limit} is out of range"))
            .allowed(format!("1 to {MOST}")));
    }
    let tenant = (!identity.role.includes(Role::PlatformAdmin)).then_some(&identity.tenant);
    let kept = app.tracking.decisions(tenant, limit).await?;
    Ok(Json(DecisionList {
        decisions: kept.iter().map(decision_view).collect(),
    }))
}

/// GET /v1/decisions/{id}/replay.
pub async fn replay(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<u64>,
) -> Result<Json<DecisionReplay>, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let Some(kept) = app.tracking.decision(id).await? else {
        return Err(ApiError::not_found(format!("decision {id} is not kept"))
            .hint("see the newest with: platform decisions list"));
    };
    let _one_at_a_time = REPLAYS.lock().await;
    let (state, next) = match app.driver.past(kept.decision.index).await? {
        Past::Known { state, next } => (state, next),
        Past::Forgotten { kept_from } => {
            return Err(ApiError::not_found(format!(
                "decision {id} was made at log index {}, and the log is kept from {kept_from}",
                kept.decision.index
            ))
            .hint("what was decided since the newest snapshot can be replayed: platform decisions list"));
        }
    };
    let decision = kept.decision.clone();
    let repeated = tokio::task::spawn_blocking(move || repeat(&state, next.as_deref(), &decision))
        .await
        .map_err(|_| ApiError::internal("the replay did not end well"))?;
    Ok(Json(DecisionReplay {
        decision: decision_view(&kept),
        same: repeated.is_ok(),
        instead: repeated.err(),
        version: crate::VERSION.to_owned(),
    }))
}
