//! The processes of a small world: what each can say next.

use wpool_pool::event::{Event, JobEnd};
use wpool_protocol::id::{AttemptRef, JobId, SlotId, WorkerRef};

use crate::sim::process::Reality;

/// The processes of a small world: each dies at the moment at which the news of it arrives.
#[derive(Clone, Debug, Hash)]
pub(super) struct Bodies(pub(super) Vec<Option<Body>>);

#[derive(Clone, Debug, Hash)]
pub(super) struct Body {
    pub(super) worker: WorkerRef,
    pub(super) state: BodyState,
    pub(super) ping: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum BodyState {
    Booting,
    Idle,
    Loading(AttemptRef),
    Running(AttemptRef),
    Stopping(AttemptRef),
    Retiring,
    /// Killed before it was known whether it could be born at all.
    KilledUnborn,
    /// Killed: all that is left to tell is its end. What it ran is still there until then.
    Killed(Option<AttemptRef>),
}

impl Reality for Bodies {
    fn lives_in(&self, slot: SlotId) -> bool {
        self.0.get(usize::from(slot.0)).is_some_and(Option::is_some)
    }

    fn runs(&self, job: JobId) -> bool {
        self.0
            .iter()
            .flatten()
            .any(|body| body.run().is_some_and(|run| run.job == job))
    }
}

impl Body {
    pub(super) const fn run(&self) -> Option<AttemptRef> {
        match self.state {
            BodyState::Loading(run) | BodyState::Running(run) | BodyState::Stopping(run) => {
                Some(run)
            }
            BodyState::Killed(run) => run,
            BodyState::Booting
            | BodyState::Idle
            | BodyState::Retiring
            | BodyState::KilledUnborn => None,
        }
    }

    /// What can be heard of it next; what would be heard if nothing goes wrong comes first.
    pub(super) fn words(&self) -> Vec<Event> {
        let worker = self.worker;
        let exited = Event::WorkerExited(worker);
        let mut words = match self.state {
            BodyState::Booting => vec![
                Event::WorkerReady(worker),
                exited,
                Event::SpawnFailed(worker),
            ],
            BodyState::Idle => vec![exited, Event::WorkerViolated(worker)],
            BodyState::Loading(run) => vec![
                Event::JobStarted(worker, run),
                Event::JobEnded(worker, run, JobEnd::BoxFailed),
                exited,
            ],
            BodyState::Running(run) => vec![
                Event::JobEnded(worker, run, JobEnd::Succeeded),
                Event::WorkerViolated(worker),
                exited,
            ],
            BodyState::Stopping(run) => vec![
                Event::JobEnded(worker, run, JobEnd::Stopped),
                Event::JobEnded(worker, run, JobEnd::Failed),
                exited,
            ],
            BodyState::KilledUnborn => vec![Event::SpawnFailed(worker), exited],
            BodyState::Retiring | BodyState::Killed(_) => vec![exited],
        };
        if let (Some(number), Some(_)) = (self.ping, self.run()) {
            words.insert(0, Event::PingAnswered(worker, number));
        }
        words
    }
}
