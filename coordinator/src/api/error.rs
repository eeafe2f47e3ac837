//! One error of the API: a status, and a body that says what was given, what is allowed, what to do.

use crate::driver::ProposeError;
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use coordinator_core::model::InvalidName;
use coordinator_core::policy::{Refusal, RefusalKind};
use coordinator_tracking::{BlobError, TrackingError};
use platform_proto::http::ErrorBody;

/// What a route answers when it does not answer what was asked.
#[derive(Debug)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Body.
    pub body: ErrorBody,
}

impl ApiError {
    /// An error without `allowed` and `hint`.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            body: ErrorBody {
                code: code.to_owned(),
                message: message.into(),
                ..ErrorBody::default()
            },
        }
    }

    /// Adds what is allowed.
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.body.allowed = Some(allowed.into());
        self
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    /// The value itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// Nothing of that name.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// The caller may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// Not now; a mutation may or may not have been done.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// Our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// The longest text of the framework's own that is passed on.
const LONGEST_REJECTION_BYTES: usize = 16 * 1024;

/// Gives the framework's own rejections (a body, a query or a path that does not parse, a method that a
/// route does not have) the shape of every other error.
pub async fn in_one_shape(response: Response) -> Response {
    let status = response.status();
    let plain = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() && plain) {
        return response;
    }
    // An answer to HEAD, or a method that is not there: no words, but still the right code.
    let text = axum::body::to_bytes(response.into_body(), LONGEST_REJECTION_BYTES)
        .await
        .map_or_else(
            |_| String::new(),
            |text| String::from_utf8_lossy(&text).into_owned(),
        );
    let reason = status.canonical_reason().unwrap_or("refused");
    let message = if text.is_empty() {
        reason.to_lowercase()
    } else {
        text
    };
    match status {
        StatusCode::METHOD_NOT_ALLOWED => ApiError::new(status, "invalid", message),
        StatusCode::NOT_FOUND => ApiError::not_found(message),
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(status, "too-large", message),
        _ => ApiError::invalid(message),
    }
    .into_response()
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match refusal.kind {
            RefusalKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            RefusalKind::Refused => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
            RefusalKind::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            RefusalKind::Conflict => (StatusCode::CONFLICT, "conflict"),
        };
        Self {
            status,
            body: ErrorBody {
                code: code.to_owned(),
                message: refusal.message,
                allowed: refusal.allowed,
                hint: refusal.hint,
                watermark: None,
            },
        }
    }
}

impl From<InvalidName> for ApiError {
    fn from(error: InvalidName) -> Self {
        Self::invalid(error.to_string()).allowed(error.allowed)
    }
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        Self::unavailable(error.to_string()).hint("try again with the same idempotency key")
    }
}

impl From<TrackingError> for ApiError {
    fn from(error: TrackingError) -> Self {
        match error {
            TrackingError::Gap { watermark, .. } => {
                let mut conflict = Self::new(StatusCode::CONFLICT, "conflict", error.to_string());
                conflict.body.watermark = Some(watermark);
                conflict
            }
            TrackingError::Invalid(_) => Self::invalid(error.to_string()),
            TrackingError::TooLarge { .. } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                error.to_string(),
            ),
            other => {
                tracing::error!(error = %other, "tracking store");
                Self::unavailable(format!("the tracking store does not answer: {other}"))
            }
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        let message = error.to_string();
        match error {
            BlobError::Name(_) | BlobError::Mismatch { .. } | BlobError::Source(_) => {
                Self::invalid(message)
            }
            BlobError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
            }
            BlobError::NotFound(_) => Self::not_found(message),
            BlobError::DiskFull | BlobError::Unavailable(_) => {
                tracing::error!(error = message, "artifact store");
                Self::unavailable(message)
            }
        }
    }
}
