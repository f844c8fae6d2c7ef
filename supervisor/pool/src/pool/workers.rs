//! What is heard of workers, and what follows; the table of it is `Phase::on` in `slot.rs`.
//!
//! # Invariants
//!
//! - What a past generation, or anybody about a run that is not the present one, has to say is dropped
//!   in [`Pool::hear`] and counted, before anything looks at it.

use wpool_protocol::id::{AttemptRef, SlotId, WorkerRef};
use wpool_protocol::job::RetryOn;

use crate::action::{Action, Actions, Conclusion, KillReason};
use crate::alarms::later;
use crate::event::JobEnd;
use crate::pool::Pool;
use crate::pool::deaths::SETTLED_AFTER;
use crate::run::{Run, Stop};
use crate::slot::{Counted, Ending, Phase, Settled, Step, Word};

impl Pool {
    pub(super) fn hear(&mut self, worker: WorkerRef, word: Word, actions: &mut Actions) {
        let id = worker.slot;
        let present = self.slots.get(usize::from(id.0));
        let Some(slot) = present.filter(|slot| slot.worker == worker) else {
            self.dropped.other_generation += 1;
            return;
        };
        let attempt = slot.phase.run().map(|run| run.attempt);
        if word.attempt().is_some_and(|named| Some(named) != attempt) {
            self.dropped.other_attempt += 1;
            return;
        }
        match slot.phase.on(word) {
            Step::Settle => self.settle(id),
            Step::Bury => self.bury(id, actions),
            Step::Kill(reason) => self.kill(id, reason, actions),
            Step::Answer(number) => self.answer(id, number),
            Step::Begin => self.begin(id),
            Step::Finish(end) => self.finish(id, end, actions),
            Step::Drop => self.dropped.out_of_place += 1,
        }
    }

    pub(super) fn spawn(&mut self, id: SlotId, actions: &mut Actions) {
        self.begin_worker(id);
        let ready_by = later(self.now, self.settings.ready_within);
        self.enter(id, Phase::Starting { ready_by });
        actions.push(Action::Spawn(self.slot(id).worker));
    }

    fn settle(&mut self, id: SlotId) {
        let now = self.now;
        self.change(id, |slot| slot.breaker.ready(now));
        self.begin_age(id);
        self.enter(id, Phase::Idle(Settled::At(self.now.after(SETTLED_AFTER))));
    }

    fn answer(&mut self, id: SlotId, number: u64) {
        let (now, settings) = (self.now, self.settings);
        let answered = self.change(id, |slot| {
            slot.phase
                .run_mut()
                .is_some_and(|run| run.answer(now, number, &settings))
        });
        if !answered {
            self.dropped.out_of_place += 1;
        }
    }

    /// Asks a busy worker whether it is there.
    pub(super) fn ping(&mut self, id: SlotId, actions: &mut Actions) {
        let (now, settings) = (self.now, self.settings);
        let number = self.change(id, |slot| {
            slot.pings += 1;
            if let Some(run) = slot.phase.run_mut() {
                run.ping(now, slot.pings, &settings);
            }
            slot.pings
        });
        actions.push(Action::Ping(self.slot(id).worker, number));
    }

    fn begin(&mut self, id: SlotId) {
        let Some(&run) = self.slot(id).phase.run() else {
            return;
        };
        let run_time_max = self.job_mut(run.attempt.job).run_time_max;
        let mut run = run;
        run.start(self.now, run_time_max, &self.settings);
        self.enter(id, Phase::Running(run));
    }

    fn finish(&mut self, id: SlotId, end: JobEnd, actions: &mut Actions) {
        let Some(&run) = self.slot(id).phase.run() else {
            return;
        };
        match (end, run.stop) {
            (JobEnd::BoxFailed, Stop::By(_) | Stop::NotAsked) => {
                self.kill(id, KillReason::BoxFailed, actions);
            }
            // Only the pool's order ends a job so: this worker says what is not true.
            (JobEnd::Stopped, Stop::NotAsked) => self.kill(id, KillReason::Violation, actions),
            (JobEnd::Stopped, Stop::By(_))
            | (
                JobEnd::Succeeded
                | JobEnd::Failed
                | JobEnd::TimedOut
                | JobEnd::MemoryExceeded
                | JobEnd::LimitExceeded,
                Stop::By(_) | Stop::NotAsked,
            ) => {
                self.close_reported(id, &run, end, actions);
                let time = self.now.since(run.began);
                self.change(id, |slot| {
                    slot.worked = slot.worked.saturating_add(time);
                    slot.jobs_done += 1;
                    slot.breaker.prove();
                });
                self.count_job(id);
                if self.keeps(id) {
                    self.enter(id, Phase::Idle(Settled::Proved));
                } else {
                    self.retire(id, actions);
                }
            }
        }
    }

    /// A run is over as its worker reports: that is how the job ended, unless its own rule says that it is tried again.
    fn close_reported(&mut self, id: SlotId, run: &Run, end: JobEnd, actions: &mut Actions) {
        let worker = self.slot(id).worker;
        let attempt = run.attempt;
        let asked = match run.stop {
            Stop::By(_) => None,
            Stop::NotAsked => end.reason_to_retry(),
        };
        let ends = self.course.ends();
        let job = self.job_mut(attempt.job);
        match asked.filter(|reason| job.may_retry(*reason) && !ends) {
            None => {
                let conclusion = Conclusion::Reported { attempt, worker };
                self.conclude(attempt.job, conclusion, actions);
            }
            Some(reason) => self.try_again(attempt, worker, reason, actions),
        }
    }

    /// A job has another attempt, as it asked.
    pub(super) fn try_again(
        &mut self,
        attempt: AttemptRef,
        worker: WorkerRef,
        reason: RetryOn,
        actions: &mut Actions,
    ) {
        let not_before = self.after_backoff(attempt.job);
        actions.push(Action::Retry {
            attempt,
            worker,
            reason,
            not_before,
        });
        self.requeue(attempt.job, not_before);
    }

    /// Tells a worker that runs no job to exit.
    pub(super) fn retire(&mut self, id: SlotId, actions: &mut Actions) {
        let by = later(self.now, self.settings.silence_max);
        self.enter(id, Phase::Retiring { by });
        actions.push(Action::Retire(self.slot(id).worker));
    }

    /// Kills the worker in a slot, if one lives there and has not been killed already.
    pub(super) fn kill(&mut self, id: SlotId, reason: KillReason, actions: &mut Actions) {
        let (counted, run) = match self.slot(id).phase {
            // That it was too slow for a slot that is to go says nothing about the slot.
            Phase::Starting { .. } if reason == KillReason::Shrunk => (Counted::No, None),
            Phase::Starting { .. } => (Counted::Yes, None),
            Phase::Idle(settled) => (settled.counts_death(self.now), None),
            Phase::Loading(run) | Phase::Running(run) => (counts_kill(reason), Some(run)),
            Phase::Retiring { .. } => (Counted::No, None),
            Phase::Vacant | Phase::Ending(_) | Phase::Parked { .. } | Phase::Closed => return,
        };
        let ending = Ending {
            reason,
            counted,
            run,
        };
        self.enter(id, Phase::Ending(ending));
        actions.push(Action::Kill(self.slot(id).worker, reason));
    }
}

/// Whether the death of a busy worker for this reason counts for its slot's breaker.
const fn counts_kill(reason: KillReason) -> Counted {
    match reason {
        // No job can run there: without the breaker the slot would burn the queue's attempts as fast as it can.
        KillReason::BoxFailed => Counted::Yes,
        KillReason::NotReady
        | KillReason::Silent
        | KillReason::Violation
        | KillReason::Overrun
        | KillReason::StopIgnored
        | KillReason::RetireIgnored
        | KillReason::Shutdown
        | KillReason::Shrunk => Counted::No,
    }
}
