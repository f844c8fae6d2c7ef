//! `mount_setattr(2)`: flags and peers of a mount and of all mounts below it, in one call.
//!
//! The classic remount fails with EPERM where a mount has a locked flag that the call does not repeat
//! (a host's `noexec` on `/run`, say); `mount_setattr` only adds. rustix does not have it yet.
//!
//! # Invariants
//!
//! - Attributes are only ever set, never cleared.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

/// A set of mount attributes (`linux/mount.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttributes(u64);

impl MountAttributes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Nothing can be written through it.
    pub const READ_ONLY: Self = Self(0x1);
    /// Set-user-id bits and file capabilities mean nothing.
    pub const NO_SUID: Self = Self(0x2);
    /// Device files cannot be opened.
    pub const NO_DEVICES: Self = Self(0x4);
    /// Files cannot be executed.
    pub const NO_EXECUTE: Self = Self(0x8);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a call reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The mount itself.
    Mount,
    /// The mount and all mounts below it.
    Tree,
}

/// `struct mount_attr` of the kernel; libc's has the same layout but is not there on every target.
#[derive(Default)]
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Makes a copy of the tree at `path`, with what is mounted in it: attached nowhere, and a peer of nobody.
///
/// The copy of a shared mount is shared with it (`mount_namespaces(7)`): what is mounted in the one would appear in the other,
/// in both directions, also after the copy is attached in another namespace.
///
/// # Errors
///
/// Those of `open_tree(2)` and `mount_setattr(2)`; both need `CAP_SYS_ADMIN` over the caller's mount namespace.
pub fn detached_copy(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags)?;
    let private = MountAttr {
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    set(
        tree.as_fd(),
        c"",
        libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
        &private,
    )?;
    Ok(tree)
}

/// Sets attributes of the mount at `path`.
///
/// # Errors
///
/// Those of `mount_setattr(2)`: `ENOSYS` before Linux 5.12.
pub fn set_attributes(path: &CStr, attributes: MountAttributes, reach: Reach) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: attributes.0,
        ..MountAttr::default()
    };
    let flags = match reach {
        Reach::Mount => 0,
        Reach::Tree => libc::AT_RECURSIVE,
    };
    set(CWD, path, flags, &attr)
}

fn set(within: BorrowedFd<'_>, path: &CStr, flags: i32, attr: &MountAttr) -> io::Result<()> {
    // SAFETY: `within` is open, `path` a C string and `attr` a live struct of the size that is passed along.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            within.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
