//! The pool at a glance: `GET /v1/status`, and a job in a listing: `GET /v1/jobs`.
//!
//! # Invariants
//!
//! - `completed` is the sum of `ended`, and `active` counts running jobs only.
//!
//! Not here: anything that needs counting when it is asked for; the pool keeps these figures as it goes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Generation, JobId, SlotId};
use crate::job::Priority;
use crate::outcome::{Isolation, JobState};
use crate::quantity::ByteSize;
use crate::timestamp::Timestamp;

/// The pool at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Of the running binary.
    pub version: String,
    /// What the pool does at present.
    pub state: PoolState,
    /// Why it is `degraded`, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since the supervisor's start, ms.
    pub uptime_ms: u64,
    /// Jobs that run.
    pub active: u64,
    /// Jobs that ended since the supervisor's start: the sum of `ended`.
    pub completed: u64,
    /// When the last job ended.
    pub last_job_at: Option<Timestamp>,
    /// Ended jobs by their end.
    pub ended: BTreeMap<JobState, u64>,
    /// Waiting jobs.
    pub queued: QueueStatus,
    /// How full the queue is.
    pub queue_pressure: QueuePressure,
    /// The slots.
    pub workers: Vec<SlotStatus>,
    /// What the queue may hold.
    pub limits: QueueLimits,
    /// The walls that stand around jobs.
    pub isolation: Isolation,
}

/// What the pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolState {
    /// Accepts and starts jobs.
    Running,
    /// Accepts jobs and starts none.
    Paused,
    /// Refuses jobs and finishes what runs.
    Draining,
    /// Runs with fewer slots than it should; `reason` says why.
    Degraded,
    /// Shuts down.
    Stopping,
}

impl PoolState {
    /// The name as JSON and people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Waiting jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// All of them, delayed ones included.
    pub total: u64,
    /// Of class `high`.
    pub high: u64,
    /// Of class `normal`.
    pub normal: u64,
    /// Of class `low`.
    pub low: u64,
    /// Those that may not start yet.
    pub delayed: u64,
}

/// How full the queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueuePressure {
    /// At most 50 jobs wait, and at most half of what fits.
    Ok,
    /// More than that.
    Filling,
    /// Nothing more fits.
    Full,
}

/// A slot and its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// The place.
    pub slot: SlotId,
    /// The incarnation of its worker.
    pub generation: Generation,
    /// What it does.
    pub state: SlotState,
    /// The job that runs in it.
    pub job: Option<JobId>,
    /// How long it has been in this state, ms.
    pub since_ms: u64,
    /// Jobs that ended in it.
    pub jobs_done: u64,
    /// Workers that it lost.
    pub crashes: u64,
    /// The worker's pid as the host sees it.
    pub pid: Option<u32>,
    /// Why it is parked, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a slot does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Its worker is being born.
    Starting,
    /// Its worker waits for a job.
    Idle,
    /// A job runs in it.
    Busy,
    /// Its worker is being replaced as planned.
    Recycling,
    /// Its workers died too often before they were ready; it waits before the next try.
    Parked,
}

impl SlotState {
    /// The name as JSON and people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Recycling => "recycling",
            Self::Parked => "parked",
        }
    }
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the queue may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueLimits {
    /// Jobs that have not ended.
    pub queue_jobs: u64,
    /// Their bytes: command, env, stdin and files.
    pub queue_bytes: ByteSize,
}

/// A job in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSummary {
    /// The job.
    pub id: JobId,
    /// Where it is.
    pub state: JobState,
    /// The start of its command, as text.
    pub command: String,
    /// Whose it is.
    pub tenant: String,
    /// Its class.
    pub priority: Priority,
    /// Runs begun.
    pub attempts: u32,
    /// As submitted.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it was accepted.
    pub queued_at: Timestamp,
    /// When its last run began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it ended, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The job that this one became when it was released from quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_as: Option<JobId>,
}

/// A page of a listing, youngest job first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobSummary>,
    /// Where the next page begins: pass it as `before`.
    pub next: Option<JobId>,
}

/// What the answer to a submission says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub id: JobId,
    /// Where it is.
    pub state: JobState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_with_json() {
        for state in [
            PoolState::Running,
            PoolState::Paused,
            PoolState::Draining,
            PoolState::Degraded,
            PoolState::Stopping,
        ] {
            assert_eq!(
                serde_json::to_string(&state).unwrap(),
                format!("\"{state}\"")
            );
        }
        for state in [
            SlotState::Starting,
            SlotState::Idle,
            SlotState::Busy,
            SlotState::Recycling,
            SlotState::Parked,
        ] {
            assert_eq!(
                serde_json::to_string(&state).unwrap(),
                format!("\"{state}\"")
            );
        }
    }

    #[test]
    fn ended_jobs_are_counted_by_the_name_of_their_end() {
        let ended = BTreeMap::from([(JobState::TimedOut, 3u64)]);
        assert_eq!(serde_json::to_string(&ended).unwrap(), r#"{"timed_out":3}"#);
    }
}
