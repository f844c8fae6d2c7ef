//! Whose jobs there are, what each tenant may take, and how much of it is taken.
//!
//! A tenant is known by name from its first job to its last; the pool's own books carry a number instead, so that a million
//! jobs do not carry a million names.
//!
//! # Invariants
//!
//! - A tenant is here exactly as long as a job of it has not ended, or the queue remembers that it is ahead of its share.
//! - What a tenant has is never above its limits, but for what was there when they were lowered (I4).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pace::{Pace, RETRY_MAX};
use crate::settings::{TenantRule, TenantRules};
use crate::time::Instant;

/// A tenant, within one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct TenantId(u32);

/// The tenants that have jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tenants {
    rules: TenantRules,
    by_name: BTreeMap<Box<str>, TenantId>,
    known: BTreeMap<TenantId, Tenant>,
    next: u32,
}

/// Whether a tenant may start jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Freedom {
    /// It may.
    #[default]
    Free,
    /// It runs as many as it may.
    Held,
}

/// A tenant that has jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tenant {
    pub(crate) name: Box<str>,
    pub(crate) rule: TenantRule,
    /// Jobs that have not ended.
    pub(crate) jobs: u64,
    /// Of these, those on a slot.
    pub(crate) running: u32,
    /// Jobs that were there when `rule.queue_jobs` was lowered beneath them.
    tolerated: u64,
    /// How fast its jobs end.
    pace: Pace,
}

impl Tenant {
    /// Whether it may start another job now.
    pub(crate) fn freedom(&self) -> Freedom {
        match self.rule.running_max {
            Some(max) if self.running >= max => Freedom::Held,
            Some(_) | None => Freedom::Free,
        }
    }

    /// Whether what it has fits its limits, or what was there when they were lowered.
    pub(crate) fn fits(&self) -> bool {
        let limit = self.rule.queue_jobs.unwrap_or(u64::MAX);
        self.jobs <= limit.max(self.tolerated)
    }
}

impl Tenants {
    /// The tenant of this name, known from now on.
    pub(crate) fn meet(&mut self, name: &str) -> TenantId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        // Numbers of tenants that are gone are free again: no two that are here share one.
        let id = loop {
            let id = TenantId(self.next);
            self.next = self.next.wrapping_add(1);
            if !self.known.contains_key(&id) {
                break id;
            }
        };
        let tenant = Tenant {
            name: name.into(),
            rule: self.rules.of(name),
            jobs: 0,
            running: 0,
            tolerated: 0,
            pace: Pace::default(),
        };
        self.by_name.insert(name.into(), id);
        self.known.insert(id, tenant);
        id
    }

    /// The tenant of this name, if it is known.
    pub(crate) fn find(&self, name: &str) -> Option<&Tenant> {
        self.known.get(self.by_name.get(name)?)
    }

    /// Whether any tenant may run only so many jobs at one time.
    pub(crate) fn have_running_limits(&self) -> bool {
        let mut rules = self.rules.named.values().chain([&self.rules.default]);
        rules.any(|rule| rule.running_max.is_some())
    }

    pub(crate) fn rule_of(&self, name: &str) -> TenantRule {
        self.rules.of(name)
    }

    pub(crate) fn find_by_id(&self, id: TenantId) -> Option<&Tenant> {
        self.known.get(&id)
    }

    pub(crate) fn get(&self, id: TenantId) -> &Tenant {
        self.known
            .get(&id)
            .expect("a tenant is known as long as something names it")
    }

    pub(crate) fn get_mut(&mut self, id: TenantId) -> &mut Tenant {
        self.known
            .get_mut(&id)
            .expect("a tenant is known as long as something names it")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TenantId, &Tenant)> {
        self.known.iter().map(|(&id, tenant)| (id, tenant))
    }

    /// Other rules hold from now on; what is there stays.
    pub(crate) fn set_rules(&mut self, rules: TenantRules) {
        for tenant in self.known.values_mut() {
            tenant.rule = rules.of(&tenant.name);
            tenant.tolerated = tenant.jobs;
        }
        self.rules = rules;
    }

    /// A job of it has been accepted.
    pub(crate) fn reserve(&mut self, id: TenantId, now: Instant) {
        let tenant = self.get_mut(id);
        if tenant.jobs == 0 {
            tenant.pace.begin(now);
        }
        tenant.jobs += 1;
    }

    /// How long to wait for so many of its jobs to end, by their own pace or that of all.
    pub(crate) fn promise(
        &mut self,
        name: &str,
        now: Instant,
        jobs: u64,
        of_all: Option<Duration>,
    ) -> Duration {
        let id = self.by_name.get(name);
        let tenant = id.and_then(|id| self.known.get_mut(id));
        // One of whom nothing is there, and whose limit is nothing.
        tenant.map_or(RETRY_MAX, |tenant| tenant.pace.promise(now, jobs, of_all))
    }

    /// A job of it has ended.
    pub(crate) fn release(&mut self, id: TenantId) {
        let tenant = self.get_mut(id);
        tenant.jobs = tenant.jobs.saturating_sub(1);
        tenant.tolerated = tenant.tolerated.min(tenant.jobs);
    }

    /// A job of it that ran has ended.
    pub(crate) fn ran(&mut self, id: TenantId, now: Instant) {
        self.get_mut(id).pace.end(now);
    }

    /// Forgets a tenant of whom nothing is left.
    pub(crate) fn forget(&mut self, id: TenantId) {
        if let Some(tenant) = self.known.remove(&id) {
            self.by_name.remove(&tenant.name);
        }
    }

    /// Whether both books name the same tenants.
    pub(crate) fn agree(&self) -> bool {
        self.by_name.len() == self.known.len()
            && self
                .by_name
                .iter()
                .all(|(name, id)| self.known.get(id).is_some_and(|it| it.name == *name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_one_as_long_as_it_is_known() {
        let mut tenants = Tenants::default();
        let ann = tenants.meet("ann");
        assert_eq!(tenants.meet("ann"), ann);
        let bob = tenants.meet("bob");
        assert_ne!(ann, bob);
        tenants.forget(ann);
        assert!(tenants.agree());
        assert_ne!(tenants.meet("cyd"), bob);
    }

    #[test]
    fn a_number_that_comes_round_is_not_given_twice() {
        let mut tenants = Tenants {
            next: u32::MAX,
            ..Tenants::default()
        };
        let last = tenants.meet("ann");
        let first = tenants.meet("bob");
        tenants.next = u32::MAX;
        let third = tenants.meet("cyd");
        assert!(last != first && third != last && third != first);
    }

    #[test]
    fn a_lowered_limit_takes_nobodys_place() {
        let mut tenants = Tenants::default();
        let ann = tenants.meet("ann");
        tenants.get_mut(ann).jobs = 4;
        let rule = TenantRule {
            queue_jobs: Some(2),
            ..TenantRule::default()
        };
        tenants.set_rules(TenantRules {
            default: rule,
            ..TenantRules::default()
        });
        assert!(tenants.get(ann).fits());
        tenants.release(ann);
        assert!(tenants.get(ann).fits());
        tenants.get_mut(ann).jobs += 1;
        assert!(!tenants.get(ann).fits());
    }
}
