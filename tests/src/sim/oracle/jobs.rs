//! What is promised about jobs: from their submission to their one outcome.

use wpool_pool::action::{Conclusion, KillReason, Lost, Record, RecordId, Refusal};
use wpool_pool::event::{JobEnd, NewJob};
use wpool_pool::settings::Settings;
use wpool_pool::time::Instant;
use wpool_protocol::id::{AttemptRef, JobId, WorkerRef};
use wpool_protocol::job::RetryOn;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sim::oracle::seats::Over;
use crate::sim::oracle::{Asker, JobFile, Oracle, Place, Verdict};

/// The shortest and the longest wait that a client is told.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// For which reason a run that ended so could be repeated.
const fn retries(end: JobEnd) -> Option<RetryOn> {
    match end {
        JobEnd::Failed => Some(RetryOn::Failed),
        JobEnd::TimedOut => Some(RetryOn::TimedOut),
        JobEnd::MemoryExceeded => Some(RetryOn::Memory),
        JobEnd::LimitExceeded => Some(RetryOn::LimitExceeded),
        JobEnd::Succeeded | JobEnd::Stopped | JobEnd::BoxFailed => None,
    }
}

impl JobFile {
    /// Whether another attempt follows one whose time was over.
    fn has_more_time(&self) -> bool {
        self.new.retry_on.has(RetryOn::TimedOut)
            && self.runs < self.new.attempts_max
            && !self.is_cancelled()
    }

    /// It waits again, twice as long as the time before, or down to half of that; and it had not had its last attempt.
    fn wait_again(&mut self, now: Instant, settings: &Settings, not_before: Instant) -> Verdict {
        let doubled = settings.backoff_min * 2u32.pow(self.runs - 1);
        let whole = doubled.min(settings.backoff_max);
        require!(
            now.after(whole / 2) <= not_before && not_before <= now.after(whole),
            "{} waits until {not_before}, which is not {whole:?} or half of it",
            self.new.id
        );
        require!(
            self.runs < self.new.attempts_max,
            "I3: {} has had its last attempt",
            self.new.id
        );
        self.not_before = not_before;
        self.place = Place::Waiting;
        Ok(())
    }
}

impl Oracle {
    pub(super) fn hear_submission(&mut self, new: &NewJob) {
        self.summary.submitted += 1;
        let file = JobFile {
            new: new.clone(),
            submitted_at: self.now,
            arrival: u64::MAX,
            accepted_at: None,
            asked: None,
            runs: 0,
            lost: 0,
            not_before: self.now.after(new.delay),
            place: Place::New,
        };
        self.jobs.insert(new.id, file);
    }

    pub(super) fn file(&mut self, id: JobId) -> Result<&mut JobFile, String> {
        self.jobs
            .get_mut(&id)
            .ok_or_else(|| format!("job {id} has ended or never was"))
    }

    pub(super) fn judge_record(&mut self, id: RecordId, record: Record) -> Verdict {
        self.records_asked += 1;
        require!(
            id.0 == self.records_asked,
            "records are counted from 1: {id:?} is not {}",
            self.records_asked
        );
        self.records.insert(id, record);
        match record {
            Record::Accepted(job) => {
                let arrival = self.accepted;
                self.accepted += 1;
                let file = self.file(job)?;
                require!(file.place == Place::New, "{job} is accepted twice");
                file.place = Place::Waiting;
                file.arrival = arrival;
                let (count, bytes) = self.reserved();
                require!(
                    count <= self.settings.queue_jobs && bytes <= self.settings.queue_bytes,
                    "I4: {count} jobs of {bytes} bytes are admitted"
                );
                let tenant = self.file(job)?.new.tenant.clone();
                let of_tenant = self.reserved_by_tenants()[&tenant];
                let limit = self.rules.of(&tenant).queue_jobs;
                require!(
                    limit.is_none_or(|limit| of_tenant <= limit),
                    "I4: {of_tenant} jobs of tenant {tenant} are admitted"
                );
                require!(
                    self.drain.is_none() && self.kill_at.is_none(),
                    "a job is accepted while the pool drains or stops"
                );
                Ok(())
            }
            Record::Concluded(job, conclusion) => self.judge_conclusion(job, conclusion),
        }
    }

    pub(super) fn judge_accept(&mut self, id: JobId) -> Verdict {
        let (now, durable) = (self.now, self.is_durable(Record::Accepted(id)));
        let file = self.file(id)?;
        require!(
            durable,
            "I6: {id} is shown before its acceptance is durable"
        );
        require!(file.accepted_at.is_none(), "I6: {id} is accepted twice");
        file.accepted_at = Some(now);
        Ok(())
    }

    pub(super) fn judge_refusal(&mut self, id: JobId, refusal: Refusal) -> Verdict {
        let (count, bytes) = self.reserved();
        let of_tenants = self.reserved_by_tenants();
        let tenant = self.file(id)?.new.tenant.clone();
        let rule = self.rules.of(&tenant);
        let of_tenant = of_tenants.get(&tenant).copied().unwrap_or(0);
        let file = self.file(id)?;
        require!(
            file.place == Place::New,
            "{id} is refused after it was accepted"
        );
        let wanted = bytes + file.new.bytes;
        let never_fits = file.new.bytes > self.settings.queue_bytes;
        let bounded = |wait| (RETRY_MIN..=RETRY_MAX).contains(&wait);
        let justified = match refusal {
            Refusal::JobsFull { limit, retry_after } => {
                count >= limit && limit == self.settings.queue_jobs && bounded(retry_after)
            }
            Refusal::BytesFull { limit, retry_after } => {
                wanted > limit
                    && limit == self.settings.queue_bytes
                    && retry_after.is_none() == never_fits
                    && retry_after.is_none_or(bounded)
            }
            Refusal::TenantFull { limit, retry_after } => {
                of_tenant >= limit && rule.queue_jobs == Some(limit) && bounded(retry_after)
            }
            Refusal::Draining => self.drain.is_some() && self.kill_at.is_none(),
            Refusal::Stopping => self.kill_at.is_some(),
        };
        require!(justified, "{id} is refused without need: {refusal:?}");
        self.jobs.remove(&id);
        self.summary.refused += 1;
        Ok(())
    }

    pub(super) fn judge_requeue(
        &mut self,
        attempt: AttemptRef,
        worker: WorkerRef,
        lost: Lost,
        not_before: Instant,
    ) -> Verdict {
        let (now, settings) = (self.now, self.settings);
        let stops = self.kill_at.is_some();
        let file = self.file(attempt.job)?;
        let over = Over::Lost {
            attempt,
            worker,
            lost,
        };
        require!(
            file.place == Place::Over(over),
            "{attempt} was not lost so: {lost:?}"
        );
        require!(!stops, "{attempt} is requeued while the pool stops");
        require!(
            !file.is_cancelled(),
            "{attempt} is requeued although cancelled"
        );
        require!(
            lost != Lost::Killed(KillReason::Overrun),
            "{attempt} is requeued although it overran"
        );
        require!(
            file.new.retry_on.has(RetryOn::WorkerLost),
            "{attempt} may not be repeated"
        );
        file.lost += 1;
        file.wait_again(now, &settings, not_before)?;
        self.summary.requeued += 1;
        Ok(())
    }

    pub(super) fn judge_retry(
        &mut self,
        attempt: AttemptRef,
        worker: WorkerRef,
        reason: RetryOn,
        not_before: Instant,
    ) -> Verdict {
        let (now, settings, stops) = (self.now, self.settings, self.kill_at.is_some());
        let file = self.file(attempt.job)?;
        let end = match file.place {
            Place::Over(Over::Reported {
                attempt: over,
                worker: by,
                end,
                stopped: false,
            }) if (over, by) == (attempt, worker) => Some(end),
            // The pool has ended it for its time, together with its worker.
            Place::Over(Over::Lost {
                attempt: over,
                worker: by,
                lost: Lost::Killed(KillReason::Overrun),
            }) if (over, by) == (attempt, worker) => Some(JobEnd::TimedOut),
            _ => None,
        };
        let is_so = matches!(
            (end, reason),
            (Some(JobEnd::Failed), RetryOn::Failed)
                | (Some(JobEnd::TimedOut), RetryOn::TimedOut)
                | (Some(JobEnd::MemoryExceeded), RetryOn::Memory)
                | (Some(JobEnd::LimitExceeded), RetryOn::LimitExceeded)
        );
        require!(
            is_so && file.new.retry_on.has(reason) && !stops,
            "{attempt} is tried again for {reason:?}: {file:?}"
        );
        require!(
            !file.is_cancelled(),
            "{attempt} is tried again although cancelled"
        );
        file.wait_again(now, &settings, not_before)?;
        self.summary.retried += 1;
        Ok(())
    }

    /// A conclusion has its cause.
    fn judge_conclusion(&mut self, id: JobId, conclusion: Conclusion) -> Verdict {
        let (now, stops) = (self.now, self.kill_at.is_some());
        let file = self.file(id)?;
        let waits = file.place == Place::Waiting;
        let by_shutdown = Lost::Killed(KillReason::Shutdown);
        let lost = match file.place {
            Place::Over(Over::Lost { lost, .. }) => Some(lost),
            Place::New
            | Place::Waiting
            | Place::Running(_)
            | Place::Over(Over::Reported { .. })
            | Place::Concluding(_) => None,
        };
        if lost.is_some_and(|lost| lost != by_shutdown) {
            file.lost += 1;
        }
        let no_more =
            file.runs >= file.new.attempts_max || !file.new.retry_on.has(RetryOn::WorkerLost);
        let ordinary = lost
            .is_some_and(|lost| lost != by_shutdown && lost != Lost::Killed(KillReason::Overrun));
        let justified = match conclusion {
            Conclusion::Reported { attempt, worker } => match file.place {
                Place::Over(Over::Reported {
                    attempt: over,
                    worker: by,
                    end,
                    stopped,
                }) => {
                    let again = retries(end).is_some_and(|reason| file.new.retry_on.has(reason))
                        && file.runs < file.new.attempts_max
                        && !stopped
                        && !stops;
                    (over, by) == (attempt, worker) && !again
                }
                _ => false,
            },
            Conclusion::Overran { attempt, worker } => {
                let lost = Lost::Killed(KillReason::Overrun);
                let over = Over::Lost {
                    attempt,
                    worker,
                    lost,
                };
                file.place == Place::Over(over) && (stops || !file.has_more_time())
            }
            Conclusion::Cancelled => {
                file.is_cancelled() && (waits || ordinary || lost == Some(by_shutdown))
            }
            Conclusion::Cleared => waits && file.asked == Some(Asker::Operator),
            Conclusion::Expired => {
                let within = file.new.start_within;
                waits
                    && file.runs == 0
                    && within.is_some_and(|within| now > file.submitted_at.after(within))
            }
            Conclusion::Quarantined { lost } => {
                lost == file.lost && no_more && ordinary && !file.is_cancelled()
            }
            Conclusion::Shutdown => {
                let run_ends = lost == Some(by_shutdown) || (ordinary && !no_more);
                stops && (waits || run_ends && !file.is_cancelled())
            }
        };
        require!(
            justified,
            "{id} is concluded without cause, as {conclusion:?}, with {file:?}"
        );
        file.place = Place::Concluding(conclusion);
        Ok(())
    }

    pub(super) fn judge_outcome(&mut self, id: JobId, conclusion: Conclusion) -> Verdict {
        let durable = self.is_durable(Record::Concluded(id, conclusion));
        let file = self.file(id)?;
        require!(
            file.accepted_at.is_some(),
            "I6: {id} ends before it is accepted"
        );
        require!(durable, "I6: the end of {id} is shown before it is durable");
        require!(
            file.place == Place::Concluding(conclusion),
            "I6: the outcome of {id} is not the recorded one"
        );
        let (reserved, file) = (self.reserved(), self.jobs.remove(&id));
        let bytes = file.as_ref().map_or(0, |file| file.new.bytes);
        let tenant = file.map_or_else(String::new, |file| file.new.tenant);
        let left = self.reserved_by_tenants().get(&tenant).copied();
        if let Some(tolerated) = self.tolerated_of_tenants.get_mut(&tenant) {
            *tolerated = (*tolerated).min(left.unwrap_or(0));
        }
        self.tolerated.0 = self.tolerated.0.min(reserved.0 - 1);
        self.tolerated.1 = self.tolerated.1.min(reserved.1 - bytes);
        let counter = match conclusion {
            Conclusion::Reported { .. } => &mut self.summary.reported,
            Conclusion::Cancelled => &mut self.summary.cancelled,
            Conclusion::Cleared => &mut self.summary.cleared,
            Conclusion::Expired => &mut self.summary.expired,
            Conclusion::Quarantined { .. } => &mut self.summary.quarantined,
            Conclusion::Overran { .. } => &mut self.summary.overran,
            Conclusion::Shutdown => &mut self.summary.shut_down,
        };
        *counter += 1;
        Ok(())
    }

    fn is_durable(&self, wanted: Record) -> bool {
        self.records
            .range(..=RecordId(self.durable))
            .any(|(_, record)| *record == wanted)
    }

    /// What is durable must have been shown, and what has its cause must have been concluded.
    pub(super) fn settle_jobs(&mut self) -> Verdict {
        while let Some(entry) = self.records.first_entry() {
            if entry.key().0 > self.durable {
                break;
            }
            match entry.remove() {
                Record::Accepted(id) => {
                    let shown = self
                        .jobs
                        .get(&id)
                        .is_none_or(|job| job.accepted_at.is_some());
                    require!(shown, "{id} is durable and was not accepted");
                }
                Record::Concluded(id, _) => {
                    let shown = !self.jobs.contains_key(&id);
                    require!(shown, "the end of {id} is durable and was not shown");
                }
            }
        }
        for (id, job) in &self.jobs {
            match job.place {
                Place::New => return Err(format!("{id} was neither accepted nor refused")),
                Place::Over(over) => return Err(format!("nothing becomes of {id}: {over:?}")),
                Place::Running(_) | Place::Concluding(_) => {}
                Place::Waiting => {
                    let asked = job.asked;
                    require!(
                        asked.is_none(),
                        "{id} waits on although asked to end: {asked:?}"
                    );
                    require!(self.kill_at.is_none(), "{id} waits while the pool stops");
                    let late = job
                        .new
                        .start_within
                        .is_some_and(|within| self.now > job.submitted_at.after(within));
                    require!(!late || job.runs > 0, "{id} should have expired");
                }
            }
        }
        let (count, bytes) = self.reserved();
        require!(
            count <= self.settings.queue_jobs.max(self.tolerated.0)
                && bytes <= self.settings.queue_bytes.max(self.tolerated.1),
            "I4: {count} jobs of {bytes} bytes are there"
        );
        self.check_tenants(&self.tolerated_of_tenants)
    }

    /// No tenant has more jobs than it may, or than are tolerated.
    fn check_tenants(&self, tolerated: &BTreeMap<String, u64>) -> Verdict {
        for (tenant, count) in self.reserved_by_tenants() {
            let limit = self.rules.of(&tenant).queue_jobs.unwrap_or(u64::MAX);
            let tolerated = tolerated.get(&tenant).copied().unwrap_or(0);
            require!(
                count <= limit.max(tolerated),
                "I4: tenant {tenant} has {count} jobs and may have {limit}"
            );
        }
        Ok(())
    }
}
