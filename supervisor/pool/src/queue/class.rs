//! One class of the queue: tenants that share its starts by weight, each with its own order of jobs.
//!
//! # The fair share
//!
//! Each tenant has a *pass*: the virtual time at which its next start is due. The lowest pass starts next and then grows by one part
//! of the tenant's weight; the class's own virtual time is the pass of the last start. A tenant that comes, or comes
//! back, is due now, never before: it is neither paid for the time in which it asked for nothing nor charged for it, but what it had
//! ahead of its share stays on its account until the others have caught up.
//! (Goyal, Vin, Cheng: Start-time Fair Queueing, 1996; every start counts as one.)
//!
//! So of two tenants that both have jobs waiting throughout, and may start them, neither gets ahead of the other by more than one start each:
//! |a / weight(a) − b / weight(b)| ≤ 1 / weight(a) + 1 / weight(b).
//!
//! # Invariants
//!
//! - In `due` is exactly who has jobs here and is not held, in `held` who has and is.
//! - A tenant without jobs is remembered only while it is ahead of the class.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use wpool_protocol::id::JobId;

use crate::queue::Place;
use crate::queue::lanes::Lanes;
use crate::tenants::{Freedom, TenantId};

/// What a start costs a tenant of weight 1. Divisible by the small weights that people use, and so far below the range of a pass
/// that it does not overflow within 10^12 starts.
pub(crate) const STRIDE: u64 = 720_720;

/// What a start costs a tenant of this weight.
pub(crate) fn cost(weight: u32) -> u64 {
    STRIDE / u64::from(weight.max(1))
}

/// The waiting jobs of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    tenants: BTreeMap<TenantId, Share>,
    /// Who may start a job, and when they are due; first due first.
    due: BTreeSet<(u64, TenantId)>,
    /// Who has jobs and may not start one, and when they were due.
    held: BTreeSet<(u64, TenantId)>,
    /// Who has no job here, and is ahead; first caught up with first.
    ahead: BTreeSet<(u64, TenantId)>,
    /// The pass of the last start.
    virtual_time: u64,
    /// All jobs here.
    len: usize,
}

/// A tenant's part of a class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Share {
    pass: u64,
    jobs: Lanes,
    /// Whether it may start them; free where it has none.
    freedom: Freedom,
}

/// What of a class cannot be told from its jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Passes {
    virtual_time: u64,
    passes: Vec<(TenantId, u64)>,
}

impl Passes {
    pub(crate) fn tenants(&self) -> impl Iterator<Item = TenantId> {
        self.passes.iter().map(|&(tenant, _)| tenant)
    }
}

impl Class {
    pub(crate) fn insert(&mut self, tenant: TenantId, freedom: Freedom, place: Place, id: JobId) {
        let virtual_time = self.virtual_time;
        let share = self.tenants.entry(tenant).or_default();
        if share.jobs.is_empty() {
            self.ahead.remove(&(share.pass, tenant));
            share.pass = share.pass.max(virtual_time);
            share.freedom = freedom;
            let ordered = match freedom {
                Freedom::Free => &mut self.due,
                Freedom::Held => &mut self.held,
            };
            ordered.insert((share.pass, tenant));
        }
        share.jobs.insert(place, id);
        self.len += 1;
    }

    /// Takes out a job that does not start now.
    pub(crate) fn remove(&mut self, tenant: TenantId, place: Place) {
        if let Some(share) = self.tenants.get_mut(&tenant)
            && share.jobs.remove(place).is_some()
        {
            self.len -= 1;
            self.settle(tenant);
        }
    }

    /// Takes out the job that starts next; `weight` of its tenant.
    pub(crate) fn take_next(&mut self, weight: impl Fn(TenantId) -> u32) -> Option<JobId> {
        let &(pass, tenant) = self.due.first()?;
        let share = self.tenants.get_mut(&tenant)?;
        let id = share.jobs.pop_first()?;
        self.len -= 1;
        self.due.remove(&(pass, tenant));
        self.virtual_time = pass;
        share.pass = pass.saturating_add(cost(weight(tenant)));
        if share.jobs.is_empty() {
            share.freedom = Freedom::Free;
            self.ahead.insert((share.pass, tenant));
        } else if share.freedom == Freedom::Free {
            self.due.insert((share.pass, tenant));
        }
        Some(id)
    }

    /// Forgets somebody who has no job here and has been caught up with. Where nobody could start a job, nobody is ahead.
    pub(crate) fn forget_caught_up(&mut self) -> Option<TenantId> {
        let &(pass, tenant) = self.ahead.first()?;
        if self.due.is_empty() {
            self.virtual_time = self.virtual_time.max(pass);
        }
        if pass > self.virtual_time {
            return None;
        }
        self.ahead.pop_first();
        self.tenants.remove(&tenant);
        Some(tenant)
    }

    /// A tenant may not start jobs, or may again.
    pub(crate) fn set_freedom(&mut self, tenant: TenantId, freedom: Freedom) {
        let virtual_time = self.virtual_time;
        let Some(share) = self.tenants.get_mut(&tenant) else {
            return;
        };
        if share.freedom == freedom || share.jobs.is_empty() {
            return;
        }
        share.freedom = freedom;
        match freedom {
            Freedom::Held => {
                self.due.remove(&(share.pass, tenant));
                self.held.insert((share.pass, tenant));
            }
            Freedom::Free => {
                self.held.remove(&(share.pass, tenant));
                share.pass = share.pass.max(virtual_time);
                self.due.insert((share.pass, tenant));
            }
        }
    }

    /// Weights have changed: nobody is further ahead than one start of theirs.
    pub(crate) fn reweigh(&mut self, weight: impl Fn(TenantId) -> u32) {
        for (&tenant, share) in &mut self.tenants {
            let most = self.virtual_time.saturating_add(cost(weight(tenant)));
            let old = share.pass;
            share.pass = old.min(most);
            for ordered in [&mut self.due, &mut self.held, &mut self.ahead] {
                if ordered.remove(&(old, tenant)) {
                    ordered.insert((share.pass, tenant));
                }
            }
        }
    }

    /// Whether a job could start now.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Who may start jobs, and when they are due; first due first.
    pub(crate) fn due(&self) -> impl Iterator<Item = (u64, TenantId)> {
        self.due.iter().copied()
    }

    /// Who may not, and when they would be due if they might now; those that would be at one time in no certain order.
    pub(crate) fn held(&self) -> impl Iterator<Item = (u64, TenantId)> {
        let due = |&(pass, tenant): &(u64, TenantId)| (pass.max(self.virtual_time), tenant);
        self.held.iter().map(due)
    }

    /// When a tenant that has jobs here and may start one is due.
    pub(crate) fn due_of(&self, tenant: TenantId) -> Option<u64> {
        let share = self.tenants.get(&tenant)?;
        self.due
            .contains(&(share.pass, tenant))
            .then_some(share.pass)
    }

    /// A tenant's jobs here, first to start first.
    pub(crate) fn jobs_of(&self, tenant: TenantId) -> Option<&Lanes> {
        self.tenants.get(&tenant).map(|share| &share.jobs)
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn contains(&self, tenant: TenantId, place: Place, id: JobId) -> bool {
        let share = self.tenants.get(&tenant);
        share.is_some_and(|share| share.jobs.get(place) == Some(id))
    }

    pub(crate) fn remembers(&self, tenant: TenantId) -> bool {
        self.tenants.contains_key(&tenant)
    }

    pub(crate) fn passes(&self) -> Passes {
        let passes = self.tenants.iter();
        Passes {
            virtual_time: self.virtual_time,
            passes: passes
                .map(|(&tenant, share)| (tenant, share.pass))
                .collect(),
        }
    }

    /// Puts back what [`Class::passes`] said, once the jobs are in.
    pub(crate) fn set_passes(&mut self, passes: &Passes) {
        self.virtual_time = passes.virtual_time;
        for &(tenant, pass) in &passes.passes {
            let share = self.tenants.entry(tenant).or_default();
            let old = core::mem::replace(&mut share.pass, pass);
            for ordered in [&mut self.due, &mut self.held] {
                if ordered.remove(&(old, tenant)) {
                    ordered.insert((pass, tenant));
                }
            }
            if share.jobs.is_empty() {
                self.ahead.insert((pass, tenant));
            }
        }
    }

    /// A tenant may have lost its last job here.
    fn settle(&mut self, tenant: TenantId) {
        let Some(share) = self.tenants.get_mut(&tenant) else {
            return;
        };
        if share.jobs.is_empty() {
            share.freedom = Freedom::Free;
            self.due.remove(&(share.pass, tenant));
            self.held.remove(&(share.pass, tenant));
            self.ahead.insert((share.pass, tenant));
        }
    }
}
