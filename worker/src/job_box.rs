//! A box: a job's own files, its init, and the pipes between it and the worker.
//!
//! # Invariants
//!
//! - The worker keeps no end of a pipe that the job has the other sense of: end of file means that the
//!   job's tree is dead.
//! - Files are laid and collected through the descriptor of the job's tmpfs, never by a path through a
//!   root that the job could have arranged.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::process::geteuid;
use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::outcome::MeasuredBy;
use wpool_protocol::wire::{Ending, JobOrder, RunUsage, Stdio, Stream};
use wpool_sys::namespaces::Namespaces;
use wpool_sys::wait::ResourceUsage;

use crate::apply::{Detached, new_files};
use crate::capture::{BUFFER_LEN, Capture, Store};
use crate::cgroup::JobCgroup;
use crate::dialogue::{Launch, TreeEnd};
use crate::feed::Feed;
use crate::init::{self, Init};
use crate::lay::{InputFile, InputFiles, LayError, Owner};
use crate::run::{Held, Parts, Run, Verdict};
use crate::slot::Slot;
use crate::usage::proc::TreeReader;
use crate::usage::verdict::Account;
use crate::usage::{Remains, Watch};

/// How long the cgroup of a dead tree may take to be empty: its zombies are reaped already.
const CGROUP_PATIENCE: Duration = Duration::from_secs(1);

/// A job's box.
#[derive(Debug)]
pub(crate) struct JobBox {
    /// What happens in it.
    pub(crate) run: Run,
    /// The job's cgroup, where controllers are delegated.
    cgroup: Option<JobCgroup>,
    /// `/box`, held through the job's tmpfs, not through a path.
    pub(crate) directory: OwnedFd,
    /// Who owns what is laid there.
    owner: Option<Owner>,
    /// Variables that are told otherwise than to everybody.
    variables: Vec<(&'static str, &'static str, String)>,
    /// The input that is being laid.
    laying: Option<InputFile>,
    /// Inputs begun so far.
    begun: usize,
    /// How many cores it can use at once.
    cores: u16,
    meter: Meter,
}

/// What looks at a job's processes.
#[derive(Debug)]
enum Meter {
    /// The program has not begun.
    Ready(Box<TreeReader>),
    /// It has.
    Watching(Watch),
    /// It cannot be watched: why.
    Broken(String),
    /// The tree is dead; what is known of it.
    Done(Box<Account>),
}

/// Our ends of a job's pipes.
#[derive(Debug)]
struct Ours {
    orders: OwnedFd,
    reports: OwnedFd,
    stdin: Option<Feed>,
    captures: Vec<Capture>,
}

/// The other ends: the init's, and the job's own.
#[derive(Debug)]
struct Theirs {
    orders: OwnedFd,
    reports: OwnedFd,
    stdio: [OwnedFd; 3],
}

/// Opens a box for the job of `order`: its init builds while inputs come in.
pub(crate) fn open(slot: &Slot, store: &Store, order: &JobOrder) -> io::Result<JobBox> {
    let limits = order.limits;
    let steps = slot
        .job_plans
        .get(usize::from(order.profile))
        .ok_or_else(|| io::Error::other("no such profile"))?;
    let files = Files::make(slot, &limits)?;
    let detached = Detached {
        mounts: Vec::new(),
        files: files.mount.as_ref().map(OwnedFd::try_clone).transpose()?,
    };
    let (ours, theirs) = pipes(slot, store, order)?;
    let (mut ours, mut theirs) = (Some(ours), Some(theirs));
    // The closure runs in the fork, on copies: what it takes there is still here afterwards.
    let cgroup = new_cgroup(slot, order)?;
    let born_into = cgroup
        .as_ref()
        .map(|job| job.directory().try_clone_to_owned());
    let mut born_into = born_into.transpose()?;
    let init = slot.single.fork(slot.namespaces, None, || {
        // While a writing end of a pipe is open here, nobody would see its end.
        drop(ours.take());
        let Some(theirs) = theirs.take() else {
            return 1;
        };
        init::run(Init {
            single: slot.single,
            orders: theirs.orders,
            reports: theirs.reports,
            stdio: theirs.stdio,
            cgroup: born_into.take(),
            steps,
            detached: &detached,
            surroundings: &slot.surroundings,
        })
    })?;
    drop(theirs.take());
    let ours = ours.ok_or_else(|| io::Error::other("the box has no pipes"))?;
    Ok(JobBox {
        meter: Meter::Ready(Box::new(tree_reader(slot, init.pid, &files)?)),
        cgroup,
        owner: slot.owner().map(|id| Owner { uid: id, gid: id }),
        variables: files.variables,
        directory: files.directory,
        laying: None,
        begun: 0,
        cores: slot.surroundings.cores_of(limits.cpus),
        run: Run::new(Parts {
            attempt: order.attempt,
            limits,
            init,
            orders: ours.orders,
            reports: ours.reports,
            stdin: ours.stdin,
            captures: ours.captures,
            held: Held::on(&slot.surroundings.ground),
        }),
    })
}

/// The pipes of a box, whose ends are ours or its.
fn pipes(slot: &Slot, store: &Store, order: &JobOrder) -> io::Result<(Ours, Theirs)> {
    let (descriptors, stdin, captures) = match order.stdio {
        Stdio::Captured { .. } => captured(slot, store, order.limits.output_bytes.0)?,
        Stdio::Inherited => inherited(slot)?,
    };
    let (orders_read, orders) = io::pipe()?;
    let (reports, reports_write) = io::pipe()?;
    let ours = Ours {
        orders: orders.into(),
        reports: reports.into(),
        stdin,
        captures,
    };
    let theirs = Theirs {
        orders: orders_read.into(),
        reports: reports_write.into(),
        stdio: descriptors,
    };
    Ok((ours, theirs))
}

/// What looks at the processes of the job with this init.
fn tree_reader(slot: &Slot, init: u32, files: &Files) -> io::Result<TreeReader> {
    let proc = slot.proc.as_fd();
    let ground = &slot.surroundings.ground;
    let disk = files.mount.as_ref().map(|it| it.as_fd());
    let reader = if !ground.has(Namespaces::PID) {
        TreeReader::of_session(proc, init, disk)
    } else if !ground.has(Namespaces::NET) {
        TreeReader::without_sockets(proc, init, disk)
    } else {
        TreeReader::new(proc, init, disk)
    };
    reader.map_err(io::Error::other)
}

/// A job's own files.
struct Files {
    /// Their file system, attached nowhere yet, if they have one of their own.
    mount: Option<OwnedFd>,
    /// `/box`, or what stands in for it.
    directory: OwnedFd,
    /// What is told to the job in variables, where it is not what everybody is told.
    variables: Vec<(&'static str, &'static str, String)>,
}

impl Files {
    fn make(slot: &Slot, limits: &Limits) -> io::Result<Self> {
        let Some(boxes) = &mut *slot.directory.borrow_mut() else {
            let id = slot.owner().unwrap_or_else(|| geteuid().as_raw());
            let mount = new_files(limits.disk_bytes.0, limits.inodes(), id)?;
            return Ok(Self {
                directory: open_beneath(&mount, "box")?,
                mount: Some(mount),
                variables: Vec::new(),
            });
        };
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Ok(Self {
            mount: None,
            directory: boxes.make(slot.owner())?,
            variables: vec![
                ("HOME", "/box", text(boxes.box_path())),
                ("TMPDIR", "/tmp", text(boxes.tmp_path())),
            ],
        })
    }
}

/// The cgroup of a job, with its limits.
fn new_cgroup(slot: &Slot, order: &JobOrder) -> io::Result<Option<JobCgroup>> {
    let Some(cgroup) = &slot.cgroup else {
        return Ok(None);
    };
    let number = slot.jobs.get() + 1;
    slot.jobs.set(number);
    let job = cgroup.make(number).map_err(io::Error::other)?;
    // The init is in its worker's cgroup: a job that runs out of memory takes nobody with it.
    job.limit(&order.limits, 0).map_err(io::Error::other)?;
    Ok(Some(job))
}

/// A directory of the job's tmpfs, before the job could put something else there.
fn open_beneath(files: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(
        files,
        name,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

type JobPipes = ([OwnedFd; 3], Option<Feed>, Vec<Capture>);

/// Pipes whose other ends are ours.
fn captured(slot: &Slot, store: &Store, output_bytes: u64) -> io::Result<JobPipes> {
    let nonblocking = |fd: OwnedFd| {
        rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK)?;
        Ok::<_, io::Error>(File::from(fd))
    };
    let output = |stream| {
        let (reader, writer) = io::pipe()?;
        match rustix::pipe::fcntl_setpipe_size(&reader, BUFFER_LEN) {
            // Fewer wake-ups; where the user's quota is used up (EPERM), the pipe stays as it is.
            Ok(_) | Err(rustix::io::Errno::PERM | rustix::io::Errno::BUSY) => {}
            Err(error) => return Err(error.into()),
        }
        let capture = Capture::new(nonblocking(reader.into())?, stream, store, output_bytes);
        Ok::<_, io::Error>((OwnedFd::from(writer), capture))
    };
    let (input, feed) = io::pipe()?;
    let (stdout, capture_stdout) = output(Stream::Stdout)?;
    let (stderr, capture_stderr) = output(Stream::Stderr)?;
    let theirs = [input.into(), stdout, stderr];
    if let Some(id) = slot.owner() {
        for end in &theirs {
            // A pipe belongs to who made it, and a program that opens /dev/stdout opens it anew.
            let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
            rustix::fs::fchown(end, Some(uid), Some(gid))?;
        }
    }
    Ok((
        theirs,
        Some(Feed::new(nonblocking(feed.into())?, Vec::new())),
        vec![capture_stdout, capture_stderr],
    ))
}

/// The descriptors that the worker was born with for its only job.
fn inherited(slot: &Slot) -> io::Result<JobPipes> {
    let stdio = slot
        .stdio
        .borrow_mut()
        .take()
        .ok_or_else(|| io::Error::other("no descriptors to inherit"))?;
    Ok((stdio, None, Vec::new()))
}

impl JobBox {
    /// More bytes of the job's standard input.
    pub(crate) fn feed_more(&mut self, bytes: &[u8]) {
        if let Some(feed) = &mut self.run.stdin {
            feed.extend(bytes);
        }
    }

    /// More bytes of the input with this index; inputs come in order.
    pub(crate) fn lay_bytes(
        &mut self,
        order: &JobOrder,
        index: u16,
        bytes: &[u8],
    ) -> Result<(), Ending> {
        self.lay_until(order, usize::from(index) + 1)?;
        match &mut self.laying {
            Some(file) => file.write(bytes).map_err(|error| not_laid(order, &error)),
            None => Err(not_announced()),
        }
    }

    /// Finishes the input that is being laid and begins all up to the `until`-th.
    fn lay_until(&mut self, order: &JobOrder, until: usize) -> Result<(), Ending> {
        while self.begun < until {
            self.finish_laying(order)?;
            let header = order.inputs.get(self.begun).ok_or_else(not_announced)?;
            let inputs = InputFiles::new(self.directory.as_fd(), self.owner);
            self.laying = Some(
                inputs
                    .begin(header)
                    .map_err(|error| not_laid(order, &error))?,
            );
            self.begun += 1;
        }
        Ok(())
    }

    fn finish_laying(&mut self, order: &JobOrder) -> Result<(), Ending> {
        match self.laying.take() {
            Some(file) => file.finish().map_err(|error| not_laid(order, &error)),
            None => Ok(()),
        }
    }

    /// All inputs are there: tells the init to launch.
    pub(crate) fn start(&mut self, order: &JobOrder) -> Result<(), Ending> {
        self.lay_until(order, order.inputs.len())?;
        self.finish_laying(order)?;
        let mut env = order.env.clone();
        for (name, usual, here) in &self.variables {
            let told = env
                .iter_mut()
                .find(|(of, value)| of == name && value == usual);
            if let Some((_, value)) = told {
                value.clone_from(here);
            }
        }
        let launch = Launch {
            argv: order.argv.clone(),
            env,
            limits: order.limits,
        };
        self.run.start(launch).map_err(|error| Ending::BoxFailed {
            reason: format!("failed to tell the init of the job: {error}"),
        })
    }

    /// The program has begun.
    pub(crate) fn watch_from(&mut self, now: Instant) {
        let nothing = Meter::Done(Box::new(nothing_known()));
        self.meter = match mem::replace(&mut self.meter, nothing) {
            Meter::Ready(tree) => self.watch(*tree, now),
            other @ (Meter::Watching(_) | Meter::Broken(_) | Meter::Done(_)) => other,
        };
    }

    fn watch(&self, tree: TreeReader, now: Instant) -> Meter {
        let limits = &self.run.limits;
        let watch = match &self.cgroup {
            None => Ok(Watch::sampling(tree, limits, self.cores, now)),
            Some(job) => job
                .meter()
                .and_then(|meter| Watch::cgroup(meter, tree, limits, self.cores, now)),
        };
        watch.map_or_else(
            |error| Meter::Broken(init::with_source(&error)),
            Meter::Watching,
        )
    }

    /// Looks at the job's processes, if it is time for that. A job that cannot be watched is ended.
    pub(crate) fn look(&mut self, now: Instant) -> io::Result<()> {
        if let Some(tree) = self.run.tree() {
            self.measure(tree);
            return Ok(());
        }
        if !self.run.is_running() {
            return Ok(());
        }
        let watch = match &mut self.meter {
            Meter::Watching(watch) => watch,
            Meter::Broken(reason) => {
                let reason = reason.clone();
                return self.run.fail(reason, now);
            }
            Meter::Ready(_) | Meter::Done(_) => return Ok(()),
        };
        if let Some(grace) = self.run.grace() {
            watch.grant(grace);
        }
        match watch.look(self.run.deadline()) {
            Ok(None) => Ok(()),
            Ok(Some(excess)) => {
                let verdict = Verdict::Limit(excess.limit, excess.peak, excess.at);
                self.run.end(verdict, now)
            }
            Err(error) => self.run.fail(init::with_source(&error), now),
        }
    }

    /// Closes the account when the tree is dead.
    fn measure(&mut self, tree: TreeEnd) {
        let nothing = Meter::Done(Box::new(nothing_known()));
        self.meter = match mem::replace(&mut self.meter, nothing) {
            Meter::Watching(watch) => {
                let remains = Remains {
                    wall: Duration::from_micros(tree.wall_us),
                    reaped: ResourceUsage {
                        user: Duration::from_micros(tree.user_us),
                        system: Duration::from_micros(tree.system_us),
                        resident_max_bytes: tree.resident_max_bytes,
                    },
                    processes: tree.processes_at_end,
                };
                Meter::Done(Box::new(
                    watch.finish(remains).unwrap_or_else(|_| nothing_known()),
                ))
            }
            other @ (Meter::Ready(_) | Meter::Broken(_) | Meter::Done(_)) => other,
        };
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let look = match &self.meter {
            Meter::Watching(watch) if self.run.is_running() => Some(watch.deadline()),
            Meter::Ready(_) | Meter::Watching(_) | Meter::Broken(_) | Meter::Done(_) => None,
        };
        [look, self.run.deadline()].into_iter().flatten().min()
    }

    /// What the job used, once it is over.
    ///
    /// Its cgroup goes with it; one that does not go is the next worker's to remove.
    pub(crate) fn account(self) -> Account {
        if let Some(job) = self.cgroup {
            let deadline = Instant::now() + CGROUP_PATIENCE;
            match job.wait_until_empty(deadline).and_then(|()| job.remove()) {
                Ok(()) | Err(_) => {}
            }
        }
        match self.meter {
            Meter::Done(account) => *account,
            Meter::Ready(_) | Meter::Watching(_) | Meter::Broken(_) => nothing_known(),
        }
    }
}

/// The account of a job that never ran, or whose init was lost with what it knew.
pub(crate) const fn nothing_known() -> Account {
    Account {
        usage: RunUsage {
            wall_us: 0,
            cpu_user_us: 0,
            cpu_system_us: 0,
            memory_peak_bytes: 0,
            processes_peak: 0,
            measured_by: MeasuredBy::Rusage,
        },
        limits_hit: Vec::new(),
        excess: None,
    }
}

/// Bytes came for an input that the order does not name.
fn not_announced() -> Ending {
    Ending::BoxFailed {
        reason: "bytes came for an input that was not announced".to_owned(),
    }
}

/// Why an input is not there: the job's own limits and names, or a fault of ours.
fn not_laid(order: &JobOrder, error: &LayError) -> Ending {
    match error {
        LayError::NoSpace { .. } => Ending::Limit {
            limit: LimitName::Disk,
            peak: order.inputs.iter().map(|input| input.size).sum(),
            at_ms: 0,
        },
        LayError::InTheWay { .. } | LayError::Size { .. } | LayError::Call { .. } => {
            Ending::BoxFailed {
                reason: init::with_source(error),
            }
        }
    }
}
