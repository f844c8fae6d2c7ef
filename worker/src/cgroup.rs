//! The cgroup of a job: limits that the kernel keeps, and an account that it alone writes.
//!
//! ```text
//!   slot-N/               its controllers are on for what lies below; root of the worker's cgroup namespace
//!    ├─ worker/           the worker, by the supervisor's hand
//!    └─ job-7/            ─── make, limit ──▶ clone3 with CLONE_INTO_CGROUP ──▶ kill, wait ──▶ read ──▶ remove
//! ```
//!
//! One cgroup for each job: `memory.peak` cannot be reset before 6.12, and what a job left in a cgroup
//! (cached pages, limits) would be the next one's.
//!
//! # Invariants
//!
//! - Every path is one name beneath a descriptor: the worker sees no cgroup file system.
//! - Files are opened without creating: what the kernel does not offer is an error that names it.
//! - A job ended by its own memory limit is told from one that the host's or the service's shortage killed.
//!
//! Not here: the slot's directory itself, which the supervisor makes and limits.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use wpool_protocol::limits::Limits;

/// What jobs' cgroups are called before their number.
const JOB_PREFIX: &str = "job-";

/// The unit in which `cpu.max` grants time; a job that may use whole cores is never throttled within it.
const CPU_PERIOD_US: u64 = 100_000;

/// How long leftovers of a lost worker may take to die: 1000 processes take 0.1 s, memory to be freed some more.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);

/// A cgroup could not be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {file} of a cgroup")]
pub struct CgroupError {
    action: &'static str,
    file: String,
    source: io::Error,
}

/// For `map_err`: says what was being done.
fn doing<E: Into<io::Error>>(action: &'static str, file: &CStr) -> impl FnOnce(E) -> CgroupError {
    let file = file.to_string_lossy().into_owned();
    move |source| CgroupError {
        action,
        file,
        source: source.into(),
    }
}

/// The cgroup of a slot, in which its worker makes those of its jobs.
#[derive(Debug)]
pub struct SlotCgroup {
    directory: OwnedFd,
}

impl SlotCgroup {
    /// From the descriptor of the slot's directory.
    pub fn new(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// Makes the cgroup of the next job; numbers are not used twice in a worker's life.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]
    pub fn make(&self, number: u64) -> Result<JobCgroup, CgroupError> {
        let name = CString::new(format!("{JOB_PREFIX}{number}")).unwrap_or_default();
        rustix::fs::mkdirat(&self.directory, &name, Mode::from_raw_mode(0o755))
            .map_err(doing("make the directory", &name))?;
        JobCgroup::open(self.directory.as_fd(), name)
    }

    /// Kills and removes what a worker before this one left behind.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]; [`io::ErrorKind::TimedOut`] inside if its processes do not die.
    pub fn remove_leftovers(&self) -> Result<(), CgroupError> {
        let entries = Dir::read_from(&self.directory).map_err(doing("list", c"the slot"))?;
        for entry in entries {
            let entry = entry.map_err(doing("list", c"the slot"))?;
            let name = entry.file_name();
            let is_job = name.to_bytes().starts_with(JOB_PREFIX.as_bytes());
            if is_job && entry.file_type() == FileType::Directory {
                let job = JobCgroup::open(self.directory.as_fd(), name.to_owned())?;
                job.kill()?;
                job.wait_until_empty(Instant::now() + LEFTOVER_PATIENCE)?;
                job.remove()?;
            }
        }
        Ok(())
    }
}

/// The cgroup of one job.
#[derive(Debug)]
pub struct JobCgroup {
    slot: OwnedFd,
    name: CString,
    directory: OwnedFd,
    /// `cgroup.events`: readable, and pollable for a change since it was last read.
    events: OwnedFd,
    /// Whether it is gone.
    is_removed: bool,
}

/// One that nobody has removed goes with what was built around it: nothing ever lived in it, or the worker that
/// comes next removes it.
impl Drop for JobCgroup {
    fn drop(&mut self) {
        if !self.is_removed {
            // Whoever could be told is gone.
            rustix::fs::unlinkat(&self.slot, &self.name, AtFlags::REMOVEDIR).unwrap_or_default();
        }
    }
}

/// Whether a cgroup has living processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Population {
    /// It has.
    Some,
    /// It has none; zombies do not count.
    None,
}

impl JobCgroup {
    fn open(slot: BorrowedFd<'_>, name: CString) -> Result<Self, CgroupError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(slot, &name, flags, Mode::empty())
            .map_err(doing("open the directory", &name))?;
        let events = open(directory.as_fd(), c"cgroup.events", OFlags::RDONLY)?;
        let slot = slot
            .try_clone_to_owned()
            .map_err(doing("keep", c"the slot"))?;
        Ok(Self {
            slot,
            name,
            directory,
            events,
            is_removed: false,
        })
    }

    /// The directory, for `CLONE_INTO_CGROUP`.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Sets the limits of the job that is to run here, with `own_processes` of wpool's (its init).
    ///
    /// # Errors
    ///
    /// [`CgroupError`] names the first that the kernel refuses.
    pub fn limit(&self, limits: &Limits, own_processes: u32) -> Result<(), CgroupError> {
        self.write(c"memory.max", &limits.memory_bytes.0.to_string())?;
        match self.write(c"memory.swap.max", "0") {
            // A kernel that does not count swap has no such file, and memory.max then counts both.
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
            written => written?,
        }
        self.write(c"memory.oom.group", "1")?;
        let processes = u64::from(limits.processes) + u64::from(own_processes);
        self.write(c"pids.max", &processes.to_string())?;
        let quota_us = u64::from(limits.cpus) * CPU_PERIOD_US;
        self.write(c"cpu.max", &format!("{quota_us} {CPU_PERIOD_US}"))
    }

    /// Kills all processes in it; those being born too, all or none.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.write(c"cgroup.kill", "1")
    }

    /// Whether anything lives in it. After this, [`JobCgroup::events`] tells of a change.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]
    pub fn population(&self) -> Result<Population, CgroupError> {
        let text = read_again(self.events.as_fd(), c"cgroup.events")?;
        Ok(match counter(&text, "populated") {
            Some(0) => Population::None,
            _ => Population::Some,
        })
    }

    /// Becomes ready for `POLLPRI` when [`JobCgroup::population`] has changed.
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Waits until nothing lives in it.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]; [`io::ErrorKind::TimedOut`] inside if that is not so by then.
    pub fn wait_until_empty(&self, deadline: Instant) -> Result<(), CgroupError> {
        while self.population()? == Population::Some {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(doing("wait for the end of", &self.name)(io::Error::from(
                    io::ErrorKind::TimedOut,
                )));
            }
            let patience = Timespec::try_from(left).ok();
            match poll(
                &mut [PollFd::new(&self.events, PollFlags::PRI)],
                patience.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(doing("wait for", c"cgroup.events")(error)),
            }
        }
        Ok(())
    }

    /// Opens what tells of the job's use.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]
    pub fn meter(&self) -> Result<Meter, CgroupError> {
        let directory = self.directory.as_fd();
        let maybe = |name| match open(directory, name, OFlags::RDONLY) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        };
        Ok(Meter {
            cpu_stat: open(directory, c"cpu.stat", OFlags::RDONLY)?,
            memory_events: open(directory, c"memory.events", OFlags::RDONLY)?,
            memory_current: open(directory, c"memory.current", OFlags::RDONLY)?,
            memory_peak: maybe(c"memory.peak")?,
            pids_events: open(directory, c"pids.events", OFlags::RDONLY)?,
            pids_current: open(directory, c"pids.current", OFlags::RDONLY)?,
            pids_peak: maybe(c"pids.peak")?,
        })
    }

    /// Removes it; nothing may live in it any more.
    ///
    /// # Errors
    ///
    /// [`CgroupError`], with `EBUSY` inside if something does.
    pub fn remove(mut self) -> Result<(), CgroupError> {
        rustix::fs::unlinkat(&self.slot, &self.name, AtFlags::REMOVEDIR)
            .map_err(doing("remove the directory", &self.name))?;
        self.is_removed = true;
        Ok(())
    }

    fn write(&self, name: &CStr, value: &str) -> Result<(), CgroupError> {
        let file = open(self.directory.as_fd(), name, OFlags::WRONLY)?;
        // In one write: the kernel takes each as a whole.
        File::from(file)
            .write_all(value.as_bytes())
            .map_err(doing("write", name))
    }
}

/// The kernel's account of one job.
#[derive(Debug)]
pub struct Meter {
    cpu_stat: OwnedFd,
    memory_events: OwnedFd,
    memory_current: OwnedFd,
    /// Since 5.19.
    memory_peak: Option<OwnedFd>,
    pids_events: OwnedFd,
    pids_current: OwnedFd,
    /// Since 6.1.
    pids_peak: Option<OwnedFd>,
}

/// CPU time of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// All.
    pub total: Duration,
    /// In programs' own code.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl CpuTimes {
    /// What was used since an earlier reading.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            total: self.total.saturating_sub(before.total),
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }
}

/// Whether the kernel ended a cgroup for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfMemory {
    /// No.
    Never,
    /// Yes, for the cgroup's own limit.
    OwnLimit,
    /// Yes, for a shortage above it: the slot's, the service's or the machine's.
    Elsewhere,
}

/// Whether a fork failed for `pids.max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forks {
    /// None did.
    Granted,
    /// At least one did.
    Refused,
}

impl Meter {
    /// CPU time of all that ever ran in it; at most one tick of the kernel late (4 ms at 250 Hz).
    ///
    /// # Errors
    ///
    /// [`CgroupError`]
    pub fn cpu(&self) -> Result<CpuTimes, CgroupError> {
        let text = read_again(self.cpu_stat.as_fd(), c"cpu.stat")?;
        let time = |name| Duration::from_micros(counter(&text, name).unwrap_or(0));
        Ok(CpuTimes {
            total: time("usage_usec"),
            user: time("user_usec"),
            system: time("system_usec"),
        })
    }

    /// The most memory that it held, or what it holds where the kernel keeps no peak; bytes.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]
    pub fn memory_peak(&self) -> Result<u64, CgroupError> {
        peak_or(
            self.memory_peak.as_ref(),
            &self.memory_current,
            c"memory.peak",
        )
    }

    /// The most processes and threads that it held, or that it holds where the kernel keeps no peak.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]
    pub fn tasks_peak(&self) -> Result<u64, CgroupError> {
        peak_or(self.pids_peak.as_ref(), &self.pids_current, c"pids.peak")
    }

    /// Whether it was ended for want of memory.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]
    pub fn out_of_memory(&self) -> Result<OutOfMemory, CgroupError> {
        let text = read_again(self.memory_events.as_fd(), c"memory.events")?;
        let count = |name| counter(&text, name).unwrap_or(0);
        // `oom_kill` counts victims of any shortage, `oom` only times at which this limit was in the way.
        Ok(match (count("oom_kill"), count("oom")) {
            (0, _) => OutOfMemory::Never,
            (_, 0) => OutOfMemory::Elsewhere,
            (_, _) => OutOfMemory::OwnLimit,
        })
    }

    /// Whether a fork failed for the process limit.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]
    pub fn forks(&self) -> Result<Forks, CgroupError> {
        let text = read_again(self.pids_events.as_fd(), c"pids.events")?;
        Ok(match counter(&text, "max") {
            None | Some(0) => Forks::Granted,
            Some(_) => Forks::Refused,
        })
    }
}

/// The number in `peak`, or in `current` where the kernel has no such file.
fn peak_or(peak: Option<&OwnedFd>, current: &OwnedFd, name: &CStr) -> Result<u64, CgroupError> {
    let text = read_again(peak.unwrap_or(current).as_fd(), name)?;
    text.trim_ascii()
        .parse()
        .map_err(|error| doing("understand", name)(io::Error::other(error)))
}

fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, CgroupError> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(doing("open", name))
}

/// Reads a file from its beginning; all that are read here are far smaller than a page.
fn read_again(file: BorrowedFd<'_>, name: &CStr) -> Result<String, CgroupError> {
    let mut buffer = [0; 4096];
    let len = rustix::io::pread(file, &mut buffer, 0).map_err(doing("read", name))?;
    let text = buffer.get(..len).unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// The value in a line of the form `name 123`.
fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim_ascii().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use wpool_protocol::quantity::ByteSize;

    use super::*;

    /// A directory with the files of a fresh cgroup, as the kernel of Debian 12 has them.
    fn fake() -> (tempfile::TempDir, JobCgroup) {
        let slot = tempfile::tempdir().unwrap();
        let job = slot.path().join("job-7");
        fs::create_dir(&job).unwrap();
        for (name, text) in [
            ("cgroup.events", "populated 0\nfrozen 0\n"),
            ("cgroup.kill", ""),
            ("memory.max", "max\n"),
            ("memory.oom.group", "0\n"),
            ("memory.current", "4096\n"),
            (
                "memory.events",
                "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
            ),
            ("memory.peak", "67108864\n"),
            ("pids.max", "max\n"),
            ("pids.current", "1\n"),
            ("pids.events", "max 0\n"),
            ("cpu.max", "max 100000\n"),
            (
                "cpu.stat",
                "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 0\n",
            ),
        ] {
            fs::write(job.join(name), text).unwrap();
        }
        let directory = File::open(slot.path()).unwrap();
        let cgroup = JobCgroup::open(directory.as_fd(), c"job-7".to_owned()).unwrap();
        (slot, cgroup)
    }

    fn read(slot: &Path, name: &str) -> String {
        fs::read_to_string(slot.join("job-7").join(name)).unwrap()
    }

    #[test]
    fn the_limits_are_written_and_a_kernel_that_does_not_count_swap_will_do() {
        let (slot, cgroup) = fake();
        let limits = Limits {
            memory_bytes: ByteSize::mib(64),
            processes: 20,
            cpus: 2,
            ..Limits::DEFAULT
        };
        cgroup.limit(&limits, 1).unwrap();
        // A regular file keeps what a write does not reach.
        assert_eq!(read(slot.path(), "memory.max"), "67108864");
        assert!(read(slot.path(), "memory.oom.group").starts_with('1'));
        assert!(read(slot.path(), "pids.max").starts_with("21"));
        assert!(read(slot.path(), "cpu.max").starts_with("200000 100000"));
        fs::remove_file(slot.path().join("job-7/pids.max")).unwrap();
        let error = cgroup.limit(&limits, 1).unwrap_err();
        assert_eq!(error.to_string(), "failed to open pids.max of a cgroup");
    }

    #[test]
    fn the_account_is_read_and_missing_peaks_are_made_up_for() {
        let (slot, cgroup) = fake();
        let meter = cgroup.meter().unwrap();
        let cpu = meter.cpu().unwrap();
        assert_eq!(cpu.total, Duration::from_micros(1500));
        assert_eq!(cpu.user + cpu.system, cpu.total);
        assert_eq!(meter.memory_peak().unwrap(), 64 << 20);
        assert_eq!(meter.tasks_peak().unwrap(), 1);
        assert_eq!(meter.forks().unwrap(), Forks::Granted);
        fs::write(slot.path().join("job-7/pids.events"), "max 3\n").unwrap();
        assert_eq!(meter.forks().unwrap(), Forks::Refused);
    }

    #[test]
    fn only_its_own_limit_is_the_cause_of_a_jobs_end_for_memory() {
        let (slot, cgroup) = fake();
        let meter = cgroup.meter().unwrap();
        for (events, expected) in [
            ("oom 0\noom_kill 0\noom_group_kill 0\n", OutOfMemory::Never),
            ("oom 2\noom_kill 0\noom_group_kill 0\n", OutOfMemory::Never),
            (
                "oom 0\noom_kill 3\noom_group_kill 1\n",
                OutOfMemory::Elsewhere,
            ),
            (
                "oom 1\noom_kill 3\noom_group_kill 1\n",
                OutOfMemory::OwnLimit,
            ),
        ] {
            fs::write(slot.path().join("job-7/memory.events"), events).unwrap();
            assert_eq!(meter.out_of_memory().unwrap(), expected, "{events}");
        }
    }

    #[test]
    fn an_empty_cgroup_is_not_waited_for_and_a_full_one_not_for_ever() {
        let (slot, cgroup) = fake();
        cgroup.wait_until_empty(Instant::now()).unwrap();
        fs::write(slot.path().join("job-7/cgroup.events"), "populated 1\n").unwrap();
        let error = cgroup.wait_until_empty(Instant::now()).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_made_cgroup_must_be_a_cgroup() {
        let slot = tempfile::tempdir().unwrap();
        let directory = File::open(slot.path()).unwrap();
        let error = SlotCgroup::new(directory.into()).make(3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to open cgroup.events of a cgroup"
        );
    }
}
