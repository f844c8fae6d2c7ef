//! The pool in an invented world: virtual time, workers, recorder, clients and operator as models.
//!
//! ```text
//!             ┌───────────────────────── actions ─────────────────────────┐
//!             │                                                           ▼
//!   Pool::handle ◀── event ── Agenda ◀── what happens next ── workers, recorder, clients, operator
//!        │                       (virtual time)                       (fault knobs, by the seed)
//!        └── event and actions ──▶ Oracle: what was promised, told from outside
//! ```
//!
//! A world is made from its seed alone. First everything may go wrong that the seed's knobs allow, and only safety is
//! asked for; then the faults stop and everything must reach an end; then the pool is shut down.
//!
//! # Invariants
//!
//! - The same seed and the same number of events give the same history.
//! - The oracle knows nothing of the pool's insides: it sees what a supervisor sees, and what really
//!   goes on in the model's processes.

use std::collections::VecDeque;
use std::fmt;

use wpool_pool::action::Action;
use wpool_pool::event::Event;
use wpool_pool::time::Instant;

#[macro_use]
mod oracle;

mod agenda;
mod book;
mod client;
mod coverage;
mod knobs;
mod process;
mod recorder;
pub mod small;
mod world;

pub use coverage::{Coverage, UNREACHABLE};
pub use knobs::Knobs;

/// Runs the world of `seed` through about `events` events with faults, and then to its end.
///
/// # Errors
///
/// [`Failure`] says what was promised and not kept, and what went before.
pub fn run(seed: u64, events: u64) -> Result<Summary, Box<Failure>> {
    world::World::new(Knobs::of(seed), events).run()
}

/// What has happened in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that the pool was given.
    pub events: u64,
    /// Jobs that were submitted.
    pub submitted: u64,
    /// Jobs that were refused.
    pub refused: u64,
    /// Runs that began.
    pub runs: u64,
    /// Jobs that were requeued, counted each time.
    pub requeued: u64,
    /// Jobs that were tried again by their own rule, counted each time.
    pub retried: u64,
    /// Jobs whose outcome a worker reported.
    pub reported: u64,
    /// Jobs that were cancelled without a report.
    pub cancelled: u64,
    /// Jobs that the operator cleared away.
    pub cleared: u64,
    /// Jobs that expired.
    pub expired: u64,
    /// Jobs that were quarantined.
    pub quarantined: u64,
    /// Jobs that overran.
    pub overran: u64,
    /// Jobs that a shutdown ended.
    pub shut_down: u64,
    /// Workers that were killed.
    pub kills: u64,
    /// Workers that were replaced as planned.
    pub recycled: u64,
    /// Lives of a supervisor that a crash ended.
    pub crashes: u64,
    /// Jobs that a crash met before their end was told.
    pub interrupted: u64,
    /// Moments at which a slot was found parked.
    pub parked: u64,
    /// Events that the pool dropped.
    pub dropped: u64,
    /// Words of workers, by the state of their slots.
    pub coverage: Coverage,
}

impl Summary {
    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.submitted += other.submitted;
        self.refused += other.refused;
        self.runs += other.runs;
        self.requeued += other.requeued;
        self.retried += other.retried;
        self.reported += other.reported;
        self.cancelled += other.cancelled;
        self.cleared += other.cleared;
        self.expired += other.expired;
        self.quarantined += other.quarantined;
        self.overran += other.overran;
        self.shut_down += other.shut_down;
        self.kills += other.kills;
        self.recycled += other.recycled;
        self.crashes += other.crashes;
        self.interrupted += other.interrupted;
        self.parked += other.parked;
        self.dropped += other.dropped;
        self.coverage.add(&other.coverage);
    }
}

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The world.
    pub seed: u64,
    /// The event at which it was noticed.
    pub event: u64,
    /// What was found.
    pub what: String,
    /// The last events, each with its actions.
    pub history: VecDeque<(Instant, Event, Vec<Action>)>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, event, actions) in &self.history {
            writeln!(f, "{at} {event:?}")?;
            for action in actions {
                writeln!(f, "        -> {action:?}")?;
            }
        }
        write!(
            f,
            "seed {} at event {}: {}",
            self.seed, self.event, self.what
        )
    }
}
