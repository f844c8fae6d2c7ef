//! All jobs that have not ended, by id.
//!
//! Ids are given in a row, and what is asked for is most often one of the last: so they lie in pages of 64, found by the upper part of
//! the id. A page goes when the last of its jobs does.
//!
//! # Invariants
//!
//! - No page is empty.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use wpool_protocol::id::JobId;

use crate::job::Job;

/// Jobs of one page.
const PAGE_LEN: usize = 64;

/// All jobs that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    pages: BTreeMap<u64, Page>,
    len: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Page {
    jobs: Box<[Option<Job>; PAGE_LEN]>,
    len: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            jobs: Box::new([const { None }; PAGE_LEN]),
            len: 0,
        }
    }
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
        let (page, place) = place_of(id);
        self.pages.get(&page)?.jobs.get(place)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        let (page, place) = place_of(id);
        self.pages.get_mut(&page)?.jobs.get_mut(place)?.as_mut()
    }

    /// Takes in a job that is not there.
    pub(crate) fn insert(&mut self, job: Job) {
        let (page, place) = place_of(job.id);
        let page = self.pages.entry(page).or_default();
        if let Some(vacant) = page.jobs.get_mut(place)
            && vacant.replace(job).is_none()
        {
            page.len += 1;
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, id: JobId) -> Option<Job> {
        let (number, place) = place_of(id);
        let page = self.pages.get_mut(&number)?;
        let job = page.jobs.get_mut(place)?.take()?;
        page.len -= 1;
        self.len -= 1;
        if page.len == 0 {
            self.pages.remove(&number);
        }
        Some(job)
    }

    /// All, the lowest id first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Job> {
        let jobs = self.pages.values().flat_map(|page| page.jobs.iter());
        jobs.flatten()
    }
}
