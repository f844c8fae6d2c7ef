//! What the pool shows of itself, made from the state it decides by.
//!
//! # Invariants
//!
//! - Looking changes nothing, and nothing is decided by what is shown.

use alloc::vec::Vec;

use wpool_protocol::id::JobId;
use wpool_protocol::job::Priority;
use wpool_protocol::status::{PoolState, QueuePressure, QueueStatus, SlotState};

use crate::course::{Course, Starts};
use crate::job::{Acceptance, Stage};
use crate::pool::Pool;
use crate::restart::BreakerState;
use crate::slot::{Phase, Slot};
use crate::time::Instant;
use crate::view::{Dropped, JobPlace, JobView, Orders, PoolView, RecyclingView, SlotView};

/// Waiting jobs above which the queue is filling.
const FILLING_ABOVE: u64 = 50;

impl Pool {
    /// The pool at a glance.
    pub fn view(&self) -> PoolView {
        let queued = self.queued();
        let parked = |slot: &&Slot| matches!(slot.phase, Phase::Parked { .. });
        let parked = self.slots.iter().filter(parked).count();
        let probation = |slot: &&Slot| {
            self.keeps(slot.worker.slot)
                && slot.breaker.state() != BreakerState::Closed
                && !matches!(slot.phase, Phase::Parked { .. })
        };
        let on_probation = self.slots.iter().filter(probation).count();
        let active = self.slots.iter().filter(|slot| slot.phase.run().is_some());
        PoolView {
            state: self.state(),
            queued,
            pressure: self.pressure(queued.total),
            active: wide(active.count()),
            parked: u16::try_from(parked).unwrap_or(u16::MAX),
            on_probation: u16::try_from(on_probation).unwrap_or(u16::MAX),
            orders: self.orders(),
            killed_at: self.killed_at(),
        }
    }

    pub(super) const fn killed_at(&self) -> Option<Instant> {
        match self.course {
            Course::Stopping { kill_at } => Some(kill_at),
            Course::Open { .. } | Course::Killing | Course::Stopped => None,
        }
    }

    const fn orders(&self) -> Orders {
        match self.course {
            Course::Open { drain, starts } => Orders {
                drain,
                paused: matches!(starts, Starts::Held),
            },
            Course::Stopping { .. } | Course::Killing | Course::Stopped => Orders {
                drain: None,
                paused: false,
            },
        }
    }

    /// The slots, in order; those that are gone are not among them.
    pub fn slots(&self) -> Vec<SlotView> {
        let there = |slot: &&Slot| {
            slot.worker.slot.0 < self.settings.slots || !matches!(slot.phase, Phase::Closed)
        };
        let slots = self.slots.iter().filter(there);
        slots
            .map(|slot| SlotView {
                stays: self.keeps(slot.worker.slot),
                ..slot.view()
            })
            .collect()
    }

    /// What is to be replaced as planned, if anything is.
    pub fn recycling(&self) -> Option<RecyclingView> {
        let due = self.recycling.due().count();
        self.recycling.is_under_way().then(|| RecyclingView {
            turn: self.recycling.turn(),
            due: u16::try_from(due).unwrap_or(u16::MAX),
            spare: self.spare(),
        })
    }

    /// A job that has not ended.
    pub fn job(&self, id: JobId) -> Option<JobView> {
        let job = self.jobs.get(id)?;
        let place = match (job.stage, job.acceptance) {
            (Stage::Concluding, Acceptance::Recording | Acceptance::Durable) => {
                JobPlace::Concluding
            }
            (Stage::Ready | Stage::Delayed(_) | Stage::OnSlot(_), Acceptance::Recording) => {
                JobPlace::Accepting
            }
            (Stage::Ready, Acceptance::Durable) => JobPlace::Ready,
            (Stage::Delayed(until), Acceptance::Durable) => JobPlace::Delayed(until),
            (Stage::OnSlot(slot), Acceptance::Durable) => {
                let slot = self.slot(slot);
                JobPlace::OnSlot(slot.worker, slot.phase.run()?.attempt)
            }
        };
        Some(JobView {
            id,
            place,
            attempts: job.attempts,
            lost: job.lost,
        })
    }

    /// Events that came too late, twice or from nowhere, and were dropped.
    pub const fn dropped(&self) -> Dropped {
        self.dropped
    }

    fn state(&self) -> PoolState {
        let degraded = |slot: &Slot| {
            self.keeps(slot.worker.slot) && slot.breaker.state() != BreakerState::Closed
        };
        match self.course {
            Course::Stopping { .. } | Course::Killing | Course::Stopped => PoolState::Stopping,
            Course::Open { drain: Some(_), .. } => PoolState::Draining,
            Course::Open {
                starts: Starts::Held,
                drain: None,
            } => PoolState::Paused,
            Course::Open {
                starts: Starts::Go,
                drain: None,
            } => {
                if self.slots.iter().any(degraded) {
                    PoolState::Degraded
                } else {
                    PoolState::Running
                }
            }
        }
    }

    fn queued(&self) -> QueueStatus {
        let of = |priority| wide(self.queue.len_of(priority)) + self.queue.delayed_of(priority);
        let delayed = Priority::ALL.map(|priority| self.queue.delayed_of(priority));
        QueueStatus {
            total: Priority::ALL.map(of).iter().sum(),
            high: of(Priority::High),
            normal: of(Priority::Normal),
            low: of(Priority::Low),
            delayed: delayed.iter().sum(),
        }
    }

    const fn pressure(&self, waiting: u64) -> QueuePressure {
        let (jobs, bytes) = (self.admission.jobs(), self.admission.bytes());
        let (jobs_max, bytes_max) = (self.settings.queue_jobs, self.settings.queue_bytes);
        if jobs >= jobs_max || bytes >= bytes_max {
            QueuePressure::Full
        } else if waiting > FILLING_ABOVE || waiting > jobs_max / 2 || bytes > bytes_max / 2 {
            QueuePressure::Filling
        } else {
            QueuePressure::Ok
        }
    }
}

impl Slot {
    fn view(&self) -> SlotView {
        SlotView {
            worker: self.worker,
            stays: true,
            state: self.phase.shown(),
            attempt: self.phase.run().map(|run| run.attempt),
            since: self.since,
            jobs_done: self.jobs_done,
            crashes: self.crashes,
            parked_by: self.breaker.parked_by(),
            parked_until: match self.phase {
                Phase::Parked { until } => Some(until),
                Phase::Vacant
                | Phase::Starting { .. }
                | Phase::Idle(_)
                | Phase::Loading(_)
                | Phase::Running(_)
                | Phase::Ending(_)
                | Phase::Retiring { .. }
                | Phase::Closed => None,
            },
        }
    }
}

impl Phase {
    /// The word that people read for it.
    pub(super) const fn shown(&self) -> SlotState {
        match self {
            Self::Idle(_) => SlotState::Idle,
            Self::Loading(_) | Self::Running(_) => SlotState::Busy,
            Self::Ending(ending) if ending.run.is_some() => SlotState::Busy,
            Self::Vacant | Self::Starting { .. } | Self::Ending(_) => SlotState::Starting,
            Self::Retiring { .. } | Self::Closed => SlotState::Recycling,
            Self::Parked { .. } => SlotState::Parked,
        }
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
