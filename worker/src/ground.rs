//! What a worker stands on: the namespaces that the host allows it, and what takes the place of one that is missing.
//!
//! With `isolation = "required"` none is missing, and nothing of this file shows. With `reduced` a host may refuse some:
//!
//! | missing | what takes its place |
//! | --- | --- |
//! | `user` | nothing: jobs are the user who runs wpool, without capabilities; the other namespaces mostly go with it |
//! | `mount` | a box that is a directory of the host's, and Landlock, which must be there: no other file is opened |
//! | `pid` | a process group that a job cannot leave (the filter refuses it), so that its end is still one signal |
//! | `net` | no sockets (the filter refuses them) |
//! | `ipc` | no System V objects and message queues (the filter refuses them) |
//! | `uts`, `cgroup` | nothing: the names of the host and of its cgroups can be read |
//!
//! # Invariants
//!
//! - Without `mount` there is Landlock, and without `mount`, `pid`, `net` or `ipc` the filter: where neither wall stands, no worker
//!   does.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use wpool_protocol::wire::{IsolationPolicy, LayerReport, LayerState, Refused, Setup};
use wpool_sys::namespaces::Namespaces;

use crate::{landlock, seccomp};

/// What a worker stands on.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    lacks: Namespaces,
    directory: Option<PathBuf>,
    missing: Vec<LayerReport>,
}

impl Ground {
    /// All namespaces.
    pub fn whole() -> Self {
        Self::default()
    }

    /// All but these, for no reason.
    #[cfg(test)]
    pub(crate) fn without(lacks: Namespaces) -> Self {
        Self {
            lacks,
            ..Self::default()
        }
    }

    /// What the supervisor says there is.
    pub(crate) fn new(setup: &Setup) -> Result<Self, Refused> {
        let named = setup.missing.iter();
        let named = named.filter_map(|layer| Namespaces::named(&layer.name));
        let mut ground = Self {
            lacks: named.fold(Namespaces::NONE, |lacks, one| lacks | one),
            directory: setup
                .directory
                .as_deref()
                .map(|path| PathBuf::from(OsStr::from_bytes(path))),
            missing: setup.missing.clone(),
        };
        if setup.policy == IsolationPolicy::Required && !ground.missing.is_empty() {
            return Err(refused("setup", "a layer is missing that is required", ""));
        }
        ground.check()?;
        ground.tell_consequences();
        Ok(ground)
    }

    /// What else a job has to do without, for the same reason.
    fn tell_consequences(&mut self) {
        let remedy = "see the layer mount";
        if !self.has(Namespaces::MOUNT) {
            let root =
                "a job has no root of its own: Landlock alone keeps it from the host's files";
            self.lacks_too("pivot_root", root.to_owned(), remedy);
            let disk = "a box is a directory of the host's: what a job writes is not bounded but for the size of each file";
            self.lacks_too("disk_limit", disk.to_owned(), remedy);
        } else if !self.has(Namespaces::PID) {
            let proc = "a job's /proc is empty: the host's would show others";
            self.lacks_too("proc", proc.to_owned(), "see the layer pid");
        }
    }

    /// Whether something holds a job where a namespace does not.
    fn check(&self) -> Result<(), Refused> {
        if !self.has(Namespaces::MOUNT) {
            if self.has(Namespaces::PID) || self.directory.is_none() {
                return Err(refused("setup", "a box without mounts has no place", ""));
            }
            if let LayerState::Missing { reason, remedy } = landlock::state() {
                let text = format!(
                    "nothing would keep a job from this user's files: no mounts are allowed here, and {reason}"
                );
                return Err(refused("landlock", &text, &remedy));
            }
        }
        let filtered = Namespaces::PID | Namespaces::NET | Namespaces::IPC | Namespaces::MOUNT;
        if !self.has(filtered)
            && let LayerState::Missing { reason, remedy } = seccomp::state()
        {
            let text = format!(
                "nothing would stand in for the namespaces that are not allowed here: {reason}"
            );
            return Err(refused("seccomp", &text, &remedy));
        }
        Ok(())
    }

    /// Whether all of these are there.
    pub fn has(&self, namespaces: Namespaces) -> bool {
        namespaces.without(self.lacks) == namespaces
    }

    /// Those of these that are there.
    pub fn of(&self, namespaces: Namespaces) -> Namespaces {
        namespaces.without(self.lacks)
    }

    /// Those that are missing.
    pub const fn lacks(&self) -> Namespaces {
        self.lacks
    }

    /// Where boxes are that are no mounts.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// What is missing, and why.
    pub(crate) fn missing(&self) -> &[LayerReport] {
        &self.missing
    }

    /// Something else turns out to be missing, which a job can do without.
    pub(crate) fn lacks_too(&mut self, layer: &str, reason: String, remedy: &str) {
        if !self.missing.iter().any(|known| known.name == layer) {
            self.missing.push(LayerReport {
                name: layer.to_owned(),
                state: LayerState::Missing {
                    reason,
                    remedy: remedy.to_owned(),
                },
            });
        }
    }
}

fn refused(layer: &str, reason: &str, remedy: &str) -> Refused {
    Refused {
        layer: layer.to_owned(),
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    }
}
