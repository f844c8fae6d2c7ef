//! `wait4(2)`: a child's end with what it used.
//!
//! # Invariants
//!
//! - Only children that have ended are reported; stopped ones are not.

use std::io;
use std::time::Duration;

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Its pid.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
}

/// What processes used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// CPU time in their own code.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// The largest resident set that one of them had, bytes.
    pub resident_max_bytes: u64,
}

/// What [`reap`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until a child ends.
    Wait,
    /// Not at all.
    Poll,
}

/// Reaps one child that has ended; `None` if there are children and none has, or none is left.
///
/// # Errors
///
/// Those of `wait4(2)` but `ECHILD`, which is [`Children::None`].
pub fn reap(patience: Patience) -> io::Result<Children> {
    let options = match patience {
        Patience::Wait => 0,
        Patience::Poll => libc::WNOHANG,
    };
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live int; usage is not asked for.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, options | libc::__WALL) };
        match pid {
            -1 => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ECHILD) => return Ok(Children::None),
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
            0 => return Ok(Children::Alive),
            pid => {
                if let Some(exit) = exit_of(status) {
                    let pid = pid.unsigned_abs();
                    return Ok(Children::Reaped(Reaped { pid, exit }));
                }
            }
        }
    }
}

/// What [`reap`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// This one had ended.
    Reaped(Reaped),
    /// There are some, and none has ended.
    Alive,
    /// There are none.
    None,
}

fn exit_of(status: libc::c_int) -> Option<Exit> {
    if libc::WIFEXITED(status) {
        u8::try_from(libc::WEXITSTATUS(status)).ok().map(Exit::Code)
    } else if libc::WIFSIGNALED(status) {
        u8::try_from(libc::WTERMSIG(status)).ok().map(Exit::Signal)
    } else {
        None
    }
}

/// What all reaped children used, and what they had reaped themselves (`RUSAGE_CHILDREN`).
///
/// # Errors
///
/// Those of `getrusage(2)`.
pub fn usage_of_reaped() -> io::Result<ResourceUsage> {
    // SAFETY: `rusage` is plain data for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a live rusage.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(ResourceUsage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        resident_max_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    })
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
        + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}
