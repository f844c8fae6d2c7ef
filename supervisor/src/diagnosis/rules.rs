//! What is known to take a layer away, one function each.
//!
//! # Invariants
//!
//! - A rule sees facts alone, and says nothing where a fact that it needs is not known.
//! - What the kernel decides is told with the kernel's own condition: who is spared by it, is not told of.

use nix::errno::Errno;

use super::facts::{Facts, Proc, Root, Wsl};
use super::remedy::{self, Remedy};
use super::{Finding, Sign, Stage};

mod calls;
mod cgroup;
mod landlock;

/// The oldest kernel that wpool is made for.
const KERNEL_MIN: (u32, u32) = (5, 15);

/// What the kernel says when it refuses.
const EPERM: i32 = Errno::EPERM as i32;
const EACCES: i32 = Errno::EACCES as i32;
const EINVAL: i32 = Errno::EINVAL as i32;
const ENOSYS: i32 = Errno::ENOSYS as i32;
const ENOSPC: i32 = Errno::ENOSPC as i32;

/// What is so, whatever fails.
pub(super) fn standing(facts: &Facts) -> Vec<Finding> {
    let mut found = namespaces_absent(facts);
    found.extend(calls::all(facts));
    found.extend(namespaces_limited(facts));
    if !found.iter().any(|finding| finding.layer == "kernel") {
        found.extend(old_kernel(facts));
    }
    let single = [
        userns_clone,
        apparmor_restriction,
        changed_root,
        masked_proc,
        landlock::missing,
        cgroup::missing,
    ];
    found.extend(single.into_iter().filter_map(|rule| rule(facts)));
    found
}

/// What can be why once something has failed, and harms nobody before.
pub(super) fn suspicions(facts: &Facts) -> Vec<Finding> {
    let rules = [limit_above, confined, selinux];
    rules.into_iter().filter_map(|rule| rule(facts)).collect()
}

/// A kernel, or what passes for one, that was built without a kind of namespace.
fn namespaces_absent(facts: &Facts) -> Vec<Finding> {
    let signs = [Sign::at(Stage::Clone, &[EINVAL, ENOSYS])];
    if facts.wsl == Some(Wsl::One) {
        let remedy = Remedy::new("in Windows", "wsl --set-version DISTRIBUTION 2");
        let reason = "this is WSL 1, which has no Linux kernel";
        return vec![Finding::certain("kernel", reason, remedy).showing(signs)];
    }
    let absent = facts.absent_namespaces.iter();
    absent
        .map(|name| {
            let option = match *name {
                "mount" => {
                    return Finding::certain(
                        *name,
                        "/proc shows no mount namespaces",
                        Remedy::as_root("mount -t proc proc /proc"),
                    );
                }
                "cgroup" => "CONFIG_CGROUPS",
                "ipc" => "CONFIG_IPC_NS",
                "net" => "CONFIG_NET_NS",
                "pid" => "CONFIG_PID_NS",
                "uts" => "CONFIG_UTS_NS",
                _ => "CONFIG_USER_NS",
            };
            Finding::certain(
                *name,
                format!("this kernel is built without {name} namespaces"),
                Remedy::new("boot a kernel that is built with", format!("{option}=y")),
            )
            .showing(signs)
        })
        .collect()
}

/// A kernel that answers every call, and that nobody has tried.
fn old_kernel(facts: &Facts) -> Option<Finding> {
    let (major, minor) = KERNEL_MIN;
    let is_old = facts.version()? < KERNEL_MIN && facts.wsl != Some(Wsl::One);
    let remedy = if facts.wsl.is_some() {
        Remedy::new("in Windows", "wsl --update")
    } else {
        Remedy::new(
            "boot a kernel of",
            format!("Linux {major}.{minor} or newer"),
        )
    };
    is_old.then(|| {
        Finding::possible(
            "kernel",
            format!(
                "Linux {} is older than {major}.{minor}, the oldest that wpool is made for",
                facts.release
            ),
            remedy,
        )
        .showing([
            Sign::at(Stage::Clone, &[EINVAL, ENOSYS]),
            Sign::at(Stage::Start, &[EINVAL, ENOSYS]),
            Sign::at(Stage::Build, &[EINVAL, ENOSYS]),
        ])
    })
}

/// `user_namespaces(7)`, namespaces(7): the limits count for everybody, root included.
fn namespaces_limited(facts: &Facts) -> Vec<Finding> {
    let none = facts.namespaces_max.iter().filter(|(_, max)| *max == 0);
    none.map(|(name, _)| {
        let short = if *name == "mount" { "mnt" } else { name };
        let sysctl = format!("user.max_{short}_namespaces");
        let remedy = remedy::sysctl(facts, &sysctl, "10000");
        Finding::certain(
            *name,
            format!("{sysctl} is 0: nobody may make {name} namespaces"),
            remedy,
        )
        .showing([Sign::at(Stage::Clone, &[ENOSPC])])
    })
    .collect()
}

/// The kernel's ENOSPC where no limit that is seen is 0: one that is used up, or of an outer user namespace.
fn limit_above(facts: &Facts) -> Option<Finding> {
    let mut limits = facts.namespaces_max.iter();
    let (_, users) = limits.clone().find(|(name, _)| *name == "user")?;
    let is_known = limits.any(|(_, max)| *max == 0);
    (!is_known).then(|| {
        Finding::possible(
            "user",
            format!(
                "as many namespaces are there as a sysctl user.max_*_namespaces allows, here ({users} user namespaces) or outside of a container"
            ),
            Remedy::new(
                "as root, and on the host of a container, see the limits",
                "sysctl -a --pattern '^user.max_.*_namespaces'",
            ),
        )
        .showing([Sign::at(Stage::Clone, &[ENOSPC])])
    })
}

/// A patch of Debian's, also in linux-hardened: only who has `CAP_SYS_ADMIN` over the machine is spared.
fn userns_clone(facts: &Facts) -> Option<Finding> {
    let is_off = facts.unprivileged_userns_clone? == 0 && !facts.is_privileged();
    let sysctl = "kernel.unprivileged_userns_clone";
    is_off.then(|| {
        Finding::certain(
            "user",
            format!("{sysctl} is 0: only root may make user namespaces"),
            remedy::sysctl(facts, sysctl, "1"),
        )
        .showing([Sign::at(Stage::Clone, &[EPERM])])
    })
}

/// Ubuntu's: who is unconfined and not privileged gets a user namespace without any right in it, or none
/// (`apparmor_restrict_unprivileged_userns`; its profile `unprivileged_userns`).
fn apparmor_restriction(facts: &Facts) -> Option<Finding> {
    let is_on = facts.apparmor_restriction? == 1 && !facts.is_privileged();
    let sysctl = "kernel.apparmor_restrict_unprivileged_userns";
    let reason = format!(
        "{sysctl} is 1, and no AppArmor profile allows wpool user namespaces: what it makes has no rights"
    );
    let remedy = remedy::apparmor_profile(&facts.program);
    let finding = match facts.label.as_deref() {
        Some("unconfined") => Finding::certain("user", reason, remedy),
        // A profile that it has decides, and what that allows cannot be read.
        Some(_) => return None,
        None => Finding::possible("user", reason, remedy),
    };
    is_on.then(|| {
        finding.showing([
            Sign::at(Stage::Clone, &[EPERM, EACCES]),
            Sign::at(Stage::Ids, &[EPERM, EACCES]),
            Sign::at(Stage::Start, &[EPERM, EACCES]),
            Sign::at(Stage::Build, &[EPERM, EACCES]),
        ])
    })
}

/// `user_namespaces(7)`: EPERM in a chroot.
fn changed_root(facts: &Facts) -> Option<Finding> {
    (facts.root == Root::Directory).then(|| {
        Finding::certain(
            "user",
            "wpool is in a chroot, in which the kernel makes no user namespaces",
            Remedy::new(
                "as root, instead of chroot DIRECTORY",
                "systemd-nspawn -D DIRECTORY",
            ),
        )
        .showing([Sign::at(Stage::Clone, &[EPERM])])
    })
}

/// A profile of `AppArmor`'s, whose rules cannot be read from inside.
fn confined(facts: &Facts) -> Option<Finding> {
    let label = facts.label.as_deref().filter(|_| facts.is_confined())?;
    let name = label.trim_end_matches("(enforce)").trim_end();
    Some(
        Finding::possible(
            "mount",
            format!("the AppArmor profile {name}, which confines wpool, does not allow it"),
            remedy::of_surroundings(facts),
        )
        .showing([
            Sign::at(Stage::Clone, &[EPERM, EACCES]),
            Sign::at(Stage::Ids, &[EPERM, EACCES]),
            Sign::at(Stage::Build, &[EPERM, EACCES]),
        ]),
    )
}

/// `SELinux`, whose policy cannot be read from inside.
fn selinux(facts: &Facts) -> Option<Finding> {
    let label = facts.label.as_deref().filter(|label| label.contains(':'))?;
    // An ordinary session is not confined.
    let is_confined = facts.selinux? == 1 && !label.contains("unconfined_t");
    is_confined.then(|| {
        Finding::possible(
            "mount",
            format!("SELinux does not allow it to {label}"),
            Remedy::new(
                "as root, on the host of the container if it is one, see what was denied",
                "ausearch -m avc -ts recent",
            ),
        )
        .showing([
            Sign::at(Stage::Clone, &[EPERM, EACCES]),
            Sign::at(Stage::Build, &[EPERM, EACCES]),
        ])
    })
}

/// The kernel mounts a `/proc` in a user namespace only where it shows no more than one that is there (`mount_too_revealing`).
fn masked_proc(facts: &Facts) -> Option<Finding> {
    let reason = match facts.proc.as_ref()? {
        Proc::Visible => return None,
        Proc::Masked(places) => format!(
            "{} mounted over, and the kernel allows no new /proc where the old one is masked",
            is_or_are(places)
        ),
        Proc::ReadOnly => {
            "/proc is read-only, and the kernel allows no new one that can be written to".to_owned()
        }
        Proc::Absent => {
            "no whole /proc is mounted, and the kernel allows no new one then".to_owned()
        }
    };
    let remedy = match facts.proc {
        Some(Proc::Absent) => Remedy::as_root("mount -t proc proc /proc"),
        _ if facts.container.is_none() && facts.unit.is_none() => Remedy::new(
            "as root, where wpool is started: a whole one anywhere is enough",
            "mkdir -p /run/proc && mount -t proc proc /run/proc",
        ),
        _ => remedy::of_surroundings(facts),
    };
    let signs = [Sign::building(&["pid"], &[EPERM])];
    Some(Finding::certain("pid", reason, remedy).showing(signs))
}

fn is_or_are(places: &[String]) -> String {
    match places {
        [place] => format!("{place} is"),
        places => format!("{} are", places.join(", ")),
    }
}
