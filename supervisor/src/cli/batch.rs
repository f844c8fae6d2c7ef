//! `wpool submit --batch`: many jobs, one JSON object a line, and as many answers.
//!
//! Answers come as they come, each with the number of its line. A full queue slows the batch: a line that
//! is refused for it is handed in again when the daemon says so.
//!
//! # Invariants
//!
//! - At most [`IN_FLIGHT`] lines are read ahead of their answers, and a line is at most [`LINE_MAX`] long.
//! - Every line that is not blank gets exactly one answer.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wpool::client::{Client, ClientError};
use wpool_protocol::job::JobRequest;
use wpool_protocol::object::Object;

use super::FAILED;
use super::screen::Screen;

/// Lines whose answers are awaited at one time: enough to keep the workers of a large machine busy with
/// short jobs, and far below what a daemon lets one peer have of connections.
const IN_FLIGHT: usize = 64;

/// Bytes of a line: 64 MiB of files in base 64, and all the rest.
const LINE_MAX: u64 = 96 << 20;

/// The wait after a refusal that names none.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// When a line is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Its job is accepted.
    Accepted,
    /// Its job has ended.
    Ended,
}

/// A line and its number, counted from 1.
pub(crate) struct Line {
    number: u64,
    text: Vec<u8>,
}

/// The answer to one line.
#[derive(Serialize)]
struct Answer {
    line: u64,
    #[serde(flatten)]
    answer: Value,
}

/// Reads the lines of `source` on a thread of its own: reading a pipe or a terminal may take for ever.
pub(crate) fn lines(source: &OsStr) -> anyhow::Result<mpsc::Receiver<anyhow::Result<Line>>> {
    let reader: Box<dyn BufRead + Send> = if source == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let name = source.display();
        let file = File::open(source).with_context(|| format!("failed to read {name}"))?;
        Box::new(BufReader::new(file))
    };
    let (sender, receiver) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("batch".into())
        .spawn(move || read_lines(reader, &sender))
        .context("failed to start a thread")?;
    Ok(receiver)
}

fn read_lines(mut reader: Box<dyn BufRead + Send>, sender: &mpsc::Sender<anyhow::Result<Line>>) {
    for number in 1.. {
        let line = match read_line(&mut reader, number) {
            Ok(Some(line)) => Ok(line),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let was_error = line.is_err();
        if matches!(&line, Ok(line) if line.text.trim_ascii().is_empty()) {
            continue;
        }
        // The receiver goes away when the batch has failed.
        if sender.blocking_send(line).is_err() || was_error {
            return;
        }
    }
}

fn read_line(reader: &mut impl BufRead, number: u64) -> anyhow::Result<Option<Line>> {
    let mut text = Vec::new();
    io::Read::take(reader, LINE_MAX + 1)
        .read_until(b'\n', &mut text)
        .with_context(|| format!("failed to read line {number} of the batch"))?;
    anyhow::ensure!(
        u64::try_from(text.len())? <= LINE_MAX,
        "line {number} of the batch is longer than {} MiB: split its files over several jobs",
        LINE_MAX >> 20
    );
    Ok((!text.is_empty()).then_some(Line { number, text }))
}

/// Hands in every line and prints every answer.
pub(crate) async fn submit(
    client: Client,
    mut lines: mpsc::Receiver<anyhow::Result<Line>>,
    until: Until,
    screen: &mut Screen<'_>,
) -> anyhow::Result<u8> {
    let mut in_flight = JoinSet::new();
    let mut at_end = false;
    let mut code = 0;
    loop {
        tokio::select! {
            line = lines.recv(), if !at_end && in_flight.len() < IN_FLIGHT => match line {
                Some(line) => {
                    in_flight.spawn(hand_in(client.clone(), line?, until));
                }
                None => at_end = true,
            },
            Some(ended) = in_flight.join_next(), if !in_flight.is_empty() => {
                let (answer, refused) = ended.context("failed to wait for an answer")??;
                screen.json_line(&answer)?;
                screen.flush()?;
                if refused {
                    code = FAILED;
                }
            }
            else => return Ok(code),
        }
    }
}

/// The answer to one line, and whether it is a refusal; an error if the daemon has gone.
async fn hand_in(client: Client, line: Line, until: Until) -> anyhow::Result<(Answer, bool)> {
    let number = line.number;
    let answer = |answer: Value| Answer {
        line: number,
        answer,
    };
    let refuse = |text: String| (answer(serde_json::json!({ "error": text })), true);
    let job: JobRequest = match serde_json::from_slice(&line.text) {
        Ok(Object(job)) => job,
        Err(error) => return Ok(refuse(format!("the line is no job: {error}"))),
    };
    if let Err(error) = job.validate() {
        return Ok(refuse(error.to_string()));
    }
    let submitted = loop {
        match client.submit(&job).await {
            Ok(submitted) => break submitted,
            Err(ClientError::Problem(problem)) if problem.status == 429 => {
                let wait = problem
                    .retry_after_ms
                    .map_or(RETRY_AFTER, Duration::from_millis);
                tokio::time::sleep(wait).await;
            }
            Err(ClientError::Problem(problem)) => {
                return Ok((answer(serde_json::json!({ "error": problem })), true));
            }
            Err(error) => return Err(error).with_context(|| format!("failed at line {number}")),
        }
    };
    Ok(match until {
        Until::Accepted => (answer(serde_json::to_value(submitted)?), false),
        Until::Ended => {
            let outcome = client.outcome(submitted.id).await?;
            (answer(serde_json::to_value(*outcome)?), false)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers_and_blank_ones_have_no_answer() {
        let (sender, mut receiver) = mpsc::channel(9);
        read_lines(Box::new(&b"a\n\n  \nb"[..]), &sender);
        drop(sender);
        let mut seen = Vec::new();
        while let Some(line) = receiver.blocking_recv() {
            let line = line.unwrap();
            seen.push((line.number, line.text));
        }
        assert_eq!(seen, [(1, b"a\n".to_vec()), (4, b"b".to_vec())]);
    }
}
