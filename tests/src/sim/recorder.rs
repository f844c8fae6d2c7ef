//! A recorder: what it is asked for becomes durable in order, sooner or later; a crash takes what is not.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use wpool_pool::action::{Record, RecordId};
use wpool_pool::time::Instant;
use wpool_protocol::id::JobId;

use crate::chance::Chance;
use crate::sim::knobs::Knobs;

/// The model of a recorder.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    last_asked: RecordId,
    /// When the last record becomes durable.
    last_at: Instant,
    /// What is asked for and not durable.
    pending: VecDeque<(Instant, Record)>,
    accepted: BTreeSet<JobId>,
    ended: BTreeSet<JobId>,
}

impl Recorder {
    pub(crate) const fn new() -> Self {
        Self {
            last_asked: RecordId(0),
            last_at: Instant::START,
            pending: VecDeque::new(),
            accepted: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    /// It is asked for a record now: when that becomes durable.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        (id, record): (RecordId, Record),
        knobs: &Knobs,
        chance: &mut Chance,
    ) -> Instant {
        let mut at = now.after(chance.within_ms(knobs.recorder_ms));
        if knobs.recorder_stalls > 0 && chance.permille(knobs.recorder_stalls) {
            at = at.after(Duration::from_millis(chance.between(1_000, 5_000)));
        }
        self.last_asked = id;
        self.last_at = self.last_at.max(at);
        self.pending.push_back((self.last_at, record));
        self.last_at
    }

    /// Whether it says nothing of a record that is durable now, as a later one will speak for it.
    pub(crate) fn leaves_out(&self, id: RecordId, knobs: &Knobs, chance: &mut Chance) -> bool {
        chance.permille(knobs.recorder_groups) && id < self.last_asked
    }

    /// Whoever writes the records has died: what is durable stays, and numbers begin anew.
    pub(crate) fn crash(&mut self, now: Instant) {
        self.write(now);
        self.pending.clear();
        (self.last_asked, self.last_at) = (RecordId(0), now);
    }

    /// What is durable now.
    pub(crate) fn write(&mut self, now: Instant) {
        while let Some((at, record)) = self.pending.front()
            && *at <= now
        {
            match record {
                Record::Accepted(id) => self.accepted.insert(*id),
                Record::Concluded(id, _) => self.ended.insert(*id),
            };
            self.pending.pop_front();
        }
    }

    pub(crate) fn is_accepted(&self, id: JobId) -> bool {
        self.accepted.contains(&id)
    }

    pub(crate) fn has_ended(&self, id: JobId) -> bool {
        self.ended.contains(&id)
    }
}
