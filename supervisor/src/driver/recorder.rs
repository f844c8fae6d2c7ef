//! Where what must survive is made durable: the seam for the journal.
//!
//! Without one, memory is all there is, and a record is as durable as it will ever be at once.

use wpool_pool::action::{Record, RecordId};

/// Makes records durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recorder {
    /// In memory only.
    Memory,
}

/// When a record is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// Now.
    AtOnce,
}

impl Recorder {
    pub(super) fn record(self, id: RecordId, record: Record) -> Durable {
        tracing::trace!(record = id.0, ?record, "recorded");
        match self {
            Self::Memory => Durable::AtOnce,
        }
    }
}
