//! What watching a job came to: a limit that ends it, and what it used.
//!
//! # Invariants
//!
//! - No figure is above what the job can be shown to have used, but for the memory of a job that was too short
//!   to be looked at: the kernel's own peak (`ru_maxrss`) counts mapped files and what init had before the exec.

use std::time::Duration;

use wpool_protocol::limits::LimitName;
use wpool_protocol::outcome::MeasuredBy;
use wpool_protocol::wire::{Ending, RunUsage};
use wpool_sys::wait::ResourceUsage;

/// A limit that was reached, so that the job has to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Which.
    pub limit: LimitName,
    /// The highest that was seen, in the limit's unit: bytes or ms.
    pub peak: u64,
    /// When, after the job's start.
    pub at: Duration,
}

impl Excess {
    /// Of a limit in ms.
    pub(super) fn of_time(limit: LimitName, peak: Duration, at: Duration) -> Self {
        Self {
            limit,
            peak: whole_ms(peak),
            at,
        }
    }

    /// As the supervisor is told.
    pub fn ending(&self) -> Ending {
        Ending::Limit {
            limit: self.limit,
            peak: self.peak,
            at_ms: whole_ms(self.at),
        }
    }
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn whole_us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What watching a job came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What it used.
    pub usage: RunUsage,
    /// Limits that made calls in it fail.
    pub limits_hit: Vec<LimitName>,
    /// The limit that ended it, if the kernel enforced one (a cgroup's memory).
    pub excess: Option<Excess>,
}

/// Whether shared memory was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shared {
    #[default]
    None,
    Some,
}

/// What sampling saw of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sampled {
    /// Looks that found a process.
    pub(super) looks: u32,
    pub(super) cpu: Duration,
    pub(super) memory_peak_bytes: u64,
    /// The most that mapped files were seen to add to resident sets.
    pub(super) files_max_bytes: u64,
    pub(super) shared: Shared,
    /// The largest resident set of init: the job's process begins as a copy of it.
    pub(super) init_resident_max_bytes: u64,
    pub(super) tasks_peak: u32,
}

impl Sampled {
    /// Together with what the kernel tells of the processes that init has reaped.
    ///
    /// CPU time is the larger of the two: sampling sees children that nobody waits for, the kernel all
    /// since the last look. What sampling knows more of is told as user time.
    ///
    /// A peak between two looks shows in the largest resident set, from which files are taken off, unless
    /// that is but init's.
    pub(super) fn usage(&self, wall: Duration, reaped: ResourceUsage) -> RunUsage {
        let unreaped = self.cpu.saturating_sub(reaped.user + reaped.system);
        let (memory_peak_bytes, measured_by) = if self.looks == 0 || self.memory_peak_bytes == 0 {
            // All that was seen of it may have been its end.
            (reaped.resident_max_bytes, MeasuredBy::Rusage)
        } else {
            let largest = reaped.resident_max_bytes;
            // A page of shared memory is in it once for each place where it is mapped.
            let missed = if largest > self.init_resident_max_bytes && self.shared == Shared::None {
                largest.saturating_sub(self.files_max_bytes)
            } else {
                0
            };
            (self.memory_peak_bytes.max(missed), MeasuredBy::Sampling)
        };
        RunUsage {
            wall_us: whole_us(wall),
            cpu_user_us: whole_us(reaped.user + unreaped),
            cpu_system_us: whole_us(reaped.system),
            memory_peak_bytes,
            processes_peak: self.tasks_peak.max(1),
            measured_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAPED: ResourceUsage = ResourceUsage {
        user: Duration::from_millis(30),
        system: Duration::from_millis(10),
        resident_max_bytes: 9 << 20,
    };

    #[test]
    fn a_job_too_short_to_be_seen_is_measured_by_the_kernel() {
        let usage = Sampled::default().usage(Duration::from_millis(41), REAPED);
        assert_eq!(usage.measured_by, MeasuredBy::Rusage);
        assert_eq!((usage.cpu_user_us, usage.cpu_system_us), (30_000, 10_000));
        assert_eq!(
            (usage.memory_peak_bytes, usage.processes_peak),
            (9 << 20, 1)
        );
    }

    #[test]
    fn a_sampled_job_counts_what_it_never_waited_for() {
        let sampled = Sampled {
            looks: 3,
            cpu: Duration::from_millis(100),
            memory_peak_bytes: 5 << 20,
            files_max_bytes: 6 << 20,
            shared: Shared::None,
            init_resident_max_bytes: 1 << 20,
            tasks_peak: 7,
        };
        let usage = sampled.usage(Duration::from_millis(141), REAPED);
        assert_eq!(usage.measured_by, MeasuredBy::Sampling);
        assert_eq!((usage.cpu_user_us, usage.cpu_system_us), (90_000, 10_000));
        assert_eq!(
            (usage.memory_peak_bytes, usage.processes_peak),
            (5 << 20, 7)
        );
    }

    #[test]
    fn a_peak_between_two_looks_is_told_without_files_and_without_init() {
        let mut sampled = Sampled {
            looks: 1,
            memory_peak_bytes: 1 << 20,
            files_max_bytes: 2 << 20,
            ..Sampled::default()
        };
        let peak = |sampled: &Sampled| sampled.usage(Duration::ZERO, REAPED).memory_peak_bytes;
        assert_eq!(peak(&sampled), 7 << 20);
        sampled.shared = Shared::Some;
        assert_eq!(peak(&sampled), 1 << 20);
        sampled.shared = Shared::None;
        sampled.init_resident_max_bytes = 9 << 20;
        assert_eq!(peak(&sampled), 1 << 20);
    }
}
