//! What a daemon, its workers and its host hold at one moment, counted from outside; and what of it has grown.
//!
//! A census is taken while nothing runs. What the kernel dismantles after its last user has gone (a namespace, its mounts) is an event that
//! nobody is told of: a census that shows growth is taken again until it shows none, or until [`PATIENCE`] is over.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::Instant;

use anyhow::Context as _;
use wpool_tests::wpool::{Daemon, PATIENCE};

use super::{host, process, room};

/// How much of something there may be later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// As much.
    Same,
    /// No more.
    NoMore,
    /// No less: what a job can have.
    NoLess,
    /// So much more.
    Growth(u64),
    /// It is told, for whoever reads it, and not judged: others on this host have a part in it.
    Told,
}

/// A count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    value: u64,
    bound: Bound,
}

/// All counts of one moment, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    entries: BTreeMap<String, Entry>,
    /// What whoever runs the test may not look at.
    unseen: BTreeSet<String>,
}

impl Census {
    /// Notes a count; what is noted twice is added up.
    pub(crate) fn add(&mut self, name: String, value: u64, bound: Bound) {
        let entry = self
            .entries
            .entry(name)
            .or_insert(Entry { value: 0, bound });
        entry.value += value;
    }

    /// What could be looked at; notes what could not. What has gone meanwhile is no error: then the next census tells.
    pub(crate) fn seen<T>(
        &mut self,
        what: &str,
        looked: std::io::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        match looked {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.unseen.insert(what.to_owned());
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // ESRCH: the process has gone.
            Err(error) if error.raw_os_error() == Some(3) => Ok(None),
            Err(error) => Err(error).with_context(|| what.to_owned()),
        }
    }

    /// One line for each count that is not within its bound, held against an earlier one.
    pub(crate) fn grown(&self, earlier: &Self) -> Vec<String> {
        let names: BTreeSet<_> = self.entries.keys().chain(earlier.entries.keys()).collect();
        let is_wrong = |name: &&String| {
            let now = self.entries.get(*name).or(earlier.entries.get(*name));
            let (before, after) = (earlier.value(name), self.value(name));
            match now.map_or(Bound::Told, |entry| entry.bound) {
                Bound::Same => after != before,
                Bound::NoMore => after > before,
                Bound::NoLess => after < before,
                Bound::Growth(most) => after > before + most,
                Bound::Told => false,
            }
        };
        let line =
            |name: &String| format!("{name}: {}, then {}", earlier.value(name), self.value(name));
        names.into_iter().filter(is_wrong).map(line).collect()
    }

    fn value(&self, name: &str) -> u64 {
        self.entries.get(name).map_or(0, |entry| entry.value)
    }

    /// The same, but where growth is allowed the higher of the two: what an allocator keeps is now more, now less.
    pub(crate) fn at_most(mut self, earlier: &Self) -> Self {
        for (name, entry) in &mut self.entries {
            if matches!(entry.bound, Bound::Growth(_)) {
                entry.value = entry.value.max(earlier.value(name));
            }
        }
        self
    }

    /// Takes the first one: as soon as nothing runs, and two are alike.
    pub(crate) fn first(daemon: &mut Daemon) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut last = Self::take(daemon)?;
        loop {
            let next = Self::take(daemon)?;
            let is_steady = next.grown(&last).is_empty() && last.grown(&next).is_empty();
            if is_steady || begun.elapsed() > PATIENCE {
                return Ok(next);
            }
            last = next;
        }
    }

    /// Takes one as soon as nothing runs, and nothing has grown over an earlier one; in the end, one that shows what has.
    pub(crate) fn after(daemon: &mut Daemon, earlier: &Self) -> anyhow::Result<Self> {
        let begun = Instant::now();
        loop {
            let next = Self::take(daemon)?;
            if next.grown(earlier).is_empty() || begun.elapsed() > PATIENCE {
                return Ok(next);
            }
        }
    }

    fn take(daemon: &mut Daemon) -> anyhow::Result<Self> {
        let mut census = Self::default();
        room::count(daemon, &mut census)?;
        idle(daemon)?;
        process::count(daemon, &mut census)?;
        host::count(daemon, &mut census)?;
        Ok(census)
    }
}

/// Waits until all workers are idle, and no process beside them is there.
fn idle(daemon: &mut Daemon) -> anyhow::Result<()> {
    daemon.wait_until(
        "its workers are idle, and nothing else is there",
        |daemon| {
            let status = daemon.status()?;
            let workers = status["workers"].as_array().context("no workers")?;
            let idle = workers.iter().all(|worker| worker["state"] == "idle");
            Ok(idle && daemon.descendants()?.len() == workers.len())
        },
    )
}

/// A table of counts: a line for each, a column for each census.
pub(crate) fn table(columns: &[(&str, &Census)]) -> String {
    let names: BTreeSet<_> = columns
        .iter()
        .flat_map(|(_, census)| census.entries.keys())
        .collect();
    let line = |name: &str, cells: Vec<String>| {
        let cells: Vec<_> = cells.iter().map(|cell| format!("{cell:>14}")).collect();
        format!("{name:<52}{}", cells.concat())
    };
    let mut lines = vec![line(
        "",
        columns
            .iter()
            .map(|(title, _)| (*title).to_owned())
            .collect(),
    )];
    for name in names {
        let values = columns
            .iter()
            .map(|(_, census)| census.value(name).to_string());
        lines.push(line(name, values.collect()));
    }
    let unseen: BTreeSet<_> = columns
        .iter()
        .flat_map(|(_, census)| &census.unseen)
        .collect();
    if !unseen.is_empty() {
        lines.push(format!("not to be looked at by this user: {unseen:?}"));
    }
    lines.join("\n")
}
