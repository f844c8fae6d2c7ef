//! Who belongs together: pid namespaces, threads of a process, processes that share their memory.
//!
//! # Invariants
//!
//! - What the kernel says decides, not what a job chose: parents are believed only within the job's pid namespace, where whoever loses
//!   theirs is given to its init.

use std::cmp::Ordering;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;
use wpool_sys::kcmp;

use super::text::Stat;
use super::{TreeError, TreeReader, is_gone, is_refused, reading};

/// What makes a process one of the job's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kinship {
    /// The pid namespace of its init, by its name, like `pid:[4026532261]`.
    Namespace(Vec<u8>),
    /// The worker's session, and another process group than the worker's own: where there is no such namespace, and neither can be left.
    Session,
}

/// Ancestors of a process that are asked for.
const ANCESTORS_MAX: usize = 4_096;

impl TreeReader {
    /// A thread of the process that has not ended, where its first one has, and the name of its pid namespace.
    pub(super) fn live_thread(&self, pid: u32) -> io::Result<Option<(u32, Vec<u8>)>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = format!("{pid}/task");
        let directory = match rustix::fs::openat(&self.proc, path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(error) if is_gone(error) || is_refused(&error.into()) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut room = Vec::with_capacity(4 << 10);
        let mut entries = RawDir::new(directory, room.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if is_gone(error) => break,
                Err(error) => return Err(error.into()),
            };
            let thread = entry.file_name().to_str().ok();
            let thread = thread.and_then(|name| name.parse::<u32>().ok());
            let Some(thread) = thread.filter(|&thread| thread != pid) else {
                continue;
            };
            // One that has ended too has no namespaces any more.
            let name = format!("{pid}/task/{thread}/ns/pid");
            if let Ok(namespace) = rustix::fs::readlinkat(&self.proc, name, Vec::new()) {
                return Ok(Some((thread, namespace.into_bytes())));
            }
        }
        Ok(None)
    }

    /// Whether a process is not in the job's pid namespace.
    ///
    /// The kernel refuses to say it of a process that runs a program which nobody may read. Such a one is the job's if it is as deep as init
    /// and descends from it: whoever loses its parent in a pid namespace is given to its init.
    pub(super) fn is_foreign(&mut self, pid: u32) -> Result<bool, TreeError> {
        let Kinship::Namespace(ours) = self.kinship.clone() else {
            return self.is_of_other_session(pid);
        };
        match namespace_of(self.proc.as_fd(), pid) {
            Ok(namespace) => Ok(namespace != ours),
            // Of the process, or of its first thread alone.
            Err(error) if is_gone(error) => {
                let thread = self.live_thread(pid).map_err(reading("the threads"))?;
                Ok(thread.is_none_or(|(_, namespace)| namespace != ours))
            }
            Err(error) if is_refused(&error.into()) => {
                let status = self.status(pid)?;
                let is_deep = status.is_some_and(|status| status.depth >= self.depth);
                Ok(!is_deep || !self.descends_from_init(pid)?)
            }
            Err(error) => Err(reading("the pid namespace")(error)),
        }
    }

    fn is_of_other_session(&mut self, pid: u32) -> Result<bool, TreeError> {
        let found = self.read(pid, "stat", None);
        if found.map_err(reading("the sums"))?.is_none() {
            return Ok(true);
        }
        let (own, init) = (self.own_pid, self.init);
        let stat = Stat::parse(self.text());
        Ok(stat.is_none_or(|stat| pid != init && (stat.session != own || stat.group == own)))
    }

    fn descends_from_init(&mut self, pid: u32) -> Result<bool, TreeError> {
        let mut ancestor = pid;
        for _ in 0..ANCESTORS_MAX {
            let found = self.read(ancestor, "stat", None);
            if found.map_err(reading("the sums"))?.is_none() {
                return Ok(false);
            }
            match Stat::parse(self.text()) {
                Some(stat) if stat.parent == self.init => return Ok(true),
                Some(stat) if stat.parent > 0 => ancestor = stat.parent,
                Some(_) | None => return Ok(false),
            }
        }
        // So long a line is none of wpool's own.
        Ok(true)
    }

    /// The members by address space: those of one share it.
    pub(super) fn address_spaces(&self) -> Vec<Vec<u32>> {
        let mut distinct: Vec<Vec<u32>> = Vec::with_capacity(self.members.len());
        for &pid in &self.members {
            // Searched, not sorted: while processes end and exec, the order is none that a sort could trust.
            let found = distinct.binary_search_by(|space| {
                let first = space.first().copied().unwrap_or(pid);
                self.compare_memory(first, pid).unwrap_or(Ordering::Less)
            });
            match found {
                Err(place) => distinct.insert(place, vec![pid]),
                Ok(place) => distinct
                    .get_mut(place)
                    .into_iter()
                    .for_each(|it| it.push(pid)),
            }
        }
        distinct
    }

    /// How the address spaces of two processes are ordered; `None` if one is gone.
    pub(super) fn compare_memory(&self, one: u32, other: u32) -> Option<Ordering> {
        let [one, other] = [one, other].map(|pid| *self.threads.get(&pid).unwrap_or(&pid));
        kcmp::compare_memory(one, other).ok()
    }
}

/// The name of a process's pid namespace.
pub(super) fn namespace_of(proc: BorrowedFd<'_>, pid: u32) -> Result<Vec<u8>, Errno> {
    let name = rustix::fs::readlinkat(proc, format!("{pid}/ns/pid"), Vec::new())?;
    Ok(name.into_bytes())
}
