//! A client of the control socket: HTTP/1.1 and JSON over a Unix socket.
//!
//! One connection carries one request. A Unix socket costs microseconds to open, and a connection
//! that nobody shares needs no pool, no keep-alive and no retry after the daemon has closed it.
//!
//! # Invariants
//!
//! - Nothing that the daemon sends is read without a bound ([`BODY_MAX`], [`ANSWER_MAX`]), and nothing is waited
//!   for without one ([`CONNECT_PATIENCE`], [`ANSWER_PATIENCE`]); only a stream that is followed may stay silent.
//! - An error is one line that says what to do. What the daemon wrote into it may hold anything: whoever
//!   shows it on a terminal escapes it.
//!
//! Not here: what the answers look like to people (`cli`), and the routes themselves (`http`).

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wpool_protocol::explanation::{JobExplanation, PoolExplanation};
use wpool_protocol::id::JobId;
use wpool_protocol::job::JobRequest;
use wpool_protocol::outcome::{JobState, Outcome};
use wpool_protocol::problem::Problem;
use wpool_protocol::status::{JobPage, PoolStatus, Submitted};

pub mod follow;
pub mod socket;

use follow::OutputFollower;
use socket::{Socket, SocketError};

/// How long a daemon may take to accept a connection. It accepts in microseconds or not at all.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to begin an answer, past what the request itself asks it to wait.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// How long one request for an outcome waits. The daemon bounds that (`http.wait_max`), and a Unix socket does not
/// break unseen: the fewer requests, the fewer can come when the daemon has just gone.
const OUTCOME_WAIT: Duration = Duration::from_hours(24);

/// Before it is asked again: a daemon that allows no waiting is not to be asked without pause.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Bytes of an outcome: 64 MiB of files and two streams of 16 MiB, of which JSON makes at most six
/// bytes each (`\u0001`), and a little for the rest.
pub const BODY_MAX: usize = 6 * (64 + 2 * 16 + 1) * (1 << 20);

/// Bytes of any other answer; the longest is a page of a listing.
pub const ANSWER_MAX: usize = 16 << 20;

/// A request that had no answer, or one that says no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The daemon is there and says nothing.
    #[error("the daemon at {socket} does not answer: see `systemctl status wpool` or its log")]
    Silent {
        /// Where it listens.
        socket: PathBuf,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke: see its log, then try again")]
    Broken(#[source] hyper::Error),
    /// The answer is longer than any may be, or broke off.
    #[error("the daemon's answer cannot be read: {0}")]
    Unreadable(String),
    /// The answer is no JSON of this version.
    #[error("the daemon's answer is not understood: is it another version than this wpool?")]
    Foreign(#[source] serde_json::Error),
    /// It stopped while a job was waited for.
    #[error(
        "the daemon went away before job {0} had ended: see its log for what became of it (`journalctl -u wpool`)"
    )]
    Gone(JobId),
    /// The daemon says no.
    #[error("{}", in_words(.0))]
    Problem(Box<Problem>),
    /// It says no, and not in the words of wpool.
    #[error("the daemon answered with status {0}: is it wpool that listens there?")]
    Status(u16),
    /// The request could not be written.
    #[error("the request cannot be written as JSON")]
    Request(#[source] serde_json::Error),
}

/// What a problem document says, in one sentence.
fn in_words(problem: &Problem) -> String {
    let mut text = if problem.detail.is_empty() {
        problem.title.clone()
    } else {
        problem.detail.clone()
    };
    if let Some(wait_ms) = problem.retry_after_ms {
        text = format!("{text} (try again in {wait_ms} ms)");
    }
    text
}

impl ClientError {
    /// The problem document, if the daemon sent one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Socket(_)
            | Self::Silent { .. }
            | Self::Broken(_)
            | Self::Unreadable(_)
            | Self::Foreign(_)
            | Self::Gone(_)
            | Self::Status(_)
            | Self::Request(_) => None,
        }
    }
}

/// A job, or how it ended.
#[derive(Debug)]
pub enum JobAnswer {
    /// It has ended.
    Ended(Box<Outcome>),
    /// It has not.
    Present(Submitted),
}

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Only those in this state.
    pub state: Option<JobState>,
    /// Only those of this tenant.
    pub tenant: Option<String>,
}

/// What the pool is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolOrder {
    /// Accept jobs and start none.
    Pause,
    /// Accept and start jobs.
    Resume,
    /// Refuse jobs and finish what runs.
    Drain,
    /// Refuse jobs and finish what runs and what waits.
    DrainQueued,
    /// Have so many workers.
    Resize(u16),
    /// Replace every worker, one by one.
    Recycle,
}

/// A client of one control socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: Socket,
    /// How long an answer may take to begin, and then to come, past what its request asks for.
    patience: Duration,
}

/// One request, before it is bound to a connection.
struct Call {
    method: Method,
    path: String,
    body: Bytes,
    /// How long the daemon is asked to wait before it answers.
    wait: Duration,
    body_max: usize,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            body: Bytes::new(),
            wait: Duration::ZERO,
            body_max: ANSWER_MAX,
        }
    }

    fn json(mut self, body: &impl Serialize) -> Result<Self, ClientError> {
        self.body = serde_json::to_vec(body)
            .map_err(ClientError::Request)?
            .into();
        Ok(self)
    }

    /// For answers that may be outcomes, and that may be waited for.
    fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self.body_max = BODY_MAX;
        self
    }
}

impl Client {
    /// The client of the daemon at `named`, or of the one that is found where daemons listen.
    ///
    /// # Errors
    ///
    /// [`SocketError`] if nobody listens there.
    pub async fn find(named: Option<PathBuf>) -> Result<Self, SocketError> {
        Ok(Self {
            socket: Socket::find(named).await?,
            patience: ANSWER_PATIENCE,
        })
    }

    /// The same client, more or less patient than [`ANSWER_PATIENCE`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The pool at a glance.
    ///
    /// # Errors
    ///
    /// [`ClientError`], here and below, if there is no answer or it says no.
    pub async fn status(&self) -> Result<PoolStatus, ClientError> {
        self.fetch(Call::new(Method::GET, "/v1/status")).await
    }

    /// Hands in a job.
    pub async fn submit(&self, job: &JobRequest) -> Result<Submitted, ClientError> {
        self.fetch(Call::new(Method::POST, "/v1/jobs").json(job)?)
            .await
    }

    /// How the job ended, if it does within `wait`.
    pub async fn result(&self, id: JobId, wait: Duration) -> Result<JobAnswer, ClientError> {
        let path = format!("/v1/jobs/{id}/result?wait={}ms", wait.as_millis());
        let call = Call::new(Method::GET, path).waiting(wait);
        let body_max = call.body_max;
        let response = self.send(call).await?;
        if response.status() == hyper::StatusCode::ACCEPTED {
            self.read_json(response, ANSWER_MAX)
                .await
                .map(JobAnswer::Present)
        } else {
            self.read_json(response, body_max)
                .await
                .map(|outcome| JobAnswer::Ended(Box::new(outcome)))
        }
    }

    /// How the job ended, once it has.
    pub async fn outcome(&self, id: JobId) -> Result<Box<Outcome>, ClientError> {
        let mut answer = self.result(id, OUTCOME_WAIT).await?;
        loop {
            match answer {
                JobAnswer::Ended(outcome) => return Ok(outcome),
                JobAnswer::Present(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
            answer = match self.result(id, OUTCOME_WAIT).await {
                Err(ClientError::Socket(_)) => return Err(ClientError::Gone(id)),
                answer => answer?,
            };
        }
    }

    /// Why the job is where it is.
    pub async fn explain(&self, id: JobId) -> Result<JobExplanation, ClientError> {
        let path = format!("/v1/jobs/{id}/explain");
        self.fetch(Call::new(Method::GET, path)).await
    }

    /// Why the pool and its slots are as they are.
    pub async fn explain_pool(&self) -> Result<PoolExplanation, ClientError> {
        self.fetch(Call::new(Method::GET, "/v1/pool/explain")).await
    }

    /// Asks for the job's end.
    pub async fn cancel(&self, id: JobId) -> Result<(), ClientError> {
        self.send(Call::new(Method::DELETE, format!("/v1/jobs/{id}")))
            .await
            .map(drop)
    }

    /// Tries a quarantined job again, as a new one.
    pub async fn release(&self, id: JobId) -> Result<Submitted, ClientError> {
        self.fetch(Call::new(Method::POST, format!("/v1/jobs/{id}/release")))
            .await
    }

    /// Lets go of a quarantined job, and of how it ended.
    pub async fn discard(&self, id: JobId) -> Result<(), ClientError> {
        self.send(Call::new(Method::POST, format!("/v1/jobs/{id}/discard")))
            .await
            .map(drop)
    }

    /// The youngest `limit` jobs that pass the filter, before the job `before` if one is given.
    pub async fn jobs(
        &self,
        filter: &JobFilter,
        limit: u32,
        before: Option<JobId>,
    ) -> Result<JobPage, ClientError> {
        let mut path = format!("/v1/jobs?limit={limit}");
        if let Some(state) = filter.state {
            path.push_str("&state=");
            path.push_str(state.as_str());
        }
        if let Some(tenant) = &filter.tenant {
            path.push_str("&tenant=");
            push_percent_encoded(&mut path, tenant);
        }
        if let Some(before) = before {
            path.push_str("&before=");
            path.push_str(&before.to_string());
        }
        self.fetch(Call::new(Method::GET, path)).await
    }

    /// What the job writes, from the start on, until it ends.
    pub async fn follow(&self, id: JobId) -> Result<OutputFollower, ClientError> {
        self.follow_at(format!("/v1/jobs/{id}/output?follow=true"))
            .await
    }

    /// The same, and then how it ended, for which nobody might be there any more to be asked.
    pub async fn follow_to_outcome(&self, id: JobId) -> Result<OutputFollower, ClientError> {
        self.follow_at(format!("/v1/jobs/{id}/output?follow=true&outcome=true"))
            .await
    }

    async fn follow_at(&self, path: String) -> Result<OutputFollower, ClientError> {
        let response = self.send(Call::new(Method::GET, path)).await?;
        Ok(OutputFollower::new(response.into_body()))
    }

    /// Pauses, resumes or drains the pool.
    pub async fn order(&self, order: PoolOrder) -> Result<(), ClientError> {
        let call = match order {
            PoolOrder::Pause => Call::new(Method::PATCH, "/v1/pool")
                .json(&serde_json::json!({"state": "paused"}))?,
            PoolOrder::Resume => Call::new(Method::PATCH, "/v1/pool")
                .json(&serde_json::json!({"state": "running"}))?,
            PoolOrder::Resize(workers) => Call::new(Method::PATCH, "/v1/pool")
                .json(&serde_json::json!({"workers": workers}))?,
            PoolOrder::Recycle => Call::new(Method::POST, "/v1/pool/recycle"),
            PoolOrder::Drain => Call::new(Method::POST, "/v1/pool/drain")
                .json(&serde_json::json!({"queued": false}))?,
            PoolOrder::DrainQueued => Call::new(Method::POST, "/v1/pool/drain")
                .json(&serde_json::json!({"queued": true}))?,
        };
        self.send(call).await.map(drop)
    }

    /// Ends everything that waits; so many jobs.
    pub async fn clear(&self) -> Result<u64, ClientError> {
        #[derive(serde::Deserialize)]
        struct Cleared {
            cleared: u64,
        }
        let cleared: Cleared = self
            .fetch(Call::new(Method::POST, "/v1/pool/clear"))
            .await?;
        Ok(cleared.cleared)
    }

    async fn fetch<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let body_max = call.body_max;
        let response = self.send(call).await?;
        self.read_json(response, body_max).await
    }

    /// Sends the request and gives back an answer that says yes.
    async fn send(&self, call: Call) -> Result<Response<Incoming>, ClientError> {
        let silent = || ClientError::Silent {
            socket: self.socket.path().to_owned(),
        };
        let io = hyper_util::rt::TokioIo::new(self.socket.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(ClientError::Broken)?;
        // The connection ends with its only request; what goes wrong on it is seen there.
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            // The daemon checks Host only on TCP, but HTTP/1.1 wants one.
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json");
        if !call.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(call.body))
            .map_err(|error| ClientError::Unreadable(error.to_string()))?;
        let response =
            tokio::time::timeout(self.patience + call.wait, sender.send_request(request))
                .await
                .map_err(|_| silent())?
                .map_err(ClientError::Broken)?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response).await)
        }
    }

    /// The error that an answer of another status than 2xx stands for.
    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        /// A problem document is a few sentences.
        const PROBLEM_MAX: usize = 64 << 10;
        let status = response.status().as_u16();
        match self.read_json::<Problem>(response, PROBLEM_MAX).await {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(_) => ClientError::Status(status),
        }
    }

    async fn read_json<T: DeserializeOwned>(
        &self,
        response: Response<Incoming>,
        body_max: usize,
    ) -> Result<T, ClientError> {
        let body = Limited::new(response.into_body(), body_max).collect();
        let bytes = tokio::time::timeout(self.patience, body)
            .await
            .map_err(|_| ClientError::Unreadable("it stopped half-way".into()))?
            .map_err(|error| ClientError::Unreadable(error.to_string()))?
            .to_bytes();
        serde_json::from_slice(&bytes).map_err(ClientError::Foreign)
    }
}

/// Appends `text` so that it can stand in a query: RFC 3986 lets few bytes stand for themselves.
fn push_percent_encoded(path: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            path.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(path, "%{byte:02X}").unwrap_or_default();
        }
    }
}
