//! Who answers a system call: the kernel, or a filter before it.
//!
//! Each call is made with arguments for which the kernel itself has one known answer, which it gives before it looks at rights, and
//! by which nothing happens: no flag is known, no size is right, no descriptor is open. (One succeeds, and changes nothing.) Any other answer is that of a filter
//! (`seccomp(2)`), or of a kernel that does not have the call.
//!
//! # Invariants
//!
//! - A child makes the calls: a filter may answer with a signal, or, where somebody else decides (`seccomp_unotify(2)`), not at all.
//! - Between fork and end the child makes nothing but these calls, `alarm` and `write`.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::ptr;

use rustix::pipe::{PipeFlags, pipe_with};

use crate::clone3::exit_now;

/// How long a child has for the calls, which take microseconds.
const PATIENCE_SECONDS: libc::c_uint = 2;

/// Bytes of a record: an errno.
const RECORD_LEN: usize = 4;

/// A call without which no sandbox is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `clone3(2)`.
    Clone3,
    /// `close_range(2)`.
    CloseRange,
    /// `mount(2)`.
    Mount,
    /// `umount2(2)`.
    Umount,
    /// `open_tree(2)`.
    OpenTree,
    /// `mount_setattr(2)`.
    MountSetattr,
    /// `seccomp(2)`.
    Seccomp,
}

impl Call {
    /// All of them, in the order in which a worker comes to need them.
    pub const ALL: [Self; 7] = [
        Self::Clone3,
        Self::CloseRange,
        Self::Mount,
        Self::Umount,
        Self::OpenTree,
        Self::MountSetattr,
        Self::Seccomp,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clone3 => "clone3",
            Self::CloseRange => "close_range",
            Self::Mount => "mount",
            Self::Umount => "umount2",
            Self::OpenTree => "open_tree",
            Self::MountSetattr => "mount_setattr",
            Self::Seccomp => "seccomp",
        }
    }

    /// What the kernel answers.
    const fn own_errno(self) -> i32 {
        match self {
            // It succeeds, with nothing to do.
            Self::CloseRange => 0,
            Self::Mount => libc::EFAULT,
            Self::Clone3 | Self::Umount | Self::OpenTree | Self::MountSetattr | Self::Seccomp => {
                libc::EINVAL
            }
        }
    }
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel.
    Kernel,
    /// Somebody else, or a kernel without the call, with this errno; 0 if the call was said to have succeeded.
    Errno(i32),
    /// Nobody: the caller was ended by a signal, or heard nothing.
    Ended,
}

/// Makes each call once, and says who answered.
///
/// # Errors
///
/// Those of `fork(2)` and `pipe2(2)`.
pub fn ask() -> io::Result<[(Call, Answer); Call::ALL.len()]> {
    let mut answers = Call::ALL.map(|call| (call, Answer::Ended));
    let mut next = 0;
    // Where a call ends the child, another goes on behind it.
    while let Some(rest) = answers.get_mut(next..).filter(|rest| !rest.is_empty()) {
        let errnos = errnos_of(rest)?;
        for ((call, answer), errno) in rest.iter_mut().zip(&errnos) {
            *answer = if *errno == call.own_errno() {
                Answer::Kernel
            } else {
                Answer::Errno(*errno)
            };
        }
        next += errnos.len() + 1;
    }
    Ok(answers)
}

/// What a child hears for these calls, up to one that it does not survive.
fn errnos_of(calls: &[(Call, Answer)]) -> io::Result<Vec<i32>> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: this process may have threads; the child makes system calls alone, and does not return.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => return Err(io::Error::last_os_error()),
        0 => exit_now(make(calls, write.as_raw_fd())),
        _ => {}
    }
    drop(write);
    let mut records = Vec::new();
    let all = File::from(read).read_to_end(&mut records);
    let mut status = 0;
    // SAFETY: `status` is a live int. The child ends by itself or by its alarm; who ignores SIGCHLD has nothing to reap.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    all?;
    let (records, _) = records.as_chunks::<RECORD_LEN>();
    Ok(records.iter().copied().map(i32::from_ne_bytes).collect())
}

/// In the child.
fn make(calls: &[(Call, Answer)], report: RawFd) -> u8 {
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe { libc::signal(libc::SIGALRM, libc::SIG_DFL) };
    // SAFETY: alarm takes an integer.
    unsafe { libc::alarm(PATIENCE_SECONDS) };
    for (call, _) in calls {
        let errno = match invoke(*call) {
            -1 => io::Error::last_os_error().raw_os_error().unwrap_or(0),
            _ => 0,
        };
        let record = errno.to_ne_bytes();
        // SAFETY: the record is live and of the length that is passed.
        unsafe { libc::write(report, record.as_ptr().cast(), RECORD_LEN) };
    }
    0
}

/// A flag that no call knows.
const UNKNOWN: libc::c_int = 0x4000_0000;

/// A call that does nothing.
fn invoke(call: Call) -> libc::c_long {
    let nothing = ptr::null::<u8>();
    match call {
        // SAFETY: a size of 0 is below the smallest that the kernel reads, so that it reads nothing.
        Call::Clone3 => unsafe { libc::syscall(libc::SYS_clone3, nothing, 0usize) },
        // SAFETY: no descriptor has the last number, and none would be closed before an exec.
        Call::CloseRange => unsafe {
            let last = libc::c_uint::MAX;
            libc::syscall(libc::SYS_close_range, last, last, libc::CLOSE_RANGE_CLOEXEC)
        },
        // SAFETY: a null path is looked at first, and cannot be read.
        Call::Mount => unsafe {
            libc::syscall(libc::SYS_mount, nothing, nothing, nothing, 0u64, nothing)
        },
        // SAFETY: an unknown flag is refused before the path is read.
        Call::Umount => unsafe { libc::syscall(libc::SYS_umount2, nothing, UNKNOWN) },
        // SAFETY: as above.
        Call::OpenTree => unsafe { libc::syscall(libc::SYS_open_tree, -1, nothing, UNKNOWN) },
        // SAFETY: a size of 0 is below the smallest that the kernel reads, so that it reads nothing.
        Call::MountSetattr => unsafe {
            libc::syscall(libc::SYS_mount_setattr, -1, nothing, 0u32, nothing, 0usize)
        },
        // SAFETY: there is no such operation, so that the kernel reads nothing.
        Call::Seccomp => unsafe { libc::syscall(libc::SYS_seccomp, UNKNOWN, 0u32, nothing) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_filter_is_the_kernel_answers_every_call() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let is_free = status.lines().any(|line| line == "Seccomp:\t0");
        let answers = ask().unwrap();
        if is_free {
            assert_eq!(answers, Call::ALL.map(|call| (call, Answer::Kernel)));
        }
    }
}
