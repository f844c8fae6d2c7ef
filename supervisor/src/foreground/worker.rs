//! The worker of a run in the foreground: born for it, killed with it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use wpool_protocol::id::{Generation, SlotId, WorkerRef};
use wpool_protocol::wire::{IsolationPolicy, Setup};
use wpool_sys::birth::FailureReport;

use crate::birth::ids::Ids;
use crate::birth::{
    BinarySource, BirthError, Nursery, NurseryError, NurseryPlan, ProfilePlan, Session,
};
use crate::config::{DEFAULT_PROFILE, usable_cores};
use crate::output::OutputStore;

/// The only worker there is.
pub const SELF: WorkerRef = WorkerRef {
    slot: SlotId(0),
    generation: Generation(1),
};

/// There is no worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Nothing to make one of.
    #[error(transparent)]
    Nursery(#[from] NurseryError),
    /// The kernel makes none.
    #[error("no worker can be started, see `wpool doctor`")]
    Birth(#[source] BirthError),
    /// Something that its jobs are to see cannot be had.
    #[error(transparent)]
    Mount(BirthError),
}

/// What a worker is born for.
#[derive(Debug)]
pub struct WorkerPlan<'a> {
    /// What to do about a missing security layer.
    pub policy: IsolationPolicy,
    /// What its jobs see beside the system directories: a host path, and where it appears.
    pub mounts: Vec<(PathBuf, String)>,
    /// Room for one output stream in the store, bytes.
    pub stream_bytes: u64,
    /// Whose ids its jobs have.
    pub ids: Ids,
    /// What becomes its job's descriptors 0, 1 and 2, if the store does not.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
}

/// A worker, and our ends of its pipes.
#[derive(Debug)]
pub struct Worker {
    /// Our end of what it reads.
    pub commands: OwnedFd,
    /// Our end of what it writes.
    pub replies: OwnedFd,
    /// Its process; there is none in tests.
    pub process: Option<Process>,
    /// What its job wrote.
    pub store: OutputStore,
    /// What it is to build.
    pub setup: Setup,
}

/// The process of a worker.
#[derive(Debug)]
pub struct Process {
    pidfd: OwnedFd,
    failure: FailureReport,
    /// What ends with it.
    _session: Option<Session>,
    /// What it was born of: its ids are nobody else's as long as this is there.
    _nursery: Nursery,
}

impl Worker {
    /// Gives birth to a worker, on the thread that it is to die with.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] says what cannot be had.
    pub fn bear(plan: WorkerPlan<'_>) -> Result<Self, WorkerError> {
        let nursery = Nursery::new(NurseryPlan {
            policy: plan.policy,
            profiles: vec![ProfilePlan {
                name: DEFAULT_PROFILE.to_owned(),
                mounts: plan.mounts,
            }],
            stream_bytes: plan.stream_bytes,
            cores: usable_cores().0,
            binary: BinarySource::File,
            cgroup: None,
            ids: plan.ids,
        })?;
        let newborn = nursery
            .bear_with(SELF, plan.stdio)
            .map_err(|error| match error {
                BirthError::Mount { .. } => WorkerError::Mount(error),
                other => WorkerError::Birth(other),
            })?;
        Ok(Self {
            commands: newborn.commands,
            replies: newborn.replies,
            process: Some(Process {
                pidfd: newborn.pidfd,
                failure: newborn.failure,
                _session: newborn.session,
                _nursery: nursery,
            }),
            store: newborn.store,
            setup: newborn.setup,
        })
    }

    /// Ends it and everything in it, at once, and tells why it never was if that is so.
    pub fn bury(&mut self) -> Option<String> {
        let mut process = self.process.take()?;
        process.end();
        process.failure.read()
    }
}

impl Process {
    /// Kills it and waits for it: pid 1 of its namespaces, so that everything in them is gone then.
    fn end(&self) {
        // Both fail only if it is dead and reaped already.
        drop(pidfd_send_signal(&self.pidfd, Signal::KILL).map_err(io::Error::from));
        let reaped = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        drop(reaped.map_err(io::Error::from));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            process.end();
        }
    }
}
