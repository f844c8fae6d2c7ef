//! What decides here whether a sandbox stands: read from the kernel's own files, changed by nobody.
//!
//! # Invariants
//!
//! - [`Facts::gather`] is the only function that looks at the host; everything else is texts in, values out.
//! - A file that is not there, cannot be read or says nothing sensible is a fact that is not known, never an error.
//! - Of every file a bounded part is read.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use wpool_sys::namespaces::Namespaces;
use wpool_sys::probe::{self, Answer, Call};

use crate::cgroup::{Delegated, Unavailable};

mod text;

/// Bytes of a file that are read: a table of mounts or of subordinate ids may be long.
const FILE_MAX: u64 = 1 << 20;

/// The kernel's own pid namespace (`PROC_PID_INIT_INO` of `linux/proc_ns.h`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Bit of `CAP_SYS_ADMIN` (`linux/capability.h`).
const CAP_SYS_ADMIN: u32 = 21;

/// What is known of the host.
#[derive(Debug)]
pub struct Facts {
    /// The kernel's release.
    pub release: String,
    /// The user who runs wpool.
    pub uid: u32,
    /// The capabilities that hold.
    pub capabilities: u64,
    /// Whose ids this user namespace has.
    pub ids: IdSpace,
    /// Where wpool's program is.
    pub program: PathBuf,
    /// The distribution's family.
    pub family: Family,
    /// Whether this is Windows' Linux.
    pub wsl: Option<Wsl>,
    /// What container wpool is in.
    pub container: Option<Engine>,
    /// Who starts services.
    pub init: Init,
    /// The service that wpool is in.
    pub unit: Option<Unit>,
    /// Namespaces that the kernel does not have, by name.
    pub absent_namespaces: Vec<&'static str>,
    /// How many namespaces there may be, by the sysctl `user.max_*_namespaces`.
    pub namespaces_max: Vec<(&'static str, u64)>,
    /// The sysctl `kernel.unprivileged_userns_clone` of Debian and others.
    pub unprivileged_userns_clone: Option<u64>,
    /// The sysctl `kernel.apparmor_restrict_unprivileged_userns` of Ubuntu.
    pub apparmor_restriction: Option<u64>,
    /// What `AppArmor`, or another module, calls this process.
    pub label: Option<String>,
    /// Whether `SELinux` enforces.
    pub selinux: Option<u64>,
    /// What lies over `/proc`.
    pub proc: Option<Proc>,
    /// Where the root of this process is.
    pub root: Root,
    /// The mode of the seccomp filters around wpool, 0 without any.
    pub seccomp: Option<u64>,
    /// Who answers the calls that build a sandbox; none if that could not be found out.
    pub calls: Vec<(Call, Answer)>,
    /// The version of Landlock, or with which errno the kernel does not tell it.
    pub landlock: Result<u32, i32>,
    /// The security modules that are on.
    pub modules: Option<Vec<String>>,
    /// Why limits are not kept by a cgroup.
    pub cgroup: Option<Unavailable>,
    /// The controllers of the cgroup tree's root.
    pub controllers: Option<Vec<String>>,
}

/// What the kernel does not write into files.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) uid: u32,
    pub(super) program: PathBuf,
    pub(super) absent_namespaces: Vec<&'static str>,
    pub(super) calls: Vec<(Call, Answer)>,
    pub(super) landlock: Result<u32, i32>,
    pub(super) cgroup: Option<Unavailable>,
    pub(super) user_manager: Option<Manager>,
    pub(super) processes: Processes,
}

/// Which processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processes {
    /// Those of the whole machine: a mark of a container is then one that an image has left behind.
    OfMachine,
    /// Those of a pid namespace.
    OfNamespace,
}

/// The ids of a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdSpace {
    /// All of them: the host's own.
    Whole,
    /// Some of them.
    Part,
    /// That cannot be read.
    Unknown,
}

/// A family of distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Debian, Ubuntu.
    Debian,
    /// Fedora, RHEL.
    Fedora,
    /// Any other.
    Other,
}

/// Windows' Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wsl {
    /// Without a Linux kernel.
    One,
    /// With one.
    Two,
}

/// What containers are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// Kubernetes, by whatever engine.
    Kubernetes,
    /// LXC, LXD, Incus.
    Lxc,
    /// Something else that says it is one.
    Other,
}

impl Engine {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
            Self::Kubernetes => "Kubernetes",
            Self::Lxc => "LXC",
            Self::Other => "unknown to wpool",
        }
    }
}

/// Who starts services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd; and whether it has a manager for this user.
    Systemd(Option<Manager>),
    /// Something else.
    Other,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub manager: Manager,
}

/// A manager of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// The machine's.
    System,
    /// A user's.
    User,
}

/// Whether a new `/proc` may be mounted in a user namespace: where one that hides nothing is there already
/// (kernel: `mnt_already_visible`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proc {
    /// One hides nothing.
    Visible,
    /// These places of it are mounted over.
    Masked(Vec<String>),
    /// It cannot be written to.
    ReadOnly,
    /// There is none, or only a part of one.
    Absent,
}

impl Proc {
    /// Whether one hides nothing.
    pub fn is_visible(&self) -> bool {
        *self == Self::Visible
    }
}

/// The root of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// A mount, as far as can be seen.
    Mount,
    /// A directory in one: chroot(2).
    Directory,
}

impl Facts {
    /// Looks at this host.
    pub fn gather() -> Self {
        let absent = Namespaces::NAMED.into_iter().map(|(name, _)| name);
        let uid = rustix::process::geteuid().as_raw();
        let manager = Path::new(&format!("/run/user/{uid}/systemd")).exists();
        Self::from_texts(
            &read,
            Asked {
                uid,
                program: std::env::current_exe().unwrap_or_default(),
                absent_namespaces: absent.filter(|name| is_absent(name)).collect(),
                // Without a child to ask with, nobody knows.
                calls: probe::ask().map_or_else(|_| Vec::new(), Vec::from),
                landlock: wpool_sys::landlock::abi()
                    .map_err(|error| error.raw_os_error().unwrap_or(0)),
                cgroup: Delegated::find().err(),
                user_manager: manager.then_some(Manager::User),
                processes: match std::fs::read_link("/proc/self/ns/pid") {
                    Ok(link) if link.as_os_str() == FIRST_PID_NAMESPACE => Processes::OfMachine,
                    Ok(_) | Err(_) => Processes::OfNamespace,
                },
            },
        )
    }

    /// The same from texts, by the paths of their files.
    pub(super) fn from_texts(read: &dyn Fn(&str) -> Option<String>, asked: Asked) -> Self {
        let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
        let status = read("/proc/self/status").unwrap_or_default();
        let mounts = read("/proc/self/mountinfo");
        let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
        let comm = read("/proc/1/comm").unwrap_or_default();
        let label = read("/proc/self/attr/apparmor/current");
        let label = label.or_else(|| read("/proc/self/attr/current"));
        let limit = |name| Some((name, number(&text::limit_path(name))?));
        let words = |path: &str, between: &[char]| {
            let text = read(path)?;
            let words = text.trim().split(between).filter(|word| !word.is_empty());
            Some(words.map(str::to_owned).collect())
        };
        Self {
            uid: asked.uid,
            capabilities: text::field(&status, "CapEff", 16).unwrap_or(0),
            ids: text::id_space(read("/proc/self/uid_map").as_deref()),
            program: asked.program,
            family: text::family(&read("/etc/os-release").unwrap_or_default()),
            wsl: text::wsl(&release),
            container: match asked.processes {
                Processes::OfMachine => None,
                Processes::OfNamespace => text::container(read),
            },
            init: match comm.trim() {
                "systemd" => Init::Systemd(asked.user_manager),
                _ => Init::Other,
            },
            unit: text::unit(&read("/proc/self/cgroup").unwrap_or_default()),
            absent_namespaces: asked.absent_namespaces,
            namespaces_max: Namespaces::NAMED
                .into_iter()
                .filter_map(|(name, _)| limit(name))
                .collect(),
            unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restriction: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            label: label.as_deref().and_then(text::label),
            selinux: number("/sys/fs/selinux/enforce"),
            proc: mounts.as_deref().map(text::proc),
            root: mounts.as_deref().map_or(Root::Mount, text::root),
            seccomp: text::field(&status, "Seccomp", 10),
            calls: asked.calls,
            landlock: asked.landlock,
            modules: words("/sys/kernel/security/lsm", &[',']),
            cgroup: asked.cgroup,
            controllers: words("/sys/fs/cgroup/cgroup.controllers", &[' ']),
            release: release.trim().to_owned(),
        }
    }

    /// The kernel's version.
    pub fn version(&self) -> Option<(u32, u32)> {
        text::version(&self.release)
    }

    /// Whether this process has `CAP_SYS_ADMIN` over the whole machine.
    pub const fn is_privileged(&self) -> bool {
        matches!(self.ids, IdSpace::Whole) && self.capabilities >> CAP_SYS_ADMIN & 1 == 1
    }

    /// Whether somebody else than the kernel answers a call.
    pub fn is_filtered(&self) -> bool {
        self.calls
            .iter()
            .any(|(_, answer)| *answer != Answer::Kernel)
    }

    /// Whether an `AppArmor` profile confines wpool.
    pub fn is_confined(&self) -> bool {
        self.label
            .as_ref()
            .is_some_and(|label| label.ends_with("(enforce)"))
    }
}

/// What can be read of a file as text.
fn read(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(FILE_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the kernel is built without a kind of namespace; not if `/proc` tells nothing of any.
fn is_absent(name: &str) -> bool {
    let file = if name == "mount" { "mnt" } else { name };
    let folder = Path::new("/proc/self/ns");
    folder.exists() && !folder.join(file).exists()
}
