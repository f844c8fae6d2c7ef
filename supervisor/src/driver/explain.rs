//! Why a job, a slot or the pool is as it is, in sentences.
//!
//! # Invariants
//!
//! - What the scheduler decides by is asked of the pool, never worked out here.
//! - Jobs of others are counted, not named.

use std::time::Duration;

use wpool_pool::event::DrainScope;
use wpool_pool::standing::{Because, COUNTED_MAX, Certainty, RunCourse, Standing, Waiting};
use wpool_pool::time::Instant;
use wpool_pool::view::{ParkedBy, PoolView, SlotView};
use wpool_protocol::explanation::{
    JobExplanation, PoolExplanation, SlotExplanation, WaitExplanation, WaitReason,
};
use wpool_protocol::id::JobId;
use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::outcome::{Attempt, AttemptEnd, Cause, CauseDetail, JobState, Outcome};
use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_protocol::status::{PoolState, SlotState};

use super::Driver;
use super::obey::may_see;
use crate::request::Caller;

impl Driver {
    /// Why a job is where it is; nothing if there is none that the caller may know of.
    pub(super) fn explain(&mut self, id: JobId, caller: &Caller) -> Option<JobExplanation> {
        let Some(job) = self.visible_job(id, caller) else {
            let outcome = &self.register.ended(id)?.outcome;
            return may_see(caller, &outcome.tenant).then(|| of_outcome(outcome));
        };
        let (state, attempts) = (job.state(), attempts(&job.attempts));
        let attempts_max = job.request.attempts_max;
        let limits = job.request.limits;
        let grown = grown(&job.attempts, &limits);
        let (text, waits) = match self.pool.explain(id)? {
            Standing::Recording => {
                let text = "its acceptance or its end is being made durable".to_owned();
                (text, Some(waits(WaitReason::Recording)))
            }
            Standing::Delayed {
                until,
                attempts,
                lost,
            } => {
                let (text, waits) = self.delayed(until, (attempts, lost), attempts_max);
                (text + &grown, waits)
            }
            Standing::Ready(waiting) => self.waiting(&waiting, caller),
            Standing::OnSlot {
                worker,
                attempt,
                began,
                course,
                killed_at,
            } => {
                let now = self.now();
                let text = format!(
                    "attempt {} of at most {attempts_max} has been on slot {} (generation {}) for {}; {}",
                    attempt.attempt,
                    worker.slot,
                    worker.generation,
                    span(now.since(began)),
                    run_in_words(course, now, &limits)
                );
                let text = match killed_at {
                    Some(at) => format!(
                        "{text}; the supervisor shuts down, and kills it in {} if it has not ended",
                        span(at.since(now))
                    ),
                    None => text,
                };
                (text, None)
            }
        };
        Some(JobExplanation {
            id,
            state,
            text,
            waits,
            attempts,
        })
    }

    fn delayed(
        &self,
        until: Instant,
        (attempts, lost): (u32, u32),
        attempts_max: u32,
    ) -> (String, Option<WaitExplanation>) {
        let wait = until.since(self.now());
        let (reason, text) = match (attempts, lost) {
            (0, _) => (
                WaitReason::Delay,
                format!(
                    "it is not to start before {} from now (delay_ms)",
                    span(wait)
                ),
            ),
            (attempts, 0) => (
                WaitReason::Backoff,
                format!(
                    "attempt {attempts} of at most {attempts_max} is over, and retry_on asks for another; it may start in {}",
                    span(wait)
                ),
            ),
            (attempts, lost) => (
                WaitReason::Backoff,
                format!(
                    "attempt {attempts} of at most {attempts_max} is over, and it has cost {lost} worker{}; it may start again in {}",
                    if lost == 1 { "" } else { "s" },
                    span(wait)
                ),
            ),
        };
        let waits = WaitExplanation {
            for_ms: Some(millis(wait)),
            ..waits(reason)
        };
        (text, Some(waits))
    }

    fn waiting(&self, waiting: &Waiting, caller: &Caller) -> (String, Option<WaitExplanation>) {
        let (reason, text) = match &waiting.because {
            Because::Paused => (
                WaitReason::Paused,
                "the pool is paused and starts nothing until `wpool pool resume`".to_owned(),
            ),
            Because::Draining => (
                WaitReason::Draining,
                "the pool drains and leaves the queue until `wpool pool resume`".to_owned(),
            ),
            Because::TenantLimit {
                tenant,
                running,
                running_max,
            } => (
                WaitReason::TenantRunningMax,
                format!(
                    "its tenant {} has {running} running, and its running_max is {running_max}",
                    tenant.escape_debug()
                ),
            ),
            Because::NoIdleSlot {
                busy,
                starting,
                parked,
            } => (
                WaitReason::NoIdleSlot,
                format!("no slot is idle: {busy} busy, {starting} starting, {parked} parked"),
            ),
        };
        let order = order_in_words(waiting);
        let bound = waiting.starts_at_most.map(|most| {
            format!(
                "whatever comes in other classes, and if nothing falls due or comes in its own, it is among the next {most} starts"
            )
        });
        let visible = |id: &&JobId| {
            let job = self.register.live.get(id);
            job.is_some_and(|job| job.is_visible() && may_see(caller, &job.request.tenant))
        };
        let expires = waiting.expires.map(|at| at.since(self.now()));
        let end = expires.map(|expires| format!("it expires in {}", span(expires)));
        let clauses = [Some(text), Some(order), bound, end].into_iter();
        let text = clauses.flatten().collect::<Vec<_>>().join("; ");
        let waits = WaitExplanation {
            ahead: waiting.ahead,
            first_ahead: waiting
                .first_ahead
                .iter()
                .filter(visible)
                .copied()
                .collect(),
            starts_at_most: waiting.starts_at_most,
            expires_in_ms: expires.map(millis),
            ..waits(reason)
        };
        (text, Some(waits))
    }

    /// Why the pool and its slots are as they are.
    pub(super) fn explain_pool(&self, caller: &Caller) -> PoolExplanation {
        let view = self.pool.view();
        let status = self.status(caller);
        let text = match view.state {
            PoolState::Running => {
                format!("{} running, {} waiting", view.active, view.queued.total)
            }
            PoolState::Paused => format!(
                "somebody paused it: {} until `wpool pool resume`",
                count(view.queued.total, "job waits", "jobs wait")
            ),
            PoolState::Draining => drained_in_words(&view),
            PoolState::Stopping => {
                let run = count(view.active, "job runs", "jobs run");
                match view.killed_at {
                    Some(at) => format!(
                        "it shuts down: {run}, and what has not ended is killed in {}",
                        span(at.since(self.now()))
                    ),
                    None => format!("it shuts down: {run}"),
                }
            }
            PoolState::Degraded => status
                .reason
                .unwrap_or_else(|| "a slot proves itself again".to_owned()),
        };
        let text = match self.pool.recycling() {
            None => text,
            Some(recycling) => {
                let due = u64::from(recycling.due);
                let now = if let Some(slot) = recycling.turn {
                    format!("slot {slot} is being recycled, {due} more are to be")
                } else {
                    count(due, "slot is to be recycled", "slots are to be recycled")
                };
                format!("{text}; {now}, slot {} stands in", recycling.spare)
            }
        };
        let slots = self.pool.slots();
        let slots = slots.into_iter().zip(status.workers);
        PoolExplanation {
            state: view.state,
            text,
            slots: slots
                .map(|(view, status)| SlotExplanation {
                    slot: status.slot,
                    state: status.state,
                    text: self.slot_in_words(&view, status.job, status.reason.as_deref()),
                })
                .collect(),
        }
    }

    fn slot_in_words(&self, view: &SlotView, job: Option<JobId>, trouble: Option<&str>) -> String {
        let now = self.now();
        let since = span(now.since(view.since));
        let generation = view.worker.generation;
        let because = trouble.map_or_else(String::new, |trouble| format!(": {trouble}"));
        let goes = if view.stays {
            ""
        } else {
            ", and its slot goes when that has ended"
        };
        match view.state {
            SlotState::Idle => format!("worker {generation} has waited for a job for {since}"),
            SlotState::Busy => match job {
                Some(job) => format!("worker {generation} has had job {job} for {since}{goes}"),
                None => format!("worker {generation} has had a job for {since}{goes}"),
            },
            SlotState::Starting => {
                format!("worker {generation} has been on its way for {since}{because}")
            }
            SlotState::Recycling => format!("worker {generation} was told to go {since} ago"),
            SlotState::Parked => {
                let rest = view.parked_until.map(|until| span(until.since(now)));
                let rest = rest.unwrap_or_default();
                let why = parked_in_words(view.parked_by, self.config.borrow().pool.restart_period);
                format!("{why}; the next try is in {rest}{because}")
            }
        }
    }
}

/// What a slot was parked for.
fn parked_in_words(by: Option<ParkedBy>, period: Duration) -> String {
    match by {
        Some(ParkedBy::Burst(deaths)) => format!(
            "{} within {}, before they were ready, right after, or because a job's box failed",
            count(deaths.into(), "worker of it ended", "workers of it ended"),
            span(period)
        ),
        Some(ParkedBy::Probe(times)) => format!(
            "the worker that was to show whether it works again has ended, too: it is parked for the {} time in a row",
            ordinal(times)
        ),
        None => "it is parked".to_owned(),
    }
}

/// 1st, 2nd, 3rd, 4th and so on.
fn ordinal(number: u32) -> String {
    let suffix = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

/// So many of something.
fn count(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}

/// What the next attempt has more of than the last.
fn grown(attempts: &[Attempt], limits: &Limits) -> String {
    let last = attempts.last().and_then(|attempt| attempt.cause.as_ref());
    match last.map(|cause| &cause.detail) {
        Some(CauseDetail::Limit {
            limit: LimitName::Memory,
            allowed,
            ..
        }) if limits.memory_bytes.0 > *allowed => {
            format!(
                ", with {} of memory instead of {}",
                limits.memory_bytes,
                ByteSize(*allowed)
            )
        }
        _ => String::new(),
    }
}

/// When a run ends at the latest.
fn run_in_words(course: RunCourse, now: Instant, limits: &Limits) -> String {
    let left = |by: Instant| span(by.since(now));
    match course {
        RunCourse::Starts(by) => format!(
            "its program does not run yet, and its worker is killed if that is still so in {}",
            left(by)
        ),
        RunCourse::Runs(by) => {
            let (timeout, grace) = (limits.timeout_ms, limits.grace_ms);
            let grace = match grace {
                Millis(0) => String::new(),
                grace => format!(" (SIGTERM, and {grace} later SIGKILL)"),
            };
            format!(
                "it is ended {timeout} after its program began{grace}, and its worker is killed if it has not seen to that in {}",
                left(by)
            )
        }
        RunCourse::Stops(by) => format!(
            "its end was asked for, and its worker is killed if it has not seen to that in {}",
            left(by)
        ),
    }
}

/// How many start before it, and how sure that is.
fn order_in_words(waiting: &Waiting) -> String {
    let held = matches!(waiting.because, Because::TenantLimit { .. });
    let when = if held {
        "once its tenant may start one, "
    } else {
        ""
    };
    let unless = match waiting.certainty {
        Certainty::Certain => "if nothing else comes",
        Certainty::ByLimits => {
            "if nothing else comes, and more or fewer as tenants come to their running_max"
        }
    };
    match (waiting.ahead, waiting.certainty) {
        (Some(0), Certainty::Certain) => format!("{when}it is the next to start"),
        (Some(0), Certainty::ByLimits) => format!(
            "{when}it is the next to start, unless a tenant comes beneath its running_max first"
        ),
        (Some(1), Certainty::Certain) => format!("{when}1 job starts before it {unless}"),
        (Some(ahead), Certainty::Certain) => format!("{when}{ahead} jobs start before it {unless}"),
        (Some(ahead), Certainty::ByLimits) => {
            format!("{when}about {ahead} jobs start before it {unless}")
        }
        (None, _) => format!(
            "{when}more than {COUNTED_MAX} jobs start before it {unless}; {} of its class wait",
            waiting.of_class
        ),
    }
}

fn drained_in_words(view: &PoolView) -> String {
    let (active, waiting) = (view.active, view.queued.total);
    let waiting = match (view.orders.drain, view.orders.paused) {
        (_, true) => format!("{waiting} wait, for somebody has paused it, too"),
        (Some(DrainScope::Queued), false) => format!("{waiting} that wait will"),
        (Some(DrainScope::Running) | None, false) => format!("{waiting} wait"),
    };
    format!(
        "somebody drains it: jobs are refused, {active} run and {waiting}, until `wpool pool resume`"
    )
}

fn of_outcome(outcome: &Outcome) -> JobExplanation {
    let mut why = match (&outcome.cause, outcome.exit_code) {
        (Some(cause), _) => in_words(cause),
        (None, Some(code)) => format!("it exited with code {code}"),
        (None, None) => "it ended".to_owned(),
    };
    if outcome.state == JobState::Quarantined {
        why = match (outcome.released_as, outcome.id) {
            (None, id) => {
                format!("{why}: `wpool quarantine release {id}` tries it again, as a new job")
            }
            (Some(new), _) => format!("{why}: it was released as job {new}"),
        };
    }
    JobExplanation {
        id: outcome.id,
        state: outcome.state,
        text: why,
        waits: None,
        attempts: attempts(&outcome.attempts),
    }
}

fn attempts(attempts: &[Attempt]) -> Vec<String> {
    let sentence = |attempt: &Attempt| {
        let ran = attempt.ended_at.0.saturating_sub(attempt.started_at.0);
        let ran = Duration::from_millis(u64::try_from(ran).unwrap_or(0));
        let detail = attempt.cause.as_ref().map(in_words);
        let detail = detail.or_else(|| attempt.detail.clone());
        let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
        format!(
            "attempt {} on slot {} (generation {}) {} after {}{detail}",
            attempt.number,
            attempt.slot,
            attempt.generation,
            end_in_words(attempt.end),
            span(ran)
        )
    };
    attempts.iter().map(sentence).collect()
}

/// A cause, with the peak where that is another number than the limit.
fn in_words(cause: &Cause) -> String {
    match &cause.detail {
        CauseDetail::Limit {
            limit: LimitName::Memory | LimitName::Disk,
            allowed,
            peak,
            ..
        } if peak != allowed => format!("{} (its peak: {peak} bytes)", cause.text),
        _ => cause.text.clone(),
    }
}

const fn end_in_words(end: AttemptEnd) -> &'static str {
    match end {
        AttemptEnd::Exited => "exited",
        AttemptEnd::Signaled => "was ended by a signal",
        AttemptEnd::NotExecuted => "could not be executed",
        AttemptEnd::TimedOut => "was ended for its wall time",
        AttemptEnd::Limit => "was ended for a limit",
        AttemptEnd::Cancelled => "was cancelled",
        AttemptEnd::WorkerLost => "was lost with its worker",
        AttemptEnd::Shutdown => "was ended by the supervisor's shutdown",
    }
}

const fn waits(because: WaitReason) -> WaitExplanation {
    WaitExplanation {
        because,
        ahead: None,
        first_ahead: Vec::new(),
        starts_at_most: None,
        for_ms: None,
        expires_in_ms: None,
    }
}

/// A span of time for people.
fn span(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms if ms < 120_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        ms => Millis(u64::try_from(ms / 1_000 * 1_000).unwrap_or(u64::MAX)).to_string(),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
