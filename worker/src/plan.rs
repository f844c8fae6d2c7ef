//! The sandbox as a list of steps: data, made by pure functions, carried out by [`crate::apply`].
//!
//! Two lists build what a job sees:
//!
//! - [`slot::plan`], once in a worker's life: the worker's own root, and in it one read-only *template*
//!   of a job's root for every profile;
//! - [`job::plan`], for every job, in namespaces of its own: what must be fresh in it (its files, `/proc`,
//!   message queues, terminals), laid into the template, which then becomes the root.
//!
//! What a job's process does to itself after that is [`LOCKDOWN`], carried out by `crate::launch`.
//!
//! # Invariants
//!
//! - A plan is a function of its arguments: the host is looked at before, by [`host::Layout::look`].
//! - One step is one system call that can fail in one way, and its text names both.
//! - Nothing writable is visible in a job but what its own [`Step::AttachFiles`] brought.

pub mod host;
pub mod job;
pub mod slot;

use std::fmt;

use rustix::thread::CapabilitySet;
use wpool_sys::mount::{MountAttributes, Reach};
use wpool_sys::namespaces::Namespaces;

use crate::ground::Ground;

/// One step of building a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that is mounted here from now on reaches the host, nor the other way round.
    MakePrivate,
    /// An empty file system in memory.
    MountTmpfs {
        /// Where.
        at: String,
        /// How large it may grow, bytes.
        size: u64,
        /// How many files it may hold.
        inodes: u64,
    },
    /// A directory.
    MakeDirectory {
        /// Where.
        at: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A file with this text.
    WriteFile {
        /// Where.
        at: String,
        /// What is in it.
        text: String,
    },
    /// A copy of a small file: one mount less in every job.
    CopyFile {
        /// What.
        from: String,
        /// Where.
        at: String,
    },
    /// A symbolic link.
    Link {
        /// Where.
        at: String,
        /// What it says.
        to: String,
    },
    /// The tree at `from` is also at `at`, with what is mounted in it.
    Bind {
        /// What.
        from: String,
        /// Where.
        at: String,
    },
    /// Flags of a mount.
    Protect {
        /// Which.
        at: String,
        /// The flags.
        attributes: MountAttributes,
        /// Whether mounts below it are meant too.
        reach: Reach,
    },
    /// The n-th mount that the profile names.
    AttachMount {
        /// Which.
        index: usize,
        /// Where.
        at: String,
    },
    /// The job's own files.
    AttachFiles {
        /// Where.
        at: String,
    },
    /// The processes of this pid namespace.
    MountProc {
        /// Where.
        at: String,
    },
    /// The message queues of this ipc namespace.
    MountMqueue {
        /// Where.
        at: String,
    },
    /// Terminals of its own.
    MountPts {
        /// Where.
        at: String,
    },
    /// Takes a mount away.
    Detach {
        /// Where.
        at: String,
    },
    /// The working directory.
    ChangeDirectory {
        /// Where to.
        to: String,
    },
    /// The working directory becomes the root, and the old root is stacked on it.
    PivotRoot,
    /// The old root and everything below it goes.
    DetachOldRoot,
    /// The host name.
    SetHostname,
    /// The loopback device.
    BringUpLoopback,
    /// No user namespace may be made inside this one.
    ForbidUserNamespaces,
    /// A setting of the kernel's for these namespaces.
    Set {
        /// Its file.
        at: String,
        /// What it is set to.
        value: &'static str,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakePrivate => write!(f, "make all mounts private"),
            Self::MountTmpfs { at, size, inodes } => {
                write!(f, "mount a tmpfs at {at} ({size} bytes, {inodes} inodes)")
            }
            Self::MakeDirectory { at, mode } => write!(f, "make the directory {at} ({mode:o})"),
            Self::WriteFile { at, text } => {
                write!(f, "write the file {at} ({} bytes)", text.len())
            }
            Self::CopyFile { from, at } => write!(f, "copy the file {from} to {at}"),
            Self::Link { at, to } => write!(f, "link {at} to {to}"),
            Self::Bind { from, at } => write!(f, "bind {from} at {at}"),
            Self::Protect {
                at,
                attributes,
                reach,
            } => {
                write!(f, "protect {at}")?;
                if *reach == Reach::Tree {
                    write!(f, " and all below it")?;
                }
                write!(f, " ({})", AttributeNames(*attributes))
            }
            Self::AttachMount { index, at } => {
                write!(f, "attach mount {index} of the profile at {at}")
            }
            Self::AttachFiles { at } => write!(f, "attach the job's own files at {at}"),
            Self::MountProc { at } => write!(f, "mount proc at {at}"),
            Self::MountMqueue { at } => write!(f, "mount mqueue at {at}"),
            Self::MountPts { at } => write!(f, "mount devpts at {at}"),
            Self::Detach { at } => write!(f, "detach {at}"),
            Self::ChangeDirectory { to } => write!(f, "change directory to {to}"),
            Self::PivotRoot => write!(f, "make the working directory the root (pivot_root)"),
            Self::DetachOldRoot => write!(f, "detach the old root"),
            Self::SetHostname => write!(f, "set the host name"),
            Self::BringUpLoopback => write!(f, "bring up the loopback device"),
            Self::ForbidUserNamespaces => write!(f, "forbid further user namespaces"),
            Self::Set { at, value } => write!(f, "set {at} to {value}"),
        }
    }
}

/// Prints mount flags as mount(8) names them.
struct AttributeNames(MountAttributes);

impl fmt::Display for AttributeNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            ("ro", MountAttributes::READ_ONLY),
            ("nosuid", MountAttributes::NO_SUID),
            ("nodev", MountAttributes::NO_DEVICES),
            ("noexec", MountAttributes::NO_EXECUTE),
        ];
        let set = names
            .into_iter()
            .filter(|(_, attribute)| self.0.contains(*attribute))
            .map(|(name, _)| name);
        f.write_str(&set.collect::<Vec<_>>().join(","))
    }
}

/// What a job's process does to itself before it becomes the job's program, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lockdown {
    /// No group or session shared with anybody: `kill(0)` crosses pid namespaces.
    #[error("begin a session of its own (setsid)")]
    Session,
    /// Instead, where no pid namespace holds the job together: a group that it cannot leave.
    #[error("begin a process group of its own (setpgid)")]
    Group,
    /// 0, 1, 2 and nothing else.
    #[error("arrange its descriptors")]
    Descriptors,
    /// First to go when the machine is out of memory; no huge pages where memory is sampled.
    #[error("set its memory preferences")]
    Memory,
    /// The cores it may use.
    #[error("set its cores (sched_setaffinity)")]
    Cores,
    /// Resource limits.
    #[error("set its resource limits (setrlimit)")]
    ResourceLimits,
    /// No capability by exec; before the ids change, since it needs `CAP_SETPCAP`.
    #[error("empty its capability bounding set")]
    BoundingSet,
    /// Ids that own nothing.
    #[error("take the ids of a job (setresuid)")]
    Ids,
    /// No capability.
    #[error("give up its capabilities")]
    Capabilities,
    /// Exec gives nothing.
    #[error("set no_new_privs")]
    NoNewPrivileges,
    /// No signal blocked or ignored.
    #[error("reset its signals")]
    Signals,
    /// The working directory.
    #[error("enter /box")]
    Directory,
    /// The second wall around files.
    #[error("restrict itself by Landlock")]
    Landlock,
    /// The system calls an ordinary program needs.
    #[error("load the system call filter (seccomp)")]
    Seccomp,
}

/// All of [`Lockdown`], in order.
pub const LOCKDOWN: [Lockdown; 13] = [
    Lockdown::Session,
    Lockdown::Descriptors,
    Lockdown::Memory,
    Lockdown::Cores,
    Lockdown::ResourceLimits,
    Lockdown::BoundingSet,
    Lockdown::Ids,
    Lockdown::Capabilities,
    Lockdown::NoNewPrivileges,
    Lockdown::Signals,
    Lockdown::Directory,
    Lockdown::Landlock,
    Lockdown::Seccomp,
];

/// What of [`LOCKDOWN`] can be done on this ground, and what stands in for the rest.
pub fn lockdown(ground: &Ground) -> Vec<Lockdown> {
    let steps = LOCKDOWN.into_iter();
    let steps = steps.filter_map(|step| match step {
        Lockdown::Session if !ground.has(Namespaces::PID) => Some(Lockdown::Group),
        // Only whoever has the capability to do it has anything to lose by it.
        Lockdown::BoundingSet if !ground.has(Namespaces::USER) && !may_drop() => None,
        step => Some(step),
    });
    steps.collect()
}

/// Whether this process may take capabilities out of its bounding set.
fn may_drop() -> bool {
    let sets = rustix::thread::capabilities(None);
    sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SETPCAP))
}
