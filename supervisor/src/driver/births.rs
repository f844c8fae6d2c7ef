//! Where workers come from: the nursery, or in tests somebody who plays them.

use std::os::fd::OwnedFd;

use wpool_protocol::id::WorkerRef;
use wpool_protocol::wire::{Refused, Setup};
use wpool_sys::birth::FailureReport;

use crate::birth::{BirthError, Nursery, Session};
use crate::cgroup::SlotDirectory;
use crate::diagnosis::Failure;
use crate::output::OutputStore;

/// A worker that has just been born.
#[derive(Debug)]
pub struct Born {
    /// Its pid as the host sees it.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Where its commands go.
    pub commands: OwnedFd,
    /// Where its replies come from.
    pub replies: OwnedFd,
    /// Where its jobs' output is.
    pub store: OutputStore,
    /// What to say after the greeting.
    pub setup: Setup,
    /// Tells why it could not exec, once it has exited.
    pub failure: Option<FailureReport>,
    /// Its cgroup, to be removed when it is gone.
    pub cgroup: Option<SlotDirectory>,
    /// What is to be ended after it, where no pid namespace ends with it.
    pub session: Option<Session>,
}

/// Where workers come from.
pub trait Births {
    /// Gives birth to a worker, on the thread that it is to die with.
    ///
    /// # Errors
    ///
    /// [`BirthError`] says what failed; no process is left then.
    fn give_birth(&mut self, worker: WorkerRef) -> Result<Born, BirthError>;

    /// Why something failed here, with what to do.
    fn explain(&self, failure: &Failure) -> Refused {
        failure.unexplained()
    }
}

impl Births for Nursery {
    fn give_birth(&mut self, worker: WorkerRef) -> Result<Born, BirthError> {
        let newborn = self.bear(worker)?;
        Ok(Born {
            pid: newborn.pid,
            pidfd: newborn.pidfd,
            commands: newborn.commands,
            replies: newborn.replies,
            store: newborn.store,
            setup: newborn.setup,
            failure: Some(newborn.failure),
            cgroup: newborn.cgroup,
            session: newborn.session,
        })
    }

    fn explain(&self, failure: &Failure) -> Refused {
        failure.explained()
    }
}
