//! A cgroup for each daemon of a test, where this process has one to divide: then its limits are the kernel's, as in the packaged
//! service. Elsewhere there is none, and limits are kept by sampling.
//!
//! # Invariants
//!
//! - What a test started in a cgroup is killed with it. The cgroup is removed, unless a slot in it belongs to ids that are not
//!   this process' own; then it goes with the cgroup of the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{XattrFlags, setxattr};
use wpool::cgroup::Delegated;

use crate::wpool::wait_for;

/// A cgroup that nobody else is in.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// A new one; `None` where this process has none to divide.
    ///
    /// # Panics
    ///
    /// If it has one, and yet cannot.
    pub fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = divided()?.join(format!("daemon-{number}"));
        fs::create_dir(&directory).expect("it is ours to divide");
        // What systemd writes for Delegate=yes: without it root divides nothing.
        if let Err(error) = setxattr(&directory, "user.delegate", b"1", XattrFlags::empty()) {
            panic!("{}: {error}", directory.display());
        }
        Some(Self { directory })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let kill = fs::write(self.directory.join("cgroup.kill"), "1");
        let is_empty = || {
            let events = fs::read_to_string(self.directory.join("cgroup.events"));
            events.is_ok_and(|events| events.contains("populated 0"))
        };
        assert!(
            (kill.is_ok() && wait_for(is_empty)) || std::thread::panicking(),
            "something lives in {}: {kill:?}",
            self.directory.display()
        );
        drop(remove(&self.directory));
    }
}

fn remove(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

/// Whether this process has a cgroup to divide.
///
/// # Panics
///
/// See [`Cgroup::new`].
pub fn is_there() -> bool {
    divided().is_some()
}

/// The cgroup of this process, divided once.
fn divided() -> Option<&'static Path> {
    static DIVIDED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let divided = DIVIDED.get_or_init(|| {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let directory = Path::new("/sys/fs/cgroup").join(own);
        let mut delegated = Delegated::find().ok()?;
        delegated
            .claim(None)
            .expect("a delegated cgroup can be divided");
        Some(directory)
    });
    divided.as_deref()
}
