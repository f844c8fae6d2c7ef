//! Jobs through the control socket: what is submitted, what comes back, what the status says.

use anyhow::ensure;
use serde_json::json;
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::Daemon;

pub(crate) const TESTS: &[Test] = &[
    test!(a_job_comes_back_with_everything_about_it),
    test!(a_missing_program_is_no_outcome_of_its_own),
    test!(files_go_in_and_come_out),
    test!(a_waiting_job_can_be_cancelled_and_so_can_a_running_one),
    test!(a_paused_pool_starts_nothing_until_it_is_resumed),
    test!(a_job_that_cannot_start_in_time_expires),
    test!(the_status_counts_what_ended),
    test!(commands_speak_to_the_daemon),
    test!(a_batch_is_answered_line_by_line),
    test!(output_is_followed_while_it_comes),
];

fn a_job_comes_back_with_everything_about_it() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let outcome = daemon.outcome_of(&json!({
        "command": ["sh", "-c", "cat; echo err >&2; exit 3"],
        "stdin": "in", "labels": {"run": "7"}, "priority": "high",
    }))?;
    ensure!(
        outcome["state"] == "failed" && outcome["exit_code"] == 3,
        "{outcome}"
    );
    ensure!(
        outcome["stdout"] == "in" && outcome["stderr"] == "err\n",
        "{outcome}"
    );
    ensure!(outcome["cause"]["kind"] == "exit_code", "{outcome}");
    ensure!(
        outcome["labels"]["run"] == "7" && outcome["priority"] == "high",
        "{outcome}"
    );
    ensure!(outcome["isolation"]["level"] == "full", "{outcome}");
    ensure!(outcome["attempts"][0]["end"] == "exited", "{outcome}");
    ensure!(
        outcome["usage"]["wall_ms"]
            .as_f64()
            .is_some_and(|wall| wall > 0.0),
        "{outcome}"
    );
    let again = daemon.get(&format!(
        "/v1/jobs/{}/result",
        outcome["id"].as_str().unwrap_or("?")
    ))?;
    ensure!(again.json()? == outcome);
    Ok(())
}

fn a_missing_program_is_no_outcome_of_its_own() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let outcome = daemon.outcome_of(&json!({"command": ["no-such-program"]}))?;
    ensure!(
        outcome["state"] == "failed" && outcome["exit_code"].is_null(),
        "{outcome}"
    );
    ensure!(outcome["cause"]["kind"] == "not_found", "{outcome}");
    Ok(())
}

fn files_go_in_and_come_out() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let outcome = daemon.outcome_of(&json!({
        "command": ["sh", "-c", "./tool < in.txt > out/r.txt; printf '\\377' > b"],
        "files": {"in.txt": {"base64": "aGk="}, "tool": {"text": "#!/bin/sh\ncat\n", "mode": "755"}, "out/x": ""},
        "outputs": ["out/*.txt", "b", "nothing"],
    }))?;
    ensure!(outcome["files"]["out/r.txt"]["text"] == "hi", "{outcome}");
    ensure!(outcome["files"]["b"]["base64"] == "/w==", "{outcome}");
    ensure!(
        outcome["files"]["nothing"]["error"] == "missing",
        "{outcome}"
    );
    Ok(())
}

fn submitted(daemon: &Daemon, job: &serde_json::Value) -> anyhow::Result<String> {
    let answer = daemon.post("/v1/jobs", job)?;
    ensure!(answer.status == 201, "{answer:?}");
    Ok(answer.json()?["id"].as_str().unwrap_or_default().to_owned())
}

fn a_waiting_job_can_be_cancelled_and_so_can_a_running_one() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(1)?;
    let running = submitted(&daemon, &json!({"command": ["sleep", "60"]}))?;
    let waiting = submitted(&daemon, &json!({"command": ["true"]}))?;
    daemon.wait_until("one runs", |daemon| Ok(daemon.status()?["active"] == 1))?;
    for id in [&waiting, &running] {
        let answer = daemon.ask("DELETE", &format!("/v1/jobs/{id}"), None)?;
        ensure!((200..300).contains(&answer.status), "{answer:?}");
        let outcome = daemon
            .get(&format!("/v1/jobs/{id}/result?wait=60s"))?
            .json()?;
        ensure!(
            outcome["state"] == "cancelled" && outcome["cause"]["kind"] == "cancelled",
            "{outcome}"
        );
    }
    Ok(())
}

fn a_paused_pool_starts_nothing_until_it_is_resumed() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    ensure!(daemon.wpool(["pool", "pause"])?.code == 0);
    ensure!(daemon.status()?["state"] == "paused");
    let id = submitted(&daemon, &json!({"command": ["true"]}))?;
    let answer = daemon.get(&format!("/v1/jobs/{id}/result?wait=300ms"))?;
    ensure!(
        answer.status == 202 && answer.json()?["state"] == "queued",
        "{answer:?}"
    );
    ensure!(daemon.wpool(["pool", "resume"])?.code == 0);
    let answer = daemon.get(&format!("/v1/jobs/{id}/result?wait=60s"))?;
    ensure!(answer.json()?["state"] == "succeeded", "{answer:?}");
    ensure!(daemon.wpool(["pool", "drain"])?.code == 0);
    let refused = daemon.post("/v1/jobs", &json!({"command": ["true"]}))?;
    ensure!(refused.status == 503, "{refused:?}");
    Ok(())
}

fn a_job_that_cannot_start_in_time_expires() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    daemon.wpool(["pool", "pause"])?;
    let outcome = daemon.outcome_of(&json!({"command": ["true"], "start_within_ms": 200}))?;
    ensure!(
        outcome["state"] == "expired" && outcome["cause"]["start_within_ms"] == 200,
        "{outcome}"
    );
    Ok(())
}

fn the_status_counts_what_ended() -> anyhow::Result<()> {
    let daemon = Daemon::start(2)?;
    for command in [vec!["true"], vec!["false"], vec!["sh", "-c", "kill -9 $$"]] {
        daemon.outcome_of(&json!({"command": command}))?;
    }
    daemon.outcome_of(&json!({"command": ["sleep", "9"], "limits": {"timeout_ms": 100}}))?;
    let status = daemon.status()?;
    ensure!(
        status["ended"]["succeeded"] == 1 && status["ended"]["failed"] == 2,
        "{status}"
    );
    ensure!(
        status["ended"]["timed_out"] == 1 && status["completed"] == 4,
        "{status}"
    );
    ensure!(
        status["active"] == 0 && status["queued"]["total"] == 0,
        "{status}"
    );
    ensure!(
        status["workers"]
            .as_array()
            .is_some_and(|workers| workers.len() == 2),
        "{status}"
    );
    Ok(())
}

fn commands_speak_to_the_daemon() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let said = daemon.wpool(["submit", "--wait", "--", "sh", "-c", "echo out; exit 4"])?;
    ensure!(said.code == 4 && said.stdout == "out\n", "{said:?}");
    let said = daemon.wpool(["submit", "--", "echo", "hello"])?;
    let id = said.stdout.trim().to_owned();
    ensure!(said.code == 0 && id.len() == 13, "{said:?}");
    let result = daemon.wpool(["result", "--wait", "--json", &id])?;
    ensure!(result.json()?["stdout"] == "hello\n", "{result:?}");
    let logs = daemon.wpool(["logs", &id])?;
    ensure!(logs.stdout == "hello\n", "{logs:?}");
    let jobs = daemon.wpool(["jobs", "--json"])?;
    ensure!(jobs.stdout.contains(&id), "{jobs:?}");
    let status = daemon.wpool(["status"])?;
    ensure!(
        status.code == 0 && status.stdout.contains("idle"),
        "{status:?}"
    );
    let missing = daemon.wpool(["submit", "--wait", "--", "nosuch"])?;
    ensure!(missing.code == 127, "{missing:?}");
    let late = daemon.wpool(["submit", "--wait", "--timeout", "100ms", "--", "sleep", "9"])?;
    ensure!(late.code == 124, "{late:?}");
    Ok(())
}

fn a_batch_is_answered_line_by_line() -> anyhow::Result<()> {
    let daemon = Daemon::start_with(2, "[pool]\nqueue_jobs = 8\n")?;
    let mut batch = String::new();
    for n in 0..50 {
        batch.push_str(&json!({"command": ["echo", n.to_string()]}).to_string());
        batch.push('\n');
    }
    batch.push_str("{\"command\": []}\n");
    let file = daemon.directory().join("batch.ndjson");
    std::fs::write(&file, batch)?;
    let said = daemon.wpool([
        "submit".as_ref(),
        "--wait".as_ref(),
        "--batch".as_ref(),
        file.as_os_str(),
    ])?;
    let lines: Vec<serde_json::Value> = said
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(lines.len() == 51, "{said:?}");
    ensure!(
        daemon.status()?["ended"]["succeeded"] == 50,
        "a full queue slows a batch and fails no line: {said:?}"
    );
    Ok(())
}

fn output_is_followed_while_it_comes() -> anyhow::Result<()> {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    let daemon = Daemon::start(1)?;
    let id = submitted(
        &daemon,
        &json!({"command": ["sh", "-c", "echo first; while [ ! -e /box/never ]; do sleep 0.05; done"]}),
    )?;
    let mut follow = daemon
        .client(["logs", "-f", &id])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = follow.stdout.take().map(BufReader::new);
    stdout
        .map(|mut stdout| stdout.read_line(&mut line))
        .transpose()?;
    ensure!(line == "first\n", "{line:?}");
    daemon.wpool(["cancel", &id])?;
    follow.wait()?;
    Ok(())
}
