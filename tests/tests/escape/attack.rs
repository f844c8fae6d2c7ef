//! An attack, and how it is tried.

use anyhow::{Context as _, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use wpool_tests::rig::{Job, Rig};
use wpool_tests::trial;
use wpool_tests::wpool::Daemon;

use super::removal::Removal;

/// An attack.
#[derive(Debug)]
pub(crate) struct Attack {
    /// Its name: what does not happen.
    pub(crate) name: &'static str,
    /// A Python program, after [`PRELUDE`].
    pub(crate) program: &'static str,
    /// How it is seen to be a real one.
    pub(crate) shown: Shown,
}

/// How an attack is seen to be a real one.
#[derive(Debug)]
pub(crate) enum Shown {
    /// Without this layer each of these parts of it works.
    Without(Removal, &'static [&'static str]),
    /// It cannot be shown, and why.
    Not(&'static str),
}

/// What the programs begin with: `refused` makes a system call that must fail, `unanswered` one that must be refused
/// before anybody looks at its arguments, `cannot` an attempt that must raise an `OSError`, and `child` does something in
/// a process of its own and gives how that ended. `moot` says of a part that this kernel refuses it by itself.
const PRELUDE: &str = "\
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    ctypes.set_errno(0)
    longs = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return libc.syscall(ctypes.c_long(number), *longs)
def say(*words):
    os.write(1, (' '.join(map(str, words)) + '\\n').encode())
def escaped(what, *more): say('escaped:', what, *more)
def moot(what): say('moot:', what)
def refused(what, number, *arguments):
    if call(number, *arguments) != -1: escaped(what)
def unanswered(what, number, *arguments):
    if call(number, *arguments) != -1 or ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):
        escaped(what)
def cannot(what, attempt):
    try: attempt()
    except OSError: return
    escaped(what)
def child(body):
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            body()
            code = 0
        finally: os._exit(code)
    return os.waitpid(pid, 0)[1]
def setting(name):
    try: return int(open('/proc/sys/' + name).read())
    except OSError: return 0
";

impl Attack {
    pub(crate) fn trial(&'static self) -> Trial {
        trial::new(self.name, &["python3"], || self.run())
    }

    fn run(&self) -> anyhow::Result<()> {
        self.is_contained()?;
        match self.shown {
            Shown::Without(removal, parts) => self.works_without(removal, parts),
            Shown::Not(reason) => {
                ensure!(reason.split(' ').count() > 5, "a reason");
                Ok(())
            }
        }
    }

    fn code(&self) -> String {
        format!("{PRELUDE}{}\nsay('tried')\n", self.program)
    }

    /// As job A, then as job B, on one worker that survives both.
    fn is_contained(&self) -> anyhow::Result<()> {
        let daemon = Daemon::start(1)?;
        for which in ["A", "B"] {
            let outcome = daemon.outcome_of(&json!({
                "command": ["python3", "-c", self.code()],
                "limits": {"timeout_ms": 240_000, "cpu_ms": 240_000},
            }))?;
            let said = outcome["stdout"].as_str().context("it is text")?;
            ensure!(outcome["state"] == "succeeded", "{which}: {outcome}");
            ensure!(!said.contains("escaped"), "{which}: {said}");
            ensure!(said.ends_with("tried\n"), "{which}: {outcome}");
            ensure!(
                generation(&outcome) == Some(1),
                "{which}: another worker: {outcome}"
            );
        }
        Ok(())
    }

    /// As A and B on a worker that lacks a layer.
    fn works_without(&self, removal: Removal, parts: &[&str]) -> anyhow::Result<()> {
        let mut rig = Rig::in_slot(removal.slot(), Vec::new())?;
        let code = self.code();
        let said: Vec<String> = ["A", "B"]
            .into_iter()
            .map(|_| match rig.run(&Job::python(&code)) {
                Ok(ran) => format!("{}{}{:?}", ran.stdout, ran.stderr, ran.report.ending),
                // How it ends does not matter: it may well harm its worker.
                Err(error) => format!("{error:?}"),
            })
            .collect();
        let said = said.join("\n");
        let is_shown = |part: &str| {
            said.lines().any(|line| {
                let told = line.strip_prefix("escaped: ");
                let told = told.or_else(|| line.strip_prefix("moot: "));
                told.is_some_and(|told| told.starts_with(part))
            })
        };
        ensure!(!parts.is_empty(), "a part that shows it");
        let hidden: Vec<_> = parts.iter().filter(|part| !is_shown(part)).collect();
        ensure!(
            hidden.is_empty(),
            "{hidden:?}: contained without {removal:?}, too, and so proves nothing: {said}"
        );
        Ok(())
    }
}

fn generation(outcome: &Value) -> Option<u64> {
    outcome["attempts"][0]["generation"].as_u64()
}
