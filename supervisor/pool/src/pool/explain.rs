//! Why a job is where it is.
//!
//! # Invariants
//!
//! - Looking changes nothing, and what is said is what the next event would decide by.

use alloc::borrow::ToOwned as _;
use alloc::vec::Vec;

use wpool_protocol::id::JobId;
use wpool_protocol::status::SlotState;

use crate::course::{Course, Starts};
use crate::event::DrainScope;
use crate::job::{Acceptance, Job, Stage};
use crate::pool::Pool;
use crate::queue::outlook::{Held, Outlook};
use crate::run::{Started, Stop};
use crate::standing::{Because, COUNTED_MAX, Certainty, RunCourse, Standing, Waiting};
use crate::tenants::Freedom;

/// Jobs ahead of another that are named.
const NAMED: usize = 5;

impl Pool {
    /// Why a job that has not ended is where it is; nothing if there is none of this name.
    pub fn explain(&self, id: JobId) -> Option<Standing> {
        let job = self.jobs.get(id)?;
        Some(match (job.stage, job.acceptance) {
            (Stage::Concluding, _) | (Stage::Ready, Acceptance::Recording) => Standing::Recording,
            (Stage::Ready, Acceptance::Durable) => Standing::Ready(self.waiting(job)),
            (Stage::Delayed(until), _) => Standing::Delayed {
                until,
                attempts: job.attempts,
                lost: job.lost,
            },
            (Stage::OnSlot(slot), _) => {
                let slot = self.slot(slot);
                let run = slot.phase.run()?;
                Standing::OnSlot {
                    worker: slot.worker,
                    attempt: run.attempt,
                    began: run.began,
                    killed_at: self.killed_at(),
                    course: match (run.started, run.stop) {
                        (_, Stop::By(by)) => RunCourse::Stops(by),
                        (Started::EndBy(by), Stop::NotAsked) => RunCourse::Runs(by),
                        (Started::By(by), Stop::NotAsked) => RunCourse::Starts(by),
                    },
                }
            }
        })
    }

    fn waiting(&self, job: &Job) -> Waiting {
        let period = self.settings.share_period;
        let mut ahead: Vec<JobId> = Vec::new();
        let mut is_counted = false;
        let held = Held::But(job.tenant);
        for next in Outlook::new(&self.queue, period, &self.tenants, held) {
            if next == job.id {
                is_counted = true;
                break;
            }
            if ahead.len() == COUNTED_MAX {
                break;
            }
            ahead.push(next);
        }
        let count = u64::try_from(ahead.len()).unwrap_or(u64::MAX);
        ahead.truncate(NAMED);
        Waiting {
            because: self.because(job),
            first_ahead: ahead,
            ahead: is_counted.then_some(count),
            of_class: u64::try_from(self.queue.len_of(job.priority)).unwrap_or(u64::MAX),
            certainty: if self.tenants.have_running_limits() {
                Certainty::ByLimits
            } else {
                Certainty::Certain
            },
            starts_at_most: self.starts_at_most(job),
            expires: job.expire_at,
        }
    }

    fn because(&self, job: &Job) -> Because {
        match self.course {
            Course::Open {
                starts: Starts::Held,
                ..
            } => return Because::Paused,
            Course::Open {
                drain: Some(DrainScope::Running),
                ..
            }
            | Course::Stopping { .. }
            | Course::Killing
            | Course::Stopped => return Because::Draining,
            Course::Open {
                starts: Starts::Go,
                drain: None | Some(DrainScope::Queued),
            } => {}
        }
        let tenant = self.tenants.get(job.tenant);
        if let (Freedom::Held, Some(running_max)) = (tenant.freedom(), tenant.rule.running_max) {
            return Because::TenantLimit {
                tenant: tenant.name.as_ref().to_owned(),
                running: tenant.running,
                running_max,
            };
        }
        let (mut busy, mut starting, mut parked) = (0, 0, 0);
        let kept = self.slots.iter();
        for slot in kept.filter(|slot| self.keeps(slot.worker.slot)) {
            match slot.phase.shown() {
                SlotState::Busy => busy += 1,
                SlotState::Starting => starting += 1,
                SlotState::Parked => parked += 1,
                SlotState::Idle | SlotState::Recycling => {}
            }
        }
        Because::NoIdleSlot {
            busy,
            starting,
            parked,
        }
    }

    /// By how many starts a job is started at the latest. Of a tenant that may run only so many at one time, other jobs can keep it from
    /// starting for any number of starts.
    fn starts_at_most(&self, job: &Job) -> Option<u64> {
        if self.tenants.get(job.tenant).rule.running_max.is_some() {
            return None;
        }
        self.queue.starts_at_most(
            job.spot(),
            job.id,
            &self.tenants,
            self.settings.share_period,
            COUNTED_MAX,
        )
    }
}
