//! A worker's report, turned into an outcome.

use std::collections::BTreeMap;
use std::io;

use wpool_protocol::blob::Blob;
use wpool_protocol::job::JobRequest;
use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::outcome::{
    Attempt, AttemptEnd, Cause, CauseDetail, Isolation, JobState, MissingLayer, Outcome,
    OutputFile, Usage,
};
use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_protocol::timestamp::Timestamp;
use wpool_protocol::wire::{AttemptReport, Ending, LayerState, Ready, Stream};

use super::worker::{self, Worker};
use crate::output::KeptOutput;

/// What is kept of a job's output.
#[derive(Debug, Default)]
pub(super) struct Kept {
    stdout: KeptOutput,
    stderr: KeptOutput,
}

impl Kept {
    /// What lies in the worker's store.
    pub(super) fn read(
        worker: &Worker,
        report: &AttemptReport,
        limits: &Limits,
    ) -> io::Result<Self> {
        let kept = |stream, total| worker.store.kept(stream, limits.output_bytes.0, total);
        Ok(Self {
            stdout: kept(Stream::Stdout, report.written.stdout)?,
            stderr: kept(Stream::Stderr, report.written.stderr)?,
        })
    }
}

/// All that is known of a run.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) request: JobRequest,
    pub(super) limits: Limits,
    pub(super) ready: Ready,
    pub(super) report: AttemptReport,
    pub(super) kept: Kept,
    pub(super) files: BTreeMap<String, OutputFile>,
    pub(super) queued_at: Timestamp,
}

/// The outcome of the run.
pub(super) fn outcome(ended: Ended) -> Outcome {
    let Ended {
        request,
        limits,
        ready,
        report,
        kept,
        files,
        queued_at,
    } = ended;
    let ended_at = Timestamp::from_system(std::time::SystemTime::now());
    let wall_ms = i64::try_from(report.usage.wall_us / 1_000).unwrap_or(i64::MAX);
    let started_at = Timestamp(ended_at.0.saturating_sub(wall_ms).max(queued_at.0));
    let verdict = Verdict::of(&report.ending, &limits);
    Outcome {
        id: report.attempt.job,
        state: verdict.state,
        exit_code: verdict.exit_code,
        signal: verdict.signal,
        cause: verdict.cause,
        limits_hit: report.limits_hit,
        stdout: Blob(kept.stdout.bytes),
        stderr: Blob(kept.stderr.bytes),
        stdout_bytes: report.written.stdout,
        stdout_truncated: kept.stdout.truncated,
        stderr_bytes: report.written.stderr,
        stderr_truncated: kept.stderr.truncated,
        files,
        usage: Some(Usage {
            wall_ms: ms(report.usage.wall_us),
            cpu_user_ms: ms(report.usage.cpu_user_us),
            cpu_system_ms: ms(report.usage.cpu_system_us),
            memory_peak_bytes: ByteSize(report.usage.memory_peak_bytes),
            processes_peak: report.usage.processes_peak,
            measured_by: report.usage.measured_by,
        }),
        attempts: vec![Attempt {
            number: report.attempt.attempt,
            slot: worker::SELF.slot,
            generation: worker::SELF.generation,
            started_at,
            ended_at,
            end: verdict.end,
            detail: None,
            stdout_tail: None,
            stderr_tail: None,
        }],
        isolation: isolation(ready),
        queued_at,
        started_at: Some(started_at),
        ended_at,
        tenant: request
            .tenant
            .unwrap_or_else(|| rustix::process::getuid().as_raw().to_string()),
        priority: request.priority,
        labels: request.labels,
    }
}

/// Microseconds as milliseconds, to the hundredth.
#[expect(
    clippy::cast_precision_loss,
    reason = "a float holds every number of µs below 285 years"
)]
fn ms(us: u64) -> f64 {
    (us as f64 / 10.0).round() / 100.0
}

fn isolation(ready: Ready) -> Isolation {
    let mut layers = Vec::new();
    let mut missing = Vec::new();
    for layer in ready.layers {
        match layer.state {
            LayerState::Active(_) => layers.push(layer.name),
            LayerState::Missing { reason, .. } => missing.push(MissingLayer {
                layer: layer.name,
                reason,
            }),
        }
    }
    Isolation {
        level: ready.level,
        identity: ready.identity,
        layers,
        missing,
    }
}

/// What an ending means.
struct Verdict {
    state: JobState,
    end: AttemptEnd,
    exit_code: Option<i32>,
    signal: Option<String>,
    cause: Option<Cause>,
}

impl Verdict {
    fn of(ending: &Ending, limits: &Limits) -> Self {
        match *ending {
            Ending::Exited(code) => Self::exited(i32::from(code)),
            Ending::Signaled(number) => Self::signaled(i32::from(number)),
            Ending::TimedOut => Self::killed(
                JobState::TimedOut,
                AttemptEnd::TimedOut,
                LimitName::Wall,
                limits,
                (limits.timeout_ms.0, limits.timeout_ms.0),
            ),
            Ending::Limit { limit, peak, at_ms } => Self::killed(
                JobState::LimitExceeded,
                AttemptEnd::Limit,
                limit,
                limits,
                (peak, at_ms),
            ),
            Ending::Stopped => Self::because(
                JobState::Cancelled,
                AttemptEnd::Cancelled,
                CauseDetail::Cancelled,
                "it was interrupted".to_owned(),
            ),
            // These three have no outcome; the caller has seen to them.
            Ending::NotFound => Self::because(
                JobState::Failed,
                AttemptEnd::NotExecuted,
                CauseDetail::NotFound,
                "there is no such program in the sandbox".to_owned(),
            ),
            Ending::NotExecutable(_) | Ending::Unbuilt { .. } => Self::because(
                JobState::Failed,
                AttemptEnd::NotExecuted,
                CauseDetail::NotExecutable,
                "its program cannot be executed".to_owned(),
            ),
        }
    }

    fn because(state: JobState, end: AttemptEnd, detail: CauseDetail, text: String) -> Self {
        Self {
            state,
            end,
            exit_code: None,
            signal: None,
            cause: Some(Cause { detail, text }),
        }
    }

    fn exited(code: i32) -> Self {
        let failed = Self::because(
            JobState::Failed,
            AttemptEnd::Exited,
            CauseDetail::ExitCode { code },
            format!("it exited with code {code}"),
        );
        Self {
            state: if code == 0 {
                JobState::Succeeded
            } else {
                JobState::Failed
            },
            exit_code: Some(code),
            cause: failed.cause.filter(|_| code != 0),
            ..failed
        }
    }

    fn signaled(number: i32) -> Self {
        let name = signal_name(number);
        let text = format!("signal {name} ended it");
        Self {
            signal: Some(name.clone()),
            ..Self::because(
                JobState::Failed,
                AttemptEnd::Signaled,
                CauseDetail::Signal { number, name },
                text,
            )
        }
    }

    /// For the verdict on a job that a limit ended: its peak, and when.
    fn killed(
        state: JobState,
        end: AttemptEnd,
        limit: LimitName,
        limits: &Limits,
        (peak, at_ms): (u64, u64),
    ) -> Self {
        let detail = CauseDetail::Limit {
            limit,
            allowed: allowed(limit, limits),
            peak,
            at_ms,
        };
        Self {
            signal: Some("SIGKILL".to_owned()),
            ..Self::because(state, end, detail, limit_in_words(limit, limits, at_ms))
        }
    }
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number).map_or_else(
        |_| format!("SIG{number}"),
        |signal| signal.as_str().to_owned(),
    )
}

/// What was allowed, in the limit's unit.
fn allowed(limit: LimitName, limits: &Limits) -> u64 {
    match limit {
        LimitName::Wall => limits.timeout_ms.0,
        LimitName::Cpu => limits.cpu_ms.0,
        LimitName::Idle => limits.idle_ms.map_or(0, |idle| idle.0),
        LimitName::Memory => limits.memory_bytes.0,
        LimitName::FileSize => limits.file_size_bytes.0,
        LimitName::Processes => u64::from(limits.processes),
        LimitName::OpenFiles => u64::from(limits.open_files),
        LimitName::Disk => limits.disk_bytes.0,
        LimitName::Output => limits.output_bytes.0,
    }
}

fn limit_in_words(limit: LimitName, limits: &Limits, at_ms: u64) -> String {
    let value = match limit {
        LimitName::Wall | LimitName::Cpu | LimitName::Idle => {
            Millis(allowed(limit, limits)).to_string()
        }
        LimitName::Memory | LimitName::FileSize | LimitName::Disk | LimitName::Output => {
            ByteSize(allowed(limit, limits)).to_string()
        }
        LimitName::Processes | LimitName::OpenFiles => allowed(limit, limits).to_string(),
    };
    let name = limit.as_str().replace('_', " ");
    format!(
        "{name} reached {value}, its limit, after {}.{} s",
        at_ms / 1_000,
        at_ms % 1_000 / 100
    )
}
