//! A slot's sandbox: what is built once in a worker's life, and what every job of it shares.
//!
//! # Invariants
//!
//! - When [`Slot::build`] returns a slot, the host's root is gone and every layer stands but those that are only reported
//!   (Landlock, cgroup); otherwise it says which does not, why, and what to do. Where the policy is to work without, every layer
//!   stands but those that it names.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::process::geteuid;
use wpool_protocol::outcome::{Identity, IsolationLevel};
use wpool_protocol::wire::{
    IsolationPolicy, LayerReport, LayerState, MountSource, ProfileSetup, Ready, Refused, Setup,
};
use wpool_sys::clone3::SingleThreaded;
use wpool_sys::descriptor::take_inherited;
use wpool_sys::mount::detached_copy;
use wpool_sys::namespaces::Namespaces;

use crate::apply::{self, Detached};
use crate::blueprint::{Alteration, Blueprint};
use crate::cgroup::SlotCgroup;
use crate::directory::BoxDirectory;
use crate::ground::Ground;
use crate::launch::{Reachable, SecondWall, Surroundings};
use crate::layers;
use crate::plan::host::Layout;
use crate::plan::{Lockdown, Step};
use crate::rehearsal;
use crate::seccomp::{self, Accounting};

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
    /// Where boxes are that are no mounts.
    pub(crate) directory: RefCell<Option<BoxDirectory>>,
    /// Jobs so far: each has a cgroup of its own name.
    pub(crate) jobs: Cell<u64>,
    level: IsolationLevel,
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
        let mut ground = Ground::new(&setup)?;
        hold_together(&ground)
            .map_err(|error| layers::refused("pid", "begin a session (setsid)", &error))?;
        let directory = boxes(&ground)?;
        // Looked at and copied while the host's root is still there.
        let layout = Layout::look();
        let reachable = match &directory {
            None => Reachable::of_a_root(),
            Some(boxes) => Reachable::of_a_directory(boxes, &layout, &shown(&setup.profiles)?),
        };
        let working_directory = directory
            .as_ref()
            .map_or_else(|| PathBuf::from("/box"), BoxDirectory::box_path);
        let detached = Detached {
            mounts: match directory {
                None => profile_mounts(&setup.profiles)?,
                Some(_) => Vec::new(),
            },
            files: None,
        };
        let blueprint = Blueprint::on(&ground, &layout, &setup.profiles, accounting);
        let mut blueprint = alteration(blueprint);
        raise(single, &setup, &mut blueprint, &detached, &mut ground)?;
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
            directory: RefCell::new(directory),
            level: if ground.missing().is_empty() {
                IsolationLevel::Full
            } else {
                IsolationLevel::Reduced
            },
            layers: layers::report(accounting, &ground),
            cgroup: cgroup.map(SlotCgroup::new),
            surroundings: Surroundings {
                identity: setup.identity,
                job_id: setup.job_id,
                cores: setup.cores,
                filter: blueprint.filter,
                lockdown: blueprint.lockdown,
                accounting,
                second_wall: SecondWall::of_this_kernel(reachable),
                own_processes: own_processes(setup.identity, &ground),
                working_directory,
                ground,
            },
        })
    }

    /// Who owns what is a job's, if it is not the worker.
    pub(crate) fn owner(&self) -> Option<u32> {
        let Surroundings {
            ground,
            identity,
            job_id,
            ..
        } = &self.surroundings;
        owner(ground, *identity, *job_id)
    }

    /// What to tell the supervisor.
    pub(crate) fn ready(&self) -> Ready {
        Ready {
            level: self.level,
            identity: self.surroundings.identity,
            layers: self.layers.clone(),
        }
    }
}

/// Where no pid namespace does it: what holds a job's processes together is in this session, and comes to this process if its init dies.
fn hold_together(ground: &Ground) -> Result<(), Errno> {
    if ground.has(Namespaces::PID) {
        return Ok(());
    }
    nix::unistd::setsid()?;
    nix::sys::prctl::set_child_subreaper(true)
}

/// Where boxes are that are no mounts.
fn boxes(ground: &Ground) -> Result<Option<BoxDirectory>, Refused> {
    let opened = ground.directory().map(BoxDirectory::open).transpose();
    opened.map_err(|error| layers::refused("mount", "open the directory of its boxes", &error))
}

/// Builds the sandbox, or what this host allows of it where that is the policy: the rest is taken out of what is done for jobs.
fn raise(
    single: SingleThreaded,
    setup: &Setup,
    blueprint: &mut Blueprint,
    detached: &Detached,
    ground: &mut Ground,
) -> Result<(), Refused> {
    if setup.policy == IsolationPolicy::Required {
        let built = apply::apply(&blueprint.worker, detached);
        return built.map_err(|error| layers::refused_step(&error));
    }
    let owner = owner(ground, setup.identity, setup.job_id);
    let owner = owner.unwrap_or_else(|| geteuid().as_raw());
    rehearsal::build(&blueprint.worker, detached, ground)?;
    for steps in &mut blueprint.job {
        rehearsal::rehearse(single, blueprint.namespaces, steps, owner, ground)?;
    }
    if let LayerState::Missing { reason, remedy } = seccomp::state() {
        blueprint.lockdown.retain(|step| *step != Lockdown::Seccomp);
        ground.lacks_too("seccomp", reason, &remedy);
    }
    Ok(())
}

/// Who owns what is a job's: nobody else than the worker where there is no user namespace, nor an id of its own.
fn owner(ground: &Ground, identity: Identity, job_id: u32) -> Option<u32> {
    (ground.has(Namespaces::USER) || identity == Identity::Own).then_some(job_id)
}

/// Processes of ours that the kernel counts with the job's: with an id of its own, none; else the worker
/// and the init, which have the same; and all of this user's where no user namespace counts them apart.
fn own_processes(identity: Identity, ground: &Ground) -> u32 {
    match identity {
        Identity::Own => 0,
        Identity::Shared if ground.has(Namespaces::USER) => 2,
        Identity::Shared => OTHERS_OF_THE_USER,
    }
}

/// Room for what else runs as the same user: the limit of processes is then a bound against flooding, and no more.
const OTHERS_OF_THE_USER: u32 = 4_096;

/// The host paths of all profiles, which without mounts appear where they are or not at all.
fn shown(profiles: &[ProfileSetup]) -> Result<Vec<PathBuf>, Refused> {
    let mounts = profiles.iter().flat_map(|profile| &profile.mounts);
    mounts
        .map(|mount| match &mount.source {
            MountSource::Path(path) if *path == mount.destination.as_bytes() => {
                Ok(PathBuf::from(OsStr::from_bytes(path)))
            }
            MountSource::Path(_) | MountSource::Descriptor(_) => Err(Refused {
                layer: "mount".to_owned(),
                reason: format!(
                    "a profile shows another path at {}, and no mounts are allowed here",
                    mount.destination
                ),
                remedy:
                    "show it where it is, or see `wpool doctor` for what the host does not allow"
                        .to_owned(),
            }),
        })
        .collect()
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
