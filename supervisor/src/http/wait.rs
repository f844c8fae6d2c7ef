//! Waiting for a job's end: `?wait=30s`.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, watch};
use wpool_protocol::id::JobId;
use wpool_protocol::outcome::{JobState, Outcome};
use wpool_protocol::quantity::Millis;
use wpool_protocol::status::Submitted;

use super::refusal::Refusal;
use super::{Shared, answer};
use crate::driver::command::Watched;
use crate::driver::job::Progress;

/// How long to wait; no longer than the config allows.
pub(super) fn parse(shared: &Shared, wait: Option<&str>) -> Result<Option<Duration>, Refusal> {
    let Some(text) = wait else {
        return Ok(None);
    };
    let wait: Millis = text
        .parse()
        .map_err(|error| Refusal::bad_request(format!("wait: {error}")))?;
    let max = shared.handle.config().http.wait_max;
    Ok(Some(Duration::from(wait).min(max)))
}

/// The right to wait.
pub(super) fn permit(shared: &Shared) -> Result<OwnedSemaphorePermit, Refusal> {
    let waiters = Arc::clone(&shared.waiters);
    waiters.try_acquire_owned().map_err(|_| {
        let max = shared.handle.config().http.waiters_max;
        Refusal::busy(
            "http.waiters_max",
            u64::try_from(max).unwrap_or(u64::MAX),
            "as many requests wait as may; submit without ?wait, or try again later",
        )
    })
}

/// How a job ended, or how it is when the time is over.
pub(super) enum Waited {
    Ended(Arc<Outcome>),
    Present(JobState),
}

/// Waits for a job's end, no longer than `wait`, and not past the supervisor's own end.
pub(super) async fn wait(watched: Watched, wait: Duration, shared: &Shared) -> Waited {
    let mut progress = match watched {
        Watched::Ended(outcome) => return Waited::Ended(outcome),
        Watched::Live(progress) => progress,
    };
    let mut ending = shared.ending.clone();
    tokio::select! {
        // An end that is there counts, even if the time is over too.
        biased;
        outcome = ended(&mut progress) => {
            if let Some(outcome) = outcome {
                return Waited::Ended(outcome);
            }
        }
        () = tokio::time::sleep(wait) => {}
        () = ending.has_come() => {}
    }
    match &*progress.borrow() {
        Progress::Live(state, _) => Waited::Present(*state),
        Progress::Ended(outcome) => Waited::Ended(Arc::clone(outcome)),
    }
}

/// The outcome, once there is one; `None` if nobody is there any more who could tell it.
async fn ended(progress: &mut watch::Receiver<Progress>) -> Option<Arc<Outcome>> {
    let ended = progress.wait_for(|progress| matches!(progress, Progress::Ended(_)));
    match &*ended.await.ok()? {
        Progress::Ended(outcome) => Some(Arc::clone(outcome)),
        Progress::Live(..) => None,
    }
}

/// 200 and the outcome, or 202 and the state.
pub(super) async fn respond(
    shared: &Shared,
    id: JobId,
    waited: Waited,
) -> Result<Response, Refusal> {
    match waited {
        Waited::Ended(outcome) => answer::outcome(&shared.budget, outcome).await,
        Waited::Present(state) => Ok(answer::json(StatusCode::ACCEPTED, &Submitted { id, state })),
    }
}
