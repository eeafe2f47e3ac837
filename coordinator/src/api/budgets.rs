//! Budgets: list, show, set, remove.

use super::auth::Identity;
use super::convert_budgets::{budget_from_http, budget_view};
use super::error::ApiError;
use super::{App, idempotency_key};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use coordinator_core::model::{BudgetScope, Role, TenantName, WorkloadSpec, tenant_and_above};
use coordinator_core::state::{BudgetAccount, Command, State as Replicated};
use platform_proto::http::{BudgetList, BudgetRequest, BudgetView};

/// A budget binds whom it is about, so they may read it: everybody those of cost tags, a tenant its
/// own and those above it, a platform administrator all.
fn may_see(state: &Replicated, identity: &Identity, account: &BudgetAccount) -> bool {
    match &account.budget.scope {
        _ if identity.role.includes(Role::PlatformAdmin) => true,
        BudgetScope::Tag { .. } => true,
        BudgetScope::Tenant(tenant) => {
            tenant_and_above(state.tenants(), &identity.tenant).any(|above| above.name == *tenant)
        }
    }
}

fn view(state: &Replicated, account: &BudgetAccount) -> BudgetView {
    let now_us = crate::now_us().max(state.time_us());
    budget_view(account, &state.policy().currency, now_us, &[])
}

/// The budgets that a run draws on, among those that the caller may see.
pub fn of_run(
    state: &Replicated,
    identity: &Identity,
    tenant: &TenantName,
    spec: &WorkloadSpec,
) -> Vec<BudgetView> {
    state
        .budgets_of(tenant, spec)
        .filter(|account| may_see(state, identity, account))
        .map(|account| view(state, account))
        .collect()
}

fn show(app: &App, identity: &Identity, name: &str) -> Result<Json<BudgetView>, ApiError> {
    app.driver.read(|state| {
        let account = state.budget(name)?;
        if !may_see(state, identity, account) {
            return Err(
                ApiError::not_found(format!("budget {name:?} does not exist"))
                    .hint("see the budgets with: platform budgets list"),
            );
        }
        Ok(Json(view(state, account)))
    })
}

/// GET /v1/budgets.
pub async fn list(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
) -> Json<BudgetList> {
    Json(app.driver.read(|state| {
        BudgetList {
            budgets: state
                .budgets()
                .filter(|account| may_see(state, &identity, account))
                .map(|account| view(state, account))
                .collect(),
        }
    }))
}

/// PUT /v1/budgets/{name}.
pub async fn set(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(request): Json<BudgetRequest>,
) -> Result<Json<BudgetView>, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let dry_run = request.dry_run;
    let budget = budget_from_http(&name, request)?;
    if dry_run {
        return app.driver.read(|state| {
            let account = state.budget_to_be(&budget)?.told(state.time_us());
            let now_us = crate::now_us().max(state.time_us());
            Ok(Json(budget_view(
                &account,
                &state.policy().currency,
                now_us,
                &state.held_back_by(&account),
            )))
        });
    }
    let command = Command::SetBudget {
        budget: Box::new(budget),
    };
    app.propose(&identity, idempotency_key(&headers)?, command)
        .await?;
    show(&app, &identity, &name)
}

/// DELETE /v1/budgets/{name}: answers what was removed.
pub async fn remove(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<BudgetView>, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let removed = show(&app, &identity, &name)?;
    app.propose(
        &identity,
        idempotency_key(&headers)?,
        Command::RemoveBudget { name },
    )
    .await?;
    Ok(removed)
}
