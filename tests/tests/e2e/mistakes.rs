//! What a user gets wrong, or cannot know: one line says what it is and what to do, and nothing dies of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::ensure;
use serde_json::json;
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Daemon, Said, binary, program, run, wpool};

pub(crate) const TESTS: &[Test] = &[
    test!(a_config_is_held_against_the_machine),
    test!(the_environment_names_the_config_for_every_command),
    test!(two_paths_in_one_place_are_refused),
    test!(a_link_to_nothing_is_named),
    test!(a_path_with_a_colon_is_found),
    test!(limits_of_the_shell_are_raised_or_named),
    test!(what_is_no_object_is_no_job),
    test!(a_slow_reader_is_told_of_gaps_twice),
    test!(a_program_of_another_architecture_is_told_why_it_ended),
];

/// The refusal is one line, and says this.
fn refused(said: &Said, words: &[&str]) -> anyhow::Result<()> {
    ensure!(said.code == 125, "{said:?}");
    ensure!(said.stderr.lines().count() == 1, "{said:?}");
    for word in words {
        let count = said.stderr.matches(word).count();
        ensure!(count == 1, "{word} is there {count} times: {said:?}");
    }
    Ok(())
}

/// A config in a file of its own.
fn config(directory: &Path, text: &str) -> anyhow::Result<String> {
    let path = directory.join("wpool.toml");
    fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

fn a_config_is_held_against_the_machine() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    for (text, words) in [
        (
            "[profile.x]\nmounts = [\"/nowhere-at-all\"]",
            ["profile.x.mounts: ", "/nowhere-at-all"],
        ),
        (
            "[profile.x]\nfile_roots = [\"/nowhere-at-all\"]",
            ["profile.x.file_roots: ", "/nowhere-at-all"],
        ),
        (
            "[http]\ngroup = \"no-such-group\"",
            ["http.group: ", "no-such-group"],
        ),
    ] {
        let file = config(directory.path(), text)?;
        refused(&run(["config", "check", &file])?, &words)?;
    }
    // And whoever uses it all the same is told once.
    let file = config(
        directory.path(),
        "[profile.default]\nmounts = [\"/nowhere-at-all\"]",
    )?;
    refused(
        &run(["run", "--config", &file, "--", "true"])?,
        &["/nowhere-at-all"],
    )
}

fn the_environment_names_the_config_for_every_command() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = config(directory.path(), "[pool]\nqueue_jobs = 4321")?;
    let show = wpool(["config", "show"])
        .env("WPOOL_CONFIG", &file)
        .output()?;
    let show = Said::from(show);
    ensure!(show.stdout.contains("queue_jobs = 4321"), "{show:?}");
    config(directory.path(), "[pool]\nqueue_jobs = 0")?;
    let check = wpool(["config", "check"])
        .env("WPOOL_CONFIG", &file)
        .output()?;
    refused(&check.into(), &["pool.queue_jobs"])
}

fn two_paths_in_one_place_are_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let [a, b] = ["a", "b"].map(|name| directory.path().join(name));
    fs::create_dir(&a)?;
    fs::create_dir(&b)?;
    let show = |path: &Path, place: &str| format!("--ro={}:{place}", path.display());
    let twice = run([
        "run",
        &show(&a, "/opt/x"),
        &show(&b, "/opt/./x"),
        "--",
        "true",
    ])?;
    refused(&twice, &["/opt/./x"])?;
    let text = "[profile.default]\nmounts = [\"/opt:/srv/a\", \"/srv:/srv/a\"]";
    let file = config(directory.path(), text)?;
    refused(
        &run(["config", "check", &file])?,
        &["profile.default.mounts", "/srv/a"],
    )?;
    // Of the config and of the command line together.
    let text = format!("[profile.default]\nmounts = [\"{}:/opt/x\"]", a.display());
    let file = config(directory.path(), &text)?;
    let both = run(["run", "--config", &file, &show(&b, "/opt/x"), "--", "true"])?;
    refused(&both, &["/opt/x"])
}

fn a_link_to_nothing_is_named() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    symlink("nowhere", directory.path().join("dangling"))?;
    let tree = format!("--in={}:t", directory.path().display());
    refused(
        &run(["run", &tree, "--", "true"])?,
        &["dangling is a link to nothing"],
    )
}

fn a_path_with_a_colon_is_found() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("co:lon");
    fs::write(&path, "found\n")?;
    let path = format!("--in={}", path.display());
    let said = run(["run", &path, "--", "cat", "co:lon"])?;
    ensure!(
        (said.code, said.stdout.as_str()) == (0, "found\n"),
        "{said:?}"
    );
    Ok(())
}

fn limits_of_the_shell_are_raised_or_named() -> anyhow::Result<()> {
    let under = |limit: &str| -> anyhow::Result<Said> {
        let script = format!("ulimit {limit} && exec \"$0\" run -- echo ran");
        let binary = binary().as_os_str();
        let shell = ["-c".as_ref(), script.as_ref(), binary];
        Ok(program("bash").args(shell).output()?.into())
    };
    for soft in ["-S -n 32", "-S -f 8"] {
        let said = under(soft)?;
        ensure!(
            (said.code, said.stdout.as_str()) == (0, "ran\n"),
            "{soft}: {said:?}"
        );
    }
    refused(
        &under("-n 32")?,
        &["only 32 files may be open", "LimitNOFILE="],
    )?;
    refused(
        &under("-f 0")?,
        &["files may have at most 0 B", "LimitFSIZE="],
    )
}

fn what_is_no_object_is_no_job() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    for (body, word) in [
        (json!([["true"]]), "an object"),
        (json!({"command": ["true"], "limits": [5_000]}), "an object"),
        (json!({"command": ["true"], "tenant": ""}), "tenant: "),
        (
            json!({"command": ["true"], "tenant": "a\u{1b}[2Jb"}),
            "tenant: ",
        ),
    ] {
        let answer = daemon.post("/v1/jobs", &body)?;
        ensure!(answer.status == 422, "{body}: {answer:?}");
        let detail = answer.json()?["detail"].to_string();
        ensure!(detail.contains(word), "{body}: {detail}");
    }
    let twice = br#"{"command": ["true"], "env": {"A": "1", "A": "2"}}"#;
    let answer = daemon.ask("POST", "/v1/jobs", Some(twice))?;
    ensure!(answer.status == 422, "{answer:?}");
    let detail = answer.json()?["detail"].to_string();
    ensure!(detail.contains("`A` is there twice"), "{detail}");
    // What is asked of the pool is no job, and is not called one.
    let answer = daemon.ask("PATCH", "/v1/pool", Some(br#"{"state": "frozen"}"#))?;
    let problem = answer.json()?;
    ensure!(problem["type"] == "urn:wpool:bad-request", "{problem}");
    Ok(())
}

fn a_slow_reader_is_told_of_gaps_twice() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let script = "head -c 300000000 /dev/zero";
    let mut waiting = daemon.client(["submit", "--wait", "--", "sh", "-c", script]);
    let mut reader = program("sh");
    // Reads in small pieces, and so is always behind.
    reader.args(["-c", "dd bs=512 of=/dev/null 2>&1 | tail -n 1"]);
    let mut waiting = waiting
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let stdout = waiting.stdout.take().expect("it was piped");
    let read = reader.stdin(stdout).output()?;
    let said = Said::from(waiting.wait_with_output()?);
    ensure!(said.code == 0, "{said:?} {read:?}");
    let lines = said.stderr.lines().count();
    ensure!(lines <= 2, "{lines} lines: {said:?}");
    ensure!(
        said.stderr.contains("faster than they could be read"),
        "{said:?}"
    );
    Ok(())
}

/// The call is `getpid` by its number of x32: what a 32-bit program does first ends in the same way.
fn a_program_of_another_architecture_is_told_why_it_ended() -> anyhow::Result<()> {
    let call = "import ctypes; ctypes.CDLL(None).syscall(0x40000027)";
    for (program, end) in [
        (["python3", "-c", call], "SIGSYS"),
        (["sh", "-c", "kill -SEGV $$"], "SIGSEGV"),
    ] {
        let said = run([["run", "--json", "--"].as_slice(), &program].concat())?;
        let outcome: serde_json::Value = serde_json::from_str(&said.stdout)?;
        ensure!(outcome["signal"] == end, "{outcome}");
        let text = outcome["cause"]["text"].as_str().unwrap_or_default();
        let why = text.contains("by the numbers of another architecture");
        ensure!(why == (end == "SIGSYS"), "{outcome}");
    }
    Ok(())
}
