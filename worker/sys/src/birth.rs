//! The birth of a worker: `clone3`, a gate, id maps, `exec` by descriptor.
//!
//! ```text
//!   supervisor (main thread)                 child
//!     pipes, descriptors above the targets
//!     clone3 ────────────────────────────────▶ PDEATHSIG, reads the gate
//!     writes setgroups, uid_map, gid_map         │
//!     writes the gate byte ─────────────────────▶ takes the ids, keeps capabilities,
//!                                                 dups, closes, execs (birth/child.rs)
//! ```
//!
//! The death signal is tied to the *thread* that clones (prctl(2)), so that a birth must happen on a
//! thread that lives as long as the supervisor. If the supervisor dies before the gate byte, the child
//! reads end of file and exits; if after, the death signal ends it.
//!
//! # Invariants
//!
//! - The child has exactly the descriptors 0, 1, 2 (the null device) and those it was given, from 3 up.
//! - A child that could not exec says at which call and with which errno, on a pipe that exec closes.

mod child;

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::clone3::{Child, clone3, exit_now};
use crate::namespaces::Namespaces;
use crate::steward::{Errand, ErrandError, Steward};

/// The first descriptor that a worker is given.
pub const FIRST_DESCRIPTOR: u32 = 3;

/// Descriptors are lifted above this before the clone, so that the child's dups overwrite none it still needs.
const LIFTED_FROM: i32 = 64;

/// What to give birth to.
pub struct Birth<'a> {
    /// The program, open for reading or as a path.
    pub binary: BorrowedFd<'a>,
    /// Its arguments, with its name first.
    pub arguments: &'a [&'a CStr],
    /// Its whole environment, each `NAME=value`.
    pub environment: &'a [&'a CStr],
    /// Its descriptors from [`FIRST_DESCRIPTOR`] up.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// Its ids.
    pub ids: IdMap,
    /// Where it is born, if not in this process' own user namespace: `ids` are those of it.
    pub steward: Option<&'a Steward>,
    /// The cgroup to be born into.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// What is to be done with the pid of the child while it waits at its gate.
    pub at_gate: &'a dyn Fn(u32) -> io::Result<()>,
}

impl fmt::Debug for Birth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Birth")
            .field("arguments", &self.arguments)
            .field("namespaces", &self.namespaces)
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}

/// How ids inside map to ids outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdMap {
    /// One id: `inside` is this process' own effective id. What an ordinary user may do.
    Single {
        /// The uid and gid inside.
        inside: u32,
    },
    /// This process' own: there is no user namespace to map them in.
    Same,
    /// Two ids: inside 0 for the worker, `job` for its jobs. Needs `CAP_SETUID` and `CAP_SETGID`, or a steward.
    Pair {
        /// The worker's uid and gid outside; the job's are the next.
        first: u32,
        /// The job's uid and gid inside.
        job: u32,
    },
}

/// A newborn worker.
#[derive(Debug)]
pub struct Newborn {
    /// Its pid as this process sees it.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Tells why it could not exec, once it has exited.
    pub failure: FailureReport,
}

/// Why a birth failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}")]
pub struct BirthError {
    /// What failed.
    pub step: BirthStep,
    /// How.
    #[source]
    pub source: io::Error,
}

/// A step of a birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BirthStep {
    /// Pipes and descriptors of the birth itself.
    #[error("prepare the descriptors of a worker")]
    Prepare,
    /// `clone3(2)`.
    #[error("clone a worker into its namespaces (clone3)")]
    Clone,
    /// What its parent does with it at the gate.
    #[error("settle a worker in its cgroup")]
    Settle,
    /// `/proc/PID/setgroups`.
    #[error("give up supplementary groups (/proc/PID/setgroups)")]
    DenySetgroups,
    /// `/proc/PID/uid_map`.
    #[error("map the user ids of a worker (/proc/PID/uid_map)")]
    UidMap,
    /// `/proc/PID/gid_map`.
    #[error("map the group ids of a worker (/proc/PID/gid_map)")]
    GidMap,
    /// The byte that lets the child go on.
    #[error("open the gate of a worker")]
    Gate,
}

impl BirthStep {
    const fn failed(self) -> impl Fn(io::Error) -> BirthError {
        move |source| BirthError { step: self, source }
    }
}

/// Gives birth. The calling thread must live as long as the workers may.
///
/// # Errors
///
/// [`BirthError`] names the step. After an error no child is left.
pub fn bear(birth: &Birth<'_>) -> Result<Newborn, BirthError> {
    let prepare = BirthStep::Prepare.failed();
    let lift = |fd: BorrowedFd<'_>| fcntl_dupfd_cloexec(fd, LIFTED_FROM).map_err(io::Error::from);
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(&prepare)?;
    let (gate_read, gate_write) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(io::Error::from)
        .map_err(&prepare)?;
    let (failure_read, failure_write) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(io::Error::from)
        .map_err(&prepare)?;
    let lifted: Vec<OwnedFd> = birth
        .descriptors
        .iter()
        .map(|fd| lift(*fd))
        .collect::<io::Result<_>>()
        .map_err(&prepare)?;
    let null = lift(null.as_fd()).map_err(&prepare)?;
    let gate_read = lift(gate_read.as_fd()).map_err(&prepare)?;
    let failure_write = lift(failure_write.as_fd()).map_err(&prepare)?;
    let binary = lift(birth.binary).map_err(&prepare)?;
    let plan = child::Plan::new(child::Inputs {
        null: &null,
        gate: &gate_read,
        failure: &failure_write,
        ends_of_parent: [&gate_write, &failure_read],
        binary: &binary,
        descriptors: &lifted,
        arguments: birth.arguments,
        environment: birth.environment,
        ids: birth.ids,
    });
    let newborn = fork(birth, &plan).map_err(BirthStep::Clone.failed())?;
    // The child has copies of its own, which alone decide when these pipes end: the lifted ones go with `lifted`, when
    // this returns, and nobody waits for an end before.
    drop((gate_read, failure_write));
    (birth.at_gate)(newborn.pid)
        .map_err(BirthStep::Settle.failed())
        .and_then(|()| map_ids(&newborn, birth))
        .and_then(|()| open_gate(gate_write))
        .inspect_err(|_| end(&newborn.pidfd))?;
    rustix::fs::fcntl_setfl(&failure_read, OFlags::NONBLOCK)
        .map_err(io::Error::from)
        .map_err(&prepare)
        .inspect_err(|_| end(&newborn.pidfd))?;
    Ok(Newborn {
        pid: newborn.pid,
        pidfd: newborn.pidfd,
        failure: FailureReport(File::from(failure_read)),
    })
}

fn fork(birth: &Birth<'_>, plan: &child::Plan<'_>) -> io::Result<Child> {
    if let Some(steward) = birth.steward {
        let body = || child::run(plan);
        // SAFETY: this process may have threads; `child::run` makes nothing but system calls, and allocates nothing.
        return unsafe { steward.clone3(birth.namespaces, birth.cgroup, body) };
    }
    // SAFETY: as above; it does not return.
    match unsafe { clone3(birth.namespaces, birth.cgroup) }? {
        Some(child) => Ok(child),
        None => exit_now(child::run(plan)),
    }
}

/// Writes the id maps of the child: itself, or has them written from where the child is born.
fn map_ids(child: &Child, birth: &Birth<'_>) -> Result<(), BirthError> {
    let mut files = Vec::new();
    match birth.ids {
        IdMap::Single { inside } => {
            let uid = rustix::process::geteuid().as_raw();
            let gid = rustix::process::getegid().as_raw();
            // Without this the kernel refuses a gid_map from a process without CAP_SETGID (user_namespaces(7)).
            files.push((BirthStep::DenySetgroups, "setgroups", "deny".to_owned()));
            files.push((BirthStep::UidMap, "uid_map", format!("{inside} {uid} 1")));
            files.push((BirthStep::GidMap, "gid_map", format!("{inside} {gid} 1")));
        }
        IdMap::Same => {}
        IdMap::Pair { first, job } => {
            let map = format!("0 {first} 1\n{job} {} 1\n", first + 1);
            files.push((BirthStep::UidMap, "uid_map", map.clone()));
            files.push((BirthStep::GidMap, "gid_map", map));
        }
    }
    let path = |name: &str| format!("/proc/{}/{name}", child.pid);
    let Some(steward) = birth.steward else {
        return files.iter().try_for_each(|(step, name, text)| {
            let file = OpenOptions::new().write(true).open(path(name));
            file.and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(step.failed())
        });
    };
    let paths = c_strings(files.iter().map(|(_, name, _)| path(name)))
        .map_err(BirthStep::UidMap.failed())?;
    let errands: Vec<_> = paths
        .iter()
        .zip(&files)
        .map(|(path, (_, _, text))| Errand::Write {
            path,
            text: text.as_bytes(),
        })
        .collect();
    steward.carry_out(&errands).map_err(|error| match error {
        ErrandError::Enter(source) => BirthStep::UidMap.failed()(source),
        ErrandError::Failed { index, source } => {
            let step = files.get(index).map_or(BirthStep::UidMap, |file| file.0);
            step.failed()(source)
        }
    })
}

/// Lets the child go on.
fn open_gate(gate: OwnedFd) -> Result<(), BirthError> {
    File::from(gate)
        .write_all(&[1])
        .map_err(BirthStep::Gate.failed())
}

/// Ends and reaps a child that will not become a worker.
pub fn end(pidfd: &OwnedFd) {
    let killed = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    let reaped = killed.and_then(|()| {
        rustix::process::waitid(
            rustix::process::WaitId::PidFd(pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        )
    });
    // Both can only fail for a child that is not ours, or that somebody has waited for.
    debug_assert!(reaped.is_ok(), "{reaped:?}");
}

/// Tells why a worker could not exec.
#[derive(Debug)]
pub struct FailureReport(File);

impl FailureReport {
    /// Why the worker could not exec; `None` if it could, or has not tried yet.
    pub fn read(&mut self) -> Option<String> {
        let mut record = [0u8; child::FAILURE_LEN];
        self.0.read_exact(&mut record).ok()?;
        child::describe(record)
    }
}

/// Makes C strings of `texts`.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] if one holds a NUL byte.
pub fn c_strings<T: Into<Vec<u8>>>(texts: impl IntoIterator<Item = T>) -> io::Result<Vec<CString>> {
    texts
        .into_iter()
        .map(|text| CString::new(text).map_err(|_| io::ErrorKind::InvalidInput.into()))
        .collect()
}
