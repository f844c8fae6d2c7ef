//! What a job under chaos does, and how it must end.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wpool_tests::chance::Chance;

/// Workers that a job may cost, in most cases: more than chaos will kill.
const ATTEMPTS_MAX: u64 = 100;

/// A job, of which no two are alike.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    name: String,
    kind: Kind,
    attempts_max: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Says its name.
    Speaks,
    /// Says its name, after so many ms.
    Works(u64),
    /// Exits with this code.
    Fails(u64),
    /// Kills itself with SIGSEGV.
    Crashes,
    /// Does not end.
    Hangs,
    /// Says what it reads.
    Reads,
    /// Writes so many bytes.
    Writes(u64),
    /// Leaves a file with its name.
    Leaves,
}

/// What a client wants of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// How it ends.
    Outcome,
    /// That it ends at once.
    Cancelled,
}

impl Task {
    pub(crate) fn new(name: String, chance: &mut Chance) -> Self {
        let kind = match chance.up_to(99) {
            0..30 => Kind::Speaks,
            30..60 => Kind::Works(chance.between(5, 40)),
            60..70 => Kind::Fails(chance.between(1, 120)),
            70..75 => Kind::Crashes,
            75..80 => Kind::Hangs,
            80..87 => Kind::Reads,
            87..93 => Kind::Writes(chance.between(1, 200_000)),
            _ => Kind::Leaves,
        };
        // Now and then one that the first lost worker quarantines.
        let attempts_max = if chance.permille(30) { 1 } else { ATTEMPTS_MAX };
        Self {
            name,
            kind,
            attempts_max,
        }
    }

    /// The request that submits it.
    pub(crate) fn request(&self, chance: &mut Chance) -> Value {
        let name = &self.name;
        let shell = |script: String| json!(["sh", "-c", script]);
        let command = match self.kind {
            Kind::Speaks => json!(["echo", name]),
            Kind::Works(ms) => shell(format!("sleep 0.{ms:03}; echo {name}")),
            Kind::Fails(code) => shell(format!("echo {name}; exit {code}")),
            Kind::Crashes => shell(format!("echo {name}; kill -SEGV $$")),
            Kind::Hangs => shell(format!("echo {name}; sleep 60")),
            Kind::Reads => json!(["cat"]),
            Kind::Writes(bytes) => shell(format!("head -c {bytes} /dev/zero | tr '\\0' x")),
            Kind::Leaves => shell(format!("echo {name} > left")),
        };
        let priority = ["high", "normal", "low"][usize::try_from(chance.up_to(2)).unwrap_or(0)];
        let mut request = json!({
            "command": command,
            "idempotency_key": name,
            "attempts_max": self.attempts_max,
            "priority": priority,
            "rank": chance.up_to(3),
        });
        match self.kind {
            Kind::Hangs => request["limits"] = json!({"timeout_ms": 200}),
            Kind::Reads => request["stdin"] = json!(name),
            Kind::Leaves => request["outputs"] = json!(["left"]),
            _ => {}
        }
        request
    }

    /// Whether this is how it must have ended.
    pub(crate) fn fits(&self, outcome: &Value, wish: Wish) -> anyhow::Result<()> {
        let is_cancelled = wish == Wish::Cancelled && outcome["state"] == "cancelled";
        let attempts = outcome["attempts"].as_array().context("no attempts")?;
        let Some((newest, before)) = attempts.split_last() else {
            ensure!(is_cancelled, "it has never run: {outcome}");
            return Ok(());
        };
        let is_lost = |attempt: &Value| attempt["end"] == "worker_lost";
        ensure!(
            before.iter().all(is_lost),
            "tried again without a reason: {outcome}"
        );
        let state = &outcome["state"];
        if is_cancelled {
            return Ok(());
        }
        if state == "quarantined" {
            let lost = u64::try_from(attempts.len())?;
            ensure!(is_lost(newest) && lost == self.attempts_max, "{outcome}");
            return Ok(());
        }
        let (expected, stdout) = match self.kind {
            Kind::Speaks | Kind::Works(_) => ("succeeded", format!("{}\n", self.name)),
            Kind::Fails(code) => {
                ensure!(outcome["exit_code"] == code, "{outcome}");
                ("failed", format!("{}\n", self.name))
            }
            Kind::Crashes => {
                ensure!(outcome["cause"]["name"] == "SIGSEGV", "{outcome}");
                ("failed", format!("{}\n", self.name))
            }
            Kind::Hangs => ("timed_out", format!("{}\n", self.name)),
            Kind::Reads => ("succeeded", self.name.clone()),
            Kind::Writes(bytes) => ("succeeded", "x".repeat(usize::try_from(bytes)?)),
            Kind::Leaves => {
                let left = &outcome["files"]["left"]["text"];
                ensure!(*left == format!("{}\n", self.name), "{outcome}");
                ("succeeded", String::new())
            }
        };
        ensure!(state == expected, "{expected}, but {outcome}");
        ensure!(
            outcome["stdout"] == stdout,
            "said {stdout:?}, but {outcome}"
        );
        Ok(())
    }
}
