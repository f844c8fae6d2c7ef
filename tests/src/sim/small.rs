//! Small worlds, completely: every order of everything that can happen, up to a depth.
//!
//! Where the random worlds are wide, these are dense: with one or two jobs and slots every history of so many events is
//! walked through, and from its states the way on without faults is seen to lead to the end of every job.
//! Two histories that lead to the same pool in the same surroundings are one from there on.
//!
//! # What is not here
//!
//! Events that a pool drops (late, twice, invented): they would only multiply the same states. The random
//! worlds have them.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use wpool_pool::action::{Action, Actions, RecordId};
use wpool_pool::event::{DrainScope, Event, NewJob, RetryRule};
use wpool_pool::pool::Pool;
use wpool_pool::settings::Settings;
use wpool_pool::time::Instant;
use wpool_protocol::id::{JobId, WorkerRef};
use wpool_protocol::job::Priority;

use crate::sim::Failure;
use crate::sim::oracle::{Oracle, Verdict};
use crate::sim::small::bodies::{Bodies, Body, BodyState};

mod bodies;

/// Of so many new states, one is followed to its end without faults: to follow all would take ten times as long.
const FOLLOWED: u64 = 16;

/// Events within which a small world ends once nothing goes wrong any more.
const END_WITHIN: u32 = 300;

/// A small world, and how deep to look.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Its slots.
    pub slots: u16,
    /// Its jobs.
    pub jobs: u64,
    /// Events in a row.
    pub depth: u32,
    /// Whether the operator takes part.
    pub operator: Operator,
}

/// Whether the operator takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// It pauses, resumes, drains and shuts down, each at most once.
    Meddles,
    /// It has all workers replaced, once.
    Recycles,
    /// It adds a slot and takes it away, each at most once and in any order.
    Resizes,
    /// It does not.
    Sleeps,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Different states.
    pub states: u64,
    /// Events that led from one to another.
    pub steps: u64,
}

/// Walks through all histories of a small world.
///
/// # Errors
///
/// [`Failure`] says what was promised and not kept, and the whole history up to there.
pub fn explore(size: Size) -> Result<Seen, Box<Failure>> {
    let mut walk = Walk {
        best: HashMap::new(),
        path: Vec::new(),
        seen: Seen::default(),
    };
    match walk.walk(&Moment::new(size), size.depth) {
        Ok(()) => Ok(walk.seen),
        Err(what) => Err(Box::new(Failure {
            seed: 0,
            event: walk.path.len() as u64,
            what: format!("{what} ({size:?})"),
            history: walk.path.into(),
        })),
    }
}

struct Walk {
    /// The states that were met, and how much of the depth was left there.
    best: HashMap<u64, u32>,
    path: Vec<(Instant, Event, Vec<Action>)>,
    seen: Seen,
}

impl Walk {
    fn walk(&mut self, moment: &Moment, left: u32) -> Verdict {
        let known = self.best.insert(moment.key(), left);
        if known.is_some_and(|known| known >= left) {
            return Ok(());
        }
        if known.is_none() {
            self.seen.states += 1;
            if self.seen.states.is_multiple_of(FOLLOWED) {
                moment.clone().end()?;
            }
        }
        if left == 0 {
            return Ok(());
        }
        for (now, event) in moment.choices() {
            let mut next = moment.clone();
            self.seen.steps += 1;
            self.path.push((now, event.clone(), Vec::new()));
            let result = next.take(now, event);
            if let Some(last) = self.path.last_mut() {
                last.2.clone_from(&next.last_actions);
            }
            result?;
            self.walk(&next, left - 1)?;
            self.path.pop();
        }
        Ok(())
    }
}

/// A state of a small world.
#[derive(Clone, Debug)]
struct Moment {
    size: Size,
    now: Instant,
    pool: Pool,
    oracle: Oracle,
    bodies: Bodies,
    submitted: u64,
    cancelled: Vec<JobId>,
    recording: VecDeque<RecordId>,
    asked: Vec<Request>,
    last_actions: Vec<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Request {
    Pause,
    Resume,
    Drain,
    Shutdown,
    Recycle,
    /// To one slot more than it begins with.
    Grow,
    /// To as many as it begins with.
    Shrink,
}

impl Moment {
    fn new(size: Size) -> Self {
        let settings = Settings {
            restart_burst: 2,
            ..Settings::default_for(size.slots)
        };
        Self {
            size,
            now: Instant::START,
            pool: Pool::new(settings, 1),
            oracle: Oracle::new(settings),
            // One that the operator adds, and the one that stands in while others are replaced.
            bodies: Bodies(vec![None; usize::from(size.slots) + 2]),
            submitted: 0,
            cancelled: Vec::new(),
            recording: VecDeque::new(),
            asked: Vec::new(),
            last_actions: Vec::new(),
        }
    }

    /// What it is known by. The oracle is left out: it follows from the history as the pool does.
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        serde_json::to_vec(&self.pool.snapshot())
            .expect("a snapshot is plain data")
            .hash(&mut hasher);
        self.bodies.hash(&mut hasher);
        self.asked.hash(&mut hasher);
        self.cancelled.hash(&mut hasher);
        hasher.finish()
    }

    /// Everything that can happen next.
    fn choices(&self) -> Vec<(Instant, Event)> {
        let mut events = Vec::new();
        if self.submitted < self.size.jobs {
            events.push(Event::JobSubmitted(job(self.submitted)));
        }
        events.extend(self.recording.front().map(|&id| Event::RecordSynced(id)));
        for body in self.bodies.0.iter().flatten() {
            events.extend(body.words());
        }
        let cancellable = (0..self.submitted).map(JobId);
        events.extend(
            cancellable
                .filter(|id| self.pool.job(*id).is_some() && !self.cancelled.contains(id))
                .map(Event::CancelRequested),
        );
        let requests = self.size.operator.requests().iter();
        let new = requests.filter(|one| !self.asked.contains(one));
        events.extend(new.map(|request| request.event(self.size.slots)));
        let mut choices: Vec<_> = events.into_iter().map(|event| (self.now, event)).collect();
        choices.extend(self.pool.deadline().map(|at| (at, Event::TimeReached)));
        choices
    }

    fn take(&mut self, now: Instant, event: Event) -> Verdict {
        self.now = now;
        self.oracle.hear(now, &event);
        self.hear(&event);
        let mut actions = Actions::new();
        self.pool.handle(now, event, &mut actions);
        self.last_actions.clone_from(&actions);
        for action in &actions {
            self.oracle.judge(action, &self.bodies)?;
            self.carry_out(action);
        }
        self.oracle.settle(&self.pool)
    }

    /// Goes on without faults, until every job has ended, and then until the pool has stopped.
    fn end(mut self) -> Verdict {
        self.take(self.now, Event::ResumeRequested)?;
        self.until("every job has ended", Oracle::all_ended)?;
        self.take(self.now, Request::Shutdown.event(self.size.slots))?;
        self.until("the pool has stopped", Oracle::has_stopped)
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Oracle) -> bool) -> Verdict {
        for _ in 0..END_WITHIN {
            if is_so(&self.oracle) {
                return Ok(());
            }
            let record = self.recording.front().map(|&id| Event::RecordSynced(id));
            let speaks = |body: &&Body| body.state != BodyState::Idle;
            let mut bodies = self.bodies.0.iter().flatten().filter(speaks);
            let word = bodies.find_map(|body| body.words().into_iter().next());
            let next = record.or(word).map(|event| (self.now, event));
            let time = self.pool.deadline().map(|at| (at, Event::TimeReached));
            let Some((now, event)) = next.or(time) else {
                return Err(format!("nothing happens any more before {what}: {self:?}"));
            };
            self.take(now, event)?;
        }
        Err(format!("it takes for ever until {what}: {self:?}"))
    }

    /// What an event says of the surroundings.
    fn hear(&mut self, event: &Event) {
        match event {
            Event::JobSubmitted(_) => self.submitted += 1,
            Event::CancelRequested(id) => self.cancelled.push(*id),
            Event::RecordSynced(_) => drop(self.recording.pop_front()),
            Event::SpawnFailed(worker) | Event::WorkerExited(worker) => {
                if let Some(body) = self.bodies.0.get_mut(usize::from(worker.slot.0)) {
                    *body = None;
                }
            }
            Event::WorkerReady(worker) | Event::JobEnded(worker, ..) => {
                self.become_(*worker, BodyState::Idle);
            }
            Event::JobStarted(worker, run) => self.become_(*worker, BodyState::Running(*run)),
            Event::PingAnswered(worker, _) => {
                if let Some(body) = self.body(*worker) {
                    body.ping = None;
                }
            }
            Event::PauseRequested => self.asked.push(Request::Pause),
            Event::ResumeRequested => self.asked.push(Request::Resume),
            Event::DrainRequested(_) => self.asked.push(Request::Drain),
            Event::ShutdownRequested { .. } => self.asked.push(Request::Shutdown),
            Event::RecycleRequested => self.asked.push(Request::Recycle),
            Event::ResizeRequested(slots) if *slots == self.size.slots => {
                self.asked.push(Request::Shrink);
            }
            Event::ResizeRequested(_) => self.asked.push(Request::Grow),
            Event::WorkerViolated(_)
            | Event::SettingsChanged(_)
            | Event::ClearRequested { .. }
            | Event::TenantRulesChanged(_)
            | Event::TimeReached => {}
        }
    }

    fn carry_out(&mut self, action: &Action) {
        match *action {
            Action::Record(id, _) => self.recording.push_back(id),
            Action::Spawn(worker) => {
                if let Some(body) = self.bodies.0.get_mut(usize::from(worker.slot.0)) {
                    *body = Some(Body {
                        worker,
                        state: BodyState::Booting,
                        ping: None,
                    });
                }
            }
            Action::Assign(worker, run) => self.become_(worker, BodyState::Loading(run)),
            Action::Stop(worker, run) => self.become_(worker, BodyState::Stopping(run)),
            Action::Ping(worker, number) => {
                if let Some(body) = self.body(worker) {
                    body.ping = Some(number);
                }
            }
            Action::Kill(worker, _) => {
                if let Some(body) = self.body(worker) {
                    body.ping = None;
                    body.state = match body.state {
                        BodyState::Booting => BodyState::KilledUnborn,
                        BodyState::Idle
                        | BodyState::Loading(_)
                        | BodyState::Running(_)
                        | BodyState::Stopping(_)
                        | BodyState::Retiring
                        | BodyState::KilledUnborn
                        | BodyState::Killed(_) => BodyState::Killed(body.run()),
                    };
                }
            }
            Action::Retire(worker) => self.become_(worker, BodyState::Retiring),
            Action::Accept(_)
            | Action::Refuse(..)
            | Action::Requeue { .. }
            | Action::Retry { .. }
            | Action::Conclude(..)
            | Action::Stopped => {}
        }
    }

    fn body(&mut self, worker: WorkerRef) -> Option<&mut Body> {
        let body = self.bodies.0.get_mut(usize::from(worker.slot.0))?;
        body.as_mut().filter(|body| body.worker == worker)
    }

    fn become_(&mut self, worker: WorkerRef, state: BodyState) {
        if let Some(body) = self.body(worker) {
            body.state = state;
            if body.run().is_none() {
                body.ping = None;
            }
        }
    }
}

impl Operator {
    const fn requests(self) -> &'static [Request] {
        match self {
            Self::Meddles => &[
                Request::Pause,
                Request::Resume,
                Request::Drain,
                Request::Shutdown,
            ],
            Self::Recycles => &[Request::Recycle],
            Self::Resizes => &[Request::Grow, Request::Shrink],
            Self::Sleeps => &[],
        }
    }
}

impl Request {
    const fn event(self, slots: u16) -> Event {
        match self {
            Self::Recycle => Event::RecycleRequested,
            Self::Grow => Event::ResizeRequested(slots + 1),
            Self::Shrink => Event::ResizeRequested(slots),
            Self::Pause => Event::PauseRequested,
            Self::Resume => Event::ResumeRequested,
            Self::Drain => Event::DrainRequested(DrainScope::Running),
            Self::Shutdown => Event::ShutdownRequested {
                grace: Duration::from_secs(1),
            },
        }
    }
}

/// The jobs of small worlds differ as much as so few can: class, attempts, expiry.
fn job(number: u64) -> NewJob {
    let even = number.is_multiple_of(2);
    NewJob {
        id: JobId(number),
        tenant: "ann".to_owned(),
        priority: if even { Priority::Low } else { Priority::High },
        rank: 0,
        bytes: 10,
        run_time_max: Duration::from_secs(2),
        delay: Duration::ZERO,
        start_within: (!even).then_some(Duration::from_secs(12)),
        attempts_max: 2,
        retry_on: RetryRule::WORKER_LOST,
    }
}
