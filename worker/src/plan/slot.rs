//! The worker's own root, with a template of a job's root for every profile.
//!
//! ```text
//!   /                       a small tmpfs
//!   ├─ proc                 all processes of the slot, for the worker's accounting; unmasked, so that
//!   │                       the kernel lets inits mount their own (kernel-wise: mount_too_revealing)
//!   └─ profiles/N           the template of profile N: a small read-only tmpfs with
//!       ├─ usr, bin, …      the host's, read-only
//!       ├─ etc              a few of the host's files, and a few of our own
//!       ├─ dev              null zero full random urandom tty, links, empty pts shm mqueue
//!       ├─ box tmp mnt proc empty: what a job brings goes here
//!       └─ …                the profile's mounts, read-only
//! ```
//!
//! # Invariants
//!
//! - The host's root is gone when the last step is done: a worker sees no more of it than its jobs may.
//! - Nothing under `profiles` is writable.

use wpool_protocol::wire::ProfileSetup;
use wpool_sys::mount::{MountAttributes, Reach};

use wpool_sys::namespaces::Namespaces;

use super::Step;
use super::host::{Entry, Layout};
use crate::ground::Ground;
use crate::seccomp::Accounting;

/// Where the new root is built: a directory that every host has and no step binds from.
const BASE: &str = "/tmp";

/// Bytes of the tmpfs of the root and of each template: a few small files, of which the loader's cache is
/// the largest with some 100 KiB.
const ROOT_BYTES: u64 = 8 << 20;

/// Files of the same: directories, links and mount points.
const ROOT_INODES: u64 = 4_096;

/// Devices that a job may open. Each is a bind of the host's, since a user namespace may make none. `tty` is whatever terminal
/// the session of the process has: none, until it takes one of the job's own.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];

/// Files of `/etc` that are our own, whatever the host's say.
const OWN_ETC: [(&str, &str); 5] = [
    (
        "passwd",
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n\
         job:x:1000:1000:job:/box:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\njob:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost wpool\n::1 localhost\n"),
    ("hostname", "wpool\n"),
    (
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
    ),
];

/// What of inotify a slot may take: all namespaces of a user share his 128 instances, and each watch holds 1 KiB
/// of the kernel's that nothing counts.
const WATCHES: [(&str, &str); 2] = [
    ("max_inotify_instances", "32"),
    ("max_inotify_watches", "16384"),
];

/// Where the template of profile `index` is, once the worker's root stands.
pub fn template(index: u16) -> String {
    format!("/profiles/{index}")
}

/// The steps of a worker's birth, for these profiles.
pub fn plan(
    layout: &Layout,
    profiles: &[ProfileSetup],
    accounting: Accounting,
    ground: &Ground,
) -> Vec<Step> {
    let mut plan = Plan::default();
    if ground.has(Namespaces::MOUNT) {
        plan.root(layout, profiles, accounting, ground);
    }
    if ground.has(Namespaces::UTS) {
        plan.steps.push(Step::SetHostname);
    }
    if ground.has(Namespaces::NET) {
        plan.steps.push(Step::BringUpLoopback);
    }
    if ground.has(Namespaces::USER) {
        plan.steps.push(Step::ForbidUserNamespaces);
        plan.steps.extend(WATCHES.map(|(name, value)| Step::Set {
            at: format!("/proc/sys/user/{name}"),
            value,
        }));
    }
    plan.steps
}

const READ_ONLY: MountAttributes = MountAttributes::READ_ONLY.and(MountAttributes::NO_SUID);

#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
}

impl Plan {
    /// The worker's root, with a template for each profile.
    fn root(
        &mut self,
        layout: &Layout,
        profiles: &[ProfileSetup],
        accounting: Accounting,
        ground: &Ground,
    ) {
        let plan = self;
        plan.steps.push(Step::MakePrivate);
        plan.tmpfs(BASE);
        let proc = format!("{BASE}/proc");
        plan.directory(proc.clone(), 0o755);
        plan.steps.push(if ground.has(Namespaces::PID) {
            Step::MountProc { at: proc }
        } else {
            Step::Bind {
                from: "/proc".to_owned(),
                at: proc,
            }
        });
        plan.directory(format!("{BASE}/profiles"), 0o755);
        let mut mounts_before = 0;
        for (index, profile) in (0u16..).zip(profiles) {
            let root = format!("{BASE}{}", template(index));
            plan.directory(root.clone(), 0o755);
            plan.tmpfs(&root);
            plan.system(&root, layout);
            plan.etc(&root, layout);
            plan.devices(&root, accounting);
            for (name, mode) in [
                ("box", 0o755),
                ("tmp", 0o755),
                ("mnt", 0o755),
                ("proc", 0o755),
                ("run", 0o755),
                ("var", 0o755),
            ] {
                plan.directory(format!("{root}/{name}"), mode);
            }
            plan.link(format!("{root}/var/tmp"), "/tmp");
            for mount in &profile.mounts {
                let at = format!("{root}{}", mount.destination);
                plan.steps.push(Step::AttachMount {
                    index: mounts_before,
                    at: at.clone(),
                });
                plan.protect(at, READ_ONLY.and(MountAttributes::NO_DEVICES), Reach::Tree);
                mounts_before += 1;
            }
            // The template's own mount alone: with NO_DEVICES on the tree the devices would be dead.
            plan.protect(
                root,
                READ_ONLY.and(MountAttributes::NO_DEVICES),
                Reach::Mount,
            );
        }
        plan.steps.extend([
            Step::ChangeDirectory {
                to: BASE.to_owned(),
            },
            Step::PivotRoot,
            Step::DetachOldRoot,
        ]);
    }

    fn tmpfs(&mut self, at: &str) {
        self.steps.push(Step::MountTmpfs {
            at: at.to_owned(),
            size: ROOT_BYTES,
            inodes: ROOT_INODES,
        });
    }

    fn directory(&mut self, at: String, mode: u32) {
        self.steps.push(Step::MakeDirectory { at, mode });
    }

    fn file(&mut self, at: String, text: &str) {
        let text = text.to_owned();
        self.steps.push(Step::WriteFile { at, text });
    }

    fn link(&mut self, at: String, to: &str) {
        let to = to.to_owned();
        self.steps.push(Step::Link { at, to });
    }

    fn protect(&mut self, at: String, attributes: MountAttributes, reach: Reach) {
        self.steps.push(Step::Protect {
            at,
            attributes,
            reach,
        });
    }

    /// Shows `from` read-only at `at`, for which a mount point is made first.
    fn bind(&mut self, from: String, at: String, entry: &Entry, attributes: MountAttributes) {
        match entry {
            Entry::Directory => self.directory(at.clone(), 0o755),
            Entry::File => self.file(at.clone(), ""),
            Entry::Link(to) => return self.link(at, to),
        }
        self.steps.push(Step::Bind {
            from,
            at: at.clone(),
        });
        self.protect(at, attributes, Reach::Tree);
    }

    fn system(&mut self, root: &str, layout: &Layout) {
        let attributes = READ_ONLY.and(MountAttributes::NO_DEVICES);
        for (name, entry) in &layout.system {
            self.bind(
                format!("/{name}"),
                format!("{root}/{name}"),
                entry,
                attributes,
            );
        }
    }

    fn etc(&mut self, root: &str, layout: &Layout) {
        self.directory(format!("{root}/etc"), 0o755);
        let attributes = READ_ONLY
            .and(MountAttributes::NO_DEVICES)
            .and(MountAttributes::NO_EXECUTE);
        for (name, entry) in &layout.etc {
            let (from, at) = (format!("/etc/{name}"), format!("{root}/etc/{name}"));
            match entry {
                Entry::File => self.steps.push(Step::CopyFile { from, at }),
                Entry::Directory | Entry::Link(_) => self.bind(from, at, entry, attributes),
            }
        }
        for (name, text) in OWN_ETC {
            self.file(format!("{root}/etc/{name}"), text);
        }
    }

    fn devices(&mut self, root: &str, accounting: Accounting) {
        let dev = format!("{root}/dev");
        self.directory(dev.clone(), 0o755);
        for name in DEVICES {
            // Writable, as a device must be; what may be written to these goes nowhere.
            let attributes = MountAttributes::NO_SUID.and(MountAttributes::NO_EXECUTE);
            let from = match (name, accounting) {
                // Memory that is mapped shared from /dev/zero stays when most of it is unmapped, and no process shows it. What is
                // read of /dev/full is zeros too, and it cannot be mapped.
                ("zero", Accounting::Sampling) => "full",
                (name, Accounting::Sampling | Accounting::Cgroup) => name,
            };
            self.bind(
                format!("/dev/{from}"),
                format!("{dev}/{name}"),
                &Entry::File,
                attributes,
            );
        }
        for (name, to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ] {
            self.link(format!("{dev}/{name}"), to);
        }
        for name in ["pts", "shm", "mqueue"] {
            self.directory(format!("{dev}/{name}"), 0o755);
        }
    }
}

#[cfg(test)]
mod tests {
    use wpool_protocol::wire::{MountSetup, MountSource};

    use super::*;

    fn text(steps: &[Step]) -> String {
        steps
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(
                "
",
            )
    }

    #[test]
    fn the_plan_of_a_merged_usr_host_with_one_mount() {
        let layout = Layout {
            system: vec![
                ("usr".into(), Entry::Directory),
                ("bin".into(), Entry::Link("usr/bin".into())),
            ],
            etc: vec![("ld.so.cache".into(), Entry::File)],
            masked: Vec::new(),
        };
        let profile = ProfileSetup {
            name: "default".into(),
            mounts: vec![MountSetup {
                source: MountSource::Path(b"/opt/venv".to_vec()),
                destination: "/opt/venv".into(),
            }],
        };
        let whole = Ground::whole();
        insta::assert_snapshot!(text(&plan(
            &layout,
            &[profile],
            Accounting::Sampling,
            &whole
        )));
    }

    #[test]
    fn every_bind_is_protected_by_the_next_step() {
        let steps = plan(
            &Layout::look(),
            &[ProfileSetup {
                name: "x".into(),
                mounts: Vec::new(),
            }],
            Accounting::Cgroup,
            &Ground::whole(),
        );
        for pair in steps.windows(2) {
            if let [Step::Bind { at, .. }, next] = pair {
                assert!(matches!(next, Step::Protect { at: protected, .. } if protected == at));
            }
        }
    }
}
