//! Boxes that are directories of the host's, where the host allows no mounts: made anew for every job, and removed behind it.
//!
//! # Invariants
//!
//! - Nothing is reached by a path through what a job has made: each step is one name beneath a directory that is held open,
//!   and no link is followed.
//! - Removing needs three descriptors and no stack, however deep a job has nested its directories: what lies in one is first moved up.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fchmod, mkdirat, openat,
    renameat, unlinkat,
};
use rustix::io::Errno;

/// The directories of a box, and their permission bits.
const PLACES: [(&str, Mode); 2] = [("box", Mode::RWXU), ("tmp", Mode::RWXU)];

/// The directory that a slot's boxes are made in, one after the other.
#[derive(Debug)]
pub struct BoxDirectory {
    path: PathBuf,
    root: OwnedFd,
    /// What was moved up so far: each gets a name that nothing of a job's has.
    moved: u64,
}

impl BoxDirectory {
    /// The directory at `path`, which is there; what a job of an earlier worker has left in it goes.
    ///
    /// # Errors
    ///
    /// Those of `openat(2)` and of removing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = openat(CWD, path, DIRECTORY, Mode::empty())?;
        let mut directory = Self {
            path: path.to_owned(),
            root,
            moved: 0,
        };
        directory.clear()?;
        Ok(directory)
    }

    /// Where a box is.
    pub fn box_path(&self) -> PathBuf {
        self.path.join("box")
    }

    /// What stands in for `/tmp`.
    pub fn tmp_path(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// Makes a box, after the one before is gone, for a job with this uid and gid if it is not the caller's; its directory.
    ///
    /// # Errors
    ///
    /// Those of removing what was there, and of `mkdirat(2)`, `fchownat(2)` and `openat(2)`.
    pub fn make(&mut self, owner: Option<u32>) -> io::Result<OwnedFd> {
        self.clear()?;
        for (name, mode) in PLACES {
            mkdirat(&self.root, name, mode)?;
            if let Some(id) = owner {
                let (uid, gid) = (Some(Uid::from_raw(id)), Some(Gid::from_raw(id)));
                chownat(&self.root, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        Ok(openat(&self.root, "box", DIRECTORY, Mode::empty())?)
    }

    /// Removes all that is there.
    ///
    /// # Errors
    ///
    /// Those of `getdents(2)`, `fchmodat(2)`, `renameat(2)` and `unlinkat(2)`.
    pub fn clear(&mut self) -> io::Result<()> {
        loop {
            let entries = entries(self.root.as_fd())?;
            if entries.is_empty() {
                return Ok(());
            }
            for name in entries {
                self.remove(&name)?;
            }
        }
    }

    /// Removes an entry of the root; what a directory holds is moved up to be removed in its turn.
    fn remove(&mut self, name: &Name) -> io::Result<()> {
        if !is_directory(self.root.as_fd(), name)? {
            return gone(unlinkat(&self.root, name, AtFlags::empty()));
        }
        let inner = opened(self.root.as_fd(), name)?;
        for entry in entries(inner.as_fd())? {
            if !is_directory(inner.as_fd(), &entry)? {
                gone(unlinkat(&inner, &entry, AtFlags::empty()))?;
                continue;
            }
            // A directory that is moved gets another parent, which needs the right to write to it.
            drop(opened(inner.as_fd(), &entry)?);
            self.moved += 1;
            let moved = format!(".moved-{}", self.moved);
            match renameat(&inner, &entry, &self.root, moved) {
                // A job's own name for one, which is removed in its turn.
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match unlinkat(&self.root, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            removed => gone(removed),
        }
    }
}

/// The name of an entry.
type Name = std::ffi::CString;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory, open to its owner: a job may have shut it. No link is followed, whoever puts one there meanwhile.
fn opened(parent: BorrowedFd<'_>, name: &Name) -> io::Result<OwnedFd> {
    let opened = match openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let flags = DIRECTORY.difference(OFlags::RDONLY).union(OFlags::PATH);
            let held = openat(parent, name, flags, Mode::empty())?;
            // Through the descriptor, which cannot be changed without being open: fchmod(2) takes no such one.
            let itself = format!("/proc/self/fd/{}", held.as_raw_fd());
            chmodat(CWD, itself, Mode::RWXU, AtFlags::empty())?;
            openat(&held, c".", DIRECTORY, Mode::empty())?
        }
        opened => opened?,
    };
    fchmod(&opened, Mode::RWXU)?;
    Ok(opened)
}

fn entries(directory: BorrowedFd<'_>) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn is_directory(parent: BorrowedFd<'_>, name: &Name) -> io::Result<bool> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode).is_dir())
}

fn gone(removed: Result<(), Errno>) -> io::Result<()> {
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_box_is_made_anew_and_nothing_outside_is_touched() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "x").unwrap();
        let base = tempfile::tempdir().unwrap();
        let mut boxes = BoxDirectory::open(base.path()).unwrap();
        drop(boxes.make(None).unwrap());
        let at = |name: &str| boxes.box_path().join(name);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::write(at("a/b/file"), "x").unwrap();
        symlink(outside.path(), at("a/link")).unwrap();
        symlink(outside.path(), at("link")).unwrap();
        fs::create_dir(at("shut")).unwrap();
        fs::write(at("shut/file"), "x").unwrap();
        fs::create_dir_all(at("a/shut/inner")).unwrap();
        fs::set_permissions(at("a/shut"), fs::Permissions::from_mode(0o0)).unwrap();
        fs::create_dir(boxes.path.join(".moved-1")).unwrap();
        fs::set_permissions(at("shut"), fs::Permissions::from_mode(0o0)).unwrap();
        drop(boxes.make(None).unwrap());
        assert_eq!(fs::read_dir(boxes.box_path()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 2);
        boxes.clear().unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }

    #[test]
    fn directories_that_are_nested_deeper_than_any_path_go_too() {
        let base = tempfile::tempdir().unwrap();
        let mut boxes = BoxDirectory::open(base.path()).unwrap();
        let mut inner = boxes.make(None).unwrap();
        for _ in 0..5_000 {
            mkdirat(&inner, "deeper", Mode::RWXU).unwrap();
            inner = openat(&inner, "deeper", DIRECTORY, Mode::empty()).unwrap();
        }
        boxes.clear().unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
