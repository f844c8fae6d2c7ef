//! `wpool run`: one command in a sandbox, without a daemon, and real work in it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{binary, feed, program, run, wpool};

pub(crate) const TESTS: &[Test] = &[
    test!(the_first_command_prints_42, "python3"),
    test!(streams_exit_code_usage_and_isolation_are_told),
    test!(a_missing_program_is_127_in_one_line),
    test!(signals_are_told_as_such, "python3"),
    test!(a_program_is_compiled_and_run_inside, "gcc"),
    test!(a_project_is_tested_and_its_report_comes_out, "python3"),
    test!(a_virtual_environment_is_shown_read_only, "python3"),
    test!(a_folder_whose_name_is_no_text_is_the_one_that_is_shown),
    test!(who_ignores_its_children_hears_how_jobs_end),
    test!(two_hundred_megabytes_arrive_byte_for_byte),
    test!(input_that_ends_ends_for_the_job),
    test!(the_environment_of_the_user_stays_outside),
    test!(a_terminal_is_the_jobs_own_or_none, "python3"),
];

fn the_first_command_prints_42() -> anyhow::Result<()> {
    let said = run(["run", "--", "python3", "-c", "print(6*7)"])?;
    ensure!((said.code, said.stdout.as_str()) == (0, "42\n"), "{said:?}");
    ensure!(said.stderr.is_empty(), "{said:?}");
    Ok(())
}

fn streams_exit_code_usage_and_isolation_are_told() -> anyhow::Result<()> {
    let script = "echo out; echo err >&2; exit 3";
    let said = run(["run", "--json", "--", "sh", "-c", script])?;
    ensure!(said.code == 3, "{said:?}");
    let outcome = said.json()?;
    ensure!(outcome["state"] == "failed", "{outcome}");
    ensure!(outcome["exit_code"] == 3, "{outcome}");
    ensure!(outcome["stdout"] == "out\n", "{outcome}");
    ensure!(outcome["stderr"] == "err\n", "{outcome}");
    let usage = &outcome["usage"];
    let is_used = |field: &str| usage[field].as_f64().is_some_and(|figure| figure > 0.0);
    ensure!(
        is_used("wall_ms") && is_used("memory_peak_bytes"),
        "{usage}"
    );
    ensure!(is_used("processes_peak"), "{usage}");
    let layers = outcome["isolation"]["layers"]
        .as_array()
        .context("no layers")?;
    for layer in ["user", "pid", "mount", "net", "ipc", "uts", "seccomp"] {
        ensure!(
            layers.iter().any(|name| name == layer),
            "{layer}: {layers:?}"
        );
    }
    Ok(())
}

fn a_missing_program_is_127_in_one_line() -> anyhow::Result<()> {
    for arguments in [
        &["run", "--", "no-such-program"][..],
        &["run", "--json", "--", "no-such-program"],
    ] {
        let said = run(arguments)?;
        ensure!(said.code == 127, "{said:?}");
        ensure!(said.stdout.is_empty(), "{said:?}");
        ensure!(said.stderr.lines().count() == 1, "{said:?}");
        ensure!(said.stderr.contains("no-such-program"), "{said:?}");
    }
    Ok(())
}

fn signals_are_told_as_such() -> anyhow::Result<()> {
    for (command, name, code) in [
        (["python3", "-c", "import os; os.abort()"], "SIGABRT", 134),
        (["sh", "-c", "kill -TERM $$"], "SIGTERM", 143),
        (
            ["python3", "-c", "import ctypes; ctypes.string_at(0)"],
            "SIGSEGV",
            139,
        ),
    ] {
        let said = run(["run", "--json", "--"].iter().chain(&command))?;
        let outcome = said.json()?;
        ensure!(said.code == code, "{said:?}");
        ensure!(outcome["state"] == "failed", "{outcome}");
        ensure!(outcome["signal"] == name, "{outcome}");
        ensure!(outcome["cause"]["kind"] == "signal", "{outcome}");
    }
    Ok(())
}

fn a_program_is_compiled_and_run_inside() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("answer.c");
    fs::write(
        &source,
        "#include <stdio.h>\nint main(void) { printf(\"%d\\n\", 6 * 7); return 5; }\n",
    )?;
    let mut command = wpool(["run", "--in"]);
    command.arg(&source);
    command.args(["--", "sh", "-c", "gcc -O1 -o answer answer.c && ./answer"]);
    let said = feed(command, b"")?;
    ensure!((said.code, said.stdout.as_str()) == (5, "42\n"), "{said:?}");
    Ok(())
}

fn a_project_is_tested_and_its_report_comes_out() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let project = folder.path().join("project");
    fs::create_dir_all(project.join("tests"))?;
    fs::write(project.join("answer.py"), "def answer(): return 6 * 7\n")?;
    fs::write(project.join("tests/__init__.py"), "")?;
    fs::write(
        project.join("tests/test_answer.py"),
        "import unittest\nfrom answer import answer\n\
         class Answer(unittest.TestCase):\n\
         \x20   def test_answer(self):\n        self.assertEqual(answer(), 42)\n",
    )?;
    let mut command = wpool(["run", "--in", "project:.", "--out", "report.txt", "--"]);
    command
        .args(["sh", "-c", "python3 -m unittest 2>report.txt"])
        .current_dir(folder.path());
    let said = feed(command, b"")?;
    ensure!(said.code == 0, "{said:?}");
    let report = fs::read_to_string(folder.path().join("report.txt"))?;
    ensure!(report.contains("Ran 1 test"), "{report}");
    ensure!(report.trim_end().ends_with("OK"), "{report}");
    Ok(())
}

fn a_virtual_environment_is_shown_read_only() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let venv = folder.path().join("venv");
    let mut make = program("/usr/bin/python3");
    make.args(["-m", "venv", "--without-pip"]).arg(&venv);
    let said = feed(make, b"")?;
    ensure!(said.code == 0, "{said:?}");
    let packages = fs::read_dir(venv.join("lib"))?
        .flatten()
        .map(|entry| entry.path().join("site-packages"))
        .find(|path| path.is_dir())
        .context("no site-packages")?;
    fs::write(packages.join("answer.py"), "ANSWER = 42\n")?;
    let code = "import answer; print(answer.ANSWER)\n\
         try: open('/opt/venv/written', 'w'); print('written')\n\
         except OSError: print('refused')";
    let mut shown = venv.clone().into_os_string();
    shown.push(":/opt/venv");
    let mut command = wpool(["run", "--ro"]);
    command.arg(shown);
    command.args(["--", "/opt/venv/bin/python", "-c", code]);
    let said = feed(command, b"")?;
    ensure!(said.stdout == "42\nrefused\n", "{said:?}");
    ensure!(
        !venv.join("written").exists(),
        "the job has written outside"
    );
    Ok(())
}

fn a_folder_whose_name_is_no_text_is_the_one_that_is_shown() -> anyhow::Result<()> {
    let parent = tempfile::tempdir()?;
    // What a careless conversion would take the other's name for.
    for (name, content) in [(&b"x\xff"[..], "this"), ("x\u{fffd}".as_bytes(), "another")] {
        let folder = parent.path().join(OsStr::from_bytes(name));
        fs::create_dir(&folder)?;
        fs::write(folder.join("file"), content)?;
    }
    let mut shown = parent
        .path()
        .join(OsStr::from_bytes(b"x\xff"))
        .into_os_string();
    shown.push(":/srv/shown");
    let mut command = wpool(["run", "--ro"]);
    command.arg(shown).args(["--", "cat", "/srv/shown/file"]);
    let said = feed(command, b"")?;
    ensure!(said.stdout == "this", "{said:?}");
    Ok(())
}

fn who_ignores_its_children_hears_how_jobs_end() -> anyhow::Result<()> {
    // An ignored signal stays ignored over exec, and of children that are ignored nobody hears how they ended.
    let mut command = program("env");
    command.arg("--ignore-signal=CHLD").arg(binary());
    command.args(["run", "--timeout", "20s", "--", "sh", "-c", "exit 3"]);
    let said = feed(command, b"")?;
    ensure!(said.code == 3, "{said:?}");
    Ok(())
}

/// The n-th of the bytes that go through; no period of a power of two, so that a lost page is seen.
fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length)
        .map(|n| (n % 251).to_le_bytes()[0])
        .collect()
}

fn two_hundred_megabytes_arrive_byte_for_byte() -> anyhow::Result<()> {
    const TOTAL: usize = 200 << 20;
    const PIECE: usize = 251 << 10;

    let mut child = wpool(["run", "--timeout", "10m", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("its input is a pipe")?;
    let mut stdout = child.stdout.take().context("its output is a pipe")?;
    // Every piece is a whole number of periods, so that all pieces are alike.
    let piece = pattern(0, PIECE);
    let sent = TOTAL / PIECE;
    std::thread::scope(|scope| {
        let piece = &piece;
        scope.spawn(move || (0..sent).try_for_each(|_| stdin.write_all(piece)));
        let mut heard = vec![0; PIECE];
        for number in 0..sent {
            stdout
                .read_exact(&mut heard)
                .with_context(|| format!("piece {number} of {sent}"))?;
            ensure!(heard == *piece, "piece {number} of {sent} is another");
        }
        ensure!(stdout.read(&mut heard)? == 0, "more came than went");
        anyhow::Ok(())
    })?;
    ensure!(child.wait()?.success(), "cat failed");
    Ok(())
}

fn input_that_ends_ends_for_the_job() -> anyhow::Result<()> {
    let said = feed(wpool(["run", "--", "wc", "-c"]), b"hello")?;
    ensure!(said.stdout.trim() == "5", "{said:?}");
    let said = feed(wpool(["run", "--", "wc", "-c"]), b"")?;
    ensure!(said.stdout.trim() == "0", "{said:?}");
    Ok(())
}

fn the_environment_of_the_user_stays_outside() -> anyhow::Result<()> {
    let mut command = wpool(["run", "--env", "GREETING=hello", "--", "env"]);
    command.env("SECRET_OF_THE_USER", "1");
    let said = feed(command, b"")?;
    let mut names: Vec<_> = said
        .stdout
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    names.sort_unstable();
    let known = ["GREETING", "HOME", "LANG", "PATH", "TMPDIR", "USER"];
    ensure!(names == known, "{said:?}");
    Ok(())
}

/// `/dev/tty` is the terminal that a process of the job made and took; before that, there is none. It is taken as script(1) and Go's
/// Setctty do it: with an argument by which root would take it from others.
fn a_terminal_is_the_jobs_own_or_none() -> anyhow::Result<()> {
    let program = "import errno, fcntl, os, pty, termios\n\
        try:\n\
        \x20 os.open('/dev/tty', os.O_RDWR)\n\
        except OSError as error:\n\
        \x20 print(errno.errorcode[error.errno], flush=True)\n\
        front, back = pty.openpty()\n\
        if os.fork() == 0:\n\
        \x20 os.setsid()\n\
        \x20 fcntl.ioctl(back, termios.TIOCSCTTY, 1)\n\
        \x20 os.write(os.open('/dev/tty', os.O_RDWR), b'from inside')\n\
        \x20 os._exit(0)\n\
        print(os.read(front, 100).decode())";
    let said = run(["run", "--timeout", "10s", "--", "python3", "-c", program])?;
    ensure!(said.stdout == "ENXIO\nfrom inside\n", "{said:?}");
    Ok(())
}
