//! A job from its submission to its recorded end; the stages are drawn in `job.rs`.
//!
//! # Invariants
//!
//! - A job's end is decided once; what comes after it is dropped.
//! - A place in the queue is reserved at admission and given back at the recorded end, whatever happens between.

use wpool_protocol::id::{JobId, SlotId};

use crate::action::{Action, Actions, Conclusion, Record, RecordId, Refusal};
use crate::alarms::{Alarm, later};
use crate::event::NewJob;
use crate::job::{Acceptance, Job, Stage};
use crate::pool::Pool;
use crate::run::Run;
use crate::slot::Phase;
use crate::tenants::TenantId;
use crate::time::Instant;

impl Pool {
    pub(super) fn submit(&mut self, new: &NewJob, actions: &mut Actions) {
        let id = new.id;
        assert!(
            !self.jobs.contains(id),
            "a job id is given once, and {id} is there already"
        );
        let tenant = match self.admit(new) {
            Ok(tenant) => tenant,
            Err(refusal) => {
                actions.push(Action::Refuse(id, refusal));
                return;
            }
        };
        let stage = if new.delay.is_zero() {
            Stage::Ready
        } else {
            Stage::Delayed(later(self.now, new.delay))
        };
        // A start at the very last moment is in time: too late is what comes after it.
        let expire_at = new
            .start_within
            .map(|within| later(self.now.after(within), core::time::Duration::ZERO));
        let arrival = self.arrivals;
        self.arrivals += 1;
        let job = Job::new(new, tenant, arrival, stage, expire_at);
        self.jobs.insert(job);
        self.index_job(id);
        if let Some(at) = expire_at {
            self.alarms.set(at, Alarm::Expire(id));
        }
        self.record(Record::Accepted(id), actions);
    }

    /// Reserves room for a job; its tenant is known from then on.
    fn admit(&mut self, new: &NewJob) -> Result<TenantId, Refusal> {
        self.course.admits()?;
        let there = self.tenants.find(&new.tenant);
        let there = there.map_or(0, |tenant| tenant.jobs);
        if let Some(limit) = self.tenants.rule_of(&new.tenant).queue_jobs
            && there >= limit
        {
            let surplus = (there - limit).saturating_add(1);
            let of_all = self.admission.pace();
            return Err(Refusal::TenantFull {
                limit,
                retry_after: self.tenants.promise(&new.tenant, self.now, surplus, of_all),
            });
        }
        self.admission
            .reserve(self.now, new.bytes, &self.settings)?;
        let id = self.tenants.meet(&new.tenant);
        self.tenants.reserve(id, self.now);
        Ok(id)
    }

    pub(super) fn cancel(&mut self, id: JobId, actions: &mut Actions) {
        let Some(job) = self.jobs.get(id) else {
            // It ended in the meantime: the client is told so by whoever keeps outcomes.
            return;
        };
        match job.stage {
            Stage::Ready | Stage::Delayed(_) => self.conclude(id, Conclusion::Cancelled, actions),
            Stage::OnSlot(slot) => self.stop_run(slot, actions),
            Stage::Concluding => {}
        }
    }

    /// Asks for the end of the run in a slot; if its worker is about to end, the job only takes note.
    fn stop_run(&mut self, id: SlotId, actions: &mut Actions) {
        let (now, settings) = (self.now, self.settings);
        let order = self.change(id, |slot| {
            let worker = slot.worker;
            let lives = !matches!(slot.phase, Phase::Ending(_));
            let run = slot.phase.run_mut()?;
            (run.stop(now, &settings) && lives).then_some((worker, run.attempt))
        });
        if let Some((worker, attempt)) = order {
            actions.push(Action::Stop(worker, attempt));
        }
    }

    pub(super) fn assign(&mut self, id: JobId, slot_id: SlotId, actions: &mut Actions) {
        self.move_job(id, Stage::OnSlot(slot_id));
        self.forget_expiry(id);
        let attempt = self.job_mut(id).begin_attempt();
        let (now, settings) = (self.now, self.settings);
        let (worker, ping) = self.change(slot_id, |slot| {
            slot.pings += 1;
            (slot.worker, slot.pings)
        });
        let run = Run::new(now, attempt, ping, &settings);
        self.enter(slot_id, Phase::Loading(run));
        actions.push(Action::Assign(worker, attempt));
        actions.push(Action::Ping(worker, ping));
    }

    /// Ends a job for good, as soon as that is recorded.
    pub(super) fn conclude(&mut self, id: JobId, conclusion: Conclusion, actions: &mut Actions) {
        self.move_job(id, Stage::Concluding);
        self.forget_expiry(id);
        self.record(Record::Concluded(id, conclusion), actions);
    }

    /// Puts a job back after a run, until `not_before`.
    pub(super) fn requeue(&mut self, id: JobId, not_before: Instant) {
        self.move_job(id, Stage::Delayed(not_before));
    }

    /// A job's delay is over.
    pub(super) fn promote(&mut self, id: JobId) {
        self.move_job(id, Stage::Ready);
    }

    fn forget_expiry(&mut self, id: JobId) {
        if let Some(at) = self.job_mut(id).expire_at.take() {
            self.alarms.clear(at, Alarm::Expire(id));
        }
    }

    fn record(&mut self, record: Record, actions: &mut Actions) {
        let id = self.records.ask(record);
        actions.push(Action::Record(id, record));
    }

    pub(super) fn sync(&mut self, id: RecordId, actions: &mut Actions) {
        if !self.records.is_pending(id) {
            self.dropped.other_record += 1;
            return;
        }
        while let Some(record) = self.records.take_durable(id) {
            match record {
                Record::Accepted(job) => {
                    self.job_mut(job).acceptance = Acceptance::Durable;
                    actions.push(Action::Accept(job));
                }
                Record::Concluded(id, conclusion) => {
                    if let Some(job) = self.jobs.remove(id) {
                        self.admission.release(job.bytes);
                        self.tenants.release(job.tenant);
                        if job.attempts > 0 {
                            self.admission.ran(self.now);
                            self.tenants.ran(job.tenant, self.now);
                        }
                        self.forget_tenant(job.tenant);
                        actions.push(Action::Conclude(id, conclusion));
                    }
                }
            }
        }
    }
}
