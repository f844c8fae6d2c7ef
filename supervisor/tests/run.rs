//! `wpool run` as it is typed, with a real sandbox around a real job.
//!
//! Where no sandbox can be built these tests say so and pass: `wpool doctor` names what is missing.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "the command line is tested as it is typed, what a test sets up must work, what is skipped is said"
)]

use std::fs;
use std::io::{Read as _, Write as _, stderr};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn wpool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wpool"));
    command.stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    wpool().arg("run").args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Whether sandboxes can be built here; if not, says why once.
fn sandbox_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let doctor = wpool().arg("doctor").output().unwrap();
        if !doctor.status.success() {
            stderr()
                .write_all(
                    format!(
                        "skipped: {}\n",
                        text(&doctor.stdout).lines().last().unwrap_or_default()
                    )
                    .as_bytes(),
                )
                .unwrap();
        }
        doctor.status.success()
    })
}

/// Reads one line of a running job's output.
fn first_line(child: &mut Child) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    let stdout = child.stdout.as_mut().unwrap();
    while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    String::from_utf8(line).unwrap()
}

#[test]
fn streams_stay_apart_and_the_exit_code_is_the_jobs() {
    if !sandbox_works() {
        return;
    }
    let output = run(&["--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(text(&output.stdout), "out\n");
    assert_eq!(text(&output.stderr), "err\n");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn with_json_the_outcome_says_the_same() {
    if !sandbox_works() {
        return;
    }
    let output = run(&["--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["state"], "failed");
    assert_eq!(outcome["exit_code"], 3);
    assert_eq!(outcome["stdout"], "out\n");
    assert_eq!(outcome["stderr"], "err\n");
    assert!(outcome["usage"]["wall_ms"].as_f64().unwrap() > 0.0);
    assert!(
        !outcome["isolation"]["layers"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_program_that_is_not_there_or_no_program_is_one_line_and_no_outcome() {
    if !sandbox_works() {
        return;
    }
    for (words, code) in [
        (&["--", "no-such-program"][..], 127),
        (&["--json", "--", "no-such-program"], 127),
        (&["--", "/etc/passwd"], 126),
    ] {
        let output = run(words);
        assert_eq!(text(&output.stdout), "", "{words:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{words:?}");
        assert_eq!(output.status.code(), Some(code), "{words:?}");
    }
}

#[test]
fn a_timeout_and_a_signal_have_their_codes() {
    if !sandbox_works() {
        return;
    }
    let output = run(&["--timeout", "100ms", "--", "sleep", "60"]);
    assert_eq!(output.status.code(), Some(124), "{output:?}");
    assert!(text(&output.stderr).contains("100 ms"), "{output:?}");
    let output = run(&["--", "sh", "-c", "kill -SEGV $$"]);
    assert_eq!(output.status.code(), Some(139), "{output:?}");
}

/// Bytes that no two places of a stream share by chance.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn a_long_stream_passes_byte_for_byte_through_pipes_and_files() {
    if !sandbox_works() {
        return;
    }
    let sent = noise(20_000_000);
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, &sent).unwrap();

    // From a file to a file, through --stdin and through our own standard input.
    for words in [
        &["run", "--", "cat"][..],
        &["run", "--stdin", from.to_str().unwrap(), "--", "cat"],
    ] {
        let status = wpool()
            .args(words)
            .stdin(fs::File::open(&from).unwrap())
            .stdout(fs::File::create(&to).unwrap())
            .status()
            .unwrap();
        assert!(status.success());
        assert!(
            fs::read(&to).unwrap() == sent,
            "{words:?} changed the stream"
        );
    }

    // From a pipe to a pipe.
    let mut child = wpool()
        .args(["run", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.stdout == sent, "the pipes changed the stream");
}

#[test]
fn a_job_that_nobody_reads_ends_as_in_any_pipeline() {
    if !sandbox_works() {
        return;
    }
    let mut child = wpool()
        .args(["run", "--", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(first_line(&mut child), "y");
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141), "{output:?}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_job_holds_no_descriptor_of_the_users() {
    if !sandbox_works() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in");
    fs::write(&file, "secret").unwrap();
    let output = wpool()
        .args([
            "run",
            "--",
            "sh",
            "-c",
            "ls -l /proc/self/fd | grep -c -v pipe:; exit 0",
        ])
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    // Two lines are no pipe: the total, and the directory that ls reads.
    assert_eq!(text(&output.stdout).trim(), "2", "{output:?}");
}

#[test]
fn an_interruption_ends_the_job_and_everything_in_it() {
    if !sandbox_works() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut child = wpool()
            .args([
                "run",
                "--",
                "sh",
                "-c",
                "trap '' INT TERM; echo on; sleep 60",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(first_line(&mut child), "on");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{output:?}");
    }
}

#[test]
fn files_go_in_and_come_out() {
    if !sandbox_works() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("project/sub")).unwrap();
    fs::write(
        dir.path().join("project/tool"),
        "#!/bin/sh\necho \"<$(cat sub/in)>\" > out.txt\n",
    )
    .unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path().join("project/tool"), executable).unwrap();
    fs::write(dir.path().join("project/sub/in"), [b'a', 0xff]).unwrap();
    let output = wpool()
        .current_dir(dir.path())
        .args([
            "run",
            "--in",
            "project:.",
            "--out",
            "out.txt",
            "--out",
            "**/in:back",
            "--out",
            "gone",
        ])
        .args(["--", "./tool"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fs::read(dir.path().join("out.txt")).unwrap(), b"<a\xff>\n");
    assert_eq!(fs::read(dir.path().join("back/sub/in")).unwrap(), b"a\xff");
    assert_eq!(
        text(&output.stderr),
        "wpool: gone did not come out: the job left no such file\n"
    );
}

#[test]
fn a_path_of_the_host_is_shown_read_only() {
    if !sandbox_works() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("data"), "seen").unwrap();
    // Who runs the tests as root has jobs under ids of their own: they see what everybody may.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), open).unwrap();
    let option = format!("{}:/opt/data", dir.path().display());
    let script = "cat /opt/data/data; echo x 2>/dev/null > /opt/data/data || echo ' and kept'";
    let output = run(&["--ro", &option, "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "seen and kept\n", "{output:?}");
    assert_eq!(fs::read(dir.path().join("data")).unwrap(), b"seen");
}

#[test]
fn stdin_is_captured_only_where_it_is_asked_for() {
    if !sandbox_works() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in");
    fs::write(&file, "text").unwrap();
    for (words, stdout) in [
        (&["run", "--json", "--", "cat"][..], ""),
        (&["run", "--json", "--stdin", "-", "--", "cat"], "text"),
    ] {
        let output = wpool()
            .args(words)
            .stdin(fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(outcome["stdout"], stdout, "{words:?}");
    }
}
