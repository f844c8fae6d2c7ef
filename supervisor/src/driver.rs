//! The driver: the one task that owns the pool, the workers and the jobs, and does what the pool says.
//!
//! ```text
//!   workers ── Input ──▶ ┐                        ┌──▶ births, pidfds, pipes
//!   clients ─ Command ─▶ │ driver ── Event ──▶ Pool │
//!   time ──────────────▶ ┘        ◀── Action ──   └──▶ answers, outcomes, watchers
//! ```
//!
//! Files: `link` (the tasks of one worker), `seat` (what is held of it), `hear` (what it does), `act` (what the
//! pool says), `conclude` (a job's end), `obey` (what clients ask), `glance` (what is shown), `explain` (why), `register` and `job`
//! (what is held of jobs), `collect` (what runs leave behind), `recorder` (the seam of the journal), `births`.
//!
//! # Invariants
//!
//! - It runs on the main thread, because workers are born from it: the kernel ties their deaths to its own.
//! - Nothing here waits for a client or a worker, and nothing takes long: what does is done elsewhere and comes back
//!   as an `Input`.
//! - Every decision is the pool's. What is known here and not there never changes what happens to a job.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use wpool_pool::action::Actions;
use wpool_pool::event::Event;
use wpool_pool::pool::Pool;
use wpool_pool::time::Instant;
use wpool_protocol::id::{JobId, WorkerRef};
use wpool_protocol::outcome::{Isolation, JobState};
use wpool_protocol::timestamp::Timestamp;
use wpool_protocol::wire::Refused;

mod act;
pub mod births;
mod collect;
pub mod command;
mod conclude;
mod explain;
mod glance;
mod hear;
mod input;
pub mod job;
mod link;
mod obey;
mod quarantine;
mod read;
mod recorder;
pub mod register;
mod seat;

use births::Births;
use command::{Command, Handle};
use input::Input;
use obey::Clearing;
use recorder::Recorder;
use register::Register;
use seat::Seat;

use crate::config::Config;
use crate::notify::Notifier;

/// Things that workers did and that wait for the driver; past them workers wait.
const INPUTS_MAX: usize = 64;

/// The driver.
pub struct Driver {
    births: Box<dyn Births>,
    pool: Pool,
    /// When the pool began.
    epoch: tokio::time::Instant,
    config: watch::Sender<Arc<Config>>,
    seats: Vec<Option<Seat>>,
    /// Why the last worker of a slot was not ready or did not last.
    troubles: Vec<Option<String>>,
    register: Register,
    recorder: Recorder,
    last_id: JobId,
    /// Events that the pool has still to take in, in order.
    events: VecDeque<Event>,
    tell: mpsc::Sender<Input>,
    inputs: mpsc::Receiver<Input>,
    commands: mpsc::Receiver<Command>,
    notifier: Notifier,
    tally: Tally,
    /// What the last worker that was ready said of its sandbox.
    isolation: Isolation,
    life: Life,
    /// Clearings of the queue that go on, first come first served.
    clearings: Vec<Clearing>,
    /// Somebody could not wait for an orderly end: past this moment nobody does.
    interrupted: Option<tokio::time::Instant>,
}

/// What was counted since the start.
#[derive(Debug, Default)]
struct Tally {
    ended: BTreeMap<JobState, u64>,
    /// Of the cancelled, those that an operator cleared away.
    cleared: u64,
    last_job_at: Option<Timestamp>,
}

/// How the driver's own life goes.
#[derive(Debug, PartialEq, Eq)]
enum Life {
    /// No worker has been ready yet.
    Starting,
    /// One has.
    Serving,
    /// No worker can be ready: the first one said why.
    Hopeless(Box<Refused>),
    /// The pool has stopped.
    Stopped,
    /// It has not, and nobody waits for it any longer.
    Abandoned,
}

/// How the driver came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverEnd {
    /// What ran could end within the grace.
    Stopped,
    /// Somebody could not wait for that.
    Interrupted,
}

/// The sandbox cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sandbox cannot be built: layer `{layer}`: {reason}; remedy: {remedy}")]
pub struct Hopeless {
    layer: String,
    reason: String,
    remedy: String,
}

impl From<Refused> for Hopeless {
    fn from(refused: Refused) -> Self {
        Self {
            layer: refused.layer,
            reason: refused.reason,
            remedy: refused.remedy,
        }
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    /// A driver that has done nothing yet, and the handle by which it is asked.
    pub fn new(config: Config, births: Box<dyn Births>, notifier: Notifier) -> (Self, Handle) {
        let slots = usize::from(config.pool.slots);
        let now = Timestamp::from_system(SystemTime::now());
        let seed = u64::try_from(now.0).unwrap_or(0);
        let (tell, inputs) = mpsc::channel(INPUTS_MAX);
        let driver_config = Arc::new(config);
        let (config, receiver) = watch::channel(Arc::clone(&driver_config));
        let (handle, commands) = Handle::new(receiver);
        let driver = Self {
            births,
            pool: Pool::new(driver_config.pool, seed),
            epoch: tokio::time::Instant::now(),
            config,
            seats: std::iter::repeat_with(|| None).take(slots).collect(),
            troubles: vec![None; slots],
            register: Register::new(driver_config.retention),
            recorder: Recorder::Memory,
            last_id: JobId::first(seed),
            events: VecDeque::new(),
            tell,
            inputs,
            commands,
            notifier,
            tally: Tally::default(),
            isolation: Isolation::default(),
            life: Life::Starting,
            clearings: Vec::new(),
            interrupted: None,
        };
        (driver, handle)
    }

    /// Works until the pool has stopped. What is known then can still be asked for: [`Self::answer_until`].
    ///
    /// # Errors
    ///
    /// [`Hopeless`] if the first worker says that its sandbox cannot be built.
    pub async fn run(&mut self) -> Result<DriverEnd, Hopeless> {
        let rules = self.config.borrow().tenants.clone();
        self.take_in(Event::TenantRulesChanged(rules));
        loop {
            match &self.life {
                Life::Starting | Life::Serving => {}
                Life::Stopped if self.interrupted.is_none() => return Ok(DriverEnd::Stopped),
                Life::Stopped => return Ok(DriverEnd::Interrupted),
                Life::Abandoned => {
                    self.kill_all();
                    return Ok(DriverEnd::Interrupted);
                }
                Life::Hopeless(refused) => {
                    let refused = refused.as_ref().clone();
                    self.kill_all();
                    return Err(refused.into());
                }
            }
            self.wait().await;
        }
    }

    /// Answers those who ask until `done` is: a job's last client may come a moment after the pool has stopped.
    pub async fn answer_until<F: Future>(&mut self, done: F) -> F::Output {
        tokio::pin!(done);
        loop {
            tokio::select! {
                output = done.as_mut() => return output,
                Some(command) = self.commands.recv() => self.obey(command),
            }
        }
    }

    /// Waits for one thing to happen, and sees to it.
    async fn wait(&mut self) {
        let deadline = self.deadline();
        let timer = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let abandoned = async {
            match self.interrupted {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = abandoned => self.life = Life::Abandoned,
            () = tokio::task::yield_now(), if !self.clearings.is_empty() => self.clear_some(),
            Some(input) = self.inputs.recv() => self.hear(input),
            Some(command) = self.commands.recv() => self.obey(command),
            () = self.notifier.watchdog_due() => self.notifier.feed_watchdog(),
            () = timer => {
                let now = self.now();
                self.register.prune(now);
                self.take_in(Event::TimeReached);
            }
        }
    }

    /// When something is due.
    fn deadline(&self) -> Option<tokio::time::Instant> {
        let due = [self.pool.deadline(), self.register.deadline()];
        let first = due.into_iter().flatten().min()?;
        self.epoch.checked_add(first.since_start())
    }

    /// The pool's clock.
    fn now(&self) -> Instant {
        Instant::new(self.epoch.elapsed())
    }

    /// The time of day, for people.
    fn wall_clock() -> Timestamp {
        Timestamp::from_system(SystemTime::now())
    }

    /// Lets the pool take in an event, and does what it says, until nothing follows from it.
    fn take_in(&mut self, event: Event) {
        self.events.push_back(event);
        while let Some(event) = self.events.pop_front() {
            tracing::trace!(?event, "event");
            let now = self.now();
            let mut actions = Actions::new();
            self.pool.handle(now, event, &mut actions);
            for action in actions {
                tracing::trace!(?action, "action");
                self.act(&action);
            }
        }
        let state = self.pool.view().state;
        self.notifier.tell_state(state);
    }

    /// The seat of a worker, if it is the present one of its slot.
    fn seat(&mut self, worker: WorkerRef) -> Option<&mut Seat> {
        let seat = self.seats.get_mut(usize::from(worker.slot.0))?.as_mut()?;
        (seat.worker == worker).then_some(seat)
    }

    fn kill_all(&self) {
        for seat in self.seats.iter().flatten() {
            seat.kill();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
