//! The wire from outside: golden frames, and messages that survive the way there and back.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests, too, what goes wrong is a panic"
)]

mod wire {
    pub(crate) mod golden;
    pub(crate) mod round_trips;
    pub(crate) mod samples;
    pub(crate) mod strategies;
}
