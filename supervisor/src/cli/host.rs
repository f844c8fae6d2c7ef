//! What this machine allows: read from the kernel's own files, changed by nobody here.

use std::fs;

use serde::Serialize;
use wpool::birth::ids::{self, RootWithoutIds};
use wpool_protocol::outcome::Identity;

/// One thing about the machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fact {
    /// What.
    pub(crate) name: &'static str,
    /// How it is.
    pub(crate) value: String,
    /// What to do about it, where something should be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<&'static str>,
}

/// The oldest kernel that wpool is made for.
const KERNEL_MIN: (u32, u32) = (5, 15);

/// What matters to the sandbox.
pub(crate) fn facts() -> Vec<Fact> {
    let mut facts = vec![kernel(), user()];
    facts.extend(user_namespaces());
    facts.push(subordinate_ids());
    facts.push(cgroup(
        &read("/proc/self/cgroup").unwrap_or_default(),
        |path| read(&format!("/sys/fs/cgroup{path}/cgroup.controllers")),
    ));
    facts.push(landlock());
    facts
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn kernel() -> Fact {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let is_old = version(&release).is_some_and(|version| version < KERNEL_MIN);
    Fact {
        name: "kernel",
        value: release,
        remedy: is_old.then_some("upgrade to Linux 5.15 or later"),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn user() -> Fact {
    let uid = rustix::process::geteuid().as_raw();
    let (value, remedy) = match ids::identity() {
        Ok(Identity::Own) => ("jobs get ids of their own", None),
        Ok(Identity::Shared) => ("jobs have this user's ids", None),
        Err(RootWithoutIds) => (
            "jobs would be root on the host, whose processes nothing limits",
            Some("give wpool CAP_SETUID and CAP_SETGID, or run it as an ordinary user"),
        ),
    };
    Fact {
        name: "user",
        value: format!("uid {uid}: {value}"),
        remedy,
    }
}

/// The switches by which distributions keep ordinary users from user namespaces.
fn user_namespaces() -> Vec<Fact> {
    let is_root = rustix::process::geteuid().is_root();
    let switch = |name, path: &str, off: &str, remedy| {
        let value = read(path)?;
        let is_off = value == off && !is_root;
        Some(Fact {
            name,
            value,
            remedy: is_off.then_some(remedy),
        })
    };
    [
        switch(
            "user.max_user_namespaces",
            "/proc/sys/user/max_user_namespaces",
            "0",
            "sysctl user.max_user_namespaces=10000",
        ),
        switch(
            "kernel.unprivileged_userns_clone",
            "/proc/sys/kernel/unprivileged_userns_clone",
            "0",
            "sysctl kernel.unprivileged_userns_clone=1",
        ),
        switch(
            "kernel.apparmor_restrict_unprivileged_userns",
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "install wpool with its AppArmor profile, or set this sysctl to 0",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn subordinate_ids() -> Fact {
    let uid = rustix::process::geteuid();
    let name = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid.as_raw()))
        .ok()
        .flatten()
        .map(|user| user.name)
        .unwrap_or_default();
    let table = read("/etc/subuid").unwrap_or_default();
    let range = range_of(&table, &name, uid.as_raw());
    Fact {
        name: "subordinate ids",
        value: range.unwrap_or_else(|| "none".to_owned()),
        remedy: None,
    }
}

/// The first range of `name` or `uid` in the text of `/etc/subuid` (subuid(5)).
fn range_of(table: &str, name: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?, fields.next()?);
        (!owner.is_empty() && (owner == name || owner == uid))
            .then(|| format!("{count} from {first}"))
    })
}

fn cgroup(own: &str, controllers: impl Fn(&str) -> Option<String>) -> Fact {
    let name = "cgroup v2";
    if controllers("").is_none() {
        return Fact {
            name,
            value: "not mounted at /sys/fs/cgroup: limits are kept by sampling".to_owned(),
            remedy: Some("boot with systemd.unified_cgroup_hierarchy=1"),
        };
    }
    let path = own.lines().find_map(|line| line.strip_prefix("0::"));
    let here = path.and_then(controllers).unwrap_or_default();
    let missing: Vec<_> = ["memory", "pids", "cpu"]
        .into_iter()
        .filter(|wanted| !here.split_whitespace().any(|found| found == *wanted))
        .collect();
    if missing.is_empty() {
        return Fact {
            name,
            value: format!("controllers {here}"),
            remedy: None,
        };
    }
    Fact {
        name,
        value: format!(
            "without {}: limits are kept by sampling",
            missing.join(", ")
        ),
        remedy: Some("run it as a systemd service with Delegate=yes"),
    }
}

fn landlock() -> Fact {
    let modules = read("/sys/kernel/security/lsm");
    let (value, remedy) = match &modules {
        None => ("not to be seen (securityfs is not mounted)", None),
        Some(list) if list.split(',').any(|module| module == "landlock") => ("on", None),
        Some(_) => ("off", Some("add landlock to the kernel's lsm= parameter")),
    };
    Fact {
        name: "landlock",
        value: value.to_owned(),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_recognised() {
        assert_eq!(version("6.1.0-28-amd64"), Some((6, 1)));
        assert!(version("5.10.0").unwrap() < KERNEL_MIN);
        assert!(version("5.15").unwrap() >= KERNEL_MIN);
        assert_eq!(version("next"), None);
    }

    #[test]
    fn a_range_is_found_by_name_or_uid() {
        let table = "ada:100000:65536\n1001:165536:65536";
        assert_eq!(range_of(table, "ada", 1000).unwrap(), "65536 from 100000");
        assert_eq!(range_of(table, "bob", 1001).unwrap(), "65536 from 165536");
        assert_eq!(range_of(table, "", 7), None);
    }

    #[test]
    fn a_missing_controller_is_named() {
        let fact = cgroup("0::/user.slice", |path| {
            Some(
                if path == "/user.slice" {
                    "cpu io pids"
                } else {
                    "cpu io memory pids"
                }
                .into(),
            )
        });
        assert!(fact.value.contains("without memory"), "{}", fact.value);
        assert!(fact.remedy.is_some());
        assert!(
            cgroup("0::/", |_| Some("cpu memory pids".into()))
                .remedy
                .is_none()
        );
    }
}
