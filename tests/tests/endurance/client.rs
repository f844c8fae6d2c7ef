//! The clients: four tenants with two hands each, of which each has one job under way at a time.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wpool_tests::chance::Chance;
use wpool_tests::wpool::Daemon;

use super::task::{Manner, Task, Workers, cut};

const TENANTS: [&str; 4] = ["ant", "bee", "cat", "dog"];

const HANDS: usize = 8;

/// How many jobs of each kind ended well.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

/// What is done in a part of the history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Its name, which is a part of the names of its jobs.
    pub(crate) name: &'static str,
    pub(crate) jobs: usize,
    pub(crate) choice: Choice,
    pub(crate) workers: Workers,
    pub(crate) seed: u64,
}

/// Which jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Those of the list, one after the other.
    InOrder,
    /// What chance gives.
    ByChance,
}

/// All hands do their part of the jobs; gives how many of each kind there were.
pub(crate) fn work(daemon: &Daemon, part: Part) -> anyhow::Result<Tally> {
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let failed = &failed;
        let one = |hand| {
            let done = one_hand(daemon, part, hand, failed);
            failed.fetch_or(done.is_err(), Ordering::Relaxed);
            done
        };
        let hands: Vec<_> = (0..HANDS)
            .map(|hand| scope.spawn(move || one(hand)))
            .collect();
        let mut tally = Tally::new();
        let mut wrong = Vec::new();
        for hand in hands {
            match hand.join() {
                Ok(Ok(done)) => done.into_iter().for_each(|(kind, count)| {
                    *tally.entry(kind).or_default() += count;
                }),
                Ok(Err(error)) => wrong.push(format!("{error:#}")),
                Err(_) => wrong.push("a client panicked".to_owned()),
            }
        }
        // All of them: where a worker was lost, one tells over which job, others that there is another worker.
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(tally)
    })
}

/// Does the jobs of one hand, until it or another has failed.
fn one_hand(
    daemon: &Daemon,
    part: Part,
    hand: usize,
    failed: &AtomicBool,
) -> anyhow::Result<Tally> {
    let mut chance = Chance::new(part.seed.wrapping_add(hand as u64));
    let mut tally = Tally::new();
    for number in (hand..part.jobs).step_by(HANDS) {
        if failed.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{}-{number}", part.name);
        let mut task = match part.choice {
            Choice::InOrder => Task::of_each(number, &name, &mut chance),
            Choice::ByChance => Task::any(&name, &mut chance),
        };
        let tenant = TENANTS[hand % TENANTS.len()];
        task.request["tenant"] = json!(tenant);
        let told = done(daemon, &task).and_then(|outcome| {
            ensure!(outcome["tenant"] == tenant, "{}", cut(&outcome));
            task.fits(&outcome, part.workers)
        });
        told.with_context(|| format!("{name}, which {}", task.kind))?;
        *tally.entry(task.kind).or_default() += 1;
    }
    Ok(tally)
}

/// The outcome of a job, which is asked for in its manner.
fn done(daemon: &Daemon, task: &Task) -> anyhow::Result<Value> {
    match task.manner {
        Manner::Waits => daemon.outcome_of(&task.request),
        Manner::Vanishes => {
            vanish(daemon, &task.request)?;
            daemon.outcome_of(&task.request)
        }
        Manner::Cancels => cancelled(daemon, &task.request),
    }
}

/// Asks for it, and is gone before the answer comes.
fn vanish(daemon: &Daemon, request: &Value) -> anyhow::Result<()> {
    let mut stream = daemon.connect()?;
    let body = request.to_string();
    let len = body.len();
    let head =
        format!("POST /v1/jobs?wait=60s HTTP/1.1\r\nhost: wpool\r\ncontent-length: {len}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    // It may be closed as soon as it is known to be gone.
    drop(stream.write_all(body.as_bytes()));
    Ok(())
}

/// Follows what it says, ends it when it says that it runs, and leaves off reading.
fn cancelled(daemon: &Daemon, request: &Value) -> anyhow::Result<Value> {
    let answer = daemon.post("/v1/jobs", request)?;
    ensure!(answer.status == 201, "{answer:?}");
    let submitted = answer.json()?;
    let path = format!("/v1/jobs/{}", submitted["id"].as_str().context("no id")?);
    let mut stream = daemon.connect()?;
    let what = "output?stream=stdout&follow=true";
    write!(stream, "GET {path}/{what} HTTP/1.1\r\nhost: wpool\r\n\r\n")?;
    let mut said = BufReader::new(&stream).split(b'\n');
    let is_ready = |line: &[u8]| line.ends_with(b"ready");
    ensure!(
        said.any(|line| line.is_ok_and(|line| is_ready(&line))),
        "it ends before it has begun"
    );
    let answer = daemon.ask("DELETE", &path, None)?;
    ensure!(answer.status == 202, "{answer:?}");
    let answer = daemon.get(&format!("{path}/result?wait=60s"))?;
    ensure!(answer.status == 200, "{answer:?}");
    answer.json()
}
