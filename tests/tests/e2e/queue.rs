//! The queue as a client sees it: order of starts, drain, cancel, and how `submit --wait` ends.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Daemon, GATE};

pub(crate) const TESTS: &[Test] = &[
    test!(submit_waits_and_exits_as_the_job_did),
    test!(a_job_is_cancelled_and_forgotten),
    test!(classes_and_ranks_order_the_starts),
    test!(a_draining_pool_refuses_and_finishes),
];

/// Submits a job and gives its id.
pub(crate) fn submit(daemon: &Daemon, job: &Value) -> anyhow::Result<String> {
    let answer = daemon.post("/v1/jobs", job)?;
    ensure!(answer.status == 201, "{answer:?}");
    let id = answer.json()?["id"].as_str().context("no id")?.to_owned();
    Ok(id)
}

/// Waits for the outcome of a job.
pub(crate) fn outcome(daemon: &Daemon, id: &str) -> anyhow::Result<Value> {
    let answer = daemon.get(&format!("/v1/jobs/{id}/result?wait=60s"))?;
    ensure!(answer.status == 200, "{answer:?}");
    answer.json()
}

/// A job that waits for its end: it runs until it is ended.
pub(crate) fn endless() -> Value {
    json!({"command": ["sleep", "600"], "limits": {"timeout_ms": 600_000}})
}

fn submit_waits_and_exits_as_the_job_did() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    for (command, code) in [
        (&["--", "sh", "-c", "exit 3"][..], 3),
        (&["--", "no-such-program"], 127),
        (&["--timeout", "200ms", "--", "sleep", "60"], 124),
        (&["--", "sh", "-c", "kill -KILL $$"], 137),
    ] {
        let said = daemon.wpool(["submit", "--wait"].iter().chain(command))?;
        ensure!(said.code == code, "{command:?}: {said:?}");
    }
    Ok(())
}

fn a_job_is_cancelled_and_forgotten() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let running = submit(&daemon, &endless())?;
    let queued = submit(&daemon, &endless())?;
    let said = daemon.wpool(["cancel", &queued, &running])?;
    ensure!(said.code == 0, "{said:?}");
    for id in [&running, &queued] {
        let outcome = outcome(&daemon, id)?;
        ensure!(outcome["state"] == "cancelled", "{outcome}");
        ensure!(outcome["cause"]["kind"] == "cancelled", "{outcome}");
    }
    let answer = daemon.ask("DELETE", &format!("/v1/jobs/{queued}"), None)?;
    ensure!(answer.status < 300, "{answer:?}");
    let answer = daemon.get(&format!("/v1/jobs/{queued}"))?;
    ensure!(answer.status == 404, "{answer:?}");
    let head = answer.head.to_ascii_lowercase();
    ensure!(head.contains("application/problem+json"), "{answer:?}");
    Ok(())
}

fn classes_and_ranks_order_the_starts() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    daemon.wpool(["pool", "pause"])?;
    let mut ids = Vec::new();
    for (name, priority, rank) in [
        ("fifth", "low", 9),
        ("third", "normal", 0),
        ("fourth", "normal", 0),
        ("second", "normal", 1),
        ("first", "high", 0),
    ] {
        let job = json!({"command": ["true"], "priority": priority, "rank": rank});
        ids.push((name, submit(&daemon, &job)?));
    }
    daemon.wpool(["pool", "resume"])?;
    let mut starts = Vec::new();
    for (name, id) in ids {
        let outcome = outcome(&daemon, &id)?;
        let started = outcome["started_at"].as_str().context("never started")?;
        starts.push((started.to_owned(), outcome["id"].clone().to_string(), name));
    }
    // Two may start in the same millisecond; the order that counts is that of classes and ranks.
    starts.sort_by(|a, b| a.0.cmp(&b.0));
    let position = |wanted: &str| starts.iter().position(|(_, _, name)| *name == wanted);
    let first = &starts[..2];
    ensure!(
        first.iter().any(|(_, _, name)| *name == "first"),
        "{starts:?}"
    );
    ensure!(position("fifth") >= position("third"), "{starts:?}");
    ensure!(
        starts[4].2 == "fifth" || starts[4].0 == starts[3].0,
        "{starts:?}"
    );
    Ok(())
}

fn a_draining_pool_refuses_and_finishes() -> anyhow::Result<()> {
    let daemon = Daemon::start_gated(1, "")?;
    let running = submit(&daemon, &json!({"command": ["sh", "-c", GATE]}))?;
    let queued = submit(&daemon, &json!({"command": ["true"]}))?;
    let said = daemon.wpool(["pool", "drain"])?;
    ensure!(said.code == 0, "{said:?}");
    let answer = daemon.post("/v1/jobs", &json!({"command": ["true"]}))?;
    ensure!(answer.status == 503, "{answer:?}");
    daemon.open_gate()?;
    ensure!(outcome(&daemon, &running)?["state"] == "succeeded");
    let answer = daemon.get(&format!("/v1/jobs/{queued}"))?;
    ensure!(answer.json()?["state"] == "queued", "{answer:?}");
    daemon.wpool(["pool", "resume"])?;
    ensure!(outcome(&daemon, &queued)?["state"] == "succeeded");
    Ok(())
}
