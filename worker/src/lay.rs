//! Laying input files into a job's box, before the job is there.
//!
//! ```text
//!   InputFiles::begin(header) ─▶ write(bytes) … ─▶ finish()      for one file after the other
//! ```
//!
//! # Invariants
//!
//! - Nothing is overwritten and no link is followed, though nobody can have put one there yet: an attempt
//!   that meets something in the box fails (see `crate::beneath`).
//! - A file is readable by nobody before it is whole; then it has exactly the mode and owner that were asked
//!   for, whatever the umask. Directories on the way are 0755.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat};
use rustix::io::Errno;
use wpool_protocol::path::BoxPath;
use wpool_protocol::wire::InputHeader;

use crate::beneath;

/// Who shall own what is laid in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id, in the caller's user namespace.
    pub uid: u32,
    /// Group id, in the caller's user namespace.
    pub gid: u32,
}

/// A box that files are laid into.
#[derive(Clone, Copy, Debug)]
pub struct InputFiles<'a> {
    root: BorrowedFd<'a>,
    owner: Option<Owner>,
}

/// A file that is being written.
#[derive(Debug)]
#[must_use = "a file is there for the job only once it is finished"]
pub struct InputFile {
    file: File,
    name: BoxPath,
    mode: Mode,
    owner: Option<Owner>,
    size: u64,
    written: u64,
}

/// A file that could not be laid in.
#[derive(Debug, thiserror::Error)]
pub enum LayError {
    /// The box is full: the job's disk limit, in bytes or in files.
    #[error("lay `{name}` into the box: the input files need more than the job's disk limit")]
    NoSpace {
        /// The file.
        name: BoxPath,
    },
    /// Two input files need the same name, or one lies beneath another.
    #[error("lay `{name}` into the box: another input file has that name or lies in its way")]
    InTheWay {
        /// The file.
        name: BoxPath,
    },
    /// More or fewer bytes came than were announced.
    #[error("lay `{name}` into the box: {size} bytes were announced, {came} came")]
    Size {
        /// The file.
        name: BoxPath,
        /// Announced.
        size: u64,
        /// Come, at least.
        came: u64,
    },
    /// A call failed for another reason.
    #[error("lay `{name}` into the box: {step}")]
    Call {
        /// The file.
        name: BoxPath,
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl LayError {
    fn new(name: &BoxPath, step: &'static str, errno: Errno) -> Self {
        let name = name.clone();
        match errno {
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace { name },
            Errno::EXIST | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::XDEV => {
                Self::InTheWay { name }
            }
            errno => Self::Call {
                name,
                step,
                source: errno.into(),
            },
        }
    }
}

impl<'a> InputFiles<'a> {
    /// Files go beneath `root`, an open directory, and belong to `owner` (else to the caller).
    pub const fn new(root: BorrowedFd<'a>, owner: Option<Owner>) -> Self {
        Self { root, owner }
    }

    /// Makes the directories on the way and the empty file.
    ///
    /// # Errors
    ///
    /// [`LayError`] says what stood in the way.
    pub fn begin(&self, header: &InputHeader) -> Result<InputFile, LayError> {
        let name = &header.name;
        let (parents, last) = match name.as_str().rsplit_once('/') {
            Some((parents, last)) => (parents, last),
            None => ("", name.as_str()),
        };
        let mut directory: Option<OwnedFd> = None;
        for component in parents.split('/').filter(|part| !part.is_empty()) {
            let within = directory.as_ref().map_or(self.root, OwnedFd::as_fd);
            directory = Some(self.directory(within, component, name)?);
        }
        let within = directory.as_ref().map_or(self.root, OwnedFd::as_fd);
        let file = beneath::create(within, last)
            .map_err(|errno| LayError::new(name, "make the file", errno))?;
        Ok(InputFile {
            file: File::from(file),
            name: name.clone(),
            mode: Mode::from_raw_mode(header.mode & 0o777),
            owner: self.owner,
            size: header.size,
            written: 0,
        })
    }

    /// The directory of that name, made if it is not there.
    fn directory(
        &self,
        within: BorrowedFd<'_>,
        component: &str,
        name: &BoxPath,
    ) -> Result<OwnedFd, LayError> {
        let failed = |step| move |errno| LayError::new(name, step, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match beneath::open(within, component, flags) {
            Err(Errno::NOENT) => {}
            there => return there.map_err(failed("open a directory")),
        }
        mkdirat(within, component, Mode::from_raw_mode(0o700))
            .map_err(failed("make a directory"))?;
        let directory =
            beneath::open(within, component, flags).map_err(failed("open a directory"))?;
        give(
            directory.as_fd(),
            self.owner,
            Mode::from_raw_mode(0o755),
            name,
        )?;
        Ok(directory)
    }
}

impl InputFile {
    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// [`LayError`]; after an error the file is not worth finishing.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), LayError> {
        let came = self
            .written
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if came > self.size {
            return Err(self.wrong_size(came));
        }
        self.file.write_all(bytes).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            LayError::new(&self.name, "write", errno)
        })?;
        self.written = came;
        Ok(())
    }

    /// Gives the whole file its owner and mode.
    ///
    /// # Errors
    ///
    /// [`LayError`]; [`LayError::Size`] if bytes are missing.
    pub fn finish(self) -> Result<(), LayError> {
        if self.written != self.size {
            return Err(self.wrong_size(self.written));
        }
        give(self.file.as_fd(), self.owner, self.mode, &self.name)
    }

    fn wrong_size(&self, came: u64) -> LayError {
        LayError::Size {
            name: self.name.clone(),
            size: self.size,
            came,
        }
    }
}

/// Owner first: a change of owner may take bits of the mode away.
fn give(
    file: BorrowedFd<'_>,
    owner: Option<Owner>,
    mode: Mode,
    name: &BoxPath,
) -> Result<(), LayError> {
    if let Some(Owner { uid, gid }) = owner {
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|errno| LayError::new(name, "give it to the job", errno))?;
    }
    fchmod(file, mode).map_err(|errno| LayError::new(name, "set the mode", errno))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::stderr;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    fn header(name: &str, mode: u32, size: u64) -> InputHeader {
        InputHeader {
            name: name.parse().unwrap(),
            mode,
            size,
        }
    }

    fn lay(root: &Path, name: &str, mode: u32, bytes: &[u8]) -> Result<(), LayError> {
        let directory = File::open(root).unwrap();
        let files = InputFiles::new(directory.as_fd(), None);
        let mut file = files.begin(&header(name, mode, bytes.len() as u64))?;
        for chunk in bytes.chunks(3) {
            file.write(chunk)?;
        }
        file.finish()
    }

    #[test]
    fn files_have_their_bytes_and_exactly_their_mode() {
        let root = tempfile::tempdir().unwrap();
        lay(root.path(), "a/b/tool", 0o777, b"#!/bin/sh\n").unwrap();
        lay(root.path(), "a/b/secret", 0o000, b"").unwrap();
        lay(root.path(), "ü \n", 0o644, b"x").unwrap();
        let mode = |name: &str| {
            let metadata = fs::symlink_metadata(root.path().join(name)).unwrap();
            metadata.permissions().mode() & 0o7777
        };
        assert_eq!(
            fs::read(root.path().join("a/b/tool")).unwrap(),
            b"#!/bin/sh\n"
        );
        assert_eq!(mode("a/b/tool"), 0o777);
        assert_eq!(mode("a/b/secret"), 0);
        assert_eq!(mode("a"), 0o755);
        assert_eq!(mode("a/b"), 0o755);
        assert_eq!(mode("ü \n"), 0o644);
    }

    #[test]
    fn a_link_that_lies_in_the_box_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("d")).unwrap();
        symlink(outside.path().join("x"), root.path().join("f")).unwrap();
        for name in ["d/x", "d", "f"] {
            let error = lay(root.path(), name, 0o644, b"x").unwrap_err();
            assert!(matches!(error, LayError::InTheWay { .. }), "{error:?}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn inputs_do_not_overwrite_each_other() {
        let root = tempfile::tempdir().unwrap();
        lay(root.path(), "a", 0o644, b"first").unwrap();
        for name in ["a", "a/b"] {
            let error = lay(root.path(), name, 0o644, b"second").unwrap_err();
            assert!(matches!(error, LayError::InTheWay { .. }), "{error:?}");
        }
        assert_eq!(fs::read(root.path().join("a")).unwrap(), b"first");
    }

    #[test]
    fn more_or_fewer_bytes_than_announced_are_an_error() {
        let root = tempfile::tempdir().unwrap();
        let directory = File::open(root.path()).unwrap();
        let files = InputFiles::new(directory.as_fd(), None);
        let mut long = files.begin(&header("long", 0o644, 2)).unwrap();
        assert!(matches!(
            long.write(b"abc"),
            Err(LayError::Size {
                size: 2,
                came: 3,
                ..
            })
        ));
        let mut short = files.begin(&header("short", 0o644, 2)).unwrap();
        short.write(b"a").unwrap();
        let error = short.finish().unwrap_err();
        assert!(matches!(
            error,
            LayError::Size {
                size: 2,
                came: 1,
                ..
            }
        ));
        let left = fs::metadata(root.path().join("short")).unwrap();
        assert_eq!(left.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_jobs_ids_own_what_is_laid_in() {
        if !nix::unistd::geteuid().is_root() {
            stderr()
                .write_all(b"skipped: only root may give files away\n")
                .unwrap();
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let directory = File::open(root.path()).unwrap();
        let owner = Owner {
            uid: 70_001,
            gid: 70_002,
        };
        let files = InputFiles::new(directory.as_fd(), Some(owner));
        let file = files.begin(&header("d/f", 0o640, 0)).unwrap();
        file.finish().unwrap();
        for (name, mode) in [("d", 0o755), ("d/f", 0o640)] {
            let metadata = fs::metadata(root.path().join(name)).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (70_001, 70_002));
            assert_eq!(metadata.mode() & 0o7777, mode);
        }
    }
}
