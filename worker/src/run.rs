//! One job in its box, from the fork of its init to the death of its last process.
//!
//! ```text
//!   Building ──Built, and told to start──▶ Launching ──Started──▶ Running ──▶ Ending
//!      │                                       │                     │          │
//!      └──────────── Failed ───────────────────┴── NotExecuted ──────┴── Ended ─┴──▶ over
//! ```
//!
//! `Ending` begins with the first reason to end the job: a limit, its wall time, an order of the
//! supervisor. That reason is its verdict, unless the job's first process turns out to have ended before.
//!
//! # Invariants
//!
//! - A run is over when its init has said `Ended` or is dead, as its pidfd says: the tree is dead then, and
//!   nothing changes its files any more. The end of its pipes says neither: a tree may have closed them, and
//!   somebody outside may have been handed one.
//! - The first verdict stays. What else happens in the time of grace only shortens it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use wpool_protocol::frame::{self, Decoder};
use wpool_protocol::id::AttemptRef;
use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::quantity::Millis;
use wpool_protocol::wire::{Ending, InGrace, Written};
use wpool_sys::clone3::Child;
use wpool_sys::namespaces::Namespaces;

use crate::capture::{Capture, Store};
use crate::dialogue::{Launch, MainEnd, Order, Report, TreeEnd};
use crate::feed::Feed;
use crate::ground::Ground;
use crate::group;

/// How long an init may take to end its tree before the kernel is asked to, by killing the init itself.
const END_WITHIN: Duration = Duration::from_secs(10);

/// One job in its box.
#[derive(Debug)]
pub(crate) struct Run {
    /// The run.
    pub(crate) attempt: AttemptRef,
    /// Its limits.
    pub(crate) limits: Limits,
    /// Its init.
    pub(crate) init: Child,
    orders: File,
    reports: File,
    decoder: Decoder,
    phase: Phase,
    verdict: Option<Verdict>,
    /// Why the tree cannot be watched.
    unwatched: Option<String>,
    /// The init has closed its pipe: it is about to die, and the kernel to end its tree.
    is_mute: bool,
    /// What the init said last of the tree.
    end: Option<End>,
    /// When the program began.
    pub(crate) started: Option<Instant>,
    /// What the job's processes are held together by, where no pid namespace ends with the init: a group, named by its leader.
    held: Held,
    /// The job's standard input, as long as there is some left.
    pub(crate) stdin: Option<Feed>,
    /// The job's output streams; none if it has its parent's.
    pub(crate) captures: Vec<Capture>,
}

/// What a run is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) attempt: AttemptRef,
    pub(crate) limits: Limits,
    pub(crate) init: Child,
    pub(crate) orders: OwnedFd,
    pub(crate) reports: OwnedFd,
    pub(crate) stdin: Option<Feed>,
    pub(crate) captures: Vec<Capture>,
    pub(crate) held: Held,
}

/// Where a run is.
#[derive(Debug)]
enum Phase {
    /// The init builds, or waits; `launch` is there as soon as the supervisor has said `Start`.
    Building { built: bool, launch: Option<Launch> },
    /// The init has been told to launch.
    Launching,
    /// The program runs.
    Running,
    /// The tree is to die; a deadline of the present means of ending it.
    Ending { by: Means, until: Instant },
}

/// How a tree is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// It was sent SIGTERM.
    Terminate,
    /// Its init was told to kill it.
    Kill,
    /// Its init was killed.
    KillInit,
}

/// Why we end a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its wall time is over.
    TimedOut,
    /// The supervisor says so.
    Stopped,
    /// Another limit: its peak, in its unit.
    Limit(LimitName, u64, Duration),
}

/// What is known of a tree's end.
#[derive(Clone, Debug)]
enum End {
    Tree(TreeEnd),
    NotExecuted(Ending),
    Failed(String),
    /// The init died without a word.
    InitLost,
}

/// What holds a job's processes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The pid namespace of the init, which ends with it.
    ByNamespace,
    /// A process group, which is known once it is there.
    ByGroup(Option<u32>),
}

impl Held {
    pub(crate) fn on(ground: &Ground) -> Self {
        if ground.has(Namespaces::PID) {
            Self::ByNamespace
        } else {
            Self::ByGroup(None)
        }
    }
}

/// What a step of a run has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing to tell.
    None,
    /// The program runs.
    Started,
}

impl Run {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            attempt: parts.attempt,
            limits: parts.limits,
            init: parts.init,
            orders: File::from(parts.orders),
            reports: File::from(parts.reports),
            decoder: Decoder::default(),
            phase: Phase::Building {
                built: false,
                launch: None,
            },
            verdict: None,
            unwatched: None,
            is_mute: false,
            end: None,
            started: None,
            held: parts.held,
            stdin: parts.stdin,
            captures: parts.captures,
        }
    }

    /// What to poll for the init's reports, or its death; `None` once it has said its last.
    pub(crate) fn reports(&self) -> Option<BorrowedFd<'_>> {
        let source = if self.is_mute {
            self.init.pidfd.as_fd()
        } else {
            self.reports.as_fd()
        };
        self.end.is_none().then_some(source)
    }

    /// How much the job has written.
    pub(crate) fn written(&self) -> Written {
        let [stdout, stderr] = [0, 1].map(|n| self.captures.get(n).map_or(0, Capture::total));
        Written {
            attempt: self.attempt,
            stdout,
            stderr,
        }
    }

    /// Whether the program runs and is not being killed: its limits hold, and it is fed.
    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running) || self.grace().is_some()
    }

    /// The time of grace that it has, if its wall time is over.
    pub(crate) const fn grace(&self) -> Option<Millis> {
        match self.phase {
            Phase::Ending {
                by: Means::Terminate,
                ..
            } => Some(self.limits.grace_ms),
            _ => None,
        }
    }

    /// Whether nothing of the job is left but its files.
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some() && self.captures.iter().all(|capture| capture.pipe().is_none())
    }

    /// The supervisor has said `Start`.
    pub(crate) fn start(&mut self, launch: Launch) -> io::Result<()> {
        if let Phase::Building {
            launch: waiting, ..
        } = &mut self.phase
        {
            *waiting = Some(launch);
        }
        self.launch_if_ready()
    }

    fn launch_if_ready(&mut self) -> io::Result<()> {
        if let Phase::Building {
            built: true,
            launch: launch @ Some(_),
        } = &mut self.phase
            && let Some(launch) = launch.take()
        {
            self.phase = Phase::Launching;
            return self.order(&Order::Launch(Box::new(launch)));
        }
        Ok(())
    }

    fn order(&mut self, order: &Order) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame::push(order, &mut bytes).map_err(io::Error::other)?;
        match self.orders.write_all(&bytes) {
            // The init is gone; its pipe of reports says so, too.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    /// Reads what the init says. It blocks if there is nothing: call it when [`Self::reports`] is readable.
    pub(crate) fn read_reports(&mut self, now: Instant) -> io::Result<News> {
        if self.is_mute {
            self.end_group()?;
            self.end.get_or_insert(End::InitLost);
            self.stdin = None;
            return Ok(News::None);
        }
        let mut buffer = [0u8; 4096];
        let len = self.reports.read(&mut buffer)?;
        if len == 0 {
            // The kernel closes descriptors first and ends the pid namespace then: the tree may still live.
            self.is_mute = true;
            return Ok(News::None);
        }
        self.decoder.extend(buffer.get(..len).unwrap_or_default());
        let mut news = News::None;
        while let Some(report) = self.decoder.message().map_err(io::Error::other)? {
            match report {
                Report::Built => {
                    if let Phase::Building { built, .. } = &mut self.phase {
                        *built = true;
                    }
                    self.launch_if_ready()?;
                }
                Report::Started(leader) => {
                    self.started = Some(now);
                    if let Held::ByGroup(group) = &mut self.held {
                        *group = Some(leader);
                    }
                    news = News::Started;
                    if matches!(self.phase, Phase::Launching) {
                        self.phase = Phase::Running;
                    }
                }
                Report::Failed(text) => self.end = Some(End::Failed(text)),
                Report::NotExecuted { errno, lacks } => {
                    self.end = Some(End::NotExecuted(not_executed(errno, lacks)));
                }
                Report::Ended(tree) => self.end = Some(End::Tree(tree)),
            }
            if self.end.is_some() {
                self.stdin = None;
            }
        }
        Ok(news)
    }

    /// The init is dead, and what it held together is not.
    fn end_group(&self) -> io::Result<()> {
        match self.held {
            Held::ByGroup(Some(leader)) => group::end(leader),
            Held::ByGroup(None) | Held::ByNamespace => Ok(()),
        }
    }

    /// Decides to end the job; later verdicts change nothing.
    pub(crate) fn end(&mut self, verdict: Verdict, now: Instant) -> io::Result<()> {
        if self.end.is_some() {
            return Ok(());
        }
        if self.verdict.is_some() {
            // Grace is for cleaning up, not for going past another limit, and a user may be tired of it.
            return self.grace().map_or(Ok(()), |_| self.kill(now));
        }
        self.verdict = Some(verdict);
        let grace = Duration::from(self.limits.grace_ms);
        let running = matches!(self.phase, Phase::Running);
        if verdict == Verdict::TimedOut && !grace.is_zero() && running {
            self.phase = Phase::Ending {
                by: Means::Terminate,
                until: now + grace,
            };
            return self.order(&Order::Terminate);
        }
        self.kill(now)
    }

    /// Ends the job because it cannot be watched: no fault of its own.
    pub(crate) fn fail(&mut self, reason: String, now: Instant) -> io::Result<()> {
        if self.end.is_none() && self.verdict.is_none() {
            self.unwatched.get_or_insert(reason);
        }
        self.end(Verdict::Stopped, now)
    }

    fn kill(&mut self, now: Instant) -> io::Result<()> {
        self.phase = Phase::Ending {
            by: Means::Kill,
            until: now + END_WITHIN,
        };
        self.order(&Order::Kill)
    }

    /// When [`Self::time_passed`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        match (&self.phase, self.started) {
            (
                Phase::Ending {
                    by: Means::KillInit,
                    ..
                },
                _,
            ) => None,
            (Phase::Ending { until, .. }, _) => Some(*until),
            (_, Some(started)) => Some(started + Duration::from(self.limits.timeout_ms)),
            (_, None) => None,
        }
    }

    /// Does what is due at `now`.
    pub(crate) fn time_passed(&mut self, now: Instant) -> io::Result<()> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        match &mut self.phase {
            Phase::Ending {
                by: Means::Terminate,
                ..
            } => self.kill(now),
            Phase::Ending { by, .. } => {
                *by = Means::KillInit;
                let kill = rustix::process::Signal::KILL;
                match rustix::process::pidfd_send_signal(&self.init.pidfd, kill) {
                    // It is dead, and reaped with those of past jobs.
                    Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            Phase::Building { .. } | Phase::Launching | Phase::Running => {
                self.end(Verdict::TimedOut, now)
            }
        }
    }

    /// Moves what the job has written since, through `buffer`; once the tree is dead, all that is left.
    pub(crate) fn pump_output(&mut self, store: &Store, buffer: &mut [u8]) -> io::Result<()> {
        for capture in &mut self.captures {
            if self.end.is_some() {
                capture.finish(store, buffer)?;
            } else {
                capture.pump(store, buffer)?;
            }
        }
        Ok(())
    }

    /// What the tree used, by the init's account.
    pub(crate) fn tree(&self) -> Option<TreeEnd> {
        match &self.end {
            Some(End::Tree(tree)) => Some(*tree),
            Some(End::NotExecuted(_) | End::Failed(_) | End::InitLost) | None => None,
        }
    }

    /// The init, to be reaped.
    pub(crate) fn init_pidfd(&self) -> io::Result<OwnedFd> {
        self.init.pidfd.try_clone()
    }

    /// How the run ended; only once it is over.
    pub(crate) fn ending(&self) -> Ending {
        let terminated = matches!(self.phase, Phase::Ending { .. })
            && self.verdict == Some(Verdict::TimedOut)
            && self.limits.grace_ms.0 > 0;
        let by_verdict = |verdict| match verdict {
            Verdict::TimedOut => Ending::TimedOut(None),
            Verdict::Stopped => Ending::Stopped,
            Verdict::Limit(limit, peak, at) => Ending::Limit {
                limit,
                peak,
                at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            },
        };
        if let (
            Some(reason),
            Some(
                End::Tree(TreeEnd {
                    main: MainEnd::Killed,
                    ..
                })
                | End::InitLost,
            ),
        ) = (&self.unwatched, &self.end)
        {
            return Ending::BoxFailed {
                reason: format!("the job could not be watched: {reason}"),
            };
        }
        match (&self.end, self.verdict) {
            (Some(End::Failed(reason)), _) => Ending::BoxFailed {
                reason: reason.clone(),
            },
            (Some(End::NotExecuted(ending)), _) => ending.clone(),
            (Some(End::Tree(tree)), verdict) => match (tree.main, verdict) {
                (MainEnd::Killed, Some(verdict)) => by_verdict(verdict),
                (MainEnd::Exited(code), Some(Verdict::TimedOut)) if terminated => {
                    Ending::TimedOut(Some(InGrace::Exited(code)))
                }
                (MainEnd::Signaled(signal), Some(Verdict::TimedOut)) if terminated => {
                    Ending::TimedOut(Some(InGrace::Signaled(signal)))
                }
                (MainEnd::Exited(code), _) => Ending::Exited(code),
                (MainEnd::Signaled(signal), _) => self.signaled(signal, tree),
                (MainEnd::Killed, None) => Ending::Signaled(9),
            },
            (Some(End::InitLost) | None, Some(verdict)) => by_verdict(verdict),
            // The job cannot kill it: that was somebody outside, and the kernel has killed its tree with it.
            (Some(End::InitLost) | None, None) => Ending::BoxFailed {
                reason: if self.started.is_none() {
                    "the init of the job died before it said that the job had begun".to_owned()
                } else {
                    "the init of the job was killed".to_owned()
                },
            },
        }
    }

    /// A signal that stands for a limit which the kernel itself watches over.
    ///
    /// A job can send itself any of them. Of CPU time the kernel's account tells whether it was the limit; of a
    /// file that grew too large nothing is left to look at.
    fn signaled(&self, signal: u8, tree: &TreeEnd) -> Ending {
        let at_ms = self.started.map_or(0, |started| {
            u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
        });
        let cpu_ms = tree.user_us.saturating_add(tree.system_us) / 1_000;
        match i32::from(signal) {
            libc::SIGXFSZ => Ending::Limit {
                limit: LimitName::FileSize,
                peak: self.limits.file_size_bytes.0,
                at_ms,
            },
            // SIGKILL is what comes where soft and hard limit are the same.
            libc::SIGXCPU | libc::SIGKILL if cpu_ms >= self.limits.cpu_ms.0 => Ending::Limit {
                limit: LimitName::Cpu,
                peak: cpu_ms,
                at_ms,
            },
            _ => Ending::Signaled(signal),
        }
    }
}

/// Whether there is no such program, or one that lacks something, or one that cannot be executed.
fn not_executed(errno: i32, lacks: Option<String>) -> Ending {
    match (errno, lacks) {
        (libc::ENOENT | libc::ENOTDIR, Some(lacks)) => Ending::Lacking(lacks),
        (libc::ENOENT | libc::ENOTDIR, None) => Ending::NotFound,
        (errno, _) => Ending::NotExecutable(errno),
    }
}
