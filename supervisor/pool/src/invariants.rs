//! What always holds between two events, numbered, in prose and as code.
//!
//! - **I1** A job is in exactly one place: accepting, ready, delayed, on one slot, concluding, terminal.
//! - **I2** A slot runs at most one job.
//! - **I3** Attempts never exceed the job's maximum.
//! - **I4** Count and bytes of all non-terminal jobs, and the count of each tenant's, never exceed the limits: reserved at
//!   admission, so that a requeue never overflows.
//! - **I5** An action names the current generation.
//! - **I6** A job gets exactly one outcome; nothing about a job is visible before it is recorded, and no
//!   outcome before it is.
//! - **I7** A ready job waits while a slot is idle only if the pool is paused, drains or stops, or its tenant is at its running
//!   limit.
//!
//! Beside them it is checked that what indexes jobs and slots is what they say (under I1 and I2), and
//! that the next deadline lies ahead.
//!
//! [`Pool::check`] looks at the whole state: O(n). Debug builds call it after every event while the
//! pool is small, and so seldom when it is large that its cost per event stays the same.
//!
//! # What is not here
//!
//! What only histories show (a second outcome, an order of starts) is checked from outside: tests/sim.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use wpool_protocol::id::{JobId, SlotId, WorkerRef};

use crate::action::{Action, Record};
use crate::alarms::Alarm;
use crate::backoff::Random;
use crate::course::Course;
use crate::job::{Acceptance, Job, Stage};
use crate::pool::Pool;
use crate::slot::Phase;
use crate::tenants::TenantId;

/// Jobs and slots up to which debug builds check after every event.
const ALWAYS_CHECKED: usize = 64;

/// Of a larger pool, so many jobs and slots are looked at per event on average.
const CHECKED_PER_EVENT: usize = 16;

/// A broken invariant: a bug of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} is broken: {detail}")]
pub struct Broken {
    /// Its number, like `I3`.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

type Check = Result<(), Broken>;

/// Returns [`Broken`] from the function it stands in unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $invariant:literal, $($detail:tt)+) => {
        if !$holds {
            return Err(Broken {
                invariant: $invariant,
                detail: format!($($detail)+),
            });
        }
    };
}

impl Pool {
    /// Whether all invariants hold.
    ///
    /// # Errors
    ///
    /// [`Broken`] names the first that does not.
    pub fn check(&self) -> Check {
        let under_way = self.records_by_job();
        let mut ready = 0;
        let mut alarms = usize::from(matches!(self.course, Course::Stopping { .. }));
        let mut bytes = 0u64;
        for job in self.jobs.iter() {
            let records = under_way.get(&job.id).copied().unwrap_or_default();
            self.check_place(job, records)?;
            check_attempts(job)?;
            bytes = bytes.saturating_add(job.bytes);
            match job.stage {
                Stage::Ready => ready += 1,
                Stage::Delayed(_) => alarms += 1,
                Stage::OnSlot(_) | Stage::Concluding => {}
            }
            alarms += usize::from(job.expire_at.is_some());
        }
        ensure!(
            self.queue.len() == ready,
            "I1",
            "{} jobs in the queue, {ready} ready",
            self.queue.len()
        );
        ensure!(
            under_way.keys().all(|id| self.jobs.contains(*id)),
            "I6",
            "a record is under way for a job that has ended"
        );
        self.check_slots(&mut alarms)?;
        self.check_recycling()?;
        ensure!(
            self.alarms.len() == alarms,
            "I1",
            "{} alarms are set, {alarms} waited for",
            self.alarms.len()
        );
        self.check_admission(bytes)?;
        self.check_tenants()?;
        self.check_progress()
    }

    /// What the debug build checks after an event that gave these actions.
    pub(crate) fn assert_sound(&self, actions: &[Action]) {
        let size = self.jobs.len() + self.slots.len();
        let seldom = if size <= ALWAYS_CHECKED {
            1
        } else {
            u64::try_from(size / CHECKED_PER_EVENT).unwrap_or(u64::MAX)
        };
        let nanos = u64::try_from(self.now.since_start().as_nanos()).unwrap_or(u64::MAX);
        let mut draw = Random::new(nanos ^ self.arrivals);
        if draw.up_to(seldom - 1) != 0 {
            return;
        }
        let result = self.check().and_then(|()| self.check_actions(actions));
        if let Err(broken) = result {
            panic!("{broken}");
        }
    }

    /// I5, for the actions of the last event.
    fn check_actions(&self, actions: &[Action]) -> Check {
        for action in actions {
            if let Some(worker) = action.present_worker() {
                ensure!(
                    self.slot(worker.slot).worker == worker,
                    "I5",
                    "{action:?} does not name the present generation"
                );
            }
        }
        Ok(())
    }

    fn check_place(&self, job: &Job, records: UnderWay) -> Check {
        let id = job.id;
        let accepting = job.acceptance == Acceptance::Recording;
        ensure!(
            records.accepted == u32::from(accepting),
            "I6",
            "{id} is {:?} with {records:?}",
            job.acceptance
        );
        let concluding = job.stage == Stage::Concluding;
        ensure!(
            records.concluded == u32::from(concluding),
            "I6",
            "{id} is {:?} with {records:?}",
            job.stage
        );
        let found = match job.stage {
            Stage::Ready => self.queue.contains(job.spot(), id),
            Stage::Delayed(until) => self.alarms.contains(until, Alarm::Promote(id)),
            Stage::OnSlot(slot) => {
                let run = self.slots.get(usize::from(slot.0));
                let run = run.and_then(|slot| slot.phase.run());
                run.is_some_and(|run| {
                    run.attempt.job == id && run.attempt.attempt.0.get() == job.attempts
                })
            }
            Stage::Concluding => true,
        };
        ensure!(found, "I1", "{id} is not where it says: {:?}", job.stage);
        let expires = job
            .expire_at
            .is_none_or(|at| self.alarms.contains(at, Alarm::Expire(id)));
        ensure!(expires, "I1", "{id} would never expire");
        Ok(())
    }

    fn check_slots(&self, alarms: &mut usize) -> Check {
        let mut idle = 0;
        for slot in &self.slots {
            let id = slot.worker.slot;
            if let Some(run) = slot.phase.run() {
                let job = self.jobs.get(run.attempt.job);
                let agrees = job.is_some_and(|job| job.stage == Stage::OnSlot(id));
                ensure!(
                    agrees,
                    "I2",
                    "slot {id} runs {}, which is not there",
                    run.attempt
                );
            }
            if let Some(key) = slot.idle_key() {
                idle += 1;
                ensure!(
                    self.idle.contains(&key),
                    "I7",
                    "slot {id} is idle and not known as such"
                );
            }
            if let Some(at) = slot.alarm() {
                *alarms += 1;
                ensure!(
                    self.alarms.contains(at, Alarm::Slot(id)),
                    "I2",
                    "slot {id} would never be woken"
                );
            }
            if let Some(at) = slot.recycle_at {
                *alarms += 1;
                ensure!(
                    self.alarms.contains(at, Alarm::Age(id)),
                    "I2",
                    "the worker of slot {id} would never be old"
                );
            }
            let is_new = !matches!(slot.phase, Phase::Vacant) || self.course.ends();
            ensure!(
                self.keeps(id) || may_end(&slot.phase) || !is_new,
                "I2",
                "slot {id} is {:?} and is to have no worker",
                slot.phase
            );
        }
        ensure!(
            self.idle.len() == idle,
            "I7",
            "{} slots known as idle, {idle} are",
            self.idle.len()
        );
        Ok(())
    }

    fn check_recycling(&self) -> Check {
        let is_there = |slot: SlotId| slot.0 < self.settings.slots;
        ensure!(
            self.recycling
                .due()
                .chain(self.recycling.turn())
                .all(is_there),
            "I2",
            "a slot is to be recycled that is not to be there"
        );
        let turn = self
            .recycling
            .turn()
            .and_then(|id| self.slots.get(usize::from(id.0)));
        ensure!(
            turn.is_none_or(|slot| !slot.phase.is_up()),
            "I2",
            "the slot that is recycled has a worker that is up"
        );
        Ok(())
    }

    fn check_admission(&self, bytes: u64) -> Check {
        let jobs = u64::try_from(self.jobs.len()).unwrap_or(u64::MAX);
        let reserved = (self.admission.jobs(), self.admission.bytes());
        ensure!(
            reserved == (jobs, bytes),
            "I4",
            "{reserved:?} reserved for {jobs} jobs of {bytes} bytes"
        );
        ensure!(
            self.admission.fits(&self.settings),
            "I4",
            "{reserved:?} exceed the limits"
        );
        Ok(())
    }

    fn check_tenants(&self) -> Check {
        ensure!(self.tenants.agree(), "I4", "the tenants' books differ");
        let mut counted: BTreeMap<TenantId, (u64, u32)> = BTreeMap::new();
        for job in self.jobs.iter() {
            let (jobs, running) = counted.entry(job.tenant).or_default();
            *jobs += 1;
            *running += u32::from(matches!(job.stage, Stage::OnSlot(_)));
        }
        for (id, tenant) in self.tenants.iter() {
            let (jobs, running) = counted.remove(&id).unwrap_or_default();
            ensure!(
                (tenant.jobs, tenant.running) == (jobs, running),
                "I4",
                "{tenant:?} has {jobs} jobs and runs {running}"
            );
            ensure!(tenant.fits(), "I4", "{tenant:?} has more than it may");
            ensure!(
                jobs > 0 || self.queue.remembers(id),
                "I4",
                "{tenant:?} is here for nothing"
            );
        }
        ensure!(
            counted.is_empty(),
            "I4",
            "{} jobs are of nobody",
            counted.len()
        );
        Ok(())
    }

    fn check_progress(&self) -> Check {
        let waits = self.course.starts_jobs() && !self.idle.is_empty();
        ensure!(
            !waits || !self.queue.is_due(),
            "I7",
            "of {} ready jobs one could start beside an idle slot",
            self.queue.len()
        );
        let ahead = self.deadline().is_none_or(|deadline| deadline > self.now);
        ensure!(ahead, "I7", "the next deadline is not ahead");
        Ok(())
    }

    fn records_by_job(&self) -> BTreeMap<JobId, UnderWay> {
        let mut by_job: BTreeMap<JobId, UnderWay> = BTreeMap::new();
        for record in self.records.pending() {
            match *record {
                Record::Accepted(id) => by_job.entry(id).or_default().accepted += 1,
                Record::Concluded(id, _) => by_job.entry(id).or_default().concluded += 1,
            }
        }
        by_job
    }
}

/// Whether a slot in this phase comes to its end while the pool stops.
const fn may_end(phase: &Phase) -> bool {
    match phase {
        Phase::Loading(_)
        | Phase::Running(_)
        | Phase::Ending(_)
        | Phase::Retiring { .. }
        | Phase::Closed => true,
        Phase::Vacant | Phase::Starting { .. } | Phase::Idle(_) | Phase::Parked { .. } => false,
    }
}

/// I3, for one job. Runs that a shutdown cuts short are not counted, but none follows them.
fn check_attempts(job: &Job) -> Check {
    let (attempts, lost, most) = (job.attempts, job.lost, job.attempts_max);
    ensure!(
        attempts <= most && lost <= attempts,
        "I3",
        "{} has begun {attempts} runs and lost {lost}, of {most}",
        job.id
    );
    Ok(())
}

/// The records of one job that are not durable yet.
#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    accepted: u32,
    concluded: u32,
}

impl Action {
    /// The worker that it is for, where that must be the slot's present one.
    const fn present_worker(&self) -> Option<WorkerRef> {
        match self {
            Self::Spawn(worker)
            | Self::Assign(worker, _)
            | Self::Stop(worker, _)
            | Self::Ping(worker, _)
            | Self::Kill(worker, _)
            | Self::Retire(worker) => Some(*worker),
            Self::Record(..)
            | Self::Accept(_)
            | Self::Refuse(..)
            | Self::Requeue { .. }
            | Self::Retry { .. }
            | Self::Conclude(..)
            | Self::Stopped => None,
        }
    }
}
