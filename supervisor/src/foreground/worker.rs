//! The worker of a run in the foreground: born for it, killed with it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use rustix::thread::{CpuSet, sched_getaffinity};
use wpool_protocol::id::{Generation, SlotId, WorkerRef};
use wpool_protocol::wire::{IsolationPolicy, Setup};
use wpool_sys::birth::FailureReport;

use crate::birth::{BinarySource, BirthError, Nursery, NurseryError, NurseryPlan, ProfilePlan};
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
    #[error("{0}: see `wpool doctor`")]
    Birth(#[source] BirthError),
    /// A place in the sandbox that is no text.
    #[error("{0} is not UTF-8: name another place in the sandbox")]
    Destination(PathBuf),
}

/// What a worker is born for.
#[derive(Debug, Default)]
pub struct WorkerPlan<'a> {
    /// What its jobs see beside the system directories: a host path, and where it appears.
    pub read_only: &'a [(PathBuf, PathBuf)],
    /// Room for one output stream in the store, bytes.
    pub stream_bytes: u64,
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
}

impl Worker {
    /// Gives birth to a worker, on the thread that it is to die with.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] says what cannot be had.
    pub fn bear(plan: &WorkerPlan<'_>) -> Result<Self, WorkerError> {
        let mounts = plan.read_only.iter().map(|(path, destination)| {
            let destination = destination.to_str().map(str::to_owned);
            let destination = destination.ok_or_else(|| WorkerError::Destination(path.clone()))?;
            Ok((path.clone(), destination))
        });
        let nursery = Nursery::new(NurseryPlan {
            policy: IsolationPolicy::Required,
            profiles: vec![ProfilePlan {
                name: "default".to_owned(),
                mounts: mounts.collect::<Result<_, WorkerError>>()?,
            }],
            stream_bytes: plan.stream_bytes,
            cores: own_cores(),
            binary: BinarySource::File,
        })?;
        let newborn = nursery
            .bear_with(SELF, plan.stdio)
            .map_err(WorkerError::Birth)?;
        Ok(Self {
            commands: newborn.commands,
            replies: newborn.replies,
            process: Some(Process {
                pidfd: newborn.pidfd,
                failure: newborn.failure,
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

/// The cores that this process may use.
fn own_cores() -> Vec<u16> {
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .filter_map(|core| u16::try_from(core).ok())
        .collect()
}
