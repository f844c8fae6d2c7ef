//! Jobs that cost too many workers: set aside with all that they asked, tried again or let go.

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Answer, Daemon, GATE};

pub(crate) const TESTS: &[Test] = &[
    test!(what_is_released_runs_with_all_it_had_and_both_name_each_other),
    test!(what_is_refused_can_be_released_later),
    test!(what_is_discarded_is_gone_and_nothing_else_can_be),
];

/// A job that can be caught while it runs, and shows what it was given.
fn slow() -> Value {
    json!({
        "command": ["sh", "-c", format!("{GATE}; cat f; cat")],
        "files": {"f": "a file, "}, "stdin": "and input",
        "attempts_max": 1, "labels": {"run": "7"}, "idempotency_key": "once",
    })
}

/// Submits the job, kills its worker and gives its id: it is in quarantine then.
fn set_aside(daemon: &mut Daemon, job: &Value) -> anyhow::Result<String> {
    let answer = daemon.post("/v1/jobs", job)?.json()?;
    let id = answer["id"].as_str().context("no id")?.to_owned();
    daemon.wait_until("its worker is killed", |daemon| {
        let status = daemon.status()?;
        let workers = status["workers"].as_array().context("no workers")?;
        let worker = workers.iter().find(|worker| worker["job"] == *id);
        let Some(pid) = worker.and_then(|worker| worker["pid"].as_i64()) else {
            return Ok(false);
        };
        kill(Pid::from_raw(pid.try_into()?), Signal::SIGKILL)?;
        Ok(true)
    })?;
    let outcome = outcome(daemon, &id)?;
    ensure!(outcome["state"] == "quarantined", "{outcome}");
    Ok(id)
}

fn outcome(daemon: &Daemon, id: &str) -> anyhow::Result<Value> {
    daemon
        .get(&format!("/v1/jobs/{id}/result?wait=30s"))?
        .json()
}

fn order(daemon: &Daemon, id: &str, what: &str) -> anyhow::Result<Answer> {
    daemon.post(&format!("/v1/jobs/{id}/{what}"), &json!({}))
}

fn what_is_released_runs_with_all_it_had_and_both_name_each_other() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_gated(1, "")?;
    let id = set_aside(&mut daemon, &slow())?;
    let why = daemon.wpool(["explain", &id])?;
    let advice = format!("wpool quarantine release {id}");
    ensure!(why.stdout.contains(&advice), "{why:?}");
    let list = daemon.wpool(["quarantine", "list"])?;
    ensure!(
        list.stdout.contains(&id) && list.stdout.contains("its worker was lost"),
        "{list:?}"
    );
    let released = daemon.wpool(["quarantine", "release", &id])?;
    ensure!(released.code == 0, "{released:?}");
    let new = released.stdout.trim();
    daemon.open_gate()?;
    let of_new = outcome(&daemon, new)?;
    ensure!(of_new["state"] == "succeeded", "{of_new}");
    ensure!(of_new["stdout"] == "a file, and input", "{of_new}");
    ensure!(of_new["labels"]["run"] == "7", "{of_new}");
    ensure!(of_new["released_from"] == *id, "{of_new}");
    let of_old = outcome(&daemon, &id)?;
    ensure!(of_old["state"] == "quarantined", "{of_old}");
    ensure!(of_old["released_as"] == *new, "{of_old}");
    let again = order(&daemon, &id, "release")?;
    ensure!(again.status == 409, "{again:?}");
    let problem = again.json()?;
    ensure!(problem["detail"].to_string().contains(new), "{problem}");
    // The key is that of the first: it is not accepted again, and stands for no other.
    let same = daemon.post("/v1/jobs", &slow())?.json()?;
    ensure!(same["id"] == *id, "{same}");
    Ok(())
}

fn what_is_refused_can_be_released_later() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_gated(1, "[pool]\nqueue_jobs = 1\n")?;
    let id = set_aside(&mut daemon, &slow())?;
    let other = json!({"command": ["sleep", "600"], "limits": {"timeout_ms": 600_000}});
    let other = daemon.post("/v1/jobs", &other)?.json()?;
    let full = order(&daemon, &id, "release")?;
    ensure!(full.status == 429, "{full:?}");
    ensure!(full.json()?["limit"] == "queue_jobs", "{full:?}");
    let untouched = outcome(&daemon, &id)?;
    ensure!(untouched.get("released_as").is_none(), "{untouched}");
    let other = other["id"].as_str().context("no id")?;
    ensure!(daemon.wpool(["cancel", other])?.code == 0);
    outcome(&daemon, other)?;
    let released = order(&daemon, &id, "release")?;
    ensure!(released.status == 201, "{released:?}");
    Ok(())
}

fn what_is_discarded_is_gone_and_nothing_else_can_be() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_gated(1, "")?;
    let id = set_aside(&mut daemon, &slow())?;
    let fine = daemon.outcome_of(&json!({"command": ["true"]}))?;
    let fine = fine["id"].as_str().context("no id")?;
    for what in ["release", "discard"] {
        let answer = order(&daemon, fine, what)?;
        ensure!(answer.status == 409, "{answer:?}");
        let problem = answer.json()?;
        ensure!(problem["type"] == "urn:wpool:not-quarantined", "{problem}");
    }
    ensure!(outcome(&daemon, fine)?["state"] == "succeeded");
    let said = daemon.wpool(["quarantine", "discard", &id])?;
    ensure!(said.code == 0, "{said:?}");
    for what in ["release", "discard"] {
        ensure!(order(&daemon, &id, what)?.status == 404);
    }
    let gone = daemon.get(&format!("/v1/jobs/{id}"))?;
    ensure!(gone.status == 404, "{gone:?}");
    Ok(())
}
