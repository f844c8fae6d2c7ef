//! The job on a worker's desk: taken in, laid out, run, and brought out again.
//!
//! ```text
//!   Empty ──Job──▶ Loading ──Start──▶ Running ──the tree is dead──▶ collected, told ──▶ Empty
//! ```
//!
//! # Invariants
//!
//! - At most one job is here.
//! - What goes wrong with a job on our side is its ending, and is told; it never ends the worker.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wpool_protocol::wire::{
    AttemptReport, Ending, FromWorker, InputBytes, InputTarget, JobOrder, ToWorker, Written,
};

use crate::capture::{Capture, Store};
use crate::deliver::deliver;
use crate::feed::Appetite;
use crate::job_box::{self, JobBox, nothing_known};
use crate::run::{News, Verdict};
use crate::slot::Slot;
use crate::usage::verdict::Account;
use crate::worker::{Link, Watched};

/// The job on a worker's desk.
#[derive(Debug)]
pub(crate) struct Desk {
    slot: Slot,
    store: Store,
    job: Option<Job>,
}

#[derive(Debug)]
struct Job {
    order: Box<JobOrder>,
    state: State,
    follow: Option<Written>,
}

#[derive(Debug)]
enum State {
    /// In its box.
    Boxed(Box<JobBox>),
    /// It could not be put in a box, or not be laid out there; its init, if there was one, finds its pipe
    /// closed and goes.
    Unboxed(Ending, Option<OwnedFd>),
}

impl Desk {
    pub(crate) const fn new(slot: Slot, store: Store) -> Self {
        Self {
            slot,
            store,
            job: None,
        }
    }

    /// Whether no job is here.
    pub(crate) const fn is_idle(&self) -> bool {
        self.job.is_none()
    }

    /// Does what the supervisor says about a job. What names no job of ours is late, and dropped.
    pub(crate) fn obey(&mut self, command: ToWorker, now: Instant) -> io::Result<()> {
        match command {
            ToWorker::Job(order) => self.take_in(order),
            ToWorker::Input(input) => {
                self.lay_out(&input);
                Ok(())
            }
            ToWorker::Start(attempt) => match &self.job {
                Some(job) if job.order.attempt == attempt => {
                    self.start();
                    Ok(())
                }
                Some(_) | None => Ok(()),
            },
            ToWorker::Stop(attempt) => match &mut self.job {
                Some(Job {
                    order,
                    state: State::Boxed(boxed),
                    ..
                }) if order.attempt == attempt => boxed.run.end(Verdict::Stopped, now),
                Some(_) | None => Ok(()),
            },
            ToWorker::Follow(seen) => {
                if let Some(job) = &mut self.job
                    && job.order.attempt == seen.attempt
                {
                    job.follow = Some(seen);
                }
                Ok(())
            }
            ToWorker::Hello(_) | ToWorker::Setup(_) | ToWorker::Ping(_) | ToWorker::Retire => {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }

    fn take_in(&mut self, order: Box<JobOrder>) -> io::Result<()> {
        if self.job.is_some() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.store.clear()?;
        let state = match job_box::open(&self.slot, &self.store, &order) {
            Ok(boxed) => State::Boxed(Box::new(boxed)),
            Err(error) => {
                let reason = format!("failed to open a box: {error}");
                State::Unboxed(Ending::BoxFailed { reason }, None)
            }
        };
        self.job = Some(Job {
            order,
            state,
            follow: None,
        });
        Ok(())
    }

    /// All inputs are there.
    fn start(&mut self) {
        let Some(mut job) = self.job.take() else {
            return;
        };
        if let State::Boxed(mut boxed) = job.state {
            job.state = match boxed.start(&job.order) {
                Ok(()) => State::Boxed(boxed),
                Err(ending) => State::Unboxed(ending, Some(boxed.run.init.pidfd)),
            };
        }
        self.job = Some(job);
    }

    fn lay_out(&mut self, input: &InputBytes) {
        let Some(mut job) = self.job.take() else {
            return;
        };
        if let State::Boxed(mut boxed) = job.state {
            let laid = match input.target {
                InputTarget::Stdin => {
                    boxed.feed_more(&input.bytes);
                    Ok(())
                }
                InputTarget::File(index) => boxed.lay_bytes(&job.order, index, &input.bytes),
            };
            job.state = match laid {
                Ok(()) => State::Boxed(boxed),
                Err(ending) => State::Unboxed(ending, Some(boxed.run.init.pidfd)),
            };
        }
        self.job = Some(job);
    }

    /// What to poll.
    pub(crate) fn watched(&self) -> Vec<Watched<'_>> {
        let Some(State::Boxed(boxed)) = self.job.as_ref().map(|job| &job.state) else {
            return Vec::new();
        };
        let run = &boxed.run;
        let read = run.captures.iter().filter_map(Capture::pipe);
        let mut watched: Vec<_> = read
            .chain(run.reports())
            .map(|fd| (fd, PollFlags::POLLIN))
            .collect();
        if run.is_running()
            && let Some(feed) = &run.stdin
        {
            watched.push((feed.pipe(), PollFlags::POLLOUT));
        }
        watched
    }

    /// When [`Self::advance`] has something to do even if nothing is readable.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.job.as_ref().map(|job| &job.state)? {
            State::Boxed(boxed) => boxed.deadline(),
            // Told at once.
            State::Unboxed(..) => Some(Instant::now()),
        }
    }

    /// Does what can be done without waiting; gives back the init of a job that has ended.
    pub(crate) fn advance(
        &mut self,
        link: &mut Link,
        buffer: &mut [u8],
        now: Instant,
    ) -> io::Result<Option<OwnedFd>> {
        let Some(job) = &mut self.job else {
            return Ok(None);
        };
        let State::Boxed(boxed) = &mut job.state else {
            return self.tell_unboxed(link);
        };
        if readable(boxed.run.reports())? && boxed.run.read_reports(now)? == News::Started {
            boxed.watch_from(now);
            link.say(&FromWorker::Started(job.order.attempt))?;
        }
        boxed.run.pump_output(&self.store, buffer)?;
        if boxed.run.is_running()
            && let Some(feed) = &mut boxed.run.stdin
            && feed.pump()? == Appetite::Done
        {
            boxed.run.stdin = None;
        }
        boxed.look(now)?;
        boxed.run.time_passed(now)?;
        if boxed.run.is_over() {
            return self.conclude(link, buffer);
        }
        let written = boxed.run.written();
        if let Some(seen) = job.follow
            && (written.stdout > seen.stdout || written.stderr > seen.stderr)
        {
            job.follow = None;
            link.say(&FromWorker::Written(written))?;
        }
        Ok(None)
    }

    /// Brings the outputs out and tells the end.
    fn conclude(&mut self, link: &mut Link, buffer: &mut [u8]) -> io::Result<Option<OwnedFd>> {
        let Some(Job {
            order,
            state: State::Boxed(boxed),
            ..
        }) = self.job.take()
        else {
            return Ok(None);
        };
        let ending = boxed.run.ending();
        let written = boxed.run.written();
        if boxed.run.started.is_some() {
            deliver(link, &order, boxed.directory.as_fd(), buffer)?;
        }
        let init = boxed.run.init_pidfd()?;
        let account = boxed.account();
        // Where the kernel ended the job for its memory, that is why, whatever else it looks like.
        let ending = match &account.excess {
            Some(excess) if matches!(ending, Ending::Signaled(_)) => excess.ending(),
            Some(_) | None => ending,
        };
        tell(link, &order, ending, account, written)?;
        Ok(Some(init))
    }

    fn tell_unboxed(&mut self, link: &mut Link) -> io::Result<Option<OwnedFd>> {
        let Some(Job {
            order,
            state: State::Unboxed(ending, init),
            ..
        }) = self.job.take()
        else {
            return Ok(None);
        };
        let written = Written {
            attempt: order.attempt,
            stdout: 0,
            stderr: 0,
        };
        tell(link, &order, ending, nothing_known(), written)?;
        Ok(init)
    }
}

/// Says how a job ended.
fn tell(
    link: &mut Link,
    order: &JobOrder,
    ending: Ending,
    account: Account,
    written: Written,
) -> io::Result<()> {
    link.say(&FromWorker::Ended(Box::new(AttemptReport {
        attempt: order.attempt,
        ending,
        limits_hit: account.limits_hit,
        usage: account.usage,
        written,
    })))
}

/// Whether reading would not block.
fn readable(fd: Option<BorrowedFd<'_>>) -> io::Result<bool> {
    let Some(fd) = fd else {
        return Ok(false);
    };
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
