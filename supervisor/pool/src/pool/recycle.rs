//! The way of planned replacements; what is due, and whose turn it is, is drawn in `recycling.rs`.
//!
//! # Invariants
//!
//! - Nothing here ends a run: only an idle worker is told to go.

use alloc::vec::Vec;
use core::time::Duration;

use wpool_protocol::id::SlotId;

use crate::action::{Actions, KillReason};
use crate::alarms::{Alarm, later};
use crate::pool::Pool;
use crate::restart::Breaker;
use crate::slot::{Phase, Slot};
use crate::time::Instant;

impl Pool {
    /// Every worker is to be replaced.
    pub(super) fn recycle_all(&mut self) {
        let last = self.settings.slots;
        for slot in self.slots.iter().filter(|slot| slot.phase.is_up()) {
            if slot.worker.slot.0 < last {
                self.recycling.add(slot.worker.slot);
            }
        }
    }

    /// A worker is as old as it may become.
    pub(super) fn end_age(&mut self, id: SlotId) {
        self.change(id, |slot| slot.recycle_at = None);
        if id.0 < self.settings.slots {
            self.recycling.add(id);
        }
    }

    /// A job has ended in this slot: its worker may have had its share.
    pub(super) fn count_job(&mut self, id: SlotId) {
        let jobs = self.change(id, |slot| {
            slot.jobs_of_worker += 1;
            slot.jobs_of_worker
        });
        let is_enough = self.settings.recycle_jobs.is_some_and(|most| jobs >= most);
        if is_enough && id.0 < self.settings.slots {
            self.recycling.add(id);
        }
    }

    /// A new worker is on its way.
    pub(super) fn begin_worker(&mut self, id: SlotId) {
        self.recycling.is_born(id);
        self.change(id, |slot| slot.jobs_of_worker = 0);
    }

    /// The worker is up: its age counts from now on.
    pub(super) fn begin_age(&mut self, id: SlotId) {
        self.recycling.is_up(id);
        let now = self.now;
        self.change(id, |slot| slot.up_since = now);
        self.set_age(id);
    }

    /// Another age may hold: for every worker that is up, from when it came up.
    pub(super) fn set_ages(&mut self) {
        let is_up = |slot: &&Slot| slot.phase.is_up();
        let up = self.slots.iter().filter(is_up);
        let up: Vec<SlotId> = up.map(|slot| slot.worker.slot).collect();
        for id in up {
            self.set_age(id);
        }
    }

    fn set_age(&mut self, id: SlotId) {
        let at = |age| {
            self.slot(id)
                .up_since
                .after(age)
                .max(later(self.now, Duration::ZERO))
        };
        let at = self.settings.recycle_age.map(at);
        self.set_recycle_at(id, at);
    }

    /// When the slot's worker is as old as it may become, if it may not live for ever.
    pub(super) fn set_recycle_at(&mut self, id: SlotId, at: Option<Instant>) {
        let old = self.change(id, |slot| core::mem::replace(&mut slot.recycle_at, at));
        if let Some(old) = old {
            self.alarms.clear(old, Alarm::Age(id));
        }
        if let Some(at) = at {
            self.alarms.set(at, Alarm::Age(id));
        }
    }

    /// The next step of whatever is due, once an event has been taken in.
    pub(super) fn go_on_recycling(&mut self, actions: &mut Actions) {
        if self.course.ends() {
            return;
        }
        let spare = self.spare();
        let place = usize::from(spare.0);
        if !self.recycling.is_under_way() {
            if place < self.slots.len() {
                self.close_slot(spare, KillReason::Shrunk, actions);
            }
            return;
        }
        self.add_slots(spare.0.saturating_add(1));
        match self.slot(spare).phase {
            Phase::Vacant | Phase::Closed => {
                self.change(spare, |slot| slot.breaker = Breaker::default());
                self.spawn(spare, actions);
            }
            Phase::Idle(_) | Phase::Loading(_) | Phase::Running(_) => {
                let is_idle = |id: &SlotId| matches!(self.slot(*id).phase, Phase::Idle(_));
                let next = self.recycling.due().find(is_idle);
                if let (None, Some(next)) = (self.recycling.turn(), next) {
                    self.recycling.begin(next);
                    self.retire(next, actions);
                }
            }
            Phase::Starting { .. }
            | Phase::Ending(_)
            | Phase::Retiring { .. }
            | Phase::Parked { .. } => {}
        }
    }

    /// The slot that stands in for the one that has its turn.
    pub(crate) const fn spare(&self) -> SlotId {
        SlotId(self.settings.slots)
    }
}
