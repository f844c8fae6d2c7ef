//! Giving birth to workers: everything of it that is decided once, and the rest for each.
//!
//! # Invariants
//!
//! - The binary is opened once: an upgrade of the package never mixes versions. It is a sealed copy in
//!   memory, so that no job, whoever it is on the host, can write to what runs.
//! - A worker gets an empty environment: no secret of the service's reaches it.
//! - Births happen on the thread that owns the nursery: the kernel ties a worker's death signal to it.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Gid, MemfdFlags, SealFlags, Uid, fcntl_add_seals, memfd_create};
use wpool_protocol::id::{Generation, SlotId, WorkerRef};
use wpool_protocol::outcome::Identity;
use wpool_protocol::wire::{
    IsolationPolicy, JOB_ID, LayerReport, MountSetup, MountSource, ProfileSetup, Setup, StoreLayout,
};
use wpool_sys::birth::{Birth, FIRST_DESCRIPTOR, FailureReport, IdMap, bear};
use wpool_sys::mount::detached_copy;
use wpool_sys::namespaces::Namespaces;
use wpool_sys::steward::{Errand, ErrandError};
use wpool_worker::worker::FIRST_NAMED;

use crate::cgroup::{CgroupError, Delegated, SlotDirectory};
use crate::output::OutputStore;

mod greeting;
pub mod ids;
pub mod reduction;
mod session;

use ids::{Ids, MayMount, NoIds};
use reduction::{Reduction, ReductionError, Trouble};
pub use session::Session;

/// What all workers have in common.
#[derive(Debug)]
pub struct NurseryPlan {
    /// What to do about a missing security layer.
    pub policy: IsolationPolicy,
    /// The profiles that jobs may name.
    pub profiles: Vec<ProfilePlan>,
    /// Room for one output stream in the store.
    pub stream_bytes: u64,
    /// The cores that jobs may use.
    pub cores: Vec<u16>,
    /// How to open the program.
    pub binary: BinarySource,
    /// The cgroup that is ours to divide, if one is delegated.
    pub cgroup: Option<Delegated>,
    /// Whose ids jobs have.
    pub ids: Ids,
}

/// A profile, as workers are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfilePlan {
    /// Its name.
    pub name: String,
    /// Host paths and where they appear.
    pub mounts: Vec<(PathBuf, String)>,
}

/// How to open the program that workers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinarySource {
    /// A sealed copy: for a daemon.
    SealedCopy,
    /// The file itself, unless it is ours to write: for a single run, which cannot wait for a copy.
    File,
}

/// Gives birth to workers.
#[derive(Debug)]
pub struct Nursery {
    plan: NurseryPlan,
    binary: OwnedFd,
    cgroup: Option<Delegated>,
    reduction: Reduction,
}

/// A worker that has just been born; it has said nothing yet.
#[derive(Debug)]
pub struct Newborn {
    /// Its pid as the host sees it.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Where its commands go.
    pub commands: OwnedFd,
    /// Where its replies come from.
    pub replies: OwnedFd,
    /// Where its jobs' output is.
    pub store: OutputStore,
    /// What to say after the greeting.
    pub setup: Setup,
    /// Tells why it could not exec, once it has exited.
    pub failure: FailureReport,
    /// Its cgroup, to be removed when it is gone.
    pub cgroup: Option<SlotDirectory>,
    /// What is to be ended after it, where no pid namespace ends with it.
    pub session: Option<Session>,
}

/// A nursery that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum NurseryError {
    /// The program could not be opened or copied.
    #[error("failed to open wpool's own program")]
    Binary(#[source] io::Error),
    /// The cgroup is delegated, and yet cannot be divided.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Nothing that the config allows to be missing makes a worker stand.
    #[error(transparent)]
    Reduction(#[from] ReductionError),
}

/// A birth that failed.
#[derive(Debug, thiserror::Error)]
pub enum BirthError {
    /// A pipe or the output store.
    #[error("failed to make the pipes of a worker")]
    Pipes(#[source] io::Error),
    /// A mount of a profile.
    #[error("failed to open {path}, a mount of profile `{profile}`")]
    Mount {
        /// The path.
        path: PathBuf,
        /// The profile.
        profile: String,
        /// How.
        #[source]
        source: io::Error,
    },
    /// The worker's cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The directory that its boxes are made in.
    #[error("failed to make a directory for the boxes of a slot")]
    Boxes(#[source] io::Error),
    /// There are no ids left.
    #[error(transparent)]
    Ids(#[from] NoIds),
    /// What is the job's must be given to it.
    #[error("failed to give a job its pipes")]
    Gift(#[from] ErrandError),
    /// The process itself.
    #[error(transparent)]
    Process(#[from] wpool_sys::birth::BirthError),
}

impl Nursery {
    /// Opens what all births need.
    ///
    /// # Errors
    ///
    /// [`NurseryError`] if the running program cannot be opened.
    pub fn new(mut plan: NurseryPlan) -> Result<Self, NurseryError> {
        let mut cgroup = plan.cgroup.take();
        if let Some(delegated) = &mut cgroup {
            delegated.claim(plan.ids.steward())?;
        }
        let mut nursery = Self {
            cgroup,
            binary: open_binary(plan.binary).map_err(NurseryError::Binary)?,
            plan,
            reduction: Reduction::default(),
        };
        if nursery.plan.policy == IsolationPolicy::Reduced {
            nursery.reduction = Reduction::find(|reduction| nursery.try_worker(reduction))?;
        }
        Ok(nursery)
    }

    /// Bears a worker for its word on the sandbox alone.
    fn try_worker(&self, reduction: &Reduction) -> Result<(), Trouble> {
        let worker = WorkerRef {
            slot: SlotId(0),
            generation: Generation(0),
        };
        let born = self.bear_reduced(worker, None, reduction);
        let mut born = born.map_err(Trouble::Unborn)?;
        let heard = greeting::hear_out(&born);
        wpool_sys::birth::end(&born.pidfd);
        let failure = born.failure.read();
        let cgroup = born.cgroup.map_or(Ok(()), SlotDirectory::remove);
        match heard {
            Ok(heard) => heard.map_err(Trouble::Refused),
            Err(error) => Err(Trouble::Lost(failure.unwrap_or_else(|| error.to_string()))),
        }
        .and_then(|()| cgroup.map_err(|error| Trouble::Unborn(error.into())))
    }

    /// Whose ids jobs have.
    pub const fn identity(&self) -> Identity {
        self.plan.ids.identity()
    }

    /// What workers are born without.
    pub fn missing(&self) -> &[LayerReport] {
        self.reduction.missing()
    }

    /// Gives birth to the worker of a slot.
    ///
    /// # Errors
    ///
    /// [`BirthError`] says what failed; no process is left then.
    pub fn bear(&self, worker: WorkerRef) -> Result<Newborn, BirthError> {
        self.bear_with(worker, None)
    }

    /// Gives birth to a worker that runs one job on these descriptors, its 0, 1 and 2.
    ///
    /// # Errors
    ///
    /// See [`Self::bear`].
    pub fn bear_with(
        &self,
        worker: WorkerRef,
        stdio: Option<[BorrowedFd<'_>; 3]>,
    ) -> Result<Newborn, BirthError> {
        self.bear_reduced(worker, stdio, &self.reduction)
    }

    fn bear_reduced(
        &self,
        worker: WorkerRef,
        stdio: Option<[BorrowedFd<'_>; 3]>,
        reduction: &Reduction,
    ) -> Result<Newborn, BirthError> {
        let layout = StoreLayout {
            stream_bytes: self.plan.stream_bytes,
        };
        let lacks = reduction.lacks();
        let ids = self.plan.ids.of_slot(worker.slot)?;
        if let Some(stdio) = stdio {
            self.give(stdio, ids)?;
        }
        let (commands_read, commands) = io::pipe().map_err(BirthError::Pipes)?;
        let (replies, replies_write) = io::pipe().map_err(BirthError::Pipes)?;
        let store = new_store(layout).map_err(BirthError::Pipes)?;
        let (profiles, trees) = self.profiles(u32::from(stdio.is_some()) * 3, lacks)?;
        let directory = self.boxes(worker.slot, ids, reduction)?;
        let mut descriptors = vec![commands_read.as_fd(), replies_write.as_fd(), store.as_fd()];
        descriptors.extend(stdio.iter().flatten());
        descriptors.extend(trees.iter().map(|tree| tree.as_fd()));
        let cgroup = self.cgroup_for(worker.slot)?;
        let cgroup_number = FIRST_DESCRIPTOR + u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
        descriptors.extend(cgroup.iter().map(SlotDirectory::directory));
        let arguments = [
            CString::from(c"wpool"),
            CString::from(c"worker"),
            text(format!("slot={}", worker.slot)),
            text(format!("gen={}", worker.generation)),
        ];
        let born = bear(&Birth {
            binary: self.binary.as_fd(),
            arguments: &arguments.each_ref().map(CString::as_c_str),
            environment: &[],
            descriptors: &descriptors,
            namespaces: Namespaces::WORKER.without(lacks),
            ids: reduction.map(ids),
            steward: self.plan.ids.steward().map(Arc::as_ref),
            cgroup: cgroup.as_ref().map(SlotDirectory::directory),
            at_gate: &|pid| match &cgroup {
                Some(directory) => settle(directory, pid, ids).map_err(io::Error::other),
                None => Ok(()),
            },
        })?;
        Ok(Newborn {
            pid: born.pid,
            pidfd: born.pidfd,
            failure: born.failure,
            commands: commands.into(),
            replies: replies.into(),
            store: OutputStore::new(File::from(store), layout),
            session: lacks
                .contains(Namespaces::PID)
                .then(|| Session::of(born.pid)),
            setup: Setup {
                slot: worker.slot,
                policy: self.plan.policy,
                identity: self.identity(),
                job_id: match ids {
                    IdMap::Pair { first, .. } if lacks.contains(Namespaces::USER) => first + 1,
                    IdMap::Pair { .. } | IdMap::Single { .. } | IdMap::Same => JOB_ID,
                },
                profiles,
                store: layout,
                cgroup: cgroup.is_some().then_some(cgroup_number),
                stdio: stdio.map(|_| [FIRST_NAMED, FIRST_NAMED + 1, FIRST_NAMED + 2]),
                cores: self.cores(worker.slot),
                missing: reduction.missing().to_vec(),
                directory: directory.map(|path| path.into_os_string().into_encoded_bytes()),
            },
            cgroup,
        })
    }

    /// A fresh cgroup for the next worker of a slot.
    fn cgroup_for(&self, slot: SlotId) -> Result<Option<SlotDirectory>, CgroupError> {
        let make = |delegated: &Delegated| delegated.make_slot(u32::from(slot.0));
        self.cgroup.as_ref().map(make).transpose()
    }

    /// Gives a job its pipes: one belongs to who made it, and a program that opens /dev/stdout opens it anew.
    fn give(&self, stdio: [BorrowedFd<'_>; 3], ids: IdMap) -> Result<(), BirthError> {
        let IdMap::Pair { first, .. } = ids else {
            return Ok(());
        };
        let (uid, gid) = (first + 1, first + 1);
        if let Some(steward) = self.plan.ids.steward() {
            let gifts = stdio.map(|file| Errand::GiveOpen { file, uid, gid });
            return Ok(steward.carry_out(&gifts)?);
        }
        for end in stdio {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let given = rustix::fs::fchown(end, Some(uid), Some(gid));
            given.map_err(|error| BirthError::Pipes(error.into()))?;
        }
        Ok(())
    }

    /// The directory of a slot's boxes, given to its worker, if they are no mounts.
    fn boxes(
        &self,
        slot: SlotId,
        ids: IdMap,
        reduction: &Reduction,
    ) -> Result<Option<PathBuf>, BirthError> {
        let path = reduction.directory(slot).map_err(BirthError::Boxes)?;
        let (Some(path), IdMap::Pair { first, .. }) = (&path, ids) else {
            return Ok(path);
        };
        let directory = File::open(path).map_err(BirthError::Boxes)?;
        reduction
            .let_through(&directory)
            .map_err(BirthError::Boxes)?;
        if reduction.lacks().contains(Namespaces::USER) {
            return Ok(Some(path.clone()));
        }
        let (uid, gid) = (first, first);
        if let Some(steward) = self.plan.ids.steward() {
            let file = directory.as_fd();
            steward.carry_out(&[Errand::GiveOpen { file, uid, gid }])?;
        } else {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::fchown(&directory, uid, gid)
                .map_err(|error| BirthError::Boxes(error.into()))?;
        }
        Ok(Some(path.clone()))
    }

    /// All cores, the slot's own first.
    fn cores(&self, slot: SlotId) -> Vec<u16> {
        let mut cores = self.plan.cores.clone();
        if !cores.is_empty() {
            let len = cores.len();
            cores.rotate_left(usize::from(slot.0) % len);
        }
        cores
    }

    /// What to tell of the profiles, and the mounts that the worker could not make itself.
    ///
    /// A worker with ids of its own may not enter a directory that root alone may: root hands it the
    /// mount. Another user's worker goes where its own ids may.
    fn profiles(
        &self,
        before: u32,
        lacks: Namespaces,
    ) -> Result<(Vec<ProfileSetup>, Vec<OwnedFd>), BirthError> {
        let may_mount = if lacks.contains(Namespaces::MOUNT) {
            MayMount::No
        } else {
            self.plan.ids.may_mount()
        };
        let mut trees = Vec::new();
        let mut profiles = Vec::new();
        for profile in &self.plan.profiles {
            let mut mounts = Vec::new();
            for (path, destination) in &profile.mounts {
                let source = match may_mount {
                    MayMount::No => MountSource::Path(path.as_os_str().as_bytes().to_vec()),
                    MayMount::Yes => {
                        let number = u32::try_from(trees.len()).unwrap_or(u32::MAX);
                        trees.push(detached_copy(path).map_err(|source| BirthError::Mount {
                            path: path.clone(),
                            profile: profile.name.clone(),
                            source,
                        })?);
                        MountSource::Descriptor(FIRST_NAMED + before + number)
                    }
                };
                mounts.push(MountSetup {
                    source,
                    destination: destination.clone(),
                });
            }
            profiles.push(ProfileSetup {
                name: profile.name.clone(),
                mounts,
            });
        }
        Ok((profiles, trees))
    }
}

/// Moves a worker to its own cgroup, and puts its slot's into its hands.
fn settle(directory: &SlotDirectory, worker: u32, ids: IdMap) -> Result<(), CgroupError> {
    directory.settle(worker)?;
    match ids {
        IdMap::Pair { first, .. } => directory.give_to(first, first),
        IdMap::Single { .. } | IdMap::Same => Ok(()),
    }
}

fn text(text: String) -> CString {
    CString::new(text).unwrap_or_default()
}

/// A memory file that neither side can shorten or let grow.
fn new_store(layout: StoreLayout) -> io::Result<OwnedFd> {
    let store = memfd_create(
        c"wpool-output",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    rustix::fs::ftruncate(&store, layout.len())?;
    fcntl_add_seals(
        &store,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(store)
}

fn open_binary(source: BinarySource) -> io::Result<OwnedFd> {
    let mut file = File::open("/proc/self/exe")?;
    if source == BinarySource::File && !is_ours_to_write(&file)? {
        return Ok(file.into());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // From 6.3 on the kernel wants to be told that the file is to be executed; before, it refuses the flag.
    let copy = memfd_create(c"wpool", flags | MemfdFlags::EXEC)
        .or_else(|_| memfd_create(c"wpool", flags))?;
    let mut copy = File::from(copy);
    io::copy(&mut file, &mut copy)?;
    rustix::fs::fchmod(&copy, rustix::fs::Mode::from_raw_mode(0o555))?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

/// Whether a job with this process' host ids could write to the file.
fn is_ours_to_write(file: &File) -> io::Result<bool> {
    let stat = rustix::fs::fstat(file)?;
    let ours = rustix::process::geteuid().as_raw();
    Ok((ours != 0 && stat.st_uid == ours) || stat.st_mode & 0o022 != 0)
}
