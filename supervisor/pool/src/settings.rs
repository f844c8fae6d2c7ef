//! The numbers that the pool works by, and what each tenant may take; every one is a key of the config.

use core::time::Duration;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The numbers that the pool works by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Slots that are wanted; [`ResizeRequested`](crate::event::Event::ResizeRequested) changes it.
    pub slots: u16,
    /// Jobs that have not ended, at most.
    pub queue_jobs: u64,
    /// Their bytes, at most.
    pub queue_bytes: u64,
    /// Of how many starts at least one goes to each lower class that waits; less than 3 is taken as 3, one for each class.
    pub share_period: u32,
    /// Wait before the second attempt of a job; doubled for each further one. Chance takes up to half of it off.
    pub backoff_min: Duration,
    /// The longest such wait.
    pub backoff_max: Duration,
    /// How often a busy worker is asked whether it is there.
    pub ping_interval: Duration,
    /// How long it may take to answer, to start a job or to say hello.
    pub silence_max: Duration,
    /// How long a worker may take from birth to ready.
    pub ready_within: Duration,
    /// Past a job's wall time and grace, how long its worker has to report.
    pub overrun_slack: Duration,
    /// Deaths before ready, in `restart_period`, that park a slot.
    pub restart_burst: u32,
    /// See `restart_burst`.
    pub restart_period: Duration,
    /// How long a parked slot waits before its next try; doubled for each further one.
    pub park_min: Duration,
    /// The longest such wait.
    pub park_max: Duration,
    /// Jobs after which a worker is replaced; `None` for never.
    pub recycle_jobs: Option<u64>,
    /// The age at which a worker is replaced; `None` for never.
    pub recycle_age: Option<Duration>,
}

impl Settings {
    /// What holds where the config does not say otherwise, for so many slots.
    pub const fn default_for(slots: u16) -> Self {
        Self {
            slots,
            queue_jobs: 100_000,
            queue_bytes: 1 << 30,
            share_period: 10,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(10),
            ping_interval: Duration::from_secs(1),
            silence_max: Duration::from_secs(5),
            ready_within: Duration::from_secs(10),
            overrun_slack: Duration::from_secs(5),
            restart_burst: 5,
            restart_period: Duration::from_secs(30),
            park_min: Duration::from_secs(1),
            park_max: Duration::from_mins(1),
            recycle_jobs: None,
            recycle_age: None,
        }
    }
}

/// What a tenant may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRule {
    /// Its part of the starts of a class, beside those of the others that wait there; at least 1.
    pub weight: u32,
    /// Jobs that may run at one time.
    pub running_max: Option<u32>,
    /// Jobs that have not ended, at most.
    pub queue_jobs: Option<u64>,
}

impl Default for TenantRule {
    fn default() -> Self {
        Self {
            weight: 1,
            running_max: None,
            queue_jobs: None,
        }
    }
}

/// What each tenant may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRules {
    /// Of those that are named.
    pub named: BTreeMap<Box<str>, TenantRule>,
    /// Of all others.
    pub default: TenantRule,
}

impl TenantRules {
    /// The rule of the tenant of this name.
    pub fn of(&self, name: &str) -> TenantRule {
        self.named.get(name).copied().unwrap_or(self.default)
    }
}
