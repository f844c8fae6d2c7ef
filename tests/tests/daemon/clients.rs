//! Clients that are wrong, greedy, slow or gone: one clear error or a closed connection, and jobs go on.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Daemon, GATE, Said, resident_bytes, wait_for};

pub(crate) const TESTS: &[Test] = &[
    test!(what_is_wrong_is_said_in_one_problem),
    test!(a_full_queue_says_which_limit_and_when_to_come_back),
    test!(a_body_that_is_too_large_is_refused_before_it_is_read),
    test!(batches_without_an_end_stay_within_the_budget_of_bodies),
    test!(idle_connections_do_not_keep_others_out),
    test!(half_a_request_and_a_vanished_client_cost_nothing),
    test!(orders_read_their_bodies),
    test!(another_ordinary_user_is_refused, "root"),
    test!(
        a_member_of_the_group_sees_to_their_own_jobs_and_no_more,
        "root"
    ),
    test!(curl_submits_and_waits, "curl"),
];

fn works(daemon: &Daemon) -> anyhow::Result<()> {
    let outcome = daemon.outcome_of(&json!({"command": ["true"]}))?;
    ensure!(outcome["state"] == "succeeded", "{outcome}");
    Ok(())
}

fn what_is_wrong_is_said_in_one_problem() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    for (body, status, word) in [
        ("{", 400, "line 1"),
        ("{\"command\": [\"true\"], \"colour\": 1}", 422, "colour"),
        ("{\"command\": []}", 422, "command"),
        (
            "{\"command\": [\"true\"], \"limits\": {\"memory_bytes\": 1e300}}",
            422,
            "memory_bytes",
        ),
        (
            "{\"command\": [\"true\"], \"limits\": {\"memory_bytes\": 1099511627776}}",
            422,
            "memory_bytes",
        ),
        (
            "{\"command\": [\"true\"], \"files\": {\"../x\": \"\"}}",
            422,
            "..",
        ),
        (
            "{\"command\": [\"true\"], \"profile\": \"none\"}",
            422,
            "profile",
        ),
    ] {
        let answer = daemon.ask("POST", "/v1/jobs", Some(body.as_bytes()))?;
        let client_error = answer.status == status || answer.status == 400;
        ensure!(client_error, "{body}: {answer:?}");
        ensure!(
            answer
                .head
                .to_lowercase()
                .contains("application/problem+json"),
            "{body}: {answer:?}"
        );
        let problem = answer.json()?;
        let detail = problem["detail"].as_str().context("no detail")?;
        ensure!(!detail.contains('\n'), "{body}: {detail}");
        ensure!(
            detail.contains(word) || word == "memory_bytes",
            "{body}: {detail}"
        );
    }
    for (method, path, status) in [
        ("GET", "/v1/jobs/0000000000000", 404),
        ("GET", "/v1/jobs/nonsense", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/v1/status", 405),
        ("GET", "/v1/jobs?state=strange", 400),
    ] {
        let answer = daemon.ask(method, path, None)?;
        ensure!(
            answer.status == status || answer.status == 400,
            "{method} {path}: {answer:?}"
        );
    }
    works(&daemon)
}

fn a_full_queue_says_which_limit_and_when_to_come_back() -> anyhow::Result<()> {
    let daemon = Daemon::start_with(1, "[pool]\nqueue_jobs = 3\nqueue_bytes = \"1M\"\n")?;
    daemon.wpool(["pool", "pause"])?;
    for _ in 0..3 {
        ensure!(
            daemon
                .post("/v1/jobs", &json!({"command": ["true"]}))?
                .status
                == 201
        );
    }
    let answer = daemon.post("/v1/jobs", &json!({"command": ["true"]}))?;
    let problem = answer.json()?;
    ensure!(answer.status == 429, "{answer:?}");
    ensure!(
        problem["limit"] == "queue_jobs" && problem["allowed"] == 3,
        "{problem}"
    );
    ensure!(
        problem["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0),
        "{problem}"
    );
    ensure!(
        answer.head.to_lowercase().contains("retry-after"),
        "{answer:?}"
    );
    ensure!(daemon.status()?["queue_pressure"] == "full");
    daemon.wpool(["pool", "resume"])?;
    let large = json!({"command": ["true"], "stdin": "x".repeat(2 << 20)});
    let problem = daemon.post("/v1/jobs", &large)?.json()?;
    ensure!(
        problem["limit"] == "queue_bytes" && problem["allowed"] == 1 << 20,
        "{problem}"
    );
    works(&daemon)
}

fn a_body_that_is_too_large_is_refused_before_it_is_read() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let mut stream = daemon.connect()?;
    write!(
        stream,
        "POST /v1/jobs HTTP/1.1\r\nhost: wpool\r\ncontent-length: {}\r\n\r\n",
        1u64 << 30
    )?;
    let mut head = [0; 256];
    let len = stream.read(&mut head)?;
    let head = String::from_utf8_lossy(&head[..len]).into_owned();
    ensure!(head.contains("413"), "{head}");
    works(&daemon)
}

fn batches_without_an_end_stay_within_the_budget_of_bodies() -> anyhow::Result<()> {
    const CLIENTS: usize = 12;
    let daemon = Daemon::start_with(
        1,
        "[http]\nbody_bytes_max = \"8M\"\nbodies_bytes_max = \"16M\"\n",
    )?;
    let before = resident_bytes(daemon.pid())?;
    let line = vec![b' '; 7 << 20];
    let mut most = before;
    let streams = std::thread::scope(|scope| -> anyhow::Result<Vec<_>> {
        let writers: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<_> {
                    let mut stream = daemon.connect()?;
                    // Whoever is not read from gives up.
                    stream.set_write_timeout(Some(std::time::Duration::from_secs(1)))?;
                    stream.write_all(
                        b"POST /v1/jobs/batch HTTP/1.1\r\nhost: wpool\r\ncontent-length: 90000000\r\n\r\n",
                    )?;
                    drop(stream.write_all(&line));
                    Ok(stream)
                })
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            most = most.max(resident_bytes(daemon.pid())?);
        }
        let ended = writers.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended
            .map(|stream| stream.map_err(|_| anyhow::anyhow!("a writer panicked"))?)
            .collect()
    })?;
    most = most.max(resident_bytes(daemon.pid())?);
    // The budget, what a growing buffer is copied from, and what hyper and the allocator hold.
    let grown = (most - before) >> 20;
    ensure!(
        grown < 48,
        "12 lines of 7 MiB took {grown} MiB of a budget of 16"
    );
    works(&daemon)?;
    drop(streams);
    Ok(())
}

fn idle_connections_do_not_keep_others_out() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        // Those that it does not keep it may close or refuse; it must not stop serving.
        match daemon.connect() {
            Ok(stream) => idle.push(stream),
            Err(_) => break,
        }
        if idle.len() % 500 == 0 {
            works(&daemon)?;
        }
        if idle.len() > 900 {
            // This process may not have more descriptors either.
            idle.drain(..100);
        }
    }
    works(&daemon)
}

fn half_a_request_and_a_vanished_client_cost_nothing() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_gated(1, "")?;
    let mut half = daemon.connect()?;
    half.write_all(b"POST /v1/jobs HTTP/1.1\r\nhost: wp")?;
    let mut without_body = daemon.connect()?;
    without_body
        .write_all(b"POST /v1/jobs HTTP/1.1\r\nhost: wpool\r\ncontent-length: 100\r\n\r\n{")?;
    let mut waiting = daemon.connect()?;
    let script = format!("head -c 100000000 /dev/zero; {GATE}");
    let job = json!({"command": ["sh", "-c", script]}).to_string();
    write!(
        waiting,
        "POST /v1/jobs?wait=60s HTTP/1.1\r\nhost: wpool\r\ncontent-length: {}\r\n\r\n{job}",
        job.len()
    )?;
    daemon.wait_until("it runs", |daemon| Ok(daemon.status()?["active"] == 1))?;
    drop(waiting);
    daemon.open_gate()?;
    works(&daemon)?;
    daemon.wait_until(
        "the job of the vanished client ends all the same",
        |daemon| Ok(daemon.status()?["ended"]["succeeded"] == 2),
    )?;
    drop((half, without_body));
    works(&daemon)
}

/// An answer that comes before the body is there ends the connection, and may never be seen.
fn orders_read_their_bodies() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let mut stream = daemon.connect()?;
    for order in ["pool/recycle", "pool/clear", "pool/drain"] {
        let mut answer = [0; 12];
        write!(
            stream,
            "POST /v1/{order} HTTP/1.1\r\nhost: wpool\r\ncontent-length: 2\r\n\r\n"
        )?;
        // Whoever answers without the body has done so by the time somebody else has been answered twice.
        for _ in 0..2 {
            daemon.status()?;
        }
        stream.write_all(b"{}")?;
        stream.read_exact(&mut answer)?;
        ensure!(
            &answer == b"HTTP/1.1 200",
            "{}",
            String::from_utf8_lossy(&answer)
        );
        let mut rest = Vec::new();
        while !rest.ends_with(b"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            rest.push(byte[0]);
        }
    }
    let said = daemon.post("/v1/pool/clear", &json!({"all": true}))?;
    ensure!(said.status == 400 && said.body.contains("all"), "{said:?}");
    Ok(())
}

fn another_ordinary_user_is_refused() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(daemon.directory(), open)?;
    let said: Said = daemon
        .client(["status"])
        .uid(65_533)
        .gid(65_533)
        .output()?
        .into();
    ensure!(said.code != 0 && said.stdout.is_empty(), "{said:?}");
    ensure!(said.stderr.lines().count() == 1, "{said:?}");
    works(&daemon)
}

fn a_member_of_the_group_sees_to_their_own_jobs_and_no_more() -> anyhow::Result<()> {
    const GROUP: u32 = 65_532;
    let daemon = Daemon::start_with(1, &format!("[http]\ngroup = \"{GROUP}\"\n"))?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(daemon.directory(), open)?;
    let member = |arguments: &[&str]| -> anyhow::Result<Said> {
        let mut client = daemon.client(arguments);
        Ok(client.uid(65_533).gid(GROUP).output()?.into())
    };
    let said = member(&["submit", "--wait", "--", "echo", "hi"])?;
    ensure!(said.code == 0 && said.stdout == "hi\n", "{said:?}");
    // Of the jobs of others they learn nothing, and the pool is not theirs.
    let others = daemon.outcome_of(&json!({"command": ["echo", "secret"]}))?;
    let id = others["id"].as_str().unwrap_or_default();
    ensure!(others["tenant"] == "uid:0", "{others}");
    for arguments in [
        &["result", id][..],
        &["logs", id],
        &["cancel", id],
        &["explain", id],
        &["quarantine", "release", id],
        &["quarantine", "discard", id],
        &["pool", "pause"],
        &["jobs", "--tenant", "uid:0"],
        &["submit", "--tenant", "uid:0", "--", "true"],
    ] {
        let said = member(arguments)?;
        ensure!(
            said.code != 0 && said.stdout.is_empty(),
            "{arguments:?}: {said:?}"
        );
        ensure!(said.stderr.lines().count() == 1, "{arguments:?}: {said:?}");
    }
    let jobs = member(&["jobs", "--json"])?;
    ensure!(jobs.stdout.contains("uid:65533"), "{jobs:?}");
    ensure!(!jobs.stdout.contains("secret"), "{jobs:?}");
    works(&daemon)
}

fn curl_submits_and_waits() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "tests start programs as users do"
    )]
    let mut curl = std::process::Command::new("curl");
    let output = curl
        .args(["--silent", "--show-error", "--unix-socket"])
        .arg(daemon.socket())
        .args([
            "--json",
            "{\"command\": [\"echo\", \"hi\"]}",
            "http://wpool/v1/jobs?wait=30s",
        ])
        .output()?;
    let outcome: Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    ensure!(outcome["stdout"] == "hi\n", "{outcome}");
    ensure!(wait_for(|| daemon
        .status()
        .is_ok_and(|status| status["active"] == 0)));
    Ok(())
}
