//! Answers: JSON, made elsewhere where that takes long.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use wpool_protocol::outcome::{Outcome, OutputFile};

use super::body::{Budget, sharing};
use super::refusal::Refusal;

/// Bytes of an outcome that are turned into JSON at once.
const SMALL: usize = 64 << 10;

/// A small value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Maps with text keys, texts and numbers: nothing that JSON could not carry.
    let body = serde_json::to_vec(value).unwrap_or_default();
    with_json(status, body)
}

fn with_json(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    let mut response = (status, body.into()).into_response();
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// An outcome as JSON.
pub(super) async fn outcome(budget: &Budget, outcome: Arc<Outcome>) -> Result<Response, Refusal> {
    let size = content(&outcome);
    if size <= SMALL {
        return Ok(json(StatusCode::OK, &*outcome));
    }
    // Escapes make it larger; how much is known only afterwards.
    let share = budget.share(u64::try_from(size).unwrap_or(u64::MAX)).await;
    let bytes = made_elsewhere(move || serde_json::to_vec(&*outcome)).await?;
    let length = bytes.len();
    let mut response = with_json(StatusCode::OK, sharing(bytes, share));
    let length = HeaderValue::from(length);
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    Ok(response)
}

/// JSON that is made on another thread.
pub(super) async fn made_elsewhere(
    make: impl FnOnce() -> serde_json::Result<Vec<u8>> + Send + 'static,
) -> Result<Vec<u8>, Refusal> {
    tokio::task::spawn_blocking(move || make().unwrap_or_default())
        .await
        .map_err(|_| Refusal::stopping())
}

/// Bytes of what a job wrote and brought out.
pub(super) fn content(outcome: &Outcome) -> usize {
    let files = outcome.files.values().map(|file| match file {
        OutputFile::Text(text) | OutputFile::Base64(text) => text.len(),
        OutputFile::Error(_) => 0,
    });
    outcome.stdout.0.len() + outcome.stderr.0.len() + files.sum::<usize>()
}
