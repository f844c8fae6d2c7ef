//! The life of a worker: greet, build the slot's sandbox, run one job after the other.
//!
//! One thread and one `poll`: the pipes to and from the supervisor, the init's reports, the job's streams,
//! and a deadline. Writing to the supervisor blocks, which is sound: it always reads.
//!
//! # Invariants
//!
//! - When the supervisor is gone (end of file), this process exits, and the kernel ends everything in it.
//! - A job's outcome is told when its tree is dead; its namespaces are dismantled behind that.
//! - Nothing of a job stays: its files, pipes and init are dropped before the next job is taken.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wpool_protocol::frame::{self, Decoder};
use wpool_protocol::wire::{FromWorker, Hello, Setup, ToWorker};
use wpool_sys::clone3::SingleThreaded;
use wpool_sys::descriptor::take_inherited;
use wpool_sys::wait::{self, Patience};

use crate::blueprint::Alteration;
use crate::capture::{BUFFER_LEN, Store};
use crate::desk::Desk;
use crate::slot::Slot;

/// Where the supervisor's commands come in.
pub const COMMANDS: u32 = 3;
/// Where replies go out.
pub const REPLIES: u32 = 4;
/// The output store.
pub const STORE: u32 = 5;
/// Bytes that a pipe holds where nobody has asked for more (pipe(7)).
const PIPE_LEN: usize = 64 << 10;

/// What is said together, bytes: half of what such a pipe holds.
const TOGETHER_LEN: usize = PIPE_LEN / 2;

/// The first descriptor that [`Setup`] may name.
pub const FIRST_NAMED: u32 = 6;

/// Runs a worker to its end: the whole of `wpool worker`.
///
/// The process must have been born by a supervisor; started by hand it says so and exits.
pub fn main() -> ExitCode {
    main_altered(|whole| whole)
}

/// The same with another sandbox: for tests, which take layers away.
pub fn main_altered(alteration: Alteration) -> ExitCode {
    let descriptors = (|| {
        Ok::<_, io::Error>((
            take_inherited(COMMANDS)?,
            take_inherited(REPLIES)?,
            take_inherited(STORE)?,
        ))
    })();
    let Ok((commands, replies, store)) = descriptors else {
        return ExitCode::from(2);
    };
    let mut link = Link {
        commands: File::from(commands),
        decoder: Decoder::default(),
        replies: File::from(replies),
        outgoing: Vec::new(),
        later: VecDeque::new(),
        buffer: vec![0; PIPE_LEN],
    };
    match live(&mut link, File::from(store), alteration) {
        Ok(()) => ExitCode::SUCCESS,
        // The supervisor sees the exit, and what can be told has been told by `Refused`.
        Err(_) => ExitCode::FAILURE,
    }
}

fn live(link: &mut Link, store: File, alteration: Alteration) -> io::Result<()> {
    let single = SingleThreaded::verify()?;
    // Modes of what the plan makes are exact; a job has a mask of its own.
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    link.say(&FromWorker::Hello(Hello::ours()))?;
    let Some(setup) = greet(link)? else {
        return Ok(());
    };
    let store = Store::new(store, setup.store);
    let slot = match Slot::build(single, setup, alteration) {
        Ok(slot) => slot,
        Err(refused) => return link.say(&FromWorker::Refused(refused)),
    };
    link.say(&FromWorker::Ready(slot.ready()))?;
    Worker {
        link,
        desk: Desk::new(slot, store),
        buffer: vec![0; BUFFER_LEN],
        dying: Vec::new(),
        retiring: false,
    }
    .work()
}

/// Hears the supervisor out until it has said how to build; `None` if it is gone.
fn greet(link: &mut Link) -> io::Result<Option<Setup>> {
    loop {
        match link.hear()? {
            None => return Ok(None),
            Some(ToWorker::Hello(hello)) => hello.check().map_err(io::Error::other)?,
            Some(ToWorker::Setup(setup)) => return Ok(Some(*setup)),
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The pipes to and from the supervisor.
#[derive(Debug)]
pub(crate) struct Link {
    commands: File,
    decoder: Decoder,
    replies: File,
    /// What is to be said, and has not been.
    outgoing: Vec<u8>,
    /// What came while nobody could obey it.
    later: VecDeque<ToWorker>,
    /// What one read may bring: what a pipe holds.
    buffer: Vec<u8>,
}

impl Link {
    /// Says something, after all that was to be said.
    pub(crate) fn say(&mut self, message: &FromWorker) -> io::Result<()> {
        frame::push(message, &mut self.outgoing).map_err(io::Error::other)?;
        self.flush()
    }

    /// Says something as one of many: together with others, since each time that the supervisor is woken costs both a turn on a busy
    /// machine. Whoever asks meanwhile whether this worker is there is answered.
    pub(crate) fn say_with_others(&mut self, message: &FromWorker) -> io::Result<()> {
        frame::push(message, &mut self.outgoing).map_err(io::Error::other)?;
        if self.outgoing.len() < TOGETHER_LEN {
            return Ok(());
        }
        self.flush()?;
        self.answer_pings()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.replies.write_all(&self.outgoing)?;
        self.outgoing.clear();
        Ok(())
    }

    /// Answers pings that have come; what else has come is for later.
    fn answer_pings(&mut self) -> io::Result<()> {
        loop {
            let mut commands = [PollFd::new(self.commands.as_fd(), PollFlags::POLLIN)];
            match poll(&mut commands, PollTimeout::ZERO) {
                Ok(0) | Err(Errno::EINTR) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            if !self.receive()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while let Some(command) = self.decoder.message().map_err(io::Error::other)? {
                match command {
                    ToWorker::Ping(number) => self.say(&FromWorker::Pong(number))?,
                    other => self.later.push_back(other),
                }
            }
        }
    }

    /// The next command that has come.
    fn command(&mut self) -> io::Result<Option<ToWorker>> {
        match self.later.pop_front() {
            Some(command) => Ok(Some(command)),
            None => self.decoder.message().map_err(io::Error::other),
        }
    }

    /// Waits for the next command; `None` if the supervisor is gone.
    fn hear(&mut self) -> io::Result<Option<ToWorker>> {
        loop {
            if let Some(command) = self.decoder.message().map_err(io::Error::other)? {
                return Ok(Some(command));
            }
            if !self.receive()? {
                return Ok(None);
            }
        }
    }

    /// Reads once; whether anything came.
    fn receive(&mut self) -> io::Result<bool> {
        let len = self.commands.read(&mut self.buffer)?;
        self.decoder
            .extend(self.buffer.get(..len).unwrap_or_default());
        Ok(len > 0)
    }
}

/// A worker that is ready.
struct Worker<'a> {
    link: &'a mut Link,
    desk: Desk,
    buffer: Vec<u8>,
    /// Inits of past jobs whose namespaces the kernel still dismantles.
    dying: Vec<OwnedFd>,
    retiring: bool,
}

/// What a descriptor is polled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Commands,
    Dying,
    Job,
}

impl Worker<'_> {
    fn work(mut self) -> io::Result<()> {
        loop {
            let woken = self.wait()?;
            let now = Instant::now();
            if woken.contains(&Source::Dying) {
                self.bury()?;
            }
            if woken.contains(&Source::Commands) && !self.link.receive()? {
                return Ok(());
            }
            self.obey(now)?;
            if let Some(init) = self.desk.advance(self.link, &mut self.buffer, now)? {
                self.dying.push(init);
                // What has come while the job's outputs were brought out.
                self.obey(now)?;
            }
            if self.retiring && self.desk.is_idle() {
                return Ok(());
            }
        }
    }

    /// Does what has been said.
    fn obey(&mut self, now: Instant) -> io::Result<()> {
        while let Some(command) = self.link.command()? {
            match command {
                ToWorker::Retire => self.retiring = true,
                ToWorker::Ping(number) => self.link.say(&FromWorker::Pong(number))?,
                command => self.desk.obey(command, now)?,
            }
        }
        Ok(())
    }

    /// Waits until there is something to do, and says where.
    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut watched = vec![(
            Source::Commands,
            PollFd::new(self.link.commands.as_fd(), PollFlags::POLLIN),
        )];
        let dying = self.dying.iter();
        watched.extend(
            dying.map(|pidfd| (Source::Dying, PollFd::new(pidfd.as_fd(), PollFlags::POLLIN))),
        );
        let job = self.desk.watched();
        watched.extend(
            job.into_iter()
                .map(|(fd, flags)| (Source::Job, PollFd::new(fd, flags))),
        );
        let timeout = self
            .desk
            .deadline()
            .map_or(PollTimeout::NONE, timeout_until);
        let (sources, mut polled): (Vec<_>, Vec<_>) = watched.into_iter().unzip();
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(sources
            .into_iter()
            .zip(polled)
            .filter(|(_, fd)| fd.any().unwrap_or(true))
            .map(|(source, _)| source)
            .collect())
    }

    /// Reaps the inits whose namespaces are gone.
    fn bury(&mut self) -> io::Result<()> {
        while let wait::Children::Reaped(_) = wait::reap(Patience::Poll)? {}
        // A pidfd stays readable: each is asked once more whether its process is still there.
        self.dying.retain(|pidfd| {
            rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).is_ok()
        });
        Ok(())
    }
}

/// The time until `deadline`, rounded up to poll's milliseconds: woken early, a loop would spin.
fn timeout_until(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now());
    let millis = left.as_micros().div_ceil(1_000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

/// A descriptor of a job, and what to poll it for.
pub(crate) type Watched<'a> = (BorrowedFd<'a>, PollFlags);
