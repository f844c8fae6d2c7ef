//! `clone3(2)`: a child by fork, with namespaces, a pidfd and a cgroup of its own from its first moment.
//!
//! nix has no `clone3` and rustix neither; libc's `CLONE_INTO_CGROUP` and `CLONE_CLEAR_SIGHAND` are 0 by
//! an overflow, so that they are written out here (values of `linux/sched.h`).
//!
//! # Invariants
//!
//! - The child shares nothing with its parent but what a fork shares; no `CLONE_VM`.
//! - Its exit is announced by SIGCHLD, so that `wait` needs no `__WALL`.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use crate::namespaces::Namespaces;

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A new child, as its parent sees it.
#[derive(Debug)]
pub struct Child {
    /// Its pid in the parent's pid namespace.
    pub pid: u32,
    /// Its pidfd; close-on-exec.
    pub pidfd: OwnedFd,
}

/// The proof that this process has one thread: in its forks, ordinary code may run.
///
/// Not `Send`: it stays with the thread that made it.
#[derive(Clone, Copy, Debug)]
pub struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// Looks whether this process has one thread.
    ///
    /// # Errors
    ///
    /// Of reading `/proc/self/task`; [`io::ErrorKind::Other`] if there are more threads.
    pub fn verify() -> io::Result<Self> {
        match fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(PhantomData)),
            threads => Err(io::Error::other(format!(
                "the process has {threads} threads where one was expected"
            ))),
        }
    }

    /// Forks a child that runs `body` and exits with what it returns.
    ///
    /// Signal handlers are reset to their defaults in the child; the signal mask is inherited.
    ///
    /// # Errors
    ///
    /// Those of `clone3(2)`.
    pub fn fork(
        self,
        namespaces: Namespaces,
        cgroup: Option<BorrowedFd<'_>>,
        body: impl FnOnce() -> u8,
    ) -> io::Result<Child> {
        // SAFETY: `self` proves that no other thread exists, so that no lock of the allocator or of
        // the standard library can be held in the child by a thread that is not there.
        let child = unsafe { clone3(namespaces, cgroup) }?;
        child.map_or_else(|| exit_now(body()), Ok)
    }
}

/// Whether a child can be born into these namespaces: one is, and exits at once.
///
/// # Errors
///
/// Those of `clone3(2)` and `waitid(2)`.
pub fn can_be_born_into(namespaces: Namespaces) -> io::Result<()> {
    // SAFETY: this process may have threads; the child does nothing but exit.
    let Some(child) = (unsafe { clone3(namespaces, None) })? else {
        exit_now(0)
    };
    rustix::io::retry_on_intr(|| {
        let id = rustix::process::WaitId::PidFd(child.pidfd.as_fd());
        rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED)
    })?;
    Ok(())
}

/// Ends this process without running any destructor or handler: what they would do belongs to the parent.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Forks. `None` in the child.
///
/// # Safety
///
/// If the process has other threads, the child may only make async-signal-safe calls until it execs or exits.
pub(crate) unsafe fn clone3(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Option<Child>> {
    let mut pidfd: RawFd = -1;
    let mut args = arguments(namespaces, cgroup);
    args.flags |= CLONE_PIDFD;
    args.pidfd = (&raw mut pidfd).addr() as u64;
    args.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    // SAFETY: `args` and `pidfd` outlive the call; what the child may do is the caller's promise.
    let pid = unsafe { call(&mut args) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(Child {
            pid: u32::try_from(pid).unwrap_or(0),
            // SAFETY: the kernel has just written a new descriptor there that nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        })),
    }
}

/// Forks a sibling: a child of this process' own parent, whose end is announced to that as this process' own would be.
///
/// Gives its pid, 0 in the sibling, and -1 with errno set.
///
/// # Safety
///
/// As [`clone3`].
pub(crate) unsafe fn clone3_sibling(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> libc::c_long {
    let mut args = arguments(namespaces, cgroup);
    // With this flag the kernel takes the signal of the caller, and refuses another (clone(2)).
    args.flags |= CLONE_PARENT;
    // SAFETY: `args` outlives the call; what the sibling may do is the caller's promise.
    unsafe { call(&mut args) }
}

fn arguments(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> libc::clone_args {
    // SAFETY: `clone_args` is plain data for which all zeroes means "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces.flags() | CLONE_CLEAR_SIGHAND;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    args
}

/// The call itself.
///
/// # Safety
///
/// As [`clone3`]; a pidfd that is asked for must have a live place.
unsafe fn call(args: &mut libc::clone_args) -> libc::c_long {
    // SAFETY: without CLONE_VM the child runs on its own copy of this stack.
    unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut *args,
            size_of::<libc::clone_args>(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_has_no_proof_of_one_thread() {
        // The test harness runs each test on a thread of its own.
        assert!(SingleThreaded::verify().is_err());
    }
}
