//! Bodies of requests: bounded, within a deadline, and parsed where that holds nobody up.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wpool_protocol::object::Object;

use super::Shared;
use super::refusal::Refusal;
use crate::config::HttpBounds;

/// Bytes for which the budget is not asked, and which are parsed at once: that takes less than 0.2 ms.
pub(super) const SMALL: usize = 32 << 10;

/// One permit of the budget.
const PERMIT_BYTES: u64 = 1 << 10;

/// Bytes of bodies that may be in memory, of all requests and answers together.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    permits: Arc<Semaphore>,
    total: u32,
}

/// A share of the budget, for as long as this lives.
#[derive(Debug, Default)]
pub(super) struct Share(Option<OwnedSemaphorePermit>);

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes / PERMIT_BYTES).unwrap_or(u32::MAX >> 3);
        Self {
            permits: Arc::new(Semaphore::new(usize::try_from(total).unwrap_or(usize::MAX))),
            total,
        }
    }

    /// A share of so many bytes, once there is one. What is larger than all gets all.
    pub(super) async fn share(&self, bytes: u64) -> Share {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let permits = permits.min(self.total);
        let semaphore = Arc::clone(&self.permits);
        // The semaphore is never closed.
        Share(semaphore.acquire_many_owned(permits).await.ok())
    }
}

impl Share {
    pub(super) fn merge(&mut self, other: Self) {
        match (&mut self.0, other.0) {
            (Some(own), Some(other)) => own.merge(other),
            (own @ None, other) => *own = other,
            (Some(_), None) => {}
        }
    }
}

/// The length that a request announces, if it does and it is not too much.
///
/// # Errors
///
/// 413 before a byte of the body has been read.
pub(super) fn announced(headers: &HeaderMap, max: u64) -> Result<Option<u64>, Refusal> {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > max => Err(Refusal::too_large("the body", max)),
        length => Ok(length),
    }
}

/// Reads a whole body.
pub(super) async fn read(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Vec<u8>, Share), Refusal> {
    let config = shared.handle.config();
    let announced = announced(headers, config.http.body_bytes_max)?;
    let reading = read_within(&shared.budget, &config.http, announced, body);
    tokio::time::timeout(config.http.body_timeout, reading)
        .await
        .unwrap_or_else(|_| Err(Refusal::too_slow()))
}

async fn read_within(
    budget: &Budget,
    bounds: &HttpBounds,
    announced: Option<u64>,
    mut body: Body,
) -> Result<(Vec<u8>, Share), Refusal> {
    /// How much more of the budget a body of unknown length takes at a time.
    const STEP: u64 = 1 << 20;
    let max = usize::try_from(bounds.body_bytes_max).unwrap_or(usize::MAX);
    let mut share = Share::default();
    let mut shared_bytes = u64::try_from(SMALL).unwrap_or(0);
    if let Some(announced) = announced.filter(|announced| *announced > shared_bytes) {
        share = budget.share(announced).await;
        shared_bytes = announced;
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| broken())?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > max {
            return Err(Refusal::too_large("the body", bounds.body_bytes_max));
        }
        bytes.extend_from_slice(&data);
        while u64::try_from(bytes.len()).unwrap_or(u64::MAX) > shared_bytes {
            share.merge(budget.share(STEP).await);
            shared_bytes += STEP;
        }
    }
    Ok((bytes, share))
}

/// The body broke off, or was no body: the client will hardly hear of it.
pub(super) fn broken() -> Refusal {
    Refusal::bad_request("the body broke off before its end")
}

/// The value that a small JSON body stands for; an empty one stands for the default.
pub(super) async fn small_json<T: DeserializeOwned + Default>(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Refusal> {
    let (bytes, _share) = read(shared, headers, body).await?;
    if bytes.len() > SMALL {
        let max = u64::try_from(SMALL).unwrap_or(0);
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "the request is too large",
            format!("the body is larger than the {max} bytes that are expected here"),
        ));
    }
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    let parsed: Result<Object<_>, _> = serde_json::from_slice(&bytes);
    parsed
        .map(|Object(value)| value)
        .map_err(|error| Refusal::json(&error))
}

/// Bytes as a body that holds its share of the budget until they are on their way.
pub(super) fn sharing(bytes: Vec<u8>, share: Share) -> Body {
    /// What is handed over at a time: until the last piece is, the share is held.
    const PIECE: usize = 256 << 10;
    let bytes = Bytes::from(bytes);
    let pieces = futures_util::stream::unfold((bytes, share), |(mut bytes, share)| async move {
        if bytes.is_empty() {
            return None;
        }
        let piece = bytes.split_to(PIECE.min(bytes.len()));
        Some((Ok::<_, std::convert::Infallible>(piece), (bytes, share)))
    });
    Body::from_stream(pieces)
}
