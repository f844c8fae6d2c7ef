//! Where this process's cgroup lies: `/proc/self/cgroup` and `/proc/self/mountinfo` in, a directory out.
//!
//! Formats: cgroups(7), proc(5).
//!
//! # Invariants
//!
//! - Texts in, answer out; nothing is opened here.

use std::path::{Path, PathBuf};

use super::Unavailable;

/// The directory of this process's cgroup in the v2 hierarchy.
pub(super) fn own_directory(cgroup: &str, mountinfo: &str) -> Result<PathBuf, Unavailable> {
    let path = own_path(cgroup)?;
    let (root, mount_point) = mount(mountinfo).ok_or(Unavailable::NotMounted)?;
    // In a container the mount may show a subtree only; from a cgroup namespace a process outside of it is `/..`.
    let below = Path::new(path).strip_prefix(root);
    let below = below.ok().filter(|below| {
        let mut names = below.components();
        names.all(|name| matches!(name, std::path::Component::Normal(_)))
    });
    let below = below.ok_or_else(|| Unavailable::Outside {
        path: path.to_owned(),
    })?;
    Ok(mount_point.join(below))
}

/// The path in the v2 hierarchy: the line that begins with `0::`.
fn own_path(cgroup: &str) -> Result<&str, Unavailable> {
    let unified = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    let path = unified.ok_or(Unavailable::Version1)?;
    // A line like `4:memory:/…` is a v1 controller; `1:name=systemd:/…` has none.
    let hybrid = cgroup.lines().any(|line| {
        let controllers = line.split(':').nth(1).unwrap_or_default();
        controllers.split(',').any(|name| name == "memory")
    });
    if hybrid {
        return Err(Unavailable::Hybrid);
    }
    Ok(path.strip_suffix(" (deleted)").unwrap_or(path))
}

/// Root and mount point of the first cgroup2 mount.
fn mount(mountinfo: &str) -> Option<(&Path, PathBuf)> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        file_system
            .starts_with("cgroup2 ")
            .then(|| (Path::new(root), unescaped(mount_point)))
    })
}

/// A path of mountinfo, in which blanks are written `\040`.
fn unescaped(path: &str) -> PathBuf {
    PathBuf::from(path.replace("\\040", " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "\
24 30 0:22 / /proc rw,nosuid shared:12 - proc proc rw
26 25 0:24 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn a_service_finds_its_directory() {
        let directory = own_directory("0::/system.slice/wpool.service\n", UNIFIED).unwrap();
        let expected = Path::new("/sys/fs/cgroup/system.slice/wpool.service");
        assert_eq!(directory, expected);
        assert_eq!(
            own_directory("0::/\n", UNIFIED).unwrap(),
            Path::new("/sys/fs/cgroup")
        );
    }

    #[test]
    fn a_mount_of_a_subtree_is_counted_from_its_root() {
        let mountinfo = UNIFIED.replace("0:24 / ", "0:24 /docker/f00 ");
        let directory = own_directory("0::/docker/f00/init\n", &mountinfo).unwrap();
        assert_eq!(directory, Path::new("/sys/fs/cgroup/init"));
        assert!(matches!(
            own_directory("0::/docker/bar\n", &mountinfo),
            Err(Unavailable::Outside { .. })
        ));
    }

    #[test]
    fn hosts_where_the_controllers_are_elsewhere_are_told_apart() {
        let hybrid = "12:memory:/\n1:name=systemd:/init\n0::/init\n";
        assert!(matches!(
            own_directory(hybrid, UNIFIED),
            Err(Unavailable::Hybrid)
        ));
        let old = "12:memory:/\n1:name=systemd:/init\n";
        assert!(matches!(
            own_directory(old, UNIFIED),
            Err(Unavailable::Version1)
        ));
        let named_only = "1:name=systemd:/init\n0::/init\n";
        assert!(own_directory(named_only, UNIFIED).is_ok());
        assert!(matches!(
            own_directory("0::/a\n", ""),
            Err(Unavailable::NotMounted)
        ));
        assert!(matches!(
            own_directory("0::/../x\n", UNIFIED),
            Err(Unavailable::Outside { .. })
        ));
    }
}
