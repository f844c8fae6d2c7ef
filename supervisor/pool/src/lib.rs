//! The pure core of wpool: which job runs where, and what to do when something dies.
//!
//! A state machine without a clock, without IO, without threads: events go in, actions come out. What
//! carries the actions out and brings the events is the supervisor; what tries millions of histories
//! is tests/sim.
//!
//! # Invariants
//!
//! - [`Pool::handle`](pool::Pool::handle) is the only way in, [`Pool::deadline`](pool::Pool::deadline) the only timer.
//! - The same events at the same times with the same seed give the same actions.
//! - I1 to I7, stated in `invariants.rs` and checked after every event in tests and debug builds.

#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::wildcard_enum_match_arm,
    clippy::indexing_slicing,
    clippy::float_arithmetic
)]

extern crate alloc;

pub mod time;

pub mod action;
pub mod event;
pub mod settings;
pub mod standing;
pub mod view;

pub mod invariants;
pub mod pool;
pub mod snapshot;

mod admission;
mod alarms;
mod backoff;
mod course;
mod job;
mod pace;
mod queue;
mod records;
mod recycling;
mod restart;
mod roster;
mod run;
mod slot;
mod tenants;
