//! How a job ended, in the words that clients read: from a worker's report, or from the pool's decision.
//!
//! # Invariants
//!
//! - Every end but `succeeded` has a cause, and its text is one sentence without the job's own bytes.
//! - What a worker reports is shown, never decided by.

use std::collections::BTreeMap;

use wpool_protocol::blob::Blob;
use wpool_protocol::id::JobId;
use wpool_protocol::job::Priority;
use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::outcome::{
    Attempt, AttemptEnd, Cause, CauseDetail, Isolation, JobState, MissingLayer, Outcome,
    OutputFile, Usage,
};
use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_protocol::timestamp::Timestamp;
use wpool_protocol::wire::{AttemptReport, Ending, InGrace, LayerState, Ready, RunUsage};

use crate::output::KeptOutput;

mod verdict;

pub use verdict::{Verdict, attempt_end, job_end, signal_name};

/// What is kept of the output of a job's last run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// What is kept of descriptor 1.
    pub stdout: KeptOutput,
    /// What is kept of descriptor 2.
    pub stderr: KeptOutput,
    /// How much it wrote to descriptor 1.
    pub stdout_bytes: u64,
    /// How much it wrote to descriptor 2.
    pub stderr_bytes: u64,
}

/// How a job ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnding {
    /// As its worker reported.
    Reported(Box<AttemptReport>),
    /// Somebody asked for its end while it waited, or while its worker was lost.
    Cancelled,
    /// The queue was cleared.
    Cleared,
    /// It did not start in time: `start_within_ms`.
    Expired(Millis),
    /// Too many workers were lost over it.
    Quarantined {
        /// How many.
        lost: u32,
        /// All its attempts.
        attempts: u32,
    },
    /// Its time ran out, and its worker did not see to that.
    Overran,
    /// The supervisor shut down.
    Shutdown,
}

/// All that is known of a job that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The job.
    pub id: JobId,
    /// Whose it was.
    pub tenant: String,
    /// Its class.
    pub priority: Priority,
    /// As submitted.
    pub labels: BTreeMap<String, String>,
    /// What held for it.
    pub limits: Limits,
    /// When it was accepted.
    pub queued_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Its runs.
    pub attempts: Vec<Attempt>,
    /// The output of the last of them.
    pub streams: Streams,
    /// The files that came out.
    pub files: BTreeMap<String, OutputFile>,
    /// What stood around its last run.
    pub isolation: Isolation,
    /// The quarantined job that it was made of.
    pub released_from: Option<JobId>,
    /// How it ended.
    pub ending: JobEnding,
}

/// The outcome, as clients get it.
pub fn outcome(ended: Ended) -> Outcome {
    let verdict = Verdict::of(&ended.ending, &ended.limits);
    let (limits_hit, usage) = match ended.ending {
        JobEnding::Reported(report) => (report.limits_hit, Some(usage(&report.usage))),
        JobEnding::Cancelled
        | JobEnding::Cleared
        | JobEnding::Expired(_)
        | JobEnding::Quarantined { .. }
        | JobEnding::Overran
        | JobEnding::Shutdown => (Vec::new(), None),
    };
    Outcome {
        id: ended.id,
        state: verdict.state,
        exit_code: verdict.exit_code,
        signal: verdict.signal,
        cause: verdict.cause,
        limits_hit,
        stdout: Blob(ended.streams.stdout.bytes),
        stderr: Blob(ended.streams.stderr.bytes),
        stdout_bytes: ended.streams.stdout_bytes,
        stdout_truncated: ended.streams.stdout.truncated,
        stderr_bytes: ended.streams.stderr_bytes,
        stderr_truncated: ended.streams.stderr.truncated,
        files: ended.files,
        usage,
        started_at: ended.attempts.last().map(|attempt| attempt.started_at),
        attempts: ended.attempts,
        isolation: ended.isolation,
        queued_at: ended.queued_at,
        ended_at: ended.ended_at,
        tenant: ended.tenant,
        priority: ended.priority,
        labels: ended.labels,
        released_as: None,
        released_from: ended.released_from,
    }
}

/// What a run used, as clients get it.
pub fn usage(usage: &RunUsage) -> Usage {
    Usage {
        wall_ms: ms(usage.wall_us),
        cpu_user_ms: ms(usage.cpu_user_us),
        cpu_system_ms: ms(usage.cpu_system_us),
        memory_peak_bytes: ByteSize(usage.memory_peak_bytes),
        processes_peak: usage.processes_peak,
        measured_by: usage.measured_by,
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

/// What stands around the jobs of a worker, as clients get it.
pub fn isolation(ready: Ready) -> Isolation {
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

#[cfg(test)]
mod tests;
