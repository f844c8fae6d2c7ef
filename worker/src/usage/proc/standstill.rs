//! Holds a tree still for one look, and says whether a look needs that.
//!
//! Tasks that live for some µs each and hand one address space on (`clone(CLONE_VM)`, threads behind a first thread that has
//! ended) are gone whenever they are read. But memory passes to nobody but who is born: a look during which no task was
//! born, neither process nor thread, has missed nothing. Where look after look is torn by births, and private memory of all processes
//! of the machine (`/proc/meminfo`) has grown by half of what the job had left when all was seen, all that is below the worker is stopped for one.
//!
//! `SIGSTOP` to pid -1 leaves no gap: the kernel takes a fork in the middle of it for done before, and its child stops, too
//! (`copy_process`). It is not innocent: time passes, a call is interrupted (signal(7), "Interruption of system calls by stop signals"), handlers
//! of SIGCONT run, and a parent that asks for it hears that its children were stopped. A shell with job control takes
//! that for its own; so it is done only where memory is gone that no look has found.
//!
//! # Invariants
//!
//! - Only pid 1 of a pid namespace stops what is in it, for all of that descends from it.
//! - Whatever was stopped here runs again before the look ends, or the job is ended: a killed process needs no SIGCONT. Who had
//!   stopped before, and was not continued since, is left as it is.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};

use super::text::{self, State};
use super::{TreeError, TreeReader, cpu_clock, reading};

/// What tells of births and of memory without a look at processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::usage) struct Outside {
    /// The pid that was given last: while it stays the same, nobody is born.
    last_born: u32,
    /// Private memory of all processes of the machine, bytes.
    pub(in crate::usage) private_bytes: u64,
}

impl Outside {
    /// Whether nobody was born between two moments.
    pub(in crate::usage) fn same_people(self, other: Self) -> bool {
        self.last_born == other.last_born
    }
}

/// All that is below the worker is stopped.
#[derive(Debug)]
#[must_use = "what is stopped has to run again"]
pub(in crate::usage) struct Standstill {
    stopped_before: Vec<Stopped>,
}

/// A process that was found stopped, and the CPU time that it had used then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    pub(super) pid: u32,
    pub(super) cpu: Duration,
}

/// Files of `/proc` about no process, kept open.
#[derive(Debug)]
pub(super) struct Sights {
    load: OwnedFd,
    memory: OwnedFd,
}

impl Sights {
    /// `None` where others are born, too: this process is not the first of its pid namespace.
    pub(super) fn new(proc: BorrowedFd<'_>, own_pid: u32) -> Result<Option<Self>, TreeError> {
        if own_pid != 1 {
            return Ok(None);
        }
        let open = |name: &str| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(proc, name, flags, Mode::empty());
            opened.map_err(reading("what is outside"))
        };
        Ok(Some(Self {
            load: open("loadavg")?,
            memory: open("meminfo")?,
        }))
    }

    fn look(&self) -> io::Result<Outside> {
        let mut text = [0; 4 << 10];
        let mut read = |file: &OwnedFd| -> io::Result<String> {
            let len = rustix::io::pread(file.as_fd(), &mut text, 0)?;
            Ok(String::from_utf8_lossy(text.get(..len).unwrap_or_default()).into_owned())
        };
        // The last of five fields, for which proc(5) says: the pid that was given last.
        let load = read(&self.load)?;
        let last = load.split_ascii_whitespace().nth(4);
        let last_born = last.and_then(|pid| pid.parse().ok());
        let private_bytes = text::private_of_machine(read(&self.memory)?.as_bytes());
        match (last_born, private_bytes) {
            (Some(last_born), Some(private_bytes)) => Ok(Outside {
                last_born,
                private_bytes,
            }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl TreeReader {
    /// What can be seen without a look at processes; `None` where that says nothing of this job.
    ///
    /// # Errors
    ///
    /// [`TreeError`]
    pub(in crate::usage) fn outside(&self) -> Result<Option<Outside>, TreeError> {
        let seen = self.sights.as_ref().map(Sights::look).transpose();
        seen.map_err(reading("what is outside"))
    }

    /// Stops all that is below the worker; `None` if it is not for this process to do.
    ///
    /// # Errors
    ///
    /// [`TreeError`]: nothing is stopped.
    pub(in crate::usage) fn stop(&mut self) -> Result<Option<Standstill>, TreeError> {
        if self.sights.is_none() {
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
            let before = standstill.stopped_before.iter().find(|it| it.pid == pid);
            if before.is_some_and(|before| self.stands_since(*before)) {
                continue;
            }
            let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
            resumed = resumed.and(signal(pid, Signal::SIGCONT));
        }
        resumed.map_err(reading("the standstill"))
    }

    /// Whether a process that was found stopped has not run since: it could have been continued just before all were stopped.
    fn stands_since(&mut self, before: Stopped) -> bool {
        let state = self.stat(before.pid, None).ok().flatten();
        state.is_some_and(|stat| stat.state == State::Stopped)
            && cpu_clock(before.pid) == Some(before.cpu)
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
