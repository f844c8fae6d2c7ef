//! What the pool has promised, told from outside: it sees events and actions, and what processes really do.
//!
//! [`Oracle::hear`] takes in an event before the pool does, [`Oracle::judge`] each action, and
//! [`Oracle::settle`] looks at what must have been done by the end of the event. Nothing here is taken
//! from the pool's code: the rules are written anew, as plainly as possible and without care for speed.
//!
//! Each rule is a `require!` with a sentence. What it watches over: I1 to I7, every kill and every
//! conclusion having its cause and every cause its kill or conclusion, in the same event; the order of starts.

use std::collections::BTreeMap;

use wpool_pool::action::{Action, Conclusion, Record, RecordId};
use wpool_pool::event::{DrainScope, Event, NewJob};
use wpool_pool::pool::Pool;
use wpool_pool::settings::{Settings, TenantRules};
use wpool_pool::time::Instant;
use wpool_protocol::id::{AttemptRef, JobId, SlotId, WorkerRef};
use wpool_protocol::status::QueuePressure;

use crate::sim::Summary;
use crate::sim::process::Reality;

/// Returns a sentence from the function it stands in unless the condition holds.
macro_rules! require {
    ($holds:expr, $($sentence:tt)+) => {
        if !$holds {
            return Err(format!($($sentence)+));
        }
    };
}

mod births;
mod jobs;
mod recycling;
mod seats;
mod starts;

/// What was found, if it is not as promised.
pub(crate) type Verdict = Result<(), String>;

/// The oracle.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    settings: Settings,
    now: Instant,
    jobs: BTreeMap<JobId, JobFile>,
    accepted: u64,
    seats: BTreeMap<SlotId, seats::Seat>,
    records: BTreeMap<RecordId, Record>,
    records_asked: u64,
    durable: u64,
    paused: bool,
    drain: Option<DrainScope>,
    kill_at: Option<Instant>,
    stopped_at: Option<Instant>,
    /// Jobs and bytes that were there when limits were last changed.
    tolerated: (u64, u64),
    rules: TenantRules,
    /// Jobs of each tenant that were there when rules were last changed.
    tolerated_of_tenants: BTreeMap<String, u64>,
    starts: starts::Starts,
    recycling: recycling::Recycling,
    pub(crate) summary: Summary,
}

/// What is known of a job that has not ended.
#[derive(Clone, Debug)]
struct JobFile {
    new: NewJob,
    submitted_at: Instant,
    /// Its number among those that were accepted, from 0.
    arrival: u64,
    accepted_at: Option<Instant>,
    /// Who has asked for its end.
    asked: Option<Asker>,
    runs: u32,
    lost: u32,
    not_before: Instant,
    place: Place,
}

/// Who has asked for a job's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// A client.
    Client,
    /// The operator, who cleared the queue.
    Operator,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It must be accepted or refused within this event.
    New,
    Waiting,
    Running(WorkerRef),
    /// Its run is over: what becomes of it must be said within this event.
    Over(seats::Over),
    Concluding(Conclusion),
}

impl JobFile {
    fn is_cancelled(&self) -> bool {
        self.asked == Some(Asker::Client)
    }
}

impl Oracle {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            seats: (0..settings.slots)
                .map(|slot| (SlotId(slot), seats::Seat::new(SlotId(slot))))
                .collect(),
            settings,
            now: Instant::START,
            jobs: BTreeMap::new(),
            accepted: 0,
            records: BTreeMap::new(),
            records_asked: 0,
            durable: 0,
            paused: false,
            drain: None,
            kill_at: None,
            stopped_at: None,
            tolerated: (0, 0),
            rules: TenantRules::default(),
            tolerated_of_tenants: BTreeMap::new(),
            starts: starts::Starts::default(),
            recycling: recycling::Recycling::default(),
            summary: Summary::default(),
        }
    }

    /// The oracle of the next life of a supervisor that has crashed.
    pub(crate) fn reborn(&self, settings: Settings) -> Self {
        let interrupted = self.jobs.len() as u64;
        let mut reborn = Self {
            now: self.now,
            summary: self.summary,
            ..Self::new(settings)
        };
        reborn.summary.crashes += 1;
        reborn.summary.interrupted += interrupted;
        reborn
    }

    /// An event is about to be given to the pool.
    pub(crate) fn hear(&mut self, now: Instant, event: &Event) {
        self.now = now;
        self.summary.events += 1;
        match event {
            Event::JobSubmitted(new) => self.hear_submission(new),
            Event::CancelRequested(id) => {
                if let Some(job) = self.jobs.get_mut(id) {
                    job.asked.get_or_insert(Asker::Client);
                }
            }
            Event::RecordSynced(id) => {
                if id.0 <= self.records_asked {
                    self.durable = self.durable.max(id.0);
                }
            }
            Event::SpawnFailed(worker)
            | Event::WorkerReady(worker)
            | Event::WorkerExited(worker)
            | Event::WorkerViolated(worker)
            | Event::PingAnswered(worker, _)
            | Event::JobStarted(worker, _)
            | Event::JobEnded(worker, ..) => self.hear_worker(*worker, event),
            Event::PauseRequested => self.paused = true,
            Event::ResumeRequested => (self.paused, self.drain) = (false, None),
            Event::DrainRequested(scope) => self.drain = Some(*scope),
            Event::ShutdownRequested { grace } => {
                let kill_at = now.after(*grace);
                self.kill_at = Some(self.kill_at.map_or(kill_at, |old| old.min(kill_at)));
            }
            Event::ResizeRequested(slots) => {
                let before = self.settings.slots;
                self.settings.slots = (*slots).max(1);
                self.recycling.forget_beyond(self.settings.slots);
                for slot in (before..self.settings.slots).map(SlotId) {
                    let seat = self.seats.entry(slot);
                    seat.or_insert_with(|| seats::Seat::new(slot));
                }
            }
            Event::RecycleRequested => self.hear_recycling(),
            Event::ClearRequested { submitted, most } => {
                let waiting = self.jobs.values_mut();
                let waiting = waiting.filter(|job| job.place == Place::Waiting);
                let old = waiting.filter(|job| job.arrival < *submitted);
                for job in old.take(*most as usize) {
                    job.asked.get_or_insert(Asker::Operator);
                }
            }
            Event::SettingsChanged(settings) => {
                self.tolerated = self.reserved();
                self.starts = starts::Starts::default();
                self.settings = Settings {
                    slots: self.settings.slots,
                    ..**settings
                };
                self.hear_other_age();
            }
            Event::TenantRulesChanged(rules) => {
                self.tolerated_of_tenants = self.reserved_by_tenants();
                self.starts = starts::Starts::default();
                self.rules = rules.clone();
            }
            Event::TimeReached => {}
        }
        self.forget_the_unwanted();
        // What is due by time comes after what the event says.
        self.recycling.was_needed = self.spare().is_some();
        self.hear_age();
    }

    /// The pool asks for this.
    pub(crate) fn judge(&mut self, action: &Action, reality: &impl Reality) -> Verdict {
        require!(
            self.stopped_at.is_none() || matches!(action, Action::Refuse(..)),
            "after Stopped the pool does nothing but refuse"
        );
        match *action {
            Action::Record(id, record) => self.judge_record(id, record),
            Action::Accept(id) => self.judge_accept(id),
            Action::Refuse(id, refusal) => self.judge_refusal(id, refusal),
            Action::Requeue {
                attempt,
                worker,
                lost,
                not_before,
            } => self.judge_requeue(attempt, worker, lost, not_before),
            Action::Retry {
                attempt,
                worker,
                reason,
                not_before,
            } => self.judge_retry(attempt, worker, reason, not_before),
            Action::Conclude(id, conclusion) => self.judge_outcome(id, conclusion),
            Action::Spawn(worker) => self.judge_spawn(worker, reality),
            Action::Assign(worker, attempt) => self.judge_assign(worker, attempt, reality),
            Action::Stop(worker, attempt) => self.judge_stop(worker, attempt),
            Action::Ping(worker, number) => self.judge_ping(worker, number),
            Action::Kill(worker, reason) => self.judge_kill(worker, reason),
            Action::Retire(worker) => self.judge_retire(worker),
            Action::Stopped => {
                require!(self.kill_at.is_some(), "nobody asked for a shutdown");
                require!(self.jobs.is_empty(), "jobs are left at Stopped");
                let alive = self.seats.keys().find(|&&slot| reality.lives_in(slot));
                require!(alive.is_none(), "a worker lives at Stopped: {alive:?}");
                self.stopped_at = Some(self.now);
                Ok(())
            }
        }
    }

    /// The event is over: what must have been done has been done, and the pool shows what is.
    pub(crate) fn settle(&mut self, pool: &Pool) -> Verdict {
        self.settle_jobs()?;
        self.settle_seats()?;
        self.settle_starts()?;
        let ahead = pool.deadline().is_none_or(|deadline| deadline > self.now);
        require!(ahead, "the next deadline is not ahead");
        self.compare(pool)
    }

    /// What the pool shows of itself is what an onlooker would say.
    fn compare(&mut self, pool: &Pool) -> Verdict {
        let view = pool.view();
        let waiting = self.jobs.values().filter(|job| job.place == Place::Waiting);
        let (total, late) = waiting.fold((0, 0), |(total, late), job| {
            (total + 1, late + u64::from(job.not_before > self.now))
        });
        require!(
            (view.queued.total, view.queued.delayed) == (total, late),
            "{total} jobs wait, {late} of them for their time, and it shows {:?}",
            view.queued
        );
        let running = |job: &&JobFile| matches!(job.place, Place::Running(_));
        let active = self.jobs.values().filter(running).count() as u64;
        require!(
            view.active == active,
            "{active} jobs run, and it shows {}",
            view.active
        );
        let pressure = self.pressure(total);
        require!(
            view.pressure == pressure,
            "it is {pressure:?} with {total} jobs that wait, and it shows {:?}",
            view.pressure
        );
        for slot in pool.slots() {
            let now = self.now;
            let seat = self.seats.get_mut(&slot.worker.slot);
            let seat =
                seat.ok_or_else(|| format!("{} is shown and was never there", slot.worker))?;
            if let Some(until) = slot.parked_until {
                seat.births.judge_parking(now, until)?;
            }
            let empty = seat.is_empty();
            let parked = slot.parked_until.is_some_and(|until| until > self.now);
            require!(
                empty == parked || self.kill_at.is_some() || !self.is_wanted(slot.worker.slot),
                "slot {} has no worker and is not parked, or the reverse",
                slot.worker.slot
            );
            self.summary.parked += u64::from(parked);
        }
        self.summary.dropped = {
            let dropped = pool.dropped();
            dropped.other_attempt
                + dropped.other_generation
                + dropped.other_record
                + dropped.out_of_place
        };
        Ok(())
    }

    /// How full the queue is while `waiting` jobs wait.
    fn pressure(&self, waiting: u64) -> QueuePressure {
        let (count, bytes) = self.reserved();
        let (most, most_bytes) = (self.settings.queue_jobs, self.settings.queue_bytes);
        if count >= most || bytes >= most_bytes {
            QueuePressure::Full
        } else if waiting > 50 || 2 * waiting > most || 2 * bytes > most_bytes {
            QueuePressure::Filling
        } else {
            QueuePressure::Ok
        }
    }

    /// Whether a slot is to have a worker.
    fn is_wanted(&self, slot: SlotId) -> bool {
        slot.0 < self.settings.slots || self.spare() == Some(slot)
    }

    /// Count and bytes of all jobs that have not ended.
    fn reserved(&self) -> (u64, u64) {
        self.jobs
            .values()
            .fold((0, 0), |(count, bytes), job| match job.place {
                Place::New => (count, bytes),
                Place::Waiting | Place::Running(_) | Place::Over(_) | Place::Concluding(_) => {
                    (count + 1, bytes + job.new.bytes)
                }
            })
    }

    /// The same count, tenant by tenant.
    fn reserved_by_tenants(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for job in self.jobs.values().filter(|job| job.place != Place::New) {
            *counts.entry(job.new.tenant.clone()).or_default() += 1;
        }
        counts
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(crate) const fn has_stopped(&self) -> bool {
        self.stopped_at.is_some()
    }

    pub(crate) const fn stops(&self) -> bool {
        self.kill_at.is_some()
    }

    /// The wall time of a job, as its worker is told it.
    pub(crate) fn run_time_max(&self, attempt: AttemptRef) -> std::time::Duration {
        self.jobs
            .get(&attempt.job)
            .map_or(std::time::Duration::ZERO, |job| job.new.run_time_max)
    }
}
