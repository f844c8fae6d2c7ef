//! A job's output as it is written: `GET /v1/jobs/{id}/output?follow=true`.
//!
//! The answer is NDJSON, one object a line:
//!
//! ```text
//!   {"stream": "stdout", "attempt": 1, "offset": 0, "data": "text, or {\"base64\": …}"}
//!   {"stream": "stdout", "attempt": 1, "offset": 9000, "data": …}    what was between is lost to a slow reader
//!   {"end": "succeeded", "outcome": {…}}                            the job has ended, and how, if that was asked for
//! ```
//!
//! # Invariants
//!
//! - A line is at most as long as an outcome can be ([`BODY_MAX`]); the buffer holds one incomplete line and what one
//!   read brought.
//! - Bytes of a stream come once and in order; a jump of `offset` is told as a [`OutputEvent::Gap`].

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use wpool_protocol::blob::Blob;
use wpool_protocol::outcome::{JobState, Outcome};
use wpool_protocol::wire::Stream;

use super::{BODY_MAX, ClientError};

/// What there is to tell about a job that is followed.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputEvent {
    /// The next bytes of a stream.
    Bytes(Stream, Vec<u8>),
    /// So many bytes of a stream were written faster than they were read, and are lost.
    Gap(Stream, u64),
    /// The attempt was lost; its successor begins both streams anew.
    Restarted(u32),
    /// The job has ended; the outcome is there if it was asked for.
    Ended(JobState, Option<Box<Outcome>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Chunk {
        stream: Stream,
        attempt: u32,
        offset: u64,
        data: Blob,
    },
    End {
        end: JobState,
        #[serde(default)]
        outcome: Option<Box<Outcome>>,
    },
}

/// Reads a job's output as it is written.
#[derive(Debug)]
pub struct OutputFollower {
    body: Incoming,
    lines: Lines,
    position: Position,
    /// What was understood and not yet given out.
    pending: std::collections::VecDeque<OutputEvent>,
}

impl OutputFollower {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            lines: Lines::default(),
            position: Position::default(),
            pending: std::collections::VecDeque::new(),
        }
    }

    /// What comes next; `None` once the daemon has said everything.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the connection breaks or something else than the above comes.
    pub async fn next(&mut self) -> Result<Option<OutputEvent>, ClientError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            while let Some(line) = self.lines.next()? {
                self.position.take(
                    serde_json::from_slice(&line).map_err(ClientError::Foreign)?,
                    &mut self.pending,
                );
            }
            if !self.pending.is_empty() {
                continue;
            }
            match self.body.frame().await {
                None if self.lines.is_empty() => return Ok(None),
                None => return Err(ClientError::Unreadable("it broke off".into())),
                Some(Err(error)) => return Err(ClientError::Broken(error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.lines.extend(&bytes);
                    }
                }
            }
        }
    }
}

/// Up to where both streams of which attempt were seen.
#[derive(Debug, Default)]
struct Position {
    attempt: u32,
    stdout: u64,
    stderr: u64,
}

impl Position {
    fn take(&mut self, line: Line, events: &mut std::collections::VecDeque<OutputEvent>) {
        let (stream, attempt, offset, data) = match line {
            Line::End { end, outcome } => {
                events.push_back(OutputEvent::Ended(end, outcome));
                return;
            }
            Line::Chunk {
                stream,
                attempt,
                offset,
                data,
            } => (stream, attempt, offset, data.0),
        };
        if attempt != self.attempt {
            if self.stdout + self.stderr > 0 {
                events.push_back(OutputEvent::Restarted(attempt));
            }
            *self = Self {
                attempt,
                ..Self::default()
            };
        }
        let seen = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if offset > *seen {
            events.push_back(OutputEvent::Gap(stream, offset - *seen));
        }
        *seen = offset.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if !data.is_empty() {
            events.push_back(OutputEvent::Bytes(stream, data));
        }
    }
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    buffer: Vec<u8>,
    /// How much of `buffer` is known to hold no line end.
    searched: usize,
}

impl Lines {
    fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole line that is not empty, without its end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(found) = unsearched.iter().position(|&byte| byte == b'\n') else {
                self.searched = self.buffer.len();
                if self.buffer.len() > BODY_MAX {
                    return Err(ClientError::Unreadable("a line of it is too long".into()));
                }
                return Ok(None);
            };
            let rest = self.buffer.split_off(self.searched + found + 1);
            let mut line = std::mem::replace(&mut self.buffer, rest);
            self.searched = 0;
            line.pop();
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(lines: &[&str]) -> Vec<OutputEvent> {
        let mut position = Position::default();
        let mut events = std::collections::VecDeque::new();
        for line in lines {
            position.take(serde_json::from_str(line).unwrap(), &mut events);
        }
        events.into()
    }

    #[test]
    fn a_jump_is_a_gap_and_another_attempt_begins_anew() {
        let seen = events(&[
            r#"{"stream": "stdout", "attempt": 1, "offset": 0, "data": "ab"}"#,
            r#"{"stream": "stdout", "attempt": 1, "offset": 5, "data": "c"}"#,
            r#"{"stream": "stderr", "attempt": 2, "offset": 0, "data": {"base64": "/w=="}}"#,
            r#"{"end": "failed"}"#,
        ]);
        assert_eq!(
            seen,
            [
                OutputEvent::Bytes(Stream::Stdout, b"ab".to_vec()),
                OutputEvent::Gap(Stream::Stdout, 3),
                OutputEvent::Bytes(Stream::Stdout, b"c".to_vec()),
                OutputEvent::Restarted(2),
                OutputEvent::Bytes(Stream::Stderr, vec![0xff]),
                OutputEvent::Ended(JobState::Failed, None),
            ]
        );
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut lines = Lines::default();
        lines.extend(&vec![b'x'; BODY_MAX]);
        assert!(matches!(lines.next(), Ok(None)));
        lines.extend(b"x");
        assert!(lines.next().is_err());
    }

    proptest! {
        #[test]
        fn lines_survive_any_cutting(
            texts in prop::collection::vec("[a-z]{1,9}", 0..9),
            piece in 1usize..12,
        ) {
            let stream: String = texts.iter().flat_map(|text| [text, "\n"]).collect();
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for bytes in stream.as_bytes().chunks(piece) {
                lines.extend(bytes);
                while let Some(line) = lines.next().unwrap() {
                    seen.push(String::from_utf8(line).unwrap());
                }
            }
            prop_assert_eq!(seen, texts);
            prop_assert!(lines.is_empty());
        }
    }
}
