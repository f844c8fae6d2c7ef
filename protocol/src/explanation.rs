//! Why a job, a slot or the pool is as it is: `GET /v1/jobs/{id}/explain` and `GET /v1/pool/explain`.
//!
//! # Invariants
//!
//! - Every figure is from the state that the scheduler decides by, of the moment at which it was asked.

use serde::{Deserialize, Serialize};

use crate::id::{JobId, SlotId};
use crate::outcome::JobState;
use crate::status::{PoolState, SlotState};

/// Why a job is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobExplanation {
    /// The job.
    pub id: JobId,
    /// Where it is.
    pub state: JobState,
    /// One sentence that names the number that decides.
    pub text: String,
    /// What it waits for, if it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<WaitExplanation>,
    /// One sentence for each of its runs, the first first.
    pub attempts: Vec<String>,
}

/// What a job waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitExplanation {
    /// What keeps it from starting.
    pub because: WaitReason,
    /// Jobs that start before it if nothing else comes; absent if they are too many to be counted while others wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
    /// The first of them that the caller may know of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_ahead: Vec<JobId>,
    /// By how many starts from now on it is started at the latest, whatever comes in other classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at_most: Option<u64>,
    /// How long until it may start, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// How long until it expires, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}

/// What keeps a job from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// No slot is idle.
    NoIdleSlot,
    /// The pool is paused.
    Paused,
    /// The pool drains, or shuts down.
    Draining,
    /// Its tenant runs as many jobs as it may.
    TenantRunningMax,
    /// `delay_ms`.
    Delay,
    /// Its worker was lost, and it waits before its next run.
    Backoff,
    /// Its acceptance or its end is being made durable.
    Recording,
}

/// Why the pool is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolExplanation {
    /// What it does.
    pub state: PoolState,
    /// Why.
    pub text: String,
    /// Its slots.
    pub slots: Vec<SlotExplanation>,
}

/// Why a slot is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotExplanation {
    /// The slot.
    pub slot: SlotId,
    /// What it does.
    pub state: SlotState,
    /// Why, and until when.
    pub text: String,
}
