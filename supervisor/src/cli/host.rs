//! What this machine allows: read from the kernel's own files, changed by nobody here.

use std::borrow::Cow;
use std::error::Error;
use std::fs;

use serde::Serialize;
use wpool::birth::ids::{Ids, NoIds};
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
    pub(crate) remedy: Option<Cow<'static, str>>,
}

/// The oldest kernel that wpool is made for.
const KERNEL_MIN: (u32, u32) = (5, 15);

/// What matters to the sandbox.
pub(crate) fn facts(ids: &Result<Ids, NoIds>) -> Vec<Fact> {
    let mut facts = vec![kernel(), user(ids)];
    facts.extend(user_namespaces());
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
        remedy: is_old.then_some(Cow::Borrowed("upgrade to Linux 5.15 or later")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn with_source(error: &NoIds) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn user(ids: &Result<Ids, NoIds>) -> Fact {
    let uid = rustix::process::geteuid().as_raw();
    let (value, remedy) = match ids {
        Ok(ids) => match (ids.identity(), ids.refused()) {
            (Identity::Own, _) => ("jobs get ids of their own", None),
            (Identity::Shared, refused) => ("jobs have this user's ids", refused),
        },
        Err(refused) => ("jobs cannot have ids of their own", Some(refused)),
    };
    Fact {
        name: "user",
        value: format!("uid {uid}: {value}"),
        remedy: remedy.map(|refused| Cow::Owned(with_source(refused))),
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
            remedy: is_off.then_some(Cow::Borrowed(remedy)),
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

fn cgroup(own: &str, controllers: impl Fn(&str) -> Option<String>) -> Fact {
    let name = "cgroup v2";
    if controllers("").is_none() {
        return Fact {
            name,
            value: "not mounted at /sys/fs/cgroup: limits are kept by sampling".to_owned(),
            remedy: Some(Cow::Borrowed(
                "boot with systemd.unified_cgroup_hierarchy=1",
            )),
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
        remedy: Some(Cow::Borrowed(
            "run it as a systemd service with Delegate=yes",
        )),
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
        remedy: remedy.map(Cow::Borrowed),
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
