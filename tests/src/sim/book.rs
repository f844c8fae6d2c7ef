//! What clients were told of their jobs, across the supervisor's lives.
//!
//! # Invariants
//!
//! - Nothing is told that a crash can take back: what was told is durable.
//! - A job that was told accepted is told ended, once, in whatever life.

use std::collections::{BTreeMap, BTreeSet};

use wpool_pool::action::Action;
use wpool_pool::event::NewJob;
use wpool_protocol::id::JobId;

use crate::sim::oracle::Verdict;
use crate::sim::recorder::Recorder;

/// What clients know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// Jobs that were submitted and of whose end nobody was told.
    open: BTreeMap<JobId, NewJob>,
    accepted: BTreeSet<JobId>,
    ended: BTreeSet<JobId>,
}

impl Book {
    pub(crate) fn submitted(&mut self, new: &NewJob) {
        self.open.entry(new.id).or_insert_with(|| new.clone());
    }

    pub(crate) fn told(&mut self, action: &Action) -> Verdict {
        match action {
            Action::Accept(id) => {
                self.accepted.insert(*id);
            }
            Action::Refuse(id, _) => {
                require!(
                    !self.accepted.contains(id),
                    "{id} was accepted before a crash, and is refused after it"
                );
                self.open.remove(id);
            }
            Action::Conclude(id, _) => {
                require!(self.ended.insert(*id), "{id} has ended in two lives");
                self.open.remove(id);
            }
            _ => {}
        }
        Ok(())
    }

    /// The supervisor has crashed: the jobs that its next life has to take up.
    ///
    /// # Errors
    ///
    /// Something was told that is not in the records.
    pub(crate) fn after_crash(&mut self, records: &Recorder) -> Result<Vec<NewJob>, String> {
        for id in &self.accepted {
            require!(
                records.is_accepted(*id),
                "{id} was told accepted, and no record of it is left"
            );
        }
        for id in &self.ended {
            require!(
                records.has_ended(*id),
                "{id} was told ended, and no record of it is left"
            );
        }
        // Whose end is on record is told it by the next life; whose submission is not has to come again.
        self.open
            .retain(|id, _| records.is_accepted(*id) && !records.has_ended(*id));
        Ok(self.open.values().cloned().collect())
    }

    /// Everything has reached its end.
    pub(crate) fn close(&self, records: &Recorder) -> Verdict {
        let forgotten = self
            .accepted
            .iter()
            .find(|id| !self.ended.contains(id) && !records.has_ended(**id));
        require!(
            forgotten.is_none(),
            "{forgotten:?} was accepted, and nobody heard of its end"
        );
        Ok(())
    }
}
