//! What a running job uses, and whether that reaches a limit: memory, CPU and idle time, processes, descriptors, disk.
//!
//! With a cgroup the kernel keeps the account and the memory limit. Without one the worker looks at the
//! job's processes from time to time ("sampling"): as rarely as the limits allow, as closely as they demand.
//!
//! # What sampling cannot see, and what stands in its place
//!
//! | unseen | bounded by |
//! | --- | --- |
//! | a file in memory (`memfd_create`) that is written, or no longer mapped | the call is refused (`ENOSYS`) where there is no memory controller; programs fall back to `/dev/shm` |
//! | System V shared memory, semaphores and messages | the calls that make them are refused (`ENOSYS`) |
//! | bytes in pipes | `fs.pipe-user-pages-soft`: 64 MiB a user, and past that two pages for each pipe: 4 KiB for each descriptor that the limits allow |
//! | rules of Landlock rulesets | the calls that make them are refused (`ENOSYS`) |
//! | epoll items, queues of inotify | the kernel's limits per user (`epoll.max_user_watches`), the slot's on inotify: some hundred MiB |
//! | memory that changes hands during a look: tasks that live some µs each | a look during which one was born is taken for none; after two such, and if private memory of the machine has grown by half of what the job had left, the tree is stopped for a look, see `proc/standstill.rs` |
//! | bytes in sockets | counted, see `sockets`; their buffers cannot be made larger |
//! | page tables between two looks | the address space (`RLIMIT_AS`): 1/512 of it a process |
//! | huge pages: 8 MiB per ms instead of 3 | switched off for the job (`PR_SET_THP_DISABLE`) |
//! | CPU time of children that live a few ms and that nobody waits for | the wall time: `timeout_ms × cpus` |
//! | more memory than the limit between two looks | nothing; some MiB per ms since the last look, 5 to 100 ms ago |
//! | shared memory without a file (`MAP_SHARED` with `MAP_ANONYMOUS`, `/dev/zero`): what is unmapped of it stays | the first is refused (`EPERM`), the second is `/dev/full`, which reads the same and cannot be mapped |
//! | all of a tree that is too large and too busy to be looked at in seconds | three late looks in a row end it for its memory, if the upper bound is above the limit and the machine's private memory has grown by as much as the job had left; else its wall time |
//! | buffers of open files in `/proc` (`fdinfo` of an epoll with thousands of descriptors) | the limits on descriptors and processes: up to 64 KiB each, of such an `fdinfo` up to 1 MiB |
//! | whole pages in pipes and sockets that count for a byte there | the calls that do so are refused (`EINVAL`): `splice`, `vmsplice`, `tee`, `sendfile` |
//! | programs that filter packets, tables of futexes | refused, with a cgroup, too: they take from what all users share |
//! | calls that a limit makes fail | what lasts is seen: for half of the time since the start, or for 100 ms (descriptors: 250 ms); or, of processes and disk, to the end |
//!
//! Therefore the outcome says `measured_by: sampling`.
//!
//! # Invariants
//!
//! - What is shared counts once: no tree is ended, and no peak told, for pages that it does not hold, unless it makes itself
//!   uncountable (see `memory` and `proc/memory.rs`).
//! - No figure is taken from the job; from its init only what the kernel tells it (`Remains`).
//! - A job that cannot be watched is not left alone: [`Watch::look`] fails, and its caller ends the job.
//!
//! Not here: wall time, file size and kept output, which need no look at processes.

pub mod cpu;
mod evidence;
mod kernel;
mod memory;
pub mod proc;
pub mod reading;
pub mod sampler;
mod sockets;
pub mod verdict;

use std::time::{Duration, Instant};

use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::quantity::Millis;
use wpool_sys::wait::ResourceUsage;

use self::kernel::KernelWatch;
use self::proc::{Outside, TreeError, TreeReader};
use self::reading::Room;
use self::sampler::{Read, Reading, Round, Sampler, Step};
use self::verdict::{Account, Excess};
use crate::cgroup::{CgroupError, Meter};

/// How long one look may take: meanwhile the worker answers nobody.
const ROUND_MAX: Duration = Duration::from_millis(500);

/// How long a tree stands still, at most.
const STILL_MAX: Duration = Duration::from_millis(200);

/// Looks at one tree that stands still: the second sees what was born just before.
const STILL_LOOKS_MAX: u32 = 3;

/// A job cannot be watched, and has to be ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Its processes cannot be looked at.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Its cgroup cannot be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// What init tells of a tree at its end: it is the kernel's word, not the job's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// How long it lived, by the init's own clock: the worker hears of it late on a busy machine.
    pub wall: Duration,
    /// What the processes used that it has waited for.
    pub reaped: ResourceUsage,
    /// How many were there when the first of them had ended, that one included.
    pub processes: u32,
}

/// Watches one job, from its start to its end.
#[derive(Debug)]
pub struct Watch {
    started: Instant,
    next_look: Duration,
    /// Looks in a row that were given up.
    late: u32,
    source: Source,
}

/// Who keeps the account.
#[derive(Debug)]
enum Source {
    Sampling(Box<Sampling>),
    Cgroup(Box<KernelWatch>),
}

impl Watch {
    /// Watches a job that may use so many cores at once by looking at its processes.
    pub fn sampling(tree: TreeReader, limits: &Limits, cores: u16, started: Instant) -> Self {
        let sampler = Sampler::new(limits, cores);
        Self {
            started,
            next_look: sampler.first_look(),
            late: 0,
            source: Source::Sampling(Box::new(Sampling {
                init_resident_max_bytes: None,
                outside: None,
                tree,
                sampler,
            })),
        }
    }

    /// Watches a job that may use so many cores at once through the account of its cgroup.
    ///
    /// What the cgroup used before, to build the job's box, is not the job's.
    ///
    /// # Errors
    ///
    /// [`CgroupError`] if it cannot be read.
    pub fn cgroup(
        meter: Meter,
        tree: TreeReader,
        limits: &Limits,
        cores: u16,
        started: Instant,
    ) -> Result<Self, CgroupError> {
        let watch = KernelWatch::new(meter, tree, limits, cores)?;
        Ok(Self {
            started,
            next_look: watch.next_look(),
            late: 0,
            source: Source::Cgroup(Box::new(watch)),
        })
    }

    /// The job's wall time is over, and it has so much time to clean up: for that long it may use CPU time, and
    /// be idle. Its other limits hold.
    pub fn grant(&mut self, grace: Millis) {
        match &mut self.source {
            Source::Sampling(sampling) => sampling.sampler.grant(grace.into()),
            Source::Cgroup(watch) => watch.grant(grace.into()),
        }
    }

    /// When to [`Watch::look`] next.
    pub fn deadline(&self) -> Instant {
        self.started + self.next_look
    }

    /// Looks if the time has come, no longer than `until`: gives the limit that is reached, for which the job has to be
    /// ended now.
    ///
    /// # Errors
    ///
    /// [`WatchError`]: the job cannot be watched and has to be ended.
    pub fn look(&mut self, until: Option<Instant>) -> Result<Option<Excess>, WatchError> {
        let now = self.started.elapsed();
        if now < self.next_look {
            return Ok(None);
        }
        // Whoever could not be looked at in time has longer, but the worker must not be silent for too long.
        let most = Instant::now() + ROUND_MAX * 2u32.pow(self.late.min(2));
        let until = until.map_or(most, |until| until.min(most));
        match &mut self.source {
            Source::Cgroup(watch) => {
                let excess = watch.look(now, until)?;
                self.next_look = watch.next_look();
                Ok(excess)
            }
            Source::Sampling(sampling) => match sampling.round(self.started, until) {
                Ok(Ok(next)) => {
                    self.late = 0;
                    self.next_look = next;
                    Ok(None)
                }
                Ok(Err(excess)) => Ok(Some(excess)),
                Err(error) if error.is_late() => {
                    self.late += 1;
                    let now = self.started.elapsed();
                    self.next_look = now + ROUND_MAX;
                    Ok(sampling.late(now)?)
                }
                Err(error) => Err(error.into()),
            },
        }
    }

    /// The job's tree is dead, and its files and its cgroup are still there: what did it use?
    ///
    /// [`Account::excess`] is set if the kernel ended it for its memory: then that is why it ended, whatever
    /// else it looks like.
    ///
    /// # Errors
    ///
    /// [`WatchError`] if its disk or its cgroup cannot be read.
    pub fn finish(self, remains: Remains) -> Result<Account, WatchError> {
        let wall = remains.wall;
        match self.source {
            Source::Cgroup(watch) => watch.finish(wall),
            Source::Sampling(sampling) => Ok(sampling.finish(wall, remains)?),
        }
    }
}

/// What a look has seen.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// The limit that is reached.
    Limit(Excess),
    /// That none is, and private memory of all processes of the machine, if known.
    All(Round, Option<u64>),
}

/// A job whose processes are looked at.
#[derive(Debug)]
struct Sampling {
    init_resident_max_bytes: Option<u64>,
    /// What was so when the last look began.
    outside: Option<Outside>,
    tree: TreeReader,
    sampler: Sampler,
}

impl Sampling {
    /// One round of looking: until when nothing has to be done, or the limit that is reached.
    fn round(
        &mut self,
        started: Instant,
        until: Instant,
    ) -> Result<Result<Duration, Excess>, TreeError> {
        self.tree.read_until(until);
        if self.init_resident_max_bytes.is_none() {
            self.init_resident_max_bytes = Some(self.tree.init_resident_max()?);
        }
        let seen = if self.sampler.wants_standstill()
            && let Some(standstill) = self.tree.stop()?
        {
            self.tree.read_until(until.min(Instant::now() + STILL_MAX));
            let seen = self.look_at_still(started);
            self.tree.resume(&standstill)?;
            seen?
        } else {
            self.look(started)?
        };
        Ok(match seen {
            Seen::Limit(excess) => Err(excess),
            Seen::All(round, machine_bytes) => {
                self.sampler.close(started.elapsed(), round, machine_bytes)
            }
        })
    }

    /// Looks at a tree that was stopped; births that were under way then may need a second look.
    fn look_at_still(&mut self, started: Instant) -> Result<Seen, TreeError> {
        let mut tries = 1;
        loop {
            match self.look(started)? {
                Seen::All(Round::Torn, _) if tries < STILL_LOOKS_MAX => tries += 1,
                Seen::All(Round::Torn, machine_bytes) => {
                    return Ok(Seen::All(Round::Defied, machine_bytes));
                }
                Seen::All(_, machine_bytes) => return Ok(Seen::All(Round::Still, machine_bytes)),
                limit @ Seen::Limit(_) => return Ok(limit),
            }
        }
    }

    /// Reads what the sampler asks for.
    fn look(&mut self, started: Instant) -> Result<Seen, TreeError> {
        let before = self.tree.outside()?;
        let machine_bytes = before.map(|outside| outside.private_bytes);
        self.sampler.see_machine(machine_bytes);
        let last = self.outside.zip(before);
        if last.is_some_and(|(last, now)| !last.same_people(now)) {
            self.sampler.births(started.elapsed());
        }
        let mut step = self.sampler.wake(started.elapsed());
        loop {
            let reading = match step {
                Step::Read(Read::Sums) => Reading::Sums(self.tree.sums()?),
                Step::Read(Read::Split) => Reading::Split(self.tree.split()?),
                Step::Read(Read::Exact(enough)) => Reading::Exact(self.tree.exact(enough)?),
                Step::Read(Read::Descriptors) => Reading::Descriptors(self.tree.descriptors_max()?),
                Step::Done => break,
                Step::End(excess) => return Ok(Seen::Limit(excess)),
            };
            step = self.sampler.take(started.elapsed(), reading);
        }
        let after = self.tree.outside()?;
        self.outside = before;
        let is_whole = before.zip(after).is_none_or(|(a, b)| a.same_people(b));
        let round = if is_whole { Round::Whole } else { Round::Torn };
        Ok(Seen::All(round, after.map(|outside| outside.private_bytes)))
    }

    /// The time for a round was over.
    fn late(&mut self, now: Duration) -> Result<Option<Excess>, TreeError> {
        let outside = self.tree.outside()?;
        let machine_bytes = outside.map(|outside| outside.private_bytes);
        Ok(self.sampler.late(now, machine_bytes))
    }

    fn finish(mut self, wall: Duration, remains: Remains) -> Result<Account, TreeError> {
        self.sampler.count_tasks(remains.processes);
        if self.tree.disk()?.room == Room::Exhausted {
            self.sampler.hit(LimitName::Disk);
        }
        let mut sampled = self.sampler.sampled();
        sampled.init_resident_max_bytes = self.init_resident_max_bytes.unwrap_or(0);
        Ok(Account {
            usage: sampled.usage(wall, remains.reaped),
            limits_hit: self.sampler.limits_hit().to_vec(),
            excess: None,
        })
    }
}
