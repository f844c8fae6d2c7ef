//! What the operator asks of the pool as a whole; the courses are drawn in `course.rs`.

use core::time::Duration;

use alloc::vec::Vec;

use wpool_protocol::id::{JobId, SlotId};

use crate::action::{Actions, Conclusion, KillReason};
use crate::alarms::Alarm;
use crate::course::{Course, Request};
use crate::pool::Pool;
use crate::restart::Breaker;
use crate::settings::{Settings, TenantRules};
use crate::slot::{Phase, Slot};

impl Pool {
    /// The new numbers hold from the next time they are looked at; moments that were set with the old ones stay, but for the age at
    /// which workers are replaced.
    pub(super) fn change_settings(&mut self, settings: &Settings) {
        self.admission.tolerate_present();
        self.settings = Settings {
            slots: self.settings.slots,
            ..*settings
        };
        self.set_ages();
    }

    /// The new rules hold at once: whoever runs more jobs than they may now starts none before it is fewer.
    pub(super) fn change_tenant_rules(&mut self, rules: TenantRules) {
        self.tenants.set_rules(rules);
        self.queue.reweigh(&self.tenants);
        let known: Vec<_> = self.tenants.iter().map(|(id, _)| id).collect();
        for id in known {
            self.hold_if_at_limit(id);
        }
    }

    /// The first event: every slot gets its worker.
    pub(super) fn spawn_first_workers(&mut self, actions: &mut Actions) {
        if !self.has_begun() {
            for id in self.slot_ids() {
                if self.keeps(id) {
                    self.spawn(id, actions);
                }
            }
        }
    }

    /// Whether the first event has been taken in: all slots left their first phase with it, so one speaks for all.
    fn has_begun(&self) -> bool {
        let first = self.slots.first();
        first.is_none_or(|slot| !matches!(slot.phase, Phase::Vacant))
    }

    /// Slots beyond the first `slots` end when their jobs have; those that are missing come.
    pub(super) fn resize(&mut self, slots: u16, actions: &mut Actions) {
        self.settings.slots = slots.max(1);
        self.recycling.forget_beyond(self.settings.slots);
        let has_begun = self.has_begun();
        self.add_slots(self.settings.slots);
        if !has_begun {
            return;
        }
        for id in self.slot_ids() {
            match (self.keeps(id), self.slot(id).phase) {
                (true, Phase::Vacant | Phase::Closed) => {
                    // What once parked it was another time.
                    self.change(id, |slot| slot.breaker = Breaker::default());
                    self.spawn(id, actions);
                }
                (true, _) => {}
                (false, _) => self.close_slot(id, KillReason::Shrunk, actions),
            }
        }
    }

    /// Makes sure that there are so many slots at least.
    pub(super) fn add_slots(&mut self, slots: u16) {
        let there = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        let missing = (there..slots).map(|id| Slot::new(SlotId(id)));
        self.slots.extend(missing);
    }

    /// Ends the oldest jobs that wait.
    pub(super) fn clear(&mut self, submitted: u64, most: u32, actions: &mut Actions) {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        // Ids are given in the order of arrival.
        let old = self.jobs.iter().take_while(|job| job.arrival < submitted);
        let old = old.filter(|job| job.stage.waits());
        let ids: Vec<JobId> = old.map(|job| job.id).take(most).collect();
        for id in ids {
            self.conclude(id, Conclusion::Cleared, actions);
        }
    }

    pub(super) fn shut_down(&mut self, grace: Duration, actions: &mut Actions) {
        let before = self.course;
        let kill_at = self.now.after(grace);
        self.course = before.after(Request::Shutdown { kill_at });
        if let Course::Stopping { kill_at: old } = before {
            self.alarms.clear(old, Alarm::Grace);
        }
        if let Course::Stopping { kill_at } = self.course {
            self.alarms.set(kill_at, Alarm::Grace);
        }
        if !before.ends() {
            self.conclude_waiting(actions);
            for id in self.slot_ids() {
                self.close_slot(id, KillReason::Shutdown, actions);
            }
        }
    }

    /// The grace of a shutdown is over: whatever still lives is killed.
    pub(super) fn end_grace(&mut self, actions: &mut Actions) {
        self.course = self.course.after(Request::EndOfGrace);
        for id in self.slot_ids() {
            self.kill(id, KillReason::Shutdown, actions);
        }
    }

    fn conclude_waiting(&mut self, actions: &mut Actions) {
        let waiting = self.jobs.iter().filter(|job| job.stage.waits());
        let waiting: Vec<JobId> = waiting.map(|job| job.id).collect();
        for id in waiting {
            self.conclude(id, Conclusion::Shutdown, actions);
        }
    }

    /// A slot that is not to have a worker any more: a job in it may end.
    pub(super) fn close_slot(&mut self, id: SlotId, reason: KillReason, actions: &mut Actions) {
        match self.slot(id).phase {
            Phase::Vacant | Phase::Parked { .. } => self.enter(id, Phase::Closed),
            // It may not have got so far as to understand an order to retire.
            Phase::Starting { .. } => self.kill(id, reason, actions),
            Phase::Idle(_) => self.retire(id, actions),
            Phase::Loading(_)
            | Phase::Running(_)
            | Phase::Ending(_)
            | Phase::Retiring { .. }
            | Phase::Closed => {}
        }
    }

    fn slot_ids(&self) -> impl Iterator<Item = SlotId> + use<> {
        let count = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        (0..count).map(SlotId)
    }
}
