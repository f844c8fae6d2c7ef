//! A pool with a recorder that answers at once, and short words for events.

use std::num::NonZeroU32;
use std::time::Duration;

use wpool_pool::action::{Action, Actions, Conclusion};
use wpool_pool::event::{Event, JobEnd, NewJob, RetryRule};
use wpool_pool::pool::Pool;
use wpool_pool::settings::Settings;
use wpool_pool::time::Instant;
use wpool_protocol::id::{AttemptNumber, AttemptRef, Generation, JobId, SlotId, WorkerRef};
use wpool_protocol::job::Priority;

pub(crate) struct Story {
    pub(crate) pool: Pool,
    pub(crate) now: Duration,
}

pub(crate) fn worker(slot: u16, generation: u32) -> WorkerRef {
    WorkerRef {
        slot: SlotId(slot),
        generation: Generation(generation),
    }
}

pub(crate) fn attempt(job: u64, number: u32) -> AttemptRef {
    AttemptRef {
        job: JobId(job),
        attempt: AttemptNumber(NonZeroU32::new(number).expect("runs are counted from 1")),
    }
}

pub(crate) fn job(id: u64) -> NewJob {
    NewJob {
        id: JobId(id),
        tenant: "ann".to_owned(),
        priority: Priority::Normal,
        rank: 0,
        bytes: 10,
        run_time_max: Duration::from_secs(30),
        delay: Duration::ZERO,
        start_within: None,
        attempts_max: 3,
        retry_on: RetryRule::WORKER_LOST,
    }
}

impl Story {
    /// Nothing has happened yet.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            pool: Pool::new(settings, 1),
            now: Duration::ZERO,
        }
    }

    /// So many workers are ready and have been for a while.
    pub(crate) fn with_workers(slots: u16) -> Self {
        let mut story = Self::new(Settings::default_for(slots));
        story.on(Event::TimeReached);
        for slot in 0..slots {
            story.on(Event::WorkerReady(worker(slot, 1)));
        }
        story.now = Duration::from_secs(1);
        story
    }

    /// What the pool asks for after an event, its records left unanswered.
    pub(crate) fn on_unrecorded(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Actions::new();
        self.pool
            .handle(Instant::new(self.now), event, &mut actions);
        actions
    }

    /// What the pool asks for after an event, its records answered at once and left out.
    pub(crate) fn on(&mut self, event: Event) -> Vec<Action> {
        let mut all = Vec::new();
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.on_unrecorded(event) {
                match action {
                    Action::Record(id, _) => events.insert(0, Event::RecordSynced(id)),
                    other => all.push(other),
                }
            }
        }
        all
    }

    pub(crate) fn submit(&mut self, job: NewJob) -> Vec<Action> {
        self.on(Event::JobSubmitted(job))
    }

    /// Submits a job and lets it run on the worker.
    pub(crate) fn run(&mut self, job: NewJob, worker: WorkerRef) -> AttemptRef {
        let run = attempt(job.id.0, 1);
        let actions = self.submit(job);
        assert!(
            actions.contains(&Action::Assign(worker, run)),
            "{actions:?}"
        );
        self.on(Event::PingAnswered(worker, 1));
        self.on(Event::JobStarted(worker, run));
        run
    }

    pub(crate) fn end(&mut self, worker: WorkerRef, run: AttemptRef, end: JobEnd) -> Vec<Action> {
        self.on(Event::JobEnded(worker, run, end))
    }

    /// Goes to the pool's deadline; pings are answered on the way. What else the pool asks for there.
    pub(crate) fn on_deadline(&mut self) -> Vec<Action> {
        loop {
            let deadline = self.pool.deadline().expect("the pool waits for something");
            self.now = deadline.since_start();
            let mut actions = self.on(Event::TimeReached);
            let pings: Vec<_> = actions
                .extract_if(.., |action| matches!(action, Action::Ping(..)))
                .collect();
            if !actions.is_empty() || pings.is_empty() {
                return actions;
            }
            for ping in pings {
                if let Action::Ping(worker, number) = ping {
                    self.on(Event::PingAnswered(worker, number));
                }
            }
        }
    }
}

/// The conclusions among actions.
pub(crate) fn conclusions(actions: &[Action]) -> Vec<(u64, Conclusion)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Conclude(id, conclusion) => Some((id.0, *conclusion)),
            Action::Record(..)
            | Action::Accept(_)
            | Action::Refuse(..)
            | Action::Spawn(_)
            | Action::Assign(..)
            | Action::Stop(..)
            | Action::Ping(..)
            | Action::Kill(..)
            | Action::Retire(_)
            | Action::Requeue { .. }
            | Action::Retry { .. }
            | Action::Stopped => None,
        })
        .collect()
}
