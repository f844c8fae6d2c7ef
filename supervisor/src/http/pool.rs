//! The routes of the pool as a whole.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use wpool_protocol::status::{PoolState, SlotState};

use super::peer::Peer;
use super::refusal::Refusal;
use super::{Shared, answer, body};
use crate::driver::command::PoolOrder;
use crate::request::Role;

/// What an operator asks of the pool.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    state: Option<Wanted>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Paused,
    Running,
}

/// How to drain.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Drain {
    queued: bool,
}

pub(super) async fn status(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Refusal> {
    let status = shared.handle.status(&peer.caller).await?;
    Ok(answer::json(StatusCode::OK, &status))
}

pub(super) async fn change(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let order = match body::small_json::<Change>(&shared, &headers, body)
        .await?
        .state
    {
        Some(Wanted::Paused) => PoolOrder::Pause,
        Some(Wanted::Running) => PoolOrder::Resume,
        None => {
            let detail = "say {\"state\": \"paused\"} or {\"state\": \"running\"}";
            return Err(Refusal::bad_request(detail));
        }
    };
    tell(&shared, &peer, order).await
}

pub(super) async fn drain(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let Drain { queued } = body::small_json(&shared, &headers, body).await?;
    let order = if queued {
        PoolOrder::DrainQueued
    } else {
        PoolOrder::Drain
    };
    tell(&shared, &peer, order).await
}

async fn tell(shared: &Shared, peer: &Peer, order: PoolOrder) -> Result<Response, Refusal> {
    if peer.caller.role != Role::Admin {
        let detail = "only the daemon's owner and root may change the pool";
        return Err(Refusal::forbidden(detail));
    }
    shared.handle.order(order).await?;
    let state = shared.handle.status(&peer.caller).await?.state;
    let state = serde_json::json!({ "state": state });
    Ok(answer::json(StatusCode::OK, &state))
}

/// Whether it lives: that it answers at all.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether jobs are accepted and there is a worker to run them.
pub(super) async fn readyz(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Refusal> {
    let status = shared.handle.status(&peer.caller).await?;
    let accepts = match status.state {
        PoolState::Running | PoolState::Paused | PoolState::Degraded => true,
        PoolState::Draining | PoolState::Stopping => false,
    };
    let works = status
        .workers
        .iter()
        .any(|slot| matches!(slot.state, SlotState::Idle | SlotState::Busy));
    let ready = accepts && works;
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let ready = serde_json::json!({ "ready": ready, "state": status.state });
    Ok(answer::json(code, &ready))
}
