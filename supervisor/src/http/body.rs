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

/// How much of the budget a body takes at a time, at least.
const STEP: u64 = 1 << 20;

/// One user has one part of it in so many: whoever sends nothing of what they announced holds up nobody else.
const PARTS: u32 = 4;

/// Bytes of bodies that may be in memory, of all requests and answers together, and of those of one user.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    all: Pot,
    of_user: Pot,
    /// Whose turn it is to go on though nothing is left. Of bodies that each hold a part and want more, none would ever come to its end.
    turn: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Pot {
    permits: Arc<Semaphore>,
    total: u32,
}

/// A share of the budget, for as long as this lives.
#[derive(Debug, Default)]
pub(super) struct Share {
    permits: Option<Permits>,
    /// The right to be as large as may be.
    turn: Option<OwnedSemaphorePermit>,
}

/// How far a share reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// As far as it was asked for.
    ForSome,
    /// As far as a body may.
    ForAll,
}

impl Room {
    /// How many bytes it holds that held `before` and was asked for so many more.
    pub(super) fn reached(self, before: u64, wanted: u64) -> u64 {
        match self {
            Self::ForSome => before.saturating_add(wanted),
            Self::ForAll => u64::MAX,
        }
    }
}

#[derive(Debug)]
struct Permits {
    of_user: OwnedSemaphorePermit,
    of_all: OwnedSemaphorePermit,
}

impl Pot {
    fn new(total: u32) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(usize::try_from(total).unwrap_or(usize::MAX))),
            total,
        }
    }

    /// So many permits, or all; the semaphore is never closed.
    async fn take(&self, permits: u32) -> Option<OwnedSemaphorePermit> {
        let permits = permits.min(self.total);
        let semaphore = Arc::clone(&self.permits);
        semaphore.acquire_many_owned(permits).await.ok()
    }
}

impl Budget {
    /// For so many bytes, of which one body takes `body_bytes_max`.
    pub(super) fn new(bytes: u64, body_bytes_max: u64) -> Self {
        let permits = |bytes: u64| u32::try_from(bytes / PERMIT_BYTES).unwrap_or(u32::MAX >> 3);
        let total = permits(bytes);
        let part = (total / PARTS).max(permits(body_bytes_max)).min(total);
        Self {
            all: Pot::new(total),
            of_user: Pot::new(part),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// The same for another user.
    pub(super) fn of_another_user(&self) -> Self {
        Self {
            all: self.all.clone(),
            of_user: Pot::new(self.of_user.total),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// A share of so many bytes, once there is one. What is larger than a user's part gets all of that.
    pub(super) async fn share(&self, bytes: u64) -> Share {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let permits = permits.min(self.of_user.total);
        let Some(of_user) = self.of_user.take(permits).await else {
            return Share::default();
        };
        let of_all = self.all.take(permits).await;
        Share {
            permits: of_all.map(|of_all| Permits { of_user, of_all }),
            turn: None,
        }
    }

    /// Makes a share so much larger, once there is room, or once it is its turn. One that is empty waits for room: it holds up nobody.
    pub(super) async fn enlarge(&self, share: &mut Share, bytes: u64) -> Room {
        if share.permits.is_none() {
            share.merge(self.share(bytes).await);
            return Room::ForSome;
        }
        tokio::select! {
            biased;
            more = self.share(bytes) => {
                share.merge(more);
                Room::ForSome
            }
            turn = Arc::clone(&self.turn).acquire_owned() => {
                share.turn = turn.ok();
                Room::ForAll
            }
        }
    }
}

impl Share {
    pub(super) fn merge(&mut self, other: Self) {
        match (&mut self.permits, other.permits) {
            (Some(own), Some(other)) => {
                own.of_user.merge(other.of_user);
                own.of_all.merge(other.of_all);
            }
            (own @ None, other) => *own = other,
            (Some(_), None) => {}
        }
        self.turn = self.turn.take().or(other.turn);
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
    let max = usize::try_from(bounds.body_bytes_max).unwrap_or(usize::MAX);
    let mut share = Share::default();
    let mut shared_bytes = u64::try_from(SMALL).unwrap_or(0);
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
        let held = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if held > shared_bytes {
            // By what has come, not by what was announced: who sends nothing holds nothing. As much again as there is, in few steps.
            let end = announced.unwrap_or(u64::MAX).max(held);
            let wanted = (held + held.max(STEP)).min(end) - shared_bytes;
            let room = budget.enlarge(&mut share, wanted).await;
            shared_bytes = room.reached(shared_bytes, wanted);
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

/// A request that says all by its path: its body is empty, or an empty object. It is read before anything is done: a client that is
/// still sending when it is answered may never see the answer.
pub(super) async fn nothing(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), Refusal> {
    #[derive(Default, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    let Nothing {} = small_json(shared, headers, body).await?;
    Ok(())
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
