//! What the pool shows of itself: plain values, made from the state the scheduler uses.

use serde::{Deserialize, Serialize};
use wpool_protocol::id::{AttemptRef, JobId, SlotId, WorkerRef};
use wpool_protocol::status::{PoolState, QueuePressure, QueueStatus, SlotState};

use crate::event::DrainScope;
use crate::time::Instant;

/// The pool at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// What it does.
    pub state: PoolState,
    /// Waiting jobs.
    pub queued: QueueStatus,
    /// How full the queue is.
    pub pressure: QueuePressure,
    /// Jobs that run.
    pub active: u64,
    /// Slots that are parked.
    pub parked: u16,
    /// Slots that were, and try with one worker.
    pub on_probation: u16,
    /// What of the operator's holds.
    pub orders: Orders,
    /// When what still runs is killed, because the pool stops.
    pub killed_at: Option<Instant>,
}

/// What the operator has asked for and not taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// A drain.
    pub drain: Option<DrainScope>,
    /// Whether it is paused, too.
    pub paused: bool,
}

/// A slot at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Its present worker, or the one that comes next.
    pub worker: WorkerRef,
    /// What it does.
    pub state: SlotState,
    /// Whether it is to have a worker, or goes with its job.
    pub stays: bool,
    /// The run in it.
    pub attempt: Option<AttemptRef>,
    /// Since when.
    pub since: Instant,
    /// Jobs that ended in it.
    pub jobs_done: u64,
    /// Workers that it lost.
    pub crashes: u64,
    /// When a parked slot tries again.
    pub parked_until: Option<Instant>,
    /// Why the slot was parked last, until it has proved itself.
    pub parked_by: Option<ParkedBy>,
}

/// What a slot was parked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParkedBy {
    /// So many of its workers ended within the period, before they were ready or right after.
    Burst(u32),
    /// The one that was to show whether workers live again has ended, too; it was parked so often in a row.
    Probe(u32),
}

/// What is to be replaced, as planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecyclingView {
    /// The slot that is without a worker for it.
    pub turn: Option<SlotId>,
    /// Slots whose turn will come.
    pub due: u16,
    /// The slot that stands in.
    pub spare: SlotId,
}

/// Where a job that has not ended is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobPlace {
    /// Its acceptance is being recorded; it may run already, but nobody may know.
    Accepting,
    /// It waits for a slot.
    Ready,
    /// It may not start before this moment.
    Delayed(Instant),
    /// It is on this worker.
    OnSlot(WorkerRef, AttemptRef),
    /// Its end is being recorded.
    Concluding,
}

/// A job that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Its name.
    pub id: JobId,
    /// Where it is.
    pub place: JobPlace,
    /// Runs begun.
    pub attempts: u32,
    /// Workers lost over it.
    pub lost: u32,
}

/// Events that were dropped, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// From a worker that is not the slot's present one.
    pub other_generation: u64,
    /// About a run that is not the slot's present one.
    pub other_attempt: u64,
    /// From the present worker, but not where it is: a duplicate, or too late.
    pub out_of_place: u64,
    /// About a record that is durable already, or was never asked for.
    pub other_record: u64,
}
