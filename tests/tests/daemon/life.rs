//! How a daemon begins and ends: its socket, its signals, its config.

use std::os::unix::net::UnixListener;

use anyhow::ensure;
use nix::sys::signal::Signal;
use serde_json::json;
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{self, Daemon, Said, is_alive, wait_for};

pub(crate) const TESTS: &[Test] = &[
    test!(a_second_daemon_on_the_same_socket_says_so_and_leaves_the_first_alone),
    test!(a_stale_socket_is_replaced),
    test!(sigterm_finishes_what_runs_and_names_what_waits),
    test!(a_second_sigint_stops_at_once),
    test!(kill_leaves_no_process_behind),
    test!(sighup_reads_the_config_again_and_refuses_a_bad_one),
    test!(readiness_and_the_end_are_told_to_systemd),
    test!(a_bad_config_is_one_line_that_names_the_key),
];

fn a_second_daemon_on_the_same_socket_says_so_and_leaves_the_first_alone() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let second: Said = Daemon::command(daemon.directory(), 1).output()?.into();
    ensure!(second.code != 0, "{second:?}");
    ensure!(second.stderr.contains("control.sock"), "{second:?}");
    let outcome = daemon.outcome_of(&json!({"command": ["true"]}))?;
    ensure!(outcome["state"] == "succeeded", "{outcome}");
    Ok(())
}

fn a_stale_socket_is_replaced() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(1)?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.wait()?;
    ensure!(daemon.socket().exists(), "kill -9 leaves the socket behind");
    daemon.restart()?;
    ensure!(daemon.outcome_of(&json!({"command": ["true"]}))?["state"] == "succeeded");
    drop(daemon);
    // Something else that listens is not replaced.
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("wpool.toml"), "")?;
    let _other = UnixListener::bind(directory.path().join("control.sock"))?;
    let refused: Said = Daemon::command(directory.path(), 1).output()?.into();
    ensure!(refused.code != 0, "{refused:?}");
    Ok(())
}

fn sigterm_finishes_what_runs_and_names_what_waits() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(1)?;
    let post = |script: &str| {
        let answer = daemon.post("/v1/jobs", &json!({"command": ["sh", "-c", script]}))?;
        anyhow::Ok(answer.json()?["id"].as_str().unwrap_or_default().to_owned())
    };
    post("sleep 1; echo done")?;
    let waiting = post("echo never")?;
    daemon.wait_until("one runs", |daemon| Ok(daemon.status()?["active"] == 1))?;
    let mut client = daemon.client(["result", "--wait", &waiting]).spawn()?;
    daemon.signal(Signal::SIGTERM)?;
    let code = daemon.wait()?;
    ensure!(code == 0, "{code}: {}", daemon.said()?);
    ensure!(
        daemon.said()?.contains(&waiting),
        "the cancelled job is named: {}",
        daemon.said()?
    );
    client.wait()?;
    ensure!(!daemon.socket().exists(), "its socket is gone");
    Ok(())
}

fn a_second_sigint_stops_at_once() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(1)?;
    daemon.post(
        "/v1/jobs",
        &json!({"command": ["sleep", "60"], "limits": {"timeout_ms": 60_000}}),
    )?;
    daemon.wait_until("it runs", |daemon| Ok(daemon.status()?["active"] == 1))?;
    daemon.signal(Signal::SIGINT)?;
    daemon.wait_until("it stops", |daemon| {
        let stopping = daemon
            .status()
            .is_ok_and(|status| status["state"] == "stopping");
        Ok(stopping || daemon.get("/readyz").is_err())
    })?;
    let begun = std::time::Instant::now();
    daemon.signal(Signal::SIGINT)?;
    daemon.wait()?;
    // The grace is 20 s and the job's time 60: this guards against waiting for either.
    ensure!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    Ok(())
}

fn kill_leaves_no_process_behind() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(2)?;
    for _ in 0..2 {
        daemon.post(
            "/v1/jobs",
            &json!({"command": ["sh", "-c", "setsid sleep 60 & sleep 60"]}),
        )?;
    }
    daemon.wait_until("both run", |daemon| Ok(daemon.status()?["active"] == 2))?;
    daemon.wait_until("all is started", |daemon| {
        Ok(daemon.descendants()?.len() >= 2 * 5)
    })?;
    let below = daemon.descendants()?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.wait()?;
    ensure!(
        wait_for(|| !below.iter().any(|pid| is_alive(*pid))),
        "{below:?}"
    );
    Ok(())
}

fn sighup_reads_the_config_again_and_refuses_a_bad_one() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(1)?;
    let config = daemon.directory().join("wpool.toml");
    std::fs::write(&config, "[pool]\nqueue_jobs = 7\n")?;
    daemon.signal(Signal::SIGHUP)?;
    daemon.wait_until("the new limit holds", |daemon| {
        Ok(daemon.status()?["limits"]["queue_jobs"] == 7)
    })?;
    std::fs::write(&config, "[pool]\nqueue_jbos = 9\n")?;
    daemon.signal(Signal::SIGHUP)?;
    daemon.wait_until("the mistake is named", |daemon| {
        Ok(daemon.said()?.contains("queue_jbos"))
    })?;
    ensure!(
        daemon.status()?["limits"]["queue_jobs"] == 7,
        "the old config is kept"
    );
    Ok(())
}

fn readiness_and_the_end_are_told_to_systemd() -> anyhow::Result<()> {
    use std::os::unix::net::UnixDatagram;

    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("wpool.toml"), "")?;
    let path = directory.path().join("notify.sock");
    let notify = UnixDatagram::bind(&path)?;
    notify.set_read_timeout(Some(wpool::PATIENCE))?;
    let mut process = Daemon::command(directory.path(), 1)
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "2000000")
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let mut said = String::new();
    let mut hear_until = |word: &str| {
        let mut buffer = [0; 4096];
        while !said.contains(word) {
            let len = notify.recv(&mut buffer)?;
            said.push_str(&String::from_utf8_lossy(&buffer[..len]));
            said.push('\n');
        }
        anyhow::Ok(())
    };
    hear_until("READY=1")?;
    hear_until("STATUS=")?;
    hear_until("WATCHDOG=1")?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(process.id().try_into()?),
        Signal::SIGTERM,
    )?;
    hear_until("STOPPING=1")?;
    ensure!(process.wait()?.success());
    Ok(())
}

fn a_bad_config_is_one_line_that_names_the_key() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    std::fs::write(
        directory.path().join("wpool.toml"),
        "[pool]\nworkers = 1\nqueue_jbos = 9\n",
    )?;
    let refused: Said = Daemon::command(directory.path(), 1).output()?.into();
    ensure!(refused.code != 0, "{refused:?}");
    ensure!(refused.stderr.lines().count() == 1, "{refused:?}");
    ensure!(
        refused.stderr.contains("queue_jbos") && refused.stderr.contains("wpool.toml"),
        "{refused:?}"
    );
    Ok(())
}
