//! How a job ended, and why: what clients get back.
//!
//! # Invariants
//!
//! - The vocabularies are closed: a new state, cause or end is a change of the contract with clients.
//! - Which exit code stands for which outcome is decided in one place, [`Outcome::process_exit_code`].

mod isolation;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::blob::Blob;
use crate::id::{AttemptNumber, Generation, JobId, SlotId};
use crate::job::Priority;
use crate::limits::LimitName;
use crate::quantity::ByteSize;
use crate::timestamp::Timestamp;

pub use isolation::{Identity, Isolation, IsolationLevel, MissingLayer};

/// Where a job is; the last seven are its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Accepted, not started.
    Queued,
    /// On a worker.
    Running,
    /// Ended by itself with exit code 0.
    Succeeded,
    /// Ended by itself otherwise, or never could start.
    Failed,
    /// Ended for its wall time.
    TimedOut,
    /// Ended for another limit.
    LimitExceeded,
    /// Ended because somebody asked, or because the supervisor went away with it in the queue.
    Cancelled,
    /// Not started within `start_within_ms`.
    Expired,
    /// Set aside after too many lost workers.
    Quarantined,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::LimitExceeded,
        Self::Cancelled,
        Self::Expired,
        Self::Quarantined,
    ];

    /// Whether this is an end.
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// The name as JSON and people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::LimitExceeded => "limit_exceeded",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "two facts about two streams, as the JSON contract names them"
)]
pub struct Outcome {
    /// The job.
    pub id: JobId,
    /// Its end.
    pub state: JobState,
    /// What it passed to `exit`, if it did.
    pub exit_code: Option<i32>,
    /// The signal that ended it, by name, if one did.
    pub signal: Option<String>,
    /// Why, for every end but `succeeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Limits that made a call in the job fail without ending it.
    pub limits_hit: Vec<LimitName>,
    /// What it wrote to descriptor 1.
    pub stdout: Blob,
    /// What it wrote to descriptor 2.
    pub stderr: Blob,
    /// How much it wrote to descriptor 1.
    pub stdout_bytes: u64,
    /// Whether the middle of `stdout` is left out.
    pub stdout_truncated: bool,
    /// How much it wrote to descriptor 2.
    pub stderr_bytes: u64,
    /// Whether the middle of `stderr` is left out.
    pub stderr_truncated: bool,
    /// The files asked for in `outputs`.
    pub files: BTreeMap<String, OutputFile>,
    /// What it used; absent if it never ran.
    pub usage: Option<Usage>,
    /// Its runs.
    pub attempts: Vec<Attempt>,
    /// Which walls stood around it.
    pub isolation: Isolation,
    /// When it was accepted.
    pub queued_at: Timestamp,
    /// When its last run began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Whose job it was.
    pub tenant: String,
    /// Its class.
    pub priority: Priority,
    /// As submitted.
    pub labels: BTreeMap<String, String>,
    /// The job that this one became when it was released from quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_as: Option<JobId>,
    /// The quarantined job that this one was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_from: Option<JobId>,
}

impl Outcome {
    /// What `wpool run` and `wpool submit --wait` exit with for this outcome.
    ///
    /// The job's own code; 128 + n for signal n; 124 for its wall time; 137 for another limit; 126 and
    /// 127 for a program that cannot be executed or is not there; 125 for what never ran to an end.
    pub fn process_exit_code(&self) -> u8 {
        match self.state {
            JobState::Queued
            | JobState::Running
            | JobState::Cancelled
            | JobState::Expired
            | JobState::Quarantined => 125,
            JobState::TimedOut => 124,
            JobState::LimitExceeded => 137,
            JobState::Succeeded => 0,
            JobState::Failed => match self.cause.as_ref().map(|cause| &cause.detail) {
                Some(CauseDetail::NotFound) => 127,
                Some(CauseDetail::NotExecutable) => 126,
                Some(CauseDetail::Signal { number, .. }) => {
                    u8::try_from(128 + number).unwrap_or(125)
                }
                _ => self
                    .exit_code
                    .and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(125),
            },
        }
    }
}

/// Why a job ended as it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// For programs.
    #[serde(flatten)]
    pub detail: CauseDetail,
    /// For people: one sentence.
    pub text: String,
}

/// Why a job ended as it did, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CauseDetail {
    /// It exited with a code other than 0.
    ExitCode {
        /// The code.
        code: i32,
    },
    /// A signal ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// Its name, like `SIGSEGV`.
        name: String,
    },
    /// A limit ended it.
    Limit {
        /// Which.
        limit: LimitName,
        /// What was allowed, in the limit's unit (bytes or ms).
        allowed: u64,
        /// The highest that was seen, in the same unit.
        peak: u64,
        /// How long after its start, ms.
        at_ms: u64,
    },
    /// There is no such program in the sandbox.
    NotFound,
    /// The program is there but cannot be executed.
    NotExecutable,
    /// Somebody asked for its end.
    Cancelled,
    /// It did not start in time.
    Expired {
        /// `start_within_ms`, as submitted.
        start_within_ms: u64,
    },
    /// Too many workers were lost over it.
    WorkerLost {
        /// How many attempts ended so.
        attempts: u32,
    },
    /// The supervisor shut down before it could start.
    Shutdown,
    /// The supervisor itself was lost too often while it ran.
    SupervisorLost,
    /// The queue was cleared.
    Cleared,
}

/// A file brought out of the box, or why it was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFile {
    /// Its content, where that is UTF-8.
    Text(String),
    /// Its content in base 64, where it is not.
    Base64(String),
    /// Why it was not delivered.
    Error(OutputError),
}

/// Why an output was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputError {
    /// No file has that name.
    Missing,
    /// It is a link, a directory, a pipe, a socket or a device.
    NotRegular,
    /// It, or all outputs together, are above the limit.
    TooLarge,
    /// More files match than may be delivered.
    TooMany,
    /// It could not be opened or read.
    Unreadable,
    /// Its worker was lost before it was delivered whole.
    Lost,
}

/// What a job used, all its processes together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// From its start to the end of its last process, ms.
    pub wall_ms: f64,
    /// CPU time in its own code, ms.
    pub cpu_user_ms: f64,
    /// CPU time in the kernel, ms.
    pub cpu_system_ms: f64,
    /// The most memory it held at one time.
    pub memory_peak_bytes: ByteSize,
    /// The most processes and threads it had at one time.
    pub processes_peak: u32,
    /// Where the figures come from.
    pub measured_by: MeasuredBy,
}

/// Where figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasuredBy {
    /// The kernel's account of the job's cgroup: exact.
    Cgroup,
    /// Looking at the processes every few milliseconds: a short peak may be missed.
    Sampling,
    /// What the kernel told at the end; the job was too short to be looked at.
    Rusage,
}

/// One run of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Counted from 1.
    pub number: AttemptNumber,
    /// Where.
    pub slot: SlotId,
    /// In which incarnation.
    pub generation: Generation,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How.
    pub end: AttemptEnd,
    /// Why it ended so, as [`Outcome::cause`] says it of the last one; nothing of one that exited with 0, or whose worker was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What is known of a lost worker: its signal or code, or what it did wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The last of what a lost attempt wrote to descriptor 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_tail: Option<Blob>,
    /// The last of what a lost attempt wrote to descriptor 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_tail: Option<Blob>,
}

/// How a run of a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// By itself, with an exit code.
    Exited,
    /// By a signal.
    Signaled,
    /// It could not be executed.
    NotExecuted,
    /// By its wall time.
    TimedOut,
    /// By another limit.
    Limit,
    /// Because somebody asked.
    Cancelled,
    /// With its worker.
    WorkerLost,
    /// With the supervisor's end.
    Shutdown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_one_flat_object() {
        let cause = Cause {
            detail: CauseDetail::Limit {
                limit: LimitName::Memory,
                allowed: 268_435_456,
                peak: 268_435_456,
                at_ms: 812,
            },
            text: "memory reached 256 MiB, its limit, after 0.8 s".into(),
        };
        let json = serde_json::to_string(&cause).unwrap();
        assert_eq!(
            json,
            r#"{"kind":"limit","limit":"memory","allowed":268435456,"peak":268435456,"at_ms":812,"text":"memory reached 256 MiB, its limit, after 0.8 s"}"#
        );
        assert_eq!(serde_json::from_str::<Cause>(&json).unwrap(), cause);
    }

    #[test]
    fn an_output_is_an_object_with_one_field() {
        let json = serde_json::to_string(&OutputFile::Error(OutputError::NotRegular)).unwrap();
        assert_eq!(json, r#"{"error":"not_regular"}"#);
        let json = serde_json::to_string(&OutputFile::Text("x".into())).unwrap();
        assert_eq!(json, r#"{"text":"x"}"#);
    }

    #[test]
    fn state_names_agree_with_json() {
        for state in JobState::ALL {
            assert_eq!(
                serde_json::to_string(&state).unwrap(),
                format!("\"{state}\"")
            );
        }
    }
}
