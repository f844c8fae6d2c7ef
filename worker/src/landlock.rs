//! The second wall around a job's files: a Landlock domain over what is mounted.
//!
//! The mounts already decide what a job sees; Landlock says the same a second time, by another part of the
//! kernel, and adds two things that mounts cannot: signals and abstract sockets end at the domain, so
//! that a job reaches nothing outside its own tree by them.
//!
//! ```text
//!   init:  state() once ─▶ Ruleset::new(grants) ─▶ fork ─▶ job's process: restrict_self() ─▶ seccomp ─▶ exec
//! ```
//!
//! # Invariants
//!
//! - Never in an init: in a domain even a process with all capabilities may not mount (kernel: `hook_sb_mount`).
//! - What no grant names is refused. A grant names what lies beneath the path at the time of
//!   [`Ruleset::new`]: the box must be built by then.
//! - Networks are not handled: a job has a loopback of its own, and nothing else.
//!
//! # By version of the kernel's ABI
//!
//! | ABI | kernel | what it adds here |
//! | --- | --- | --- |
//! | 1 | 5.13 | not used: no file could be renamed from one directory into another |
//! | 2 | 5.19 | files: open, make, remove, rename |
//! | 3 | 6.2 | truncating |
//! | 5 | 6.10 | ioctl on devices |
//! | 6 | 6.12 | signals and abstract sockets end at the domain |
//! | 9 | 7.1 | connecting to sockets that lie in a directory: only where the job may write |

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, PathBeneath, PathFd, PathFdError, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, make_bitflags,
};
use nix::errno::Errno;
use wpool_protocol::wire::LayerState;

/// The newest version whose rights are asked for; the kernel gets what it knows of them.
const NEWEST: ABI = ABI::V9;

/// The oldest version that is used: before it, every rename between directories is refused.
const OLDEST: u32 = 2;

/// What a job may do with which part of its box.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grants<'a> {
    /// Read, list, execute: the system directories.
    pub read_only: &'a [&'a Path],
    /// All of that, and make, write, rename, remove: the job's own places.
    pub read_write: &'a [&'a Path],
    /// Read, list, and write to what is there, ioctl on devices included: `/dev` and `/proc` (where a
    /// process writes its own `oom_score_adj` and `comm`). Nothing is made, removed or executed.
    pub write_in_place: &'a [&'a Path],
}

/// A prepared domain.
#[derive(Debug)]
pub struct Ruleset {
    created: RulesetCreated,
}

/// Landlock is there but the domain could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// A granted path could not be opened.
    #[error("open `{path}` for a Landlock rule")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: PathFdError,
    },
    /// The type of a granted path could not be read.
    #[error("look at `{path}` for a Landlock rule")]
    Type {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a step.
    #[error("make a Landlock domain")]
    Refused(#[from] RulesetError),
    /// The kernel has no Landlock that is used here: [`state`] says so before.
    #[error("enter a Landlock domain: the kernel enforces nothing of it")]
    NotEnforced,
}

/// Whether this kernel has a Landlock that is worth using, and which.
pub fn state() -> LayerState {
    judge(wpool_sys::landlock::abi())
}

fn judge(abi: io::Result<u32>) -> LayerState {
    let missing = |reason: String, remedy: &str| LayerState::Missing {
        reason,
        remedy: remedy.to_owned(),
    };
    match abi {
        Ok(abi) if abi >= OLDEST => LayerState::Active(format!("ABI {abi}")),
        Ok(abi) => missing(
            format!(
                "the kernel's Landlock has ABI {abi}, under which no file can be renamed from one directory into another"
            ),
            "use a kernel of 5.19 or newer",
        ),
        Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            Errno::EOPNOTSUPP => missing(
                "Landlock is switched off at boot".to_owned(),
                "add landlock to the list of the kernel parameter lsm=",
            ),
            Errno::ENOSYS => missing(
                "the kernel has no Landlock, or a sandbox around wpool hides it".to_owned(),
                "use a kernel with CONFIG_SECURITY_LANDLOCK; inside a container, let its own \
                 profile allow the landlock calls",
            ),
            _ => missing(
                format!("the kernel does not tell its version of Landlock: {error}"),
                "look whether a sandbox around wpool refuses the landlock calls",
            ),
        },
    }
}

impl Ruleset {
    /// Prepares a domain with these grants; every path must exist.
    ///
    /// # Errors
    ///
    /// [`LandlockError`] names the path or the step.
    pub fn new(grants: &Grants<'_>) -> Result<Self, LandlockError> {
        let mut created = landlock::Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        for (paths, access) in [
            (grants.read_only, AccessFs::from_read(NEWEST)),
            (grants.read_write, read_write()),
            (grants.write_in_place, write_in_place()),
        ] {
            for path in paths {
                created = grant(created, path, access)?;
            }
        }
        Ok(Self {
            // The kernel's audit log is the host's: a job shall not be able to fill it.
            created: created.log_same_exec(false)?,
        })
    }

    /// Puts the calling thread and what it forks later into the domain, for good; sets `no_new_privs`.
    ///
    /// # Errors
    ///
    /// [`LandlockError`]: also if the kernel enforces nothing.
    pub fn restrict_self(self) -> Result<(), LandlockError> {
        match self.created.restrict_self()?.ruleset {
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
            RulesetStatus::NotEnforced => Err(LandlockError::NotEnforced),
        }
    }
}

/// Everything but devices, which no job can make nor has where it writes.
fn read_write() -> BitFlags<AccessFs> {
    AccessFs::from_all(NEWEST) & !make_bitflags!(AccessFs::{MakeChar | MakeBlock | IoctlDev})
}

fn write_in_place() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | IoctlDev})
}

fn grant(
    created: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, LandlockError> {
    let opened = PathFd::new(path).map_err(|source| LandlockError::Path {
        path: path.to_owned(),
        source,
    })?;
    let stat = rustix::fs::fstat(&opened).map_err(|errno| LandlockError::Type {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    // Rights that only a directory can give make the kernel refuse a rule for a file.
    let access = if is_directory {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    };
    Ok(created.add_rule(PathBeneath::new(opened, access))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_a_remedy() {
        let errno = |errno: Errno| Err(io::Error::from_raw_os_error(errno as i32));
        for (abi, word) in [
            (Ok(1), "5.19"),
            (errno(Errno::EOPNOTSUPP), "lsm="),
            (errno(Errno::ENOSYS), "CONFIG_SECURITY_LANDLOCK"),
            (errno(Errno::EPERM), "refuses"),
        ] {
            let LayerState::Missing { remedy, .. } = judge(abi) else {
                panic!("{word}");
            };
            assert!(remedy.contains(word), "{remedy}");
        }
        assert_eq!(judge(Ok(2)), LayerState::Active("ABI 2".to_owned()));
    }
}
