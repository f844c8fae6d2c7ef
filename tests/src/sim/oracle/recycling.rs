//! What is promised about planned replacements: one slot at a time, only when it is idle, and only while another stands in for it.

use std::collections::BTreeSet;
use std::time::Duration;

use wpool_pool::time::Instant;
use wpool_protocol::id::SlotId;

use crate::sim::oracle::seats::{Seated, by};
use crate::sim::oracle::{Oracle, Verdict};

/// What is to be replaced, as an onlooker keeps it.
#[derive(Clone, Debug, Default)]
pub(super) struct Recycling {
    due: BTreeSet<SlotId>,
    turn: Option<SlotId>,
    /// Whether the spare was needed by what the event said, before time was looked at.
    pub(super) was_needed: bool,
}

/// The life of a worker, as far as it counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wear {
    pub(super) jobs: u64,
    pub(super) up_at: Option<Instant>,
    pub(super) old_at: Option<Instant>,
}

impl Recycling {
    pub(super) fn forget_beyond(&mut self, slots: u16) {
        self.due.retain(|slot| slot.0 < slots);
        self.turn = self.turn.filter(|slot| slot.0 < slots);
    }

    pub(super) fn born(&mut self, slot: SlotId) {
        self.due.remove(&slot);
    }

    pub(super) fn up(&mut self, slot: SlotId) {
        if self.turn == Some(slot) {
            self.turn = None;
        }
    }
}

impl Oracle {
    /// The slot that stands in, if one is needed.
    pub(super) fn spare(&self) -> Option<SlotId> {
        let needed = self.recycling.turn.is_some() || !self.recycling.due.is_empty();
        needed.then_some(SlotId(self.settings.slots))
    }

    /// Whether the worker of a slot may be sent away for nothing that it did.
    pub(super) fn may_go(&self, slot: SlotId) -> bool {
        let by_event = slot == SlotId(self.settings.slots) && !self.recycling.was_needed;
        by_event || !self.is_wanted(slot)
    }

    /// Whether the worker in a slot can take jobs, or has one.
    fn is_up(&self, slot: SlotId) -> bool {
        let seat = self.seats.get(&slot);
        seat.is_some_and(|seat| matches!(seat.state, Seated::Free | Seated::Busy(_)))
    }

    pub(super) fn hear_recycling(&mut self) {
        let all = (0..self.settings.slots).map(SlotId);
        let up: Vec<_> = all.filter(|slot| self.is_up(*slot)).collect();
        self.recycling.due.extend(up);
    }

    /// Time has passed: some workers may be old.
    pub(super) fn hear_age(&mut self) {
        let now = self.now;
        for seat in self.seats.values_mut() {
            if seat.wear.old_at.is_some_and(|at| at <= now) {
                seat.wear.old_at = None;
                if seat.worker.slot.0 < self.settings.slots {
                    self.recycling.due.insert(seat.worker.slot);
                }
            }
        }
    }

    /// Another age may hold, for those who are up already, too.
    pub(super) fn hear_other_age(&mut self) {
        let (now, age) = (self.now, self.settings.recycle_age);
        for seat in self.seats.values_mut() {
            if let (Seated::Free | Seated::Busy(_), Some(up_at)) = (&seat.state, seat.wear.up_at) {
                let old_at = |age| up_at.after(age).max(by(now, Duration::ZERO));
                seat.wear.old_at = age.map(old_at);
            }
        }
    }

    pub(super) fn hear_worn(&mut self, slot: SlotId) {
        let most = self.settings.recycle_jobs;
        let Some(seat) = self.seats.get_mut(&slot) else {
            return;
        };
        seat.wear.jobs += 1;
        if most.is_some_and(|most| seat.wear.jobs >= most) && slot.0 < self.settings.slots {
            self.recycling.due.insert(slot);
        }
    }

    /// An idle worker of a slot that is to stay is told to go.
    pub(super) fn judge_recycling(&mut self, slot: SlotId) -> Verdict {
        require!(
            self.recycling.due.remove(&slot),
            "the worker of slot {slot} is retired without need"
        );
        require!(
            self.recycling.turn.is_none(),
            "slots {:?} and {slot} are recycled at one time",
            self.recycling.turn
        );
        self.recycling.turn = Some(slot);
        let spare = SlotId(self.settings.slots);
        require!(
            self.is_up(spare),
            "slot {slot} is recycled and nobody stands in for it"
        );
        self.summary.recycled += 1;
        Ok(())
    }

    /// What could be replaced has been.
    pub(super) fn settle_recycling(&self) -> Verdict {
        let Some(spare) = self.spare().filter(|_| self.kill_at.is_none()) else {
            return Ok(());
        };
        let free = |slot: &&SlotId| {
            let seat = self.seats.get(slot);
            seat.is_some_and(|seat| matches!(seat.state, Seated::Free))
        };
        let next = self.recycling.due.iter().find(free);
        require!(
            self.recycling.turn.is_some() || !self.is_up(spare) || next.is_none(),
            "slot {next:?} is idle and due, and is not recycled"
        );
        Ok(())
    }
}
