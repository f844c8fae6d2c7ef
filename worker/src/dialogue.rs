//! The words between a worker and the init of one job.
//!
//! ```text
//!   worker                          init
//!      │ ◀──────── Built │ Failed ── │   its namespaces and root stand
//!      │ ── Launch ────────────────▶ │
//!      │ ◀── Started │ NotExecuted ── │   or Failed: the job's process could not lock itself down
//!      │ ── Terminate, Kill ───────▶ │   at any moment after Started
//!      │ ◀──────────────────── Ended ── │   the tree is dead, init exits
//! ```
//!
//! Both are our code and trust each other; the framing is that of the worker's own pipes.
//!
//! # Invariants
//!
//! - The job's process has neither pipe: both are close-on-exec.

use serde::{Deserialize, Serialize};
use wpool_protocol::limits::Limits;

/// What the worker asks of an init.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Run this.
    Launch(Box<Launch>),
    /// SIGTERM to every process of the job.
    Terminate,
    /// SIGKILL to every process of the job.
    Kill,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Its limits.
    pub(crate) limits: Limits,
}

/// What an init tells its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The root stands.
    Built,
    /// A step failed; nothing of the job has run.
    Failed(String),
    /// The program runs: the pid of its process.
    Started(u32),
    /// The program could not be executed.
    NotExecuted {
        /// The errno.
        errno: i32,
        /// The file that the program needs and that is not there, if that is why.
        lacks: Option<String>,
    },
    /// Every process is dead.
    Ended(TreeEnd),
}

/// How a job's tree ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TreeEnd {
    /// How its first process ended.
    pub(crate) main: MainEnd,
    /// From the birth of its first process to the death of its last, µs.
    pub(crate) wall_us: u64,
    /// CPU time of all processes in their own code, µs.
    pub(crate) user_us: u64,
    /// CPU time of all processes in the kernel, µs.
    pub(crate) system_us: u64,
    /// The largest resident set that one of them had, bytes.
    pub(crate) resident_max_bytes: u64,
    /// Processes that were there when its first process had ended, that one included.
    pub(crate) processes_at_end: u32,
}

/// How a job's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MainEnd {
    /// It exited.
    Exited(u8),
    /// A signal ended it that no order of ours had sent before.
    Signaled(u8),
    /// It was alive when the worker's order to kill came.
    Killed,
}
