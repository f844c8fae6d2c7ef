//! A job that has not ended, as the pool knows it.
//!
//! ```text
//!                 ┌──────────── delay ────────────┐
//!   submitted ────┤                               ▼   not before
//!                 └──────────▶ Ready ◀──────── Delayed ◀─────────────┐
//!                                │                │                  │
//!                         assign │                │                  │ worker lost: requeued; or retried by its own rule
//!                                ▼                │                  │
//!                             OnSlot ─────────────│──────────────────┘
//!                                │                │
//!               reported, quarantined,            │ cancelled, expired, shutdown
//!               cancelled, overran, shutdown      │ (from Ready too)
//!                                ▼                ▼
//!                              Concluding ──── recorded ────▶ terminal: forgotten here
//! ```
//!
//! Beside all that runs its acceptance: `Recording` until the recorder says that it is durable. The
//! job may be anywhere meanwhile; only its end cannot be, as records become durable in order.
//!
//! # Invariants
//!
//! - A stage says where else the pool must find the job: `Ready` in the queue, `Delayed` and
//!   `expire_at` among the alarms, `OnSlot` in that slot, `Concluding` among the records.

use core::num::NonZeroU32;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use wpool_protocol::id::{AttemptNumber, AttemptRef, JobId, SlotId};
use wpool_protocol::job::{Priority, RetryOn};

use crate::event::{NewJob, RetryRule};
use crate::queue::{Place, Spot};
use crate::tenants::TenantId;
use crate::time::Instant;

/// A job that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) tenant: TenantId,
    pub(crate) priority: Priority,
    pub(crate) rank: i32,
    /// Its place among all jobs by submission. A requeued job keeps it, and so goes before its class.
    pub(crate) arrival: u64,
    pub(crate) bytes: u64,
    pub(crate) run_time_max: Duration,
    pub(crate) attempts_max: u32,
    pub(crate) retry_on: RetryRule,
    /// The first moment that is too late for its first start; `None` once it has started.
    pub(crate) expire_at: Option<Instant>,
    /// Runs begun.
    pub(crate) attempts: u32,
    /// Workers lost over it.
    pub(crate) lost: u32,
    pub(crate) acceptance: Acceptance,
    pub(crate) stage: Stage,
}

/// Whether the job's acceptance is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Acceptance {
    Recording,
    Durable,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    Ready,
    Delayed(Instant),
    OnSlot(SlotId),
    Concluding,
}

impl Stage {
    /// Whether the job waits for a start.
    pub(crate) const fn waits(self) -> bool {
        match self {
            Self::Ready | Self::Delayed(_) => true,
            Self::OnSlot(_) | Self::Concluding => false,
        }
    }
}

impl Job {
    pub(crate) fn new(
        new: &NewJob,
        tenant: TenantId,
        arrival: u64,
        stage: Stage,
        expire_at: Option<Instant>,
    ) -> Self {
        Self {
            id: new.id,
            tenant,
            priority: new.priority,
            rank: new.rank,
            arrival,
            bytes: new.bytes,
            run_time_max: new.run_time_max,
            attempts_max: new.attempts_max.max(1),
            retry_on: new.retry_on,
            expire_at,
            attempts: 0,
            lost: 0,
            acceptance: Acceptance::Recording,
            stage,
        }
    }

    pub(crate) const fn spot(&self) -> Spot {
        Spot {
            priority: self.priority,
            tenant: self.tenant,
            place: Place::new(self.rank, self.arrival),
        }
    }

    /// Counts a run that begins, and names it.
    pub(crate) const fn begin_attempt(&mut self) -> AttemptRef {
        let number = NonZeroU32::MIN.saturating_add(self.attempts);
        self.attempts = number.get();
        AttemptRef {
            job: self.id,
            attempt: AttemptNumber(number),
        }
    }

    /// Whether it may have another attempt for this reason.
    pub(crate) const fn may_retry(&self, reason: RetryOn) -> bool {
        self.retry_on.has(reason) && self.attempts < self.attempts_max
    }

    /// Counts a worker lost over it; whether it may have another.
    pub(crate) const fn lose_attempt(&mut self) -> bool {
        self.lost = self.lost.saturating_add(1);
        self.may_retry(RetryOn::WorkerLost)
    }
}
