//! What the driver holds of a job that has not ended.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use wpool_protocol::blob::Blob;
use wpool_protocol::id::{AttemptNumber, AttemptRef, JobId, WorkerRef};
use wpool_protocol::outcome::{Attempt, AttemptEnd, Isolation, JobState, Outcome};
use wpool_protocol::status::JobSummary;
use wpool_protocol::timestamp::Timestamp;

use super::collect::Collected;
use super::command::SubmitAnswer;
use crate::report::{Verdict, attempt_end};
use crate::request::ResolvedJob;

/// Bytes of a lost attempt's output, of each stream, that stay with the job.
const TAIL_LEN: usize = 4 << 10;

/// What the driver holds of a job that has not ended.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) request: ResolvedJob,
    pub(super) queued_at: Timestamp,
    /// Its runs that are over.
    pub(super) attempts: Vec<Attempt>,
    /// Runs that were begun.
    pub(super) begun: u32,
    /// The run that goes on, or that the pool has still to decide about.
    pub(super) run: Option<JobRun>,
    /// What stood around its last run.
    pub(super) isolation: Isolation,
    /// Who waits to hear whether it is accepted; nobody once it is, and then it can be seen.
    pub(super) submitter: Option<oneshot::Sender<SubmitAnswer>>,
    /// Who waits for what becomes of it.
    watchers: Option<watch::Sender<Progress>>,
}

/// A run, as far as its job is concerned.
#[derive(Debug)]
pub(super) struct JobRun {
    pub(super) attempt: AttemptRef,
    pub(super) worker: WorkerRef,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) collected: Collected,
    /// What is known of the loss of its worker.
    pub(super) loss: Option<String>,
}

/// How far a job has come, for those who wait.
#[derive(Clone, Debug)]
pub enum Progress {
    /// It has not ended; the number changes with everything that happens to it.
    Live(JobState, u64),
    /// It has ended.
    Ended(Arc<Outcome>),
}

/// What becomes of the output of a run that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tails {
    /// Its last bytes stay with the attempt.
    Kept,
    /// All of it is in the outcome.
    InOutcome,
}

impl Job {
    pub(super) fn new(
        id: JobId,
        request: ResolvedJob,
        queued_at: Timestamp,
        submitter: oneshot::Sender<SubmitAnswer>,
    ) -> Self {
        Self {
            id,
            request,
            queued_at,
            attempts: Vec::new(),
            begun: 0,
            run: None,
            isolation: Isolation::default(),
            submitter: Some(submitter),
            watchers: None,
        }
    }

    /// Whether anybody may know of it (I6).
    pub(super) const fn is_visible(&self) -> bool {
        self.submitter.is_none()
    }

    pub(super) const fn state(&self) -> JobState {
        match self.run {
            Some(_) => JobState::Running,
            None => JobState::Queued,
        }
    }

    /// A view of what becomes of it.
    pub(super) fn watch(&mut self) -> watch::Receiver<Progress> {
        let state = self.state();
        let watchers = self
            .watchers
            .get_or_insert_with(|| watch::Sender::new(Progress::Live(state, 0)));
        watchers.subscribe()
    }

    /// Tells those who wait that something has happened.
    pub(super) fn tell_watchers(&mut self) {
        let state = self.state();
        if let Some(watchers) = &self.watchers {
            if watchers.receiver_count() == 0 {
                self.watchers = None;
                return;
            }
            watchers.send_modify(|progress| {
                let number = match progress {
                    Progress::Live(_, number) => *number + 1,
                    Progress::Ended(_) => 0,
                };
                *progress = Progress::Live(state, number);
            });
        }
    }

    /// Tells those who wait how it ended.
    pub(super) fn tell_outcome(&mut self, outcome: &Arc<Outcome>) {
        if let Some(watchers) = self.watchers.take() {
            watchers.send_replace(Progress::Ended(Arc::clone(outcome)));
        }
    }

    /// A run begins.
    pub(super) fn begin(&mut self, attempt: AttemptRef, worker: WorkerRef, now: Timestamp) {
        self.begun += 1;
        self.run = Some(JobRun {
            attempt,
            worker,
            started_at: now,
            ended_at: None,
            collected: Collected::default(),
            loss: None,
        });
        self.tell_watchers();
    }

    /// The run that is over, put among the attempts; its output. `end` says how, where its worker did not.
    pub(super) fn close_run(&mut self, end: AttemptEnd, now: Timestamp) -> Option<Collected> {
        let tails = match end {
            AttemptEnd::WorkerLost => Tails::Kept,
            _ => Tails::InOutcome,
        };
        self.close(end, now, tails)
    }

    /// Likewise, of a run that ended, as its worker reported or for want of a report as `end` says, and that another follows: of its
    /// output the tails stay.
    pub(super) fn close_retried(&mut self, end: AttemptEnd, now: Timestamp) {
        drop(self.close(end, now, Tails::Kept));
    }

    fn close(&mut self, end: AttemptEnd, now: Timestamp, tails: Tails) -> Option<Collected> {
        let run = self.run.take()?;
        let report = run.collected.report.as_deref();
        let end = match end {
            AttemptEnd::WorkerLost => end,
            _ => report.map_or(end, |report| attempt_end(&report.ending)),
        };
        let keeps = tails == Tails::Kept || end == AttemptEnd::WorkerLost;
        let ended_at = run.ended_at.unwrap_or(now);
        // On a busy machine its start was heard of late.
        let ran_ms = report.map_or(0, |report| report.usage.wall_us / 1_000);
        let ran_ms = i64::try_from(ran_ms).unwrap_or(0);
        let started_at = run
            .started_at
            .min(Timestamp(ended_at.0.saturating_sub(ran_ms)));
        let streams = &run.collected.streams;
        self.attempts.push(Attempt {
            number: run.attempt.attempt,
            slot: run.worker.slot,
            generation: run.worker.generation,
            started_at,
            ended_at,
            end,
            cause: report
                .and_then(|report| Verdict::of_run(&report.ending, &self.request.limits).cause),
            detail: run.loss,
            stdout_tail: keeps.then(|| tail(&streams.stdout.bytes)).flatten(),
            stderr_tail: keeps.then(|| tail(&streams.stderr.bytes)).flatten(),
        });
        Some(run.collected)
    }

    /// The attempt that goes on.
    pub(super) fn attempt(&self) -> Option<AttemptNumber> {
        self.run.as_ref().map(|run| run.attempt.attempt)
    }

    /// The job in a listing.
    pub(super) fn summary(&self) -> JobSummary {
        let last = self.attempts.last();
        let started_at = match &self.run {
            Some(run) => Some(run.started_at),
            None => last.map(|attempt| attempt.started_at),
        };
        JobSummary {
            id: self.id,
            state: self.state(),
            command: self.request.command.as_ref().to_owned(),
            tenant: self.request.tenant.as_ref().to_owned(),
            priority: self.request.priority,
            attempts: self.begun,
            labels: self.request.labels.clone(),
            queued_at: self.queued_at,
            started_at,
            ended_at: None,
            cause: None,
            released_as: None,
        }
    }
}

/// The last of what a lost attempt wrote.
fn tail(bytes: &[u8]) -> Option<Blob> {
    let start = bytes.len().saturating_sub(TAIL_LEN);
    let tail = bytes.get(start..).filter(|tail| !tail.is_empty())?;
    Some(Blob(tail.to_vec()))
}
