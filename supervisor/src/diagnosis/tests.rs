//! Hosts on which rivals do not start, as their files say it: what is told of each, and of each failure.
//!
//! The files are those of such hosts, cut to what is read; the failures are those that the kernel's rules give there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use nix::errno::Errno;
use wpool_protocol::wire::Refused;
use wpool_sys::probe::{Answer, Call};

use super::facts::{Asked, Manager, Processes};
use super::{Facts, Failure, explain, findings};
use crate::birth::BirthError;
use crate::cgroup::Unavailable;

mod containers;
mod hosts;

/// A host that is being made up.
struct Host {
    files: BTreeMap<&'static str, String>,
    asked: Asked,
}

/// A whole `/proc` of its own.
const MOUNTS: &str = "\
21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
24 21 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
30 24 0:27 / /proc/sys/fs/binfmt_misc rw,relatime shared:13 - autofs systemd-1 rw,fd=29
26 25 0:24 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
";

/// The capabilities of root in Docker.
const DOCKER_CAPABILITIES: &str = "00000000a80425fb";

impl Host {
    /// An ordinary user's session on Debian 13, where everything is as wpool wants it.
    fn fine() -> Self {
        let host = Self {
            files: BTreeMap::new(),
            asked: Asked {
                uid: 1000,
                program: PathBuf::from("/usr/local/bin/wpool"),
                absent_namespaces: Vec::new(),
                calls: Call::ALL.map(|call| (call, Answer::Kernel)).into(),
                landlock: Ok(6),
                cgroup: None,
                user_manager: Some(Manager::User),
                processes: Processes::OfNamespace,
            },
        };
        ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"]
            .into_iter()
            .fold(host, |host, kind| host.limited(kind, 63_000))
            .with("/proc/sys/kernel/osrelease", "6.12.48+deb13-amd64\n")
            .with("/proc/self/status", &status("0000000000000000", 0))
            .with("/proc/self/uid_map", "         0          0 4294967295\n")
            .with("/proc/self/mountinfo", MOUNTS)
            .with(
                "/proc/self/cgroup",
                "0::/user.slice/user-1000.slice/session-3.scope\n",
            )
            .with("/proc/self/attr/current", "unconfined\n")
            .with("/proc/1/comm", "systemd\n")
            .with(
                "/etc/os-release",
                "PRETTY_NAME=\"Debian GNU/Linux 13\"\nID=debian\n",
            )
            .with(
                "/sys/kernel/security/lsm",
                "lockdown,capability,landlock,yama,apparmor,bpf",
            )
            .with(
                "/sys/fs/cgroup/cgroup.controllers",
                "cpuset cpu io memory hugetlb pids rdma misc\n",
            )
    }

    fn with(mut self, path: &'static str, text: &str) -> Self {
        self.files.insert(path, text.to_owned());
        self
    }

    fn without(mut self, path: &'static str) -> Self {
        self.files.remove(path);
        self
    }

    fn limited(self, kind: &str, max: u64) -> Self {
        let path = match kind {
            "user" => "/proc/sys/user/max_user_namespaces",
            "pid" => "/proc/sys/user/max_pid_namespaces",
            "mnt" => "/proc/sys/user/max_mnt_namespaces",
            "net" => "/proc/sys/user/max_net_namespaces",
            "ipc" => "/proc/sys/user/max_ipc_namespaces",
            "uts" => "/proc/sys/user/max_uts_namespaces",
            _ => "/proc/sys/user/max_cgroup_namespaces",
        };
        self.with(path, &format!("{max}\n"))
    }

    fn root(mut self) -> Self {
        self.asked.uid = 0;
        self.with("/proc/self/status", &status("000001ffffffffff", 0))
    }

    fn answering(mut self, answers: &[(Call, Answer)]) -> Self {
        for (call, answer) in &mut self.asked.calls {
            let other = answers.iter().find(|(other, _)| other == call);
            *answer = other.map_or(*answer, |(_, answer)| *answer);
        }
        self
    }

    fn landlock(mut self, landlock: Result<u32, Errno>) -> Self {
        self.asked.landlock = landlock.map_err(|errno| errno as i32);
        self
    }

    fn cgroup(mut self, unavailable: Unavailable) -> Self {
        self.asked.cgroup = Some(unavailable);
        self
    }

    fn facts(self) -> Facts {
        let files = self.files;
        Facts::from_texts(&|path| files.get(path).cloned(), self.asked)
    }
}

/// What matters of `/proc/self/status`.
fn status(capabilities: &str, seccomp: u8) -> String {
    format!(
        "Name:\twpool\nCapEff:\t{capabilities}\nNoNewPrivs:\t0\nSeccomp:\t{seccomp}\nSeccomp_filters:\t{seccomp}\n"
    )
}

/// A worker that was not cloned.
fn not_cloned(errno: Errno) -> Failure {
    let error = BirthError::Process(wpool_sys::birth::BirthError {
        step: wpool_sys::birth::BirthStep::Clone,
        source: errno.into(),
    });
    Failure::of_birth(&error).unwrap()
}

/// A worker that could not build a layer.
fn not_built(layer: &str, what: &str, errno: Errno) -> Failure {
    Failure::of_layer(&Refused {
        layer: layer.to_owned(),
        reason: format!("failed to {what}: {}", std::io::Error::from(errno)),
        remedy: "what the worker says".to_owned(),
    })
}

/// What is told of a host, and of what fails there.
fn told(host: Host, failures: &[Failure]) -> String {
    let facts = host.facts();
    let mut told = String::new();
    for finding in findings(&facts) {
        writeln!(
            told,
            "{finding}\n    {}:\n    {}",
            finding.remedy.place, finding.remedy.paste
        )
        .unwrap();
    }
    for failure in failures {
        let Refused {
            layer,
            reason,
            remedy,
        } = explain(&facts, failure);
        writeln!(told, "\nFAILURE layer `{layer}`: {reason}\nREMEDY {remedy}").unwrap();
        assert!(
            !remedy.contains('\n') && !reason.contains('\n'),
            "not one line: {told}"
        );
    }
    told
}
