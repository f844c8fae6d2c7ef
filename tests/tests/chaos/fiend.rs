//! Who kills, stops and starves a daemon's workers and the inits of their jobs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wpool_tests::chance::Chance;
use wpool_tests::wpool::{Daemon, children};

/// What was done, for whoever reads the test's output.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deeds {
    pub(crate) workers_killed: u32,
    pub(crate) workers_stopped: u32,
    pub(crate) inits_killed: u32,
    pub(crate) inits_stopped: u32,
}

/// A process that is stopped, and when it may go on.
struct Stopped {
    pid: Pid,
    until: Instant,
}

/// Strikes at random moments until `done`.
pub(crate) fn rage(
    daemon: &Daemon,
    mut chance: Chance,
    done: &AtomicBool,
) -> anyhow::Result<Deeds> {
    let mut deeds = Deeds::default();
    let mut stopped: Vec<Stopped> = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let (due, still): (Vec<_>, Vec<_>) = stopped
            .into_iter()
            .partition(|stopped| stopped.until <= Instant::now());
        stopped = still;
        for Stopped { pid, .. } in due {
            strike(pid, Signal::SIGCONT)?;
        }
        strike_one(daemon, &mut chance, &mut deeds, &mut stopped)?;
        thread::park_timeout(Duration::from_millis(chance.between(10, 120)));
    }
    for Stopped { pid, .. } in stopped {
        strike(pid, Signal::SIGCONT)?;
    }
    Ok(deeds)
}

fn strike_one(
    daemon: &Daemon,
    chance: &mut Chance,
    deeds: &mut Deeds,
    stopped: &mut Vec<Stopped>,
) -> anyhow::Result<()> {
    let workers = daemon.workers()?;
    let Some(worker) = any(&workers, chance) else {
        return Ok(());
    };
    let inits = children(worker.as_raw().try_into()?)?;
    let init = any(&inits, chance).map(|init| i32::try_from(init).map(Pid::from_raw));
    let init = init.transpose().context("a pid")?;
    // Some go on before they are missed, some do not.
    let until = Instant::now() + Duration::from_millis(chance.between(10, 600));
    match (chance.up_to(9), init) {
        (0..4, _) => {
            strike(worker, Signal::SIGKILL)?;
            deeds.workers_killed += 1;
        }
        (4..6, _) => {
            strike(worker, Signal::SIGSTOP)?;
            stopped.push(Stopped { pid: worker, until });
            deeds.workers_stopped += 1;
        }
        (6..8, Some(pid)) => {
            strike(pid, Signal::SIGKILL)?;
            deeds.inits_killed += 1;
        }
        (_, Some(pid)) => {
            strike(pid, Signal::SIGSTOP)?;
            stopped.push(Stopped { pid, until });
            deeds.inits_stopped += 1;
        }
        (_, None) => {}
    }
    Ok(())
}

fn any<T: Copy>(of: &[T], chance: &mut Chance) -> Option<T> {
    let last = u64::try_from(of.len()).ok()?.checked_sub(1)?;
    of.get(usize::try_from(chance.up_to(last)).ok()?).copied()
}

/// Signals a process, which may be gone meanwhile.
pub(crate) fn strike(pid: Pid, blow: Signal) -> anyhow::Result<()> {
    match kill(pid, blow) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
