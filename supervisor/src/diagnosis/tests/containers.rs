//! Containers and units: what is around wpool.

use super::*;

/// Docker's `/proc`, by its default.
const MASKED: &str = "\
601 520 0:52 / / rw,relatime - overlay overlay rw
602 601 0:56 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
603 602 0:56 /bus /proc/bus ro,nosuid,nodev,noexec,relatime - proc proc rw
604 602 0:57 / /proc/acpi ro,relatime - tmpfs tmpfs ro
605 602 0:58 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
606 602 0:58 /null /proc/keys rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
607 602 0:56 /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw
608 602 0:58 /null /proc/timer_list rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
";

fn outside() -> Unavailable {
    Unavailable::NotDelegated {
        directory: PathBuf::from("/sys/fs/cgroup"),
    }
}

fn docker() -> Host {
    let errno = |errno: Errno| Answer::Errno(errno as i32);
    Host::fine()
        .root()
        .with("/.dockerenv", "")
        .with("/proc/1/comm", "sh\n")
        .with("/proc/self/cgroup", "0::/\n")
        .with("/proc/self/mountinfo", MASKED)
        .with("/proc/self/attr/current", "docker-default (enforce)\n")
        .with("/proc/self/status", &status(DOCKER_CAPABILITIES, 2))
        .answering(&[
            (Call::Clone3, errno(Errno::ENOSYS)),
            (Call::Mount, errno(Errno::EPERM)),
            (Call::Umount, errno(Errno::EPERM)),
            (Call::OpenTree, errno(Errno::EPERM)),
            (Call::MountSetattr, errno(Errno::EPERM)),
        ])
        .cgroup(outside())
}

/// Its filter has no errno but the kernel's own `ENOSYS` for `clone3`, which a new kernel has.
#[test]
fn docker_by_default() {
    insta::assert_snapshot!(told(docker(), &[not_cloned(Errno::ENOSYS)]));
}

/// A machine that was made of a container's image has its marks.
#[test]
fn a_mark_without_a_container_is_not_believed() {
    let mut host = docker().cgroup(Unavailable::Hybrid);
    host.asked.processes = Processes::OfMachine;
    assert_eq!(host.facts().container, None);
}

#[test]
fn docker_with_the_filter_away_and_the_masks_left() {
    let answers = Call::ALL.map(|call| (call, Answer::Kernel));
    let host = docker()
        .answering(&answers)
        .with("/proc/self/status", &status(DOCKER_CAPABILITIES, 0));
    insta::assert_snapshot!(told(
        host,
        &[
            not_built("pid", "mount proc at /proc", Errno::EPERM),
            not_built("mount", "make all mounts private", Errno::EACCES),
        ]
    ));
}

#[test]
fn podman_without_root() {
    let host = Host::fine()
        .root()
        .with(
            "/run/.containerenv",
            "engine=\"podman-5.4.2\"\nrootless=1\n",
        )
        .with("/proc/1/comm", "bash\n")
        .with("/proc/self/uid_map", "0 1000 1\n1 100000 65536\n")
        .with("/proc/self/mountinfo", MASKED)
        .with("/proc/self/attr/current", "unconfined\n")
        .with("/proc/self/status", &status("00000000800405fb", 2))
        .with("/proc/self/cgroup", "0::/\n")
        .cgroup(outside());
    insta::assert_snapshot!(told(
        host,
        &[not_built("pid", "mount proc at /proc", Errno::EPERM)]
    ));
}

#[test]
fn kubernetes_lxc_and_what_has_no_name() {
    let masked = || {
        Host::fine()
            .with("/proc/self/mountinfo", MASKED)
            .with("/proc/1/comm", "sh\n")
    };
    let pid = || not_built("pid", "mount proc at /proc", Errno::EPERM);
    let pod = masked().with(
        "/var/run/secrets/kubernetes.io/serviceaccount/namespace",
        "default",
    );
    insta::assert_snapshot!("kubernetes", told(pod, &[pid()]));
    let lxc = masked().with("/run/systemd/container", "lxc\n");
    insta::assert_snapshot!("lxc", told(lxc, &[pid()]));
    let other = masked().with("/proc/1/environ", "PATH=/bin\0container=strange\0");
    insta::assert_snapshot!("other_engine", told(other, &[pid()]));
    insta::assert_snapshot!("no_engine", told(masked(), &[pid()]));
}

#[test]
fn a_unit_that_masks_and_filters() {
    let host = Host::fine()
        .with("/proc/self/cgroup", "0::/system.slice/grader.service\n")
        .with("/proc/self/mountinfo", MASKED)
        .with("/proc/self/status", &status("0000000000000000", 2))
        .answering(&[(Call::Clone3, Answer::Errno(Errno::ENOSYS as i32))]);
    insta::assert_snapshot!(told(host, &[not_cloned(Errno::ENOSYS)]));
}

#[test]
fn a_filter_that_ends_who_calls() {
    let host = Host::fine()
        .with("/proc/self/status", &status("0000000000000000", 2))
        .answering(&[
            (Call::Mount, Answer::Ended),
            (Call::Seccomp, Answer::Errno(0)),
        ]);
    insta::assert_snapshot!(told(host, &[]));
}
