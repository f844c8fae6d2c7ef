//! What the death of a worker means for its job and for its slot.
//!
//! # Which deaths are counted for the restart breaker
//!
//! - Before ready, by whatever cause: the slot cannot make workers.
//! - After ready, but before it was ever given a job and within [`SETTLED_AFTER`]: as good as before.
//! - Because a job's box failed ([`KillReason::BoxFailed`]): it cannot work.
//!
//! Every other worker is replaced at once. That is no hot loop: either it lived for a while, or each
//! round costs a job an attempt, and jobs come back by their backoff and end in quarantine.
//!
//! # Invariants
//!
//! - A lost worker costs its job exactly one attempt, and the pool's shutdown none.
//! - A slot whose worker is dead has its next one on the way, is parked until a time, or is not wanted any more.

use core::time::Duration;

use wpool_protocol::id::{Generation, JobId, SlotId, WorkerRef};
use wpool_protocol::job::RetryOn;

use crate::action::{Action, Actions, Conclusion, KillReason, Lost};
use crate::alarms::later;
use crate::backoff::Backoff;
use crate::pool::Pool;
use crate::run::{Run, Stop};
use crate::slot::{Counted, Phase, Settled};
use crate::time::Instant;

/// How long a worker must live idle to have shown that it can. Births take around 10 ms: a slot whose
/// workers all live just longer spends about a sixth of a core on them, which is not hot.
pub(super) const SETTLED_AFTER: Duration = Duration::from_millis(50);

impl Settled {
    /// Whether an idle worker's death at `now` counts.
    pub(super) fn counts_death(self, now: Instant) -> Counted {
        match self {
            Self::At(at) if now < at => Counted::Yes,
            Self::At(_) | Self::Proved => Counted::No,
        }
    }
}

impl Pool {
    /// The worker in this slot is dead.
    pub(super) fn bury(&mut self, id: SlotId, actions: &mut Actions) {
        let slot = self.slot(id);
        let worker = slot.worker;
        let (counted, run, lost) = match slot.phase {
            Phase::Starting { .. } => (Counted::Yes, None, Some(Lost::Exited)),
            Phase::Idle(settled) => (settled.counts_death(self.now), None, Some(Lost::Exited)),
            Phase::Loading(run) | Phase::Running(run) => {
                (Counted::No, Some(run), Some(Lost::Exited))
            }
            Phase::Ending(ending) => (
                ending.counted,
                ending.run,
                Some(Lost::Killed(ending.reason)),
            ),
            Phase::Retiring { .. } => (Counted::No, None, None),
            Phase::Vacant | Phase::Parked { .. } | Phase::Closed => return,
        };
        let crashed = match lost {
            Some(Lost::Exited) => true,
            Some(Lost::Killed(reason)) => {
                !matches!(reason, KillReason::Shutdown | KillReason::Shrunk)
            }
            None => false,
        };
        self.set_recycle_at(id, None);
        let time = run.map_or(Duration::ZERO, |run| self.now.since(run.began));
        self.change(id, |slot| {
            slot.crashes += u64::from(crashed);
            slot.worked = slot.worked.saturating_add(time);
            slot.worker.generation = Generation(worker.generation.0.saturating_add(1));
        });
        if let (Some(run), Some(lost)) = (run, lost) {
            self.lose(&run, worker, lost, actions);
        }
        self.succeed(id, counted, actions);
    }

    /// A run is over because its worker is: decides about the job.
    fn lose(&mut self, run: &Run, worker: WorkerRef, lost: Lost, actions: &mut Actions) {
        let attempt = run.attempt;
        let id = attempt.job;
        if lost == Lost::Killed(KillReason::Overrun) {
            // Its time was over, though its worker did not say so.
            let again = run.stop == Stop::NotAsked && !self.course.ends();
            if again && self.job_mut(id).may_retry(RetryOn::TimedOut) {
                self.try_again(attempt, worker, RetryOn::TimedOut, actions);
            } else {
                self.conclude(id, Conclusion::Overran { attempt, worker }, actions);
            }
            return;
        }
        let cancelled = match run.stop {
            Stop::By(_) => true,
            Stop::NotAsked => false,
        };
        if lost == Lost::Killed(KillReason::Shutdown) {
            let conclusion = if cancelled {
                Conclusion::Cancelled
            } else {
                Conclusion::Shutdown
            };
            self.conclude(id, conclusion, actions);
            return;
        }
        let job = self.job_mut(id);
        let may_have_another = job.lose_attempt();
        let lost_so_far = job.lost;
        if cancelled {
            self.conclude(id, Conclusion::Cancelled, actions);
        } else if !may_have_another {
            let conclusion = Conclusion::Quarantined { lost: lost_so_far };
            self.conclude(id, conclusion, actions);
        } else if self.course.ends() {
            self.conclude(id, Conclusion::Shutdown, actions);
        } else {
            let not_before = self.after_backoff(id);
            actions.push(Action::Requeue {
                attempt,
                worker,
                lost,
                not_before,
            });
            self.requeue(id, not_before);
        }
    }

    /// When a job may start again after its last attempt: each wait is twice the one before.
    pub(super) fn after_backoff(&mut self, id: JobId) -> Instant {
        let backoff = Backoff {
            min: self.settings.backoff_min,
            max: self.settings.backoff_max,
        };
        let before = self.job_mut(id).attempts.saturating_sub(1);
        later(self.now, backoff.wait(before, &mut self.random))
    }

    /// A slot has lost its worker: decides about the next one.
    fn succeed(&mut self, id: SlotId, counted: Counted, actions: &mut Actions) {
        if !self.keeps(id) {
            self.enter(id, Phase::Closed);
            return;
        }
        let parked = match counted {
            Counted::No => None,
            Counted::Yes => {
                let (now, settings) = (self.now, self.settings);
                let mut random = self.random.clone();
                let wait = self.change(id, |slot| slot.breaker.death(now, &settings, &mut random));
                self.random = random;
                wait
            }
        };
        match parked {
            None => self.spawn(id, actions),
            Some(wait) => {
                let until = later(self.now, wait);
                self.enter(id, Phase::Parked { until });
            }
        }
    }
}
