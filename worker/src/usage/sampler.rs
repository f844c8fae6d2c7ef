//! Decides what of a job's tree to read when, and what that means: the limits where no cgroup keeps them.
//!
//! ```text
//!              wake                 take                              take
//!   waiting ────────▶ Read(Sums) ────────▶ Read(Split │ Exact │ …) ────────▶ … ──▶ Done or End(excess)
//!      ▲                                                                          │
//!      └──────────────────────────────────── close ───────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - Time is an argument, reading is somebody else's: see [`super::Watch`], which does both.
//! - Looking takes at most one part of the time in `SHARE`: after a round that took 10 ms nothing is read for 30 ms.
//! - A round ends: no reading is asked for more than three times.

use std::time::Duration;

use wpool_protocol::limits::{LimitName, Limits};

use super::cpu::{CpuFinding, CpuWatch};
use super::memory::{MemoryStep, MemoryWatch};
use super::reading::{Exact, Room, Split, Sums};
use super::verdict::{Excess, Sampled};

/// Looking may take one part of the time in so many.
const SHARE: u32 = 4;

/// The first look, for what is told and not enforced here: then after twice the time, and so on, so that whatever lasts
/// for half of a job's time is seen.
pub(super) const FIRST_LOOK: Duration = Duration::from_millis(2);

/// Descriptors are counted that often at least.
const DESCRIPTORS_EVERY: Duration = Duration::from_millis(250);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read this, then [`Sampler::take`] it.
    Read(Read),
    /// Nothing more: [`Sampler::close`] the round.
    Done,
    /// End the job.
    End(Excess),
}

/// Whether a round can have missed memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// It cannot: nobody was born meanwhile.
    Whole,
    /// The same, and the tree was held still for it.
    Still,
    /// It can.
    Torn,
    /// It can, though the tree was stopped for it: somebody has continued it.
    Defied,
}

/// What to read; see [`super::reading`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// [`Sums`].
    Sums,
    /// [`Split`].
    Split,
    /// [`Exact`], up to so many bytes.
    Exact(u64),
    /// The most descriptors that one process has open.
    Descriptors,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The answer to [`Read::Sums`].
    Sums(Sums),
    /// The answer to [`Read::Split`].
    Split(Split),
    /// The answer to [`Read::Exact`].
    Exact(Exact),
    /// The answer to [`Read::Descriptors`].
    Descriptors(u32),
}

/// Watches one job. All times count from the job's start.
#[derive(Clone, Debug)]
pub struct Sampler {
    limits: Limits,
    cpu: CpuWatch,
    memory: MemoryWatch,
    round_at: Duration,
    asked_at: Duration,
    descriptors_at: Duration,
    looks: u32,
    tasks_peak: u32,
    limits_hit: Vec<LimitName>,
}

impl Sampler {
    /// For a job that may use so many cores at once.
    pub fn new(limits: &Limits, cores: u16) -> Self {
        Self {
            limits: *limits,
            cpu: CpuWatch::new(limits, cores),
            memory: MemoryWatch::new(limits, cores),
            round_at: Duration::ZERO,
            asked_at: Duration::ZERO,
            descriptors_at: Duration::ZERO,
            looks: 0,
            tasks_peak: 0,
            limits_hit: Vec::new(),
        }
    }

    /// See [`CpuWatch::grant`].
    pub(super) fn grant(&mut self, grace: Duration) {
        self.cpu.grant(grace);
    }

    /// The time for the round that was begun was over: the limit that is reached all the same, if one is.
    ///
    /// `machine_bytes` is private memory of all processes of the machine, if known.
    pub(super) fn late(&mut self, now: Duration, machine_bytes: Option<u64>) -> Option<Excess> {
        over(self.memory.take_late(now, machine_bytes))
    }

    /// So much is private memory of all processes of the machine as a round begins, if known.
    pub(super) fn see_machine(&mut self, machine_bytes: Option<u64>) {
        self.memory.see_machine(machine_bytes);
    }

    /// See [`CpuWatch::births`].
    pub(super) fn births(&mut self, now: Duration) {
        self.cpu.births(now);
    }

    /// When to [`Sampler::wake`] for the first time.
    pub fn first_look(&self) -> Duration {
        self.wanted_look(FIRST_LOOK)
    }

    /// The time to look has come.
    pub fn wake(&mut self, now: Duration) -> Step {
        self.round_at = now;
        self.ask(now, Read::Sums)
    }

    /// What was read last, and the time at which that was done.
    pub fn take(&mut self, now: Duration, reading: Reading) -> Step {
        let step = match reading {
            Reading::Sums(sums) => match self.take_sums(now, &sums) {
                Ok(step) => step,
                Err(decided) => return decided,
            },
            Reading::Split(split) => self.memory.take_split(now, &split),
            Reading::Exact(exact) => self.memory.take_exact(self.asked_at, now, &exact),
            Reading::Descriptors(most) => {
                self.descriptors_at = now;
                if most >= self.limits.open_files {
                    self.hit(LimitName::OpenFiles);
                }
                MemoryStep::Enough
            }
        };
        match step {
            MemoryStep::Again => self.ask(now, Read::Sums),
            MemoryStep::Split => self.ask(now, Read::Split),
            MemoryStep::Exact => self.ask(now, Read::Exact(self.limits.memory_bytes.0)),
            MemoryStep::Over(excess) => Step::End(excess),
            MemoryStep::Enough
                if now >= self.descriptors_at + self.descriptors_at.min(DESCRIPTORS_EVERY) =>
            {
                self.ask(now, Read::Descriptors)
            }
            MemoryStep::Enough => Step::Done,
        }
    }

    /// The round is over; when to [`Sampler::wake`] next. `machine_bytes` is private memory of all processes of the machine, if known.
    ///
    /// # Errors
    ///
    /// [`Excess`]: the limit that is reached all the same.
    pub fn close(
        &mut self,
        now: Duration,
        round: Round,
        machine_bytes: Option<u64>,
    ) -> Result<Duration, Excess> {
        over(self.memory.close(now, round, machine_bytes))
            .map_or_else(|| Ok(self.next_look(now)), Err)
    }

    /// Whether the next round should find the tree standing still.
    pub(super) fn wants_standstill(&self) -> bool {
        self.memory.wants_standstill()
    }

    fn take_sums(&mut self, now: Duration, sums: &Sums) -> Result<MemoryStep, Step> {
        self.looks += u32::from(sums.processes > 0);
        self.count_tasks(sums.tasks);
        if sums.disk.room == Room::Exhausted {
            self.hit(LimitName::Disk);
        }
        match self.cpu.sampled(now, sums.cpu) {
            CpuFinding::Over(excess) => Err(Step::End(excess)),
            CpuFinding::Unsure => Err(self.ask(now, Read::Sums)),
            CpuFinding::Within => Ok(self.memory.take_sums(now, sums)),
        }
    }

    fn ask(&mut self, now: Duration, read: Read) -> Step {
        self.asked_at = now;
        Step::Read(read)
    }

    fn next_look(&self, now: Duration) -> Duration {
        let spent = now.saturating_sub(self.round_at);
        let wanted = self.wanted_look(now * 2);
        wanted.max(now + spent * (SHARE - 1))
    }

    /// When the limits want a look, but `early` at the latest.
    fn wanted_look(&self, early: Duration) -> Duration {
        early.min(self.cpu.next_look()).min(self.memory.next_look())
    }

    /// So many processes and threads have been there at one time.
    pub(super) fn count_tasks(&mut self, tasks: u32) {
        self.tasks_peak = self.tasks_peak.max(tasks);
        if tasks >= self.limits.processes {
            self.hit(LimitName::Processes);
        }
    }

    pub(super) fn hit(&mut self, limit: LimitName) {
        if !self.limits_hit.contains(&limit) {
            self.limits_hit.push(limit);
        }
    }

    /// Limits seen to make calls in the job fail.
    pub fn limits_hit(&self) -> &[LimitName] {
        &self.limits_hit
    }

    /// What was seen.
    pub(super) fn sampled(&self) -> Sampled {
        Sampled {
            looks: self.looks,
            cpu: self.cpu.total(),
            memory_peak_bytes: self.memory.peak(),
            files_max_bytes: self.memory.files_max(),
            shared: self.memory.shared(),
            init_resident_max_bytes: 0,
            tasks_peak: self.tasks_peak,
        }
    }
}

/// The excess that a step names.
fn over(step: MemoryStep) -> Option<Excess> {
    match step {
        MemoryStep::Over(excess) => Some(excess),
        MemoryStep::Enough | MemoryStep::Again | MemoryStep::Split | MemoryStep::Exact => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wpool_protocol::quantity::{ByteSize, Millis};

    use super::*;
    use crate::usage::reading::Disk;

    const MIB: u64 = 1 << 20;

    /// A tree at one moment: what its readings would say.
    #[derive(Clone, Copy, Debug)]
    struct Tree {
        tasks: u32,
        cpu_more_ms: u64,
        resident_mib: u64,
        private_part: u64,
        files_mib: u64,
        reading_us: u64,
    }

    fn tree() -> impl Strategy<Value = Tree> {
        (
            1..80_u32,
            0..200_u64,
            0..600_u64,
            1..10_u64,
            0..200_u64,
            1..30_000_u64,
        )
            .prop_map(
                |(tasks, cpu_more_ms, resident_mib, private_part, files_mib, reading_us)| Tree {
                    tasks,
                    cpu_more_ms,
                    resident_mib,
                    private_part,
                    files_mib,
                    reading_us,
                },
            )
    }

    impl Tree {
        fn read(self, read: Read, cpu: Duration) -> Reading {
            let private_bytes = self.resident_mib * MIB / self.private_part;
            let used_bytes = self.files_mib * MIB;
            let room = Room::Left;
            match read {
                Read::Sums => Reading::Sums(Sums {
                    sockets_bytes_max: 0,
                    processes: self.tasks,
                    tasks: self.tasks,
                    cpu,
                    resident_bytes: self.resident_mib * MIB,
                    address_space_bytes: self.resident_mib * MIB * 3,
                    disk: Disk { used_bytes, room },
                }),
                Read::Split => Reading::Split(Split {
                    sockets_bytes: 0,
                    private_bytes,
                    shared_bytes: used_bytes,
                    page_table_bytes: 0,
                    largest_bytes: private_bytes / u64::from(self.tasks),
                }),
                Read::Exact(_) => Reading::Exact(Exact {
                    sockets_bytes: 0,
                    private_bytes: private_bytes / self.sharers(),
                    page_table_bytes: 0,
                    address_spaces: self.tasks,
                }),
                Read::Descriptors => Reading::Descriptors(3),
            }
        }

        /// What it truly holds.
        fn held(self) -> u64 {
            self.resident_mib * MIB / self.private_part / self.sharers() + self.files_mib * MIB
        }

        /// How many have each private page: forks share.
        fn sharers(self) -> u64 {
            u64::from(self.tasks.min(2))
        }
    }

    proptest! {
        #[test]
        fn rounds_end_cost_their_share_and_end_only_what_is_above(
            trees in proptest::collection::vec(tree(), 1..40),
        ) {
            let limits = Limits {
                cpu_ms: Millis(2_000),
                memory_bytes: ByteSize::mib(256),
                ..Limits::DEFAULT
            };
            let mut sampler = Sampler::new(&limits, 2);
            let (mut now, mut cpu) = (sampler.first_look(), Duration::ZERO);
            let mut peak = 0;
            for tree in trees {
                cpu += Duration::from_millis(tree.cpu_more_ms);
                let began = now;
                let mut step = sampler.wake(now);
                let mut readings = 0;
                while let Step::Read(read) = step {
                    readings += 1;
                    prop_assert!(readings <= 12, "{read:?}");
                    now += Duration::from_micros(tree.reading_us);
                    step = sampler.take(now, tree.read(read, cpu));
                }
                peak = peak.max(tree.held());
                prop_assert!(sampler.sampled().memory_peak_bytes <= peak);
                match step {
                    Step::End(Excess { limit: LimitName::Cpu, .. }) => {
                        prop_assert!(cpu >= Duration::from_secs(2));
                        break;
                    }
                    Step::End(excess) => {
                        prop_assert_eq!(excess.limit, LimitName::Memory);
                        prop_assert!(tree.held() >= 256 * MIB);
                        break;
                    }
                    Step::Read(_) => unreachable!(),
                    Step::Done => {
                        let until = sampler.close(now, Round::Whole, None);
                        let until = until.expect("a whole round");
                        prop_assert!(cpu < Duration::from_secs(2) && tree.held() < 256 * MIB);
                        let spent = now.saturating_sub(began);
                        prop_assert!(until >= now + spent * (SHARE - 1));
                        now = until;
                    }
                }
            }
        }
    }

    #[test]
    fn what_makes_calls_fail_is_named_once() {
        let limits = Limits {
            cpu_ms: Millis(2_000),
            processes: 8,
            open_files: 16,
            ..Limits::DEFAULT
        };
        let mut sampler = Sampler::new(&limits, 1);
        for ms in [10, 300, 600] {
            let mut sums = Sums {
                processes: 1,
                tasks: 8,
                ..Sums::default()
            };
            sums.disk.room = Room::Exhausted;
            let now = Duration::from_millis(ms);
            sampler.wake(now);
            let mut step = sampler.take(now, Reading::Sums(sums));
            while let Step::Read(read) = step {
                let reading = match read {
                    Read::Descriptors => Reading::Descriptors(16),
                    _ => Reading::Split(Split::default()),
                };
                step = sampler.take(now, reading);
            }
            sampler.close(now, Round::Whole, None).unwrap();
        }
        let expected = [LimitName::Processes, LimitName::Disk, LimitName::OpenFiles];
        assert_eq!(sampler.limits_hit(), expected);
    }
}
