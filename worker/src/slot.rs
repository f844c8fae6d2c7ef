//! A slot's sandbox: what is built once in a worker's life, and what every job of it shares.
//!
//! # Invariants
//!
//! - When [`Slot::build`] returns a slot, the host's root is gone and every layer stands but those that are only reported
//!   (Landlock, cgroup); otherwise it says which does not, why, and what to do. There is no policy yet that works without.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use wpool_protocol::outcome::{Identity, IsolationLevel};
use wpool_protocol::wire::{
    LayerReport, LayerState, MountSource, ProfileSetup, Ready, Refused, Setup,
};
use wpool_sys::clone3::SingleThreaded;
use wpool_sys::descriptor::take_inherited;
use wpool_sys::mount::detached_copy;
use wpool_sys::namespaces::Namespaces;

use crate::apply::{self, Detached};
use crate::blueprint::{Alteration, Blueprint};
use crate::cgroup::SlotCgroup;
use crate::landlock;
use crate::launch::{SecondWall, Surroundings};
use crate::layers;
use crate::plan::Step;
use crate::plan::host::Layout;
use crate::seccomp::Accounting;

/// A slot's sandbox.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) single: SingleThreaded,
    pub(crate) surroundings: Surroundings,
    /// The steps of a job's init, by profile.
    pub(crate) job_plans: Vec<Vec<Step>>,
    /// What a job's init is born into.
    pub(crate) namespaces: Namespaces,
    /// Descriptors that become a job's 0, 1 and 2, where it is run in the foreground.
    pub(crate) stdio: RefCell<Option<[OwnedFd; 3]>>,
    /// The slot's cgroup, where controllers are delegated.
    pub(crate) cgroup: Option<SlotCgroup>,
    /// All processes of the slot: the worker's own `/proc`.
    pub(crate) proc: OwnedFd,
    /// Jobs so far: each has a cgroup of its own name.
    pub(crate) jobs: Cell<u64>,
    layers: Vec<LayerReport>,
}

impl Slot {
    /// Builds the sandbox of this process.
    pub(crate) fn build(
        single: SingleThreaded,
        setup: Setup,
        alteration: Alteration,
    ) -> Result<Self, Refused> {
        let take = |number: u32| {
            take_inherited(number)
                .map_err(|error| layers::refused("setup", "take a descriptor", &error))
        };
        let stdio = match setup.stdio {
            Some([stdin, stdout, stderr]) => Some([take(stdin)?, take(stdout)?, take(stderr)?]),
            None => None,
        };
        let cgroup = setup.cgroup.map(take).transpose()?;
        let accounting = if cgroup.is_some() {
            Accounting::Cgroup
        } else {
            Accounting::Sampling
        };
        // Looked at and copied while the host's root is still there.
        let layout = Layout::look();
        let mounts = profile_mounts(&setup.profiles)?;
        let detached = Detached {
            mounts,
            files: None,
        };
        let blueprint = alteration(Blueprint::whole(&layout, &setup.profiles, accounting));
        apply::apply(&blueprint.worker, &detached).map_err(|error| layers::refused_step(&error))?;
        let proc = File::open("/proc")
            .map_err(|error| layers::refused("pid", "open its own /proc", &error))?;
        pin(&setup.cores)?;
        Ok(Self {
            single,
            jobs: Cell::new(0),
            proc: proc.into(),
            job_plans: blueprint.job,
            namespaces: blueprint.namespaces,
            stdio: RefCell::new(stdio),
            layers: layers::report(accounting),
            cgroup: cgroup.map(SlotCgroup::new),
            surroundings: Surroundings {
                identity: setup.identity,
                cores: setup.cores,
                filter: blueprint.filter,
                lockdown: blueprint.lockdown,
                accounting,
                second_wall: match landlock::state() {
                    LayerState::Active(_) => SecondWall::Landlock,
                    LayerState::Missing { .. } => SecondWall::Missing,
                },
                own_processes: own_processes(setup.identity),
            },
        })
    }

    /// What to tell the supervisor.
    pub(crate) fn ready(&self) -> Ready {
        Ready {
            level: IsolationLevel::Full,
            identity: self.surroundings.identity,
            layers: self.layers.clone(),
        }
    }
}

/// Processes of ours that the kernel counts with the job's: with an id of its own, none; else the worker
/// and the init, which have the same.
const fn own_processes(identity: Identity) -> u32 {
    match identity {
        Identity::Own => 0,
        Identity::Shared => 2,
    }
}

/// Takes or makes the detached mounts of all profiles, in the order of the plan.
fn profile_mounts(profiles: &[ProfileSetup]) -> Result<Vec<OwnedFd>, Refused> {
    profiles
        .iter()
        .flat_map(|profile| &profile.mounts)
        .map(|mount| {
            let tree = match &mount.source {
                MountSource::Path(path) => detached_copy(Path::new(OsStr::from_bytes(path))),
                MountSource::Descriptor(number) => take_inherited(*number),
            };
            tree.map_err(|error| Refused {
                layer: "mount".to_owned(),
                reason: format!("failed to open a mount for {}: {error}", mount.destination),
                remedy: "check that the path exists, and that every directory above it may be entered: by the user who runs wpool, or by everybody where jobs have ids of their own and wpool is not root".to_owned(),
            })
        })
        .collect()
}

/// Stays on the slot's own core, where the job will be.
fn pin(cores: &[u16]) -> Result<(), Refused> {
    let Some(core) = cores.first() else {
        return Ok(());
    };
    let mut set = nix::sched::CpuSet::new();
    set.set(usize::from(*core))
        .and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set))
        .map_err(|error| layers::refused("cores", "stay on its core (sched_setaffinity)", &error))
}
