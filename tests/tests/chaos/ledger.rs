//! Thousands of jobs under all that can befall their processes: what four clients wrote down is what the daemon says, of every job.
//!
//! `WPOOL_CHAOS_JOBS` and `WPOOL_CHAOS_SEED` say how many and which; the seed decides what is done, not when the kernel does it.

use std::collections::BTreeMap;
use std::env;
use std::io::Write as _;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use wpool_tests::chance::Chance;
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::Daemon;

use super::blows::{Footprint, idle_again};
use super::client::{self, Entry};
use super::fiend;

pub(crate) const TESTS: &[Test] = &[test!(
    what_the_clients_wrote_down_is_what_the_daemon_says_of_every_job
)];

const CLIENTS: usize = 4;

const CONFIG: &str = "[pool]\nping_interval_ms = 100\nsilence_max_ms = 400\nbackoff_max_ms = 50\n\
    park_min_ms = 50\npark_max_ms = 200\n[retention]\noutcomes_count = 1000000\noutcomes_bytes = \"4G\"\n";

fn setting<T: FromStr>(name: &str, default: T) -> anyhow::Result<T> {
    match env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

fn what_the_clients_wrote_down_is_what_the_daemon_says_of_every_job() -> anyhow::Result<()> {
    let jobs = setting("WPOOL_CHAOS_JOBS", 2_000)?;
    let seed = setting("WPOOL_CHAOS_SEED", u64::from(std::process::id()))?;
    writeln!(
        std::io::stderr(),
        "chaos: WPOOL_CHAOS_SEED={seed} WPOOL_CHAOS_JOBS={jobs}"
    )?;
    let mut daemon = Daemon::start_with(4, CONFIG)?;
    idle_again(&mut daemon)?;
    let before = Footprint::of(&daemon)?;
    let done = AtomicBool::new(false);
    let (ledger, deeds) = thread::scope(|scope| {
        let (daemon, done) = (&daemon, &done);
        let fiend = scope.spawn(move || fiend::rage(daemon, Chance::new(seed), done));
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|number| {
                let chance = Chance::new(seed.wrapping_add(number as u64));
                scope.spawn(move || client::live(daemon, number, jobs / CLIENTS, chance))
            })
            .collect();
        let mut ledger: anyhow::Result<Vec<Entry>> = Ok(Vec::new());
        for client in clients {
            let entries = client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"));
            ledger = ledger.and_then(|mut ledger| {
                ledger.extend(entries??);
                Ok(ledger)
            });
        }
        done.store(true, Ordering::Relaxed);
        fiend.thread().unpark();
        let deeds = fiend
            .join()
            .map_err(|_| anyhow::anyhow!("the fiend panicked"))??;
        anyhow::Ok((ledger?, deeds))
    })
    .with_context(|| format!("seed {seed}; the daemon said: {:?}", daemon.said()))?;
    writeln!(std::io::stderr(), "chaos: {deeds:?}")?;
    ensure!(ledger.len() == jobs / CLIENTS * CLIENTS);
    agrees(&daemon, &ledger)?;
    idle_again(&mut daemon)?;
    before.is_back(&daemon)
}

/// The daemon's listing, its outcomes and its counters against what the clients know.
fn agrees(daemon: &Daemon, ledger: &[Entry]) -> anyhow::Result<()> {
    let listed = listing(daemon)?;
    let mut ends = BTreeMap::new();
    let (mut kept, mut lost) = (0, 0);
    for Entry {
        id,
        task,
        wish,
        outcome,
    } in ledger
    {
        let told = daemon.get(&format!("/v1/jobs/{id}/result"))?;
        let Some(outcome) = outcome else {
            ensure!(told.status == 404 && !listed.contains_key(id), "{told:?}");
            continue;
        };
        kept += 1;
        ensure!(told.json()? == *outcome, "{told:?} is not {outcome}");
        ensure!(outcome["id"] == *id, "{outcome}");
        ensure!(listed.get(id) == Some(&outcome["state"]), "{outcome}");
        task.fits(outcome, *wish)?;
        lost += outcome["attempts"]
            .as_array()
            .map_or(0, Vec::len)
            .saturating_sub(1);
        let state = outcome["state"].as_str().context("no state")?;
        *ends.entry(state.to_owned()).or_insert(0u64) += 1;
    }
    ensure!(
        listed.len() == kept,
        "{} listed, {kept} known",
        listed.len()
    );
    ensure!(lost > 0, "no job has lost a worker");
    let status = daemon.status()?;
    ensure!(
        status["active"] == 0 && status["queued"]["total"] == 0,
        "{status}"
    );
    ensure!(status["completed"] == ledger.len(), "{status}");
    for (state, count) in &ends {
        let forgotten = ledger.len() - kept;
        let told = status["ended"][state].as_u64().context("no count")?;
        let most = *count + u64::try_from(forgotten)?;
        ensure!((*count..=most).contains(&told), "{count} {state}: {status}");
    }
    writeln!(std::io::stderr(), "chaos: {ends:?}, {lost} attempts lost")?;
    Ok(())
}

/// The state of every job that the daemon knows, by id.
fn listing(daemon: &Daemon) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut listed = BTreeMap::new();
    let mut before = String::new();
    loop {
        let page = daemon
            .get(&format!("/v1/jobs?limit=1000{before}"))?
            .json()?;
        for job in page["jobs"].as_array().context("no jobs")? {
            let id = job["id"].as_str().context("no id")?.to_owned();
            let twice = listed.insert(id, job["state"].clone());
            ensure!(twice.is_none(), "listed twice: {job}");
        }
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => return Ok(listed),
        }
    }
}
