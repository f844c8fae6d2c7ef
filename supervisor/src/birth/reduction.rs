//! What this host does not allow workers, where the config lets them work without (`isolation = "reduced"`).
//!
//! A worker is tried, and what it or the kernel refuses is given up, until one stands. It is tried once, when the supervisor
//! starts: what a pool's workers are made of does not change while it runs.
//!
//! # Invariants
//!
//! - Nothing is given up that was not refused, or that is of no use without what was; each try gives up something, or is the last.
//! - The directories that stand in for mounts are this user's alone, and go with the [`Reduction`]; those of a supervisor that was
//!   killed go with the next one.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use wpool_protocol::id::SlotId;
use wpool_protocol::wire::{LayerReport, LayerState, Refused};
use wpool_sys::birth::IdMap;
use wpool_sys::clone3::can_be_born_into;
use wpool_sys::namespaces::Namespaces;
use wpool_worker::directory::BoxDirectory;

use super::BirthError;
use crate::diagnosis::{Course, Failure, Stage};

/// What the names of directories for boxes begin with.
const PREFIX: &str = "wpool-boxes-";

/// What workers are born without.
#[derive(Debug, Default)]
pub struct Reduction {
    missing: Vec<LayerReport>,
    boxes: Option<Boxes>,
}

/// The directory that boxes are made in.
#[derive(Debug)]
struct Boxes {
    path: PathBuf,
    /// Locked as long as this supervisor lives.
    lock: File,
}

/// Why a worker did not come to stand.
#[derive(Debug)]
pub enum Trouble {
    /// It says that it cannot build its sandbox.
    Refused(Refused),
    /// It could not be born.
    Unborn(BirthError),
    /// It said neither that it stands nor why not.
    Lost(String),
}

/// A way to work could not be found.
#[derive(Debug, thiserror::Error)]
pub enum ReductionError {
    /// What would have to be given up next is needed.
    #[error("the sandbox cannot be built: layer `{}`: {}; remedy: {}", .0.layer, .0.reason, .0.remedy)]
    Refused(Refused),
    /// A worker cannot be born, whatever it is born without.
    #[error("no worker can be started, see `wpool doctor`")]
    Unborn(#[source] BirthError),
    /// A worker ends before it says anything.
    #[error("a worker cannot be started: {0}: see `wpool doctor`")]
    Lost(String),
    /// There is no place for boxes.
    #[error("failed to make a directory for the boxes of jobs in {dir}")]
    Boxes {
        /// Where.
        dir: PathBuf,
        /// How.
        #[source]
        source: io::Error,
    },
}

impl Reduction {
    /// Tries workers until one stands; `try_worker` bears one and hears what it says.
    ///
    /// # Errors
    ///
    /// [`ReductionError`] says what cannot be done without.
    pub fn find(
        mut try_worker: impl FnMut(&Self) -> Result<(), Trouble>,
    ) -> Result<Self, ReductionError> {
        let mut reduction = Self::default();
        loop {
            let Err(trouble) = try_worker(&reduction) else {
                return Ok(reduction);
            };
            let before = reduction.missing.len();
            let blame = reduction.blame(&trouble);
            if let Some((blamed, why)) = &blame {
                for namespace in blamed {
                    reduction.give_up(*namespace, why);
                }
                reduction.give_up_what_is_of_no_use(why);
            }
            if reduction.missing.len() == before {
                return Err(match (blame, trouble) {
                    (Some((_, why)), _) => ReductionError::Refused(why),
                    (None, Trouble::Refused(refused)) => ReductionError::Refused(refused),
                    (None, Trouble::Unborn(error)) => ReductionError::Unborn(error),
                    (None, Trouble::Lost(reason)) => ReductionError::Lost(reason),
                });
            }
            reduction.make_boxes()?;
        }
    }

    /// The namespaces that workers are born without.
    pub fn lacks(&self) -> Namespaces {
        let named = self.missing.iter();
        let named = named.filter_map(|layer| Namespaces::named(&layer.name));
        named.fold(Namespaces::NONE, |lacks, one| lacks | one)
    }

    /// The ids of a worker, which are mapped in its user namespace if it has one.
    pub(super) fn map(&self, ids: IdMap) -> IdMap {
        if self.lacks().contains(Namespaces::USER) {
            IdMap::Same
        } else {
            ids
        }
    }

    /// What to tell workers.
    pub fn missing(&self) -> &[LayerReport] {
        &self.missing
    }

    /// The directory of a slot's boxes, which is there then, if they are no mounts.
    ///
    /// # Errors
    ///
    /// Those of `mkdir(2)`.
    pub fn directory(&self, slot: SlotId) -> io::Result<Option<PathBuf>> {
        let Some(boxes) = &self.boxes else {
            return Ok(None);
        };
        let path = boxes.path.join(format!("slot-{slot}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Some(path)),
        }
    }

    /// Lets others through to what is theirs: a worker or a job with ids of its own.
    ///
    /// # Errors
    ///
    /// Those of `fchmod(2)`.
    pub(super) fn let_through(&self, slot: &File) -> io::Result<()> {
        let through = rustix::fs::Mode::from_raw_mode(0o711);
        for directory in self.boxes.iter().map(|boxes| &boxes.lock).chain([slot]) {
            rustix::fs::fchmod(directory, through)?;
        }
        Ok(())
    }

    /// What is to blame, and what is known of why.
    fn blame(&self, trouble: &Trouble) -> Option<(Vec<Namespaces>, Refused)> {
        let (blamed, failure) = match trouble {
            Trouble::Refused(refused) => {
                let layer = match &*refused.layer {
                    "pivot_root" => "mount",
                    layer => layer,
                };
                let named = Namespaces::named(layer).into_iter();
                let named = named.filter(|one| !self.lacks().contains(*one));
                (named.collect(), Failure::of_layer(refused))
            }
            Trouble::Unborn(error) => {
                let failure = Failure::of_birth(error)?;
                let blamed = match failure.stage {
                    // What was used up for a moment is no reason to do without for good.
                    _ if failure.course() == Course::Passing => Vec::new(),
                    Stage::Clone => self.refused_by_the_kernel(),
                    Stage::Ids => vec![Namespaces::USER.without(self.lacks())],
                    Stage::Start | Stage::Build => Vec::new(),
                };
                (blamed, failure)
            }
            Trouble::Lost(_) => return None,
        };
        Some((blamed, failure.explained()))
    }

    /// The namespaces into which no child can be born.
    fn refused_by_the_kernel(&self) -> Vec<Namespaces> {
        let user = Namespaces::USER.without(self.lacks());
        if can_be_born_into(user).is_err() {
            // Without any namespace, too: then it is the call itself that is refused.
            return [user].into_iter().filter(|one| !one.is_empty()).collect();
        }
        let others = Namespaces::NAMED.into_iter().map(|(_, one)| one);
        let others = others.filter(|one| !self.lacks().contains(*one));
        others
            .filter(|one| can_be_born_into(user | *one).is_err())
            .collect()
    }

    fn give_up(&mut self, namespace: Namespaces, why: &Refused) {
        let lacks = self.lacks();
        for (name, one) in Namespaces::NAMED {
            if namespace.contains(one) && !lacks.contains(one) {
                self.missing.push(LayerReport {
                    name: name.to_owned(),
                    state: LayerState::Missing {
                        reason: why.reason.clone(),
                        remedy: why.remedy.clone(),
                    },
                });
            }
        }
    }

    /// Without mounts there is no `/proc` of its own, without which a pid namespace cannot be looked into; nor a view of it to hide.
    fn give_up_what_is_of_no_use(&mut self, why: &Refused) {
        if self.lacks().contains(Namespaces::USER) {
            let others = Namespaces::NAMED.into_iter().map(|(_, one)| one);
            for one in others.filter(|one| can_be_born_into(*one).is_err()) {
                self.give_up(one, why);
            }
        }
        if self.lacks().contains(Namespaces::MOUNT) {
            self.give_up(Namespaces::PID, why);
        }
    }

    /// Makes the directory for boxes, once it is known that they cannot be mounts.
    fn make_boxes(&mut self) -> Result<(), ReductionError> {
        if self.boxes.is_some() || !self.lacks().contains(Namespaces::MOUNT) {
            return Ok(());
        }
        let dir = std::env::temp_dir();
        let boxes = Boxes::make(&dir);
        self.boxes = Some(boxes.map_err(|source| ReductionError::Boxes { dir, source })?);
        Ok(())
    }
}

impl Boxes {
    fn make(dir: &Path) -> io::Result<Self> {
        remove_stale(dir);
        let template = dir.join(format!("{PREFIX}XXXXXX"));
        let template = CString::new(template.as_os_str().as_bytes())?;
        let path = nix::unistd::mkdtemp(&*template)?;
        let lock = File::open(&path)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, lock })
    }
}

impl Drop for Boxes {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes what supervisors of this user that are no more have left.
fn remove_stale(dir: &Path) {
    let ours = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let flags = rustix::fs::OFlags::DIRECTORY
            | rustix::fs::OFlags::NOFOLLOW
            | rustix::fs::OFlags::CLOEXEC;
        let mode = rustix::fs::Mode::empty();
        let Ok(lock) = rustix::fs::open(entry.path(), flags, mode) else {
            continue;
        };
        let is_ours = rustix::fs::fstat(&lock).is_ok_and(|stat| stat.st_uid == ours);
        let nonblocking = FlockOperation::NonBlockingLockExclusive;
        if is_ours && rustix::fs::flock(&lock, nonblocking).is_ok() {
            remove(&entry.path());
        }
    }
}

/// What cannot be removed stays for the next one, or for somebody who looks.
fn remove(path: &Path) {
    let removed = BoxDirectory::open(path).and_then(|_| fs::remove_dir(path));
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "a directory of boxes is left");
    }
}
