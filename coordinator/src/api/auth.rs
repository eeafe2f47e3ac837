//! Who is calling: every route but health wants a bearer token, known by its hash alone.

use super::App;
use super::error::ApiError;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use coordinator_core::model::{Role, TenantName, UserName};

/// The caller, as the token says.
#[derive(Debug, Clone)]
pub struct Identity {
    /// User.
    pub user: UserName,
    /// Tenant.
    pub tenant: TenantName,
    /// Role.
    pub role: Role,
    /// Id of the token.
    pub token: String,
}

impl Identity {
    /// The actor of this caller's log entries.
    pub fn actor(&self) -> String {
        format!("user:{}", self.user)
    }

    /// Refuses a caller whose role does not include `needed`.
    pub fn require(&self, needed: Role) -> Result<(), ApiError> {
        if self.role.includes(needed) {
            Ok(())
        } else {
            Err(ApiError::forbidden(format!("{} has the role {}", self.user, self.role.as_str()))
                .allowed(format!("role {} or above", needed.as_str()))
                .hint("ask a platform engineer for a token with that role: platform tokens create"))
        }
    }

    /// Whether what this user of this tenant has submitted is the caller's own.
    pub fn owns(&self, user: &UserName, tenant: &TenantName) -> bool {
        self.user == *user && self.tenant == *tenant
    }

    /// Refuses a caller who neither owns what this user of this tenant has submitted nor administers
    /// a tenant.
    pub fn require_own(&self, user: &UserName, tenant: &TenantName) -> Result<(), ApiError> {
        if self.owns(user, tenant) {
            return Ok(());
        }
        self.require(Role::TenantAdmin)
    }

    /// Whether this caller may see what belongs to `tenant`.
    pub fn may_see(&self, tenant: &TenantName) -> bool {
        self.role.includes(Role::PlatformAdmin) || self.tenant == *tenant
    }
}

/// The hash under which a secret is kept. A random token of 256 bits needs no salt and no slow hash.
pub fn hash_secret(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

/// Finds the identity behind a secret: known, not revoked, not expired.
pub fn identify(app: &App, secret: &str, now_us: u64) -> Option<Identity> {
    app.driver.read(|state| {
        let token = state.tokens().get(&hash_secret(secret))?;
        let alive = !token.revoked && token.expires_us.is_none_or(|end| end > now_us);
        alive.then(|| Identity {
            user: token.user.clone(),
            tenant: token.tenant.clone(),
            role: token.role,
            token: token.id.clone(),
        })
    })
}

/// The secret of an `Authorization: Bearer` header.
pub fn bearer(header: Option<&str>) -> Option<&str> {
    let (scheme, secret) = header?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(secret.trim())
}

/// Middleware of every route but health.
pub async fn authenticate(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let secret = bearer(
        request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()),
    );
    let Some(identity) = secret.and_then(|secret| identify(&app, secret, crate::now_us())) else {
        metrics::counter!("coordinator_unauthenticated_total").increment(1);
        let message = if secret.is_some() {
            "the token is unknown, expired or revoked"
        } else {
            "no token was given"
        };
        return Err(
            ApiError::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
                .allowed("Authorization: Bearer TOKEN")
                .hint("log in with: platform login --url URL --token TOKEN"),
        );
    };
    if identity.role == Role::Agent {
        return Err(ApiError::forbidden(
            "an agent's token opens an agent's session and nothing else",
        ));
    }
    request.extensions_mut().insert(identity);
    Ok(next.run(request).await)
}
