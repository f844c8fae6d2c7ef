//! A slot: the permanent place of a worker.
//!
//! ```text
//!                    spawn                  ready                  assign
//!      Vacant ──────────────▶ Starting ──────────────▶ Idle ──────────────────▶ Loading
//!                              ▲  ▲  │                 │  ▲                        │ started
//!          spawn at once ┌─────┘  │  │ exited,         │  │ ended                  ▼
//!                        │  probe │  │ spawn failed    │  └──────────────────── Running
//!      breaker.death ◀───┼────────│──┘                 │  └─ ended ── Loading
//!        │      ▲        │        │                    │ retire
//!  parks │      │        │        │                    ▼ (the pool stops, the slot goes or is recycled)
//!        ▼      │        │        │                 Retiring ── exited ──▶ Closed, or spawn at once
//!      Parked ──│────────│────────┘
//!               │        │
//!               └── exited ──── Ending ◀── kill ──── Starting, Idle, Loading, Running, Retiring
//! ```
//!
//! Idle, Loading and Running lead to `breaker.death` too, by `exited`. While the pool stops, every
//! arrow that leads to a spawn or to Parked leads to Closed.
//!
//! The whole table of (phase, event) is [`Phase::on`]; what each step does is in `pool/workers.rs`.
//!
//! # Invariants
//!
//! - A worker that the pool kills is there until the kernel says it is not: its job waits for that too,
//!   and nothing that it says meanwhile counts.
//! - The generation is that of the present worker, or of the next one where there is none.

use core::time::Duration;

use serde::{Deserialize, Serialize};
use wpool_protocol::id::{AttemptRef, Generation, SlotId, WorkerRef};

use crate::action::KillReason;
use crate::event::JobEnd;
use crate::restart::Breaker;
use crate::run::Run;
use crate::time::Instant;

/// A slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub(crate) worker: WorkerRef,
    pub(crate) phase: Phase,
    pub(crate) since: Instant,
    pub(crate) breaker: Breaker,
    /// How long jobs have run here: the idle slot with the least of it gets the next one.
    pub(crate) worked: Duration,
    pub(crate) jobs_done: u64,
    /// Of the present worker alone.
    pub(crate) jobs_of_worker: u64,
    /// When the present worker is as old as it may become, if it may not live for ever and its time has not come.
    pub(crate) recycle_at: Option<Instant>,
    /// Since when its worker is up.
    pub(crate) up_since: Instant,
    pub(crate) crashes: u64,
    /// Numbers its pings.
    pub(crate) pings: u64,
}

/// What a slot does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// The pool has not begun.
    Vacant,
    /// Its worker is being born.
    Starting { ready_by: Instant },
    /// Its worker waits.
    Idle(Settled),
    /// Its worker has a job and has not started it.
    Loading(Run),
    /// Its worker runs a job.
    Running(Run),
    /// Its worker has been killed.
    Ending(Ending),
    /// Its worker has been told to exit.
    Retiring { by: Instant },
    /// It has no worker for a while.
    Parked { until: Instant },
    /// It has no worker and gets none.
    Closed,
}

/// Whether an idle worker has shown that it can live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Settled {
    /// From then on.
    At(Instant),
    /// By a job.
    Proved,
}

/// A worker that has been killed and has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub(crate) reason: KillReason,
    pub(crate) counted: Counted,
    pub(crate) run: Option<Run>,
}

/// Whether a death counts for the slot's breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Counted {
    Yes,
    No,
}

/// What can be heard of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    SpawnFailed,
    Ready,
    Exited,
    Violated,
    Answered(u64),
    Started(AttemptRef),
    Ended(AttemptRef, JobEnd),
}

/// What a word means for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The worker can take jobs.
    Settle,
    /// The worker is dead.
    Bury,
    /// The worker must die.
    Kill(KillReason),
    /// The worker is there.
    Answer(u64),
    /// The job's program runs.
    Begin,
    /// The job has ended.
    Finish(JobEnd),
    /// Nothing: it is out of place here.
    Drop,
}

impl Slot {
    pub(crate) fn new(id: SlotId) -> Self {
        Self {
            worker: WorkerRef {
                slot: id,
                generation: Generation(1),
            },
            phase: Phase::Vacant,
            since: Instant::START,
            breaker: Breaker::default(),
            worked: Duration::ZERO,
            jobs_done: 0,
            jobs_of_worker: 0,
            recycle_at: None,
            up_since: Instant::START,
            crashes: 0,
            pings: 0,
        }
    }

    /// When the slot has waited long enough for whatever it waits for.
    pub(crate) fn alarm(&self) -> Option<Instant> {
        match self.phase {
            Phase::Starting { ready_by } => Some(ready_by),
            Phase::Loading(run) | Phase::Running(run) => Some(run.alarm()),
            Phase::Retiring { by } => Some(by),
            Phase::Parked { until } => Some(until),
            Phase::Vacant | Phase::Idle(_) | Phase::Ending(_) | Phase::Closed => None,
        }
    }

    /// What orders it among the idle ones, if it is one.
    pub(crate) const fn idle_key(&self) -> Option<(Duration, SlotId)> {
        match self.phase {
            Phase::Idle(_) => Some((self.worked, self.worker.slot)),
            Phase::Vacant
            | Phase::Starting { .. }
            | Phase::Loading(_)
            | Phase::Running(_)
            | Phase::Ending(_)
            | Phase::Retiring { .. }
            | Phase::Parked { .. }
            | Phase::Closed => None,
        }
    }
}

impl Phase {
    /// Whether there is a worker that takes jobs, or has one.
    pub(crate) const fn is_up(&self) -> bool {
        match self {
            Self::Idle(_) | Self::Loading(_) | Self::Running(_) => true,
            Self::Vacant
            | Self::Starting { .. }
            | Self::Ending(_)
            | Self::Retiring { .. }
            | Self::Parked { .. }
            | Self::Closed => false,
        }
    }

    /// The run in the slot: one that goes on, or one whose worker has been killed and has not ended.
    pub(crate) const fn run(&self) -> Option<&Run> {
        match self {
            Self::Loading(run) | Self::Running(run) => Some(run),
            Self::Ending(ending) => ending.run.as_ref(),
            Self::Vacant
            | Self::Starting { .. }
            | Self::Idle(_)
            | Self::Retiring { .. }
            | Self::Parked { .. }
            | Self::Closed => None,
        }
    }

    /// As [`Phase::run`], to change it.
    pub(crate) const fn run_mut(&mut self) -> Option<&mut Run> {
        match self {
            Self::Loading(run) | Self::Running(run) => Some(run),
            Self::Ending(ending) => ending.run.as_mut(),
            Self::Vacant
            | Self::Starting { .. }
            | Self::Idle(_)
            | Self::Retiring { .. }
            | Self::Parked { .. }
            | Self::Closed => None,
        }
    }

    /// What a word means: all of (phase, event). The word is of this slot's present generation and, where
    /// it names an attempt, of this slot's present one.
    pub(crate) const fn on(&self, word: Word) -> Step {
        use Word as W;

        match (self, word) {
            (Self::Starting { .. }, W::Ready) => Step::Settle,

            // A worker may be killed between the order to spawn it and the news that it could not be born.
            (Self::Starting { .. } | Self::Ending(_), W::SpawnFailed)
            | (
                Self::Starting { .. }
                | Self::Idle(_)
                | Self::Loading(_)
                | Self::Running(_)
                | Self::Ending(_)
                | Self::Retiring { .. },
                W::Exited,
            ) => Step::Bury,

            (
                Self::Starting { .. }
                | Self::Idle(_)
                | Self::Loading(_)
                | Self::Running(_)
                | Self::Retiring { .. },
                W::Violated,
            ) => Step::Kill(KillReason::Violation),

            (Self::Loading(_) | Self::Running(_), W::Answered(number)) => Step::Answer(number),
            (Self::Loading(_), W::Started(_)) => Step::Begin,
            (Self::Loading(_) | Self::Running(_), W::Ended(_, end)) => Step::Finish(end),

            (
                Self::Idle(_) | Self::Loading(_) | Self::Running(_) | Self::Retiring { .. },
                W::SpawnFailed | W::Ready,
            )
            | (Self::Ending(_), W::Ready | W::Violated)
            | (
                Self::Starting { .. } | Self::Idle(_) | Self::Ending(_) | Self::Retiring { .. },
                W::Answered(_) | W::Started(_) | W::Ended(..),
            )
            | (Self::Running(_), W::Started(_))
            | (
                Self::Vacant | Self::Parked { .. } | Self::Closed,
                W::SpawnFailed
                | W::Ready
                | W::Exited
                | W::Violated
                | W::Answered(_)
                | W::Started(_)
                | W::Ended(..),
            ) => Step::Drop,
        }
    }
}

impl Word {
    /// The run it is about.
    pub(crate) const fn attempt(self) -> Option<AttemptRef> {
        match self {
            Self::Started(attempt) | Self::Ended(attempt, _) => Some(attempt),
            Self::SpawnFailed | Self::Ready | Self::Exited | Self::Violated | Self::Answered(_) => {
                None
            }
        }
    }
}
