//! What the operator asks of the pool as a whole; the courses are drawn in `course.rs`.

use core::time::Duration;

use alloc::vec::Vec;

use wpool_protocol::id::{JobId, SlotId};

use crate::action::{Actions, Conclusion, KillReason};
use crate::alarms::Alarm;
use crate::course::{Course, Request};
use crate::job::Stage;
use crate::pool::Pool;
use crate::settings::{Settings, TenantRules};
use crate::slot::Phase;

impl Pool {
    /// The new numbers hold from the next time they are looked at; moments that were set with the old ones stay.
    pub(super) fn change_settings(&mut self, settings: Settings) {
        self.admission.tolerate_present();
        self.settings = Settings {
            slots: self.settings.slots,
            ..settings
        };
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
        // All slots leave this phase together, so the first one speaks for all.
        let vacant = |phase: &Phase| matches!(phase, Phase::Vacant);
        if self.slots.first().is_some_and(|slot| vacant(&slot.phase)) {
            for id in self.slot_ids() {
                self.spawn(id, actions);
            }
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
            self.close_slots(actions);
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
        let waits = |stage: Stage| match stage {
            Stage::Ready | Stage::Delayed(_) => true,
            Stage::OnSlot(_) | Stage::Concluding => false,
        };
        let waiting: Vec<JobId> = self
            .jobs
            .values()
            .filter(|job| waits(job.stage))
            .map(|job| job.id)
            .collect();
        for id in waiting {
            self.conclude(id, Conclusion::Shutdown, actions);
        }
    }

    fn close_slots(&mut self, actions: &mut Actions) {
        for id in self.slot_ids() {
            match self.slot(id).phase {
                Phase::Vacant | Phase::Parked { .. } => self.enter(id, Phase::Closed),
                // It may not have got so far as to understand an order to retire.
                Phase::Starting { .. } => self.kill(id, KillReason::Shutdown, actions),
                Phase::Idle(_) => self.retire(id, actions),
                Phase::Loading(_)
                | Phase::Running(_)
                | Phase::Ending(_)
                | Phase::Retiring { .. }
                | Phase::Closed => {}
            }
        }
    }

    fn slot_ids(&self) -> impl Iterator<Item = SlotId> + use<> {
        (0..self.settings.slots).map(SlotId)
    }
}
