//! What the driver holds of the worker in a slot.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::process::{Signal, pidfd_send_signal};
use wpool_pool::action::KillReason;
use wpool_protocol::id::{AttemptRef, WorkerRef};
use wpool_protocol::outcome::Isolation;
use wpool_protocol::phase::Phase;
use wpool_protocol::wire::{Refused, Setup, ToWorker};
use wpool_sys::birth::FailureReport;

use super::link::{Exit, Link, Speech};
use crate::birth::Session;
use crate::cgroup::SlotDirectory;
use crate::gather::Gathered;
use crate::output::OutputStore;

/// Pings that may be on their way to a worker; the pool has never more than one that it waits for.
const PINGS_MAX: usize = 64;

/// What the driver holds of the worker in a slot.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) worker: WorkerRef,
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) link: Link,
    pub(super) store: Arc<OutputStore>,
    pub(super) setup: Setup,
    pub(super) failure: Option<FailureReport>,
    /// Its cgroup, to be removed when it is gone.
    pub(super) cgroup: Option<SlotDirectory>,
    /// What ends with this.
    pub(super) _session: Option<Session>,
    /// Where it is in the dialogue.
    pub(super) phase: Phase,
    pub(super) isolation: Isolation,
    /// The run that it was last given, until the pool knows how that ended.
    pub(super) attempt: Option<AttemptRef>,
    /// The run that it has, until it says that it is over.
    pub(super) run: Option<Run>,
    /// Pings that it has not answered.
    pub(super) pings: VecDeque<u64>,
    /// Why it was killed, if it was.
    pub(super) killed: Option<KillReason>,
    /// What it did that it may not.
    pub(super) violation: Option<String>,
    /// Why it will not work.
    pub(super) refused: Option<Refused>,
    /// What its run left behind is being taken in; its exit waits for that.
    pub(super) is_collecting: bool,
    /// How it ended, while that waits.
    pub(super) exit: Option<Exit>,
}

/// A run, as long as it goes on.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) attempt: AttemptRef,
    pub(super) course: RunCourse,
    /// Its output limit.
    pub(super) output_bytes: u64,
    pub(super) gathered: Gathered,
    pub(super) follow: Follow,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunCourse {
    /// Its worker has it: the store holds what is another job's.
    Given,
    /// Its program runs.
    Started,
}

/// Whether a worker was asked to say when there is more output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    Unasked,
    Asked,
}

impl Run {
    /// The store, once what is in it is this run's.
    pub(super) fn own_store(&self, store: &Arc<OutputStore>) -> Option<Arc<OutputStore>> {
        match self.course {
            RunCourse::Given => None,
            RunCourse::Started => Some(Arc::clone(store)),
        }
    }
}

impl Seat {
    /// Says a message; one that is lost shows in the pool's deadlines.
    pub(super) fn say(&self, message: ToWorker) {
        if let Err(Speech::Message(lost)) = self.link.say(Speech::Message(message)) {
            tracing::warn!(
                slot = self.worker.slot.0,
                generation = self.worker.generation.0,
                "a worker does not read: {} is lost",
                name(&lost)
            );
        }
    }

    /// Asks whether it is there.
    pub(super) fn ping(&mut self, number: u64) {
        if self.pings.len() == PINGS_MAX {
            self.pings.pop_front();
        }
        self.pings.push_back(number);
        self.say(ToWorker::Ping(number));
    }

    /// Takes note of an answer; whether it was asked for.
    pub(super) fn answered(&mut self, number: u64) -> bool {
        let asked = self.pings.iter().position(|asked| *asked == number);
        asked.is_some_and(|at| self.pings.remove(at).is_some())
    }

    /// Ends it and everything in it.
    pub(super) fn kill(&self) {
        // It fails only if the process has ended already, and then its exit is on its way.
        if let Err(error) = pidfd_send_signal(&self.pidfd, Signal::KILL) {
            tracing::debug!(pid = self.pid, %error, "a worker was dead when it was to be killed");
        }
    }
}

/// What a message is about, for the log.
fn name(message: &ToWorker) -> &'static str {
    match message {
        ToWorker::Hello(_) => "a greeting",
        ToWorker::Setup(_) => "a set-up",
        ToWorker::Job(_) | ToWorker::Input(_) | ToWorker::Start(_) => "a job",
        ToWorker::Stop(_) => "an order to stop",
        ToWorker::Follow(_) => "a wish to follow",
        ToWorker::Ping(_) => "a ping",
        ToWorker::Retire => "an order to retire",
    }
}

/// Why the pool killed a worker, for people.
pub(super) fn kill_in_words(reason: KillReason) -> &'static str {
    match reason {
        KillReason::NotReady => "it was not ready in time",
        KillReason::Silent => "it did not answer",
        KillReason::Violation => "it said something that it may not say",
        KillReason::Overrun => "its job's time was over and it did not end it",
        KillReason::StopIgnored => "it did not stop its job when it was told to",
        KillReason::BoxFailed => "the box of its job failed",
        KillReason::RetireIgnored => "it did not retire when it was told to",
        KillReason::Shutdown => "the supervisor shut down",
        KillReason::Shrunk => "the pool got fewer slots",
    }
}
