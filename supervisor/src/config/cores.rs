//! How many cores this process may use: its affinity, and what its cgroup lets it have of them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::thread::{CpuSet, sched_getaffinity};

/// The cores that this process may run on, and how many of them its quota is worth: at least one.
pub fn usable_cores() -> (Vec<u16>, u16) {
    let cores = affinity();
    let count = u16::try_from(cores.len()).unwrap_or(u16::MAX).max(1);
    let quota = quota(Path::new("/sys/fs/cgroup"), &own_cgroups());
    (cores, quota.map_or(count, |quota| count.min(quota)).max(1))
}

fn affinity() -> Vec<u16> {
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .filter_map(|core| u16::try_from(core).ok())
        .collect()
}

/// The process' cgroups: controllers (empty for v2) and path.
fn own_cgroups() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut cgroups = Vec::new();
    for line in text.lines() {
        // cgroups(7): hierarchy-ID:controller-list:cgroup-path
        let mut fields = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(path)) = (fields.next(), fields.next()) {
            cgroups.push((controllers.to_owned(), path.to_owned()));
        }
    }
    cgroups
}

/// The smallest quota of the process' cgroups and all above them, in whole cores, rounded up.
fn quota(root: &Path, cgroups: &[(String, String)]) -> Option<u16> {
    let mut smallest: Option<u16> = None;
    for (controllers, path) in cgroups {
        let is_v2 = controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|name| name == "cpu") {
            continue;
        }
        let bases = if is_v2 {
            vec![root.to_owned(), root.join("unified")]
        } else {
            vec![root.join("cpu"), root.join("cpu,cpuacct")]
        };
        for base in bases {
            for dir in upwards(&base, path) {
                let found = if is_v2 {
                    v2_quota(&dir)
                } else {
                    v1_quota(&dir)
                };
                smallest = smallest.into_iter().chain(found).min();
            }
        }
    }
    smallest
}

/// The directory of a cgroup and those above it, up to the mount.
fn upwards(base: &Path, path: &str) -> Vec<PathBuf> {
    let mut relative = Path::new(path.trim_start_matches('/'));
    let mut dirs = vec![base.join(relative)];
    while let Some(above) = relative.parent() {
        dirs.push(base.join(above));
        relative = above;
    }
    dirs
}

fn v2_quota(dir: &Path) -> Option<u16> {
    let text = fs::read_to_string(dir.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    whole_cores(quota.parse().ok()?, period.parse().ok()?)
}

fn v1_quota(dir: &Path) -> Option<u16> {
    let number = |name: &str| -> Option<u64> {
        // A quota of -1 means none, and is no u64.
        fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
    };
    whole_cores(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
}

fn whole_cores(quota: u64, period: u64) -> Option<u16> {
    if quota == 0 || period == 0 {
        return None;
    }
    Some(u16::try_from(quota.div_ceil(period)).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_quota_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cpu.max"), "max 100000\n").unwrap();
        fs::write(root.path().join("a/cpu.max"), "150000 100000\n").unwrap();
        let cgroups = [(String::new(), "/a/b".to_owned())];
        assert_eq!(quota(root.path(), &cgroups), Some(2));
        fs::write(dir.join("cpu.max"), "50000 100000\n").unwrap();
        assert_eq!(quota(root.path(), &cgroups), Some(1));
    }

    #[test]
    fn the_old_hierarchy_counts_too() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("cpu");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cpu.cfs_quota_us"), "-1\n").unwrap();
        fs::write(dir.join("cpu.cfs_period_us"), "100000\n").unwrap();
        let cgroups = [("cpu,cpuacct".to_owned(), "/".to_owned())];
        assert_eq!(quota(root.path(), &cgroups), None);
        fs::write(dir.join("cpu.cfs_quota_us"), "300000\n").unwrap();
        assert_eq!(quota(root.path(), &cgroups), Some(3));
    }

    #[test]
    fn there_is_always_a_core() {
        let (cores, count) = usable_cores();
        assert!(count >= 1);
        assert!(usize::from(count) <= cores.len().max(1));
    }
}
