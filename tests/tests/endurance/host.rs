//! What is on the host: processes, files, keys, System V objects and cgroups of jobs' ids, and what of it is nobody's in particular.
//!
//! Where jobs have ids that nobody else has, what belongs to these ids is of jobs, and there may be no more of it than before. The rest of a host
//! is others' as well, who come and go while the test runs: there the bound is [`OF_OTHERS`].

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use wpool_tests::wpool::Daemon;

use super::census::{Bound, Census};

/// What others on the host may make meanwhile. Of ten thousand jobs some ninety are of the same hostile kind: what even one kind leaves each
/// time is more.
const OF_OTHERS: u64 = 40;

/// The lines of the kernel's account of its own memory that tell of jobs.
const SLABS: [&str; 14] = [
    "net_namespace",
    "pid_namespace",
    "mnt_cache",
    "cred_jar",
    "task_struct",
    "sock_inode_cache",
    "shmem_inode_cache",
    "proc_inode_cache",
    "filp",
    "dentry",
    "key_jar",
    "eventpoll_epi",
    "posix_timers_cache",
    "mqueue_inode_cache",
];

/// Ids that only jobs and their workers have.
struct Ids(BTreeSet<u32>);

impl Ids {
    /// Those of the slots, as the maps of their workers tell them; none where jobs have the id of who runs the daemon.
    fn of(daemon: &Daemon) -> anyhow::Result<Self> {
        let own = fs::metadata(format!("/proc/{}", daemon.pid()))?.uid();
        let mut ids = BTreeSet::new();
        for worker in daemon.workers()? {
            let map = fs::read_to_string(format!("/proc/{worker}/uid_map")).unwrap_or_default();
            for line in map.lines() {
                let numbers: Vec<u32> = line
                    .split_whitespace()
                    .filter_map(|word| word.parse().ok())
                    .collect();
                if let [_, first, count] = numbers[..] {
                    // A map of everybody's ids gives nobody one of their own.
                    ids.extend((0..count.min(16)).map(|n| first + n));
                }
            }
        }
        ids.remove(&own);
        Ok(Self(ids))
    }

    /// The name and the bound of what somebody with this id owns.
    fn owner(&self, uid: u32) -> (&'static str, Bound) {
        if self.0.contains(&uid) {
            ("of jobs' ids", Bound::NoMore)
        } else {
            ("of others", Bound::Growth(OF_OTHERS))
        }
    }
}

/// Counts what is on the host.
pub(crate) fn count(daemon: &Daemon, census: &mut Census) -> anyhow::Result<()> {
    let ids = Ids::of(daemon)?;
    census.add(
        "host: ids of jobs and workers".into(),
        u64::try_from(ids.0.len())?,
        Bound::Same,
    );
    processes(daemon, &ids, census)?;
    for place in ["/tmp", "/dev/shm", "/dev/mqueue", "/run"] {
        let looked = files(place, &ids, census);
        census.seen(place, looked)?;
    }
    census.add(
        "host: files of the daemon".into(),
        below(daemon.directory())?,
        Bound::NoMore,
    );
    census.add(
        "host: mounts".into(),
        lines("/proc/self/mountinfo")?,
        Bound::Growth(OF_OTHERS),
    );
    objects(&ids, census)?;
    keys(&ids, census)?;
    cgroups(daemon, census)?;
    kernel(census)
}

fn lines(path: &str) -> io::Result<u64> {
    Ok(fs::read_to_string(path)?.lines().count() as u64)
}

/// Processes with ids of jobs that are not the daemon's workers, wherever they hang in the tree of processes; and namespaces.
fn processes(daemon: &Daemon, ids: &Ids, census: &mut Census) -> anyhow::Result<()> {
    let workers: Vec<u32> = daemon.descendants()?;
    let mut spaces = BTreeSet::new();
    let mut strays = 0;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // Whoever has gone meanwhile is nobody.
        let Ok(meta) = fs::metadata(entry.path()) else {
            continue;
        };
        if ids.0.contains(&meta.uid()) && !workers.contains(&pid) {
            strays += 1;
        }
        for space in fs::read_dir(entry.path().join("ns"))
            .into_iter()
            .flatten()
            .flatten()
        {
            spaces.extend(fs::metadata(space.path()).ok().map(|meta| meta.ino()));
        }
    }
    census.add(
        "host: processes of jobs' ids beside the workers".into(),
        strays,
        Bound::NoMore,
    );
    census.add(
        "host: namespaces that somebody is in".into(),
        u64::try_from(spaces.len())?,
        Bound::Told,
    );
    Ok(())
}

fn files(place: &str, ids: &Ids, census: &mut Census) -> io::Result<()> {
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        // Others remove theirs while this looks.
        let Ok(meta) = fs::symlink_metadata(entry.path()) else {
            continue;
        };
        let (whose, bound) = ids.owner(meta.uid());
        census.add(format!("host: entries of {place} {whose}"), 1, bound);
    }
    Ok(())
}

/// Files and directories below one.
fn below(directory: &Path) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        count += 1;
        if entry.file_type()?.is_dir() {
            count += below(&entry.path())?;
        }
    }
    Ok(count)
}

/// System V objects of the host's.
fn objects(ids: &Ids, census: &mut Census) -> anyhow::Result<()> {
    for kind in ["msg", "sem", "shm"] {
        let text = fs::read_to_string(format!("/proc/sysvipc/{kind}"))?;
        let mut lines = text.lines();
        let titles = lines.next().unwrap_or("").split_whitespace();
        let place = titles.take_while(|title| *title != "uid").count();
        for line in lines {
            let uid = line
                .split_whitespace()
                .nth(place)
                .and_then(|word| word.parse().ok());
            let (whose, bound) = ids.owner(uid.unwrap_or(u32::MAX));
            census.add(format!("host: System V objects, {kind}, {whose}"), 1, bound);
        }
    }
    Ok(())
}

/// Keys, as they are listed and as they are counted by user.
fn keys(ids: &Ids, census: &mut Census) -> anyhow::Result<()> {
    let listed = fs::read_to_string("/proc/keys");
    for line in census.seen("keys", listed)?.unwrap_or_default().lines() {
        let uid = line
            .split_whitespace()
            .nth(5)
            .and_then(|word| word.parse().ok());
        let (whose, bound) = ids.owner(uid.unwrap_or(u32::MAX));
        census.add(format!("host: keys listed, {whose}"), 1, bound);
    }
    let counted = fs::read_to_string("/proc/key-users");
    for line in census
        .seen("users of keys", counted)?
        .unwrap_or_default()
        .lines()
    {
        // "uid: usage keys/instantiated quota/max bytes/max"
        let Some((uid, rest)) = line.split_once(':') else {
            continue;
        };
        let (whose, bound) = ids.owner(uid.trim().parse().unwrap_or(u32::MAX));
        let keys = rest
            .split_whitespace()
            .nth(1)
            .and_then(|word| word.split('/').next()?.parse().ok());
        census.add(format!("host: users of keys {whose}"), 1, bound);
        census.add(
            format!("host: keys counted, {whose}"),
            keys.unwrap_or(0),
            bound,
        );
    }
    Ok(())
}

/// Directories of the daemon's cgroup, and those that are removed and not yet gone.
fn cgroups(daemon: &Daemon, census: &mut Census) -> anyhow::Result<()> {
    let Some(directory) = daemon.cgroup() else {
        census.seen::<()>(
            "cgroups: there are none",
            Err(io::ErrorKind::PermissionDenied.into()),
        )?;
        return Ok(());
    };
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        census.add("cgroups: directories".into(), 1, Bound::NoMore);
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    let stat = fs::read_to_string(directory.join("cgroup.stat"))?;
    for line in stat.lines() {
        if let Some((name, value)) = line.split_once(' ') {
            census.add(
                format!("cgroups: {name}"),
                value.parse().unwrap_or(0),
                Bound::Told,
            );
        }
    }
    Ok(())
}

/// What the kernel says of itself: all of the machine has a part in it.
fn kernel(census: &mut Census) -> anyhow::Result<()> {
    let files = fs::read_to_string("/proc/sys/fs/file-nr")?;
    let files = files
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok());
    census.add("kernel: open files".into(), files.unwrap_or(0), Bound::Told);
    let memory = fs::read_to_string("/proc/meminfo")?;
    for line in memory.lines() {
        let mut words = line.split_whitespace();
        let (name, value) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if [
            "Shmem:",
            "SUnreclaim:",
            "KernelStack:",
            "PageTables:",
            "Percpu:",
        ]
        .contains(&name)
        {
            census.add(
                format!("kernel: {name} KiB"),
                value.parse().unwrap_or(0),
                Bound::Told,
            );
        }
    }
    let slabs = fs::read_to_string("/proc/slabinfo");
    for line in census
        .seen("slabs of the kernel", slabs)?
        .unwrap_or_default()
        .lines()
    {
        let mut words = line.split_whitespace();
        let (name, value) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if SLABS.contains(&name) {
            census.add(
                format!("kernel: slab {name}"),
                value.parse().unwrap_or(0),
                Bound::Told,
            );
        }
    }
    Ok(())
}
