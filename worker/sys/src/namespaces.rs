//! Which namespaces a new process gets: flags of `clone3`, by name.
//!
//! # Invariants
//!
//! - Values are the kernel's (`linux/sched.h`); a set is passed on as it is.

use std::ops::BitOr;

/// A set of namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// None: an ordinary child.
    pub const NONE: Self = Self(0);
    /// Ids and capabilities.
    pub const USER: Self = Self(0x1000_0000);
    /// Processes.
    pub const PID: Self = Self(0x2000_0000);
    /// Mounts.
    pub const MOUNT: Self = Self(0x0002_0000);
    /// Network devices, addresses, ports, abstract sockets.
    pub const NET: Self = Self(0x4000_0000);
    /// System V objects and POSIX message queues.
    pub const IPC: Self = Self(0x0800_0000);
    /// Host and domain name.
    pub const UTS: Self = Self(0x0400_0000);
    /// The view of the cgroup tree.
    pub const CGROUP: Self = Self(0x0200_0000);

    /// All that a worker is born into.
    pub const WORKER: Self = Self(
        Self::USER.0
            | Self::PID.0
            | Self::MOUNT.0
            | Self::NET.0
            | Self::IPC.0
            | Self::UTS.0
            | Self::CGROUP.0,
    );

    /// All that a job is born into; its user, uts and cgroup namespaces are its worker's.
    pub const JOB: Self = Self(Self::PID.0 | Self::MOUNT.0 | Self::NET.0 | Self::IPC.0);

    /// Each namespace with its name.
    pub const NAMED: [(&'static str, Self); 7] = [
        ("user", Self::USER),
        ("pid", Self::PID),
        ("mount", Self::MOUNT),
        ("net", Self::NET),
        ("ipc", Self::IPC),
        ("uts", Self::UTS),
        ("cgroup", Self::CGROUP),
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::NAMED.into_iter();
        all.find_map(|(of, one)| (of == name).then_some(one))
    }

    /// The flags of `clone3`.
    pub const fn flags(self) -> u64 {
        self.0
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in this set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Namespaces {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}
