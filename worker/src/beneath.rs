//! Opening names beneath a directory, never by a link: the way into and out of a job's box.
//!
//! Whoever lays files in or brings them out has more rights than the job, and the job chose what lies there.
//! A path of the job's that is resolved with those rights is how sandboxes of this kind were read
//! from the outside, again and again; so the kernel is told to refuse every link on the way.
//!
//! # Invariants
//!
//! - No symbolic link, no magic link of `/proc`, no `..` above the directory, no other mount is passed: openat2(2)
//!   answers ELOOP or EXDEV, and nothing is opened.
//! - Whatever is opened is close-on-exec, does not block, and becomes nobody's terminal.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

const ALWAYS: OFlags = OFlags::CLOEXEC
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Opens what has this name beneath `directory`; `flags` say for what.
pub(crate) fn open(directory: impl AsFd, name: impl Arg + Copy, flags: OFlags) -> Result<OwnedFd> {
    resolve(directory, name, flags | ALWAYS, Mode::empty())
}

/// Takes hold of what has this name without opening it: no fifo, device or lease notices.
pub(crate) fn hold(directory: impl AsFd, name: impl Arg + Copy) -> Result<OwnedFd> {
    // With O_PATH the kernel takes no other flags than these.
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    resolve(directory, name, flags, Mode::empty())
}

/// Makes a file that was not there, for writing, readable by nobody yet.
pub(crate) fn create(directory: impl AsFd, name: impl Arg + Copy) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | ALWAYS;
    resolve(directory, name, flags, Mode::from_raw_mode(0o600))
}

fn resolve(
    directory: impl AsFd,
    name: impl Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    loop {
        match openat2(&directory, name, flags, mode, RESOLVE) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
