//! Clients at their rudest: noise, heads without end, ten thousand of them, and one that never reads.
//!
//! What every daemon meets (full queues, large bodies, half requests) is tried beside this, in `daemon/clients.rs`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Answer, Daemon, GATE, wait_for};

use super::queue::{outcome, submit};

pub(crate) const TESTS: &[Test] = &[
    test!(requests_that_are_wrong_are_told_why),
    test!(a_head_without_end_is_refused),
    test!(ten_thousand_idle_connections_stop_nobody),
    test!(half_requests_make_room_for_whole_ones),
    test!(who_announces_much_and_sends_little_holds_up_nobody),
    test!(large_bodies_of_one_user_all_arrive),
    test!(a_client_that_vanishes_takes_nothing_with_it),
    test!(a_reader_that_never_reads_stalls_nobody),
];

/// Jobs run as before.
fn goes_on(daemon: &Daemon) -> anyhow::Result<()> {
    for n in 0..10 {
        let outcome = daemon.outcome_of(&json!({"command": ["echo", n.to_string()]}))?;
        ensure!(outcome["stdout"] == format!("{n}\n"), "{outcome}");
    }
    Ok(())
}

/// A refusal is a problem document with this status that names these words.
fn refused(answer: &Answer, status: u16, words: &[&str]) -> anyhow::Result<()> {
    ensure!(answer.status == status, "{answer:?}");
    let problem = answer.json()?;
    ensure!(problem["status"] == status, "{problem}");
    ensure!(
        problem["type"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("urn:wpool:")),
        "{problem}"
    );
    for word in words {
        ensure!(problem.to_string().contains(word), "{word}: {problem}");
    }
    Ok(())
}

fn requests_that_are_wrong_are_told_why() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    for (body, words) in [
        ("{\"command\": [", &["JSON"][..]),
        ("[]", &[]),
        ("{}", &["command"]),
        (r#"{"command": ["true"], "colour": 1}"#, &["colour"]),
        (r#"{"command": []}"#, &["command"]),
        (
            r#"{"command": ["true"], "limits": {"memory_bytes": 1000000000000000}}"#,
            &["memory_bytes", "16 GiB"],
        ),
        (
            r#"{"command": ["true"], "limits": {"timeout_ms": -1}}"#,
            &[],
        ),
        (
            r#"{"command": ["true"], "profile": "none-such"}"#,
            &["none-such"],
        ),
        (
            r#"{"command": ["true"], "files": {"../up": ""}}"#,
            &["..", "up"],
        ),
        (r#"{"command": ["a\u0000b"]}"#, &["NUL"]),
    ] {
        let answer = daemon.ask("POST", "/v1/jobs", Some(body.as_bytes()))?;
        ensure!((400..500).contains(&answer.status), "{body}: {answer:?}");
        refused(&answer, answer.status, words).with_context(|| body.to_owned())?;
    }
    for (method, path, status) in [
        ("GET", "/v1/none-such", 404),
        ("GET", "/v1/jobs/0000000000000", 404),
        ("PUT", "/v1/jobs", 405),
    ] {
        let answer = daemon.ask(method, path, None)?;
        refused(&answer, status, &[]).with_context(|| format!("{method} {path}"))?;
    }
    goes_on(&daemon)
}

fn a_head_without_end_is_refused() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let mut stream = daemon.connect()?;
    stream.write_all(b"GET /v1/status HTTP/1.1\r\n")?;
    let line = format!("x-{}: y\r\n", "a".repeat(1000));
    let sent = (0..10_000)
        .take_while(|_| stream.write_all(line.as_bytes()).is_ok())
        .count();
    ensure!(sent < 10_000, "ten megabytes of head were taken");
    let mut noise = daemon.connect()?;
    drop(noise.write_all(&[0xff; 4096]));
    let mut answer = Vec::new();
    drop(noise.read_to_end(&mut answer));
    let text = String::from_utf8_lossy(&answer);
    ensure!(text.is_empty() || text.contains(" 400 "), "{text}");
    goes_on(&daemon)
}

fn ten_thousand_idle_connections_stop_nobody() -> anyhow::Result<()> {
    const CONNECTIONS: u64 = 10_000;

    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < CONNECTIONS + 200 {
        // The daemon's bounds are the same for as many as this process may open.
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    } else {
        setrlimit(Resource::RLIMIT_NOFILE, CONNECTIONS + 200, hard)?;
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let daemon = Daemon::start(1)?;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS.min(soft.saturating_sub(200)) {
        // A full backlog makes `connect` wait until the daemon has accepted and closed others.
        idle.push(daemon.connect()?);
    }
    goes_on(&daemon)?;
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.count();
    ensure!(
        descriptors < 1_500,
        "the daemon holds {descriptors} descriptors"
    );
    drop(idle);
    goes_on(&daemon)
}

/// So many requests that announce so many bytes, and send a few.
fn half_sent(daemon: &Daemon, count: usize, announced: usize) -> anyhow::Result<Vec<UnixStream>> {
    let half = || {
        let mut half = daemon.connect()?;
        write!(
            half,
            "POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: {announced}\r\n\r\n{{\"comm"
        )?;
        Ok(half)
    };
    (0..count).map(|_| half()).collect()
}

fn half_requests_make_room_for_whole_ones() -> anyhow::Result<()> {
    let daemon = Daemon::start_with(1, "[http]\nconnections_per_peer_max = 20\n")?;
    let _halves = half_sent(&daemon, 25, 1_000)?;
    goes_on(&daemon)?;
    // Those that wait for an answer do not make room: whoever comes then is told so, and can read it.
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut waits = daemon.connect()?;
        let job = "{\"command\": [\"sleep\", \"600\"], \"limits\": {\"timeout_ms\": 600000}}";
        let len = job.len();
        let head = format!(
            "POST /v1/jobs?wait=1m HTTP/1.1\r\nhost: x\r\ncontent-length: {len}\r\n\r\n{job}"
        );
        waits.write_all(head.as_bytes())?;
        waiting.push(waits);
    }
    let full = wait_for(|| {
        let said = daemon.wpool(["status"]);
        said.is_ok_and(|said| {
            said.stderr
                .contains("connections that this user may have are busy")
        })
    });
    ensure!(full, "{:?}", daemon.wpool(["status"])?);
    drop(waiting);
    ensure!(wait_for(|| daemon.status().is_ok()));
    Ok(())
}

fn who_announces_much_and_sends_little_holds_up_nobody() -> anyhow::Result<()> {
    let daemon = Daemon::start_with(1, "[http]\nbody_timeout_ms = 600000\n")?;
    let halves = half_sent(&daemon, 8, 100_000_000)?;
    // Neither a body that is not small, nor an outcome that is not.
    let text = "x".repeat(200_000);
    let outcome = daemon.outcome_of(&json!({"command": ["cat"], "stdin": text}))?;
    ensure!(outcome["stdout"] == text);
    drop(halves);
    goes_on(&daemon)
}

fn large_bodies_of_one_user_all_arrive() -> anyhow::Result<()> {
    // More than a user may have in memory at one time: each holds a part, and wants more.
    const LEN: usize = 50 << 20;
    let daemon = Daemon::start(1)?;
    let job = json!({"command": ["wc", "-c"], "stdin": "x".repeat(LEN)});
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| daemon.outcome_of(&job)))
            .collect();
        for client in clients {
            let outcome = client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
            ensure!(outcome["stdout"] == format!("{LEN}\n"), "{outcome}");
        }
        Ok(())
    })
}

fn a_client_that_vanishes_takes_nothing_with_it() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_gated(1, "")?;
    let script = format!("for n in $(seq 50); do echo $n; done; {GATE}");
    let id = submit(&daemon, &json!({"command": ["sh", "-c", script]}))?;
    for path in [
        format!("/v1/jobs/{id}/output"),
        format!("/v1/jobs/{id}/result?wait=60s"),
    ] {
        let mut stream = daemon.connect()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: wpool\r\n\r\n")?;
        drop(stream);
    }
    daemon.open_gate()?;
    let outcome = outcome(&daemon, &id)?;
    ensure!(outcome["state"] == "succeeded", "{outcome}");
    ensure!(outcome["stdout_bytes"] == 141, "{outcome}");
    goes_on(&daemon)?;
    daemon.wait_until("their connections are closed", |daemon| {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.count();
        Ok(descriptors < 60)
    })
}

fn a_reader_that_never_reads_stalls_nobody() -> anyhow::Result<()> {
    let daemon = Daemon::start_gated(1, "")?;
    let script = format!("{GATE}; head -c 100M /dev/zero; echo done >&2");
    let id = submit(&daemon, &json!({"command": ["sh", "-c", script]}))?;
    let mut stream = daemon.connect()?;
    write!(
        stream,
        "GET /v1/jobs/{id}/output HTTP/1.1\r\nhost: wpool\r\n\r\n"
    )?;
    daemon.open_gate()?;
    let outcome = outcome(&daemon, &id)?;
    ensure!(outcome["state"] == "succeeded", "{}", outcome["cause"]);
    ensure!(outcome["stderr"] == "done\n", "{}", outcome["stderr"]);
    goes_on(&daemon)
}
