//! Why a job is where it is: plain values, made from the state the scheduler decides by.

use alloc::string::String;
use alloc::vec::Vec;

use wpool_protocol::id::{AttemptRef, JobId, WorkerRef};

use crate::time::Instant;

/// Why a job that has not ended is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its acceptance, or its end, is being recorded.
    Recording,
    /// It could start, and has not.
    Ready(Waiting),
    /// It may not start before that.
    Delayed {
        /// When it may.
        until: Instant,
        /// Its runs so far: if there were any, it waits before the next.
        attempts: u32,
        /// Workers lost over it.
        lost: u32,
    },
    /// It is on a worker.
    OnSlot {
        /// Which.
        worker: WorkerRef,
        /// Its run.
        attempt: AttemptRef,
        /// Since when.
        began: Instant,
        /// How far it is.
        course: RunCourse,
        /// When it is killed because the pool stops.
        killed_at: Option<Instant>,
    },
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunCourse {
    /// Its program does not run yet: its worker is killed if it does not by then.
    Starts(Instant),
    /// It runs: its worker is killed if it has not seen to its end by then.
    Runs(Instant),
    /// Its end was asked for: likewise.
    Stops(Instant),
}

/// Why a ready job waits, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What keeps it from starting now.
    pub because: Because,
    /// The first jobs that start before it, if nothing else comes.
    pub first_ahead: Vec<JobId>,
    /// How many start before it then, once its tenant may start one; nothing if there are more than are counted ([`COUNTED_MAX`]).
    pub ahead: Option<u64>,
    /// How many jobs of its class wait, and not for their time.
    pub of_class: u64,
    /// Whether that depends on when jobs end: where a tenant may run so many at one time, its next waits for one of them.
    pub certainty: Certainty,
    /// By how many starts from now on it is started at the latest, whatever comes in other classes; likewise. Nothing, too, if its own tenant
    /// may run only so many at one time.
    pub starts_at_most: Option<u64>,
    /// When it expires if it has not started.
    pub expires: Option<Instant>,
}

/// Whether an order of starts is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// It is, if nothing else comes.
    Certain,
    /// It depends on when jobs end.
    ByLimits,
}

/// Jobs ahead of another that are counted: that takes some tenths of a millisecond, twice.
pub const COUNTED_MAX: usize = 1_000;

/// What keeps a ready job from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// The pool is paused.
    Paused,
    /// The pool drains, and leaves the queue.
    Draining,
    /// Its tenant runs as many jobs as it may.
    TenantLimit {
        /// The tenant.
        tenant: String,
        /// How many it runs.
        running: u32,
        /// How many it may.
        running_max: u32,
    },
    /// No slot is idle.
    NoIdleSlot {
        /// Slots that run a job.
        busy: u16,
        /// Slots whose worker is on its way.
        starting: u16,
        /// Slots that are parked.
        parked: u16,
    },
}
