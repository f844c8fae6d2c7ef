//! The routes of jobs that were set aside. They are listed by `GET /v1/jobs?state=quarantined`.

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::jobs::job_id;
use super::peer::Peer;
use super::refusal::Refusal;
use super::{Shared, answer, body};

/// Tries a quarantined job again, as a new one.
pub(super) async fn release(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let id = job_id(&id)?;
    body::nothing(&shared, &headers, body).await?;
    let accepted = shared.handle.release(id, &peer.caller).await??;
    let mut response = answer::json(StatusCode::CREATED, &accepted);
    if let Ok(place) = HeaderValue::try_from(format!("/v1/jobs/{}", accepted.id)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// Lets go of a quarantined job and of its outcome.
pub(super) async fn discard(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let id = job_id(&id)?;
    body::nothing(&shared, &headers, body).await?;
    shared.handle.discard(id, &peer.caller).await??;
    Ok(StatusCode::NO_CONTENT.into_response())
}
