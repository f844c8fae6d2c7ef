//! Everything that can happen to the pool: one closed list, in past participles.
//!
//! # Invariants
//!
//! - An event of a worker names its generation: what a past one says is dropped, and counted.
//! - Nothing here tells the time: that comes beside the event.

use core::time::Duration;

use serde::{Deserialize, Serialize};
use wpool_protocol::id::{AttemptRef, JobId, WorkerRef};
use wpool_protocol::job::{Priority, RetryOn};

use alloc::boxed::Box;
use alloc::string::String;

use crate::action::RecordId;
use crate::settings::{Settings, TenantRules};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client submitted a job. Its id has not been seen before.
    JobSubmitted(NewJob),
    /// A client asked for a job's end.
    CancelRequested(JobId),
    /// The recorder has made a record durable. Records are synced in the order they were asked for.
    RecordSynced(RecordId),
    /// The worker process could not be born at all.
    SpawnFailed(WorkerRef),
    /// The worker has built its sandbox.
    WorkerReady(WorkerRef),
    /// The worker process has ended: the kernel says so.
    WorkerExited(WorkerRef),
    /// The worker said something it may not say.
    WorkerViolated(WorkerRef),
    /// The worker has answered the ping with this number.
    PingAnswered(WorkerRef, u64),
    /// The worker says that the job's program runs.
    JobStarted(WorkerRef, AttemptRef),
    /// The worker says that the job's tree is dead.
    JobEnded(WorkerRef, AttemptRef, JobEnd),
    /// The operator: accept jobs, start none.
    PauseRequested,
    /// The operator: undo pause and drain.
    ResumeRequested,
    /// The operator: refuse jobs and finish what runs.
    DrainRequested(DrainScope),
    /// SIGTERM: drain; when the grace is over, end what still runs, uncounted; then stop.
    ShutdownRequested {
        /// How long running jobs may go on.
        grace: Duration,
    },
    /// The operator: have so many slots from now on.
    ResizeRequested(u16),
    /// The operator: replace every worker, one by one, each when it is idle.
    RecycleRequested,
    /// The operator: end jobs that wait, of those that were submitted before; the oldest first.
    ClearRequested {
        /// Jobs submitted until then: [`Pool::submitted`](crate::pool::Pool::submitted).
        submitted: u64,
        /// Jobs to end with this event, at most: whoever has more to end comes again.
        most: u32,
    },
    /// The operator has changed the config.
    SettingsChanged(Box<Settings>),
    /// The operator has changed what tenants may take.
    TenantRulesChanged(TenantRules),
    /// Time has passed [`Pool::deadline`](crate::pool::Pool::deadline), or may have.
    TimeReached,
}

/// What the pool must know of a job; the rest of it stays with the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Its name.
    pub id: JobId,
    /// Whose it is.
    pub tenant: String,
    /// Its class.
    pub priority: Priority,
    /// Order within class and tenant: higher first.
    pub rank: i32,
    /// What it takes of the queue's bytes: command, env, stdin and files.
    pub bytes: u64,
    /// Its wall time and grace, and what its tree takes to die: past them (and some slack) its worker is taken for broken.
    pub run_time_max: Duration,
    /// Earliest start, from submission.
    pub delay: Duration,
    /// Latest start, from submission.
    pub start_within: Option<Duration>,
    /// Lost workers that it may cost; at least 1.
    pub attempts_max: u32,
    /// What makes a further attempt.
    pub retry_on: RetryRule,
}

/// What makes a further attempt of a job, as long as it has had fewer than `attempts_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRule(u8);

impl RetryRule {
    /// Nothing does: a lost worker means quarantine at once.
    pub const NEVER: Self = Self(0);

    /// A lost worker alone.
    pub const WORKER_LOST: Self = Self::NEVER.and(RetryOn::WorkerLost);

    /// This, too.
    #[must_use]
    pub const fn and(self, reason: RetryOn) -> Self {
        Self(self.0 | 1 << reason as u8)
    }

    /// Whether this does.
    pub const fn has(self, reason: RetryOn) -> bool {
        self.0 & 1 << reason as u8 != 0
    }
}

/// How a job's run ended, by its worker's report; what else it says stays with the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// By itself, with exit code 0.
    Succeeded,
    /// By itself otherwise, or its program could not be executed.
    Failed,
    /// By its wall time.
    TimedOut,
    /// By its memory limit.
    MemoryExceeded,
    /// By another limit.
    LimitExceeded,
    /// Because the pool said `Stop`.
    Stopped,
    /// Its box could not be built, or has failed since: no fault of the job's, a fault of the worker's.
    BoxFailed,
}

impl JobEnd {
    /// For which of the reasons for a further attempt it could be one.
    pub(crate) const fn reason_to_retry(self) -> Option<RetryOn> {
        match self {
            Self::Failed => Some(RetryOn::Failed),
            Self::TimedOut => Some(RetryOn::TimedOut),
            Self::MemoryExceeded => Some(RetryOn::Memory),
            Self::LimitExceeded => Some(RetryOn::LimitExceeded),
            Self::Succeeded | Self::Stopped | Self::BoxFailed => None,
        }
    }
}

/// What a drain empties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainScope {
    /// What runs; the queue stays.
    Running,
    /// What runs and what waits.
    Queued,
}
