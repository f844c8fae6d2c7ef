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
    /// It works without this layer.
    Without(Removal),
    /// It cannot be shown, and why.
    Not(&'static str),
}

/// What the programs begin with. `refused` makes a system call that must fail.
const PRELUDE: &str = "\
import atexit, ctypes, errno, mmap, os, resource, signal, socket, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    ctypes.set_errno(0)
    longs = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return libc.syscall(ctypes.c_long(number), *longs)
def escaped(*what):
    print('escaped:', *what, flush=True)
def refused(name, number, *arguments):
    result = call(number, *arguments)
    if result != -1: escaped(name, result)
def cannot(what, attempt, *exceptions):
    try: result = attempt()
    except (OSError, *exceptions): return
    escaped(what, result)
";

impl Attack {
    pub(crate) fn trial(&'static self) -> Trial {
        trial::new(self.name, &["python3"], || self.run())
    }

    fn run(&self) -> anyhow::Result<()> {
        self.is_contained()?;
        match self.shown {
            Shown::Without(removal) => self.works_without(removal),
            Shown::Not(reason) => {
                ensure!(reason.len() > 10, "a reason");
                Ok(())
            }
        }
    }

    fn code(&self) -> String {
        format!("{PRELUDE}{}\nprint('tried', flush=True)\n", self.program)
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
    fn works_without(&self, removal: Removal) -> anyhow::Result<()> {
        let mut rig = Rig::in_slot(removal.slot())?;
        let mut said = Vec::new();
        for _ in 0..2 {
            // How it ends does not matter: it may well harm its worker.
            let ran = rig.run(&Job::python(&self.code()));
            said.push(ran.map(|ran| format!("{}{}", ran.stdout, ran.stderr)));
        }
        let has_escaped = said
            .iter()
            .any(|said| said.as_ref().is_ok_and(|said| said.contains("escaped")));
        ensure!(
            has_escaped,
            "it is contained without {removal:?}, too, and so proves nothing: {said:?}"
        );
        Ok(())
    }
}

fn generation(outcome: &Value) -> Option<u64> {
    outcome["attempts"][0]["generation"].as_u64()
}
