//! What starts in which order, if nothing else comes and whatever runs ends: the queue's own rules, played forward on copies of
//! what they depend on.
//!
//! # Invariants
//!
//! - It decides by the very functions that the queue decides by; nothing of the queue is changed.
//! - It costs O(t) for t tenants to begin, and O(log t) for each start that is asked for.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::iter::Peekable;

use wpool_protocol::id::JobId;
use wpool_protocol::job::Priority;

use crate::queue::class::{Class, cost};
use crate::queue::{Queue, next_class};
use crate::tenants::{TenantId, Tenants};

/// The starts to come.
pub(crate) struct Outlook<'a> {
    classes: [ClassOutlook<'a>; 3],
    passed: [u32; 3],
    share_period: u32,
    tenants: &'a Tenants,
}

/// A tenant's jobs of one class, in their order.
type Jobs<'a> = Peekable<Box<dyn Iterator<Item = JobId> + 'a>>;

/// The starts to come of one class.
pub(crate) struct ClassOutlook<'a> {
    due: BTreeSet<(u64, TenantId)>,
    jobs: BTreeMap<TenantId, Jobs<'a>>,
}

impl<'a> ClassOutlook<'a> {
    /// Tenants at their running limits start nothing; `free` is looked at as if it were not.
    pub(crate) fn new(class: &'a Class, free: TenantId) -> Self {
        let mut outlook = Self {
            due: BTreeSet::new(),
            jobs: BTreeMap::new(),
        };
        for (tenant, pass, jobs) in class.due_with(free) {
            outlook.due.insert((pass, tenant));
            let jobs: Box<dyn Iterator<Item = JobId>> = Box::new(jobs.iter());
            outlook.jobs.insert(tenant, jobs.peekable());
        }
        outlook
    }

    pub(crate) fn next(&mut self, tenants: &Tenants) -> Option<JobId> {
        let (pass, tenant) = self.due.pop_first()?;
        let jobs = self.jobs.get_mut(&tenant)?;
        let id = jobs.next()?;
        if jobs.peek().is_some() {
            let next = pass.saturating_add(cost(tenants.get(tenant).rule.weight));
            self.due.insert((next, tenant));
        }
        Some(id)
    }
}

impl<'a> Outlook<'a> {
    pub(crate) fn new(
        queue: &'a Queue,
        share_period: u32,
        tenants: &'a Tenants,
        free: TenantId,
    ) -> Self {
        Self {
            classes: Priority::ALL
                .map(|priority| ClassOutlook::new(&queue.waiting(priority).class, free)),
            passed: Priority::ALL.map(|priority| queue.waiting(priority).passed),
            share_period,
            tenants,
        }
    }
}

impl Iterator for Outlook<'_> {
    type Item = JobId;

    fn next(&mut self) -> Option<JobId> {
        let due = |classes: &[ClassOutlook<'_>; 3]| classes.each_ref().map(|it| !it.due.is_empty());
        let chosen = next_class(due(&self.classes), self.passed, self.share_period)?;
        let class = self.classes.get_mut(chosen as usize)?;
        let id = class.next(self.tenants)?;
        let still_due = due(&self.classes);
        for (number, (passed, due)) in self.passed.iter_mut().zip(still_due).enumerate() {
            *passed = if number != chosen as usize && due {
                passed.saturating_add(1)
            } else {
                0
            };
        }
        Some(id)
    }
}
