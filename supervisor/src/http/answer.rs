//! Answers: JSON, made elsewhere where that takes long.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::sync::mpsc;
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

/// The reader of an answer is gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

/// Where the pieces of an answer go that is made as it is read.
pub(super) type Pieces = mpsc::Sender<Result<Bytes, std::io::Error>>;

/// Hands over one piece.
pub(super) async fn hand_over(pieces: &Pieces, piece: Bytes) -> Result<(), Gone> {
    pieces.send(Ok(piece)).await.map_err(|_| Gone)
}

/// A value as one line of JSON.
pub(super) fn line(value: &impl Serialize) -> Bytes {
    // Maps with text keys, texts and numbers: nothing that JSON could not carry.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

/// Hands over a line that holds a whole outcome: made elsewhere, within the budget, and piece by piece.
pub(super) async fn hand_over_outcome(
    budget: &Budget,
    pieces: &Pieces,
    outcome: Arc<Outcome>,
    in_line: impl FnOnce(&Outcome) -> Bytes + Send + 'static,
) -> Result<(), Gone> {
    /// What is handed over at a time: the share of the budget is held until the last piece is.
    const PIECE: usize = 256 << 10;
    let size = content(&outcome);
    if size <= SMALL {
        return hand_over(pieces, in_line(&outcome)).await;
    }
    let _share = budget.share(u64::try_from(size).unwrap_or(u64::MAX)).await;
    let made = tokio::task::spawn_blocking(move || in_line(&outcome));
    let mut rest = made.await.map_err(|_| Gone)?;
    while !rest.is_empty() {
        let piece = rest.split_to(PIECE.min(rest.len()));
        hand_over(pieces, piece).await?;
    }
    Ok(())
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
