//! A job's end: its outcome is made, kept and told.

use std::sync::Arc;

use wpool_pool::action::Conclusion;
use wpool_protocol::id::JobId;
use wpool_protocol::outcome::{AttemptEnd, JobState, Outcome};
use wpool_protocol::quantity::Millis;

use super::Driver;
use super::collect::Collected;
use crate::report::{self, Ended, JobEnding};

impl Driver {
    pub(super) fn conclude(&mut self, id: JobId, conclusion: Conclusion) {
        let Some(mut job) = self.register.take_live(id) else {
            return;
        };
        let now = Self::wall_clock();
        let end = match conclusion {
            // Its report says more, and goes before this.
            Conclusion::Reported { .. } => AttemptEnd::Exited,
            Conclusion::Overran { .. } => AttemptEnd::TimedOut,
            Conclusion::Shutdown => AttemptEnd::Shutdown,
            Conclusion::Cancelled
            | Conclusion::Cleared
            | Conclusion::Expired
            | Conclusion::Quarantined { .. } => AttemptEnd::WorkerLost,
        };
        let Collected {
            report,
            streams,
            files,
        } = job.close_run(end, now).unwrap_or_default();
        let attempts = u32::try_from(job.attempts.len()).unwrap_or(u32::MAX);
        let ending = match (conclusion, report) {
            (Conclusion::Reported { .. }, Some(report)) => JobEnding::Reported(report),
            // The pool concludes so only what a report was heard of; without one the loss is the truth.
            (Conclusion::Reported { .. }, None) => JobEnding::Quarantined { lost: 1, attempts },
            (Conclusion::Cancelled, _) => JobEnding::Cancelled,
            (Conclusion::Cleared, _) => JobEnding::Cleared,
            (Conclusion::Expired, _) => {
                JobEnding::Expired(job.request.start_within.unwrap_or(Millis(0)))
            }
            (Conclusion::Quarantined { lost }, _) => JobEnding::Quarantined { lost, attempts },
            (Conclusion::Overran { .. }, _) => JobEnding::Overran,
            (Conclusion::Shutdown, _) => JobEnding::Shutdown,
        };
        let outcome = Arc::new(report::outcome(Ended {
            id,
            tenant: job.request.tenant.as_ref().to_owned(),
            priority: job.request.priority,
            labels: job.request.labels.clone(),
            limits: job.request.limits,
            queued_at: job.queued_at,
            ended_at: now,
            attempts: std::mem::take(&mut job.attempts),
            streams,
            files,
            isolation: std::mem::take(&mut job.isolation),
            released_from: job.request.released_from,
            ending,
        }));
        log(conclusion, &outcome);
        *self.tally.ended.entry(outcome.state).or_default() += 1;
        if conclusion == Conclusion::Cleared {
            self.tally.cleared += 1;
        }
        self.tally.last_job_at = Some(now);
        job.tell_outcome(&outcome);
        let at = self.now();
        match outcome.state {
            JobState::Quarantined => {
                // Its copy is another job: its key stays with this one.
                job.request.key = None;
                let request = Box::new(job.request);
                self.register.keep_aside(at, outcome, request);
            }
            _ => self.register.keep(at, outcome, job.request.command),
        }
    }
}

fn log(conclusion: Conclusion, outcome: &Outcome) {
    let cause = outcome.cause.as_ref().map(|cause| cause.text.as_str());
    match conclusion {
        Conclusion::Quarantined { .. } | Conclusion::Shutdown => {
            tracing::warn!(job = %outcome.id, state = %outcome.state, cause, "a job was not run to its end");
        }
        Conclusion::Reported { .. }
        | Conclusion::Cancelled
        | Conclusion::Cleared
        | Conclusion::Expired
        | Conclusion::Overran { .. } => {
            tracing::debug!(job = %outcome.id, state = %outcome.state, cause, "ended");
        }
    }
}
