//! What has been asked of the recorder and is not durable yet.
//!
//! # Invariants
//!
//! - Records become durable in the order they were asked for: one that is durable proves all before it.

use alloc::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::action::{Record, RecordId};

/// The records that are under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Records {
    asked: u64,
    pending: VecDeque<(RecordId, Record)>,
}

impl Records {
    /// Takes note of a record that is about to be asked for, and names it.
    pub(crate) fn ask(&mut self, record: Record) -> RecordId {
        self.asked += 1;
        let id = RecordId(self.asked);
        self.pending.push_back((id, record));
        id
    }

    /// Whether this record has been asked for and is not durable yet.
    pub(crate) fn is_pending(&self, id: RecordId) -> bool {
        id.0 <= self.asked && self.pending.front().is_some_and(|&(first, _)| first <= id)
    }

    /// Takes out the first record that is durable now that `id` is.
    pub(crate) fn take_durable(&mut self, id: RecordId) -> Option<Record> {
        if !self.is_pending(id) {
            return None;
        }
        self.pending.pop_front().map(|(_, record)| record)
    }

    /// What is under way, in order.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Record> {
        self.pending.iter().map(|(_, record)| record)
    }
}

#[cfg(test)]
mod tests {
    use wpool_protocol::id::JobId;

    use super::*;

    #[test]
    fn a_durable_record_proves_all_before_it_and_none_after() {
        let mut records = Records::default();
        let ids = [1, 2, 3].map(|job| records.ask(Record::Accepted(JobId(job))));
        assert_eq!(
            records.take_durable(ids[1]),
            Some(Record::Accepted(JobId(1)))
        );
        assert_eq!(
            records.take_durable(ids[1]),
            Some(Record::Accepted(JobId(2)))
        );
        assert_eq!(records.take_durable(ids[1]), None);
        assert_eq!(records.pending().count(), 1);
    }

    #[test]
    fn a_record_that_was_never_asked_for_proves_nothing() {
        let mut records = Records::default();
        records.ask(Record::Accepted(JobId(1)));
        assert_eq!(records.take_durable(RecordId(2)), None);
        assert_eq!(records.take_durable(RecordId(0)), None);
    }
}
