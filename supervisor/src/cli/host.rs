//! What this machine allows, for people to read: the facts of the diagnosis, by name.

use serde::Serialize;
use wpool::birth::ids::{Ids, NoIds};
use wpool::diagnosis::Facts;
use wpool::diagnosis::facts::{Proc, Root, Wsl};
use wpool_protocol::outcome::Identity;

/// One thing about the machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fact {
    /// What.
    pub(crate) name: &'static str,
    /// How it is.
    pub(crate) value: String,
}

/// What matters to the sandbox, as far as it is known.
pub(crate) fn facts(facts: &Facts, ids: &Result<Ids, NoIds>) -> Vec<Fact> {
    let identity = match ids.as_ref().map(Ids::identity) {
        Ok(Identity::Own) => "jobs get ids of their own",
        Ok(Identity::Shared) => "jobs have this user's ids",
        Err(_) => "jobs cannot have ids of their own",
    };
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let limit = |kind: &str| {
        let mut limits = facts.namespaces_max.iter();
        number(limits.find(|(name, _)| *name == kind).map(|(_, max)| *max))
    };
    let known = [
        ("kernel", Some(kernel(facts))),
        ("user", Some(format!("uid {}: {identity}", facts.uid))),
        (
            "container",
            facts.container.map(|engine| engine.name().to_owned()),
        ),
        ("unit", facts.unit.as_ref().map(|unit| unit.name.clone())),
        ("user.max_user_namespaces", limit("user")),
        (
            "kernel.unprivileged_userns_clone",
            number(facts.unprivileged_userns_clone),
        ),
        (
            "kernel.apparmor_restrict_unprivileged_userns",
            number(facts.apparmor_restriction),
        ),
        ("security label", facts.label.clone()),
        ("seccomp filter", facts.seccomp.map(|_| filter(facts))),
        ("/proc", facts.proc.as_ref().map(proc)),
        (
            "root",
            (facts.root == Root::Directory).then(|| "a directory (chroot)".to_owned()),
        ),
        ("landlock", Some(landlock(facts))),
        (
            "cgroup",
            Some(match &facts.cgroup {
                None => "delegated: limits are the kernel's".to_owned(),
                Some(unavailable) => unavailable.to_string(),
            }),
        ),
    ];
    let known = known
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    known.map(|(name, value)| Fact { name, value }).collect()
}

fn kernel(facts: &Facts) -> String {
    let release = if facts.release.is_empty() {
        "unknown"
    } else {
        &facts.release
    };
    match facts.wsl {
        Some(Wsl::One) => format!("{release} (WSL 1)"),
        Some(Wsl::Two) => format!("{release} (WSL 2)"),
        None => release.to_owned(),
    }
}

fn filter(facts: &Facts) -> String {
    match (facts.seccomp, facts.is_filtered()) {
        (Some(0), _) => "none around wpool",
        (_, true) => "one around wpool, and it refuses what a sandbox needs",
        (_, false) => "one around wpool, and it allows what was asked",
    }
    .to_owned()
}

fn proc(proc: &Proc) -> String {
    match proc {
        Proc::Visible => "unmasked".to_owned(),
        Proc::Masked(places) => format!("masked: {}", places.join(", ")),
        Proc::ReadOnly => "read-only".to_owned(),
        Proc::Absent => "not mounted as a whole".to_owned(),
    }
}

fn landlock(facts: &Facts) -> String {
    match facts.landlock {
        Ok(abi) => format!("ABI {abi}"),
        Err(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
    }
}
