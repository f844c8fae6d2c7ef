//! A recorder: what it is asked for becomes durable in order, sooner or later.

use wpool_pool::action::RecordId;
use wpool_pool::time::Instant;

use crate::sim::chance::Chance;
use crate::sim::knobs::Knobs;

/// The model of a recorder.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    last_asked: RecordId,
    /// When the last record becomes durable.
    last_at: Instant,
}

impl Recorder {
    pub(crate) const fn new() -> Self {
        Self {
            last_asked: RecordId(0),
            last_at: Instant::START,
        }
    }

    /// It is asked for a record now: when that becomes durable.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        id: RecordId,
        knobs: &Knobs,
        chance: &mut Chance,
    ) -> Instant {
        let at = now.after(chance.within_ms(knobs.recorder_ms));
        self.last_asked = id;
        self.last_at = self.last_at.max(at);
        self.last_at
    }

    /// Whether it says nothing of a record that is durable now, as a later one will speak for it.
    pub(crate) fn leaves_out(&self, id: RecordId, knobs: &Knobs, chance: &mut Chance) -> bool {
        chance.permille(knobs.recorder_groups) && id < self.last_asked
    }
}
