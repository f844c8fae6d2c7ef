//! The jobs that could start now, and which of them is next.
//!
//! Three classes; within one, the higher rank first, then the earlier arrival. A class goes before the
//! ones below it, but not to their starvation:
//!
//! # The share rule
//!
//! Of every `share_period` starts, at least one goes to each lower class that waits. So the head of a
//! class, from the moment it is the head, is among the next `share_period` starts.
//!
//! Each lower class counts the starts that passed it over; its *slack* is how many more may. Two lower
//! classes may run out of slack together, and one start cannot serve both: so with the slacks in
//! ascending order, the lowest is served as soon as the j-th of them is below j. A period of less than
//! one start for each class could not be kept, or would starve the highest: it is taken as 3.
//!
//! # What is not here
//!
//! Tenants: when they share a class by weight, each will have its own order of `(rank, arrival)`
//! inside [`Class`], and nothing else here changes.

use core::cmp::Reverse;

use alloc::collections::BTreeMap;

use wpool_protocol::id::JobId;
use wpool_protocol::job::Priority;

/// The least period that gives every class a start: one each.
pub(crate) const SHARE_PERIOD_MIN: u32 = 3;

/// The jobs that could start now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    high: Class,
    normal: Class,
    low: Class,
}

/// The waiting jobs of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Class {
    jobs: BTreeMap<Place, JobId>,
    /// Starts that passed this class over since its head became its head.
    passed: u32,
    /// Jobs of this class that may not start yet: only counted here.
    delayed: u64,
}

/// Where a job stands within its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    rank: Reverse<i32>,
    arrival: u64,
}

impl Place {
    pub(crate) const fn new(rank: i32, arrival: u64) -> Self {
        Self {
            rank: Reverse(rank),
            arrival,
        }
    }
}

impl Queue {
    pub(crate) fn insert(&mut self, priority: Priority, place: Place, id: JobId) {
        self.class_mut(priority).jobs.insert(place, id);
    }

    /// Takes out a job that will not start now: nobody was passed over.
    pub(crate) fn remove(&mut self, priority: Priority, place: Place) {
        let class = self.class_mut(priority);
        class.jobs.remove(&place);
        if class.jobs.is_empty() {
            class.passed = 0;
        }
    }

    /// Takes out the job that starts next.
    pub(crate) fn take_next(&mut self, share_period: u32) -> Option<JobId> {
        let priority = self.next_class(share_period)?;
        let class = self.class_mut(priority);
        let (_, id) = class.jobs.pop_first()?;
        class.passed = 0;
        for other in Priority::ALL {
            let class = self.class_mut(other);
            if other != priority && !class.jobs.is_empty() {
                class.passed = class.passed.saturating_add(1);
            }
        }
        Some(id)
    }

    /// Whether this job waits here at this place.
    pub(crate) fn contains(&self, priority: Priority, place: Place, id: JobId) -> bool {
        self.class(priority).jobs.get(&place) == Some(&id)
    }

    pub(crate) fn len(&self) -> usize {
        Priority::ALL
            .map(|priority| self.len_of(priority))
            .iter()
            .sum()
    }

    pub(crate) fn len_of(&self, priority: Priority) -> usize {
        self.class(priority).jobs.len()
    }

    /// A job of this class waits elsewhere, for its time.
    pub(crate) const fn delay(&mut self, priority: Priority) {
        let class = self.class_mut(priority);
        class.delayed += 1;
    }

    /// Its time has come, or it has ended.
    pub(crate) const fn undelay(&mut self, priority: Priority) {
        let class = self.class_mut(priority);
        class.delayed = class.delayed.saturating_sub(1);
    }

    pub(crate) const fn delayed_of(&self, priority: Priority) -> u64 {
        self.class(priority).delayed
    }

    /// How often each class has been passed over, highest class first.
    pub(crate) fn passed(&self) -> [u32; 3] {
        Priority::ALL.map(|priority| self.class(priority).passed)
    }

    /// Puts back what [`Queue::passed`] said, once the jobs are in.
    pub(crate) fn set_passed(&mut self, passed: [u32; 3]) {
        for (priority, passed) in Priority::ALL.into_iter().zip(passed) {
            self.class_mut(priority).passed = passed;
        }
    }

    fn next_class(&self, share_period: u32) -> Option<Priority> {
        let highest = Priority::ALL
            .into_iter()
            .find(|&priority| !self.class(priority).jobs.is_empty())?;
        let period = share_period.max(SHARE_PERIOD_MIN);
        let slack = |priority| {
            let class: &Class = self.class(priority);
            (!class.jobs.is_empty()).then(|| period.saturating_sub(class.passed.saturating_add(1)))
        };
        let urgent = match (slack(Priority::Normal), slack(Priority::Low)) {
            (Some(normal), Some(low)) if normal.min(low) == 0 || normal.max(low) <= 1 => {
                Some(if low < normal {
                    Priority::Low
                } else {
                    Priority::Normal
                })
            }
            (None, Some(0)) => Some(Priority::Low),
            (Some(0), None) => Some(Priority::Normal),
            (Some(_) | None, Some(_) | None) => None,
        };
        Some(urgent.unwrap_or(highest))
    }

    const fn class(&self, priority: Priority) -> &Class {
        match priority {
            Priority::High => &self.high,
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        }
    }

    const fn class_mut(&mut self, priority: Priority) -> &mut Class {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
            Priority::Low => &mut self.low,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn within_a_class_rank_goes_first_and_then_arrival() {
        let mut queue = Queue::default();
        for (job, rank) in [(1, 0), (2, 5), (3, 5), (4, -1)] {
            queue.insert(Priority::Normal, Place::new(rank, job), JobId(job));
        }
        let order: Vec<_> = core::iter::from_fn(|| queue.take_next(10)).collect();
        assert_eq!(order, [2, 3, 1, 4].map(JobId));
    }

    #[test]
    fn behind_an_endless_stream_of_high_each_lower_class_gets_one_start_in_ten() {
        let mut queue = Queue::default();
        for job in 0..1_000 {
            let priority = Priority::ALL[usize::try_from(job % 3).unwrap()];
            queue.insert(priority, Place::new(0, job), JobId(job));
        }
        let first: Vec<_> = core::iter::from_fn(|| queue.take_next(10))
            .take(100)
            .collect();
        for tenth in first.chunks(10) {
            let of = |class| tenth.iter().filter(|id| id.0 % 3 == class).count();
            assert_eq!((of(0), of(1), of(2)), (8, 1, 1));
        }
    }

    fn arb_priority() -> impl Strategy<Value = Priority> {
        prop::sample::select(Priority::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn the_head_of_a_class_is_among_the_next_share_period_starts(
            steps in prop::collection::vec(prop_oneof![
                3 => Just(None),
                1 => (arb_priority(), -1i32..2).prop_map(Some),
            ], 1..400),
            share_period in 0u32..12,
        ) {
            let bound = share_period.max(SHARE_PERIOD_MIN);
            let mut queue = Queue::default();
            let mut of = BTreeMap::new();
            let mut waited = [0u32; 3];
            for (arrival, step) in (0u64..).zip(steps) {
                let Some((priority, rank)) = step else {
                    let Some(id) = queue.take_next(share_period) else { continue };
                    for (priority, waited) in Priority::ALL.into_iter().zip(&mut waited) {
                        if of[&id] == priority {
                            prop_assert!(*waited < bound || priority == Priority::High);
                            *waited = 0;
                        } else if queue.len_of(priority) > 0 {
                            *waited += 1;
                            prop_assert!(*waited < bound || priority == Priority::High);
                        }
                    }
                    continue;
                };
                queue.insert(priority, Place::new(rank, arrival), JobId(arrival));
                of.insert(JobId(arrival), priority);
            }
        }
    }
}
