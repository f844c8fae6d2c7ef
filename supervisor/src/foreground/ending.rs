//! A run in the foreground, as an outcome.

use std::collections::BTreeMap;
use std::io;

use wpool_protocol::job::JobRequest;
use wpool_protocol::limits::Limits;
use wpool_protocol::outcome::{Attempt, Outcome, OutputFile};
use wpool_protocol::timestamp::Timestamp;
use wpool_protocol::wire::{AttemptReport, Ready, Stream};

use super::worker::{self, Worker};
use crate::report::{self, JobEnding, Streams, Verdict, attempt_end};

/// What lies in the worker's store of the run that it has reported.
pub(super) fn kept(
    worker: &Worker,
    report: &AttemptReport,
    limits: &Limits,
) -> io::Result<Streams> {
    let kept = |stream, total| worker.store.kept(stream, limits.output_bytes.0, total);
    Ok(Streams {
        stdout: kept(Stream::Stdout, report.written.stdout)?,
        stderr: kept(Stream::Stderr, report.written.stderr)?,
        stdout_bytes: report.written.stdout,
        stderr_bytes: report.written.stderr,
    })
}

/// All that is known of a run.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) request: JobRequest,
    pub(super) limits: Limits,
    pub(super) ready: Ready,
    pub(super) report: AttemptReport,
    pub(super) streams: Streams,
    pub(super) files: BTreeMap<String, OutputFile>,
    pub(super) queued_at: Timestamp,
}

/// The outcome of the run.
pub(super) fn outcome(ended: Ended) -> Outcome {
    let report = ended.report;
    let ended_at = Timestamp::from_system(std::time::SystemTime::now());
    let wall_ms = i64::try_from(report.usage.wall_us / 1_000).unwrap_or(i64::MAX);
    let started_at = Timestamp(ended_at.0.saturating_sub(wall_ms).max(ended.queued_at.0));
    let tenant = ended.request.tenant;
    report::outcome(report::Ended {
        id: report.attempt.job,
        tenant: tenant.unwrap_or_else(|| format!("uid:{}", rustix::process::getuid().as_raw())),
        priority: ended.request.priority,
        labels: ended.request.labels,
        limits: ended.limits,
        queued_at: ended.queued_at,
        ended_at,
        attempts: vec![Attempt {
            number: report.attempt.attempt,
            slot: worker::SELF.slot,
            generation: worker::SELF.generation,
            started_at,
            ended_at,
            end: attempt_end(&report.ending),
            cause: Verdict::of_run(&report.ending, &ended.limits).cause,
            detail: None,
            stdout_tail: None,
            stderr_tail: None,
        }],
        streams: ended.streams,
        files: ended.files,
        isolation: report::isolation(ended.ready),
        released_from: None,
        ending: JobEnding::Reported(Box::new(report)),
    })
}
