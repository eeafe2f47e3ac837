//! What platform engineers set: tenants, quotas, pools, policy, tokens; and whoami.

use super::auth::{Identity, hash_secret};
use super::error::ApiError;
use super::{App, convert, idempotency_key};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use coordinator_core::model::{Pool, PoolName, PoolOrder, Role, TenantName, Token, UserName};
use coordinator_core::scheduler;
use coordinator_core::state::{Command, ParentChange, QuotaChange, State as Replicated};
use platform_proto::http::{
    PolicyView, PoolList, PoolRequest, PoolView, QuotaList, QuotaRequest, QuotaView, TenantChange,
    TenantList, TenantRequest, TenantView, TokenCreated, TokenList, TokenRequest, TokenView,
    Whoami,
};
use std::collections::BTreeMap;

const DEFAULT_TOKEN_TTL_MS: u64 = 90 * 24 * 3_600 * 1000;

/// GET /v1/whoami.
pub async fn whoami(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
) -> Json<Whoami> {
    let (simulated, currency) = app.driver.read(|state| {
        (
            state
                .nodes()
                .values()
                .any(coordinator_core::model::Node::is_simulated),
            state.policy().currency.clone(),
        )
    });
    Json(Whoami {
        user: identity.user.to_string(),
        tenant: identity.tenant.to_string(),
        role: identity.role.as_str().to_owned(),
        token: identity.token,
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        simulated,
        currency,
    })
}

fn tenant_view(state: &Replicated, name: &TenantName) -> TenantView {
    let tenant = state.tenants().get(name);
    TenantView {
        name: name.to_string(),
        created_us: tenant.map_or(0, |tenant| tenant.created_us),
        parent: tenant
            .and_then(|tenant| tenant.parent.as_ref())
            .map(ToString::to_string),
        weight: tenant.map_or(1, |tenant| tenant.weight),
        live_runs: state
            .live()
            .iter()
            .filter_map(|id| state.runs().get(id))
            .filter(|run| run.tenant == *name)
            .count() as u64,
        quotas: state
            .pools()
            .keys()
            .flat_map(|pool| convert::quota_views(state, name, pool))
            .collect(),
    }
}

/// GET /v1/tenants.
pub async fn tenants(State(app): State<App>) -> Json<TenantList> {
    Json(app.driver.read(|state| {
        TenantList {
            tenants: state
                .tenants()
                .keys()
                .map(|name| tenant_view(state, name))
                .collect(),
        }
    }))
}

/// POST /v1/tenants.
pub async fn create_tenant(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    Json(request): Json<TenantRequest>,
) -> Result<Json<TenantView>, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let tenant = TenantName::new(&request.name)?;
    let parent = request.parent.as_deref().map(TenantName::new).transpose()?;
    app.propose(
        &identity,
        idempotency_key(&headers)?,
        Command::CreateTenant {
            tenant: tenant.clone(),
            parent,
            weight: request.weight,
        },
    )
    .await?;
    Ok(Json(app.driver.read(|state| tenant_view(state, &tenant))))
}

/// PUT /v1/tenants/{tenant}.
pub async fn set_tenant(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    Json(request): Json<TenantChange>,
) -> Result<Json<TenantView>, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let tenant = TenantName::new(&tenant)?;
    let parent = match (request.parent.as_deref(), request.top) {
        (Some(_), true) => {
            return Err(ApiError::invalid(
                "a tenant cannot be at the top and under another at once",
            ));
        }
        (Some(parent), false) => ParentChange::Under(TenantName::new(parent)?),
        (None, true) => ParentChange::Top,
        (None, false) => ParentChange::Keep,
    };
    if request.dry_run {
        return app.driver.read(|state| {
            state.check_tenant_change(&tenant, &parent, request.weight)?;
            let mut view = tenant_view(state, &tenant);
            view.weight = request.weight.unwrap_or(view.weight);
            if parent != ParentChange::Keep {
                view.parent = request.parent;
            }
            Ok(Json(view))
        });
    }
    let command = Command::SetTenant {
        tenant: tenant.clone(),
        parent,
        weight: request.weight,
    };
    app.propose(&identity, idempotency_key(&headers)?, command)
        .await?;
    Ok(Json(app.driver.read(|state| tenant_view(state, &tenant))))
}

/// GET /v1/quotas.
pub async fn quotas(State(app): State<App>) -> Json<QuotaList> {
    Json(app.driver.read(|state| {
        QuotaList {
            quotas: state
                .tenants()
                .keys()
                .flat_map(|tenant| {
                    state
                        .pools()
                        .keys()
                        .flat_map(move |pool| convert::quota_views(state, tenant, pool))
                })
                .collect(),
        }
    }))
}

/// PUT /v1/quotas.
pub async fn set_quota(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    Json(request): Json<QuotaRequest>,
) -> Result<Json<QuotaView>, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let tenant = TenantName::new(&request.tenant)?;
    let pool = PoolName::new(&request.pool)?;
    let change = QuotaChange {
        tenant: tenant.clone(),
        pool,
        model: request.model.clone(),
        gpu_milli: request.gpu_milli,
        limit_milli: request.limit_milli,
        lend_milli: request.lend_milli,
    };
    if request.dry_run {
        // The trial takes many plans: on a copy, beside what serves everybody.
        let (view, copy) = app.driver.read(|state| {
            state.check_quota_change(&change)?;
            let view = convert::quota_view(state, &tenant, change.meter());
            Ok::<_, ApiError>((view, state.live_copy()))
        })?;
        let now_us = crate::now_us().max(copy.time_us());
        let preempts = tokio::task::spawn_blocking(move || {
            scheduler::preempted_by(copy, now_us, &Command::SetQuota(change))
        })
        .await
        .map_err(|_| ApiError::unavailable("the trial of the change did not end well"))?;
        let preempts = app.driver.read(|state| {
            preempts
                .into_iter()
                .map(|preemption| convert::preempted_view(state, preemption))
                .collect()
        });
        return Ok(Json(QuotaView {
            gpu_milli: request.gpu_milli,
            limit_milli: request.limit_milli,
            lend_milli: request.lend_milli,
            preempts,
            ..view
        }));
    }
    app.propose(
        &identity,
        idempotency_key(&headers)?,
        Command::SetQuota(change.clone()),
    )
    .await?;
    Ok(Json(app.driver.read(|state| {
        convert::quota_view(state, &tenant, change.meter())
    })))
}

fn pool_view(state: &Replicated, pool: &Pool) -> PoolView {
    let nodes: Vec<_> = state
        .nodes()
        .values()
        .filter(|node| node.description.pool == pool.name)
        .collect();
    let mut devices: BTreeMap<String, u64> = BTreeMap::new();
    for device in nodes.iter().flat_map(|node| &node.description.devices) {
        *devices.entry(device.model.clone()).or_default() += 1;
    }
    PoolView {
        name: pool.name.to_string(),
        description: pool.description.clone(),
        order: pool.order.as_str().to_owned(),
        age_bound_ms: (pool.order != PoolOrder::Fifo).then_some(pool.age_bound_ms),
        nodes: nodes.len() as u64,
        gpu_milli: devices.values().sum::<u64>() * 1000,
        devices,
        used_milli: nodes
            .iter()
            .flat_map(|node| &node.devices)
            .map(|grants| u64::from(grants.share_milli))
            .sum(),
        waiting: state.queues().waiting(&pool.name) as u64,
        simulated: nodes.iter().any(|node| node.is_simulated()),
    }
}

/// GET /v1/pools.
pub async fn pools(State(app): State<App>) -> Json<PoolList> {
    Json(app.driver.read(|state| {
        PoolList {
            pools: state
                .pools()
                .values()
                .map(|pool| pool_view(state, pool))
                .collect(),
        }
    }))
}

/// PUT /v1/pools/{pool}.
pub async fn set_pool(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(pool): Path<String>,
    headers: HeaderMap,
    Json(request): Json<PoolRequest>,
) -> Result<Json<PoolView>, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let pool = PoolName::new(&pool)?;
    let command = Command::SetPool {
        pool: pool.clone(),
        description: request.description,
        order: request
            .order
            .as_deref()
            .map(convert::pool_order)
            .transpose()?,
        age_bound_ms: request.age_bound_ms,
        must_exist: request.must_exist,
    };
    app.propose(&identity, idempotency_key(&headers)?, command)
        .await?;
    app.driver.read(|state| match state.pools().get(&pool) {
        Some(pool) => Ok(Json(pool_view(state, pool))),
        None => Err(coordinator_core::policy::unknown_pool(pool.as_str(), state.pools()).into()),
    })
}

/// GET /v1/policy.
pub async fn policy(State(app): State<App>) -> Json<PolicyView> {
    Json(
        app.driver
            .read(|state| convert::policy_view(state.policy())),
    )
}

/// PUT /v1/policy.
pub async fn set_policy(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    Json(request): Json<PolicyView>,
) -> Result<Json<PolicyView>, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let policy_asked = app
        .driver
        .read(|state| convert::policy_from_http(request, state.policy()))?;
    let command = Command::SetPolicy {
        policy: Box::new(policy_asked),
    };
    app.propose(&identity, idempotency_key(&headers)?, command)
        .await?;
    Ok(policy(State(app)).await)
}

/// GET /v1/tokens: a platform administrator sees all, everyone else their own.
pub async fn tokens(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
) -> Json<TokenList> {
    let all = identity.role.includes(Role::PlatformAdmin);
    let mut tokens: Vec<TokenView> = app.driver.read(|state| {
        state
            .tokens()
            .values()
            .filter(|token| all || token.user == identity.user)
            .map(convert::token_view)
            .collect()
    });
    tokens.sort_by(|a, b| {
        b.created_us
            .cmp(&a.created_us)
            .then_with(|| a.id.cmp(&b.id))
    });
    Json(TokenList { tokens })
}

/// POST /v1/tokens. The secret is in this answer and nowhere else; a repeated key cannot bring it
/// back, so it is refused as a conflict instead.
pub async fn create_token(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Json(request): Json<TokenRequest>,
) -> Result<Json<TokenCreated>, ApiError> {
    identity.require(Role::PlatformAdmin)?;
    let role = Role::parse(&request.role).ok_or_else(|| {
        ApiError::invalid(format!("role {:?} is not known", request.role))
            .allowed("viewer, member, tenant-admin, platform-admin, agent")
    })?;
    let ttl_ms = request.ttl_ms.unwrap_or(DEFAULT_TOKEN_TTL_MS);
    let token = Token {
        id: crate::secrets::token_id()?,
        user: UserName::new(&request.user)?,
        tenant: TenantName::new(&request.tenant)?,
        role,
        created_us: 0,
        expires_us: Some(crate::now_us().saturating_add(ttl_ms.saturating_mul(1000))),
        revoked: false,
    };
    let secret = crate::secrets::token_secret()?;
    let id = token.id.clone();
    app.propose(
        &identity,
        None,
        Command::CreateToken {
            hash: hash_secret(&secret),
            token,
        },
    )
    .await?;
    let token = find_token(&app, &id)?;
    Ok(Json(TokenCreated { token, secret }))
}

fn find_token(app: &App, id: &str) -> Result<TokenView, ApiError> {
    app.driver.read(|state| {
        state
            .tokens()
            .values()
            .find(|token| token.id == id)
            .map(convert::token_view)
            .ok_or_else(|| {
                ApiError::not_found(format!("token {id:?} does not exist"))
                    .hint("see the tokens with: platform tokens list")
            })
    })
}

/// DELETE /v1/tokens/{id}: own ones, or any for a platform administrator.
pub async fn revoke_token(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<TokenView>, ApiError> {
    let token = find_token(&app, &id)?;
    if token.user != identity.user.as_str() {
        identity.require(Role::PlatformAdmin)?;
    }
    app.propose(
        &identity,
        idempotency_key(&headers)?,
        Command::RevokeToken { id: id.clone() },
    )
    .await?;
    Ok(Json(find_token(&app, &id)?))
}
