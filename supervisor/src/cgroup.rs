//! The supervisor's part of the cgroup tree: is it ours, and the directories of the slots in it.
//!
//! ```text
//!   wpool.service/            delegated (Delegate=yes); its own limits are systemd's
//!    ├─ supervisor/           this process: a cgroup whose controllers are on below may hold none itself
//!    ├─ slot-0/               made for one generation of a worker, and removed with it
//!    │   ├─ worker/           the worker, its cgroup namespace rooted at slot-0
//!    │   └─ job-7/ …          made by the worker
//!    └─ slot-1/ …
//! ```
//!
//! A worker is born *into* `slot-N`, so that its cgroup namespace has its root there; only from below that
//! root may it move children into what it makes (cgroups(7), `nsdelegate`). Then, at its gate, it is moved on to
//! `worker/` and the controllers are turned on, which the kernel refuses as long as somebody is in `slot-N`.
//!
//! # Invariants
//!
//! - Nothing is changed before it is certain that the cgroup is ours alone: delegated, and nobody else in it.
//! - Controllers are enabled one by one: a write of several is all or nothing.
//! - After [`SlotDirectory::remove`], and at the start, no process of a slot is left in it.
//!
//! Not here: what a worker does in its slot; that is in the worker's own `cgroup.rs`.

mod place;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, getxattr, statfs};
use wpool_sys::birth::c_strings;
use wpool_sys::steward::{Errand, ErrandError, Steward};

/// What limits and accounts need.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Cgroups of a slot lie side by side.
const DEPTH_MAX: &str = "1";

/// The worker's, its job's, and those of jobs before whose removal the kernel puts off.
const DESCENDANTS_MAX: &str = "64";

/// How long killed processes may take to be gone: 1000 take 0.1 s, memory to be freed some more.
const DEATH_PATIENCE: Duration = Duration::from_secs(5);

/// Why limits are not kept by cgroups here.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No cgroup v2 at all.
    #[error("this host has cgroup v1 only")]
    Version1,
    /// The controllers are in v1 hierarchies.
    #[error("this host has cgroup v1 and v2 side by side, and the controllers are in v1")]
    Hybrid,
    /// Nothing to write to.
    #[error("no cgroup2 file system is mounted")]
    NotMounted,
    /// Nothing to write to for us.
    #[error("the own cgroup {path} is outside of what is mounted")]
    Outside {
        /// As `/proc/self/cgroup` has it.
        path: String,
    },
    /// The files are somebody else's.
    #[error("the cgroup {} is not delegated to this user", directory.display())]
    NotDelegated {
        /// The own cgroup.
        directory: PathBuf,
    },
    /// Others would be in the way.
    #[error("{others} other processes are in the cgroup {}", directory.display())]
    NotAlone {
        /// The own cgroup.
        directory: PathBuf,
        /// How many.
        others: usize,
    },
    /// A limit would be missing.
    #[error("the cgroup {} has no {} controller", directory.display(), missing.join(", no "))]
    Controllers {
        /// The own cgroup.
        directory: PathBuf,
        /// Which.
        missing: Vec<&'static str>,
    },
    /// The kernel said no.
    #[error(transparent)]
    Failed(#[from] CgroupError),
}

impl Unavailable {
    /// What to do about it.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Version1 | Self::Hybrid => {
                "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line"
            }
            Self::NotMounted => "mount -t cgroup2 none /sys/fs/cgroup",
            Self::Outside { .. } => {
                "start the container with its own cgroup namespace and a writable /sys/fs/cgroup"
            }
            Self::NotDelegated { .. } | Self::NotAlone { .. } => {
                "start it as a service with Delegate=yes, or with: systemd-run --user --scope -p Delegate=yes wpool …"
            }
            Self::Controllers { .. } => {
                "as root, in a drop-in for user@.service: [Service] Delegate=cpu memory pids"
            }
            Self::Failed(_) => "see the error; a unit with ProtectControlGroups=yes is one cause",
        }
    }
}

/// A step on a cgroup that failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {}", path.display())]
pub struct CgroupError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// For `map_err`: says what was being done.
fn doing<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError {
        action,
        path,
        source: source.into(),
    }
}

/// A cgroup that is ours to divide.
#[derive(Debug)]
pub struct Delegated {
    directory: PathBuf,
    steward: Option<Arc<Steward>>,
}

impl Delegated {
    /// Looks whether this process's cgroup is ours to divide, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] says why not, and what to do.
    pub fn find() -> Result<Self, Unavailable> {
        let read = |path: &Path| fs::read_to_string(path).map_err(doing("read", path));
        let cgroup = read(Path::new("/proc/self/cgroup"))?;
        let mountinfo = read(Path::new("/proc/self/mountinfo"))?;
        let directory = place::own_directory(&cgroup, &mountinfo)?;
        let file_system = statfs(&directory).map_err(doing("look at", &directory))?;
        if u64::try_from(file_system.f_type) != Ok(CGROUP2_MAGIC) {
            return Err(Unavailable::NotMounted);
        }
        // Root may write everywhere; only the mark says that systemd will not. At the root of a container's
        // cgroup namespace there is no other owner.
        let is_root = rustix::process::geteuid().is_root();
        if is_root && cgroup.trim_end() != "0::/" && !is_marked(&directory) {
            return Err(Unavailable::NotDelegated { directory });
        }
        Self::check(directory)
    }

    /// Looks whether the directory is one that we may divide.
    fn check(directory: PathBuf) -> Result<Self, Unavailable> {
        let writable = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_ok();
        let files = ["cgroup.procs", "cgroup.subtree_control"].map(|name| directory.join(name));
        if !writable(&directory) || !files.iter().all(|file| writable(file)) {
            return Err(Unavailable::NotDelegated { directory });
        }
        let path = directory.join("cgroup.controllers");
        let offered = fs::read_to_string(&path).map_err(doing("read", &path))?;
        let is_missing = |name: &&str| !offered.split_ascii_whitespace().any(|has| has == *name);
        let missing: Vec<_> = CONTROLLERS.into_iter().filter(is_missing).collect();
        if !missing.is_empty() {
            return Err(Unavailable::Controllers { directory, missing });
        }
        let own = std::process::id().to_string();
        let path = directory.join("cgroup.procs");
        let pids = fs::read_to_string(&path).map_err(doing("read", &path))?;
        let others = pids.lines().filter(|pid| *pid != own).count();
        if others > 0 {
            return Err(Unavailable::NotAlone { directory, others });
        }
        Ok(Self {
            directory,
            steward: None,
        })
    }

    /// Moves this process to `supervisor/`, removes what an earlier one left, and turns the controllers on. Where this process
    /// may not give away what is its own, a steward does.
    ///
    /// # Errors
    ///
    /// [`CgroupError`] names the step.
    pub fn claim(&mut self, steward: Option<&Arc<Steward>>) -> Result<(), CgroupError> {
        self.steward = steward.map(Arc::clone);
        let leaf = self.directory.join("supervisor");
        make(&leaf)?;
        write(&leaf.join("cgroup.procs"), &std::process::id().to_string())?;
        let entries = fs::read_dir(&self.directory).map_err(doing("list", &self.directory))?;
        for entry in entries {
            let entry = entry.map_err(doing("list", &self.directory))?;
            if entry.file_name().as_encoded_bytes().starts_with(b"slot-") {
                clear(&entry.path(), steward.map(Arc::as_ref))?;
            }
        }
        enable_controllers(&self.directory)
    }

    /// Makes the directory of a slot, for one generation of its worker.
    ///
    /// # Errors
    ///
    /// [`CgroupError`] names the step.
    pub fn make_slot(&self, number: u32) -> Result<SlotDirectory, CgroupError> {
        let path = self.directory.join(format!("slot-{number}"));
        if path.exists() {
            clear(&path, self.steward.as_deref())?;
        }
        make(&path)?;
        // Not the worker's to change: whoever has taken it over makes neither many nor deep ones, which somebody would have to remove.
        write(&path.join("cgroup.max.depth"), DEPTH_MAX)?;
        write(&path.join("cgroup.max.descendants"), DESCENDANTS_MAX)?;
        let worker = path.join("worker");
        make(&worker)?;
        let directory = File::open(&path).map_err(doing("open", &path))?;
        Ok(SlotDirectory {
            path,
            directory,
            steward: self.steward.clone(),
        })
    }
}

/// The cgroup of one generation of a slot's worker.
#[derive(Debug)]
pub struct SlotDirectory {
    path: PathBuf,
    directory: File,
    steward: Option<Arc<Steward>>,
}

impl SlotDirectory {
    /// The directory, for `CLONE_INTO_CGROUP` at the worker's birth, and for the worker to keep.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Gives the slot to the ids that its worker has, where they are not our own; with a steward they are called as there.
    ///
    /// Once it has settled. Only what delegation asks for (cgroups(7)): the limits of the slot itself stay ours.
    ///
    /// # Errors
    ///
    /// [`CgroupError`] names the file.
    pub fn give_to(&self, uid: u32, gid: u32) -> Result<(), CgroupError> {
        let files = [
            "",
            "cgroup.procs",
            "cgroup.threads",
            "cgroup.subtree_control",
            "worker",
            "worker/cgroup.procs",
        ];
        let files = files.map(|name| self.path.join(name));
        match &self.steward {
            Some(steward) => have_done(steward, Deed::Give { uid, gid }, &files),
            None => files.iter().try_for_each(|path| {
                chown(path, Some(uid), Some(gid)).map_err(doing("give away", path))
            }),
        }
    }

    /// Moves the worker, which waits at its gate, on to its own cgroup, and turns the controllers on.
    ///
    /// # Errors
    ///
    /// [`CgroupError`] names the step.
    pub fn settle(&self, worker: u32) -> Result<(), CgroupError> {
        write(&self.path.join("worker/cgroup.procs"), &worker.to_string())?;
        enable_controllers(&self.path)
    }

    /// Kills what is left in it and removes it.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]; [`io::ErrorKind::TimedOut`] inside if something does not die.
    pub fn remove(self) -> Result<(), CgroupError> {
        clear(&self.path, self.steward.as_deref())
    }
}

/// Whether systemd has marked a cgroup as delegated (its documentation on control groups names both).
fn is_marked(directory: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 4];
        getxattr(directory, *name, &mut value).is_ok_and(|len| value.get(..len) == Some(b"1"))
    })
}

fn enable_controllers(directory: &Path) -> Result<(), CgroupError> {
    let path = directory.join("cgroup.subtree_control");
    CONTROLLERS
        .iter()
        .try_for_each(|name| write(&path, &format!("+{name}")))
}

fn make(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(doing("make", path)),
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    // Without creating: in a cgroup every file is the kernel's.
    let mut file = File::options()
        .write(true)
        .open(path)
        .map_err(doing("open", path))?;
    io::Write::write_all(&mut file, value.as_bytes()).map_err(doing("write to", path))
}

/// Kills all that lives in a cgroup and below, waits for its end and removes it, the innermost first.
fn clear(path: &Path, steward: Option<&Steward>) -> Result<(), CgroupError> {
    if let Some(steward) = steward {
        take_back(path, steward)?;
    }
    write(&path.join("cgroup.kill"), "1")?;
    wait_until_empty(path, Instant::now() + DEATH_PATIENCE)?;
    let mut tree = Vec::new();
    list_tree(path, &mut tree)?;
    match steward {
        Some(steward) => have_done(steward, Deed::Remove, &tree),
        None => tree
            .iter()
            .try_for_each(|path| fs::remove_dir(path).map_err(doing("remove", path))),
    }
}

/// Takes a slot's cgroup back from a worker who may have shut it (chmod), and then what is in it.
fn take_back(path: &Path, steward: &Steward) -> Result<(), CgroupError> {
    have_done(steward, Deed::TakeBack, &[path.to_owned()])?;
    let mut below = Vec::new();
    for entry in fs::read_dir(path).map_err(doing("list", path))? {
        let entry = entry.map_err(doing("list", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below.push(entry.path());
        }
    }
    have_done(steward, Deed::TakeBack, &below)
}

/// Lists a cgroup and all below it, the innermost first.
fn list_tree(path: &Path, tree: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    for entry in fs::read_dir(path).map_err(doing("list", path))? {
        let entry = entry.map_err(doing("list", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list_tree(&entry.path(), tree)?;
        }
    }
    tree.push(path.to_owned());
    Ok(())
}

/// What a steward does with files that may be a worker's.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Give { uid: u32, gid: u32 },
    TakeBack,
    Remove,
}

/// Has a steward do the same with all of these.
fn have_done(steward: &Steward, deed: Deed, paths: &[PathBuf]) -> Result<(), CgroupError> {
    let action = match deed {
        Deed::Give { .. } => "give away",
        Deed::TakeBack => "take back",
        Deed::Remove => "remove",
    };
    let first = paths.first().map_or(Path::new(""), PathBuf::as_path);
    let names = paths.iter().map(|path| path.as_os_str().as_bytes());
    let names = c_strings(names).map_err(doing(action, first))?;
    let errand = |path| match deed {
        Deed::Give { uid, gid } => Errand::Give { path, uid, gid },
        Deed::TakeBack => Errand::TakeBack { path },
        Deed::Remove => Errand::RemoveDirectory { path },
    };
    let errands: Vec<_> = names.iter().map(|name| errand(name.as_c_str())).collect();
    steward.carry_out(&errands).map_err(|error| match error {
        ErrandError::Enter(source) => doing(action, first)(source),
        ErrandError::Failed { index, source } => {
            let path = paths.get(index).map_or(first, PathBuf::as_path);
            doing(action, path)(source)
        }
    })
}

fn wait_until_empty(path: &Path, deadline: Instant) -> Result<(), CgroupError> {
    let path = path.join("cgroup.events");
    let events = File::open(&path).map_err(doing("open", &path))?;
    loop {
        let mut text = [0; 256];
        let len = rustix::io::pread(&events, &mut text, 0).map_err(doing("read", &path))?;
        let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default());
        if text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            return Err(doing("wait for the end of processes by", &path)(late));
        }
        let patience = Timespec::try_from(left).ok();
        // Ready when the file has changed since it was read.
        let mut files = [PollFd::new(&events, PollFlags::PRI)];
        match poll(&mut files, patience.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(doing("wait for", &path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the files of a delegated cgroup in which this process is alone.
    fn fake() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let own = format!("{}\n", std::process::id());
        for (name, text) in [
            ("cgroup.procs", own.as_str()),
            ("cgroup.subtree_control", ""),
            ("cgroup.controllers", "cpuset cpu io memory pids\n"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    fn refusal(directory: &Path) -> Unavailable {
        Delegated::check(directory.to_owned()).unwrap_err()
    }

    #[test]
    fn a_delegated_cgroup_with_all_controllers_is_ours() {
        let directory = fake();
        assert!(Delegated::check(directory.path().to_owned()).is_ok());
    }

    #[test]
    fn each_reason_against_it_is_named_with_a_remedy() {
        let directory = fake();
        let path = directory.path();
        fs::write(path.join("cgroup.controllers"), "memory pids\n").unwrap();
        let refused = refusal(path);
        assert!(
            refused.to_string().ends_with("has no cpu controller"),
            "{refused}"
        );
        fs::write(path.join("cgroup.controllers"), "memory cpu pids\n").unwrap();
        fs::write(path.join("cgroup.procs"), "1\n2\n").unwrap();
        let refused = refusal(path);
        assert!(
            refused.to_string().starts_with("2 other processes"),
            "{refused}"
        );
        assert!(refused.remedy().contains("Delegate=yes"));
        fs::remove_file(path.join("cgroup.subtree_control")).unwrap();
        assert!(matches!(refusal(path), Unavailable::NotDelegated { .. }));
    }

    #[test]
    fn this_host_is_looked_at_without_being_changed() {
        match Delegated::find() {
            Ok(found) => assert!(found.directory.is_dir()),
            Err(refused) => {
                assert!(!refused.to_string().is_empty());
                assert!(!refused.remedy().is_empty());
            }
        }
    }

    #[test]
    fn a_write_never_makes_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let error = write(&directory.path().join("cgroup.kill"), "1").unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    }
}
