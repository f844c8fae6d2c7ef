//! Why a request is not granted, as a problem document.
//!
//! # Invariants
//!
//! - Every refusal says in one sentence what is wrong and what to do; one for which waiting helps says how long.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use wpool_pool::action::Refusal as PoolRefusal;
use wpool_protocol::limits::ResolveError;
use wpool_protocol::problem::Problem;

use crate::driver::command::{NotAccepted, NotAside, NotReleased, Stopped};
use crate::request::RequestError;

/// When to come again to a pool that is drained by hand, or to the next supervisor.
const RETRY_LATER_MS: u64 = 5_000;

/// A request that is not granted.
#[derive(Clone, Debug)]
pub(super) struct Refusal(pub(super) Box<Problem>);

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        name: &str,
        title: &str,
        detail: impl Into<String>,
    ) -> Self {
        Self(Box::new(Problem::new(status.as_u16(), name, title, detail)))
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        let title = "the request is malformed";
        Self::new(StatusCode::BAD_REQUEST, "bad-request", title, detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "this is not for you",
            detail,
        )
    }

    pub(super) fn no_job() -> Self {
        let detail = "there is no such job, or its outcome is no longer kept; `wpool jobs` (GET /v1/jobs) lists what there is";
        Self::new(
            StatusCode::NOT_FOUND,
            "no-job",
            "there is no such job",
            detail,
        )
    }

    pub(super) fn too_large(what: &str, max: u64) -> Self {
        let detail = format!(
            "{what} is larger than {}; send less, or raise http.body_bytes_max",
            wpool_protocol::quantity::ByteSize(max)
        );
        let title = "the request is too large";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", title, detail)
            .limit("http.body_bytes_max", max)
    }

    pub(super) fn too_slow() -> Self {
        let detail = "the body did not come in time; send it faster, or raise http.body_timeout_ms";
        let title = "the request came too slowly";
        Self::new(StatusCode::REQUEST_TIMEOUT, "too-slow", title, detail)
    }

    pub(super) fn busy(limit: &str, allowed: u64, detail: &str) -> Self {
        let title = "too much is going on";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", title, detail)
            .limit(limit, allowed)
            .retry_after(1_000)
    }

    pub(super) fn stopping() -> Self {
        let detail = "the supervisor shuts down; come again when it is back";
        let title = "the supervisor shuts down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", title, detail)
            .retry_after(RETRY_LATER_MS)
    }

    fn invalid(detail: impl Into<String>) -> Self {
        let title = "the job cannot be run as it is";
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-job",
            title,
            detail,
        )
    }

    fn limit(mut self, limit: &str, allowed: u64) -> Self {
        self.0.limit = Some(limit.to_owned());
        self.0.allowed = Some(allowed);
        self
    }

    fn retry_after(mut self, ms: u64) -> Self {
        self.0.retry_after_ms = Some(ms);
        self
    }

    /// What is wrong with a JSON text.
    pub(super) fn json(error: &serde_json::Error) -> Self {
        Self::bad_request(match error.classify() {
            serde_json::error::Category::Data => {
                format!("the body is not what is expected: {error}")
            }
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => format!("the body is not JSON: {error}"),
        })
    }

    /// What is wrong with the JSON text of a job.
    pub(super) fn json_of_job(error: &serde_json::Error) -> Self {
        match error.classify() {
            serde_json::error::Category::Data => {
                Self::invalid(format!("the body is not what is expected: {error}"))
            }
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => Self::json(error),
        }
    }
}

impl From<Stopped> for Refusal {
    fn from(_: Stopped) -> Self {
        Self::stopping()
    }
}

impl From<NotAccepted> for Refusal {
    fn from(not_accepted: NotAccepted) -> Self {
        match not_accepted {
            NotAccepted::Refused(refusal) => refusal.into(),
            NotAccepted::KeyTaken(taken) => {
                let differs = if taken.command == taken.new_command {
                    "the same command, and asks for something else beside it".to_owned()
                } else {
                    taken.new_command.to_string()
                };
                let detail = format!(
                    "idempotency_key: `{}` stands for job {} ({}), and this is another one ({differs}); use another key",
                    taken.key, taken.id, taken.command
                );
                let title = "the key stands for another job";
                Self::new(StatusCode::CONFLICT, "key-taken", title, detail)
            }
            NotAccepted::Gone => Self::stopping(),
        }
    }
}

impl From<NotAside> for Refusal {
    fn from(not_aside: NotAside) -> Self {
        let conflict =
            |name, title, detail: String| Self::new(StatusCode::CONFLICT, name, title, detail);
        match not_aside {
            NotAside::NoJob => Self::no_job(),
            NotAside::Is(state) => conflict(
                "not-quarantined",
                "the job is not in quarantine",
                format!(
                    "the job is {state}; `wpool quarantine list` (GET /v1/jobs?state=quarantined) lists what is set aside"
                ),
            ),
            NotAside::ReleasedAs(id) => conflict(
                "released",
                "the job was released already",
                format!("it was released as job {id}; see how that ended"),
            ),
        }
    }
}

impl From<NotReleased> for Refusal {
    fn from(not_released: NotReleased) -> Self {
        match not_released {
            NotReleased::NotAside(not_aside) => not_aside.into(),
            NotReleased::NotAccepted(not_accepted) => not_accepted.into(),
        }
    }
}

impl From<PoolRefusal> for Refusal {
    fn from(refusal: PoolRefusal) -> Self {
        let full = |detail: String| {
            let title = "the queue is full";
            Self::new(StatusCode::TOO_MANY_REQUESTS, "queue-full", title, detail)
        };
        let ms = |wait: std::time::Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        match refusal {
            PoolRefusal::JobsFull { limit, retry_after } => full(format!(
                "{limit} jobs are there already, as many as pool.queue_jobs allows; try again later"
            ))
            .limit("queue_jobs", limit)
            .retry_after(ms(retry_after)),
            PoolRefusal::TenantFull { limit, retry_after } => full(format!(
                "{limit} jobs of this tenant are there already, as many as its queue_jobs allows; try again later"
            ))
            .limit("tenant.queue_jobs", limit)
            .retry_after(ms(retry_after)),
            PoolRefusal::BytesFull {
                limit,
                retry_after: Some(retry_after),
            } => full(format!(
                "the jobs that are there take all but too little of the {limit} bytes that pool.queue_bytes allows; try again later"
            ))
            .limit("queue_bytes", limit)
            .retry_after(ms(retry_after)),
            PoolRefusal::BytesFull {
                limit,
                retry_after: None,
            } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "job-too-large",
                "the job is too large",
                format!("the job alone is larger than the {limit} bytes that pool.queue_bytes allows"),
            )
            .limit("queue_bytes", limit),
            PoolRefusal::Draining => {
                let detail = "the pool is drained: it takes no jobs until `wpool pool resume`";
                let title = "the pool is drained";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", title, detail)
                    .retry_after(RETRY_LATER_MS)
            }
            PoolRefusal::Stopping => Self::stopping(),
        }
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        let text = in_words(&error);
        match error {
            RequestError::Tenant { .. } | RequestError::ForbiddenProfile { .. } => {
                Self::forbidden(text)
            }
            RequestError::Limits(
                ResolveError::AboveCeiling { field, .. } | ResolveError::BelowFloor { field, .. },
            ) => {
                let mut refusal = Self::invalid(text);
                refusal.0.limit = Some(field.to_owned());
                refusal
            }
            RequestError::Field(_)
            | RequestError::UnknownProfile { .. }
            | RequestError::HostFile { .. }
            | RequestError::FilesTooLarge => Self::invalid(text),
        }
    }
}

/// An error and its causes that its text does not hold.
fn in_words(error: &RequestError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::BAD_REQUEST);
        // Texts and numbers: nothing that JSON could not carry.
        let body = serde_json::to_vec(&*self.0).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, kind);
        if let Some(ms) = self.0.retry_after_ms {
            // Whole seconds, and never 0: that would say "at once".
            headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
        }
        response
    }
}

pub(super) async fn no_route(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(100).collect();
    let detail = format!("there is nothing at {path}; the jobs are at /v1/jobs");
    Refusal::new(
        StatusCode::NOT_FOUND,
        "no-route",
        "there is nothing here",
        detail,
    )
}

pub(super) async fn no_method(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(100).collect();
    let detail = format!("{path} does not know this method");
    let title = "the method is not known here";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "no-method", title, detail)
}
