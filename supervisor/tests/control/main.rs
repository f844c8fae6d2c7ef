//! The client and the control commands, against a daemon that only pretends to be one.
//!
//! A real daemon would hide most of what a client must stand: silence, half an answer, another protocol. The pretended one
//! says what a test tells it to, over a real socket.

#![expect(
    clippy::unwrap_used,
    reason = "what a test sets up must work for it to say anything"
)]

mod client;
mod commands;
mod pretend_daemon;
