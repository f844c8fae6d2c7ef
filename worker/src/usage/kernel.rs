//! A job whose account the kernel keeps, in its cgroup.
//!
//! Memory and processes are limited by the kernel alone. CPU and idle time are read from `cpu.stat` at the moment
//! at which a limit can have been reached at the earliest, and only the most that one process has open has to be
//! looked for in `/proc`: there is no counter of refused `open` calls. That is done ever more rarely.
//!
//! # Invariants
//!
//! - Nothing is read at a rate: a job far from its limits is left alone for minutes.

use std::time::{Duration, Instant};

use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::outcome::MeasuredBy;
use wpool_protocol::wire::RunUsage;

use super::WatchError;
use super::cpu::{CpuFinding, CpuWatch};
use super::proc::TreeReader;
use super::reading::Room;
use super::sampler::FIRST_LOOK;
use super::verdict::{Account, Excess, whole_us};
use crate::cgroup::{CgroupError, CpuTimes, Forks, Meter, OutOfMemory};

/// Watches one job through its cgroup. All times count from the job's start.
#[derive(Debug)]
pub(super) struct KernelWatch {
    limits: Limits,
    meter: Meter,
    tree: TreeReader,
    cpu: CpuWatch,
    /// What was used before the start: building the box.
    cpu_before: CpuTimes,
    descriptors_at: Duration,
    open_files_hit: Option<LimitName>,
    memory_seen: u64,
    tasks_seen: u64,
}

impl KernelWatch {
    pub(super) fn new(
        meter: Meter,
        tree: TreeReader,
        limits: &Limits,
        cores: u16,
    ) -> Result<Self, CgroupError> {
        Ok(Self {
            limits: *limits,
            cpu_before: meter.cpu()?,
            meter,
            tree,
            cpu: CpuWatch::new(limits, cores),
            descriptors_at: FIRST_LOOK,
            open_files_hit: None,
            memory_seen: 0,
            tasks_seen: 0,
        })
    }

    /// See [`CpuWatch::grant`].
    pub(super) fn grant(&mut self, grace: Duration) {
        self.cpu.grant(grace);
    }

    pub(super) fn next_look(&self) -> Duration {
        self.cpu.next_look().min(self.descriptors_at)
    }

    pub(super) fn look(
        &mut self,
        now: Duration,
        until: Instant,
    ) -> Result<Option<Excess>, WatchError> {
        // A kernel without peaks has at least these.
        self.memory_seen = self.memory_seen.max(self.meter.memory_peak()?);
        self.tasks_seen = self.tasks_seen.max(self.meter.tasks_peak()?);
        if now >= self.descriptors_at {
            self.descriptors_at = now * 2;
            self.tree.read_until(until);
            let most = self.tree.sums().and_then(|_| self.tree.descriptors_max());
            match most {
                Ok(most) if most >= self.limits.open_files => {
                    self.open_files_hit = Some(LimitName::OpenFiles);
                }
                Ok(_) => {}
                Err(error) if error.is_late() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let total = self.meter.cpu()?.since(self.cpu_before).total;
        match self.cpu.told(now, total) {
            CpuFinding::Within | CpuFinding::Unsure => Ok(None),
            CpuFinding::Over(excess) => Ok(Some(excess)),
        }
    }

    pub(super) fn finish(&self, wall: Duration) -> Result<Account, WatchError> {
        let cpu = self.meter.cpu()?.since(self.cpu_before);
        let memory_peak_bytes = self.meter.memory_peak()?.max(self.memory_seen);
        let tasks = self.meter.tasks_peak()?.max(self.tasks_seen).max(1);
        let processes = match self.meter.forks()? {
            Forks::Refused => Some(LimitName::Processes),
            Forks::Granted => None,
        };
        let disk = match self.tree.disk()?.room {
            Room::Exhausted => Some(LimitName::Disk),
            Room::Left => None,
        };
        let memory = match self.meter.out_of_memory()? {
            OutOfMemory::OwnLimit => Some(Excess {
                limit: LimitName::Memory,
                peak: memory_peak_bytes,
                at: wall,
            }),
            OutOfMemory::Never | OutOfMemory::Elsewhere => None,
        };
        Ok(Account {
            usage: RunUsage {
                wall_us: whole_us(wall),
                cpu_user_us: whole_us(cpu.user),
                cpu_system_us: whole_us(cpu.system),
                memory_peak_bytes,
                processes_peak: u32::try_from(tasks).unwrap_or(u32::MAX),
                measured_by: MeasuredBy::Cgroup,
            },
            limits_hit: [processes, self.open_files_hit, disk]
                .into_iter()
                .flatten()
                .collect(),
            excess: memory,
        })
    }
}
