//! Who is who: the jobs that have not ended, the outcomes of those that have, and whose they are.
//!
//! # Invariants
//!
//! - A job is in exactly one of `live` and `ended`; `by_tenant` and `keys` name only jobs that are in one.
//! - A listing looks at no more than `SCAN_MAX` jobs at a time: whoever wants more asks again from where it ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use wpool_pool::time::Instant;
use wpool_protocol::id::JobId;
use wpool_protocol::outcome::{JobState, Outcome};
use wpool_protocol::status::JobSummary;

use super::job::Job;
use crate::config::Retention;
use crate::request::ResolvedJob;
use crate::store::{Kept, Store};

/// Jobs that one look may pass over: less than a millisecond of the driver's thread.
const SCAN_MAX: usize = 1_000;

/// Bytes of labels that one look may copy, and some for each label: likewise.
const COPIED_MAX: usize = 256 << 10;

/// Which jobs to list.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Only those of this tenant.
    pub tenant: Option<Arc<str>>,
    /// Only those in this state.
    pub state: Option<JobState>,
    /// Only those before this one.
    pub before: JobId,
    /// At most so many.
    pub limit: usize,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The jobs, youngest first.
    pub jobs: Vec<JobSummary>,
    /// Where to go on; `None` if there are no more.
    pub next: Option<JobId>,
}

#[derive(Debug)]
pub(super) struct Register {
    pub(super) live: BTreeMap<JobId, Job>,
    ended: Store,
    by_tenant: HashMap<Arc<str>, BTreeSet<JobId>>,
    /// By tenant and idempotency key: the job, and the mark of what it asks.
    keys: HashMap<(Arc<str>, String), (JobId, u64)>,
    /// The key of a job.
    keyed: HashMap<JobId, (Arc<str>, String)>,
}

impl Register {
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            live: BTreeMap::new(),
            ended: Store::new(retention),
            by_tenant: HashMap::new(),
            keys: HashMap::new(),
            keyed: HashMap::new(),
        }
    }

    pub(super) fn add(&mut self, job: Job) {
        let tenant = Arc::clone(&job.request.tenant);
        if let Some((key, mark)) = &job.request.key {
            let key = (Arc::clone(&tenant), key.clone());
            self.keys.insert(key.clone(), (job.id, *mark));
            self.keyed.insert(job.id, key);
        }
        self.by_tenant.entry(tenant).or_default().insert(job.id);
        self.live.insert(job.id, job);
    }

    /// The job that was accepted under this key, and its mark.
    pub(super) fn keyed(&self, tenant: &Arc<str>, key: &str) -> Option<(JobId, u64)> {
        let key = (Arc::clone(tenant), key.to_owned());
        self.keys.get(&key).copied()
    }

    /// Lets go of a job that was not accepted.
    pub(super) fn refuse(&mut self, id: JobId) -> Option<Job> {
        let job = self.live.remove(&id)?;
        self.unindex(id, &job.request.tenant);
        Some(job)
    }

    /// Takes out a job that has ended; [`Self::keep`] follows.
    pub(super) fn take_live(&mut self, id: JobId) -> Option<Job> {
        self.live.remove(&id)
    }

    /// Keeps the outcome of a job that was taken out.
    pub(super) fn keep(&mut self, now: Instant, outcome: Arc<Outcome>, command: Arc<str>) {
        let gone = self.ended.keep(now, outcome, command);
        self.unindex_all(&gone);
    }

    /// Keeps the outcome of a quarantined job that was taken out, and what it asked: it may be tried again.
    pub(super) fn keep_aside(
        &mut self,
        now: Instant,
        outcome: Arc<Outcome>,
        request: Box<ResolvedJob>,
    ) {
        let gone = self.ended.keep_aside(now, outcome, request);
        self.unindex_all(&gone);
    }

    /// A quarantined job becomes another one, or does not after all.
    pub(super) fn set_released(&mut self, id: JobId, released_as: Option<JobId>) {
        self.ended.set_released(id, released_as);
    }

    /// What a quarantined job asked is not needed any more.
    pub(super) fn drop_request(&mut self, id: JobId) {
        self.ended.drop_request(id);
    }

    pub(super) fn set_retention(&mut self, now: Instant, retention: Retention) {
        let gone = self.ended.set_retention(now, retention);
        self.unindex_all(&gone);
    }

    pub(super) fn prune(&mut self, now: Instant) {
        let gone = self.ended.prune(now);
        self.unindex_all(&gone);
    }

    /// When the next outcome is to go.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ended.deadline()
    }

    pub(super) fn ended(&self, id: JobId) -> Option<&Kept> {
        self.ended.get(id)
    }

    /// Lets go of the outcome of a job.
    pub(super) fn forget(&mut self, id: JobId) {
        if let Some(kept) = self.ended.forget(id) {
            self.unindex_all(&[kept]);
        }
    }

    fn unindex_all(&mut self, gone: &[Kept]) {
        for kept in gone {
            self.unindex(kept.outcome.id, &kept.outcome.tenant);
        }
    }

    fn unindex(&mut self, id: JobId, tenant: &str) {
        if let Some(key) = self.keyed.remove(&id) {
            self.keys.remove(&key);
        }
        if let Some(ids) = self.by_tenant.get_mut(tenant) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_tenant.remove(tenant);
            }
        }
    }

    /// A part of a listing.
    pub(super) fn page(&self, filter: &Filter) -> Page {
        let Some(tenant) = &filter.tenant else {
            let live = self.live.range(..filter.before).rev().map(|(id, _)| *id);
            let ids = merged(live, self.ended.ids_before(filter.before));
            return self.scan(ids, filter);
        };
        let ids = self.by_tenant.get(tenant).into_iter();
        let ids = ids.flat_map(|ids| ids.range(..filter.before).rev().copied());
        self.scan(ids, filter)
    }

    fn scan(&self, ids: impl Iterator<Item = JobId>, filter: &Filter) -> Page {
        let mut jobs = Vec::new();
        let mut copied = 0;
        for (scanned, id) in ids.enumerate() {
            if jobs.len() == filter.limit || scanned == SCAN_MAX || copied > COPIED_MAX {
                // `id` itself has not been looked at: the next part begins with it.
                return Page {
                    jobs,
                    next: Some(id.next()),
                };
            }
            let state = match (self.live.get(&id), self.ended.get(id)) {
                (Some(job), _) if !job.is_visible() => continue,
                (Some(job), _) => job.state(),
                (None, Some(kept)) => kept.outcome.state,
                (None, None) => continue,
            };
            if filter.state.is_some_and(|wanted| wanted != state) {
                continue;
            }
            let live = self.live.get(&id).map(Job::summary);
            let summary = live.or_else(|| self.ended.get(id).map(Kept::summary));
            if let Some(summary) = summary {
                let labels = summary.labels.iter();
                copied += labels
                    .map(|(name, value)| name.len() + value.len() + 64)
                    .sum::<usize>();
                jobs.push(summary);
            }
        }
        Page { jobs, next: None }
    }
}

/// Two descending sequences as one.
fn merged(
    left: impl Iterator<Item = JobId>,
    right: impl Iterator<Item = JobId>,
) -> impl Iterator<Item = JobId> {
    let mut left = left.peekable();
    let mut right = right.peekable();
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(one), Some(other)) if one > other => left.next(),
        (Some(_), None) => left.next(),
        (Some(_) | None, Some(_)) => right.next(),
        (None, None) => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn two_descending_sequences_become_one(mut left: BTreeSet<u64>, right: BTreeSet<u64>) {
            left.retain(|id| !right.contains(id));
            let descending = |ids: &BTreeSet<u64>| ids.iter().rev().map(|id| JobId(*id)).collect::<Vec<_>>();
            let all: Vec<_> = merged(descending(&left).into_iter(), descending(&right).into_iter()).collect();
            prop_assert_eq!(all, descending(&left.union(&right).copied().collect()));
        }
    }
}
