//! The README's commands are run as they stand there.
//!
//! In a block marked `sh`, each line is typed into one shell, with `wpool` on the path and a daemon of the test's own
//! in place of `wpool serve &`. A comment `# exits N` says what a line exits with where that is not 0. Lines that
//! begin with `cargo` are what this very build and this very run are; they are not run again.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Daemon, binary, feed, program};

/// Read when this is built: whoever runs it may have no checkout.
const README: &str = include_str!("../../../README.md");

pub(crate) const TESTS: &[Test] = &[test!(its_commands_do_what_it_says, "python3", "curl")];

/// Lines that are not typed here: builds, and the daemon that the test has started itself.
const ELSEWHERE: [&str; 2] = ["cargo ", "wpool serve"];

fn lines(readme: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut is_shell = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            is_shell = line == "```sh";
        } else if is_shell && !line.trim().is_empty() && !line.starts_with('#') {
            lines.push(line);
        }
    }
    lines.retain(|line| !ELSEWHERE.iter().any(|start| line.starts_with(start)));
    lines
}

/// What the reader of the README has before typing: some files, and a daemon in the usual place.
fn set_up(folder: &Path, daemon: &Daemon) -> anyhow::Result<()> {
    for name in ["src", "data"] {
        fs::create_dir(folder.join(name))?;
        fs::write(folder.join(name).join("file"), "one two\n")?;
    }
    fs::write(
        folder.join("jobs.ndjson"),
        "{\"command\": [\"true\"]}\n".repeat(10),
    )?;
    std::os::unix::fs::symlink(daemon.directory(), folder.join("wpool"))?;
    Ok(())
}

fn its_commands_do_what_it_says() -> anyhow::Result<()> {
    let lines = lines(README);
    ensure!(lines.len() >= 5, "too few commands: {lines:?}");
    let daemon = Daemon::start(2)?;
    let mut script = String::new();
    let mut expected = String::new();
    for line in &lines {
        let code = line
            .split_once("# exits ")
            .map_or("0", |(_, code)| code.trim());
        writeln!(script, "{line}\nprintf '%s\\n' $? >&9")?;
        writeln!(expected, "{code}")?;
    }
    let folder = tempfile::tempdir()?;
    set_up(folder.path(), &daemon)?;
    let codes = folder.path().join("codes");
    let mut shell = program("/bin/sh");
    shell
        .args(["-c", &format!("exec 9>{}\n{script}", codes.display())])
        .current_dir(folder.path())
        .env("WPOOL_SOCKET", daemon.socket())
        .env("XDG_RUNTIME_DIR", folder.path())
        .env(
            "PATH",
            format!(
                "{}:/usr/local/bin:/usr/bin:/bin",
                binary()
                    .parent()
                    .context("the binary lies in a folder")?
                    .display()
            ),
        );
    let said = feed(shell, b"")?;
    let codes = fs::read_to_string(codes)?;
    ensure!(
        codes == expected,
        "{lines:#?}\nexited with {codes:?}, not {expected:?}: {said:?}"
    );
    ensure!(said.stdout.starts_with("42\n"), "{said:?}");
    let report = fs::read_to_string(folder.path().join("report.txt"))?;
    ensure!(report.contains("src/file"), "{report}");
    Ok(())
}
