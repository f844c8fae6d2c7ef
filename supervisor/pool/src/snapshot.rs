//! The whole state of a pool as one value: for a restart, an upgrade, and tests.
//!
//! Only what cannot be told from the rest is in it; queue, alarms and idle slots are made anew from the
//! jobs and slots. A restored pool behaves as the one that was taken down would have.
//!
//! # Invariants
//!
//! - [`Snapshot::VERSION`] is raised with every change of what is in it or of what it means.
//! - A snapshot comes from outside: nothing is restored from it that breaks an invariant.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::admission::Admission;
use crate::alarms::Alarm;
use crate::backoff::Random;
use crate::course::Course;
use crate::invariants::Broken;
use crate::job::Job;
use crate::pool::Pool;
use crate::queue::Standing;
use crate::records::Records;
use crate::recycling::Recycling;
use crate::roster::Roster;
use crate::settings::Settings;
use crate::slot::Slot;
use crate::tenants::Tenants;
use crate::time::Instant;
use crate::view::Dropped;

/// The whole state of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    version: u32,
    settings: Settings,
    now: Instant,
    course: Course,
    jobs: Vec<Job>,
    arrivals: u64,
    standing: Standing,
    tenants: Tenants,
    slots: Vec<Slot>,
    recycling: Recycling,
    records: Records,
    admission: Admission,
    random: Random,
    dropped: Dropped,
}

/// Why a snapshot cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It is of another version.
    #[error(
        "the snapshot has version {found}, this wpool reads {}",
        Snapshot::VERSION
    )]
    Version {
        /// Its version.
        found: u32,
    },
    /// It names a slot or a job where there is none, or twice.
    #[error("the snapshot's {what} do not fit together")]
    Torn {
        /// What does not fit.
        what: &'static str,
    },
    /// It breaks an invariant.
    #[error("the snapshot makes no sound pool")]
    Unsound(#[source] Broken),
}

impl Snapshot {
    /// The version of this type.
    pub const VERSION: u32 = 4;
}

impl Pool {
    /// The whole state.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: Snapshot::VERSION,
            settings: self.settings,
            now: self.now,
            course: self.course,
            jobs: self.jobs.iter().cloned().collect(),
            arrivals: self.arrivals,
            standing: self.queue.standing(),
            tenants: self.tenants.clone(),
            slots: self.slots.clone(),
            recycling: self.recycling.clone(),
            records: self.records.clone(),
            admission: self.admission.clone(),
            random: self.random.clone(),
            dropped: self.dropped,
        }
    }

    /// The pool that `snapshot` was taken of.
    ///
    /// # Errors
    ///
    /// [`RestoreError`], if it is no sound state of this version.
    pub fn restore(snapshot: Snapshot) -> Result<Self, RestoreError> {
        if snapshot.version != Snapshot::VERSION {
            return Err(RestoreError::Version {
                found: snapshot.version,
            });
        }
        let numbers = snapshot
            .slots
            .iter()
            .map(|slot| usize::from(slot.worker.slot.0));
        let in_order = numbers.eq(0..snapshot.slots.len());
        if !in_order || snapshot.slots.len() < usize::from(snapshot.settings.slots) {
            return Err(RestoreError::Torn { what: "slots" });
        }
        let count = snapshot.jobs.len();
        let mut jobs = Roster::default();
        for job in snapshot.jobs {
            jobs.insert(job);
        }
        if jobs.len() != count {
            return Err(RestoreError::Torn { what: "jobs" });
        }
        let is_known = |tenant| snapshot.tenants.find_by_id(tenant).is_some();
        let all_known = jobs.iter().all(|job| is_known(job.tenant))
            && snapshot.standing.tenants().all(is_known);
        if !all_known || !snapshot.tenants.agree() {
            return Err(RestoreError::Torn { what: "tenants" });
        }
        let mut pool = Self {
            course: snapshot.course,
            jobs,
            arrivals: snapshot.arrivals,
            slots: snapshot.slots,
            recycling: snapshot.recycling,
            records: snapshot.records,
            tenants: snapshot.tenants,
            admission: snapshot.admission,
            random: snapshot.random,
            dropped: snapshot.dropped,
            ..Self::new(snapshot.settings, 0)
        };
        pool.now = snapshot.now;
        pool.index();
        pool.queue.set_standing(&snapshot.standing);
        pool.check().map_err(RestoreError::Unsound)?;
        Ok(pool)
    }

    /// Makes queue, alarms and idle slots anew.
    fn index(&mut self) {
        let jobs: Vec<_> = self
            .jobs
            .iter()
            .map(|job| (job.id, job.expire_at))
            .collect();
        for (id, expire_at) in jobs {
            self.index_job(id);
            if let Some(at) = expire_at {
                self.alarms.set(at, Alarm::Expire(id));
            }
        }
        for slot in &self.slots {
            self.idle.extend(slot.idle_key());
            if let Some(at) = slot.alarm() {
                self.alarms.set(at, Alarm::Slot(slot.worker.slot));
            }
            if let Some(at) = slot.recycle_at {
                self.alarms.set(at, Alarm::Age(slot.worker.slot));
            }
        }
        match self.course {
            Course::Stopping { kill_at } => self.alarms.set(kill_at, Alarm::Grace),
            Course::Open { .. } | Course::Killing | Course::Stopped => {}
        }
    }
}
