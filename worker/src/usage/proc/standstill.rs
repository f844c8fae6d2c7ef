//! Holds a tree still for one look, and says whether a look needs that.
//!
//! Tasks that live for some µs each and hand one address space on (`clone(CLONE_VM)`, threads behind a first thread that has
//! ended) are gone whenever they are read. But memory passes to nobody but who is born: a look during which no task was
//! born, neither process nor thread, has missed nothing. Where look after look is torn by births, all that is below the worker
//! is stopped for one.
//!
//! `SIGSTOP` to pid -1 leaves no gap: the kernel takes a fork in the middle of it for done before, and its child stops, too
//! (`copy_process`). What a job can see of it: time that passed, a call that was interrupted (signal(7), "Interruption of system calls
//! by stop signals"), and that its children were stopped and continued, if it asks.
//!
//! # Invariants
//!
//! - Only pid 1 of a pid namespace stops what is in it, for all of that descends from it.
//! - Whatever was stopped here runs again before the look ends, or the job is ended: a killed process needs no SIGCONT. Who had
//!   stopped before is left as it is.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};

use super::{TreeError, TreeReader, reading};

/// The pid that was given last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::usage) struct LastBorn(u32);

/// All that is below the worker is stopped.
#[derive(Debug)]
#[must_use = "what is stopped has to run again"]
pub(in crate::usage) struct Standstill {
    /// Those that are to stay so.
    stopped_before: Vec<u32>,
}

/// Counts births in the worker's pid namespace and below.
#[derive(Debug)]
pub(super) struct Births {
    /// `/proc/loadavg`, kept open.
    load: OwnedFd,
}

impl Births {
    /// `None` where others are born, too: this process is not the first of its pid namespace.
    pub(super) fn new(proc: BorrowedFd<'_>, own_pid: u32) -> Result<Option<Self>, TreeError> {
        if own_pid != 1 {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let load = rustix::fs::openat(proc, c"loadavg", flags, Mode::empty());
        Ok(Some(Self {
            load: load.map_err(reading("the births"))?,
        }))
    }

    /// The last of its five fields, for which proc(5) says: the pid that was given last.
    fn last(&self) -> io::Result<LastBorn> {
        let mut text = [0; 128];
        let len = rustix::io::pread(self.load.as_fd(), &mut text, 0)?;
        let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default());
        let last = text.split_ascii_whitespace().nth(4);
        let last = last.and_then(|pid| pid.parse().ok());
        last.map(LastBorn)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl TreeReader {
    /// Who was born last: if that stays the same, nobody is born. `None` where that cannot be told.
    ///
    /// # Errors
    ///
    /// [`TreeError`]
    pub(in crate::usage) fn last_born(&self) -> Result<Option<LastBorn>, TreeError> {
        let last = self.births.as_ref().map(Births::last).transpose();
        last.map_err(reading("the births"))
    }

    /// Stops all that is below the worker; `None` if it is not for this process to do.
    ///
    /// # Errors
    ///
    /// [`TreeError`]: nothing is stopped.
    pub(in crate::usage) fn stop(&mut self) -> Result<Option<Standstill>, TreeError> {
        if self.births.is_none() {
            return Ok(None);
        }
        // Who has stopped by itself, as late as it can be known.
        self.sums()?;
        let stopped_before = std::mem::take(&mut self.stopped);
        signal(ALL, Signal::SIGSTOP).map_err(reading("the standstill"))?;
        Ok(Some(Standstill { stopped_before }))
    }

    /// Lets run again what was stopped.
    ///
    /// # Errors
    ///
    /// [`TreeError`]: one stands still for ever.
    pub(in crate::usage) fn resume(&mut self, standstill: &Standstill) -> Result<(), TreeError> {
        // Nobody is born while all stand still: none is left out.
        let mut resumed = Ok(());
        for pid in self.pids()? {
            if !standstill.stopped_before.contains(&pid) {
                let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
                resumed = resumed.and(signal(pid, Signal::SIGCONT));
            }
        }
        resumed.map_err(reading("the standstill"))
    }
}

/// All processes that can be signalled but this one, which is the first of its pid namespace.
const ALL: Pid = Pid::from_raw(-1);

/// Sends a signal; whoever is gone needs none.
fn signal(to: Pid, signal: Signal) -> Result<(), Errno> {
    match kill(to, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error),
    }
}
