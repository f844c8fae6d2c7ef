//! The resource limits of this process itself, inherited from whoever started it: raised as far as may be, and refused in one
//! line where that is not enough. What jobs may use is another matter, and set by the worker.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wpool_protocol::quantity::ByteSize;

/// Open files that are asked for: the usual 1024 are fewer than the connections that the config allows.
const OPEN_FILES: u64 = 65_536;

/// What a worker takes: its pipes, its pidfd, its output store, and what its birth takes for a while.
const OPEN_FILES_PER_WORKER: u64 = 16;

/// What is open beside: sockets, signals, timers, logs, and connections of a few clients.
const OPEN_FILES_BESIDE: u64 = 64;

/// Memory files count too: the output store, and the copy of wpool's own program.
const FILE_SIZE: ByteSize = ByteSize::gib(1);

/// A limit is too low to work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLow {
    /// Of open files.
    #[error(
        "only {have} files may be open, and {workers} worker(s) need {need}: raise the limit (`ulimit -n`, `LimitNOFILE=` of a unit)"
    )]
    OpenFiles {
        /// The limit.
        have: u64,
        /// For whom it is too low.
        workers: u16,
        /// What is enough.
        need: u64,
    },
    /// Of a file's size.
    #[error(
        "files may have at most {have}, and wpool's own need {FILE_SIZE}: raise the limit (`ulimit -f`, `LimitFSIZE=` of a unit)"
    )]
    FileSize {
        /// The limit.
        have: ByteSize,
    },
}

/// Raises what can be raised, and looks whether that is enough for so many workers.
///
/// # Errors
///
/// [`TooLow`] if not even the workers could be born.
pub fn raise(workers: u16) -> Result<(), TooLow> {
    if let Some(have) = raised(Resource::Fsize, None).filter(|have| *have < FILE_SIZE.0) {
        return Err(TooLow::FileSize {
            have: ByteSize(have),
        });
    }
    let need = OPEN_FILES_BESIDE + OPEN_FILES_PER_WORKER * u64::from(workers);
    match raised(Resource::Nofile, Some(OPEN_FILES)).filter(|have| *have < need) {
        None => Ok(()),
        Some(have) => Err(TooLow::OpenFiles {
            have,
            workers,
            need,
        }),
    }
}

/// The limit, `None` if there is none, after it was raised to `wanted` or as far as may be.
fn raised(resource: Resource, wanted: Option<u64>) -> Option<u64> {
    let limit = getrlimit(resource);
    let target = match (limit.maximum, wanted) {
        (Some(max), Some(wanted)) => Some(max.min(wanted)),
        (max, wanted) => max.or(wanted),
    };
    let current = limit.current?;
    if target.is_some_and(|target| target <= current) {
        return Some(current);
    }
    let higher = Rlimit {
        current: target,
        maximum: limit.maximum,
    };
    match setrlimit(resource, higher) {
        Ok(()) => target,
        Err(error) => {
            tracing::warn!(?resource, %error, "a resource limit cannot be raised");
            Some(current)
        }
    }
}
