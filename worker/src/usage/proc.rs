//! Reads a job's process tree in the worker's `/proc`.
//!
//! The worker's `/proc` shows what descends from the worker: itself, the job's init, and the job. The job's are those in the pid namespace of its init. The name of that namespace
//! is asked of the kernel for each new process; parents and process groups are the job's to choose.
//!
//! `/proc/PID/stat` stays open for each process: reading it again costs 3 µs instead of 8, and
//! once the process is gone it says so, even if another has its pid by then. CPU time comes from
//! the process's CPU clock (`clock_getcpuclockid(3)`) in ns: the ticks of `stat` are 10 ms, and 64 processes
//! would hide a second and more in them.
//!
//! # Invariants
//!
//! - A process that ends between two steps is left out; that is never an error.
//! - Where the kernel refuses a look into a process (it runs a program that nobody may read), its looser
//!   figures count instead: no program hides by being unreadable.
//! - No more than `KEPT_MAX` descriptors are kept.
//!
//! Not here: any judgement. See [`super::sampler`].

mod kin;
mod ledger;
mod memory;
mod standstill;
mod text;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::statvfs::fstatvfs;
use nix::time::ClockId;
use nix::unistd::{SysconfVar, sysconf};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use self::kin::{Kinship, namespace_of};
use self::ledger::{Ledger, Times, Tree};
pub(super) use self::standstill::Outside;
use self::standstill::{Sights, Stopped};
use self::text::{Stat, State, Status};
use super::reading::{Disk, Room, Sums};
use super::sockets::{SOCKET_BYTES_MAX, SocketReader};

/// Processes whose `stat` is kept open; above it the cost of opening is small beside that of so many.
const KEPT_MAX: usize = 256;

/// Threads of one process that are tried in turn.
const THREADS_TRIED: u32 = 8;

/// A tree could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {what} of the job's processes")]
pub struct TreeError {
    what: &'static str,
    source: io::Error,
}

impl TreeError {
    /// Whether it was only that the time for reading was over.
    pub(super) fn is_late(&self) -> bool {
        self.source.kind() == io::ErrorKind::TimedOut
    }
}

/// For `map_err`: says what was being read.
fn reading<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> TreeError {
    move |source| TreeError {
        what,
        source: source.into(),
    }
}

/// Reads the tree of one job.
#[derive(Debug)]
pub struct TreeReader {
    proc: OwnedFd,
    /// The job's init.
    init: u32,
    kinship: Kinship,
    depth: u32,
    own_pid: u32,
    /// In the job's tmpfs.
    disk: Option<OwnedFd>,
    /// Of the job's own network namespace, where it has one that can be looked at.
    sockets: Option<SocketReader>,
    /// How many sockets there were at the last [`TreeReader::sums`].
    sockets_count: u64,
    /// The job's processes at the last [`TreeReader::sums`].
    members: Vec<u32>,
    stats: BTreeMap<u32, OwnedFd>,
    /// Of a process whose first thread has ended and others have not: one that lives, through which it can be read.
    threads: BTreeMap<u32, u32>,
    /// Who was found stopped at the last [`TreeReader::sums`].
    stopped: Vec<Stopped>,
    sights: Option<Sights>,
    ledger: Ledger,
    entries: Vec<u8>,
    buffer: Vec<u8>,
    filled: usize,
    page_bytes: u64,
    ticks_per_second: u64,
    /// When reading is given up.
    until: Option<Instant>,
    /// Page tables of a process, bytes, up to which what it maps is looked at.
    tables_max: u64,
}

impl TreeReader {
    /// For the job whose init has the pid `init` in `proc`, a directory descriptor of the worker's
    /// own `/proc`, and whose files lie in the tmpfs of `disk`, any descriptor in it.
    ///
    /// # Errors
    ///
    /// [`TreeError`], also if init has ended already.
    pub fn new(
        proc: BorrowedFd<'_>,
        init: u32,
        disk: Option<BorrowedFd<'_>>,
    ) -> Result<Self, TreeError> {
        let mut tree = Self::without_sockets(proc, init, disk)?;
        let sockets = SocketReader::new(tree.proc.as_fd(), init, tree.own_pid);
        tree.sockets = Some(sockets.map_err(reading("the sockets"))?);
        Ok(tree)
    }

    /// The same where the job has no network namespace of its own, and so no sockets to look at.
    ///
    /// # Errors
    ///
    /// [`TreeError`], also if init has ended already.
    pub fn without_sockets(
        proc: BorrowedFd<'_>,
        init: u32,
        disk: Option<BorrowedFd<'_>>,
    ) -> Result<Self, TreeError> {
        let namespace = namespace_of(proc, init).map_err(reading("the pid namespace"))?;
        let mut tree = Self::with(proc, init, Kinship::Namespace(namespace))?;
        tree.hold_disk(disk)?;
        tree.sights = Sights::new(tree.proc.as_fd(), tree.own_pid)?;
        tree.depth = tree.status(init)?.map_or(0, |status| status.depth);
        Ok(tree)
    }

    /// For the job with the init `init` where there are no pid namespaces: its processes are all of this process' session that are not in its own group.
    ///
    /// What is in sockets is not seen then.
    ///
    /// # Errors
    ///
    /// [`TreeError`]
    pub fn of_session(
        proc: BorrowedFd<'_>,
        init: u32,
        disk: Option<BorrowedFd<'_>>,
    ) -> Result<Self, TreeError> {
        let mut tree = Self::with(proc, init, Kinship::Session)?;
        tree.hold_disk(disk)?;
        Ok(tree)
    }

    fn hold_disk(&mut self, disk: Option<BorrowedFd<'_>>) -> Result<(), TreeError> {
        let held = disk.map(|place| place.try_clone_to_owned()).transpose();
        self.disk = held.map_err(reading("the disk"))?;
        Ok(())
    }

    fn with(proc: BorrowedFd<'_>, init: u32, kinship: Kinship) -> Result<Self, TreeError> {
        // Opened anew: a duplicate would share its position with the caller's.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::openat(proc, c".", flags, Mode::empty())
            .map_err(reading("the directory"))?;
        let system = |variable| -> Result<u64, TreeError> {
            let value = sysconf(variable).map_err(reading("the units"))?;
            let value = value.and_then(|value| u64::try_from(value).ok());
            Ok(value.filter(|&value| value > 0).unwrap_or(1))
        };
        Ok(Self {
            sockets: None,
            sockets_count: 0,
            sights: None,
            proc,
            init,
            kinship,
            depth: 0,
            own_pid: std::process::id(),
            disk: None,
            members: Vec::new(),
            stats: BTreeMap::new(),
            threads: BTreeMap::new(),
            stopped: Vec::new(),
            ledger: Ledger::default(),
            entries: Vec::with_capacity(16 << 10),
            buffer: vec![0; 8 << 10],
            filled: 0,
            page_bytes: system(SysconfVar::PAGE_SIZE)?,
            ticks_per_second: system(SysconfVar::CLK_TCK)?,
            until: None,
            tables_max: memory::TABLES_MIN,
        })
    }

    /// Reads until then, and no further: a tree of thousands of processes that all want to run leaves little time to look at
    /// it, and its end may be due meanwhile.
    pub(super) const fn read_until(&mut self, until: Instant) {
        self.until = Some(until);
    }

    fn go_on(&self) -> Result<(), TreeError> {
        match self.until {
            Some(until) if Instant::now() >= until => {
                Err(reading("all")(io::Error::from(io::ErrorKind::TimedOut)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Finds the job's processes and adds up what is cheap.
    ///
    /// Parents come before children as long as pids do not wrap, so that a child reaped meanwhile is
    /// missing in the sum rather than counted twice.
    ///
    /// # Errors
    ///
    /// [`TreeError`]
    pub fn sums(&mut self) -> Result<Sums, TreeError> {
        let pids = self.pids()?;
        let mut known = std::mem::take(&mut self.stats);
        let sockets = self.sockets.as_ref().map_or(Ok(0), SocketReader::count);
        self.sockets_count = sockets.map_err(reading("the sockets"))?;
        let mut sums = Sums {
            sockets_bytes_max: self.sockets_count * SOCKET_BYTES_MAX,
            disk: self.disk()?,
            ..Sums::default()
        };
        self.members.clear();
        self.threads.clear();
        self.stopped.clear();
        let mut tree = Tree::new();
        for pid in pids {
            self.go_on()?;
            let Some(stat) = self.stat(pid, known.remove(&pid))? else {
                continue;
            };
            let mut times = Times {
                own: Duration::ZERO,
                reaped: self.ticks(stat.reaped_ticks),
            };
            if pid != self.init {
                times.own = cpu_clock(pid).unwrap_or_else(|| self.ticks(stat.own_ticks));
                self.members.push(pid);
                if stat.state == State::Stopped {
                    let cpu = times.own;
                    self.stopped.push(Stopped { pid, cpu });
                }
                sums.processes += 1;
                sums.tasks = sums.tasks.saturating_add(stat.threads);
                let resident = stat.resident_pages.saturating_mul(self.page_bytes);
                sums.resident_bytes = sums.resident_bytes.saturating_add(resident);
                sums.address_space_bytes = sums
                    .address_space_bytes
                    .saturating_add(stat.address_space_bytes);
            }
            sums.cpu += times.own + times.reaped;
            tree.insert((pid, stat.began), times);
        }
        self.close_ledger(tree)?;
        sums.cpu += self.ledger.lost();
        Ok(sums)
    }

    /// Settles what has become of the CPU time of processes that are gone since the last look.
    fn close_ledger(&mut self, tree: Tree) -> Result<(), TreeError> {
        let tick = self.ticks(1);
        let mut lost = self.ledger.missing(&tree, tick);
        if !lost.is_zero() {
            let mut again = Tree::new();
            for &(pid, began) in tree.keys() {
                self.go_on()?;
                let known = self.stats.remove(&pid);
                if let Some(stat) = self.stat(pid, known)?.filter(|stat| stat.began == began) {
                    let reaped = self.ticks(stat.reaped_ticks);
                    let own = Duration::ZERO;
                    again.insert((pid, began), Times { own, reaped });
                }
            }
            // One more that is gone may have taken what it was handed to where it is read no more.
            lost = if again.len() == tree.len() {
                self.ledger.missing(&again, tick)
            } else {
                Duration::ZERO
            };
        }
        self.ledger.close(tree, lost);
        Ok(())
    }

    /// The most descriptors that one process has open, of those of the last [`TreeReader::sums`].
    ///
    /// # Errors
    ///
    /// [`TreeError`]
    pub fn descriptors_max(&mut self) -> Result<u32, TreeError> {
        let mut most = 0;
        for pid in self.members.clone() {
            self.go_on()?;
            let path = self.path(pid, "fd");
            // Since 6.2 the size of this directory is the number of open descriptors.
            let open = match rustix::fs::statat(&self.proc, path, AtFlags::empty()) {
                Ok(stat) if stat.st_size > 0 => u32::try_from(stat.st_size).unwrap_or(u32::MAX),
                Ok(_) => self.count_descriptors(pid)?,
                Err(error) if is_gone(error) => 0,
                Err(error) => return Err(reading("the descriptors")(error)),
            };
            most = most.max(open);
        }
        Ok(most)
    }

    /// The largest resident set that init ever had, bytes; 0 if it is gone.
    ///
    /// # Errors
    ///
    /// [`TreeError`]
    pub fn init_resident_max(&mut self) -> Result<u64, TreeError> {
        let status = self.status(self.init)?;
        Ok(status.map_or(0, |status| status.resident_max))
    }

    /// How full the job's tmpfs is.
    ///
    /// # Errors
    ///
    /// [`TreeError`]
    pub fn disk(&self) -> Result<Disk, TreeError> {
        self.disk
            .as_ref()
            .map_or(Ok(Disk::default()), |disk| disk_of(disk.as_fd()))
    }

    fn count_descriptors(&mut self, pid: u32) -> Result<u32, TreeError> {
        let directory = match self.open(pid, "fd", OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(error) if is_gone(error) || is_refused(&error.into()) => return Ok(0),
            Err(error) => return Err(reading("the descriptors")(error)),
        };
        let mut entries = RawDir::new(directory, self.entries.spare_capacity_mut());
        let mut count = 0;
        while let Some(entry) = entries.next() {
            match entry {
                // All but "." and ".." are numbers.
                Ok(entry) => count += u32::from(!entry.file_name().to_bytes().starts_with(b".")),
                Err(error) if is_gone(error) => break,
                Err(error) => return Err(reading("the descriptors")(error)),
            }
        }
        Ok(count)
    }

    /// All pids that `/proc` shows but the worker's own, in rising order.
    fn pids(&mut self) -> Result<Vec<u32>, TreeError> {
        rustix::fs::seek(&self.proc, SeekFrom::Start(0)).map_err(reading("the directory"))?;
        let mut entries = RawDir::new(&self.proc, self.entries.spare_capacity_mut());
        let mut pids = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(reading("the directory"))?;
            let pid = entry.file_name().to_str().ok();
            pids.extend(pid.and_then(|name| name.parse::<u32>().ok()));
        }
        pids.retain(|&pid| pid != self.own_pid);
        pids.sort_unstable();
        Ok(pids)
    }

    /// The `stat` of a process of the job's, and keeps it open; `None` if it is gone or not the job's.
    fn stat(&mut self, pid: u32, known: Option<OwnedFd>) -> Result<Option<Stat>, TreeError> {
        // What is asked is how the process is, not one of its threads.
        self.threads.remove(&pid);
        // The process of a kept descriptor may have ended, and the pid be another's by now.
        let mut found = match known {
            Some(known) => self.read(pid, "stat", Some(known)),
            None => Ok(None),
        };
        if matches!(found, Ok(None)) {
            if self.is_foreign(pid)? {
                return Ok(None);
            }
            found = self.read(pid, "stat", None);
        }
        let Some(descriptor) = found.map_err(reading("the sums"))? else {
            return Ok(None);
        };
        if self.stats.len() < KEPT_MAX {
            self.stats.insert(pid, descriptor);
        }
        let Some(mut stat) = Stat::parse(self.text()) else {
            return Ok(None);
        };
        if stat.state == State::Ended && stat.threads > 1 {
            let thread = self.live_thread(pid).map_err(reading("the threads"))?;
            if let Some((thread, _)) = thread {
                self.threads.insert(pid, thread);
                let found = self.read(pid, "stat", None);
                if found.map_err(reading("the sums"))?.is_some()
                    && let Some(of_thread) = Stat::parse(self.text())
                {
                    stat.address_space_bytes = of_thread.address_space_bytes;
                    stat.resident_pages = of_thread.resident_pages;
                }
            }
        }
        Ok(Some(stat))
    }

    fn status(&mut self, pid: u32) -> Result<Option<Status>, TreeError> {
        let found = self.read(pid, "status", None);
        let found = found.map_err(reading("the memory"))?;
        Ok(found.map(|_| Status::parse(self.text())))
    }

    /// Reads `/proc/PID/NAME` into [`TreeReader::text`], through `kept` or opened anew.
    ///
    /// Gives the descriptor; `None` if the process is gone. The thread that stands for a process whose first one has ended may end
    /// meanwhile: then another does.
    fn read(&mut self, pid: u32, name: &str, kept: Option<OwnedFd>) -> io::Result<Option<OwnedFd>> {
        let mut read = self.read_once(pid, name, kept)?;
        for _ in 0..THREADS_TRIED {
            if read.is_some() || self.threads.remove(&pid).is_none() {
                break;
            }
            let Some((thread, _)) = self.live_thread(pid)? else {
                break;
            };
            self.threads.insert(pid, thread);
            read = self.read_once(pid, name, None)?;
        }
        Ok(read)
    }

    fn read_once(
        &mut self,
        pid: u32,
        name: &str,
        kept: Option<OwnedFd>,
    ) -> io::Result<Option<OwnedFd>> {
        let descriptor = match kept.map_or_else(|| self.open(pid, name, OFlags::RDONLY), Ok) {
            Err(error) if is_gone(error) => return Ok(None),
            opened => opened?,
        };
        self.filled = 0;
        loop {
            if self.filled == self.buffer.len() {
                self.buffer.resize(2 * self.filled, 0);
            }
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            match rustix::io::pread(&descriptor, room, self.filled as u64) {
                Ok(0) => return Ok(Some(descriptor)),
                Ok(read) => self.filled += read,
                Err(Errno::INTR) => {}
                Err(error) if is_gone(error) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What was read last.
    fn text(&self) -> &[u8] {
        self.buffer.get(..self.filled).unwrap_or_default()
    }

    fn open(&self, pid: u32, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = self.path(pid, name);
        rustix::fs::openat(&self.proc, path, flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// Where a file about a process is.
    fn path(&self, pid: u32, name: &str) -> String {
        match self.threads.get(&pid) {
            None => format!("{pid}/{name}"),
            Some(thread) => format!("{pid}/task/{thread}/{name}"),
        }
    }

    fn ticks(&self, ticks: u64) -> Duration {
        Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / self.ticks_per_second))
    }
}

/// How full the file system of `place` is.
///
/// # Errors
///
/// [`TreeError`]
pub fn disk_of(place: BorrowedFd<'_>) -> Result<Disk, TreeError> {
    let disk = fstatvfs(place).map_err(reading("the disk"))?;
    let used = disk.blocks().saturating_sub(disk.blocks_free());
    // A file system without limits says 0 of 0.
    let exhausted = (disk.blocks() > 0 && disk.blocks_free() == 0)
        || (disk.files() > 0 && disk.files_free() == 0);
    Ok(Disk {
        used_bytes: used.saturating_mul(disk.fragment_size()),
        room: if exhausted {
            Room::Exhausted
        } else {
            Room::Left
        },
    })
}

/// CPU time of all threads of a process, those that have ended included; `None` if it is gone.
fn cpu_clock(pid: u32) -> Option<Duration> {
    // As in the kernel's posix-timers: ~pid << 3, with 2 for the scheduler's clock of the whole process.
    let id = (!i32::try_from(pid).ok()?).wrapping_shl(3) | 2;
    ClockId::from_raw(id).now().ok().map(Duration::from)
}

fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::SRCH | Errno::NOENT)
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
