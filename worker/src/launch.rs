//! From a fork of init to the job's program: the lock-down, then exec.
//!
//! The steps and their order are [`crate::plan::LOCKDOWN`]. Each is fail-closed: what cannot lock itself down does
//! not become the job.
//!
//! # Invariants
//!
//! - Nothing of the job runs before the last step is done.
//! - The filter comes last: what it forbids is needed by the steps before it.
//! - At exec the process has the descriptors 0, 1 and 2; all others are close-on-exec.

use std::ffi::CString;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, chdir, execve, setpgid, setsid};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use wpool_protocol::outcome::Identity;
use wpool_protocol::wire::LayerState;
use wpool_sys::namespaces::Namespaces;
use wpool_sys::{descriptor, signals};

use crate::dialogue::Launch;
use crate::directory::BoxDirectory;
use crate::ground::Ground;
use crate::landlock::{self, Grants, LandlockError, Ruleset};
use crate::plan::Lockdown;
use crate::plan::host::Layout;
use crate::rlimits;
use crate::seccomp::{self, Accounting};

mod lacking;

use lacking::lacking;

/// Where programs are looked up if the job names no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The first descriptor that no program expects.
const FIRST_EXTRA: u32 = 3;

/// What a lock-down needs of the worker.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Whose ids jobs have.
    pub(crate) identity: Identity,
    /// The uid and gid that they take, if they have their own.
    pub(crate) job_id: u32,
    /// Cores of the host, the slot's own first.
    pub(crate) cores: Vec<u16>,
    /// The system call filter.
    pub(crate) filter: seccomp::Program,
    /// What a job's process does to itself.
    pub(crate) lockdown: Vec<Lockdown>,
    /// Whether memory is watched by sampling, which huge pages would outrun.
    pub(crate) accounting: Accounting,
    /// What it stands on.
    pub(crate) ground: Ground,
    /// Where jobs begin.
    pub(crate) working_directory: PathBuf,
    /// Whether the kernel has a Landlock worth using.
    pub(crate) second_wall: SecondWall,
    /// Processes of ours that count against the job's process limit.
    pub(crate) own_processes: u32,
}

impl Surroundings {
    /// How many cores a job can use that may use `cpus`.
    pub(crate) fn cores_of(&self, cpus: u16) -> u16 {
        match u16::try_from(self.cores.len()) {
            Ok(named @ 1..) => cpus.min(named),
            Ok(0) | Err(_) => cpus,
        }
    }
}

/// Whether jobs are in a Landlock domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecondWall {
    /// They are, and this is what they reach.
    Landlock(Reachable),
    /// The kernel has none, and the outcome says so.
    Missing,
}

/// What a job may do with which files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reachable {
    read_only: Vec<PathBuf>,
    read_write: Vec<PathBuf>,
    write_in_place: Vec<PathBuf>,
}

/// Devices that a job may open where it has the host's `/dev`: not `zero`, whose shared mappings sampling does not see.
const DEVICES: [&str; 4] = ["/dev/full", "/dev/null", "/dev/random", "/dev/urandom"];

/// What of the host's `/proc` tells programs how large the machine is, and nothing of others.
const MACHINE: [&str; 4] = [
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/meminfo",
    "/proc/stat",
];

impl Reachable {
    /// Of a job with a root of its own: everything that is visible may be read, since what is visible is what the mounts let
    /// in. A file that is reached in any other way lies beneath another root, and is refused.
    pub(crate) fn of_a_root() -> Self {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        Self {
            read_only: paths(&["/"]),
            read_write: paths(&["/box", "/tmp", "/dev/shm", "/dev/mqueue"]),
            write_in_place: paths(&["/dev", "/proc"]),
        }
    }

    /// Of a job in the host's root: what it would see in one of its own, and its box.
    pub(crate) fn of_a_directory(boxes: &BoxDirectory, layout: &Layout, shown: &[PathBuf]) -> Self {
        let there = |path: &PathBuf| path.exists();
        let system = layout
            .system
            .iter()
            .map(|(name, _)| Path::new("/").join(name));
        let etc = layout
            .etc
            .iter()
            .map(|(name, _)| Path::new("/etc").join(name));
        let machine = MACHINE.iter().map(PathBuf::from);
        let read_only = system.chain(etc).chain(machine).filter(there);
        Self {
            read_only: read_only.chain(shown.iter().cloned()).collect(),
            read_write: vec![boxes.box_path(), boxes.tmp_path()],
            write_in_place: DEVICES.iter().map(PathBuf::from).filter(there).collect(),
        }
    }
}

impl SecondWall {
    /// For jobs that reach this.
    pub(crate) fn of_this_kernel(reachable: Reachable) -> Self {
        match landlock::state() {
            LayerState::Active(_) => Self::Landlock(reachable),
            LayerState::Missing { .. } => Self::Missing,
        }
    }

    /// Prepares the domain of a job whose root is this process' root.
    pub(crate) fn prepare(&self) -> Result<Option<Ruleset>, LandlockError> {
        let Self::Landlock(reachable) = self else {
            return Ok(None);
        };
        let [read_only, read_write, write_in_place] = [
            &reachable.read_only,
            &reachable.read_write,
            &reachable.write_in_place,
        ]
        .map(|paths| paths.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        Ruleset::new(&Grants {
            read_only: &read_only,
            read_write: &read_write,
            write_in_place: &write_in_place,
        })
        .map(Some)
    }
}

/// Why a process did not become the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A step of the lock-down.
    Lockdown {
        /// The step, and how it failed.
        text: String,
    },
    /// The program itself.
    Exec {
        /// The errno.
        errno: i32,
        /// The file that the program needs and that is not there, if that is why.
        lacks: Option<String>,
    },
}

/// What stands before the errno of a failed exec; no step of the lock-down has this number.
const EXEC: u8 = u8::MAX;

impl Failure {
    /// Waits until the process has become the job (`None`) or says why not.
    pub(crate) fn read(mut pipe: PipeReader, lockdown: &[Lockdown]) -> io::Result<Option<Self>> {
        let mut record = Vec::new();
        pipe.read_to_end(&mut record)?;
        let Some((step, errno)) = record.split_first() else {
            return Ok(None);
        };
        let (errno, lacks) = errno.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let errno = i32::from_le_bytes(*errno);
        if *step == EXEC {
            let lacks = (!lacks.is_empty()).then(|| String::from_utf8_lossy(lacks).into_owned());
            return Ok(Some(Self::Exec { errno, lacks }));
        }
        let step = lockdown
            .get(usize::from(*step))
            .map_or_else(|| "lock itself down".to_owned(), ToString::to_string);
        let error = io::Error::from_raw_os_error(errno);
        Ok(Some(Self::Lockdown {
            text: format!("failed to {step}: {error}"),
        }))
    }
}

/// Locks this process down and becomes the job's program; returns an exit code if it could not.
pub(crate) fn become_the_job(
    order: &Launch,
    stdio: &[OwnedFd; 3],
    mut failure: PipeWriter,
    mut domain: Option<Ruleset>,
    surroundings: &Surroundings,
) -> u8 {
    let lockdown = (0u8..).zip(&surroundings.lockdown);
    let failed = lockdown.into_iter().find_map(|(number, step)| {
        carry_out(*step, order, stdio, &mut domain, surroundings)
            .err()
            .map(|error| (number, error.raw_os_error().unwrap_or(0), None))
    });
    let (step, errno, lacks) = failed.unwrap_or_else(|| {
        let NotExecuted { errno, lacks } = execute(order);
        (EXEC, errno as i32, lacks)
    });
    let mut record = vec![step];
    record.extend_from_slice(&errno.to_le_bytes());
    if let Some(lacks) = lacks {
        record.extend_from_slice(lacks.as_os_str().as_encoded_bytes());
    }
    match failure.write_all(&record) {
        Ok(()) => 125,
        // Nobody listens any more; init itself must be gone.
        Err(_) => 126,
    }
}

fn carry_out(
    step: Lockdown,
    order: &Launch,
    stdio: &[OwnedFd; 3],
    domain: &mut Option<Ruleset>,
    surroundings: &Surroundings,
) -> io::Result<()> {
    match step {
        Lockdown::Session => {
            setsid()?;
            umask(Mode::from_bits_truncate(0o022));
            Ok(())
        }
        Lockdown::Group => {
            setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
            umask(Mode::from_bits_truncate(0o022));
            Ok(())
        }
        Lockdown::Descriptors => arrange_descriptors(stdio),
        Lockdown::Memory => prefer_memory(surroundings.accounting, &surroundings.ground),
        Lockdown::Cores => choose_cores(&surroundings.cores, order.limits.cpus),
        Lockdown::ResourceLimits => {
            let (accounting, own) = (surroundings.accounting, surroundings.own_processes);
            rlimits::apply(&rlimits::for_job(&order.limits, accounting, own))
                .map_err(|error| error.source)
        }
        Lockdown::BoundingSet => empty_bounding_set(),
        Lockdown::Ids => take_ids(surroundings.identity, surroundings.job_id),
        Lockdown::Capabilities => give_up_capabilities(),
        Lockdown::NoNewPrivileges => Ok(prctl::set_no_new_privs()?),
        Lockdown::Signals => signals::reset(),
        Lockdown::Directory => Ok(chdir(&surroundings.working_directory)?),
        Lockdown::Landlock => match domain.take() {
            Some(domain) => domain.restrict_self().map_err(|_| Errno::EPERM.into()),
            None => Ok(()),
        },
        Lockdown::Seccomp => seccomp::load(&surroundings.filter),
    }
}

fn arrange_descriptors(stdio: &[OwnedFd; 3]) -> io::Result<()> {
    let [input, output, errors] = stdio;
    rustix::stdio::dup2_stdin(input)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(errors)?;
    descriptor::close_on_exec_from(FIRST_EXTRA)
}

/// Makes the job the first to go when the machine runs out of memory, a hint that the job may take back.
/// Where memory is sampled, huge pages are off: they grow three times as fast as samples can follow.
fn prefer_memory(accounting: Accounting, ground: &Ground) -> io::Result<()> {
    // Init is not dumpable, and neither is its fork: the files of such a process belong to root.
    prctl::set_dumpable(true)?;
    match fs::write("/proc/self/oom_score_adj", "1000") {
        // There is no /proc in a root of its own without a pid namespace.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !ground.has(Namespaces::PID) => {}
        written => written?,
    }
    match accounting {
        Accounting::Sampling => Ok(prctl::set_thp_disable(true)?),
        Accounting::Cgroup => Ok(()),
    }
}

/// Binds the job to the first `count` cores; to all that its worker has where none are named.
fn choose_cores(cores: &[u16], count: u16) -> io::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for core in cores.iter().take(usize::from(count)) {
        set.set(usize::from(*core))?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Takes the ids of a job. With a single mapped id the process has them already, and the kernel does not
/// let it change its supplementary groups.
fn take_ids(identity: Identity, id: u32) -> io::Result<()> {
    match identity {
        Identity::Shared => Ok(()),
        Identity::Own => {
            let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
            Ok(())
        }
    }
}

/// Empties the bounding set.
fn empty_bounding_set() -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // EINVAL: this kernel is older than the capability.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Empties the other four sets; a change of ids has emptied some of them already.
fn give_up_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, none)?)
}

/// Why a program could not be executed.
struct NotExecuted {
    errno: Errno,
    /// The file that it needs and that is not there, if that is why.
    lacks: Option<PathBuf>,
}

impl From<Errno> for NotExecuted {
    fn from(errno: Errno) -> Self {
        Self { errno, lacks: None }
    }
}

/// Becomes the program of `order`; returns why it could not.
fn execute(order: &Launch) -> NotExecuted {
    let Some(program) = order.argv.first() else {
        return Errno::ENOENT.into();
    };
    let texts = |texts: Vec<String>| -> Result<Vec<CString>, Errno> {
        texts
            .into_iter()
            .map(|text| CString::new(text).map_err(|_| Errno::EINVAL))
            .collect()
    };
    let variables = order
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let (argv, env) = match (texts(order.argv.clone()), texts(variables.collect())) {
        (Ok(argv), Ok(env)) => (argv, env),
        (Err(error), _) | (_, Err(error)) => return error.into(),
    };
    let mut result = NotExecuted::from(Errno::ENOENT);
    for candidate in candidates(program, &order.env) {
        let Ok(path) = CString::new(candidate.as_str()) else {
            return Errno::EINVAL.into();
        };
        let Err(error) = execve(&path, &argv, &env);
        match error {
            Errno::ENOENT if result.lacks.is_none() => {
                result.lacks = lacking(Path::new(&candidate));
            }
            Errno::ENOENT | Errno::ENOTDIR => {}
            // Another directory may have one that can be executed, as in execvp(3).
            Errno::EACCES => result.errno = Errno::EACCES,
            other => return other.into(),
        }
    }
    result
}

/// The paths at which `program` may be, in order.
fn candidates(program: &str, env: &[(String, String)]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env
        .iter()
        .find_map(|(name, value)| (name == "PATH").then_some(value.as_str()))
        .unwrap_or(DEFAULT_PATH);
    path.split(':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| format!("{directory}/{program}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::LOCKDOWN;

    #[test]
    fn a_program_with_a_slash_is_not_looked_up() {
        assert_eq!(candidates("./tool", &[]), ["./tool"]);
        let env = [("PATH".to_owned(), "/a::/b".to_owned())];
        assert_eq!(candidates("tool", &env), ["/a/tool", "/b/tool"]);
        assert_eq!(candidates("sh", &[]).len(), 3);
    }

    #[test]
    fn a_failure_is_read_as_it_was_written() {
        let read = |record: &[u8]| {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(record).unwrap();
            drop(writer);
            Failure::read(reader, &LOCKDOWN).unwrap()
        };
        assert_eq!(read(&[]), None);
        let errno = Errno::ENOENT as i32;
        let exec = |lacks| Some(Failure::Exec { errno, lacks });
        assert_eq!(read(&[EXEC, 2, 0, 0, 0]), exec(None));
        let lacks = Some("/a".to_owned());
        assert_eq!(read(&[EXEC, 2, 0, 0, 0, b'/', b'a']), exec(lacks));
        let Some(Failure::Lockdown { text }) = read(&[6, 1, 0, 0, 0]) else {
            panic!("step 6 is a step");
        };
        assert!(
            text.starts_with("failed to take the ids of a job (setresuid): "),
            "{text}"
        );
    }
}
