//! The filter around real processes: the sharp calls one by one, and real programs at their work.
//!
//! A test cannot be under the filter and go on as a test. So a confined program is started through this
//! test binary itself: it runs `confined`, which finds a command in its environment, loads the filter
//! and executes it.

#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    reason = "tests start programs by std's Command"
)]
use std::io::{Write as _, stderr};

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use wpool_worker::seccomp::table::{ARCHITECTURE, Rule};
use wpool_worker::seccomp::{Accounting, Program, Table, load};

const COMMAND: &str = "WPOOL_TEST_CONFINED_COMMAND";
const ACCOUNTING: &str = "WPOOL_TEST_CONFINED_ACCOUNTING";
const BOTH: [Accounting; 2] = [Accounting::Cgroup, Accounting::Sampling];

/// Without a command in the environment it runs one; with one it becomes it.
#[test]
fn confined() {
    let Ok(command) = env::var(COMMAND) else {
        for accounting in BOTH {
            let output = run_confined(accounting, Path::new("."), &["sh", "-c", "exit 3"]);
            assert_eq!(output.status.code(), Some(3), "{output:?}");
        }
        return;
    };
    let accounting = match env::var(ACCOUNTING).as_deref() {
        Ok("sampling") => Accounting::Sampling,
        _ => Accounting::Cgroup,
    };
    let program = Program::new(accounting);
    let words: Vec<&str> = command.split('\u{1f}').collect();
    let mut target = Command::new(words[0]);
    target.args(&words[1..]).env_remove(COMMAND);
    // Standard output belongs to the test harness up to here.
    nix::unistd::dup2_stdout(stderr()).unwrap();
    rustix::thread::set_no_new_privs(true).unwrap();
    load(&program).unwrap();
    panic!("{:?}", target.exec());
}

/// Runs a command under the filter; both its outputs come as standard error.
fn run_confined(accounting: Accounting, directory: &Path, command: &[&str]) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "confined", "--nocapture"])
        .env(COMMAND, command.join("\u{1f}"))
        .env(
            ACCOUNTING,
            match accounting {
                Accounting::Cgroup => "cgroup",
                Accounting::Sampling => "sampling",
            },
        )
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .unwrap()
}

/// Whether a program is here and works without the filter; if not, says that its test is skipped.
fn here(program: &str, trial: &[&str]) -> bool {
    let runs = Command::new(program)
        .args(trial)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !runs {
        stderr()
            .write_all(format!("skipped: {program} is not on this machine\n").as_bytes())
            .unwrap();
    }
    runs
}

/// A call to try, and what the row of the table is tried with.
struct Trial {
    label: String,
    words: String,
    number: u32,
    arguments: [u64; 6],
}

fn trial(label: &str, number: u32, given: &[u64]) -> Trial {
    let mut arguments = [0; 6];
    arguments[..given.len()].copy_from_slice(given);
    Trial {
        label: label.to_owned(),
        words: [u64::from(number)]
            .iter()
            .chain(&arguments)
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(":"),
        number,
        arguments,
    }
}

/// A bit that the kernel throws away where it reads 32 bits.
const HIGH: u64 = 1 << 32;

/// What to call a trial, the call, and its first arguments.
const CHECKED: &[(&str, &str, &[u64])] = &[
    ("clone NEWUSER", "clone", &[0x1000_0000]),
    ("clone NEWNS|SIGCHLD", "clone", &[0x2_0011]),
    ("clone NEWNET, high bit", "clone", &[HIGH | 0x4000_0000]),
    ("prlimit64 self", "prlimit64", &[0, 7]),
    ("prlimit64 self, high bit", "prlimit64", &[HIGH, 7]),
    ("prlimit64 init", "prlimit64", &[1, 7]),
    ("pidfd_open init", "pidfd_open", &[1]),
    ("personality query", "personality", &[0xffff_ffff]),
    ("personality no randomisation", "personality", &[0x4_0000]),
    ("personality read implies exec", "personality", &[0x40_0000]),
    ("socket unix", "socket", &[1, 1]),
    ("socket inet stream", "socket", &[2, 0x1 | 0x8_0000]),
    ("socket inet6 datagram", "socket", &[10, 2]),
    ("socket inet raw", "socket", &[2, 3, 1]),
    ("socket inet icmp", "socket", &[2, 2, 1]),
    ("socket inet sctp", "socket", &[2, 1, 132]),
    ("socket netlink", "socket", &[16, 3]),
    ("socket netlink, high bit", "socket", &[HIGH | 16, 3]),
    ("socket packet", "socket", &[17, 3]),
    ("socket alg", "socket", &[38, 5]),
    ("socket vsock", "socket", &[40, 1]),
    ("socket xdp", "socket", &[44, 3]),
    ("socketpair tipc", "socketpair", &[30, 1]),
    ("ioctl TIOCSTI", "ioctl", &[0, 0x5412]),
    ("ioctl TIOCSTI, high bit", "ioctl", &[0, HIGH | 0x5412]),
    ("ioctl TIOCLINUX", "ioctl", &[0, 0x541c]),
    ("ioctl TIOCSETD", "ioctl", &[0, 0x5423]),
    ("seccomp listener", "seccomp", &[1, 8]),
    ("seccomp sizes", "seccomp", &[3, 1]),
    ("prctl SET_MM", "prctl", &[35, 1]),
    ("prctl SCHED_CORE", "prctl", &[62, 1]),
    ("prctl SET_THP_DISABLE", "prctl", &[41, 1]),
    ("prctl FUTEX_HASH", "prctl", &[78, 1, 1 << 20]),
    ("prctl GET_DUMPABLE", "prctl", &[3]),
    ("arch_prctl MAP_VDSO", "arch_prctl", &[0x2001]),
    ("mmap huge", "mmap", &[0, 1 << 21, 3, 0x4_0022]),
    ("shmget huge", "shmget", &[0, 4096, 0o5600]),
    ("shmget", "shmget", &[0, 4096, 0o1600]),
    ("semget", "semget", &[0, 1, 0o1600]),
    ("msgget", "msgget", &[0, 0o1600]),
    ("fcntl setlease", "fcntl", &[0, 1024, 0]),
    ("fcntl notify", "fcntl", &[0, 1026, 2]),
    ("fcntl getfd", "fcntl", &[0, 1]),
    ("setsockopt sndbuf", "setsockopt", &[0, 1, 7, 0, 0]),
    ("setsockopt attach filter", "setsockopt", &[0, 1, 26, 0, 0]),
    (
        "setsockopt reuseport filter",
        "setsockopt",
        &[0, 1, 51, 0, 0],
    ),
    ("setsockopt of tcp, 26", "setsockopt", &[0, 6, 26, 0, 0]),
    ("setsockopt keepalive", "setsockopt", &[0, 1, 9, 0, 0]),
    ("madvise mergeable", "madvise", &[0, 0, 12]),
    ("memfd_create huge", "memfd_create", &[0, 4]),
];

/// Every call that is always refused, and the checked ones with arguments on both sides of the line.
fn trials(table: &Table) -> Vec<Trial> {
    let number = |name: &str| {
        let row = table.rows().iter().find(|row| row.call.name == name);
        row.unwrap_or_else(|| panic!("{name} is not in the table"))
            .call
            .number
    };
    let refused = table.rows().iter().filter_map(|row| match row.rule {
        Rule::Always(answer) if answer.to_string() != "allow" => {
            // Arguments with which none of them would do anything, should the filter fail.
            Some(trial(row.call.name, row.call.number, &[u64::MAX; 6]))
        }
        Rule::Always(_) | Rule::Check { .. } => None,
    });
    refused
        .chain(
            CHECKED
                .iter()
                .map(|(label, name, arguments)| trial(label, number(name), arguments)),
        )
        .chain([
            trial("a call of the future", 999, &[]),
            trial("getpid of x32", 0x4000_0000 | 0x27, &[]),
            trial("no call at all", u32::MAX, &[]),
            Trial {
                label: "getpid of i386".into(),
                words: "int80".into(),
                number: 20,
                arguments: [0; 6],
            },
        ])
        .collect()
}

/// Says per call what the kernel answered, and checks it against what the table says.
fn answers(accounting: Accounting) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    if !here("cc", &["--version"]) {
        return None;
    }
    fs::write(
        directory.path().join("probe.c"),
        include_str!("seccomp/probe.c"),
    )
    .unwrap();
    let built = Command::new("cc")
        .args(["-D_GNU_SOURCE", "-o", "probe", "probe.c"])
        .current_dir(&directory)
        .status();
    assert!(built.unwrap().success());
    let table = Table::new(accounting);
    let trials = trials(&table);
    let command: Vec<&str> = ["./probe"]
        .into_iter()
        .chain(trials.iter().map(|trial| trial.words.as_str()))
        .collect();
    let output = run_confined(accounting, directory.path(), &command);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().count(), trials.len(), "{said}");
    let mut text = String::new();
    for (trial, answer) in trials.iter().zip(said.lines()) {
        let architecture = match trial.words.as_str() {
            "int80" => 0x4000_0003,
            _ => ARCHITECTURE,
        };
        let wanted = match table
            .judge(architecture, trial.number, &trial.arguments)
            .to_string()
            .as_str()
        {
            // What is let through may still fail in the kernel.
            "allow" => None,
            "pretend" => Some("allowed".to_owned()),
            "kill" => Some("killed by 31".to_owned()),
            errno => Some(errno.to_owned()),
        };
        if let Some(wanted) = wanted {
            assert_eq!(answer, wanted, "{}", trial.label);
            writeln!(text, "{:<32} {answer}", trial.label).unwrap();
        } else {
            writeln!(text, "{:<32} is for the kernel to say", trial.label).unwrap();
        }
    }
    Some(text)
}

#[test]
fn every_sharp_call_is_answered_as_the_table_says() {
    if let Some(text) = answers(Accounting::Cgroup) {
        insta::assert_snapshot!(text);
    }
}

#[test]
fn every_sharp_call_is_answered_as_the_table_says_under_sampling() {
    if let Some(text) = answers(Accounting::Sampling) {
        insta::assert_snapshot!(text);
    }
}

/// Runs a command under both filters; it must succeed and say this.
fn works(directory: &Path, command: &[&str], says: &str) {
    for accounting in BOTH {
        let output = run_confined(accounting, directory, command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{accounting:?} {command:?}: {:?} {said}",
            output.status
        );
        assert!(said.contains(says), "{accounting:?} {command:?}: {said}");
    }
}

#[test]
fn python_works() {
    if here("python3", &["--version"]) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(
            directory.path().join("main.py"),
            include_str!("seccomp/work.py"),
        )
        .unwrap();
        works(directory.path(), &["python3", "main.py"], "all done");
    }
}

#[test]
fn a_c_compiler_works() {
    if here("cc", &["--version"]) {
        let directory = tempfile::tempdir().unwrap();
        let source = "#include <stdio.h>\n#include <pthread.h>\nstatic void *run(void *p) { puts(p); return 0; }\n\
             int main(void) { pthread_t t; pthread_create(&t, 0, run, \"compiled\"); return pthread_join(t, 0); }\n";
        fs::write(directory.path().join("main.c"), source).unwrap();
        works(
            directory.path(),
            &["sh", "-c", "cc -pthread -o main main.c && ./main"],
            "compiled",
        );
    }
}

#[test]
fn shells_and_git_work() {
    let directory = tempfile::tempdir().unwrap();
    if here("bash", &["--version"]) {
        let script = "set -e; seq 100 | sort -rn | tail -1; (sleep 0 & wait); ulimit -n 64; echo <(true) $(sync; echo yes)";
        works(directory.path(), &["bash", "-c", script], "yes");
    }
    if here("git", &["--version"]) {
        let script = "set -e; rm -rf repo; git init -q repo; cd repo; echo a > a; git add a; mkdir b; git mv a b/a; \
                      git -c user.name=n -c user.email=e commit -qm first; git log --oneline; git gc -q; git fsck";
        works(directory.path(), &["sh", "-c", script], "first");
    }
}

#[test]
fn perl_works() {
    if here("perl", &["-v"]) {
        let script = "pipe(R, W); if (!fork) { close R; print W 'from a child'; exit } close W; print <R>; wait; \
                      print `echo and a shell`; print join ',', map { $_->[0] } getpwuid(0) ? ['ok'] : ['no']";
        works(Path::new("."), &["perl", "-e", script], "and a shell");
    }
}

#[test]
fn node_works() {
    if here("node", &["--version"]) {
        let script = "const {Worker} = require('worker_threads'); const cp = require('child_process'); \
                      require('fs').watch('.').close(); require('dns').lookup('localhost', () => {}); \
                      new Worker('require(\"worker_threads\").parentPort.postMessage(42)', {eval: true}) \
                      .on('message', m => console.log(m, cp.execSync('echo child').toString()))";
        works(Path::new("."), &["node", "-e", script], "42 child");
    }
}

#[test]
fn java_and_rustc_work() {
    let directory = tempfile::tempdir().unwrap();
    if here("java", &["-version"]) {
        works(directory.path(), &["java", "-version"], "version");
    }
    if here("rustc", &["--version"]) {
        fs::write(
            directory.path().join("main.rs"),
            "fn main() { std::thread::spawn(|| println!(\"built\")).join().unwrap() }",
        )
        .unwrap();
        works(
            directory.path(),
            &["sh", "-c", "rustc main.rs && ./main"],
            "built",
        );
    }
}
