//! What starts in which order, if nothing else comes and whatever runs ends: the queue's own rules, played forward on copies of
//! what they depend on.
//!
//! # Invariants
//!
//! - It decides by the very functions that the queue decides by; nothing of the queue is changed.
//! - It costs O(log t) for each start that is asked for, of t tenants, and nothing to begin.

use alloc::boxed::Box;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use core::iter::Peekable;

use wpool_protocol::id::JobId;
use wpool_protocol::job::Priority;

use crate::queue::class::{Class, cost};
use crate::queue::{ClassState, Queue, Went, next_class, passed_after};
use crate::tenants::{TenantId, Tenants};

/// How tenants at their running limits are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// They start nothing, but for this one.
    But(TenantId),
    /// As if they might, and whoever is due at one time with this one goes before it: the worst for it that may come.
    FreeBefore(TenantId),
}

/// The starts to come.
pub(crate) struct Outlook<'a> {
    classes: [ClassOutlook<'a>; 3],
    passed: [u32; 3],
    share_period: u32,
    tenants: &'a Tenants,
}

/// A tenant's jobs of one class, in their order.
type Jobs<'a> = Peekable<Box<dyn Iterator<Item = JobId> + 'a>>;

/// Tenants, and when they are due.
type Shares<'a> = Peekable<Box<dyn Iterator<Item = (u64, TenantId)> + 'a>>;

/// How a tenant stands among those that are due at one time with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tie {
    /// By its number, as the queue decides.
    AsItIs,
    /// Behind all.
    Last,
}

/// The starts to come of one class.
pub(crate) struct ClassOutlook<'a> {
    class: &'a Class,
    /// Those who have started nothing yet: who may, and who is looked at as if.
    due: Shares<'a>,
    held: Shares<'a>,
    /// Those who have, and whoever goes behind all others that are due with it.
    begun: BTreeSet<(u64, Tie, TenantId)>,
    jobs: BTreeMap<TenantId, Jobs<'a>>,
    /// Whether there are others, who may not.
    leaves_some: bool,
}

impl<'a> ClassOutlook<'a> {
    pub(crate) fn new(class: &'a Class, held: Held) -> Self {
        let is_looked_at = move |tenant: TenantId| match held {
            Held::But(free) => tenant == free,
            Held::FreeBefore(last) => tenant != last,
        };
        let (last, pass) = match held {
            Held::But(_) => (None, None),
            Held::FreeBefore(last) => (Some(last), class.due_of(last)),
        };
        let due: Box<dyn Iterator<Item = _>> =
            Box::new(class.due().filter(move |(_, tenant)| Some(*tenant) != last));
        let of_held: Box<dyn Iterator<Item = _>> = Box::new(
            class
                .held()
                .filter(move |&(_, tenant)| is_looked_at(tenant)),
        );
        let begun = last.zip(pass).map(|(last, pass)| (pass, Tie::Last, last));
        Self {
            class,
            due: due.peekable(),
            held: of_held.peekable(),
            begun: begun.into_iter().collect(),
            jobs: BTreeMap::new(),
            leaves_some: class.held().any(|(_, tenant)| !is_looked_at(tenant)),
        }
    }

    pub(crate) fn next(&mut self, tenants: &Tenants) -> Option<JobId> {
        let in_order = |(pass, tenant)| (pass, Tie::AsItIs, tenant);
        let firsts = [
            self.begun.first().copied(),
            self.due.peek().copied().map(in_order),
            self.held.peek().copied().map(in_order),
        ];
        let first = firsts.into_iter().flatten().min()?;
        let (pass, tie, tenant) = first;
        if self.begun.first() == Some(&first) {
            self.begun.pop_first();
        } else if self.due.next_if_eq(&(pass, tenant)).is_none() {
            self.held.next();
        }
        let class = self.class;
        let jobs = match self.jobs.entry(tenant) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let jobs: Box<dyn Iterator<Item = JobId>> = Box::new(class.jobs_of(tenant)?.iter());
                new.insert(jobs.peekable())
            }
        };
        let id = jobs.next()?;
        if jobs.peek().is_some() {
            let next = pass.saturating_add(cost(tenants.get(tenant).rule.weight));
            self.begun.insert((next, tie, tenant));
        }
        Some(id)
    }

    fn state(&mut self) -> ClassState {
        if !self.begun.is_empty() || self.due.peek().is_some() || self.held.peek().is_some() {
            ClassState::Due
        } else if self.leaves_some {
            ClassState::Held
        } else {
            ClassState::Empty
        }
    }
}

impl<'a> Outlook<'a> {
    pub(crate) fn new(
        queue: &'a Queue,
        share_period: u32,
        tenants: &'a Tenants,
        held: Held,
    ) -> Self {
        Self {
            classes: Priority::ALL
                .map(|priority| ClassOutlook::new(&queue.waiting(priority).class, held)),
            passed: Priority::ALL.map(|priority| queue.waiting(priority).passed),
            share_period,
            tenants,
        }
    }
}

impl Iterator for Outlook<'_> {
    type Item = JobId;

    fn next(&mut self) -> Option<JobId> {
        let states = self.classes.each_mut().map(ClassOutlook::state);
        let chosen = next_class(states, self.passed, self.share_period)?;
        let class = self.classes.get_mut(chosen as usize)?;
        let id = class.next(self.tenants)?;
        let states = self.classes.each_mut().map(ClassOutlook::state);
        for (number, (passed, state)) in self.passed.iter_mut().zip(states).enumerate() {
            let went = if number == chosen as usize {
                Went::Here
            } else {
                Went::Elsewhere
            };
            *passed = passed_after(*passed, state, went);
        }
        Some(id)
    }
}
