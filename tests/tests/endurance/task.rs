//! One job: what is asked, in which manner, and how it must end.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wpool_tests::chance::Chance;

use super::misdeeds::MISDEEDS;
use super::works::WORKS;

/// A job.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// What it does, for whoever reads of it.
    pub(crate) kind: &'static str,
    pub(crate) request: Value,
    pub(crate) manner: Manner,
    pub(crate) expected: Expected,
}

/// How its client goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Waits for the outcome.
    Waits,
    /// Asks, is gone before there is an answer, and asks the same again.
    Vanishes,
    /// Ends it as soon as it says that it runs.
    Cancels,
}

/// How it must end.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// The outcome has exactly these members.
    Members(Value),
    /// One of these, as [`end`] names them; if it is `succeeded`, the last that it says is `tried`, and it has found nothing of others.
    OneOf(&'static [&'static str]),
}

/// How a job comes to its worker, in this history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// Nobody touches them: each job has one attempt, in the first generation.
    Stay,
    /// They are replaced and killed: attempts may be lost.
    Change,
}

impl Task {
    /// A good one as often as a hostile one.
    pub(crate) fn any(name: &str, chance: &mut Chance) -> Self {
        if chance.permille(500) {
            let last = WORKS.len() as u64 - 1;
            Self::work(
                usize::try_from(chance.up_to(last)).unwrap_or(0),
                name,
                chance,
            )
        } else {
            let last = MISDEEDS.len() as u64 - 1;
            Self::misdeed(usize::try_from(chance.up_to(last)).unwrap_or(0), name)
        }
    }

    /// The `number`-th of all kinds, from the first again after the last.
    pub(crate) fn of_each(number: usize, name: &str, chance: &mut Chance) -> Self {
        let number = number % (WORKS.len() + MISDEEDS.len());
        match number.checked_sub(WORKS.len()) {
            Some(misdeed) => Self::misdeed(misdeed, name),
            None => Self::work(number, name, chance),
        }
    }

    /// How many kinds there are.
    pub(crate) const fn kinds() -> usize {
        WORKS.len() + MISDEEDS.len()
    }

    fn work(number: usize, name: &str, chance: &mut Chance) -> Self {
        let (kind, make) = WORKS[number];
        let (request, expected) = make(name, chance);
        Self {
            kind,
            request: named(request, name),
            // Whoever vanishes harms nobody, and itself neither.
            manner: if chance.permille(50) {
                Manner::Vanishes
            } else {
                Manner::Waits
            },
            expected: Expected::Members(expected),
        }
    }

    fn misdeed(number: usize, name: &str) -> Self {
        let misdeed = &MISDEEDS[number];
        Self {
            kind: misdeed.name,
            request: named(misdeed.request(), name),
            manner: misdeed.manner,
            expected: Expected::OneOf(misdeed.ends),
        }
    }

    /// Whether this is how it must have ended.
    pub(crate) fn fits(&self, outcome: &Value, workers: Workers) -> anyhow::Result<()> {
        self.attempts_fit(outcome, workers)?;
        ensure!(outcome["isolation"]["level"] == "full", "{outcome}");
        match &self.expected {
            Expected::Members(members) => {
                for (name, expected) in members.as_object().context("members")? {
                    let told = &outcome[name];
                    ensure!(
                        told == expected,
                        "{name}: {}, but {}",
                        cut(expected),
                        cut(outcome)
                    );
                }
            }
            Expected::OneOf(ends) => {
                let end = end(outcome);
                ensure!(
                    ends.contains(&end.as_str()),
                    "{end}, not one of {ends:?}: {}",
                    cut(outcome)
                );
                let said = outcome["stdout"].as_str().unwrap_or_default();
                ensure!(!said.contains("found"), "{}", cut(outcome));
                ensure!(
                    end != "succeeded" || said.ends_with("tried\n"),
                    "{}",
                    cut(outcome)
                );
            }
        }
        Ok(())
    }

    fn attempts_fit(&self, outcome: &Value, workers: Workers) -> anyhow::Result<()> {
        let attempts = outcome["attempts"].as_array().context("no attempts")?;
        match workers {
            Workers::Stay => ensure!(
                attempts.len() == 1 && attempts[0]["generation"] == 1,
                "not on the workers of the beginning: {}",
                cut(outcome)
            ),
            Workers::Change => {
                let lost = attempts.iter().rev().skip(1);
                let mut ends = lost.map(|attempt| &attempt["end"]);
                ensure!(ends.all(|end| end == "worker_lost"), "{}", cut(outcome));
            }
        }
        // Whoever is cancelled can have been waiting for its next worker.
        ensure!(
            !attempts.is_empty() || self.manner == Manner::Cancels,
            "{}",
            cut(outcome)
        );
        Ok(())
    }
}

/// A request under its name.
fn named(mut request: Value, name: &str) -> Value {
    request["idempotency_key"] = json!(name);
    request["attempts_max"] = json!(100);
    request
}

/// The end of a job in one word: its state; with the limit that ended it, or its code or signal.
fn end(outcome: &Value) -> String {
    let cause = &outcome["cause"];
    let state = outcome["state"].as_str().unwrap_or("no state");
    let why = match state {
        "limit_exceeded" => &cause["limit"],
        "failed" if cause["kind"] == "signal" => &cause["name"],
        "failed" if cause["kind"] == "exit_code" => &cause["code"],
        "failed" => &cause["kind"],
        _ => return state.to_owned(),
    };
    match why {
        Value::String(why) => format!("{state}: {why}"),
        why => format!("{state}: {why}"),
    }
}

/// As much of a value as a reader can use.
pub(crate) fn cut(value: &Value) -> String {
    const ENOUGH: usize = 4_000;
    let text = value.to_string();
    match text.char_indices().nth(ENOUGH) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text,
    }
}
