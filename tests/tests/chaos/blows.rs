//! Workers that are killed and stopped from outside while four clients submit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Daemon, PATIENCE};

use super::fiend::strike;

pub(crate) const TESTS: &[Test] = &[
    test!(two_thousand_jobs_survive_killed_workers),
    test!(jobs_survive_stopped_workers),
    test!(a_job_whose_workers_all_die_is_quarantined_and_the_others_run_on),
];

/// Between two blows.
const EVERY: Duration = Duration::from_millis(50);

/// Runs `jobs` jobs from four clients while `blow` is dealt to workers; gives the outcomes.
fn under_blows(
    daemon: &Daemon,
    jobs: usize,
    attempts_max: u32,
    blow: Signal,
    every: Duration,
) -> anyhow::Result<Vec<Value>> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let beater = scope.spawn(|| {
            let mut blows = 0u32;
            while !done.load(Ordering::Relaxed) {
                let workers = daemon.workers()?;
                if let Some(pid) = workers.get(usize::try_from(blows)? % workers.len().max(1)) {
                    strike(*pid, blow)?;
                    blows += 1;
                }
                thread::park_timeout(every);
            }
            anyhow::Ok(blows)
        });
        let clients: Vec<_> = (0..4)
            .map(|client| {
                scope.spawn(move || {
                    let mut outcomes = Vec::new();
                    for n in 0..jobs / 4 {
                        let job = json!({
                            "command": ["sh", "-c", format!("sleep 0.02; echo {client}-{n}")],
                            "attempts_max": attempts_max,
                        });
                        outcomes.push(daemon.outcome_of(&job)?);
                    }
                    anyhow::Ok(outcomes)
                })
            })
            .collect();
        let joined: Vec<_> = clients
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        // Whatever has come of them: nobody would end the blows else.
        done.store(true, Ordering::Relaxed);
        beater.thread().unpark();
        let blows = beater
            .join()
            .map_err(|_| anyhow::anyhow!("the beater panicked"))??;
        ensure!(blows > 0, "nobody was hurt");
        let mut outcomes = Vec::new();
        for client in joined {
            let of_client = client.map_err(|_| anyhow::anyhow!("a client panicked"))?;
            outcomes.extend(of_client?);
        }
        Ok(outcomes)
    })
}

/// Holds the outcomes against what was submitted and what the status says.
fn agrees(daemon: &mut Daemon, outcomes: &[Value], jobs: usize) -> anyhow::Result<()> {
    let mut seen = BTreeMap::new();
    for outcome in outcomes {
        ensure!(outcome["state"] == "succeeded", "{outcome}");
        let id = outcome["id"].as_str().context("no id")?;
        ensure!(seen.insert(id.to_owned(), outcome).is_none(), "twice: {id}");
        let attempts = outcome["attempts"].as_array().context("no attempts")?;
        let lost = attempts
            .iter()
            .filter(|attempt| attempt["end"] == "worker_lost")
            .count();
        ensure!(lost + 1 == attempts.len(), "{outcome}");
    }
    ensure!(seen.len() == jobs);
    let status = daemon.status()?;
    ensure!(
        status["completed"] == jobs && status["ended"]["succeeded"] == jobs,
        "{status}"
    );
    ensure!(
        status["active"] == 0 && status["queued"]["total"] == 0,
        "{status}"
    );
    idle_again(daemon)
}

/// Waits until all workers are idle, and no process beside them is there.
pub(crate) fn idle_again(daemon: &mut Daemon) -> anyhow::Result<()> {
    daemon.wait_until(
        "its workers are back, and nothing else is there",
        |daemon| {
            let status = daemon.status()?;
            let workers = status["workers"].as_array().context("no workers")?;
            let idle = workers.iter().all(|worker| worker["state"] == "idle");
            Ok(idle && daemon.descendants()?.len() == workers.len())
        },
    )
}

/// What a daemon takes up beside its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    descriptors: usize,
    mounts: usize,
}

impl Footprint {
    pub(crate) fn of(daemon: &Daemon) -> anyhow::Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self {
            descriptors: std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.count(),
            mounts: mounts.lines().count(),
        })
    }

    /// Waits until it is as it was.
    pub(crate) fn is_back(self, daemon: &Daemon) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let now = Self::of(daemon)?;
            if now == self {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{self:?}, then {now:?}");
            thread::yield_now();
        }
    }
}

fn two_thousand_jobs_survive_killed_workers() -> anyhow::Result<()> {
    const JOBS: usize = 2_000;
    // So many blows park both slots again and again; what is asked for here is that no job is lost by it, and no client waits for a minute.
    let config = "[pool]\npark_min_ms = 10\npark_max_ms = 200\nbackoff_max_ms = 50\n";
    let mut daemon = Daemon::start_with(2, config)?;
    daemon.outcome_of(&json!({"command": ["true"]}))?;
    let before = Footprint::of(&daemon)?;
    let outcomes = under_blows(&daemon, JOBS, 100, Signal::SIGKILL, EVERY)?;
    let lost: usize = outcomes
        .iter()
        .filter_map(|outcome| Some(outcome["attempts"].as_array()?.len() - 1))
        .sum();
    ensure!(lost > 0, "no job has lost a worker");
    // The job of the beginning is one more.
    let mut all = outcomes;
    all.push(
        daemon
            .get("/v1/jobs?limit=1000")?
            .json()
            .and_then(|_| first(&daemon))?,
    );
    agrees(&mut daemon, &all, JOBS + 1)?;
    before.is_back(&daemon)
}

/// The outcome of the oldest job.
fn first(daemon: &Daemon) -> anyhow::Result<Value> {
    let mut before = String::new();
    loop {
        let page = daemon
            .get(&format!("/v1/jobs?limit=1000{before}"))?
            .json()?;
        if let Some(next) = page["next"].as_str() {
            before = format!("&before={next}");
            continue;
        }
        let jobs = page["jobs"].as_array().context("no jobs")?;
        let id = jobs
            .last()
            .and_then(|job| job["id"].as_str())
            .context("no job")?;
        return daemon.get(&format!("/v1/jobs/{id}/result"))?.json();
    }
}

fn jobs_survive_stopped_workers() -> anyhow::Result<()> {
    const JOBS: usize = 100;
    // A stopped worker is found out after silence_max; blows at that pace would leave no time to work.
    const SELDOM: Duration = Duration::from_millis(700);
    let config = "[pool]\nping_interval_ms = 100\nsilence_max_ms = 300\nbackoff_max_ms = 50\n";
    let mut daemon = Daemon::start_with(2, config)?;
    let outcomes = under_blows(&daemon, JOBS, 100, Signal::SIGSTOP, SELDOM)?;
    // A worker stopped while idle is found out by the next job.
    daemon.outcome_of(&json!({"command": ["true"], "attempts_max": 100}))?;
    let mut all = outcomes;
    all.push(newest(&daemon)?);
    for outcome in &all {
        ensure!(outcome["state"] == "succeeded", "{outcome}");
    }
    ensure!(all.len() == JOBS + 1);
    ensure!(daemon.status()?["completed"] == JOBS + 1);
    daemon.wait_until("nothing runs", |daemon| Ok(daemon.status()?["active"] == 0))
}

fn newest(daemon: &Daemon) -> anyhow::Result<Value> {
    let page = daemon.get("/v1/jobs?limit=1")?.json()?;
    let id = page["jobs"][0]["id"].as_str().context("no job")?;
    daemon.get(&format!("/v1/jobs/{id}/result"))?.json()
}

fn a_job_whose_workers_all_die_is_quarantined_and_the_others_run_on() -> anyhow::Result<()> {
    let daemon = Daemon::start(2)?;
    let poison = daemon
        .post(
            "/v1/jobs",
            &json!({"command": ["sleep", "60"], "labels": {"poison": "yes"}}),
        )?
        .json()?;
    let id = poison["id"].as_str().context("no id")?;
    let begun = Instant::now();
    let outcome = loop {
        ensure!(
            begun.elapsed() < PATIENCE,
            "not quarantined: {}",
            daemon.status()?
        );
        let status = daemon.status()?;
        for worker in status["workers"].as_array().context("no workers")? {
            if worker["job"] == id
                && let Some(pid) = worker["pid"].as_i64()
            {
                strike(Pid::from_raw(pid.try_into()?), Signal::SIGKILL)?;
            }
        }
        let other = daemon.outcome_of(&json!({"command": ["true"]}))?;
        ensure!(other["state"] == "succeeded", "{other}");
        let answer = daemon.get(&format!("/v1/jobs/{id}/result"))?;
        if answer.status == 200 {
            break answer.json()?;
        }
    };
    ensure!(outcome["state"] == "quarantined", "{outcome}");
    ensure!(
        outcome["cause"]["kind"] == "worker_lost" && outcome["cause"]["attempts"] == 3,
        "{outcome}"
    );
    let attempts = outcome["attempts"].as_array().context("no attempts")?;
    ensure!(attempts.len() == 3, "{outcome}");
    ensure!(
        attempts.iter().all(|attempt| attempt["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("SIGKILL"))),
        "{outcome}"
    );
    Ok(())
}
