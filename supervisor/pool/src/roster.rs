//! All jobs that have not ended, by id.
//!
//! Ids are given in a row, and what is asked for is most often one of the last: so they lie in pages of 64, found by the upper part of
//! the id. A page with few jobs holds just those, so that one that stays long among many that come and go does not take the room of all.
//! A page goes when the last of its jobs does.
//!
//! # Invariants
//!
//! - No page is empty. A thin one is in order, and has at most [`THIN`] jobs.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use wpool_protocol::id::JobId;

use crate::job::Job;

/// Jobs of one page.
const PAGE_LEN: usize = 64;

/// Jobs of a thin page: a third, at which a full one takes three times the room that they need.
const THIN: usize = PAGE_LEN / 3;

/// Jobs at which a full page becomes thin: so few that one whose jobs come and go is not made anew each time.
const THIN_AGAIN: usize = THIN / 2;

/// All jobs that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    pages: BTreeMap<u64, Page>,
    len: usize,
}

#[derive(Clone, Debug)]
enum Page {
    /// By place.
    Full {
        jobs: Box<[Option<Job>; PAGE_LEN]>,
        len: usize,
    },
    /// In the order of their ids.
    Thin(Vec<Job>),
}

impl Page {
    fn get(&self, id: JobId) -> Option<&Job> {
        match self {
            Self::Full { jobs, .. } => jobs.get(place_of(id).1)?.as_ref(),
            Self::Thin(jobs) => jobs.get(position(jobs, id).ok()?),
        }
    }

    fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        match self {
            Self::Full { jobs, .. } => jobs.get_mut(place_of(id).1)?.as_mut(),
            Self::Thin(jobs) => {
                let at = position(jobs, id).ok()?;
                jobs.get_mut(at)
            }
        }
    }

    /// Takes in a job that is not there.
    fn insert(&mut self, job: Job) {
        if let Self::Thin(jobs) = self
            && jobs.len() == THIN
        {
            let thin = core::mem::take(jobs);
            let len = thin.len();
            let mut jobs = Box::new([const { None }; PAGE_LEN]);
            for job in thin {
                if let Some(vacant) = jobs.get_mut(place_of(job.id).1) {
                    *vacant = Some(job);
                }
            }
            *self = Self::Full { jobs, len };
        }
        match self {
            Self::Full { jobs, len } => {
                if let Some(vacant) = jobs.get_mut(place_of(job.id).1) {
                    *vacant = Some(job);
                    *len += 1;
                }
            }
            Self::Thin(jobs) => {
                let at = position(jobs, job.id).unwrap_or_else(|at| at);
                jobs.insert(at, job);
            }
        }
    }

    fn remove(&mut self, id: JobId) -> Option<Job> {
        match self {
            Self::Full { jobs, len } => {
                let job = jobs.get_mut(place_of(id).1)?.take()?;
                *len -= 1;
                if *len <= THIN_AGAIN {
                    let left = jobs.iter_mut().filter_map(Option::take);
                    *self = Self::Thin(left.collect());
                }
                Some(job)
            }
            Self::Thin(jobs) => {
                let at = position(jobs, id).ok()?;
                let job = jobs.remove(at);
                if jobs.len() <= jobs.capacity() / 4 {
                    jobs.shrink_to_fit();
                }
                Some(job)
            }
        }
    }

    const fn len(&self) -> usize {
        match self {
            Self::Full { len, .. } => *len,
            Self::Thin(jobs) => jobs.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Job> {
        let (full, thin) = match self {
            Self::Full { jobs, .. } => (Some(jobs.iter().flatten()), None),
            Self::Thin(jobs) => (None, Some(jobs)),
        };
        full.into_iter().flatten().chain(thin.into_iter().flatten())
    }
}

impl PartialEq for Page {
    /// Whether the same jobs are there.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Page {}

fn position(jobs: &[Job], id: JobId) -> Result<usize, usize> {
    jobs.binary_search_by_key(&id, |job| job.id)
}

/// The page of a job, and its place there.
fn place_of(id: JobId) -> (u64, usize) {
    let [low, ..] = id.0.to_le_bytes();
    (id.0 / PAGE_LEN as u64, usize::from(low) % PAGE_LEN)
}

impl Roster {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn contains(&self, id: JobId) -> bool {
        self.get(id).is_some()
    }

    pub(crate) fn get(&self, id: JobId) -> Option<&Job> {
        self.pages.get(&place_of(id).0)?.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.pages.get_mut(&place_of(id).0)?.get_mut(id)
    }

    /// Takes in a job that is not there.
    pub(crate) fn insert(&mut self, job: Job) {
        let page = self.pages.entry(place_of(job.id).0);
        page.or_insert_with(|| Page::Thin(Vec::new())).insert(job);
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, id: JobId) -> Option<Job> {
        let number = place_of(id).0;
        let page = self.pages.get_mut(&number)?;
        let job = page.remove(id)?;
        self.len -= 1;
        if page.len() == 0 {
            self.pages.remove(&number);
        }
        Some(job)
    }

    /// All, the lowest id first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.pages.values().flat_map(Page::iter)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::btree_map::Entry;
    use core::time::Duration;

    use proptest::prelude::*;
    use wpool_protocol::job::Priority;

    use super::*;
    use crate::event::{NewJob, RetryRule};
    use crate::job::Stage;
    use crate::tenants::Tenants;

    fn job(id: u64) -> Job {
        let new = NewJob {
            id: JobId(id),
            tenant: "ann".into(),
            priority: Priority::Normal,
            rank: 0,
            bytes: 0,
            run_time_max: Duration::ZERO,
            delay: Duration::ZERO,
            start_within: None,
            attempts_max: 1,
            retry_on: RetryRule::NEVER,
        };
        Job::new(&new, Tenants::default().meet("ann"), id, Stage::Ready, None)
    }

    proptest! {
        /// Over two pages, which grow full and become thin again.
        #[test]
        fn a_roster_is_an_ordered_map(
            times in prop::collection::vec(prop::collection::vec(0..128u64, 0..400), 0..6),
        ) {
            let mut roster = Roster::default();
            let mut expected = BTreeMap::new();
            // Some come, then some go, and so on.
            let steps = (0..).zip(times).flat_map(|(time, ids)| ids.into_iter().map(move |id| (time % 2, id)));
            for (goes, id) in steps {
                if goes == 1 {
                    prop_assert_eq!(roster.remove(JobId(id)), expected.remove(&id));
                } else if let Entry::Vacant(vacant) = expected.entry(id) {
                    roster.insert(job(id));
                    vacant.insert(job(id));
                }
                prop_assert_eq!(roster.get(JobId(id)), expected.get(&id));
                prop_assert!(roster.iter().eq(expected.values()));
                prop_assert_eq!(roster.len(), expected.len());
                for page in roster.pages.values() {
                    prop_assert!(page.len() > 0);
                    if let Page::Thin(jobs) = page {
                        prop_assert!(jobs.len() <= THIN);
                    }
                }
            }
        }
    }
}
