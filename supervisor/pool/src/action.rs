//! Everything the pool can ask for: one closed list, in imperatives.
//!
//! # Invariants
//!
//! - Whatever is said to a worker names its generation: the shell drops what is for one that is gone.
//! - Nothing about a job is told before the record that it follows from is durable: the pool waits for the event that says so.

use core::time::Duration;

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use wpool_protocol::id::{AttemptRef, JobId, WorkerRef};
use wpool_protocol::job::RetryOn;

use crate::time::Instant;

/// What the supervisor is to do, in this order.
pub type Actions = Vec<Action>;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make this durable, and say [`RecordSynced`](crate::event::Event::RecordSynced) when it is.
    Record(RecordId, Record),
    /// Tell the client that the job is accepted.
    Accept(JobId),
    /// Tell the client that the job is not accepted, and forget it.
    Refuse(JobId, Refusal),
    /// Give birth to this worker.
    Spawn(WorkerRef),
    /// Send the job to the worker.
    Assign(WorkerRef, AttemptRef),
    /// Tell the worker to end the job; its report will say `Stopped`, unless the job ended first.
    Stop(WorkerRef, AttemptRef),
    /// Ask the worker whether it is there.
    Ping(WorkerRef, u64),
    /// End the worker and everything in it; [`WorkerExited`](crate::event::Event::WorkerExited) follows.
    Kill(WorkerRef, KillReason),
    /// Tell the worker to exit; it runs no job.
    Retire(WorkerRef),
    /// A run is over and the job is not: it waits for another, from `not_before` on.
    Requeue {
        /// The run that was lost.
        attempt: AttemptRef,
        /// The worker that it was lost with.
        worker: WorkerRef,
        /// Why.
        lost: Lost,
        /// When it may start again.
        not_before: Instant,
    },
    /// A run is over as its worker reported, and the job's own rule says that it is tried again: from `not_before` on.
    Retry {
        /// The run.
        attempt: AttemptRef,
        /// Where it ran.
        worker: WorkerRef,
        /// Why.
        reason: RetryOn,
        /// When it may start again.
        not_before: Instant,
    },
    /// The job has ended and its end is recorded: show the outcome to everybody.
    Conclude(JobId, Conclusion),
    /// The pool has shut down: no worker lives, no job is left.
    Stopped,
}

/// Names a record; counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordId(pub u64);

/// What is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The job is accepted.
    Accepted(JobId),
    /// The job has ended.
    Concluded(JobId, Conclusion),
}

/// Why a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KillReason {
    /// It was not ready in time.
    NotReady,
    /// It did not answer.
    Silent,
    /// It said something it may not say.
    Violation,
    /// Its job did not end in time, and it did not see to that.
    Overrun,
    /// It did not stop its job when told to.
    StopIgnored,
    /// The box of its job could not be built, or has failed since.
    BoxFailed,
    /// It did not retire when told to.
    RetireIgnored,
    /// The pool shuts down.
    Shutdown,
    /// Its slot is to go, and it was not ready yet.
    Shrunk,
}

/// Why a run was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The worker died of itself, or somebody else killed it.
    Exited,
    /// The pool killed it.
    Killed(KillReason),
}

/// How a job ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conclusion {
    /// A run of it ended as its worker reported: the supervisor holds the report.
    Reported {
        /// The run.
        attempt: AttemptRef,
        /// Where it ran.
        worker: WorkerRef,
    },
    /// Somebody asked for its end while it waited, or while its worker was lost.
    Cancelled,
    /// The operator cleared the queue while it waited.
    Cleared,
    /// It did not start in time.
    Expired,
    /// Too many workers were lost over it.
    Quarantined {
        /// How many.
        lost: u32,
    },
    /// Its time ran out with a worker that did not see to it, and was killed for that.
    Overran {
        /// The run.
        attempt: AttemptRef,
        /// Where it ran.
        worker: WorkerRef,
    },
    /// The pool shut down while it waited, or ended its run when the grace was over.
    Shutdown,
}

/// Why a job is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// So many jobs are there already.
    JobsFull {
        /// `queue_jobs`.
        limit: u64,
        /// When it is worth another try.
        retry_after: Duration,
    },
    /// So many bytes are there already.
    BytesFull {
        /// `queue_bytes`.
        limit: u64,
        /// When it is worth another try; `None` if the job alone is larger than that.
        retry_after: Option<Duration>,
    },
    /// So many jobs of its tenant are there already.
    TenantFull {
        /// The tenant's `queue_jobs`.
        limit: u64,
        /// When it is worth another try.
        retry_after: Duration,
    },
    /// The pool drains.
    Draining,
    /// The pool shuts down.
    Stopping,
}
