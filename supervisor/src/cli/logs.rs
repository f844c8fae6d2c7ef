//! `wpool logs ID`: what a job wrote, each stream on its own.

use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use wpool::client::JobAnswer;
use wpool::client::follow::{OutputEvent, OutputFollower};
use wpool_protocol::blob::Blob;
use wpool_protocol::id::JobId;
use wpool_protocol::outcome::Outcome;
use wpool_protocol::wire::Stream;

use super::SocketArgs;
use super::screen::{Form, Screen, complain};

/// Show what a job wrote: its standard output on this one, its standard error likewise
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool logs 1p5sv3d7800ag\n  wpool logs -f 1p5sv3d7800ag 2>/dev/null"
)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Go on until the job has ended
    #[arg(short, long)]
    follow: bool,
    /// The job
    id: JobId,
}

/// One piece of output, with --json.
#[derive(Serialize)]
struct Piece {
    stream: Stream,
    data: Blob,
}

pub(crate) async fn logs(args: LogsArgs, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let client = args.socket.client().await?;
    if args.follow {
        let follower = client.follow(args.id).await?;
        show_all(follower, screen).await?;
        return Ok(0);
    }
    match client.result(args.id, Duration::ZERO).await? {
        JobAnswer::Ended(outcome) => show_kept(&outcome, screen)?,
        JobAnswer::Present(present) => complain(&format!(
            "job {} is {}: follow it with -f",
            present.id, present.state
        )),
    }
    Ok(0)
}

/// Shows what is kept of an ended job's output.
fn show_kept(outcome: &Outcome, screen: &mut Screen<'_>) -> anyhow::Result<()> {
    for (stream, kept, written, truncated) in [
        (
            Stream::Stdout,
            &outcome.stdout,
            outcome.stdout_bytes,
            outcome.stdout_truncated,
        ),
        (
            Stream::Stderr,
            &outcome.stderr,
            outcome.stderr_bytes,
            outcome.stderr_truncated,
        ),
    ] {
        show(stream, &kept.0, screen)?;
        if truncated {
            complain(&format!(
                "of {written} bytes on {} the first and the last half of {} are kept",
                name(stream),
                kept.0.len()
            ));
        }
    }
    Ok(())
}

/// Shows a job's output as it comes, until the daemon has said everything; the outcome, if that was asked for.
pub(crate) async fn show_all(
    mut follower: OutputFollower,
    screen: &mut Screen<'_>,
) -> anyhow::Result<Option<Box<Outcome>>> {
    let mut told = None;
    let mut lost = Lost::default();
    while let Some(event) = follower.next().await? {
        match event {
            OutputEvent::Bytes(stream, bytes) => show(stream, &bytes, screen)?,
            OutputEvent::Gap(stream, bytes) => lost.add(stream, bytes),
            OutputEvent::Restarted(attempt) => complain(&format!(
                "the job's worker was lost: attempt {attempt} begins, and with it the output"
            )),
            OutputEvent::Ended(_, outcome) => told = outcome,
        }
    }
    lost.tell_all();
    Ok(told)
}

/// What was written faster than it could be read: told when it begins, for whoever looks on, and in full at the end.
#[derive(Debug, Default)]
struct Lost {
    stdout: Gaps,
    stderr: Gaps,
}

#[derive(Debug, Default)]
struct Gaps {
    bytes: u64,
    places: u64,
}

impl Lost {
    fn add(&mut self, stream: Stream, bytes: u64) {
        let gaps = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if gaps.places == 0 {
            complain(&format!(
                "{bytes} bytes on {} were written faster than they could be read",
                name(stream)
            ));
        }
        gaps.bytes = gaps.bytes.saturating_add(bytes);
        gaps.places += 1;
    }

    fn tell_all(&self) {
        for (stream, gaps) in [
            (Stream::Stdout, &self.stdout),
            (Stream::Stderr, &self.stderr),
        ] {
            if gaps.places > 1 {
                complain(&format!(
                    "{} bytes on {} were written faster than they could be read, in {} places; the outcome has the first and the last half of what is kept",
                    gaps.bytes,
                    name(stream),
                    gaps.places
                ));
            }
        }
    }
}

fn show(stream: Stream, bytes: &[u8], screen: &mut Screen<'_>) -> anyhow::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    match (screen.form(), stream) {
        (Form::Json, _) => {
            screen.json_line(&Piece {
                stream,
                data: Blob(bytes.to_vec()),
            })?;
            screen.flush()
        }
        (Form::Text, Stream::Stdout) => screen.raw(bytes),
        // Whoever closed standard error does not want to see it, and may still want the rest.
        (Form::Text, Stream::Stderr) => {
            drop(io::stderr().write_all(bytes));
            Ok(())
        }
    }
}

fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}
