//! What clients may take, how long outcomes stay, what is logged: plain, complete values.

use std::time::Duration;

use super::raw::{LogFormat, LogLevel};

/// How long outcomes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Outcomes, at most.
    pub count: u64,
    /// How long one is kept.
    pub age: Duration,
    /// Bytes of all of them, at most.
    pub bytes: u64,
}

/// What clients of the control socket may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpBounds {
    /// Connections.
    pub connections_max: usize,
    /// Connections of one user.
    pub connections_per_peer_max: usize,
    /// Bytes of a request's head.
    pub header_bytes_max: usize,
    /// How long a head may take, and a connection idle.
    pub header_timeout: Duration,
    /// Bytes of a request's body.
    pub body_bytes_max: u64,
    /// How long a body may take to come, or any part of an answer to be taken.
    pub body_timeout: Duration,
    /// Bytes of all bodies in memory.
    pub bodies_bytes_max: u64,
    /// Requests that wait.
    pub waiters_max: usize,
    /// The longest wait.
    pub wait_max: Duration,
    /// Jobs of one batch that are waited for at one time.
    pub batch_waiting_max: usize,
    /// The group whose members may submit.
    pub group: Option<String>,
}

/// What is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// How much.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            count: 10_000,
            age: Duration::from_hours(24),
            bytes: 256 << 20,
        }
    }
}

impl Default for HttpBounds {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            connections_per_peer_max: 256,
            header_bytes_max: 64 << 10,
            header_timeout: Duration::from_secs(30),
            body_bytes_max: 96 << 20,
            body_timeout: Duration::from_mins(1),
            bodies_bytes_max: 512 << 20,
            waiters_max: 4_096,
            wait_max: Duration::from_hours(1),
            batch_waiting_max: 1_000,
            group: None,
        }
    }
}
