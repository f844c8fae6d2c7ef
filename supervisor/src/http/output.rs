//! What a job writes: `GET /v1/jobs/{id}/output`, whole or as it comes.
//!
//! With `?stream=stdout` (or `stderr`) the answer is the bytes of that stream and nothing else, except that where bytes
//! are not kept (the middle of a long output, or what a slow reader missed) one line says how many. Without
//! `stream` it is NDJSON of both:
//!
//! ```text
//!   {"stream": "stdout", "attempt": 1, "offset": 0, "data": "text, or {\"base64\": …}"}
//!   {"stream": "stdout", "attempt": 1, "offset": 9000, "lagged": 8192, "data": …}   so many bytes are missing before
//!   {"end": "succeeded"}                                  with outcome=true: {"end": "succeeded", "outcome": {…}}
//! ```
//!
//! With `follow=true` it goes on until the job ends. An attempt that is lost restarts both streams. Whoever follows
//! with `outcome=true` need not ask again how the job ended, when nobody may be there any more to answer.
//!
//! # Invariants
//!
//! - A reader that is slow is told what it missed; nobody waits for it.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use wpool_protocol::blob::Blob;
use wpool_protocol::id::AttemptNumber;
use wpool_protocol::outcome::{JobState, Outcome};
use wpool_protocol::wire::Stream;

use super::answer::{self, Gone, Pieces, line};
use super::jobs::{job_id, query};
use super::peer::Peer;
use super::refusal::Refusal;
use super::{Shared, wait};
use crate::driver::command::{Chunk, Interest, Reader, Reading};

/// Pieces that are made ahead of a reader.
const AHEAD: usize = 2;

/// Bytes of one piece.
const PIECE: usize = 64 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "two parameters of a query, as the contract names them"
)]
struct OutputQuery {
    stream: Option<Stream>,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    outcome: bool,
}

/// In which form the bytes go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As they are.
    Raw,
    /// In lines of JSON.
    Lines,
    /// The same, and the last line says all about the job's end.
    LinesAndOutcome,
}

#[derive(Serialize)]
struct ChunkLine {
    stream: Stream,
    attempt: u32,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lagged: Option<u64>,
    data: Blob,
}

#[derive(Serialize)]
struct EndLine<'a> {
    end: JobState,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a Outcome>,
}

pub(super) async fn output(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let id = job_id(&id)?;
    let OutputQuery {
        stream,
        follow,
        outcome,
    } = query(&uri)?;
    let form = match (stream, outcome) {
        (Some(_), false) => Form::Raw,
        (None, false) => Form::Lines,
        (None, true) => Form::LinesAndOutcome,
        (Some(_), true) => {
            let detail =
                "outcome: the bytes of one stream have no place for it; leave `stream` out";
            return Err(Refusal::bad_request(detail));
        }
    };
    let permit = wait::permit(&shared)?;
    let streams = match stream {
        Some(stream) => vec![stream],
        None => vec![Stream::Stdout, Stream::Stderr],
    };
    let reader = Reader {
        id,
        caller: peer.caller,
        attempt: None,
        from: streams.into_iter().map(|stream| (stream, 0)).collect(),
        interest: if follow {
            Interest::Future
        } else {
            Interest::Present
        },
    };
    let first = shared.handle.read(reader.clone()).await?;
    let first = first.ok_or_else(Refusal::no_job)?;
    let (out, mut pieces) = mpsc::channel(AHEAD);
    let follower = Follower {
        shared,
        reader,
        form,
        out,
        _permit: permit,
    };
    drop(tokio::spawn(follower.follow(first)));
    let pieces = futures_util::stream::poll_fn(move |cx| pieces.poll_recv(cx));
    let mut response = Body::from_stream(pieces).into_response();
    let kind = HeaderValue::from_static(match form {
        Form::Raw => "application/octet-stream",
        Form::Lines | Form::LinesAndOutcome => "application/x-ndjson",
    });
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// One reader.
struct Follower {
    shared: Shared,
    reader: Reader,
    form: Form,
    out: Pieces,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    async fn follow(mut self, first: Reading) {
        // A reader that goes away ends this, and nothing else.
        if self.tell_all(first).await.is_err() {
            tracing::trace!(job = %self.reader.id, "a reader has gone");
        }
    }

    async fn tell_all(&mut self, first: Reading) -> Result<(), Gone> {
        let mut next = Some(first);
        loop {
            let reading = match next.take() {
                Some(reading) => reading,
                None => match self.shared.handle.read(self.reader.clone()).await {
                    Ok(Some(reading)) => reading,
                    // Forgotten meanwhile, or nobody is there any more: there is nothing more to tell.
                    Ok(None) | Err(_) => return Ok(()),
                },
            };
            match reading {
                Reading::Ended(outcome) => return self.tell_rest(&outcome).await,
                Reading::Live {
                    attempt,
                    chunks,
                    mut progress,
                } => {
                    self.turn_to(attempt);
                    let is_all = chunks.is_empty();
                    for chunk in chunks {
                        self.tell(chunk).await?;
                    }
                    match (is_all, self.reader.interest) {
                        (false, Interest::Present | Interest::Future) => {}
                        (true, Interest::Present) => return Ok(()),
                        (true, Interest::Future) => {
                            tokio::select! {
                                () = self.out.closed() => return Err(Gone),
                                // The job ends, or tells; or nobody is left who could.
                                _ = progress.changed() => {}
                            }
                        }
                    }
                }
            }
        }
    }

    /// Another attempt begins both streams anew.
    fn turn_to(&mut self, attempt: Option<AttemptNumber>) {
        if self.reader.attempt != attempt {
            self.reader.attempt = attempt;
            for (_, from) in &mut self.reader.from {
                *from = 0;
            }
        }
    }

    /// What is kept of an ended job's output past what was told.
    async fn tell_rest(&mut self, outcome: &Arc<Outcome>) -> Result<(), Gone> {
        if let Some(last) = outcome.attempts.last() {
            self.turn_to(Some(last.number));
        }
        for (stream, from) in self.reader.from.clone() {
            for (offset, bytes) in kept_from(outcome, stream, from) {
                let mut offset = offset;
                for piece in bytes.chunks(PIECE) {
                    let chunk = Chunk {
                        stream,
                        offset,
                        bytes: piece.to_vec(),
                    };
                    offset += u64::try_from(piece.len()).unwrap_or(0);
                    self.tell(chunk).await?;
                }
            }
        }
        match self.form {
            Form::Raw => Ok(()),
            Form::Lines => {
                let end = outcome.state;
                self.send(line(&EndLine { end, outcome: None })).await
            }
            Form::LinesAndOutcome => self.tell_outcome(outcome).await,
        }
    }

    async fn tell_outcome(&mut self, outcome: &Arc<Outcome>) -> Result<(), Gone> {
        let outcome = Arc::clone(outcome);
        answer::hand_over_outcome(&self.shared.budget, &self.out, outcome, |outcome| {
            line(&EndLine {
                end: outcome.state,
                outcome: Some(outcome),
            })
        })
        .await
    }

    async fn tell(&mut self, chunk: Chunk) -> Result<(), Gone> {
        let Some((_, from)) = self
            .reader
            .from
            .iter_mut()
            .find(|(stream, _)| *stream == chunk.stream)
        else {
            return Ok(());
        };
        let lagged = chunk.offset.saturating_sub(*from);
        *from = chunk.offset + u64::try_from(chunk.bytes.len()).unwrap_or(0);
        let bytes = match self.form {
            Form::Raw if lagged == 0 => chunk.bytes.into(),
            Form::Raw => {
                let mut bytes = format!("\n[wpool: {lagged} bytes are left out]\n").into_bytes();
                bytes.extend_from_slice(&chunk.bytes);
                bytes.into()
            }
            Form::Lines | Form::LinesAndOutcome => line(&ChunkLine {
                stream: chunk.stream,
                attempt: self.reader.attempt.map_or(0, |attempt| attempt.0.get()),
                offset: chunk.offset,
                lagged: (lagged > 0).then_some(lagged),
                data: Blob(chunk.bytes),
            }),
        };
        self.send(bytes).await
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        answer::hand_over(&self.out, bytes).await
    }
}

/// What is kept of a stream from number `from` on: runs of bytes, each with the number of its first.
fn kept_from(outcome: &Outcome, stream: Stream, from: u64) -> Vec<(u64, &[u8])> {
    let (kept, total, truncated) = match stream {
        Stream::Stdout => (
            &outcome.stdout.0,
            outcome.stdout_bytes,
            outcome.stdout_truncated,
        ),
        Stream::Stderr => (
            &outcome.stderr.0,
            outcome.stderr_bytes,
            outcome.stderr_truncated,
        ),
    };
    // Of a long output the first half of what is kept comes from its start, the second from its end.
    let half = if truncated {
        kept.len() / 2
    } else {
        kept.len()
    };
    let (head, tail) = kept.split_at(half);
    let tail_from = total.saturating_sub(u64::try_from(tail.len()).unwrap_or(0));
    [(0, head), (tail_from, tail)]
        .into_iter()
        .filter_map(|(offset, bytes)| {
            let skip = usize::try_from(from.saturating_sub(offset)).unwrap_or(usize::MAX);
            let rest = bytes.get(skip..).filter(|rest| !rest.is_empty())?;
            Some((offset.max(from), rest))
        })
        .collect()
}
