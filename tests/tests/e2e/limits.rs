//! The limits table: every row, for one process and for ten, reaches the state, the cause and the exit code it promises.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wpool_tests::cgroup;
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Daemon, Said, resident_bytes, run};

pub(crate) const TESTS: &[Test] = &[
    test!(wall_time_ends_a_job),
    test!(grace_lets_a_job_say_goodbye),
    test!(cpu_time_ends_a_job, "python3"),
    test!(idleness_ends_a_job, "python3"),
    test!(memory_ends_a_job, "python3"),
    test!(memory_in_files_counts, "python3"),
    test!(shared_memory_is_counted_once, "python3"),
    test!(the_size_of_a_file_ends_a_job),
    test!(processes_are_refused_and_told, "python3"),
    test!(open_files_are_refused_and_told, "python3"),
    test!(a_full_disk_is_refused_and_told, "python3"),
    test!(output_keeps_its_first_and_last_half),
    test!(ten_gigabytes_of_output_leave_the_supervisor_flat),
    test!(a_fork_bomb_harms_nobody, "python3"),
];

/// Ten processes that all do this, and a parent that waits for them.
fn ten(body: &str) -> String {
    format!(
        "import os, signal, sys, time\n\
         def body():\n{}\n\
         for _ in range(10):\n    if os.fork() == 0:\n        body()\n        os._exit(0)\n\
         for _ in range(10): os.wait()\n",
        indented(body)
    )
}

/// One process that does this.
fn one(body: &str) -> String {
    format!(
        "import os, signal, sys, time\ndef body():\n{}\nbody()\n",
        indented(body)
    )
}

fn indented(body: &str) -> String {
    body.lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Runs a job to its outcome: by a daemon where this process has a cgroup to divide, so that its limits are the kernel's, else in the
/// foreground, where they are kept by sampling.
fn job(arguments: &[&str]) -> anyhow::Result<Said> {
    if !cgroup::is_there() {
        return run(["run", "--json"].iter().chain(arguments));
    }
    let daemon = Daemon::start(1)?;
    let said = daemon.wpool(["submit", "--wait", "--json"].iter().chain(arguments))?;
    ensure!(said.json()?["usage"]["measured_by"] == "cgroup", "{said:?}");
    Ok(said)
}

/// Runs a Python program under these limits and gives what was said, and the outcome.
fn python(limits: &[&str], code: &str) -> anyhow::Result<(Said, Value)> {
    let said = job(&[limits, &["--", "python3", "-c", code]].concat())?;
    let outcome = said.json()?;
    Ok((said, outcome))
}

/// Runs a program that one process and ten can run, and checks that this limit ended it.
fn ends(limits: &[&str], body: &str, limit: &str) -> anyhow::Result<Vec<Value>> {
    let mut outcomes = Vec::new();
    for code in [one(body), ten(body)] {
        let (said, outcome) = python(limits, &code)?;
        ensure!(said.code == 137, "{said:?}");
        ensure!(outcome["state"] == "limit_exceeded", "{outcome}");
        let cause = &outcome["cause"];
        ensure!(cause["kind"] == "limit", "{outcome}");
        ensure!(cause["limit"] == limit, "{outcome}");
        let figure = |name: &str| {
            cause[name]
                .as_u64()
                .with_context(|| format!("{name}: {cause}"))
        };
        ensure!(figure("peak")? >= figure("allowed")? / 2, "{cause}");
        ensure!(figure("at_ms")? > 0, "{cause}");
        ensure!(
            cause["text"]
                .as_str()
                .is_some_and(|text| text.contains(' ')),
            "{cause}"
        );
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn wall_time_ends_a_job() -> anyhow::Result<()> {
    for script in [
        "sleep 60".to_owned(),
        "for n in 1 2 3 4 5 6 7 8 9 10; do sleep 60 & done; wait".to_owned(),
    ] {
        let said = job(&["--timeout", "300ms", "--", "sh", "-c", &script])?;
        let outcome = said.json()?;
        ensure!(said.code == 124, "{said:?}");
        ensure!(outcome["state"] == "timed_out", "{outcome}");
        ensure!(outcome["cause"]["text"].is_string(), "{outcome}");
        let wall = outcome["usage"]["wall_ms"].as_f64().context("no wall_ms")?;
        ensure!(wall >= 300.0, "{outcome}");
    }
    Ok(())
}

fn grace_lets_a_job_say_goodbye() -> anyhow::Result<()> {
    let script = "trap 'echo goodbye; exit 0' TERM; while :; do sleep 0.05; done";
    let said = job(&[
        "--timeout",
        "300ms",
        "--grace",
        "10s",
        "--",
        "sh",
        "-c",
        script,
    ])?;
    let outcome = said.json()?;
    ensure!(said.code == 124, "{said:?}");
    ensure!(outcome["state"] == "timed_out", "{outcome}");
    ensure!(outcome["stdout"] == "goodbye\n", "{outcome}");
    Ok(())
}

fn cpu_time_ends_a_job() -> anyhow::Result<()> {
    ends(&["--cpu", "500ms"], "while True: pass", "cpu")?;
    Ok(())
}

fn idleness_ends_a_job() -> anyhow::Result<()> {
    ends(&["--idle", "400ms"], "time.sleep(60)", "idle")?;
    // Work in small pieces is not idleness.
    let busy = "for _ in range(30):\n    for _ in range(100000): pass\n    time.sleep(0.02)";
    let (said, outcome) = python(&["--idle", "2s"], &one(busy))?;
    ensure!(said.code == 0, "{outcome}");
    // Nor are children that each do next to nothing.
    let script = "for n in $(seq 12); do sleep 0.2; done";
    let said = job(&["--idle", "1s", "--", "sh", "-c", script])?;
    ensure!(said.code == 0, "{said:?}");
    Ok(())
}

fn memory_ends_a_job() -> anyhow::Result<()> {
    // Alone it holds 400 MB; ten of them 40 MB each.
    let alone = "data = bytearray(400 << 20)\nfor n in range(0, len(data), 4096): data[n] = 1\ntime.sleep(60)";
    let shared = "data = bytearray(40 << 20)\nfor n in range(0, len(data), 4096): data[n] = 1\ntime.sleep(60)";
    for code in [one(alone), ten(shared)] {
        let (said, outcome) = python(&["--memory", "200M"], &code)?;
        ensure!(said.code == 137, "{said:?}");
        ensure!(outcome["state"] == "limit_exceeded", "{outcome}");
        ensure!(outcome["cause"]["limit"] == "memory", "{outcome}");
        ensure!(outcome["cause"]["allowed"] == 200 << 20, "{outcome}");
        let peak = outcome["usage"]["memory_peak_bytes"].as_u64();
        ensure!(peak.is_some_and(|peak| peak > 150 << 20), "{outcome}");
    }
    Ok(())
}

fn memory_in_files_counts() -> anyhow::Result<()> {
    let body = "with open('/tmp/file', 'wb') as file:\n    for _ in range(100): file.write(bytes(4 << 20))\ntime.sleep(60)";
    let limits = ["--memory", "200M", "--disk", "600M", "--file-size", "1G"];
    let (said, outcome) = python(&limits, &one(body))?;
    ensure!(said.code == 137, "{said:?}");
    ensure!(outcome["cause"]["limit"] == "memory", "{outcome}");
    Ok(())
}

fn shared_memory_is_counted_once() -> anyhow::Result<()> {
    let code = format!(
        "data = bytearray(100 << 20)\nfor n in range(0, len(data), 4096): data[n] = 1\n{}\nprint('well')",
        ten("time.sleep(0.7)")
    );
    let (said, outcome) = python(&["--memory", "256M"], &code)?;
    ensure!(said.code == 0, "{outcome}");
    ensure!(outcome["stdout"] == "well\n", "{outcome}");
    let peak = outcome["usage"]["memory_peak_bytes"].as_u64();
    ensure!(peak.is_some_and(|peak| peak > 90 << 20), "{outcome}");
    Ok(())
}

fn the_size_of_a_file_ends_a_job() -> anyhow::Result<()> {
    let script = "exec head -c 10000000 /dev/zero > file";
    let said = job(&["--file-size", "1M", "--", "sh", "-c", script])?;
    let outcome = said.json()?;
    ensure!(said.code == 137, "{said:?}");
    ensure!(outcome["state"] == "limit_exceeded", "{outcome}");
    ensure!(outcome["cause"]["limit"] == "file_size", "{outcome}");
    Ok(())
}

/// Runs a program that meets an errno and goes on; the outcome names the limit.
///
/// Of open files that is only seen from outside by looking at the job, and so if it lasts for half of its time.
fn refuses(limits: &[&str], body: &str, limit: &str) -> anyhow::Result<()> {
    let (said, outcome) = python(limits, &one(body))?;
    ensure!(said.code == 7, "{said:?}");
    ensure!(outcome["exit_code"] == 7, "{outcome}");
    let hit = outcome["limits_hit"].as_array().context("no limits_hit")?;
    ensure!(hit.iter().any(|name| name == limit), "{outcome}");
    Ok(())
}

fn processes_are_refused_and_told() -> anyhow::Result<()> {
    let body = "try:\n    for _ in range(10):\n        if os.fork() == 0: time.sleep(60); os._exit(0)\n\
                except BlockingIOError: os._exit(7)";
    refuses(&["--processes", "5"], body, "processes")
}

fn open_files_are_refused_and_told() -> anyhow::Result<()> {
    let body = "files = []\ntry:\n    for _ in range(100): files.append(os.open('/dev/null', os.O_RDONLY))\n\
                except OSError:\n    time.sleep(0.5)\n    os._exit(7)";
    refuses(&["--open-files", "20"], body, "open_files")
}

fn a_full_disk_is_refused_and_told() -> anyhow::Result<()> {
    let bytes = "try:\n    with open('/tmp/file', 'wb') as file:\n        for _ in range(100): file.write(bytes(1 << 20))\n\
                 except OSError: sys.exit(7)";
    refuses(&["--disk", "8M"], bytes, "disk")?;
    let inodes = "try:\n    for n in range(5000): open(f'/box/{n}', 'w').close()\n\
                  except OSError: sys.exit(7)";
    refuses(&["--disk", "8M"], inodes, "disk")
}

fn output_keeps_its_first_and_last_half() -> anyhow::Result<()> {
    let said = job(&["--output-limit", "1K", "--", "seq", "1", "100000"])?;
    let outcome = said.json()?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(outcome["stdout_truncated"] == true, "{outcome}");
    ensure!(outcome["stdout_bytes"] == 588_895, "{outcome}");
    let kept = outcome["stdout"].as_str().context("no text")?;
    ensure!(kept.len() == 1024, "{} bytes are kept", kept.len());
    ensure!(kept.starts_with("1\n2\n3\n"), "{kept}");
    ensure!(kept.ends_with("99999\n100000\n"), "{kept}");
    ensure!(outcome["stderr_truncated"] == false, "{outcome}");
    Ok(())
}

fn ten_gigabytes_of_output_leave_the_supervisor_flat() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    daemon.outcome_of(&json!({"command": ["head", "-c", "10M", "/dev/zero"]}))?;
    let before = resident_bytes(daemon.pid())?;
    let answer = daemon.post(
        "/v1/jobs",
        &json!({"command": ["head", "-c", "10G", "/dev/zero"], "limits": {"timeout_ms": 600_000, "cpu_ms": 600_000}}),
    )?;
    ensure!(answer.status == 201, "{answer:?}");
    let id = answer.json()?["id"].as_str().context("no id")?.to_owned();
    let mut most = before;
    let outcome = loop {
        let answer = daemon.get(&format!("/v1/jobs/{id}/result?wait=1s"))?;
        most = most.max(resident_bytes(daemon.pid())?);
        if answer.status == 200 {
            break answer.json()?;
        }
        ensure!(answer.status == 202, "{answer:?}");
    };
    ensure!(
        outcome["stdout_bytes"] == 10_u64 << 30,
        "{}",
        outcome["stdout_bytes"]
    );
    ensure!(outcome["stdout_truncated"] == true);
    ensure!(
        most < before + (16 << 20),
        "the supervisor grew from {before} to {most} bytes"
    );
    Ok(())
}

fn a_fork_bomb_harms_nobody() -> anyhow::Result<()> {
    let daemon = Daemon::start(2)?;
    let bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass";
    let chain = "import os\nwhile True:\n    if os.fork() > 0: os._exit(0)";
    for program in [bomb, chain] {
        let answer = daemon.post(
            "/v1/jobs",
            &json!({"command": ["python3", "-c", program], "limits": {"timeout_ms": 2000}}),
        )?;
        let id = answer.json()?["id"].as_str().context("no id")?.to_owned();
        for n in 0..20 {
            let outcome = daemon.outcome_of(&json!({"command": ["echo", n.to_string()]}))?;
            ensure!(outcome["state"] == "succeeded", "{outcome}");
        }
        let ended = daemon
            .get(&format!("/v1/jobs/{id}/result?wait=60s"))?
            .json()?;
        let state = ended["state"].as_str().unwrap_or_default();
        // The chain's first process ends at once, and its job with it.
        ensure!(
            ["timed_out", "limit_exceeded", "succeeded"].contains(&state),
            "{ended}"
        );
    }
    let mut daemon = daemon;
    daemon.wait_until("only the workers are left", |daemon| {
        Ok(daemon.descendants()?.len() <= 2)
    })
}
