//! When the pool wants to be woken, and what for.
//!
//! A job has at most two alarms and so has a slot, so that what is set can be told from the
//! job or the slot alone and nothing needs to remember it: see [`Job`](crate::job::Job) and
//! [`Slot::alarm`](crate::slot::Slot::alarm).
//!
//! # Invariants
//!
//! - Every alarm is set for later than the moment at which it is set: what fires makes progress. (That of
//!   a shutdown without grace is not, and fires with the same event, once.)

use core::time::Duration;

use alloc::collections::BTreeSet;

use wpool_protocol::id::{JobId, SlotId};

use crate::time::Instant;

/// The alarms that are set, first to fire first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alarms {
    set: BTreeSet<(Instant, Alarm)>,
}

/// What an alarm is for; of those at one moment the upper ones fire first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    /// A slot has waited long enough for something.
    Slot(SlotId),
    /// A worker is as old as it may become.
    Age(SlotId),
    /// A job's delay is over.
    Promote(JobId),
    /// A job has waited too long for its start.
    Expire(JobId),
    /// The grace of a shutdown is over.
    Grace,
}

impl Alarms {
    pub(crate) fn set(&mut self, at: Instant, alarm: Alarm) {
        self.set.insert((at, alarm));
    }

    pub(crate) fn clear(&mut self, at: Instant, alarm: Alarm) {
        self.set.remove(&(at, alarm));
    }

    pub(crate) fn contains(&self, at: Instant, alarm: Alarm) -> bool {
        self.set.contains(&(at, alarm))
    }

    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }

    /// When the first alarm fires.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.set.first().map(|&(at, _)| at)
    }

    /// Takes out the first alarm that is due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Alarm> {
        let &(at, _) = self.set.first()?;
        if at > now {
            return None;
        }
        self.set.pop_first().map(|(_, alarm)| alarm)
    }
}

/// The moment `wait` after `now`, and in any case a later one.
pub(crate) fn later(now: Instant, wait: Duration) -> Instant {
    now.after(wait.max(Duration::from_nanos(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::new(Duration::from_nanos(nanos))
    }

    #[test]
    fn alarms_fire_in_order_and_not_before_they_are_due() {
        let mut alarms = Alarms::default();
        alarms.set(at(20), Alarm::Grace);
        alarms.set(at(10), Alarm::Expire(JobId(1)));
        alarms.set(at(10), Alarm::Promote(JobId(1)));
        assert_eq!(alarms.first(), Some(at(10)));
        assert_eq!(alarms.take_due(at(9)), None);
        assert_eq!(alarms.take_due(at(15)), Some(Alarm::Promote(JobId(1))));
        assert_eq!(alarms.take_due(at(15)), Some(Alarm::Expire(JobId(1))));
        assert_eq!(alarms.take_due(at(15)), None);
        alarms.clear(at(20), Alarm::Grace);
        assert_eq!(alarms.first(), None);
    }

    #[test]
    fn no_wait_is_still_a_wait() {
        assert!(later(at(5), Duration::ZERO) > at(5));
        assert_eq!(later(at(5), Duration::from_nanos(7)), at(12));
    }
}
