//! Which cells of the table (state of a slot, word of its worker) the worlds have seen.
//!
//! The states are those that an onlooker can tell apart. A word counts where it is of the slot's present worker and, if it names a
//! run, of its present one: everything else the pool drops before it looks at its table.

use std::fmt;

use wpool_pool::event::Event;

/// States of a slot with a worker.
pub(crate) const STATES: [&str; 6] = [
    "starting", "idle", "loading", "running", "ending", "retiring",
];

/// Words of a worker.
pub(crate) const WORDS: [&str; 7] = [
    "spawn failed",
    "ready",
    "exited",
    "violated",
    "answered",
    "started",
    "ended",
];

/// Cells that no world can reach, and why.
pub const UNREACHABLE: [(&str, &str, &str); 10] = [
    ("starting", "started", NO_RUN),
    ("starting", "ended", NO_RUN),
    ("idle", "started", NO_RUN),
    ("idle", "ended", NO_RUN),
    ("retiring", "started", NO_RUN),
    ("retiring", "ended", NO_RUN),
    ("idle", "spawn failed", BORN),
    ("loading", "spawn failed", BORN),
    ("running", "spawn failed", BORN),
    ("retiring", "spawn failed", BORN),
];

const NO_RUN: &str = "there is no run that it could be about: it is dropped before the table";
const BORN: &str =
    "whoever was ready had been born: the supervisor says one or the other of a worker";

/// How often each cell was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage([[u64; WORDS.len()]; STATES.len()]);

impl Coverage {
    pub(crate) fn see(&mut self, state: &str, event: &Event) {
        let word = match event {
            Event::SpawnFailed(_) => "spawn failed",
            Event::WorkerReady(_) => "ready",
            Event::WorkerExited(_) => "exited",
            Event::WorkerViolated(_) => "violated",
            Event::PingAnswered(..) => "answered",
            Event::JobStarted(..) => "started",
            Event::JobEnded(..) => "ended",
            _ => return,
        };
        let state = STATES.iter().position(|name| *name == state);
        let word = WORDS.iter().position(|name| *name == word);
        if let (Some(state), Some(word)) = (state, word) {
            self.0[state][word] += 1;
        }
    }

    /// Adds another world's.
    pub(crate) fn add(&mut self, other: &Self) {
        for (row, more) in self.0.iter_mut().zip(other.0) {
            for (cell, more) in row.iter_mut().zip(more) {
                *cell += more;
            }
        }
    }

    /// The cells that were never seen: state and word.
    pub fn unseen(&self) -> Vec<(&'static str, &'static str)> {
        let rows = STATES.into_iter().zip(self.0);
        let cells = rows.flat_map(|(state, row)| {
            let cells = WORDS.into_iter().zip(row);
            cells.map(move |(word, seen)| (state, word, seen))
        });
        let unseen = cells.filter(|(_, _, seen)| *seen == 0);
        unseen.map(|(state, word, _)| (state, word)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:10}", "")?;
        for word in WORDS {
            write!(f, "{word:>14}")?;
        }
        for (state, row) in STATES.into_iter().zip(self.0) {
            write!(f, "\n{state:10}")?;
            for seen in row {
                write!(f, "{seen:>14}")?;
            }
        }
        Ok(())
    }
}
