//! `wpool submit`: hands a job, or a batch of them, to the daemon.

use std::ffi::OsString;

use anyhow::Context as _;
use clap::Args;
use wpool::client::{Client, ClientError};
use wpool_protocol::id::JobId;
use wpool_protocol::job::{Growth, JobRequest, Priority, RetryOn};
use wpool_protocol::outcome::Outcome;
use wpool_protocol::quantity::Millis;

use super::job_args::{JobArgs, pair, without_repetition};
use super::screen::{Form, Screen, complain};
use super::{INTERRUPTED, SocketArgs, batch, logs, outcome, output_files};

/// Hand a job to the daemon and print its id
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wpool submit -- python3 -c 'print(6*7)'
  wpool submit --wait --timeout 5s --memory 256M --in main.py -- python3 main.py
  wpool submit --in project --out project/report.xml --wait -- sh -c 'cd project && ./test'
  wpool submit --batch jobs.ndjson --wait > outcomes.ndjson")]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Follow the job's output, and exit as it did
    #[arg(long)]
    wait: bool,
    /// Hand in the jobs of a file, one JSON object a line as POST /v1/jobs takes it; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = NOT_WITH_BATCH)]
    batch: Option<OsString>,
    #[command(flatten)]
    queue: QueueArgs,
    #[command(flatten)]
    job: JobArgs,
}

/// What describes one job, and so nothing beside a batch that describes its own.
const NOT_WITH_BATCH: [&str; 27] = [
    "command",
    "inputs",
    "outputs",
    "env",
    "stdin",
    "profile",
    "timeout",
    "cpu",
    "idle",
    "grace",
    "memory",
    "processes",
    "open_files",
    "file_size",
    "disk",
    "output_limit",
    "cpus",
    "priority",
    "rank",
    "tenant",
    "labels",
    "delay",
    "start_within",
    "attempts_max",
    "retry_on",
    "memory_growth",
    "idempotency_key",
];

/// How it is queued.
#[derive(Clone, Debug, Default, Args)]
struct QueueArgs {
    /// Its class in the queue: high, normal or low [default: normal]
    #[arg(long, value_name = "CLASS", value_parser = priority)]
    priority: Option<Priority>,
    /// Its order within class and tenant: higher first [default: 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    rank: Option<i32>,
    /// Whose job it is, for administrators [default: the user's own]
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// A label, given back with the outcome
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Start it no earlier than after so long
    #[arg(long, value_name = "DURATION")]
    delay: Option<Millis>,
    /// Start it within so long, or not at all
    #[arg(long, value_name = "DURATION")]
    start_within: Option<Millis>,
    /// How many attempts it may have; after the last a lost worker sets it aside [default: 3]
    #[arg(long, value_name = "COUNT")]
    attempts_max: Option<u32>,
    /// What makes a further attempt
    #[arg(
        long,
        help = "What makes a further attempt: worker_lost, failed, timed_out, memory, limit_exceeded, or never [default: worker_lost]",
        value_name = "REASON", value_delimiter = ',', value_parser = retry_reason)]
    retry_on: Vec<RetryReason>,
    /// How many times its memory limit it has when that made it be tried again, like 2
    #[arg(long, value_name = "FACTOR")]
    memory_growth: Option<Growth>,
    /// A name under which the same job is accepted only once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

fn priority(text: &str) -> Result<Priority, String> {
    Priority::ALL
        .into_iter()
        .find(|class| class.as_str() == text)
        .ok_or_else(|| "expected high, normal or low".to_owned())
}

/// One word of `--retry-on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RetryReason {
    Never,
    On(RetryOn),
}

fn retry_reason(text: &str) -> Result<RetryReason, String> {
    if text == "never" {
        return Ok(RetryReason::Never);
    }
    let reason = RetryOn::ALL.into_iter().find(|it| it.as_str() == text);
    reason.map(RetryReason::On).ok_or_else(|| {
        let names: Vec<_> = RetryOn::ALL.iter().map(|it| it.as_str()).collect();
        format!("expected never, or some of {}", names.join(", "))
    })
}

impl SubmitArgs {
    fn retry_on(&self) -> anyhow::Result<Option<Vec<RetryOn>>> {
        let words = &self.queue.retry_on;
        let reasons = words.iter().filter_map(|word| match word {
            RetryReason::Never => None,
            RetryReason::On(reason) => Some(*reason),
        });
        let reasons: Vec<_> = reasons.collect();
        anyhow::ensure!(
            reasons.is_empty() || reasons.len() == words.len(),
            "--retry-on: `never` stands alone, or leave it out"
        );
        Ok((!words.is_empty()).then_some(reasons))
    }

    fn request(&self) -> anyhow::Result<JobRequest> {
        let request = JobRequest {
            stdin: self.job.read_stdin()?,
            priority: self.queue.priority.unwrap_or_default(),
            rank: self.queue.rank.unwrap_or_default(),
            tenant: self.queue.tenant.clone(),
            labels: without_repetition("--label", &self.queue.labels)?,
            delay_ms: self.queue.delay,
            start_within_ms: self.queue.start_within,
            attempts_max: self.queue.attempts_max,
            retry_on: self.retry_on()?,
            memory_growth: self.queue.memory_growth,
            idempotency_key: self.queue.idempotency_key.clone(),
            ..self.job.request()?
        };
        request.validate()?;
        Ok(request)
    }
}

pub(crate) async fn submit(args: SubmitArgs, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    if let Some(source) = args.batch {
        let client = args.socket.client().await?;
        let lines = batch::lines(&source)?;
        let until = if args.wait {
            batch::Until::Ended
        } else {
            batch::Until::Accepted
        };
        return batch::submit(client, lines, until, screen).await;
    }
    let request = args.request()?;
    let client = args.socket.clone().client().await?;
    let submitted = client.submit(&request).await?;
    if args.wait {
        let interrupted = interruption()?;
        return tokio::select! {
            code = wait(&client, submitted.id, &args, screen) => code,
            () = interrupted => {
                complain(&format!("job {0} goes on: `wpool result {0}` shows how it ends, `wpool cancel {0}` ends it", submitted.id));
                Ok(INTERRUPTED)
            }
        };
    }
    match screen.form() {
        Form::Json => screen.json(&submitted)?,
        Form::Text => screen.line(&submitted.id.to_string())?,
    }
    Ok(0)
}

/// Follows the job to its end.
async fn wait(
    client: &Client,
    id: JobId,
    args: &SubmitArgs,
    screen: &mut Screen<'_>,
) -> anyhow::Result<u8> {
    let outcome = match screen.form() {
        Form::Text => follow(client, id, screen)
            .await
            .with_context(|| format!("failed to follow job {id}"))?,
        Form::Json => client.outcome(id).await?,
    };
    let problems = output_files::write(&args.job.outputs, &outcome.files, screen)?;
    for problem in problems {
        complain(&problem);
    }
    match screen.form() {
        Form::Json => screen.json(&*outcome)?,
        Form::Text => {
            if let Some(remark) = outcome::remark(&outcome) {
                complain(&remark);
            }
        }
    }
    Ok(outcome.process_exit_code())
}

/// Shows what the job writes, and gives its outcome.
async fn follow(
    client: &Client,
    id: JobId,
    screen: &mut Screen<'_>,
) -> anyhow::Result<Box<Outcome>> {
    let follower = client.follow_to_outcome(id).await?;
    let outcome = logs::show_all(follower, screen).await?;
    outcome.ok_or_else(|| ClientError::Gone(id).into())
}

/// Resolves when the user interrupts.
fn interruption() -> anyhow::Result<impl Future<Output = ()>> {
    let (told, heard) = std::os::unix::net::UnixStream::pair()?;
    heard.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGINT, told)
        .context("failed to listen for interruptions")?;
    let heard = tokio::net::UnixStream::from_std(heard)?;
    Ok(async move {
        drop(heard.readable().await);
    })
}
