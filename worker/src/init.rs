//! The init of one job: pid 1 of the job's own namespaces, which builds its root, launches it, reaps
//! everything and says how it ended.
//!
//! A fork of the worker, without exec: it holds capabilities in the worker's user namespace that the
//! job lacks, is not dumpable, and as pid 1 gets no signal from below that it does not handle. So a job
//! can neither trace it nor kill it.
//!
//! # Invariants
//!
//! - `Ended` is said only when no process of the job is left: the first process has ended or is killed,
//!   then all others are killed, then all are reaped to `ECHILD`. Files and pipes are at rest then, and message queues gone.
//! - A kill is `kill(-1)`: atomic in the kernel against a fork bomb. It is never sent to a pid that was
//!   not just got from a successful fork. Where there is no pid namespace, the job's process group stands in for -1.
//! - If the worker dies, the kernel ends this process with it: the worker is pid 1 above. Where it is not, the end of
//!   its pipe is an order to kill.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use wpool_protocol::frame::{self, Decoder};
use wpool_sys::clone3::SingleThreaded;
use wpool_sys::namespaces::Namespaces;
use wpool_sys::wait::{self, Children, Exit, Patience};

use crate::apply::{self, Detached};
use crate::dialogue::{Launch, MainEnd, Order, Report, TreeEnd};
use crate::launch::{self, Failure, Surroundings};
use crate::plan::Step;

/// Where the plan of a job mounts its message queues.
const MESSAGE_QUEUES: &str = "/dev/mqueue";

/// What an init is made of.
#[derive(Debug)]
pub(crate) struct Init<'a> {
    /// The proof that the worker, and so its fork, has one thread.
    pub(crate) single: SingleThreaded,
    /// Orders of the worker.
    pub(crate) orders: OwnedFd,
    /// Reports to the worker.
    pub(crate) reports: OwnedFd,
    /// The job's descriptors 0, 1 and 2.
    pub(crate) stdio: [OwnedFd; 3],
    /// The cgroup that the job's process is born into.
    pub(crate) cgroup: Option<OwnedFd>,
    /// The steps that build the root.
    pub(crate) steps: &'a [Step],
    /// What the steps attach.
    pub(crate) detached: &'a Detached,
    /// What the job's process needs for its lock-down.
    pub(crate) surroundings: &'a Surroundings,
}

/// Runs an init to its end; what it returns is its exit code.
pub(crate) fn run(init: Init<'_>) -> u8 {
    match try_run(init) {
        Ok(()) => 0,
        // The worker sees the end of the pipe without `Ended`, and takes the job for lost.
        Err(_) => 1,
    }
}

fn try_run(init: Init<'_>) -> io::Result<()> {
    let mut reports = File::from(init.reports);
    nix::sys::prctl::set_name(c"wpool-init")?;
    // A job with the same host id could else write to files of this process under /proc (oom_score_adj).
    nix::sys::prctl::set_dumpable(false)?;
    let ground = &init.surroundings.ground;
    if !ground.has(Namespaces::PID) {
        // Whoever loses a parent comes to this process all the same.
        nix::sys::prctl::set_child_subreaper(true)?;
    }
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    let children = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    if let Err(error) = apply::apply(init.steps, init.detached) {
        return say(&mut reports, &Report::Failed(with_source(&error)));
    }
    say(&mut reports, &Report::Built)?;
    let mut orders = Orders {
        pipe: File::from(init.orders),
        decoder: Decoder::default(),
    };
    let Some(Order::Launch(order)) = orders.wait()? else {
        // The worker does not need this box any more.
        return Ok(());
    };
    // Before the birth: what the process does on its way to the program is in its CPU time, too.
    let began = Instant::now();
    let leader = match start(
        init.single,
        &order,
        init.stdio,
        init.cgroup,
        init.surroundings,
    )? {
        Ok(leader) => leader,
        Err(report) => return say(&mut reports, &report),
    };
    say(&mut reports, &Report::Started(leader))?;
    let tree = Tree {
        main: leader,
        everybody: if ground.has(Namespaces::PID) {
            Pid::from_raw(-1)
        } else {
            Pid::from_raw(-i32::try_from(leader).map_err(io::Error::other)?)
        },
    };
    let (main, processes_at_end) = tree.watch(&children, &mut orders)?;
    let (usage, wall) = (wait::usage_of_reaped()?, began.elapsed());
    if ground.has(Namespaces::IPC | Namespaces::MOUNT) {
        remove_message_queues();
    }
    say(
        &mut reports,
        &Report::Ended(TreeEnd {
            main,
            wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
            user_us: u64::try_from(usage.user.as_micros()).unwrap_or(u64::MAX),
            system_us: u64::try_from(usage.system.as_micros()).unwrap_or(u64::MAX),
            resident_max_bytes: usage.resident_max_bytes,
            processes_at_end,
        }),
    )
}

fn say(reports: &mut File, report: &Report) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame::push(report, &mut bytes).map_err(io::Error::other)?;
    reports.write_all(&bytes)
}

/// An error and what it came from, in one line.
pub(crate) fn with_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// The orders of the worker.
struct Orders {
    pipe: File,
    decoder: Decoder,
}

impl Orders {
    /// Waits for the next order; `None` when the worker has none any more.
    fn wait(&mut self) -> io::Result<Option<Order>> {
        let mut buffer = [0u8; 4096];
        loop {
            if let Some(order) = self.decoder.message().map_err(io::Error::other)? {
                return Ok(Some(order));
            }
            match self.pipe.read(&mut buffer)? {
                0 => return Ok(None),
                len => self.decoder.extend(buffer.get(..len).unwrap_or_default()),
            }
        }
    }
}

/// Forks the job's process and waits until it has become the job's program; its pid.
///
/// What makes it fail is a report, once the process is gone.
fn start(
    single: SingleThreaded,
    order: &Launch,
    stdio: [OwnedFd; 3],
    cgroup: Option<OwnedFd>,
    surroundings: &Surroundings,
) -> io::Result<Result<u32, Report>> {
    let domain = match surroundings.second_wall.prepare() {
        Ok(domain) => domain,
        Err(error) => {
            return Ok(Err(Report::Failed(format!(
                "failed to {}",
                with_source(&error)
            ))));
        }
    };
    let (failures, failure) = io::pipe()?;
    let cgroup_fd = cgroup.as_ref().map(|fd| fd.as_fd());
    // The closure owns the writing end, and is gone when `fork` returns: end of file means that the child
    // has exec'd.
    let child = single.fork(Namespaces::NONE, cgroup_fd, || {
        launch::become_the_job(order, &stdio, failure, domain, surroundings)
    })?;
    // The pipes of the job are the job's alone.
    drop((stdio, cgroup));
    let Some(failure) = Failure::read(failures, &surroundings.lockdown)? else {
        return Ok(Ok(child.pid));
    };
    while wait::reap(Patience::Wait)? != Children::None {}
    Ok(Err(match failure {
        Failure::Lockdown { text } => Report::Failed(text),
        Failure::Exec { errno, lacks } => Report::NotExecuted { errno, lacks },
    }))
}

/// A job's processes.
struct Tree {
    /// The pid of the first.
    main: u32,
    /// What a signal is sent to that is for all of them: -1, which spares pid 1 (kill(2)), or their group.
    everybody: Pid,
}

impl Tree {
    /// Watches over it until its first process has ended or an order says so, then ends all of it; how it
    /// ended, and how many processes were there then.
    fn watch(&self, children: &SignalFd, orders: &mut Orders) -> io::Result<(MainEnd, u32)> {
        loop {
            if let Some(exit) = self.reap_until_main()? {
                let others = self.end_all()?;
                return Ok((exit.into(), others.saturating_add(1)));
            }
            let mut watched = [
                PollFd::new(children.as_fd(), PollFlags::POLLIN),
                PollFd::new(orders.pipe.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let [child_ended, ordered] = watched.map(|fd| fd.any().unwrap_or(true));
            if child_ended {
                // Only the wake-up matters; several children may stand behind one signal.
                while children.read_signal()?.is_some() {}
            }
            if ordered {
                match orders.wait()? {
                    Some(Order::Terminate) => self.signal(Signal::SIGTERM)?,
                    Some(Order::Kill | Order::Launch(_)) | None => {
                        // The first process may have ended between the poll and now: then that is how the job ended.
                        let exit = self.reap_until_main()?;
                        let ended = exit.map_or(MainEnd::Killed, MainEnd::from);
                        let others = self.end_all()?;
                        return Ok((ended, others.saturating_add(u32::from(exit.is_some()))));
                    }
                }
            }
        }
    }

    /// Reaps all that have ended; how the first process ended, if it was among them.
    fn reap_until_main(&self) -> io::Result<Option<Exit>> {
        loop {
            match wait::reap(Patience::Poll)? {
                Children::Reaped(reaped) if reaped.pid == self.main => {
                    return Ok(Some(reaped.exit));
                }
                Children::Reaped(_) => {}
                Children::Alive | Children::None => return Ok(None),
            }
        }
    }

    /// Kills all, and reaps to the last: so many.
    fn end_all(&self) -> io::Result<u32> {
        self.signal(Signal::SIGKILL)?;
        let mut reaped = 0u32;
        while wait::reap(Patience::Wait)? != Children::None {
            reaped = reaped.saturating_add(1);
        }
        Ok(reaped)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match kill(self.everybody, signal) {
            // ESRCH: there is none.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Removes what message queues the job has left. They would go with their namespace, but the kernel dismantles one some
/// milliseconds after its last process (`free_ipc` waits for a grace period), and until then they count against the user
/// (`RLIMIT_MSGQUEUE`): the next job would find no room (EMFILE).
///
/// What cannot be removed goes with its namespace all the same: no reason to call the job lost.
fn remove_message_queues() {
    for queue in fs::read_dir(MESSAGE_QUEUES).into_iter().flatten().flatten() {
        drop(fs::remove_file(queue.path()));
    }
}

impl From<Exit> for MainEnd {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Exited(code),
            Exit::Signal(signal) => Self::Signaled(signal),
        }
    }
}
