//! The commands as they are typed: what they print, and what they exit with.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::pretend_daemon::{Answer, PretendDaemon, json};

const OUTCOME: &str = r#"{"id": "000000000000a", "state": "failed", "exit_code": 3, "signal": null,
    "cause": {"kind": "exit_code", "code": 3, "text": "it exited with code 3"}, "limits_hit": [],
    "stdout": "out\n", "stderr": "err\n", "stdout_bytes": 4, "stdout_truncated": false, "stderr_bytes": 4,
    "stderr_truncated": false, "files": {"r.txt": {"text": "report"}}, "usage": null, "attempts": [],
    "isolation": {"level": "full", "identity": "own", "layers": [], "missing": []},
    "queued_at": "2026-11-24T01:51:47.042Z", "started_at": null, "ended_at": "2026-11-24T01:51:48.042Z",
    "tenant": "acme", "priority": "normal", "labels": {"evil": "\u001b[2J\u009b2J"}}"#;

const SUBMITTED: &str = r#"{"id": "000000000000a", "state": "queued"}"#;

#[expect(
    clippy::disallowed_methods,
    reason = "the command line is tested as it is typed"
)]
fn wpool(socket: &Path, words: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wpool"))
        .args(words)
        .env("WPOOL_SOCKET", socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const OUTPUT: &str = "{\"stream\":\"stdout\",\"attempt\":1,\"offset\":0,\"data\":\"out\\n\"}\n\
                      {\"stream\":\"stderr\",\"attempt\":1,\"offset\":0,\"data\":\"err\\n\"}\n";

/// What ends the output of job 10 for whoever asks for its outcome, too.
fn end_line() -> String {
    format!(
        r#"{{"end": "failed", "outcome": {}}}"#,
        OUTCOME.replace('\n', "")
    )
}

/// A daemon to which job 10 is known: submitted at once, ended with code 3.
fn daemon_with_an_ended_job() -> PretendDaemon {
    PretendDaemon::start(|asked| {
        let path = asked.line.split_once(' ').unwrap().1;
        if asked.line == "POST /v1/jobs" {
            json(201, SUBMITTED)
        } else if path.contains("/output") {
            json(200, &format!("{OUTPUT}{}\n", end_line()))
        } else if path.contains("/result") {
            json(200, OUTCOME)
        } else {
            json(404, "{}")
        }
    })
}

#[test]
fn submit_prints_the_id_and_nothing_else() {
    let daemon = daemon_with_an_ended_job();
    let output = wpool(&daemon.socket, &["submit", "--", "sh", "-c", "exit 3"], "");
    assert_eq!(text(&output.stdout), "000000000000a\n");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn submit_wait_passes_the_streams_on_and_exits_as_the_job_did() {
    let daemon = daemon_with_an_ended_job();
    let output = wpool(&daemon.socket, &["submit", "--wait", "--", "x"], "");
    assert_eq!(text(&output.stdout), "out\n");
    assert_eq!(text(&output.stderr), "err\n");
    assert_eq!(output.status.code(), Some(3));

    let output = wpool(
        &daemon.socket,
        &["submit", "--wait", "--json", "--", "x"],
        "",
    );
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["exit_code"], 3);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_daemon_that_goes_away_before_the_job_has_ended_is_told_as_that() {
    let daemon = PretendDaemon::start(|asked| {
        if asked.line == "POST /v1/jobs" {
            json(201, SUBMITTED)
        } else {
            json(200, OUTPUT)
        }
    });
    let output = wpool(&daemon.socket, &["submit", "--wait", "--", "x"], "");
    assert_eq!(text(&output.stdout), "out\n");
    let said = text(&output.stderr).trim_start_matches("err\n");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("went away before job 000000000000a had ended"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn a_result_holds_nothing_that_a_terminal_obeys_in_either_form() {
    let daemon = daemon_with_an_ended_job();
    for words in [
        &["result", "000000000000a"][..],
        &["result", "--json", "000000000000a"],
    ] {
        let output = wpool(&daemon.socket, words, "");
        assert_eq!(output.status.code(), Some(0));
        let shown = text(&output.stdout);
        assert!(shown.contains("evil"), "{shown}");
        assert!(
            !shown.contains(|c: char| c.is_control() && c != '\n'),
            "{shown:?}"
        );
    }
    let output = wpool(
        &daemon.socket,
        &["result", "000000000000a", "--out", "r.txt:-"],
        "",
    );
    assert_eq!(text(&output.stdout), "report");
}

#[test]
fn logs_keep_the_streams_apart() {
    let daemon = daemon_with_an_ended_job();
    for words in [
        &["logs", "000000000000a"][..],
        &["logs", "-f", "000000000000a"],
    ] {
        let output = wpool(&daemon.socket, words, "");
        assert_eq!(
            (text(&output.stdout), text(&output.stderr)),
            ("out\n", "err\n")
        );
    }
}

#[test]
fn cancelling_what_has_ended_forgets_nothing() {
    let daemon = daemon_with_an_ended_job();
    let output = wpool(&daemon.socket, &["cancel", "000000000000a"], "");
    assert_eq!(output.status.code(), Some(0));
    assert!(
        daemon
            .lines()
            .iter()
            .all(|line| !line.starts_with("DELETE"))
    );
}

#[test]
fn an_error_is_one_line_with_what_to_do_whatever_the_daemon_says() {
    let daemon = PretendDaemon::start(|_| {
        json(
            403,
            "{\"type\": \"urn:wpool:forbidden\", \"title\": \"\", \"status\": 403, \"detail\": \"no:\\n\\u001b[2J ask root\"}",
        )
    });
    let output = wpool(&daemon.socket, &["status"], "");
    assert_eq!(text(&output.stderr), "wpool: no:\\n\\u{1b}[2J ask root\n");
    assert_eq!(output.status.code(), Some(125));

    let output = wpool(Path::new("/nowhere/control.sock"), &["jobs"], "");
    let told = text(&output.stderr);
    assert!(
        told.contains("wpool serve") && told.lines().count() == 1,
        "{told}"
    );
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn a_batch_answers_every_line_and_waits_for_a_full_queue() {
    let refusals = AtomicU32::new(2);
    let daemon = PretendDaemon::start(move |asked| {
        let is_full = asked.body.contains("late")
            && refusals
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                })
                .is_ok();
        if is_full {
            json(
                429,
                r#"{"type": "urn:wpool:queue-full", "title": "", "status": 429, "detail": "full", "retry_after_ms": 1}"#,
            )
        } else {
            json(201, SUBMITTED)
        }
    });
    let batch =
        "{\"command\": [\"true\"]}\n\nnonsense\n{\"command\": [\"late\"]}\n{\"command\": []}\n";
    let output = wpool(&daemon.socket, &["submit", "--batch", "-"], batch);
    let mut answers: Vec<serde_json::Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    answers.sort_by_key(|answer| answer["line"].as_u64());
    let summary: Vec<_> = answers
        .iter()
        .map(|answer| {
            (
                answer["line"].as_u64().unwrap(),
                answer.get("error").is_some(),
            )
        })
        .collect();
    assert_eq!(summary, [(1, false), (3, true), (4, false), (5, true)]);
    assert_eq!(output.status.code(), Some(125), "a line was refused");
    assert_eq!(
        daemon.lines().len(),
        4,
        "the full queue was asked again twice"
    );
}

#[test]
fn a_batch_fails_when_the_daemon_goes_away() {
    let daemon = PretendDaemon::start(|_| Answer::Bytes(Vec::new()));
    let batch = "{\"command\": [\"true\"]}\n".repeat(100);
    let output = wpool(&daemon.socket, &["submit", "--batch", "-"], &batch);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(text(&output.stderr).lines().count(), 1);
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the command line is tested as it is typed"
)]
fn an_output_that_nobody_reads_ends_the_command_in_silence() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_wpool"))
        .args(["completions", "bash"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}
