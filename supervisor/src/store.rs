//! The outcomes of ended jobs, kept for a while; of quarantined ones also what they asked.
//!
//! # Invariants
//!
//! - Kept are at most so many, so old and so many bytes as the config says; what ended first goes first.
//! - The outcome that came last is kept even if it alone is larger than all may be: whoever waited for it
//!   must find it. Only a count of 0 keeps nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use wpool_pool::time::Instant;
use wpool_protocol::id::JobId;
use wpool_protocol::outcome::{Outcome, OutputFile};
use wpool_protocol::status::JobSummary;

use crate::config::Retention;
use crate::request::ResolvedJob;

/// What an outcome takes beside output, files and labels: the structs and their small texts, roughly.
const OUTCOME_OVERHEAD: u64 = 2_048;

/// An outcome that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The outcome.
    pub outcome: Arc<Outcome>,
    /// The start of the job's command.
    pub command: Arc<str>,
    /// What the job asked, if it is in quarantine and can be tried again.
    pub request: Option<Box<ResolvedJob>>,
    bytes: u64,
    ended: Instant,
    order: u64,
}

/// The outcomes of ended jobs.
#[derive(Debug)]
pub struct Store {
    retention: Retention,
    by_id: BTreeMap<JobId, Kept>,
    /// The same, in the order of their ends.
    by_end: BTreeMap<u64, JobId>,
    bytes: u64,
    ends: u64,
}

impl Store {
    /// An empty store.
    pub const fn new(retention: Retention) -> Self {
        Self {
            retention,
            by_id: BTreeMap::new(),
            by_end: BTreeMap::new(),
            bytes: 0,
            ends: 0,
        }
    }

    /// Keeps an outcome; gives back what had to go for it.
    pub fn keep(&mut self, now: Instant, outcome: Arc<Outcome>, command: Arc<str>) -> Vec<Kept> {
        self.insert(now, outcome, command, None)
    }

    /// Keeps the outcome of a quarantined job, and what it asked; gives back what had to go for it.
    pub fn keep_aside(
        &mut self,
        now: Instant,
        outcome: Arc<Outcome>,
        request: Box<ResolvedJob>,
    ) -> Vec<Kept> {
        let command = Arc::clone(&request.command);
        self.insert(now, outcome, command, Some(request))
    }

    fn insert(
        &mut self,
        now: Instant,
        outcome: Arc<Outcome>,
        command: Arc<str>,
        request: Option<Box<ResolvedJob>>,
    ) -> Vec<Kept> {
        let asked = request.as_ref().map_or(0, |request| request.bytes);
        let kept = Kept {
            bytes: weight(&outcome).saturating_add(asked),
            outcome,
            command,
            request,
            ended: now,
            order: self.ends,
        };
        self.ends += 1;
        self.bytes = self.bytes.saturating_add(kept.bytes);
        self.by_end.insert(kept.order, kept.outcome.id);
        self.by_id.insert(kept.outcome.id, kept);
        self.prune(now)
    }

    /// Changes how long outcomes are kept; gives back what had to go.
    pub fn set_retention(&mut self, now: Instant, retention: Retention) -> Vec<Kept> {
        self.retention = retention;
        self.prune(now)
    }

    /// Lets go of what is too old, too many or too large.
    pub fn prune(&mut self, now: Instant) -> Vec<Kept> {
        let mut gone = Vec::new();
        while let Some(oldest) = self.oldest() {
            let count = u64::try_from(self.by_id.len()).unwrap_or(u64::MAX);
            let is_old = now.since(oldest.ended) >= self.retention.age;
            let is_over =
                count > self.retention.count || (self.bytes > self.retention.bytes && count > 1);
            if !is_old && !is_over {
                break;
            }
            let id = oldest.outcome.id;
            gone.extend(self.forget(id));
        }
        gone
    }

    /// When the oldest outcome becomes too old.
    pub fn deadline(&self) -> Option<Instant> {
        self.oldest()
            .map(|kept| kept.ended.after(self.retention.age))
    }

    /// The outcome of a job.
    pub fn get(&self, id: JobId) -> Option<&Kept> {
        self.by_id.get(&id)
    }

    /// A quarantined job becomes another one, or does not after all.
    pub fn set_released(&mut self, id: JobId, released_as: Option<JobId>) {
        if let Some(kept) = self.by_id.get_mut(&id) {
            Arc::make_mut(&mut kept.outcome).released_as = released_as;
        }
    }

    /// What a job asked is not needed any more.
    pub fn drop_request(&mut self, id: JobId) {
        if let Some(kept) = self.by_id.get_mut(&id)
            && let Some(request) = kept.request.take()
        {
            kept.bytes = kept.bytes.saturating_sub(request.bytes);
            self.bytes = self.bytes.saturating_sub(request.bytes);
        }
    }

    /// Lets go of one.
    pub fn forget(&mut self, id: JobId) -> Option<Kept> {
        let kept = self.by_id.remove(&id)?;
        self.by_end.remove(&kept.order);
        self.bytes = self.bytes.saturating_sub(kept.bytes);
        Some(kept)
    }

    /// The ids below `before`, youngest first.
    pub fn ids_before(&self, before: JobId) -> impl Iterator<Item = JobId> {
        self.by_id.range(..before).rev().map(|(id, _)| *id)
    }

    fn oldest(&self) -> Option<&Kept> {
        let (_, id) = self.by_end.first_key_value()?;
        self.by_id.get(id)
    }
}

impl Kept {
    /// The job in a listing.
    pub fn summary(&self) -> JobSummary {
        let outcome = &self.outcome;
        JobSummary {
            id: outcome.id,
            state: outcome.state,
            command: self.command.as_ref().to_owned(),
            tenant: outcome.tenant.clone(),
            priority: outcome.priority,
            attempts: u32::try_from(outcome.attempts.len()).unwrap_or(u32::MAX),
            labels: outcome.labels.clone(),
            queued_at: outcome.queued_at,
            started_at: outcome.started_at,
            ended_at: Some(outcome.ended_at),
            cause: outcome.cause.as_ref().map(|cause| cause.text.clone()),
            released_as: outcome.released_as,
        }
    }
}

/// Bytes of an outcome, roughly.
fn weight(outcome: &Outcome) -> u64 {
    let files = outcome.files.iter().map(|(name, file)| {
        name.len()
            + match file {
                OutputFile::Text(text) | OutputFile::Base64(text) => text.len(),
                OutputFile::Error(_) => 0,
            }
    });
    let labels = outcome.labels.iter();
    let tails = outcome.attempts.iter().map(|attempt| {
        let tails = attempt.stdout_tail.iter().chain(&attempt.stderr_tail);
        let detail = attempt.detail.as_ref().map_or(0, String::len);
        let cause = attempt.cause.as_ref().map_or(0, |cause| cause.text.len());
        tails.map(|tail| tail.0.len()).sum::<usize>() + detail + cause + 256
    });
    let cause = outcome.cause.as_ref().map_or(0, |cause| cause.text.len());
    let bytes = outcome.stdout.0.len()
        + outcome.stderr.0.len()
        + cause
        + files.sum::<usize>()
        + labels
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>()
        + tails.sum::<usize>();
    u64::try_from(bytes)
        .unwrap_or(u64::MAX)
        .saturating_add(OUTCOME_OVERHEAD)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use wpool_protocol::blob::Blob;
    use wpool_protocol::job::{JobRequest, Priority};
    use wpool_protocol::limits::Limits;
    use wpool_protocol::outcome::Isolation;
    use wpool_protocol::timestamp::Timestamp;

    use super::*;
    use crate::config::Config;
    use crate::report::{self, Ended, JobEnding, Streams};
    use crate::request::{Caller, Role, resolve};

    fn outcome(id: u64, bytes: usize) -> Arc<Outcome> {
        let mut outcome = report::outcome(Ended {
            id: JobId(id),
            tenant: "uid:0".into(),
            priority: Priority::Normal,
            labels: BTreeMap::new(),
            limits: Limits::DEFAULT,
            queued_at: Timestamp(0),
            ended_at: Timestamp(1),
            attempts: Vec::new(),
            streams: Streams::default(),
            files: BTreeMap::new(),
            isolation: Isolation::default(),
            released_from: None,
            ending: JobEnding::Cancelled,
        });
        outcome.stdout = Blob(vec![0; bytes]);
        Arc::new(outcome)
    }

    fn at(seconds: u64) -> Instant {
        Instant::new(Duration::from_secs(seconds))
    }

    const RETENTION: Retention = Retention {
        count: 3,
        age: Duration::from_secs(10),
        bytes: 100_000,
    };

    fn ids(store: &Store) -> Vec<u64> {
        store.ids_before(JobId(u64::MAX)).map(|id| id.0).collect()
    }

    #[test]
    fn the_first_to_end_is_the_first_to_go() {
        let mut store = Store::new(RETENTION);
        for id in [5, 2, 9, 4] {
            store.keep(at(0), outcome(id, 0), "true".into());
        }
        assert_eq!(ids(&store), [9, 4, 2]);
        assert!(store.get(JobId(5)).is_none());
    }

    #[test]
    fn bytes_and_age_are_bounded_and_the_last_one_stays() {
        let mut store = Store::new(RETENTION);
        store.keep(at(0), outcome(1, 60_000), "true".into());
        let gone = store.keep(at(1), outcome(2, 60_000), "true".into());
        assert_eq!(gone.len(), 1);
        assert_eq!(ids(&store), [2]);
        store.keep(at(2), outcome(3, 200_000), "true".into());
        assert_eq!(ids(&store), [3], "it alone is too large, and stays");
        assert_eq!(store.deadline(), Some(at(12)));
        store.prune(at(11));
        assert_eq!(ids(&store), [3]);
        store.prune(at(12));
        assert_eq!(ids(&store), [0u64; 0]);
        assert_eq!(store.deadline(), None);
    }

    #[test]
    fn what_is_forgotten_is_gone_and_makes_room() {
        let mut store = Store::new(RETENTION);
        store.keep(at(0), outcome(1, 60_000), "true".into());
        assert!(store.forget(JobId(1)).is_some());
        assert!(store.forget(JobId(1)).is_none());
        store.keep(at(0), outcome(2, 60_000), "true".into());
        assert_eq!(ids(&store), [2]);
    }

    #[test]
    fn what_a_quarantined_job_asked_counts_until_it_is_not_needed() {
        let asked = |stdin: usize| {
            let request = JobRequest {
                command: vec!["true".into()],
                stdin: Some(Blob(vec![0; stdin])),
                ..JobRequest::default()
            };
            let caller = Caller {
                tenant: "uid:0".into(),
                role: Role::Admin,
            };
            let resolved = resolve(request, &caller, &Config::default_for(1)).unwrap();
            Box::new(resolved)
        };
        let mut store = Store::new(RETENTION);
        store.keep_aside(at(0), outcome(1, 0), asked(60_000));
        assert!(store.bytes > 60_000);
        store.drop_request(JobId(1));
        assert!(store.bytes < 10_000);
        assert!(store.get(JobId(1)).unwrap().request.is_none());
        store.keep_aside(at(0), outcome(2, 0), asked(60_000));
        store.keep_aside(at(0), outcome(3, 0), asked(60_000));
        assert_eq!(ids(&store), [3], "together they are too large");
    }

    proptest! {
        #[test]
        fn bounds_hold_after_every_step(steps in prop::collection::vec((0u64..40, 0usize..60_000, 0u64..5), 1..60)) {
            let mut store = Store::new(RETENTION);
            let mut now = 0;
            for (n, (forget, bytes, wait)) in steps.into_iter().enumerate() {
                now += wait;
                store.keep(at(now), outcome(u64::try_from(n).unwrap(), bytes), "true".into());
                store.forget(JobId(forget));
                let sum: u64 = store.by_id.values().map(|kept| kept.bytes).sum();
                prop_assert_eq!(sum, store.bytes);
                prop_assert_eq!(store.by_id.len(), store.by_end.len());
                prop_assert!(store.by_id.len() <= 3);
                prop_assert!(store.bytes <= RETENTION.bytes || store.by_id.len() == 1);
                prop_assert!(store.by_id.values().all(|kept| at(now).since(kept.ended) < RETENTION.age));
            }
        }
    }
}
