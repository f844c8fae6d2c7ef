//! A job's processes where it has no pid namespace: one process group, in the session of its worker.
//!
//! The filter refuses `setsid` and `setpgid`, so that nobody leaves the group, and one signal reaches all of it, which no fork
//! outruns: the kernel lets no process fork that has a deadly signal pending (`copy_process`).
//!
//! # Invariants
//!
//! - A group is named by the pid of the job's first process, which is not given to another as long as one process is in it.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// Sends a signal to every process of a group; nobody may be left.
pub(crate) fn signal(leader: u32, signal: Signal) -> io::Result<()> {
    match killpg(pid(leader), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Kills a group whose parent is dead, and reaps all that comes to this process, which must be a subreaper.
pub(crate) fn end(leader: u32) -> io::Result<()> {
    signal(leader, Signal::SIGKILL)?;
    let group = rustix::process::Pid::from_raw(pid(leader).as_raw());
    loop {
        match waitid(WaitId::Pgid(group), WaitIdOptions::EXITED) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn pid(leader: u32) -> Pid {
    // A pid is below 2^22 (`PID_MAX_LIMIT`).
    Pid::from_raw(i32::try_from(leader).unwrap_or(i32::MAX))
}
