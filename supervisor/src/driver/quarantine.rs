//! Jobs that were set aside: tried again under a new id, or let go.
//!
//! # Invariants
//!
//! - A job is released at most once. Its outcome stays; it names the new job, which names it.
//! - What is released passes admission as every job does; if it is refused, it can still be released.
//! - Nothing of this is for a job that ended otherwise, or for somebody who may not see it.

use tokio::sync::oneshot;
use wpool_pool::event::Event;
use wpool_protocol::id::JobId;
use wpool_protocol::outcome::JobState;

use super::Driver;
use super::command::SubmitAnswer;
use super::job::Job;
use super::obey::may_see;
use crate::request::Caller;

/// Why nothing is done with a job that is in quarantine, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAside {
    /// There is none for this caller.
    NoJob,
    /// It is in this state.
    Is(JobState),
    /// It was released as this job.
    ReleasedAs(JobId),
}

impl Driver {
    /// Submits a copy of a quarantined job; whether that is accepted comes later.
    pub(super) fn release(
        &mut self,
        id: JobId,
        caller: &Caller,
    ) -> Result<oneshot::Receiver<SubmitAnswer>, NotAside> {
        self.set_aside(id, caller)?;
        let kept = self.register.ended(id).ok_or(NotAside::NoJob)?;
        if let Some(released_as) = kept.outcome.released_as {
            return Err(NotAside::ReleasedAs(released_as));
        }
        let mut request = kept.request.as_deref().ok_or(NotAside::NoJob)?.clone();
        request.released_from = Some(id);
        // Its attempts are new, and none of them has grown.
        request.limits.memory_bytes = request.memory_asked;
        self.last_id = self.last_id.next();
        let new_id = self.last_id;
        self.register.set_released(id, Some(new_id));
        tracing::info!(job = %id, released_as = %new_id, "a job is released from quarantine");
        let new = request.for_pool(new_id);
        let (reply, answer) = oneshot::channel();
        self.register
            .add(Job::new(new_id, request, Self::wall_clock(), reply));
        self.take_in(Event::JobSubmitted(new));
        Ok(answer)
    }

    /// Lets go of a quarantined job and of its outcome.
    pub(super) fn discard(&mut self, id: JobId, caller: &Caller) -> Result<(), NotAside> {
        self.set_aside(id, caller)?;
        self.register.forget(id);
        tracing::info!(job = %id, "a job in quarantine is discarded");
        Ok(())
    }

    /// Makes sure that a job is in quarantine, and the caller's business.
    fn set_aside(&mut self, id: JobId, caller: &Caller) -> Result<(), NotAside> {
        if let Some(job) = self.visible_job(id, caller) {
            return Err(NotAside::Is(job.state()));
        }
        let kept = self.register.ended(id);
        let kept = kept.filter(|kept| may_see(caller, &kept.outcome.tenant));
        match kept.map(|kept| kept.outcome.state) {
            None => Err(NotAside::NoJob),
            Some(JobState::Quarantined) => Ok(()),
            Some(state) => Err(NotAside::Is(state)),
        }
    }
}
