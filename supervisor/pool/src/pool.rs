//! The pool: the state machine that all of this crate makes up.
//!
//! [`Pool::handle`] takes one event in: the event is applied, then whatever has become due, then idle
//! slots get jobs. What is one concept has a file of its own beside this one; what the pool does with
//! them is in `pool/`: `jobs` (from submission to the recorded end), `workers` (what is heard of them),
//! `deaths` (what a dead one means for its job and its slot), `control` (the operator), `recycle` (planned
//! replacements), `timeouts`, `glance` (what is shown), `explain` (why).
//!
//! # Invariants
//!
//! - I1 to I7: `invariants.rs`.
//! - Where a job or a slot is, and what indexes it (queue, alarms, idle slots), changes in two functions
//!   only: `Pool::move_job` and `Pool::change`.
//! - An event costs O(log n) for n jobs, except the shutdown, which tells every waiting job, and new rules for tenants, which
//!   are asked of each. What fires with an event was set by another one and is that one's cost: many jobs that expire at one
//!   moment are one long event.
//!
//! # What is not here
//!
//! Whatever the pool does not decide by: commands, outputs, pids, who waits for which job.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use wpool_protocol::id::{JobId, SlotId};

use crate::action::{Action, Actions};
use crate::admission::Admission;
use crate::alarms::{Alarm, Alarms};
use crate::backoff::Random;
use crate::course::{Course, Request};
use crate::event::Event;
use crate::job::{Job, Stage};
use crate::queue::Queue;
use crate::records::Records;
use crate::recycling::Recycling;
use crate::roster::Roster;
use crate::settings::Settings;
use crate::slot::{Phase, Slot, Word};
use crate::tenants::{Tenant, TenantId, Tenants};
use crate::time::Instant;
use crate::view::Dropped;

mod control;
mod deaths;
mod explain;
mod glance;
mod jobs;
mod recycle;
mod timeouts;
mod workers;

/// The pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub(crate) settings: Settings,
    pub(crate) now: Instant,
    pub(crate) course: Course,
    pub(crate) jobs: Roster,
    /// Jobs submitted so far: the next one's arrival.
    pub(crate) arrivals: u64,
    pub(crate) slots: Vec<Slot>,
    pub(crate) recycling: Recycling,
    pub(crate) records: Records,
    pub(crate) tenants: Tenants,
    pub(crate) admission: Admission,
    pub(crate) random: Random,
    pub(crate) dropped: Dropped,
    /// Index: the jobs in [`Stage::Ready`].
    pub(crate) queue: Queue,
    /// Index: the idle slots, the one that has worked least first.
    pub(crate) idle: BTreeSet<(Duration, SlotId)>,
    /// Index: what jobs and slots wait for.
    pub(crate) alarms: Alarms,
}

impl Pool {
    /// A pool whose slots are empty: the first event of any kind makes it spawn its workers.
    ///
    /// `seed` decides the jitter of waits.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let slots = (0..settings.slots).map(|slot| Slot::new(SlotId(slot)));
        Self {
            slots: slots.collect(),
            settings,
            now: Instant::START,
            course: Course::OPEN,
            jobs: Roster::default(),
            arrivals: 0,
            recycling: Recycling::default(),
            records: Records::default(),
            tenants: Tenants::default(),
            admission: Admission::default(),
            random: Random::new(seed),
            dropped: Dropped::default(),
            queue: Queue::default(),
            idle: BTreeSet::new(),
            alarms: Alarms::default(),
        }
    }

    /// Takes in what happened at `now` and appends what is to be done to `actions`.
    ///
    /// `now` never goes back.
    ///
    /// # Panics
    ///
    /// On a bug of ours: a job that is submitted while it is there already and, in debug builds, a broken invariant.
    pub fn handle(&mut self, now: Instant, event: Event, actions: &mut Actions) {
        let old_actions = actions.len();
        self.now = self.now.max(now);
        self.apply(event, actions);
        self.spawn_first_workers(actions);
        self.fire_alarms(actions);
        self.go_on_recycling(actions);
        self.start_jobs(actions);
        self.forget_tenants();
        self.stop_if_done(actions);
        if cfg!(debug_assertions) {
            self.assert_sound(actions.get(old_actions..).unwrap_or_default());
        }
    }

    /// When [`Event::TimeReached`] is due, if nothing else happens before.
    ///
    /// Always later than the last event: whoever sends it then makes the pool go on.
    pub fn deadline(&self) -> Option<Instant> {
        self.alarms.first()
    }

    fn apply(&mut self, event: Event, actions: &mut Actions) {
        match event {
            Event::JobSubmitted(job) => self.submit(&job, actions),
            Event::CancelRequested(job) => self.cancel(job, actions),
            Event::RecordSynced(record) => self.sync(record, actions),
            Event::SpawnFailed(worker) => self.hear(worker, Word::SpawnFailed, actions),
            Event::WorkerReady(worker) => self.hear(worker, Word::Ready, actions),
            Event::WorkerExited(worker) => self.hear(worker, Word::Exited, actions),
            Event::WorkerViolated(worker) => self.hear(worker, Word::Violated, actions),
            Event::PingAnswered(worker, number) => {
                self.hear(worker, Word::Answered(number), actions);
            }
            Event::JobStarted(worker, attempt) => {
                self.hear(worker, Word::Started(attempt), actions);
            }
            Event::JobEnded(worker, attempt, end) => {
                self.hear(worker, Word::Ended(attempt, end), actions);
            }
            Event::PauseRequested => self.course = self.course.after(Request::Pause),
            Event::ResumeRequested => self.course = self.course.after(Request::Resume),
            Event::DrainRequested(scope) => self.course = self.course.after(Request::Drain(scope)),
            Event::ShutdownRequested { grace } => self.shut_down(grace, actions),
            Event::ResizeRequested(slots) => self.resize(slots, actions),
            Event::RecycleRequested => self.recycle_all(),
            Event::ClearRequested { submitted, most } => self.clear(submitted, most, actions),
            Event::SettingsChanged(settings) => self.change_settings(&settings),
            Event::TenantRulesChanged(rules) => self.change_tenant_rules(rules),
            Event::TimeReached => {}
        }
    }

    /// Gives jobs to idle slots: whatever may start, starts (I7).
    fn start_jobs(&mut self, actions: &mut Actions) {
        while self.course.starts_jobs() {
            let Some(&(_, slot)) = self.idle.first() else {
                return;
            };
            let next = self
                .queue
                .take_next(self.settings.share_period, &self.tenants);
            let Some(job) = next else {
                return;
            };
            self.assign(job, slot, actions);
        }
    }

    fn stop_if_done(&mut self, actions: &mut Actions) {
        let kill_at = match self.course {
            Course::Stopping { kill_at } => Some(kill_at),
            Course::Killing => None,
            Course::Open { .. } | Course::Stopped => return,
        };
        let closed = |slot: &Slot| matches!(slot.phase, Phase::Closed);
        if self.jobs.is_empty() && self.slots.iter().all(closed) {
            if let Some(at) = kill_at {
                self.alarms.clear(at, Alarm::Grace);
            }
            self.course = Course::Stopped;
            actions.push(Action::Stopped);
        }
    }

    /// Jobs that were submitted and accepted so far.
    pub const fn submitted(&self) -> u64 {
        self.arrivals
    }

    /// Whether a slot is to have a worker.
    pub(crate) fn keeps(&self, id: SlotId) -> bool {
        let stands_in = self.recycling.is_under_way() && id == self.spare();
        !self.course.ends() && (id.0 < self.settings.slots || stands_in)
    }

    pub(crate) fn slot(&self, id: SlotId) -> &Slot {
        self.slots
            .get(usize::from(id.0))
            .expect("slots that events name are looked up where events come in")
    }

    /// Changes a slot, and with it what indexes it.
    fn change<T>(&mut self, id: SlotId, change: impl FnOnce(&mut Slot) -> T) -> T {
        let slot = self
            .slots
            .get_mut(usize::from(id.0))
            .expect("slots that events name are looked up where events come in");
        let (old_alarm, old_key) = (slot.alarm(), slot.idle_key());
        let result = change(slot);
        let (alarm, key) = (slot.alarm(), slot.idle_key());
        if alarm != old_alarm {
            if let Some(at) = old_alarm {
                self.alarms.clear(at, Alarm::Slot(id));
            }
            if let Some(at) = alarm {
                self.alarms.set(at, Alarm::Slot(id));
            }
        }
        if key != old_key {
            if let Some(key) = old_key {
                self.idle.remove(&key);
            }
            if let Some(key) = key {
                self.idle.insert(key);
            }
        }
        result
    }

    fn enter(&mut self, id: SlotId, phase: Phase) {
        let now = self.now;
        self.change(id, |slot| {
            if slot.phase.shown() != phase.shown() {
                slot.since = now;
            }
            slot.phase = phase;
        });
    }

    pub(crate) fn job_mut(&mut self, id: JobId) -> &mut Job {
        self.jobs
            .get_mut(id)
            .expect("what names a job goes before the job does")
    }

    /// Moves a job to another stage, and with it what indexes it.
    fn move_job(&mut self, id: JobId, stage: Stage) {
        let job = self
            .jobs
            .get_mut(id)
            .expect("what names a job goes before the job does");
        let old = core::mem::replace(&mut job.stage, stage);
        let spot = job.spot();
        match old {
            Stage::Ready => self.queue.remove(spot),
            Stage::Delayed(until) => {
                self.queue.undelay(spot.priority);
                self.alarms.clear(until, Alarm::Promote(id));
            }
            Stage::OnSlot(_) => {
                let tenant = self.tenants.get_mut(spot.tenant);
                tenant.running = tenant.running.saturating_sub(1);
                self.hold_if_at_limit(spot.tenant);
            }
            Stage::Concluding => {}
        }
        if let Stage::OnSlot(_) = stage {
            self.tenants.get_mut(spot.tenant).running += 1;
            self.hold_if_at_limit(spot.tenant);
        }
        self.index_job(id);
    }

    /// A tenant that runs as many jobs as it may starts no other.
    fn hold_if_at_limit(&mut self, id: TenantId) {
        let freedom = self.tenants.get(id).freedom();
        self.queue.set_freedom(id, freedom);
    }

    /// Forgets tenants of whom nothing is left.
    fn forget_tenants(&mut self) {
        for id in self.queue.take_forgotten() {
            self.forget_tenant(id);
        }
    }

    pub(crate) fn forget_tenant(&mut self, id: TenantId) {
        let is_gone = |tenant: &Tenant| tenant.jobs == 0;
        if self.tenants.find_by_id(id).is_some_and(is_gone) && !self.queue.remembers(id) {
            self.tenants.forget(id);
        }
    }

    /// Makes a job found where its stage says that it is.
    pub(crate) fn index_job(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(id) else {
            return;
        };
        match job.stage {
            Stage::Ready => self.queue.insert(job.spot(), &self.tenants, id),
            Stage::Delayed(until) => {
                self.queue.delay(job.priority);
                self.alarms.set(until, Alarm::Promote(id));
            }
            Stage::OnSlot(_) | Stage::Concluding => {}
        }
    }
}
