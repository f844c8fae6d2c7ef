//! A user namespace that stands between this process and its jobs: it holds this process' own ids and those that jobs get.
//!
//! ```text
//!   this process, its own user namespace     uid 990, no capability (any more)
//!    └─ the steward's                        0 is uid 990, 1 and up are the ids of jobs
//!        └─ a worker's                       0 and the job's id, two of those
//! ```
//!
//! To map ids into it needs a capability, or `newuidmap`, once. To enter it needs none: the kernel gives whoever made a
//! user namespace all capabilities in it (`user_namespaces(7)`), and there they reach no further than these ids. So a
//! supervisor can give its capabilities up and still let workers be born with ids that are not its own, and hand them
//! what is its own: by children that enter the namespace, do one thing, and are gone.
//!
//! # Invariants
//!
//! - This process never enters; only children do, and between fork and end they make nothing but system calls: `setns`,
//!   `clone3`, `open`, `read`, `write`, `fchown`, `fchownat`, `chmod`, `unlinkat`, `close`, each async-signal-safe.
//! - What is done there is listed before the fork, and a failure names its place in the list.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, waitid,
};

use crate::clone3::{Child, clone3, clone3_sibling, exit_now};
use crate::namespaces::Namespaces;

/// Bytes of a record: two numbers.
const RECORD_LEN: usize = 8;

/// The namespace.
#[derive(Debug)]
pub struct Steward {
    namespace: OwnedFd,
}

/// Something to be done inside.
#[derive(Clone, Copy, Debug)]
pub enum Errand<'a> {
    /// Writes to a file that is there, in one call.
    Write {
        /// The file.
        path: &'a CStr,
        /// What.
        text: &'a [u8],
    },
    /// Gives a file to others; a link is not followed.
    Give {
        /// The file.
        path: &'a CStr,
        /// To whom, as ids inside.
        uid: u32,
        /// And to which group.
        gid: u32,
    },
    /// The same for an open file.
    GiveOpen {
        /// The file.
        file: BorrowedFd<'a>,
        /// To whom, as ids inside.
        uid: u32,
        /// And to which group.
        gid: u32,
    },
    /// Takes a directory back: it belongs to this process' own ids again, and everybody may look into it.
    TakeBack {
        /// Which.
        path: &'a CStr,
    },
    /// Removes an empty directory.
    RemoveDirectory {
        /// Which.
        path: &'a CStr,
    },
}

/// An errand that failed.
#[derive(Debug, thiserror::Error)]
pub enum ErrandError {
    /// Nothing was tried.
    #[error("failed to enter the user namespace of the pool's ids")]
    Enter(#[source] io::Error),
    /// The one at this place in the list; those before are done.
    #[error("failed in the user namespace of the pool's ids")]
    Failed {
        /// Which.
        index: usize,
        /// How.
        #[source]
        source: io::Error,
    },
}

impl Steward {
    /// Makes the namespace; `map` is given the pid of a process in it, and maps its ids.
    ///
    /// # Errors
    ///
    /// Those of `clone3(2)`, and what `map` says.
    pub fn new(map: impl FnOnce(u32) -> io::Result<()>) -> io::Result<Self> {
        let (gate_read, gate_write) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: the child only closes, reads and exits.
        let Some(child) = (unsafe { clone3(Namespaces::USER, None) })? else {
            exit_now(stand_there(gate_read.as_raw_fd(), gate_write.as_raw_fd()))
        };
        let made = map(child.pid)
            .and_then(|()| File::open(format!("/proc/{}/ns/user", child.pid)))
            .map(OwnedFd::from);
        // A byte, not an end: another child of this process may hold a copy of the pipe.
        rustix::io::write(&gate_write, &[1])?;
        wait(&child.pidfd)?;
        Ok(Self { namespace: made? })
    }

    /// Has these done, in this order, up to the first that fails.
    ///
    /// # Errors
    ///
    /// [`ErrandError`].
    pub fn carry_out(&self, errands: &[Errand<'_>]) -> Result<(), ErrandError> {
        let (report_read, report_write) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(io::Error::from)
            .map_err(ErrandError::Enter)?;
        // SAFETY: the child makes only system calls that are async-signal-safe.
        let child = match unsafe { clone3(Namespaces::NONE, None) } {
            Ok(Some(child)) => child,
            Ok(None) => exit_now(run(
                self.namespace.as_raw_fd(),
                errands,
                report_write.as_raw_fd(),
            )),
            Err(error) => return Err(ErrandError::Enter(error)),
        };
        drop(report_write);
        let report = read_record(report_read);
        wait(&child.pidfd).map_err(ErrandError::Enter)?;
        match report.map_err(ErrandError::Enter)? {
            None => Err(ErrandError::Enter(io::ErrorKind::UnexpectedEof.into())),
            Some((_, 0)) => Ok(()),
            Some((index, errno)) => {
                let source = io::Error::from_raw_os_error(errno);
                match usize::try_from(index) {
                    Ok(index) => Err(ErrandError::Failed { index, source }),
                    Err(_) => Err(ErrandError::Enter(source)),
                }
            }
        }
    }

    /// Forks a child of this process that lives in `namespaces` of its own, made inside, and runs `body`.
    ///
    /// # Safety
    ///
    /// If the process has other threads, `body` may only make async-signal-safe calls.
    pub(crate) unsafe fn clone3(
        &self,
        namespaces: Namespaces,
        cgroup: Option<BorrowedFd<'_>>,
        body: impl FnOnce() -> u8,
    ) -> io::Result<Child> {
        let (report_read, report_write) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: the child and its sibling make only system calls, and what `body` does is the caller's promise.
        let Some(midwife) = (unsafe { clone3(Namespaces::NONE, None) })? else {
            let report = report_write.as_raw_fd();
            let pid = match enter(self.namespace.as_raw_fd()) {
                // SAFETY: as above.
                Ok(()) => unsafe { clone3_sibling(namespaces, cgroup) },
                Err(()) => -1,
            };
            match pid {
                0 => {
                    // While a copy is open here, who reads it waits for this process.
                    // SAFETY: close takes an integer; its owner is in the parent's copied memory.
                    unsafe { libc::close(report) };
                    exit_now(body());
                }
                -1 => write_record(report, -1, errno()),
                pid => write_record(report, i32::try_from(pid).unwrap_or(-1), 0),
            }
            exit_now(0);
        };
        drop(report_write);
        let report = read_record(report_read);
        let waited = wait(&midwife.pidfd);
        match report? {
            // Killed before it could tell: a sibling that there may be finds its gate shut, and exits.
            None => Err(io::ErrorKind::UnexpectedEof.into()),
            Some((pid, 0)) => {
                let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
                // It is a child of ours that nobody has waited for: its pid is nobody else's.
                let held = waited.and_then(|()| Ok(pidfd_open(pid, PidfdFlags::empty())?));
                let pidfd = held.inspect_err(|_| end(pid))?;
                Ok(Child {
                    pidfd,
                    pid: pid.as_raw_nonzero().get().unsigned_abs(),
                })
            }
            Some((_, errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Ends and reaps a child that cannot be held.
fn end(pid: Pid) {
    let killed = kill_process(pid, Signal::KILL);
    let reaped = killed.and_then(|()| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED));
    // Both can only fail for a child that is not ours, or that somebody has waited for.
    debug_assert!(reaped.is_ok(), "{reaped:?}");
}

/// Waits in the new namespace until it is mapped and opened.
fn stand_there(gate: RawFd, end_of_parent: RawFd) -> u8 {
    let mut byte = 0u8;
    // SAFETY: close takes an integer; its owner is in the parent's copied memory.
    unsafe { libc::close(end_of_parent) };
    // SAFETY: `byte` is live and one byte long.
    unsafe { libc::read(gate, (&raw mut byte).cast(), 1) };
    0
}

fn run(namespace: RawFd, errands: &[Errand<'_>], report: RawFd) -> u8 {
    if enter(namespace).is_err() {
        write_record(report, -1, errno());
        return 1;
    }
    for (index, errand) in (0i32..).zip(errands) {
        if carry_out(errand).is_err() {
            write_record(report, index, errno());
            return 1;
        }
    }
    write_record(report, 0, 0);
    0
}

fn enter(namespace: RawFd) -> Result<(), ()> {
    // SAFETY: setns takes two integers, and changes the user namespace of this process, which has one thread.
    check(unsafe { libc::setns(namespace, libc::CLONE_NEWUSER) })
}

/// Errno says why not.
fn carry_out(errand: &Errand<'_>) -> Result<(), ()> {
    match *errand {
        Errand::Write { path, text } => {
            let flags = libc::O_WRONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
            // SAFETY: the path ends with a NUL byte.
            let file = unsafe { libc::open(path.as_ptr(), flags) };
            check(file)?;
            // SAFETY: the text is live and of the length that is passed. The file is closed at this process' end.
            let written = unsafe { libc::write(file, text.as_ptr().cast(), text.len()) };
            if written == -1 { Err(()) } else { Ok(()) }
        }
        Errand::Give { path, uid, gid } => {
            let flags = libc::AT_SYMLINK_NOFOLLOW;
            // SAFETY: the path ends with a NUL byte.
            check(unsafe { libc::fchownat(libc::AT_FDCWD, path.as_ptr(), uid, gid, flags) })
        }
        Errand::GiveOpen { file, uid, gid } => {
            // SAFETY: fchown takes three integers.
            check(unsafe { libc::fchown(file.as_raw_fd(), uid, gid) })
        }
        Errand::TakeBack { path } => {
            let flags = libc::AT_SYMLINK_NOFOLLOW;
            // SAFETY: the path ends with a NUL byte.
            check(unsafe { libc::fchownat(libc::AT_FDCWD, path.as_ptr(), 0, 0, flags) })?;
            // SAFETY: the path ends with a NUL byte.
            check(unsafe { libc::chmod(path.as_ptr(), 0o755) })
        }
        Errand::RemoveDirectory { path } => {
            // SAFETY: the path ends with a NUL byte.
            check(unsafe { libc::unlinkat(libc::AT_FDCWD, path.as_ptr(), libc::AT_REMOVEDIR) })
        }
    }
}

const fn check(result: libc::c_int) -> Result<(), ()> {
    if result == -1 { Err(()) } else { Ok(()) }
}

/// An `io::Error` made of an errno owns no memory.
fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn write_record(report: RawFd, number: i32, errno: i32) {
    let mut record = [0u8; RECORD_LEN];
    let (first, second) = record.split_at_mut(4);
    first.copy_from_slice(&number.to_le_bytes());
    second.copy_from_slice(&errno.to_le_bytes());
    // SAFETY: the record is live and of the length that is passed. Whoever does not read it is gone.
    unsafe { libc::write(report, record.as_ptr().cast(), RECORD_LEN) };
}

/// The record, or `None` if its writer died before.
fn read_record(report: OwnedFd) -> io::Result<Option<(i32, i32)>> {
    let mut record = Vec::new();
    File::from(report)
        .take(RECORD_LEN as u64)
        .read_to_end(&mut record)?;
    let number = |bytes: &[u8]| {
        bytes
            .first_chunk::<4>()
            .map(|bytes| i32::from_le_bytes(*bytes))
    };
    Ok(number(&record).zip(record.get(4..).and_then(number)))
}

fn wait(pidfd: &OwnedFd) -> io::Result<()> {
    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// A steward of this process' own ids alone, which any user may make.
    fn steward() -> Option<Steward> {
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let made = Steward::new(|pid| {
            fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
            fs::write(format!("/proc/{pid}/uid_map"), format!("0 {uid} 1"))?;
            fs::write(format!("/proc/{pid}/gid_map"), format!("0 {gid} 1"))
        });
        made.ok()
    }

    #[test]
    fn errands_are_done_in_order_and_a_failure_names_its_place() {
        let steward = steward().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path =
            |name: &str| CString::new(format!("{}/{name}", directory.path().display())).unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        fs::create_dir(directory.path().join("empty")).unwrap();
        let (file, empty, none) = (path("file"), path("empty"), path("none"));
        let errands = [
            Errand::Write {
                path: &file,
                text: b"done",
            },
            Errand::Give {
                path: &file,
                uid: 0,
                gid: 0,
            },
            Errand::RemoveDirectory { path: &empty },
            Errand::Write {
                path: &none,
                text: b"",
            },
            Errand::RemoveDirectory { path: &file },
        ];
        let failed = steward.carry_out(&errands).unwrap_err();
        let ErrandError::Failed { index, source } = failed else {
            panic!("{failed}");
        };
        assert_eq!((index, source.kind()), (3, io::ErrorKind::NotFound));
        assert_eq!(fs::read(directory.path().join("file")).unwrap(), b"done");
        assert!(!directory.path().join("empty").exists());
        steward.carry_out(&errands[..2]).unwrap();
    }

    #[test]
    fn inside_is_no_right_over_files_of_others() {
        let steward = steward().unwrap();
        let theirs = CString::new("/proc/1").unwrap();
        let ours = fs::metadata("/proc/self").unwrap().uid();
        if fs::metadata("/proc/1").unwrap().uid() == ours {
            return;
        }
        let errand = Errand::Give {
            path: &theirs,
            uid: 0,
            gid: 0,
        };
        assert!(steward.carry_out(&[errand]).is_err());
    }
}
