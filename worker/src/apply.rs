//! Carries out the steps of a plan: one step, one system call, one error that names the step.
//!
//! # Invariants
//!
//! - No step is skipped, retried or softened here: the first that fails ends the sandbox.
//! - A detached mount is attached once.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use wpool_sys::loopback;
use wpool_sys::mount::set_attributes;

use crate::plan::{Step, job};

/// Terminals that a job may make. The machine has 4096 (`kernel.pty.max`) for all.
const TERMINALS: u32 = 64;

/// The host name that jobs see.
const HOSTNAME: &str = "wpool";

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}")]
pub struct StepError {
    /// The step.
    pub step: Step,
    /// How it failed.
    #[source]
    pub source: io::Error,
}

/// What steps attach: mounts that are nowhere yet.
#[derive(Debug, Default)]
pub struct Detached {
    /// The mounts of the profiles, in the order of the plan.
    pub mounts: Vec<OwnedFd>,
    /// The job's own files.
    pub files: Option<OwnedFd>,
}

/// Carries out all of `steps`, in order.
///
/// # Errors
///
/// [`StepError`] for the first step that fails.
pub fn apply(steps: &[Step], detached: &Detached) -> Result<(), StepError> {
    for step in steps {
        carry_out(step, detached).map_err(|source| StepError {
            step: step.clone(),
            source,
        })?;
    }
    Ok(())
}

fn carry_out(step: &Step, detached: &Detached) -> io::Result<()> {
    let nowhere: Option<&str> = None;
    match step {
        Step::MakePrivate => {
            mount(
                nowhere,
                "/",
                nowhere,
                MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                nowhere,
            )?;
        }
        Step::MountTmpfs { at, size, inodes } => {
            let options = format!("size={size},nr_inodes={inodes},mode=0755");
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(
                Some("tmpfs"),
                at.as_str(),
                Some("tmpfs"),
                flags,
                Some(options.as_str()),
            )?;
        }
        Step::MakeDirectory { at, mode } => make_directory(at, *mode)?,
        Step::WriteFile { at, text } => write_file(at, text)?,
        Step::CopyFile { from, at } => copy_file(from, at)?,
        Step::Link { at, to } => symlink(to, at)?,
        Step::Bind { from, at } => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(from.as_str()), at.as_str(), nowhere, flags, nowhere)?;
        }
        Step::Protect {
            at,
            attributes,
            reach,
        } => set_attributes(&CString::new(at.as_str())?, *attributes, *reach)?,
        Step::AttachMount { index, at } => {
            let tree = detached.mounts.get(*index).ok_or(io::ErrorKind::NotFound)?;
            make_mount_point(tree.as_fd(), at)?;
            attach(tree.as_fd(), at)?;
        }
        Step::AttachFiles { at } => {
            let files = detached.files.as_ref().ok_or(io::ErrorKind::NotFound)?;
            attach(files.as_fd(), at)?;
        }
        Step::MountProc { at } => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("proc"), at.as_str(), Some("proc"), flags, nowhere)?;
        }
        Step::MountMqueue { at } => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("mqueue"), at.as_str(), Some("mqueue"), flags, nowhere)?;
        }
        Step::MountPts { at } => mount_terminals(at)?,
        Step::Detach { at } => umount2(at.as_str(), MntFlags::MNT_DETACH)?,
        Step::ChangeDirectory { to } => nix::unistd::chdir(to.as_str())?,
        // The trick of pivot_root(2), "pivot_root(".", ".")": no directory for the old root is needed.
        Step::PivotRoot => nix::unistd::pivot_root(".", ".")?,
        Step::DetachOldRoot => umount2(".", MntFlags::MNT_DETACH)?,
        Step::SetHostname => nix::unistd::sethostname(HOSTNAME)?,
        Step::BringUpLoopback => loopback::bring_up()?,
        Step::ForbidUserNamespaces => fs::write("/proc/sys/user/max_user_namespaces", "0")?,
        Step::Set { at, value } => fs::write(at, value)?,
    }
    Ok(())
}

fn mount_terminals(at: &str) -> io::Result<()> {
    // No gid=5: it need not be mapped here, and EINVAL would be the answer.
    let options = format!("newinstance,ptmxmode=0666,mode=0620,max={TERMINALS}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    Ok(mount(
        Some("devpts"),
        at,
        Some("devpts"),
        flags,
        Some(options.as_str()),
    )?)
}

/// Makes a directory with exactly these permission bits, whatever the umask.
fn make_directory(at: &str, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(at)
}

fn write_file(at: &str, text: &str) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(at)?;
    file.write_all(text.as_bytes())
}

/// Copies a file, readable by all.
fn copy_file(from: &str, at: &str) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut copy = File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(at)?;
    io::copy(&mut source, &mut copy)?;
    Ok(())
}

/// Makes the directory or the empty file that `tree` can be attached to, with all directories above it.
fn make_mount_point(tree: BorrowedFd<'_>, at: &str) -> io::Result<()> {
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode);
    if kind.is_dir() {
        return fs::create_dir_all(at);
    }
    if let Some(parent) = Path::new(at).parent() {
        fs::create_dir_all(parent)?;
    }
    write_file(at, "")
}

/// Attaches a detached mount.
fn attach(tree: BorrowedFd<'_>, at: &str) -> io::Result<()> {
    Ok(move_mount(
        tree,
        "",
        CWD,
        at,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// Makes the file system of a job's own files, attached nowhere yet: a tmpfs with the directories of
/// [`job::PLACES`], of which `owner` owns the first; the others are open to all and sticky.
///
/// # Errors
///
/// Those of `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`, `mkdirat(2)` and `fchownat(2)`.
pub fn new_files(bytes: u64, inodes: u64, owner: u32) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "size", bytes.to_string())?;
    fsconfig_set_string(context.as_fd(), "nr_inodes", inodes.to_string())?;
    fsconfig_set_string(context.as_fd(), "mode", "0755")?;
    fsconfig_create(context.as_fd())?;
    let files = fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )?;
    for (name, place) in job::PLACES {
        let mode = if place == "/box" { 0o755 } else { 0o1777 };
        rustix::fs::mkdirat(&files, name, rustix::fs::Mode::from_raw_mode(mode))?;
        let id = (
            rustix::process::Uid::from_raw(owner),
            rustix::process::Gid::from_raw(owner),
        );
        if place == "/box" {
            rustix::fs::chownat(
                &files,
                name,
                Some(id.0),
                Some(id.1),
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
    }
    Ok(files)
}
