//! How a daemon begins and ends: its socket, its signals, its config.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{self, Daemon, GATE, Said, is_alive, wait_for};

pub(crate) const TESTS: &[Test] = &[
    test!(a_second_daemon_on_the_same_socket_says_so_and_leaves_the_first_alone),
    test!(a_stale_socket_is_replaced),
    test!(a_socket_that_is_passed_is_served_and_left_behind),
    test!(sigterm_finishes_what_runs_and_names_what_waits),
    test!(a_service_reads_the_config_of_its_directory),
    test!(sigterm_under_load_tells_every_follower_how_its_job_ended),
    test!(a_follower_who_was_not_looking_when_the_daemon_went_knows_how_its_job_ended),
    test!(who_asks_right_after_the_end_is_still_answered),
    test!(a_second_sigint_stops_at_once_and_tells_who_waits),
    test!(kill_leaves_no_process_behind),
    test!(sighup_reads_the_config_again_and_refuses_a_bad_one),
    test!(a_config_that_cannot_be_read_to_its_end_holds_up_nothing),
    test!(a_log_that_nobody_reads_holds_up_nothing),
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

fn a_log_that_nobody_reads_holds_up_nothing() -> anyhow::Result<()> {
    let (unread, log) = std::io::pipe()?;
    let flags = OFlag::from_bits_retain(fcntl(&log, FcntlArg::F_GETFL)?);
    fcntl(&log, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    while nix::unistd::write(&log, &[b'\n'; 4_096]).is_ok() {}
    fcntl(&log, FcntlArg::F_SETFL(flags))?;
    let mut daemon = Daemon::start_with_log(log.into())?;
    let outcome = daemon.outcome_of(&json!({"command": ["true"]}))?;
    ensure!(outcome["state"] == "succeeded", "{outcome}");
    daemon.signal(Signal::SIGTERM)?;
    ensure!(daemon.wait()? == 0);
    drop(unread);
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

fn a_socket_that_is_passed_is_served_and_left_behind() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("passed.sock");
    let listener = UnixListener::bind(&path)?;
    std::fs::write(directory.path().join("wpool.toml"), "")?;
    // As systemd does it: descriptor 3, and the pid of who is meant.
    let script =
        "exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve --workers 1 --config \"$1\"";
    let mut process = wpool::program("sh")
        .args(["-c", script])
        .arg(wpool::binary())
        .arg(directory.path().join("wpool.toml"))
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let submit = [
        "submit",
        "--wait",
        "--",
        "sh",
        "-c",
        "ls /proc/self/fd | wc -l",
    ];
    let mut client = wpool::wpool(submit);
    // Who connects before the daemon is ready waits in the socket's backlog.
    let said: Said = client.env("WPOOL_SOCKET", &path).output()?.into();
    ensure!(said.code == 0 && said.stdout == "4\n", "{said:?}");
    kill(Pid::from_raw(process.id().try_into()?), Signal::SIGTERM)?;
    ensure!(process.wait()?.success());
    ensure!(path.exists(), "it is not the daemon's to remove");
    Ok(())
}

fn a_service_reads_the_config_of_its_directory() -> anyhow::Result<()> {
    let parent = tempfile::tempdir()?;
    let directory = parent.path().join("wpool");
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text);
    std::fs::create_dir_all(directory.join("conf.d"))?;
    write("wpool.toml", "[pool]\nworkers = 3\nqueue_jobs = 7\n")?;
    write("conf.d/10.toml", "[pool]\nqueue_jobs = 8\n")?;
    // As systemd names it, to a user who is not root: others' is not read.
    let mut show = wpool::wpool(["config", "show"]);
    show.env("CONFIGURATION_DIRECTORY", &directory);
    let said: Said = show.output()?.into();
    let says = |line: &str| said.stdout.lines().any(|said| said == line);
    ensure!(says("workers = 3") && says("queue_jobs = 8"), "{said:?}");
    Ok(())
}

/// From then on nothing starts.
fn wait_until_it_stops(daemon: &mut Daemon) -> anyhow::Result<()> {
    daemon.wait_until("it stops", |daemon| {
        let stopping = daemon
            .status()
            .is_ok_and(|status| status["state"] == "stopping");
        Ok(stopping || daemon.get("/readyz").is_err())
    })
}

fn sigterm_finishes_what_runs_and_names_what_waits() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_gated(1, "")?;
    let post = |script: &str| {
        let answer = daemon.post("/v1/jobs", &json!({"command": ["sh", "-c", script]}))?;
        anyhow::Ok(answer.json()?["id"].as_str().unwrap_or_default().to_owned())
    };
    post(&format!("{GATE}; echo done"))?;
    let waiting = post("echo never")?;
    daemon.wait_until("one runs", |daemon| Ok(daemon.status()?["active"] == 1))?;
    let mut client = daemon.client(["result", "--wait", &waiting]).spawn()?;
    daemon.signal(Signal::SIGTERM)?;
    wait_until_it_stops(&mut daemon)?;
    daemon.open_gate()?;
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

fn sigterm_under_load_tells_every_follower_how_its_job_ended() -> anyhow::Result<()> {
    const FOLLOWERS: usize = 12;
    let script = &format!("echo begun; {GATE}; echo done; exit 3");
    for _ in 0..4 {
        let mut daemon = Daemon::start_gated(2, "")?;
        let followers: Vec<_> = (0..FOLLOWERS)
            .map(|_| {
                let mut client = daemon.client(["submit", "--wait", "--", "sh", "-c", script]);
                client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
            })
            .collect::<Result<_, _>>()?;
        daemon.wait_until("all are there, and two run", |daemon| {
            let status = daemon.status()?;
            Ok(status["active"] == 2 && status["queued"]["total"] == FOLLOWERS - 2)
        })?;
        daemon.signal(Signal::SIGTERM)?;
        wait_until_it_stops(&mut daemon)?;
        daemon.open_gate()?;
        let mut finished = 0;
        for follower in followers {
            let said: Said = follower.wait_with_output()?.into();
            if said.code == 3 {
                finished += 1;
                ensure!(said.stdout == "begun\ndone\n", "{said:?}");
            } else {
                ensure!(said.code == 125, "{said:?}");
                ensure!(said.stderr.contains("the supervisor shut down"), "{said:?}");
            }
        }
        ensure!(finished == 2, "{finished} have heard how their job ended");
        ensure!(daemon.wait()? == 0, "{}", daemon.said()?);
    }
    Ok(())
}

fn a_follower_who_was_not_looking_when_the_daemon_went_knows_how_its_job_ended()
-> anyhow::Result<()> {
    let mut daemon = Daemon::start_gated(1, "")?;
    let script = &format!("echo begun; {GATE}; echo done; exit 3");
    let mut follower = daemon
        .client(["submit", "--wait", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let mut stdout = BufReader::new(follower.stdout.take().context("its output is a pipe")?);
    stdout.read_line(&mut line)?;
    let pid = Pid::from_raw(follower.id().try_into()?);
    kill(pid, Signal::SIGSTOP)?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.open_gate()?;
    ensure!(daemon.wait()? == 0, "{}", daemon.said()?);
    kill(pid, Signal::SIGCONT)?;
    stdout.read_to_string(&mut line)?;
    let said: Said = follower.wait_with_output()?.into();
    ensure!(
        said.code == 3 && line == "begun\ndone\n",
        "{line:?} {said:?}"
    );
    Ok(())
}

fn who_asks_right_after_the_end_is_still_answered() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_gated(1, "")?;
    let job = json!({"command": ["sh", "-c", format!("{GATE}; exit 3")]});
    let id = daemon.post("/v1/jobs", &job)?.json()?["id"].clone();
    let id = id.as_str().unwrap_or_default();
    daemon.wait_until("it runs", |daemon| Ok(daemon.status()?["active"] == 1))?;
    let below = daemon.descendants()?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.open_gate()?;
    let output = daemon.get(&format!("/v1/jobs/{id}/output?follow=true"))?;
    ensure!(output.body.contains(r#"{"end":"failed"}"#), "{output:?}");
    // With its last worker everything has gone that the daemon had still to see to.
    ensure!(wait_for(|| !below.iter().any(|pid| is_alive(*pid))));
    let outcome = daemon.get(&format!("/v1/jobs/{id}/result"))?.json()?;
    ensure!(outcome["exit_code"] == 3, "{outcome}");
    let refused = daemon.post("/v1/jobs", &json!({"command": ["true"]}))?;
    ensure!(refused.status == 503, "{refused:?}");
    ensure!(daemon.wait()? == 0, "{}", daemon.said()?);
    Ok(())
}

fn a_second_sigint_stops_at_once_and_tells_who_waits() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(1)?;
    let mut waiter = daemon.client(["submit", "--wait", "--timeout", "60s", "--", "sleep", "60"]);
    let waiter = waiter.stderr(Stdio::piped()).spawn()?;
    daemon.wait_until("it runs", |daemon| Ok(daemon.status()?["active"] == 1))?;
    daemon.signal(Signal::SIGINT)?;
    wait_until_it_stops(&mut daemon)?;
    let begun = std::time::Instant::now();
    daemon.signal(Signal::SIGINT)?;
    let code = daemon.wait()?;
    ensure!(code == 130, "{code}: {}", daemon.said()?);
    // The grace is 20 s and the job's time 60: this guards against waiting for either.
    ensure!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    let said: Said = waiter.wait_with_output()?.into();
    ensure!(said.code == 125, "{said:?}");
    ensure!(said.stderr.contains("the supervisor shut down"), "{said:?}");
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

fn a_config_that_cannot_be_read_to_its_end_holds_up_nothing() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(1)?;
    let config = daemon.directory().join("wpool.toml");
    for (n, what) in [(1, "pipe"), (2, "zeros")] {
        std::fs::remove_file(&config)?;
        match what {
            "pipe" => nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU)?,
            _ => std::os::unix::fs::symlink("/dev/zero", &config)?,
        }
        daemon.signal(Signal::SIGHUP)?;
        daemon.wait_until("it is refused", |daemon| {
            Ok(daemon.said()?.matches("no regular file").count() == n)
        })?;
    }
    daemon.signal(Signal::SIGTERM)?;
    ensure!(daemon.wait()? == 0, "{}", daemon.said()?);
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
        .stderr(Stdio::null())
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
    kill(Pid::from_raw(process.id().try_into()?), Signal::SIGTERM)?;
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
