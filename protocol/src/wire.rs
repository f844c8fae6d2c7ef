//! The messages between the supervisor and one worker.
//!
//! ```text
//!   supervisor                                   worker
//!       │ ── Hello ────────────────────────────────▶ │   both say who they are;
//!       │ ◀───────────────────────────────── Hello ── │   another version ends it here
//!       │ ── Setup ────────────────────────────────▶ │
//!       │ ◀─────────────────────── Ready │ Refused ── │   Refused: a layer is missing, the worker exits
//!       │                                             │
//!       │ ── Job, Input…, Start ───────────────────▶ │ ┐
//!       │ ◀─────────────────────────────── Started ── │ │
//!       │ ── Follow ───────────────────────────────▶ │ │ any number of times
//!       │ ◀─────────────────────────────── Written ── │ │
//!       │ ── Stop ─────────────────────────────────▶ │ │ at most once, at any moment
//!       │ ◀─────────── Output, OutputBytes…, Ended ── │ ┘ then the next Job
//!       │                                             │
//!       │ ── Ping ─────────────────────────────────▶ │   at any moment after Ready
//!       │ ◀────────────────────────────────── Pong ── │
//!       │ ── Retire ───────────────────────────────▶ │   exits with 0 when no job runs
//! ```
//!
//! What a job writes does not travel here: it lies in the *output store*, a sealed memory file that
//! both sides hold (see [`StoreLayout`]), so that it survives the worker and costs no wake-up.
//!
//! # Invariants
//!
//! - The worker is hostile once a job has run in it: which message it may send when is the table in
//!   [`crate::phase`], and nothing it says is trusted beyond that.
//! - Variants are only ever appended: bincode numbers them. A change of meaning raises [`Hello::PROTOCOL`].

mod hello;
mod store;

use serde::{Deserialize, Serialize};

use crate::id::{AttemptRef, SlotId};
use crate::limits::{LimitName, Limits};
use crate::outcome::{Identity, IsolationLevel, MeasuredBy, OutputError};
use crate::path::BoxPath;

pub use hello::{Hello, HelloError};
pub use store::{StoreLayout, Stream};

/// What the supervisor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Who speaks.
    Hello(Hello),
    /// Build the slot's sandbox.
    Setup(Box<Setup>),
    /// A job is coming; its inputs follow.
    Job(Box<JobOrder>),
    /// The next bytes of an input, in order.
    Input(InputBytes),
    /// All inputs are there: run it.
    Start(AttemptRef),
    /// End the job now.
    Stop(AttemptRef),
    /// Somebody follows the output: say once when there is more than this.
    Follow(Written),
    /// Are you there?
    Ping(u64),
    /// Exit when no job runs.
    Retire,
}

/// What the worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// Who speaks.
    Hello(Hello),
    /// The sandbox stands.
    Ready(Ready),
    /// The sandbox could not be built.
    Refused(Refused),
    /// The job's program runs.
    Started(AttemptRef),
    /// There is more output than was last said.
    Written(Written),
    /// A file is coming out; if it has a size, its bytes follow.
    Output(OutputHeader),
    /// The next bytes of the last announced file.
    OutputBytes(OutputBytes),
    /// The job's tree is dead, everything about it has been said.
    Ended(Box<AttemptReport>),
    /// The answer to a ping.
    Pong(u64),
}

/// The uid and gid of every job, inside; the worker's own is 0 where it has two.
pub const JOB_ID: u32 = 1000;

/// How to build a slot's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The place.
    pub slot: SlotId,
    /// What to do about a missing security layer.
    pub policy: IsolationPolicy,
    /// Whose ids the jobs have.
    pub identity: Identity,
    /// The uid and gid that jobs take where [`Identity::Own`] says so: [`JOB_ID`] in a user namespace, else one of the host's.
    pub job_id: u32,
    /// The profiles that jobs may name.
    pub profiles: Vec<ProfileSetup>,
    /// Room for one stream in the output store: the ceiling of `output_bytes`.
    pub store: StoreLayout,
    /// The descriptor of the slot's cgroup directory, if controllers are delegated.
    pub cgroup: Option<u32>,
    /// Descriptors that become the job's 0, 1 and 2, where the job is run in the foreground.
    pub stdio: Option<[u32; 3]>,
    /// The cores the worker may use, as numbers of the host.
    pub cores: Vec<u16>,
    /// The layers that it is born without, which only [`IsolationPolicy::Reduced`] allows.
    pub missing: Vec<LayerReport>,
    /// Where its jobs' boxes are, as the bytes of an absolute path, if it can mount nothing: a directory that is its own.
    pub directory: Option<Vec<u8>>,
}

/// An absolute path without its empty components and its dots; empty for the root.
fn plain(path: &str) -> String {
    let components = path.split('/').filter(|part| !matches!(*part, "" | "."));
    components.flat_map(|part| ["/", part]).collect()
}

/// What to do about a missing security layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationPolicy {
    /// Refuse to work.
    Required,
    /// Work without it, and say so.
    Reduced,
}

/// A named sandbox set-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileSetup {
    /// Its name.
    pub name: String,
    /// What is visible beside the system directories.
    pub mounts: Vec<MountSetup>,
}

/// A host file or directory that is visible, read-only, in a profile's boxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSetup {
    /// Where it comes from.
    pub source: MountSource,
    /// Where it appears: an absolute path without `..`.
    pub destination: String,
}

impl MountSetup {
    /// Why a host path may not be shown: with it come the host's processes or devices, which no namespace
    /// then keeps from a job that has the id of the user who runs wpool.
    pub fn unfit_to_show(source: &str) -> Option<&'static str> {
        const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];
        let path = &*plain(source);
        let inside = |place: &&str| {
            let rest = path.strip_prefix(*place);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match path {
            "" => Some("the whole root has the host's /proc in it"),
            _ if KERNEL.iter().any(inside) => Some("it shows the host's processes or devices"),
            _ => None,
        }
    }

    /// The first of these destinations that is there twice.
    pub fn met_twice<'a>(destinations: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let mut seen = std::collections::BTreeSet::new();
        let mut destinations = destinations.into_iter();
        destinations.find(|destination| !seen.insert(plain(destination)))
    }

    /// The place of the sandbox's own that a mount at `destination` would hide, or be hidden by.
    pub fn in_the_way(destination: &str) -> Option<&'static str> {
        /// Nothing may be laid into these: the job's own, or read-only before a mount point could be made.
        const CLOSED: [&str; 12] = [
            "/bin", "/box", "/dev", "/lib", "/lib32", "/lib64", "/libx32", "/mnt", "/proc",
            "/sbin", "/tmp", "/usr",
        ];
        /// These hold things of the sandbox's own, and room beside them.
        const SHARED: [&str; 4] = ["/etc", "/run", "/var", "/var/tmp"];
        /// Files that say what a job is to know.
        const OWN_FILES: [&str; 5] = [
            "/etc/passwd",
            "/etc/group",
            "/etc/hosts",
            "/etc/hostname",
            "/etc/nsswitch.conf",
        ];
        let path = &*plain(destination);
        let inside = |place: &&&str| {
            let rest = path.strip_prefix(**place);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let closed = CLOSED.iter().find(inside);
        let own = SHARED.iter().chain(&OWN_FILES);
        let shared = own.copied().find(|place| path == *place);
        closed.copied().or(shared)
    }
}

/// Where a mount comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A path that the worker itself can reach, as the bytes that it is.
    Path(Vec<u8>),
    /// A detached mount that the supervisor made (`open_tree`), at this descriptor.
    Descriptor(u32),
}

/// How much a job has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The run.
    pub attempt: AttemptRef,
    /// Bytes to descriptor 1.
    pub stdout: u64,
    /// Bytes to descriptor 2.
    pub stderr: u64,
}

/// A job, for the worker that is to run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOrder {
    /// The run.
    pub attempt: AttemptRef,
    /// The profile, as an index into [`Setup::profiles`].
    pub profile: u16,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The whole environment of the job.
    pub env: Vec<(String, String)>,
    /// The limits that hold.
    pub limits: Limits,
    /// What is on its descriptors 0, 1, 2.
    pub stdio: Stdio,
    /// The files whose bytes follow, in this order.
    pub inputs: Vec<InputHeader>,
    /// Names or patterns of the files to bring out.
    pub outputs: Vec<String>,
}

/// What is on a job's descriptors 0, 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// Nothing, or so many bytes that follow as [`InputTarget::Stdin`]; output goes to the store.
    Captured {
        /// Bytes of standard input.
        stdin_bytes: u64,
    },
    /// The descriptors of [`Setup::stdio`]; the store stays empty.
    Inherited,
}

/// A file to lay into the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputHeader {
    /// Its name there.
    pub name: BoxPath,
    /// Its permission bits.
    pub mode: u32,
    /// Its size, bytes.
    pub size: u64,
}

/// Where input bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputTarget {
    /// The job's standard input.
    Stdin,
    /// The n-th of [`JobOrder::inputs`].
    File(u16),
}

/// Bytes of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputBytes {
    /// Where they go.
    pub target: InputTarget,
    /// The bytes, at most [`CHUNK_MAX`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Bytes of one `Input` or `OutputBytes` message.
pub const CHUNK_MAX: usize = 256 << 10;

/// What stands around the jobs of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Whether every security layer stands.
    pub level: IsolationLevel,
    /// Whose ids the jobs have.
    pub identity: Identity,
    /// Every layer wpool knows.
    pub layers: Vec<LayerReport>,
}

/// One layer of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Its name, like `pid`.
    pub name: String,
    /// Whether it stands.
    pub state: LayerState,
}

/// Whether a layer stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerState {
    /// It does; the text is a detail like `ABI 7`, or empty.
    Active(String),
    /// It does not.
    Missing {
        /// Why.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
}

/// Why a worker could not build its sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The layer that is missing.
    pub layer: String,
    /// The step that failed, and how.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

/// A file that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputHeader {
    /// The run.
    pub attempt: AttemptRef,
    /// Its name in the box, or the pattern that nothing matches; not necessarily UTF-8.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Its size in bytes, or why it is not delivered.
    pub size: Result<u64, OutputError>,
}

/// Bytes of the last announced file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputBytes {
    /// The run.
    pub attempt: AttemptRef,
    /// The bytes, at most [`CHUNK_MAX`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// How a run ended, as its worker saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// The run.
    pub attempt: AttemptRef,
    /// How it ended.
    pub ending: Ending,
    /// Limits that made calls fail.
    pub limits_hit: Vec<LimitName>,
    /// What it used.
    pub usage: RunUsage,
    /// How much it wrote in all.
    pub written: Written,
}

/// How a job's tree came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The job's first process exited.
    Exited(u8),
    /// A signal ended the job's first process, and wpool did not send it.
    Signaled(u8),
    /// There is no such program.
    NotFound,
    /// The program is there but could not be executed: the errno.
    NotExecutable(i32),
    /// The wall time was over. If the job's first process ended in its time of grace: how.
    TimedOut(Option<InGrace>),
    /// Another limit was reached.
    Limit {
        /// Which.
        limit: LimitName,
        /// The highest that was seen, in the limit's unit (bytes or ms).
        peak: u64,
        /// When, after the start; ms.
        at_ms: u64,
    },
    /// The supervisor said `Stop`.
    Stopped,
    /// The job's box could not be built, or has failed since, through no fault of the job's.
    BoxFailed {
        /// What failed, and how.
        reason: String,
    },
    /// The program is there, and this file is not, without which it does not start: its interpreter, or what its link
    /// leads to.
    Lacking(String),
}

/// How the first process of a job whose wall time was over ended before it had to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InGrace {
    /// It exited.
    Exited(u8),
    /// A signal ended it, most likely the SIGTERM that told it of its end.
    Signaled(u8),
}

/// What a run used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunUsage {
    /// From the start of its program to the end of its last process, µs.
    pub wall_us: u64,
    /// CPU time in its own code, µs.
    pub cpu_user_us: u64,
    /// CPU time in the kernel, µs.
    pub cpu_system_us: u64,
    /// The most memory at one time, bytes.
    pub memory_peak_bytes: u64,
    /// The most processes and threads at one time.
    pub processes_peak: u32,
    /// Where the figures come from.
    pub measured_by: MeasuredBy,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_processes_and_devices_are_not_shown() {
        for source in ["/", "//", "/proc", "/proc/self", "/dev/", "/sys/fs"] {
            assert!(MountSetup::unfit_to_show(source).is_some(), "{source}");
        }
        for source in ["/opt/venv", "/procedures", "/home/x"] {
            assert_eq!(MountSetup::unfit_to_show(source), None);
        }
    }

    #[test]
    fn a_mount_may_not_hide_what_is_the_sandboxs_own() {
        for (destination, place) in [
            ("/tmp/venv", Some("/tmp")),
            ("/usr", Some("/usr")),
            ("/dev/shm/x", Some("/dev")),
            ("/etc/", Some("/etc")),
            ("/etc/passwd", Some("/etc/passwd")),
            ("/etc/myapp", None),
            ("/tmpfiles", None),
            ("/opt/venv", None),
        ] {
            assert_eq!(MountSetup::in_the_way(destination), place, "{destination}");
        }
    }

    #[test]
    fn two_mounts_do_not_meet_in_one_place() {
        let places = ["/opt/a", "/opt/ab", "/opt/a/b"];
        assert_eq!(MountSetup::met_twice(places), None);
        assert_eq!(
            MountSetup::met_twice(["/opt/a", "/opt/b", "/opt//a/"]),
            Some("/opt//a/")
        );
    }
}
