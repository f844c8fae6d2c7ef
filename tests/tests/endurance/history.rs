//! The histories: jobs in parts, with a census between them.
//!
//! `WPOOL_ENDURANCE_JOBS` and `WPOOL_ENDURANCE_SEED` say how many and which; the seed decides what is asked, not when the kernel does it.

use std::env;
use std::io::{Write as _, stderr};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use wpool_tests::chance::Chance;
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::Daemon;

use super::census::{Census, table};
use super::client::{Choice, Part, Tally, work};
use super::task::{Task, Workers};

pub(crate) const TESTS: &[Test] = &[
    test!(jobs_good_and_hostile_leave_nothing_behind, "python3"),
    test!(workers_that_come_and_go_leave_nothing_behind, "python3"),
];

/// Small enough to be full before the first census: from there on what is kept of outcomes does not grow.
const RETENTION: &str =
    "[retention]\noutcomes_count = 50\noutcomes_bytes = \"2M\"\n[log]\nlevel = \"warn\"\n";

/// Workers that are to be those of the beginning: on a busy machine the kernel can take seconds to make the namespaces of a job, in which
/// its worker says nothing.
const LONG_LIVES: &str = "[pool]\nsilence_max_ms = 120000\n";

/// Workers that are soon replaced, and soon tried again when they are killed.
const SHORT_LIVES: &str = "[pool]\nrecycle_jobs = 9\nbackoff_min_ms = 1\nbackoff_max_ms = 20\npark_min_ms = 20\npark_max_ms = 100\n";

/// What the kernel and allocators keep in reserve grows with the most that was under way at one time: all kinds come so often before anything
/// is counted.
const WARM_ROUNDS: usize = 3;

fn setting<T: FromStr>(name: &str, default: T) -> anyhow::Result<T> {
    match env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

/// A line for whoever reads along.
fn tell(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(stderr(), "endurance: {line}")?)
}

fn jobs_good_and_hostile_leave_nothing_behind() -> anyhow::Result<()> {
    let jobs = setting("WPOOL_ENDURANCE_JOBS", 400)?;
    live(jobs, &format!("{LONG_LIVES}{RETENTION}"), Workers::Stay)
}

fn workers_that_come_and_go_leave_nothing_behind() -> anyhow::Result<()> {
    let jobs = setting("WPOOL_ENDURANCE_JOBS", 400)? / 4;
    live(jobs, &format!("{SHORT_LIVES}{RETENTION}"), Workers::Change)
}

/// Warms a daemon by jobs of every kind, then runs so many by chance; holds what there is after the last tenth against what there was after
/// the first, and that against what there was before.
fn live(jobs: usize, config: &str, workers: Workers) -> anyhow::Result<()> {
    let seed = setting("WPOOL_ENDURANCE_SEED", u64::from(std::process::id()))?;
    tell(&format!(
        "workers {workers:?}, WPOOL_ENDURANCE_SEED={seed} WPOOL_ENDURANCE_JOBS={jobs}"
    ))?;
    let part = |name, jobs, choice, number: u64| Part {
        name,
        jobs,
        choice,
        workers,
        seed: seed.wrapping_add(number * 1_000),
    };
    let mut daemon = Daemon::start_with(2, config)?;
    live_through(
        &daemon,
        part("warm", WARM_ROUNDS * Task::kinds(), Choice::InOrder, 0),
    )?;
    let before = Census::first(&mut daemon)?;
    let tenth = jobs / 10;
    live_through(&daemon, part("first", tenth, Choice::ByChance, 1))?;
    let first = Census::after(&mut daemon, &before)?;
    let begun = Instant::now();
    let between = live_through(
        &daemon,
        part("between", jobs - 2 * tenth, Choice::ByChance, 2),
    )?;
    live_through(&daemon, part("last", tenth, Choice::ByChance, 3))?;
    tell(&format!(
        "{} jobs in {:?}; between: {between:?}",
        jobs - tenth,
        begun.elapsed()
    ))?;
    let highest = first.clone().at_most(&before);
    let last = Census::after(&mut daemon, &highest)?;
    let columns = [
        ("before", &before),
        ("first tenth", &first),
        ("last tenth", &last),
    ];
    tell(&format!("\n{}", table(&columns)))?;
    for (what, later, earlier) in [
        ("in the first tenth", &first, &before),
        ("from the first tenth to the last", &last, &highest),
    ] {
        let grown = later.grown(earlier);
        ensure!(
            grown.is_empty(),
            "{what} of {jobs} jobs, seed {seed}: {grown:#?}"
        );
    }
    let status = daemon.status()?;
    ensure!(
        status["active"] == 0 && status["queued"]["total"] == 0,
        "{status}"
    );
    Ok(())
}

/// Does a part of the history.
fn live_through(daemon: &Daemon, part: Part) -> anyhow::Result<Tally> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let fiend = match part.workers {
            Workers::Stay => None,
            Workers::Change => Some(scope.spawn(|| rage(daemon, Chance::new(part.seed), &done))),
        };
        let worked = work(daemon, part);
        done.store(true, Ordering::Relaxed);
        if let Some(fiend) = fiend {
            fiend.thread().unpark();
            fiend
                .join()
                .map_err(|_| anyhow::anyhow!("the fiend panicked"))??;
        }
        worked.with_context(|| format!("seed {}; the daemon said: {:?}", part.seed, daemon.said()))
    })
}

/// Kills a worker now and then until `done`.
fn rage(daemon: &Daemon, mut chance: Chance, done: &AtomicBool) -> anyhow::Result<()> {
    while !done.load(Ordering::Relaxed) {
        let workers = daemon.workers()?;
        let last = workers.len().saturating_sub(1) as u64;
        if let Some(worker) = workers.get(usize::try_from(chance.up_to(last))?) {
            match kill(*worker, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        thread::park_timeout(Duration::from_millis(chance.between(300, 900)));
    }
    Ok(())
}
