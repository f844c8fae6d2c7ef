//! What workers do, as the driver hears of it.

use wpool_protocol::id::{AttemptRef, WorkerRef};
use wpool_protocol::wire::FromWorker;

use super::collect::Collected;
use super::link::Exit;

/// Something that a worker did, or that was done about one elsewhere.
#[derive(Debug)]
pub(super) enum Input {
    /// It said something.
    Said(WorkerRef, FromWorker),
    /// It sent something that is no message.
    Garbled(WorkerRef, String),
    /// Its process has ended.
    Exited(WorkerRef, Exit),
    /// What its job wrote and brought out has been read.
    Collected(WorkerRef, AttemptRef, Box<Collected>),
}
