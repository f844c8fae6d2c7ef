//! What the supervisor and its workers hold: processes, threads, descriptors, mounts, namespaces, sockets, memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use wpool_tests::wpool::Daemon;

use super::census::{Bound, Census};

/// Memory of its own that the supervisor may have at the end beyond the highest of the two censuses before.
///
/// It keeps outcomes, of which the config of this test bounds number and bytes, and both bounds are reached before the first census; bodies of
/// requests and answers, of up to a MiB, are there while they are under way, on more or fewer threads. What its allocator keeps of them goes up
/// and down by some MiB from one census to the next. 8 MiB are less than 1 KiB for each of nine thousand jobs.
const SUPERVISOR_GROWTH: u64 = 8 << 20;

/// The same for a worker, which holds nothing between two jobs: what its allocator keeps of them goes up and down by some hundred KiB. 2 MiB
/// are less than 500 bytes for each of the 4 500 jobs that one of two workers has in that time.
const WORKER_GROWTH: u64 = 2 << 20;

/// Counts what all processes of the daemon hold; nothing may run in it.
pub(crate) fn count(daemon: &Daemon, census: &mut Census) -> anyhow::Result<()> {
    let supervisor = u32::try_from(daemon.pid().as_raw())?;
    let mut tree = daemon.descendants()?;
    census.add(
        "tree: processes".into(),
        u64::try_from(tree.len())?,
        Bound::NoMore,
    );
    let dead = tree.iter().filter(|pid| is_dead(**pid)).count();
    census.add("tree: zombies".into(), u64::try_from(dead)?, Bound::NoMore);
    tree.push(supervisor);
    namespaces(&tree, census)?;
    locks(&tree, census)?;
    of_one("supervisor", supervisor, SUPERVISOR_GROWTH, census)?;
    let status = daemon.status()?;
    for worker in status["workers"].as_array().context("no workers")? {
        let pid = u32::try_from(worker["pid"].as_u64().context("no pid")?)?;
        let name = format!("worker {}", worker["slot"]);
        census.add(
            format!("{name}: generation"),
            worker["generation"].as_u64().unwrap_or(0),
            Bound::Told,
        );
        of_one(&name, pid, WORKER_GROWTH, census)?;
        sockets(&name, pid, census)?;
    }
    Ok(())
}

fn is_dead(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn of_one(name: &str, pid: u32, growth: u64, census: &mut Census) -> anyhow::Result<()> {
    let proc = format!("/proc/{pid}");
    let read = |file: &str| fs::read_to_string(format!("{proc}/{file}"));
    let status = read("status").with_context(|| format!("{name} is not there"))?;
    for (line, kind, bound) in [
        ("Threads:", "threads", Bound::NoMore),
        ("FDSize:", "room for descriptors", Bound::Told),
        ("VmPTE:", "page tables, KiB", Bound::Told),
    ] {
        let value = status.lines().find_map(|text| text.strip_prefix(line));
        census.add(
            format!("{name}: {kind}"),
            first_number(value.unwrap_or("")),
            bound,
        );
    }
    for (file, kind, bound) in [
        ("mountinfo", "mounts", Bound::NoMore),
        ("maps", "mappings", Bound::Growth(32)),
        ("timers", "lines of timers", Bound::NoMore),
    ] {
        if let Some(text) = census.seen(&format!("{name}: {kind}"), read(file))? {
            census.add(
                format!("{name}: {kind}"),
                u64::try_from(text.lines().count())?,
                bound,
            );
        }
    }
    if let Some(text) = census.seen(&format!("{name}: memory"), read("smaps_rollup"))? {
        for (line, kind, bound) in [
            (
                "Pss_Anon:",
                "memory of its own, bytes",
                Bound::Growth(growth),
            ),
            ("Pss_Shmem:", "memory shared, bytes", Bound::Growth(growth)),
            ("Pss:", "memory in all, bytes", Bound::Told),
        ] {
            let value = text.lines().find_map(|text| text.strip_prefix(line));
            census.add(
                format!("{name}: {kind}"),
                first_number(value.unwrap_or("")) << 10,
                bound,
            );
        }
    }
    let looked = descriptors(name, Path::new(&proc), census);
    census.seen(&format!("{name}: descriptors"), looked)?;
    Ok(())
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// Descriptors by what they lead to, and what hangs on them: entries of epolls, watches, bytes of memory files.
fn descriptors(name: &str, proc: &Path, census: &mut Census) -> io::Result<()> {
    for entry in fs::read_dir(proc.join("fd"))? {
        let entry = entry?;
        // Closed meanwhile, or another's that is not to be seen.
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let kind = without_numbers(&target.to_string_lossy());
        census.add(format!("{name}: descriptors of {kind}"), 1, Bound::NoMore);
        let info =
            fs::read_to_string(proc.join("fdinfo").join(entry.file_name())).unwrap_or_default();
        for (start, what) in [("tfd:", "entries of epolls"), ("inotify wd", "watches")] {
            let count = info.lines().filter(|line| line.starts_with(start)).count();
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            census.add(format!("{name}: {what}"), count, Bound::NoMore);
        }
        if kind.starts_with("/memfd:") {
            let bytes = fs::metadata(entry.path())?.blocks() * 512;
            census.add(
                format!("{name}: bytes of memory files"),
                bytes,
                Bound::Growth(1 << 20),
            );
        }
    }
    Ok(())
}

/// A name in which every number is the same.
fn without_numbers(name: &str) -> String {
    let name = name.replace(|c: char| c.is_ascii_digit(), "0");
    let mut short = String::new();
    for c in name.chars() {
        if c != '0' || !short.ends_with('0') {
            short.push(c);
        }
    }
    short
}

/// How many namespaces of each kind the processes are in.
fn namespaces(tree: &[u32], census: &mut Census) -> anyhow::Result<()> {
    let mut found: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for pid in tree {
        let entries = fs::read_dir(format!("/proc/{pid}/ns"));
        for entry in census.seen("namespaces", entries)?.into_iter().flatten() {
            let entry = entry?;
            let kind = entry.file_name().to_string_lossy().into_owned();
            if let Some(namespace) = census.seen("namespaces", fs::metadata(entry.path()))? {
                found.entry(kind).or_default().insert(namespace.ino());
            }
        }
    }
    for (kind, numbers) in found {
        census.add(
            format!("tree: namespaces, {kind}"),
            u64::try_from(numbers.len())?,
            Bound::NoMore,
        );
    }
    Ok(())
}

/// File locks that they hold.
fn locks(tree: &[u32], census: &mut Census) -> anyhow::Result<()> {
    let text = fs::read_to_string("/proc/locks")?;
    let holder = |line: &str| {
        line.split_whitespace()
            .nth(4)
            .and_then(|word| word.parse::<u32>().ok())
    };
    let held = text
        .lines()
        .filter_map(holder)
        .filter(|pid| tree.contains(pid))
        .count();
    census.add(
        "tree: file locks".into(),
        u64::try_from(held)?,
        Bound::NoMore,
    );
    Ok(())
}

/// What there is in a worker's own network.
fn sockets(name: &str, pid: u32, census: &mut Census) -> anyhow::Result<()> {
    for table in ["tcp", "tcp6", "udp", "udp6", "unix", "raw", "packet"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}"));
        if let Some(text) = census.seen(&format!("{name}: network"), text)? {
            // The first line says what stands in the others.
            let count = text.lines().count().saturating_sub(1);
            census.add(
                format!("{name}: sockets, {table}"),
                u64::try_from(count)?,
                Bound::NoMore,
            );
        }
    }
    Ok(())
}
