//! Machines, and the settings by which they refuse.

use super::*;

const NOT_DELEGATED: &str = "/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope";

fn not_delegated() -> Unavailable {
    Unavailable::NotDelegated {
        directory: PathBuf::from(NOT_DELEGATED),
    }
}

#[test]
fn where_everything_is_fine_nothing_is_told() {
    assert_eq!(told(Host::fine(), &[]), "");
    assert_eq!(told(Host::fine().root(), &[]), "");
}

#[test]
fn what_nothing_explains_is_not_explained() {
    insta::assert_snapshot!(told(
        Host::fine(),
        &[
            not_cloned(Errno::EPERM),
            not_built("ipc", "mount mqueue at /dev/mqueue", Errno::ENODEV),
            Failure::of_start("a worker failed to take its ids: Invalid argument (os error 22)"),
        ]
    ));
}

/// The namespace is made, and every right in it is taken: the first mount fails.
#[test]
fn ubuntu_with_the_restriction_of_apparmor() {
    let ubuntu = || {
        Host::fine()
            .with("/proc/sys/kernel/osrelease", "6.8.0-45-generic\n")
            .with(
                "/etc/os-release",
                "NAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian\n",
            )
            .with(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1\n",
            )
            .with("/proc/sys/kernel/unprivileged_userns_clone", "1\n")
            .landlock(Ok(4))
    };
    let fails = not_built("mount", "make all mounts private", Errno::EPERM);
    insta::assert_snapshot!(told(ubuntu(), &[fails.clone(), not_cloned(Errno::EACCES)]));
    // With its profile, and for root, it holds nobody up.
    let allowed = ubuntu().with("/proc/self/attr/current", "wpool (unconfined)\n");
    assert_eq!(told(allowed, &[]), "");
    assert_eq!(told(ubuntu().root(), &[]), "");
    // Who cannot see by which profile it is bound does not claim to know.
    let unseen = ubuntu().without("/proc/self/attr/current");
    insta::assert_snapshot!("ubuntu_unseen", told(unseen, &[fails]));
}

#[test]
fn debian_without_user_namespaces_for_users() {
    let debian = || Host::fine().with("/proc/sys/kernel/unprivileged_userns_clone", "0\n");
    insta::assert_snapshot!(told(
        debian(),
        &[not_cloned(Errno::EPERM), not_cloned(Errno::ENOMEM)]
    ));
    assert_eq!(told(debian().root(), &[]), "");
}

#[test]
fn no_user_namespaces_at_all() {
    let none = Host::fine().limited("user", 0);
    insta::assert_snapshot!(told(none, &[not_cloned(Errno::ENOSPC)]));
    // Root is not spared.
    assert_ne!(told(Host::fine().root().limited("net", 0), &[]), "");
    // A limit that cannot be seen from here is not claimed to be known.
    insta::assert_snapshot!(
        "outer_limit",
        told(Host::fine(), &[not_cloned(Errno::ENOSPC)])
    );
}

#[test]
fn an_old_kernel_without_landlock() {
    let answers = [
        (Call::MountSetattr, Answer::Errno(Errno::ENOSYS as i32)),
        (Call::CloseRange, Answer::Errno(Errno::EINVAL as i32)),
    ];
    let old = Host::fine()
        .with("/proc/sys/kernel/osrelease", "5.10.0-35-amd64\n")
        .with(
            "/sys/kernel/security/lsm",
            "lockdown,capability,yama,apparmor",
        )
        .answering(&answers)
        .landlock(Err(Errno::ENOSYS));
    let start = "a worker failed to arrange its descriptors: Invalid argument (os error 22)";
    insta::assert_snapshot!(told(
        old,
        &[
            Failure::of_start(start),
            not_built("mount", "protect /usr", Errno::ENOSYS),
            not_built("landlock", "make a Landlock domain", Errno::ENOSYS),
        ]
    ));
    let untried = Host::fine().with("/proc/sys/kernel/osrelease", "5.14.0-503.el9.x86_64\n");
    insta::assert_snapshot!("old_and_able", told(untried, &[]));
}

#[test]
fn landlock_that_is_off_old_or_hidden() {
    let off = Host::fine()
        .with(
            "/sys/kernel/security/lsm",
            "lockdown,capability,yama,apparmor\n",
        )
        .landlock(Err(Errno::EOPNOTSUPP));
    insta::assert_snapshot!("landlock_off", told(off, &[]));
    let fedora = Host::fine()
        .with(
            "/etc/os-release",
            "ID=rocky\nID_LIKE=\"rhel centos fedora\"\n",
        )
        .without("/sys/kernel/security/lsm")
        .landlock(Err(Errno::EOPNOTSUPP));
    insta::assert_snapshot!("landlock_off_fedora", told(fedora, &[]));
    insta::assert_snapshot!("landlock_old", told(Host::fine().landlock(Ok(1)), &[]));
    let not_built_in = Host::fine()
        .with("/sys/kernel/security/lsm", "capability,yama")
        .landlock(Err(Errno::ENOSYS));
    insta::assert_snapshot!("landlock_not_built", told(not_built_in, &[]));
    let hidden = Host::fine()
        .with("/proc/self/status", &status("0000000000000000", 2))
        .landlock(Err(Errno::ENOSYS));
    insta::assert_snapshot!("landlock_hidden", told(hidden, &[]));
}

#[test]
fn a_chroot() {
    let chroot = Host::fine().with(
        "/proc/self/mountinfo",
        "24 21 0:22 / /proc rw,relatime shared:12 - proc proc rw\n",
    );
    insta::assert_snapshot!(told(chroot, &[not_cloned(Errno::EPERM)]));
}

#[test]
fn a_kernel_without_a_kind_of_namespace() {
    let mut host = Host::fine();
    host.asked.absent_namespaces = vec!["user"];
    insta::assert_snapshot!(told(host, &[not_cloned(Errno::EINVAL)]));
}

#[test]
fn windows() {
    let two = Host::fine()
        .with(
            "/proc/sys/kernel/osrelease",
            "5.15.167.4-microsoft-standard-WSL2\n",
        )
        .with("/proc/1/comm", "init\n")
        .without("/sys/kernel/security/lsm")
        .landlock(Err(Errno::ENOSYS))
        .cgroup(Unavailable::Hybrid);
    insta::assert_snapshot!("wsl_2", told(two, &[]));
    let one = Host::fine()
        .with("/proc/sys/kernel/osrelease", "4.4.0-22621-Microsoft\n")
        .answering(&[(Call::Clone3, Answer::Errno(Errno::ENOSYS as i32))]);
    insta::assert_snapshot!("wsl_1", told(one, &[not_cloned(Errno::ENOSYS)]));
}

#[test]
fn cgroups_of_version_1_and_both() {
    insta::assert_snapshot!(
        "cgroup_v1",
        told(Host::fine().cgroup(Unavailable::Version1), &[])
    );
    let hybrid = Host::fine()
        .with("/proc/1/comm", "openrc-init\n")
        .with("/etc/os-release", "ID=alpine\n")
        .cgroup(Unavailable::Hybrid);
    insta::assert_snapshot!("cgroup_hybrid", told(hybrid, &[]));
}

#[test]
fn cgroups_that_are_not_delegated() {
    insta::assert_snapshot!(
        "cgroup_user",
        told(Host::fine().cgroup(not_delegated()), &[])
    );
    insta::assert_snapshot!(
        "cgroup_root",
        told(Host::fine().root().cgroup(not_delegated()), &[])
    );
    let mut no_session = Host::fine().cgroup(not_delegated());
    no_session.asked.user_manager = None;
    insta::assert_snapshot!("cgroup_no_session", told(no_session, &[]));
    let unit = Host::fine()
        .with("/proc/self/cgroup", "0::/system.slice/grader.service\n")
        .cgroup(not_delegated());
    insta::assert_snapshot!("cgroup_unit", told(unit, &[]));
    let other = Host::fine()
        .root()
        .with("/proc/1/comm", "runit\n")
        .cgroup(not_delegated());
    insta::assert_snapshot!("cgroup_other_init", told(other, &[]));
    let controllers = |missing| Unavailable::Controllers {
        directory: PathBuf::from(NOT_DELEGATED),
        missing,
    };
    insta::assert_snapshot!(
        "cgroup_controllers",
        told(Host::fine().cgroup(controllers(vec!["cpu"])), &[])
    );
    let disabled = Host::fine()
        .with("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n")
        .cgroup(controllers(vec!["memory"]));
    insta::assert_snapshot!("cgroup_disabled", told(disabled, &[]));
}
