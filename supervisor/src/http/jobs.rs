//! The routes of jobs: submit, list, show, wait, end, forget.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wpool_protocol::id::JobId;
use wpool_protocol::job::{InputContent, JobRequest};
use wpool_protocol::object::Object;
use wpool_protocol::outcome::JobState;
use wpool_protocol::status::{JobPage, Submitted};

use super::body::SMALL;
use super::peer::Peer;
use super::refusal::Refusal;
use super::{Shared, answer, body, wait};
use crate::config::Config;
use crate::driver::command::{Acceptance, Deleted, Watched};
use crate::driver::register::Filter;
use crate::request::{Caller, ResolvedJob, Role, resolve};

/// Jobs of a page, unless the client says.
const PAGE_DEFAULT: usize = 100;

/// Jobs of a page, at most.
const PAGE_MAX: usize = 1_000;

/// The parameters of a request that may wait.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    pub(super) wait: Option<String>,
}

/// The parameters of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    state: Option<JobState>,
    tenant: Option<String>,
    before: Option<JobId>,
    limit: Option<usize>,
}

/// The parameters of a request.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    match Query::try_from_uri(uri) {
        Ok(Query(query)) => Ok(query),
        Err(error) => {
            let why = std::error::Error::source(&error)
                .map_or_else(|| error.body_text(), ToString::to_string);
            Err(Refusal::bad_request(format!(
                "the parameters are not what is expected: {why}"
            )))
        }
    }
}

/// The job that a path names.
pub(super) fn job_id(text: &str) -> Result<JobId, Refusal> {
    text.parse()
        .map_err(|error: wpool_protocol::id::ParseJobIdError| {
            Refusal::bad_request(error.to_string())
        })
}

/// Makes of a JSON text a job that can be queued, elsewhere if that takes long.
pub(super) async fn parse_job(
    bytes: Vec<u8>,
    caller: &Caller,
    config: Arc<Config>,
) -> Result<ResolvedJob, Refusal> {
    if bytes.len() <= SMALL {
        let request = parse(&bytes)?;
        let is_host_file = |content: &InputContent| matches!(content, InputContent::HostPath(_));
        if !request
            .files
            .values()
            .any(|file| is_host_file(&file.content))
        {
            return Ok(resolve(request, caller, &config)?);
        }
    }
    let caller = caller.clone();
    tokio::task::spawn_blocking(move || Ok(resolve(parse(&bytes)?, &caller, &config)?))
        .await
        .unwrap_or_else(|_| Err(Refusal::stopping()))
}

fn parse(bytes: &[u8]) -> Result<JobRequest, Refusal> {
    let parsed: Result<Object<_>, _> = serde_json::from_slice(bytes);
    parsed
        .map(|Object(request)| request)
        .map_err(|error| Refusal::json_of_job(&error))
}

pub(super) async fn submit(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let WaitQuery { wait } = query(&uri)?;
    let wait = wait::parse(&shared, wait.as_deref())?;
    // Before the job is accepted: a client that may not wait must not find out by having submitted.
    let permit = wait.map(|_| wait::permit(&shared)).transpose()?;
    let (bytes, share) = body::read(&shared, &headers, body).await?;
    let config = shared.handle.config();
    let job = parse_job(bytes, &peer.caller, config).await?;
    drop(share);
    let (status, submitted) = match shared.handle.submit(job).await? {
        Acceptance::New(submitted) => (StatusCode::CREATED, submitted),
        Acceptance::Known(submitted) => (StatusCode::OK, submitted),
    };
    if let Some(wait) = wait {
        let watched = shared.handle.watch(submitted.id, &peer.caller).await?;
        // It may be one of very many, and its outcome gone already.
        let watched = watched.ok_or_else(Refusal::no_job)?;
        let waited = wait::wait(watched, wait, &shared).await;
        drop(permit);
        return wait::respond(&shared, submitted.id, waited).await;
    }
    let mut response = answer::json(status, &submitted);
    let place = format!("/v1/jobs/{}", submitted.id);
    if let Ok(place) = HeaderValue::try_from(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let ListQuery {
        state,
        tenant,
        before,
        limit,
    } = query(&uri)?;
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Refusal::bad_request(format!(
            "limit: it is {limit} and must be 1 to {PAGE_MAX}"
        )));
    }
    let tenant = match (tenant, peer.caller.role) {
        (None, Role::Admin) => None,
        (Some(tenant), Role::Admin) => Some(tenant.into()),
        (None, Role::Submitter) => Some(Arc::clone(&peer.caller.tenant)),
        (Some(tenant), Role::Submitter) if *tenant == *peer.caller.tenant => {
            Some(Arc::clone(&peer.caller.tenant))
        }
        (Some(_), Role::Submitter) => {
            return Err(Refusal::forbidden(
                "tenant: only an administrator may list the jobs of another tenant",
            ));
        }
    };
    let page = shared
        .handle
        .list(Filter {
            tenant,
            state,
            before: before.unwrap_or(JobId(u64::MAX)),
            limit,
        })
        .await?;
    let page = JobPage {
        jobs: page.jobs,
        next: page.next,
    };
    if page.jobs.len() <= PAGE_DEFAULT {
        return Ok(answer::json(StatusCode::OK, &page));
    }
    let bytes = answer::made_elsewhere(move || serde_json::to_vec(&page)).await?;
    let kind = (header::CONTENT_TYPE, "application/json");
    Ok(([kind], bytes).into_response())
}

/// How a job is, or how it ended.
pub(super) async fn show(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let id = job_id(&id)?;
    let filter = Filter {
        tenant: None,
        state: None,
        before: id.next(),
        limit: 1,
    };
    match shared.handle.watch(id, &peer.caller).await? {
        None => Err(Refusal::no_job()),
        Some(Watched::Ended(outcome)) => answer::outcome(&shared.budget, outcome).await,
        Some(Watched::Live(_)) => {
            let page = shared.handle.list(filter).await?;
            let job = page.jobs.into_iter().find(|job| job.id == id);
            let job = job.ok_or_else(Refusal::no_job)?;
            Ok(answer::json(StatusCode::OK, &job))
        }
    }
}

pub(super) async fn result(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let id = job_id(&id)?;
    let WaitQuery { wait } = query(&uri)?;
    let wait = wait::parse(&shared, wait.as_deref())?.unwrap_or_default();
    let permit = (!wait.is_zero())
        .then(|| wait::permit(&shared))
        .transpose()?;
    let watched = shared.handle.watch(id, &peer.caller).await?;
    let watched = watched.ok_or_else(Refusal::no_job)?;
    let waited = wait::wait(watched, wait, &shared).await;
    drop(permit);
    wait::respond(&shared, id, waited).await
}

/// Why a job is where it is.
pub(super) async fn explain(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let id = job_id(&id)?;
    let why = shared.handle.explain(id, &peer.caller).await?;
    let why = why.ok_or_else(Refusal::no_job)?;
    Ok(answer::json(StatusCode::OK, &why))
}

pub(super) async fn delete(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let id = job_id(&id)?;
    body::nothing(&shared, &headers, body).await?;
    match shared.handle.delete(id, &peer.caller).await? {
        None => Err(Refusal::no_job()),
        Some(Deleted::Forgotten) => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(Deleted::Asked(state)) => {
            Ok(answer::json(StatusCode::ACCEPTED, &Submitted { id, state }))
        }
    }
}
