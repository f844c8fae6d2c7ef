//! What has become due.

use wpool_protocol::id::{JobId, SlotId};

use crate::action::{Actions, Conclusion, KillReason};
use crate::alarms::Alarm;
use crate::pool::Pool;
use crate::run::Due;
use crate::slot::Phase;

impl Pool {
    pub(super) fn fire_alarms(&mut self, actions: &mut Actions) {
        while let Some(alarm) = self.alarms.take_due(self.now) {
            match alarm {
                Alarm::Slot(id) => self.wake_slot(id, actions),
                Alarm::Age(id) => self.end_age(id),
                Alarm::Promote(id) => self.promote(id),
                Alarm::Expire(id) => self.expire(id, actions),
                Alarm::Grace => self.end_grace(actions),
            }
        }
    }

    /// A job has waited too long for its first start. Had it started or ended, the alarm would be gone.
    fn expire(&mut self, id: JobId, actions: &mut Actions) {
        self.conclude(id, Conclusion::Expired, actions);
    }

    fn wake_slot(&mut self, id: SlotId, actions: &mut Actions) {
        match self.slot(id).phase {
            Phase::Starting { .. } => self.kill(id, KillReason::NotReady, actions),
            Phase::Loading(run) | Phase::Running(run) => match run.due(self.now) {
                Due::Kill(reason) => self.kill(id, reason, actions),
                Due::Ping => self.ping(id, actions),
                Due::Nothing => {}
            },
            Phase::Retiring { .. } => self.kill(id, KillReason::RetireIgnored, actions),
            // The spare's, when nothing is due any more.
            Phase::Parked { .. } if !self.keeps(id) => self.enter(id, Phase::Closed),
            Phase::Parked { .. } => {
                self.change(id, |slot| slot.breaker.probe());
                self.spawn(id, actions);
            }
            Phase::Vacant | Phase::Idle(_) | Phase::Ending(_) | Phase::Closed => {}
        }
    }
}
