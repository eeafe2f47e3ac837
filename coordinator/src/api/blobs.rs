//! Content-addressed bytes: packed folders, artifacts, weights.

use super::App;
use super::auth::Identity;
use super::error::ApiError;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use coordinator_core::model::Role;
use futures::TryStreamExt;

/// Largest blob that may be stored: a model's weights, not a disk image of everything.
pub const LARGEST_BLOB_BYTES: u64 = 64 * 1024 * 1024 * 1024;

fn check_address(sha256: &str) -> Result<(), ApiError> {
    if coordinator_tracking::is_sha256(sha256) {
        Ok(())
    } else {
        Err(
            ApiError::invalid(format!("{sha256:?} is not a content address"))
                .allowed("a SHA-256 in lower-case hex"),
        )
    }
}

/// GET and HEAD /v1/blobs/{sha256}. Whoever can name the hash of a file has seen it, or was told.
pub async fn get(
    State(app): State<App>,
    Path(sha256): Path<String>,
    method: axum::http::Method,
) -> Result<Response, ApiError> {
    check_address(&sha256)?;
    let Some(size_bytes) = app.blobs.size(&sha256).await? else {
        return Err(ApiError::not_found(format!("blob {sha256} is not stored")));
    };
    let headers = [
        (header::CONTENT_LENGTH, size_bytes.to_string()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
    ];
    if method == axum::http::Method::HEAD {
        return Ok(headers.into_response());
    }
    let stream = app.blobs.get(&sha256).await?.map_err(std::io::Error::other);
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// PUT /v1/blobs/{sha256}. Repeating it is harmless.
pub async fn put(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(sha256): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    identity.require(Role::Member)?;
    check_address(&sha256)?;
    if app.blobs.exists(&sha256).await? {
        return Ok(StatusCode::OK);
    }
    let stream = body.into_data_stream().map_err(std::io::Error::other);
    app.blobs.put(&sha256, stream, LARGEST_BLOB_BYTES).await?;
    Ok(StatusCode::CREATED)
}
