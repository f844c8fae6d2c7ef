//! The jobs that could start now, and which of them is next.
//!
//! Three classes; within one, tenants share by weight (`queue/class.rs`); within a tenant the higher rank first, then the
//! earlier arrival. A class goes before the ones below it, but not to their starvation:
//!
//! # The share rule
//!
//! Of every `share_period` starts at which a lower class waits, at least one goes to it. A class waits while a job of it could
//! start now: one whose tenants are all at their running limits does not, but what passed it over before still counts when
//! it waits again. Only a class without jobs begins anew.
//!
//! Each lower class counts the starts that passed it over; its *slack* is how many more may. Two lower
//! classes may run out of slack together, and one start cannot serve both: so when both have a slack of one at most, one
//! is served, even if the other does not wait just now: it may the next moment. A period of less than
//! one start for each class could not be kept, or would starve the highest: it is taken as 3.
//!
//! # Invariants
//!
//! - Every job here is past its delay, and none is due of a tenant that runs as many as it may.
//! - The order depends on what was put in and taken out alone: no time, no chance.

use core::cmp::Reverse;

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use wpool_protocol::id::JobId;
use wpool_protocol::job::Priority;

use crate::tenants::{Freedom, TenantId, Tenants};

mod class;
mod lanes;
pub(crate) mod outlook;

use class::{Class, Passes};
use outlook::{ClassOutlook, Held};

/// The least period that gives every class a start: one each.
const SHARE_PERIOD_MIN: u32 = 3;

/// The jobs that could start now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    high: Waiting,
    normal: Waiting,
    low: Waiting,
    /// Tenants that a class has forgotten since somebody asked.
    forgotten: Vec<TenantId>,
}

/// A class, and how it stands among the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Waiting {
    class: Class,
    /// Starts at which it waited, since one was its own, that passed it over.
    passed: u32,
    /// Jobs of this class that may not start yet: only counted here.
    delayed: u64,
}

/// What of the queue cannot be told from its jobs; highest class first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing([(u32, Passes); 3]);

/// Where a job stands within its class and tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    rank: Reverse<i32>,
    arrival: u64,
}

/// Where a job is in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) priority: Priority,
    pub(crate) tenant: TenantId,
    pub(crate) place: Place,
}

impl Place {
    pub(crate) const fn new(rank: i32, arrival: u64) -> Self {
        Self {
            rank: Reverse(rank),
            arrival,
        }
    }
}

impl Waiting {
    fn state(&self) -> ClassState {
        if self.class.is_due() {
            ClassState::Due
        } else if self.class.len() > 0 {
            ClassState::Held
        } else {
            ClassState::Empty
        }
    }
}

impl Standing {
    /// Every tenant that is named in it.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = TenantId> {
        self.0.iter().flat_map(|(_, passes)| passes.tenants())
    }
}

impl Queue {
    pub(crate) fn insert(&mut self, spot: Spot, tenants: &Tenants, id: JobId) {
        let freedom = tenants.get(spot.tenant).freedom();
        let class = &mut self.waiting_mut(spot.priority).class;
        class.insert(spot.tenant, freedom, spot.place, id);
    }

    /// Takes out a job that will not start now: nobody was passed over.
    pub(crate) fn remove(&mut self, spot: Spot) {
        let class = &mut self.waiting_mut(spot.priority).class;
        class.remove(spot.tenant, spot.place);
        self.settle();
    }

    /// Takes out the job that starts next.
    pub(crate) fn take_next(&mut self, share_period: u32, tenants: &Tenants) -> Option<JobId> {
        let priority = next_class(
            Priority::ALL.map(|priority| self.waiting(priority).state()),
            Priority::ALL.map(|priority| self.waiting(priority).passed),
            share_period,
        )?;
        let weight = |tenant| tenants.get(tenant).rule.weight;
        let waiting = self.waiting_mut(priority);
        let id = waiting.class.take_next(weight)?;
        for other in Priority::ALL {
            let waiting = self.waiting_mut(other);
            waiting.passed = passed_after(
                waiting.passed,
                waiting.state(),
                if other == priority {
                    Went::Here
                } else {
                    Went::Elsewhere
                },
            );
        }
        self.settle();
        Some(id)
    }

    /// A tenant has come to its running limit, or beneath it.
    pub(crate) fn set_freedom(&mut self, tenant: TenantId, freedom: Freedom) {
        for priority in Priority::ALL {
            self.waiting_mut(priority)
                .class
                .set_freedom(tenant, freedom);
        }
        self.settle();
    }

    /// What tenants may take has changed.
    pub(crate) fn reweigh(&mut self, tenants: &Tenants) {
        for priority in Priority::ALL {
            let class = &mut self.waiting_mut(priority).class;
            class.reweigh(|tenant| tenants.get(tenant).rule.weight);
        }
        self.settle();
    }

    /// Whether this job waits here at this place.
    pub(crate) fn contains(&self, spot: Spot, id: JobId) -> bool {
        let class = &self.waiting(spot.priority).class;
        class.contains(spot.tenant, spot.place, id)
    }

    /// By how many starts from now on a job is started at the latest, if nothing else comes in its own class: whatever comes in others,
    /// and whatever tenants at their limits do. Nothing if more than `most` of its class go before it.
    ///
    /// Its place in its class behind whoever could be due with it, of whose starts each takes at most `share_period` of all; of those of the highest class at most two of
    /// `share_period` go to others.
    pub(crate) fn starts_at_most(
        &self,
        spot: Spot,
        id: JobId,
        tenants: &Tenants,
        share_period: u32,
        most: usize,
    ) -> Option<u64> {
        let class = &self.waiting(spot.priority).class;
        let mut outlook = ClassOutlook::new(class, Held::FreeBefore(spot.tenant));
        let mut starts = core::iter::from_fn(|| outlook.next(tenants)).take(most + 1);
        let place = starts.position(|next| next == id)?;
        let period = u64::from(share_period.max(SHARE_PERIOD_MIN));
        let own = u64::try_from(place).unwrap_or(u64::MAX).saturating_add(1);
        Some(match spot.priority {
            Priority::High => own.saturating_add(2 * own.div_ceil(period - 2)),
            Priority::Normal | Priority::Low => own.saturating_mul(period),
        })
    }

    /// Whether a class has jobs of this tenant, or holds it to be ahead.
    pub(crate) fn remembers(&self, tenant: TenantId) -> bool {
        Priority::ALL
            .into_iter()
            .any(|priority| self.waiting(priority).class.remembers(tenant))
    }

    /// Tenants that a class has forgotten.
    pub(crate) fn take_forgotten(&mut self) -> Vec<TenantId> {
        core::mem::take(&mut self.forgotten)
    }

    /// Whether a job could start now.
    pub(crate) fn is_due(&self) -> bool {
        Priority::ALL
            .into_iter()
            .any(|priority| self.waiting(priority).class.is_due())
    }

    pub(crate) fn len(&self) -> usize {
        Priority::ALL
            .map(|priority| self.len_of(priority))
            .iter()
            .sum()
    }

    pub(crate) const fn len_of(&self, priority: Priority) -> usize {
        self.waiting(priority).class.len()
    }

    /// A job of this class waits elsewhere, for its time.
    pub(crate) const fn delay(&mut self, priority: Priority) {
        let waiting = self.waiting_mut(priority);
        waiting.delayed += 1;
    }

    /// Its time has come, or it has ended.
    pub(crate) const fn undelay(&mut self, priority: Priority) {
        let waiting = self.waiting_mut(priority);
        waiting.delayed = waiting.delayed.saturating_sub(1);
    }

    pub(crate) const fn delayed_of(&self, priority: Priority) -> u64 {
        self.waiting(priority).delayed
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing(Priority::ALL.map(|priority| {
            let waiting = self.waiting(priority);
            (waiting.passed, waiting.class.passes())
        }))
    }

    /// Puts back what [`Queue::standing`] said, once the jobs are in.
    pub(crate) fn set_standing(&mut self, standing: &Standing) {
        for (priority, (passed, passes)) in Priority::ALL.into_iter().zip(&standing.0) {
            let waiting = self.waiting_mut(priority);
            waiting.passed = *passed;
            waiting.class.set_passes(passes);
        }
    }

    /// Whoever has been caught up with is forgotten.
    fn settle(&mut self) {
        for priority in Priority::ALL {
            while let Some(tenant) = self.waiting_mut(priority).class.forget_caught_up() {
                self.forgotten.push(tenant);
            }
        }
    }

    const fn waiting(&self, priority: Priority) -> &Waiting {
        match priority {
            Priority::High => &self.high,
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        }
    }

    const fn waiting_mut(&mut self, priority: Priority) -> &mut Waiting {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
            Priority::Low => &mut self.low,
        }
    }
}

/// Whether a class has jobs, and whether one could start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClassState {
    /// No jobs.
    Empty,
    /// Jobs, all of tenants at their running limits.
    Held,
    /// A job could start now.
    Due,
}

/// Whether the start that is looked at went to this class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Went {
    Here,
    Elsewhere,
}

/// How many starts have passed a class over, after one more.
const fn passed_after(passed: u32, state: ClassState, went: Went) -> u32 {
    match (went, state) {
        (Went::Here, _) | (Went::Elsewhere, ClassState::Empty) => 0,
        (Went::Elsewhere, ClassState::Held) => passed,
        (Went::Elsewhere, ClassState::Due) => passed.saturating_add(1),
    }
}

/// The class that the next start goes to, by how classes stand and how often each was passed over, highest class first.
fn next_class(states: [ClassState; 3], passed: [u32; 3], share_period: u32) -> Option<Priority> {
    let is_due = |state: ClassState| state == ClassState::Due;
    let [high, normal, low] = states;
    let highest = match (is_due(high), is_due(normal), is_due(low)) {
        (true, _, _) => Priority::High,
        (false, true, _) => Priority::Normal,
        (false, false, true) => Priority::Low,
        (false, false, false) => return None,
    };
    let [_, normal_passed, low_passed] = passed;
    let period = share_period.max(SHARE_PERIOD_MIN);
    let slack = |state, passed: u32| {
        let slack = period.saturating_sub(passed.saturating_add(1));
        (state != ClassState::Empty).then_some(slack)
    };
    let slacks = (slack(normal, normal_passed), slack(low, low_passed));
    let both_urgent = matches!(slacks, (Some(0 | 1), Some(0 | 1)));
    let urgent = |state, slack: Option<u32>| {
        slack.filter(|slack| is_due(state) && (*slack == 0 || both_urgent))
    };
    Some(match (urgent(normal, slacks.0), urgent(low, slacks.1)) {
        (Some(normal), Some(low)) if low < normal => Priority::Low,
        (Some(_), _) => Priority::Normal,
        (None, Some(_)) => Priority::Low,
        (None, None) => highest,
    })
}

#[cfg(test)]
mod tests;
