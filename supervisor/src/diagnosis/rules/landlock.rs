//! Landlock that is not there, or not used.

use nix::errno::Errno;

use crate::diagnosis::facts::{Facts, Wsl};
use crate::diagnosis::remedy::{self, Remedy};
use crate::diagnosis::{Finding, Sign, Stage};

/// The oldest ABI that wpool uses: before it, no file can be renamed from one directory into another.
const ABI_MIN: u32 = 2;

/// Linux with Landlock.
const SINCE: (u32, u32) = (5, 13);

/// Any failure of the layer is one of these.
const SIGN: Sign = Sign {
    stage: Stage::Build,
    layers: &["landlock"],
    errnos: &[],
};

pub(super) fn missing(facts: &Facts) -> Option<Finding> {
    let finding = match facts.landlock {
        Ok(abi) if abi >= ABI_MIN => return None,
        Ok(abi) => Finding::certain(
            "landlock",
            format!(
                "this kernel's Landlock has ABI {abi}, under which no file can be renamed from one directory into another"
            ),
            newer(facts, "5.19"),
        ),
        Err(errno) => match Errno::from_raw(errno) {
            Errno::EOPNOTSUPP => switched_off(facts),
            Errno::ENOSYS => not_there(facts),
            other => Finding::possible(
                "landlock",
                format!(
                    "a seccomp filter around wpool answers landlock_create_ruleset with {other:?}"
                ),
                remedy::of_surroundings(facts),
            ),
        },
    };
    Some(finding.showing([SIGN]))
}

fn switched_off(facts: &Facts) -> Finding {
    let modules = facts.modules.iter().flatten();
    // It is always there, and not to be named.
    let others = modules.filter(|name| *name != "capability");
    let list: Vec<&str> = std::iter::once("landlock")
        .chain(others.map(String::as_str))
        .collect();
    let (reason, remedy) = match &facts.modules {
        Some(_) => (
            "Landlock is not among the security modules that are on (lsm=)",
            remedy::kernel_parameter(facts, &format!("lsm={}", list.join(","))),
        ),
        // Whoever writes the list without knowing it switches the others off.
        None => (
            "Landlock is switched off at boot (lsm=)",
            Remedy::new(
                "as root, so that wpool doctor can say which list has to be longer",
                "mount -t securityfs none /sys/kernel/security && wpool doctor",
            ),
        ),
    };
    Finding::certain("landlock", reason, remedy)
}

fn not_there(facts: &Facts) -> Finding {
    let is_on = facts
        .modules
        .iter()
        .flatten()
        .any(|name| name == "landlock");
    let is_old = facts.version().is_some_and(|version| version < SINCE);
    if is_on && facts.seccomp != Some(0) {
        return Finding::certain(
            "landlock",
            "a seccomp filter around wpool hides the kernel's Landlock",
            remedy::of_surroundings(facts),
        );
    }
    if is_old {
        let reason = format!("Linux {} has no Landlock (5.13)", facts.release);
        return Finding::certain("landlock", reason, newer(facts, "5.19"));
    }
    let reason = "this kernel is built without Landlock (CONFIG_SECURITY_LANDLOCK)";
    if facts.seccomp == Some(0) {
        return Finding::certain("landlock", reason, newer(facts, "5.19"));
    }
    Finding::possible(
        "landlock",
        format!("{reason}, or a seccomp filter around wpool hides it"),
        newer(facts, "5.19"),
    )
}

fn newer(facts: &Facts, version: &str) -> Remedy {
    if facts.wsl == Some(Wsl::Two) {
        return Remedy::new("in Windows", "wsl --update");
    }
    Remedy::new(
        "boot a kernel with CONFIG_SECURITY_LANDLOCK=y of",
        format!("Linux {version} or newer"),
    )
}
