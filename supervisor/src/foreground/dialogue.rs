//! What is said between a run in the foreground and its worker, one poll at a time.
//!
//! # Invariants
//!
//! - Neither side waits for the other while its own pipe is full: whoever may write and whoever may read is
//!   asked together.
//! - A message that the table of [`wpool_protocol::phase`] does not permit ends the dialogue.
//! - What the worker has said is heard before it is called late, however long this process was stopped (^Z).

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use wpool_protocol::codec::EncodeError;
use wpool_protocol::frame::{self, Decoder, ReceiveError};
use wpool_protocol::phase::Phase;
use wpool_protocol::wire::{FromWorker, Hello, HelloError, Ready, Refused, ToWorker};

use super::interruption::Interruptions;
use super::worker::Worker;

/// How long a worker may take from birth to ready.
const READY_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of one read: what a pipe holds.
const READ_LEN: usize = 64 << 10;

/// A worker that is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum DialogueError {
    /// It brings out what it may not.
    #[error(transparent)]
    Outputs(#[from] crate::gather::GatherError),
    /// It closed its pipe: it is dead.
    #[error("it died")]
    Died,
    /// It said nothing for too long.
    #[error("it did not report in time")]
    Late,
    /// It sent something that is no message.
    #[error("it sent something that is no message")]
    Garbled(#[from] ReceiveError),
    /// It is another wpool.
    #[error(transparent)]
    Stranger(#[from] HelloError),
    /// It sent a message that it may not send now.
    #[error("it sent a message that it was not asked for")]
    Unasked,
    /// It cannot be spoken to.
    #[error("failed to speak with it")]
    Io(#[from] io::Error),
    /// A message to it is too long.
    #[error("failed to tell it the job")]
    Encode(#[from] EncodeError),
}

impl From<Errno> for DialogueError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The worker said something.
    Said(FromWorker),
    /// The user interrupted.
    Interrupted,
}

/// The dialogue with one worker.
pub struct Dialogue<'a> {
    worker: &'a mut Worker,
    phase: Phase,
    decoder: Decoder,
    /// Bytes that are to be written next, and how many of them are.
    outgoing: Vec<u8>,
    written: usize,
    /// Whether the worker takes no more.
    is_deaf: bool,
    /// Messages that follow them; made when there is room, so that a job's files are not all encoded at once.
    script: Box<dyn Iterator<Item = ToWorker>>,
}

impl std::fmt::Debug for Dialogue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialogue")
            .field("worker", &self.worker)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl<'a> Dialogue<'a> {
    /// The dialogue with a worker to which nothing has been said.
    ///
    /// # Errors
    ///
    /// [`DialogueError::Io`] if its pipes are no pipes.
    pub fn new(worker: &'a mut Worker) -> Result<Self, DialogueError> {
        for end in [&worker.commands, &worker.replies] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(Self {
            phase: Phase::Greeting,
            ..Self::with_ready(worker)
        })
    }

    /// The dialogue with a worker that has been greeted and is ready.
    pub fn with_ready(worker: &'a mut Worker) -> Self {
        Self {
            worker,
            phase: Phase::Idle,
            decoder: Decoder::of_replies(),
            outgoing: Vec::new(),
            written: 0,
            is_deaf: false,
            script: Box::new(std::iter::empty()),
        }
    }

    /// Says who we are and what to build, and hears what stands.
    ///
    /// # Errors
    ///
    /// [`DialogueError`] if the worker says neither that it is ready nor why it is not.
    pub fn greet(&mut self) -> Result<Result<Ready, Refused>, DialogueError> {
        let deadline = Instant::now() + READY_PATIENCE;
        self.send(&ToWorker::Hello(Hello::ours()))?;
        let setup = self.worker.setup.clone();
        self.send(&ToWorker::Setup(Box::new(setup)))?;
        loop {
            match self.next(deadline, None)? {
                Event::Said(FromWorker::Hello(hello)) => hello.check()?,
                Event::Said(FromWorker::Ready(ready)) => return Ok(Ok(ready)),
                Event::Said(FromWorker::Refused(refused)) => return Ok(Err(refused)),
                Event::Said(_) | Event::Interrupted => return Err(DialogueError::Unasked),
            }
        }
    }

    /// Says one message, before all that `send_all` still has to say.
    ///
    /// # Errors
    ///
    /// [`DialogueError::Encode`] if the message is longer than any may be.
    pub fn send(&mut self, message: &ToWorker) -> Result<(), DialogueError> {
        Ok(frame::push(message, &mut self.outgoing)?)
    }

    /// Says the messages that make up a job, as the worker takes them.
    pub fn send_all(&mut self, messages: impl Iterator<Item = ToWorker> + 'static) {
        self.script = Box::new(messages);
        // The supervisor alone moves a worker from Idle to Loading, by sending a job.
        self.phase = Phase::Loading;
    }

    /// Says one message after all that `send_all` still has to say: a worker knows of no job before its order.
    pub fn send_last(&mut self, message: ToWorker) {
        let script = std::mem::replace(&mut self.script, Box::new(std::iter::empty()));
        self.script = Box::new(script.chain(std::iter::once(message)));
    }

    /// What happens next.
    ///
    /// # Errors
    ///
    /// [`DialogueError`] if the worker dies, is late or says what it may not.
    pub fn next(
        &mut self,
        deadline: Instant,
        mut interruptions: Option<&mut Interruptions>,
    ) -> Result<Event, DialogueError> {
        loop {
            if let Some(message) = self.decoder.message::<FromWorker>()? {
                self.phase = self
                    .phase
                    .after(message.kind())
                    .ok_or(DialogueError::Unasked)?;
                return Ok(Event::Said(message));
            }
            self.refill()?;
            let [replies, commands, heard] = self.wait(deadline, interruptions.as_deref())?;
            if !heard.is_empty() && interruptions.as_mut().is_some_and(|heard| heard.take()) {
                return Ok(Event::Interrupted);
            }
            if !replies.is_empty() {
                self.read()?;
            }
            if !commands.is_empty() {
                self.write()?;
            }
            if (replies | commands | heard).is_empty() && Instant::now() >= deadline {
                return Err(DialogueError::Late);
            }
        }
    }

    /// Tells the worker to exit, and waits a little for it; whether it does, or says something more, is not asked.
    pub fn retire(&mut self, patience: Duration) {
        if self.send(&ToWorker::Retire).is_ok() {
            drop(self.next(Instant::now() + patience, None));
        }
    }

    /// Encodes the next message of the script once everything before it has been written.
    fn refill(&mut self) -> Result<(), DialogueError> {
        if self.written < self.outgoing.len() {
            return Ok(());
        }
        self.outgoing.clear();
        self.written = 0;
        if !self.is_deaf
            && let Some(message) = self.script.next()
        {
            frame::push(&message, &mut self.outgoing)?;
        }
        Ok(())
    }

    /// What may be done without waiting: of replies, commands and interruptions.
    fn wait(
        &self,
        deadline: Instant,
        interruptions: Option<&Interruptions>,
    ) -> Result<[PollFlags; 3], DialogueError> {
        // What is not asked about is left out: a closed pipe is always ready, and would make this loop spin.
        let mut fds = vec![PollFd::new(&self.worker.replies, PollFlags::IN)];
        let writing = self.written < self.outgoing.len();
        if writing {
            fds.push(PollFd::new(&self.worker.commands, PollFlags::OUT));
        }
        if let Some(interruptions) = interruptions {
            fds.push(PollFd::new(interruptions, PollFlags::IN));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        });
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok([PollFlags::empty(); 3]),
            Err(errno) => return Err(errno.into()),
        }
        let mut found = fds.iter().map(PollFd::revents);
        let mut next_if = |asked: bool| {
            let flags = if asked { found.next() } else { None };
            flags.unwrap_or(PollFlags::empty())
        };
        Ok([
            next_if(true),
            next_if(writing),
            next_if(interruptions.is_some()),
        ])
    }

    fn read(&mut self) -> Result<(), DialogueError> {
        let mut bytes = vec![0; READ_LEN];
        match rustix::io::read(&self.worker.replies, &mut bytes) {
            Ok(0) => Err(DialogueError::Died),
            Ok(len) => {
                self.decoder.extend(bytes.get(..len).unwrap_or_default());
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write(&mut self) -> Result<(), DialogueError> {
        let unwritten = self.outgoing.get(self.written..).unwrap_or_default();
        match rustix::io::write(&self.worker.commands, unwritten) {
            Ok(len) => self.written += len,
            Err(Errno::AGAIN | Errno::INTR) => {}
            // It takes no more, but may have said why: the next read tells.
            Err(Errno::PIPE) => {
                self.is_deaf = true;
                self.outgoing.clear();
                self.written = 0;
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}
