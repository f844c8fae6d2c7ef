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
use crate::config::WORKERS_MAX;
use crate::driver::command::PoolOrder;
use crate::request::Role;

/// What an operator asks of the pool.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    state: Option<Wanted>,
    workers: Option<u64>,
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

/// Why the pool and its slots are as they are.
pub(super) async fn explain(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Refusal> {
    let why = shared.handle.explain_pool(&peer.caller).await?;
    Ok(answer::json(StatusCode::OK, &why))
}

pub(super) async fn change(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let Change { state, workers } = body::small_json(&shared, &headers, body).await?;
    if state.is_none() && workers.is_none() {
        let detail = "say {\"state\": \"paused\"}, {\"state\": \"running\"} or {\"workers\": 4}";
        return Err(Refusal::bad_request(detail));
    }
    let workers = workers.map(count_of_workers).transpose()?;
    may_change(&peer)?;
    let state = state.map(|state| match state {
        Wanted::Paused => PoolOrder::Pause,
        Wanted::Running => PoolOrder::Resume,
    });
    for order in workers.map(PoolOrder::Resize).into_iter().chain(state) {
        shared.handle.order(order).await?;
    }
    answer_state(&shared, &peer).await
}

fn count_of_workers(wanted: u64) -> Result<u16, Refusal> {
    let workers = u16::try_from(wanted).ok();
    let workers = workers.filter(|workers| (1..=WORKERS_MAX).contains(workers));
    workers.ok_or_else(|| {
        Refusal::bad_request(format!(
            "workers: it is {wanted} and must be 1 to {WORKERS_MAX}"
        ))
    })
}

/// Ends everything that waits; each of the jobs is told.
pub(super) async fn clear(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    body::nothing(&shared, &headers, body).await?;
    may_change(&peer)?;
    let cleared = shared.handle.clear().await?;
    let cleared = serde_json::json!({ "cleared": cleared });
    Ok(answer::json(StatusCode::OK, &cleared))
}

/// Replaces every worker, one by one; that goes on when this is answered.
pub(super) async fn recycle(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    body::nothing(&shared, &headers, body).await?;
    may_change(&peer)?;
    shared.handle.order(PoolOrder::Recycle).await?;
    answer_state(&shared, &peer).await
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
    may_change(&peer)?;
    shared.handle.order(order).await?;
    answer_state(&shared, &peer).await
}

fn may_change(peer: &Peer) -> Result<(), Refusal> {
    match peer.caller.role {
        Role::Admin => Ok(()),
        Role::Submitter => Err(Refusal::forbidden(
            "only the daemon's owner and root may change the pool",
        )),
    }
}

async fn answer_state(shared: &Shared, peer: &Peer) -> Result<Response, Refusal> {
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
