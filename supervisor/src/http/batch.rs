//! Many jobs, one JSON object a line, and as many answers: `POST /v1/jobs/batch`.
//!
//! ```text
//!   {"line": 1, "id": "…", "state": "queued"}           accepted
//!   {"line": 2, "problem": {…}}                         not accepted, and why
//!   {"line": 3, …an outcome…}                           with ?wait=…: how it ended, in the order of the ends
//! ```
//!
//! A full queue slows the batch: the next line is not read before there is room for this one.
//!
//! # Invariants
//!
//! - Jobs are submitted in the order of their lines, one at a time; every line that is not blank gets exactly one answer.
//! - At most one line is in memory that is not queued, and a line is at most `http.body_bytes_max` long.
//! - A client that goes away ends the batch; what was accepted goes on.

use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use wpool_pool::action::Refusal as PoolRefusal;
use wpool_protocol::id::JobId;
use wpool_protocol::outcome::Outcome;
use wpool_protocol::problem::Problem;
use wpool_protocol::status::Submitted;

use super::answer::{self, Gone, Pieces, line};
use super::body::Share;
use super::jobs::{WaitQuery, parse_job, query};
use super::peer::Peer;
use super::refusal::Refusal;
use super::wait::Waited;
use super::{Shared, body, wait};
use crate::driver::command::{Acceptance, NotAccepted};
use crate::request::{Caller, ResolvedJob};

/// Answers that are made ahead of a client that does not read them.
const AHEAD: usize = 16;

/// The longest pause before a full queue is asked again.
const RETRY_MAX: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Line<T> {
    line: u64,
    #[serde(flatten)]
    answer: T,
}

#[derive(Serialize)]
struct Problematic {
    problem: Problem,
}

/// What has become of the job of a line.
type Ended = (u64, Result<(JobId, Waited), Refusal>);

/// A line, with its number and its share of the budget.
type NumberedLine = (u64, Vec<u8>, Share);

/// The answer to a line that is being submitted.
type Pending = Pin<Box<dyn Future<Output = (u64, Result<Submitted, Refusal>)> + Send>>;

pub(super) async fn batch(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    body: Body,
) -> Result<Response, Refusal> {
    let WaitQuery { wait } = query(&uri)?;
    let wait = wait::parse(&shared, wait.as_deref())?;
    let permit = wait::permit(&shared)?;
    let (out, mut answers) = mpsc::channel(AHEAD);
    let batch = Batch {
        lines: Lines::new(body),
        caller: peer.caller,
        wait,
        out,
        waiting: JoinSet::new(),
        shared,
        _permit: permit,
    };
    drop(tokio::spawn(batch.run()));
    let answers = futures_util::stream::poll_fn(move |cx| answers.poll_recv(cx));
    let mut response = Body::from_stream(answers).into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

struct Batch {
    shared: Shared,
    caller: Caller,
    lines: Lines,
    wait: Option<Duration>,
    out: Pieces,
    /// Jobs that are accepted and whose ends are waited for.
    waiting: JoinSet<Ended>,
    _permit: OwnedSemaphorePermit,
}

impl Batch {
    async fn run(mut self) {
        let mut pending: Option<Pending> = None;
        let mut at_end = false;
        let out = self.out.clone();
        while !at_end || pending.is_some() || !self.waiting.is_empty() {
            let config = self.shared.handle.config();
            let may_read =
                !at_end && pending.is_none() && self.waiting.len() < config.http.batch_waiting_max;
            let answer = tokio::select! {
                () = out.closed() => return,
                line = self.lines.next(&self.shared), if may_read => match line {
                    Ok(Some((number, text, share))) => {
                        let submitting = submit(self.shared.clone(), self.caller.clone(), number, text, share);
                        pending = Some(Box::pin(submitting));
                        continue;
                    }
                    Ok(None) => {
                        at_end = true;
                        continue;
                    }
                    Err((number, refusal)) => {
                        at_end = true;
                        problem(number, refusal)
                    }
                },
                (number, answer) = answered(&mut pending), if pending.is_some() => {
                    pending = None;
                    match (answer, self.wait) {
                        (Err(refusal), _) => problem(number, refusal),
                        (Ok(answer), None) => line(&Line { line: number, answer }),
                        (Ok(submitted), Some(wait)) => {
                            let (shared, caller) = (self.shared.clone(), self.caller.clone());
                            self.waiting.spawn(ended(shared, caller, number, submitted.id, wait));
                            continue;
                        }
                    }
                },
                Some(ended) = self.waiting.join_next() => match ended {
                    Ok((number, Err(refusal))) => problem(number, refusal),
                    Ok((number, Ok((id, Waited::Present(state))))) => line(&Line {
                        line: number,
                        answer: Submitted { id, state },
                    }),
                    Ok((number, Ok((_, Waited::Ended(outcome))))) => {
                        let budget = &self.shared.budget;
                        let in_line = move |answer: &Outcome| line(&Line { line: number, answer });
                        let told = answer::hand_over_outcome(budget, &self.out, outcome, in_line);
                        if let Err(Gone) = told.await {
                            return;
                        }
                        continue;
                    }
                    // It was not cancelled, so it has panicked: that is logged, and the batch goes on.
                    Err(_) => continue,
                },
            };
            if let Err(Gone) = answer::hand_over(&self.out, answer).await {
                return;
            }
        }
    }
}

/// The answer to the line that is being submitted; never, while none is.
async fn answered(pending: &mut Option<Pending>) -> (u64, Result<Submitted, Refusal>) {
    match pending {
        Some(pending) => pending.await,
        None => std::future::pending().await,
    }
}

/// Submits one line, as often as it takes for the queue to have room.
async fn submit(
    shared: Shared,
    caller: Caller,
    number: u64,
    text: Vec<u8>,
    share: Share,
) -> (u64, Result<Submitted, Refusal>) {
    let config = shared.handle.config();
    let job = parse_job(text, &caller, config).await;
    drop(share);
    let answer = match job {
        Ok(job) => submit_job(&shared, job).await,
        Err(refusal) => Err(refusal),
    };
    (number, answer)
}

async fn submit_job(shared: &Shared, job: ResolvedJob) -> Result<Submitted, Refusal> {
    loop {
        let refusal = match shared.handle.submit(job.clone()).await {
            Ok(Acceptance::New(submitted) | Acceptance::Known(submitted)) => return Ok(submitted),
            Err(NotAccepted::Refused(refusal)) => refusal,
            Err(other @ (NotAccepted::KeyTaken(_) | NotAccepted::Gone)) => return Err(other.into()),
        };
        let retry_after = match refusal {
            PoolRefusal::JobsFull { retry_after, .. }
            | PoolRefusal::TenantFull { retry_after, .. }
            | PoolRefusal::BytesFull {
                retry_after: Some(retry_after),
                ..
            } => retry_after,
            PoolRefusal::BytesFull {
                retry_after: None, ..
            }
            | PoolRefusal::Draining
            | PoolRefusal::Stopping => return Err(refusal.into()),
        };
        tokio::time::sleep(retry_after.min(RETRY_MAX)).await;
    }
}

/// How a job of the batch ended, or how it is when the time is over: what it wrote stays where it is kept until a
/// client can take it.
async fn ended(shared: Shared, caller: Caller, number: u64, id: JobId, wait: Duration) -> Ended {
    let watched = match shared.handle.watch(id, &caller).await {
        Ok(Some(watched)) => watched,
        Ok(None) => return (number, Err(Refusal::no_job())),
        Err(stopped) => return (number, Err(stopped.into())),
    };
    (number, Ok((id, wait::wait(watched, wait, &shared).await)))
}

fn problem(number: u64, refusal: Refusal) -> Bytes {
    line(&Line {
        line: number,
        answer: Problematic {
            problem: *refusal.0,
        },
    })
}

/// The lines of a body.
struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// How much of `buffer` has been given out.
    taken: usize,
    /// How much of it is known to hold no line end that has not been given out.
    searched: usize,
    /// The number of the last line.
    number: u64,
    at_end: bool,
    /// What `buffer` has of the budget: bytes, and the right to them.
    shared_bytes: u64,
    share: Share,
}

impl Lines {
    fn new(body: Body) -> Self {
        Self {
            body,
            buffer: Vec::new(),
            taken: 0,
            searched: 0,
            number: 0,
            at_end: false,
            shared_bytes: 0,
            share: Share::default(),
        }
    }

    /// The next line that is not blank, with its number and its share of the budget. Nothing is lost if this is
    /// dropped half-way.
    async fn next(&mut self, shared: &Shared) -> Result<Option<NumberedLine>, (u64, Refusal)> {
        loop {
            while let Some(line) = self.take_line() {
                self.number += 1;
                if !line.trim_ascii().is_empty() {
                    self.shared_bytes = 0;
                    let share = std::mem::take(&mut self.share);
                    return Ok(Some((self.number, line, share)));
                }
            }
            if self.at_end {
                return Ok(None);
            }
            let next = self.number + 1;
            let config = shared.handle.config();
            let max = config.http.body_bytes_max;
            if u64::try_from(self.buffer.len() - self.taken).unwrap_or(u64::MAX) > max {
                return Err((next, Refusal::too_large("the line", max)));
            }
            // As much again as there is: so few steps lead to the longest line.
            let held = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
            if held > self.shared_bytes.max(body::SMALL as u64) {
                let wanted = held.max(1 << 20);
                let more = shared.budget.enlarge(&mut self.share, wanted);
                let reached = match tokio::time::timeout(config.http.body_timeout, more).await {
                    Ok(room) => room.reached(self.shared_bytes, wanted),
                    Err(_) => return Err((next, Refusal::too_slow())),
                };
                self.shared_bytes = reached;
                continue;
            }
            // Between lines a client may be silent for as long as anybody may wait for anything.
            let patience = if self.buffer.len() == self.taken {
                config.http.wait_max
            } else {
                config.http.body_timeout
            };
            match tokio::time::timeout(patience, self.body.frame()).await {
                Err(_) => return Err((next, Refusal::too_slow())),
                Ok(None) => self.at_end = true,
                Ok(Some(Err(_))) => return Err((next, body::broken())),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.extend(&data);
                    }
                }
            }
        }
    }

    /// The next whole line; at the end of the body what is left counts as one.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let until = match unsearched.iter().position(|byte| *byte == b'\n') {
            Some(found) => self.searched + found + 1,
            None if self.at_end && self.taken < self.buffer.len() => self.buffer.len(),
            None => {
                self.searched = self.buffer.len();
                return None;
            }
        };
        let line = self.buffer.get(self.taken..until).map(<[u8]>::to_vec);
        self.taken = until;
        self.searched = until;
        line
    }

    fn extend(&mut self, bytes: &[u8]) {
        drop(self.buffer.drain(..self.taken));
        self.searched -= self.taken;
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }
}
