//! A job's streams, carried between its pipes and the standard streams of this process as they come.
//!
//! Each stream has a thread that moves bytes and does nothing else. Between two pipes it is `splice`, which moves pages
//! without looking at them; everything else is read and written. The kernel holds the pipe's lock while
//! `splice` waits for a terminal, a socket or a file (fs/splice.c, `splice_file_to_pipe` and
//! `iter_file_splice_write`): a job that touches its end meanwhile would sleep where not even SIGKILL
//! reaches it. From pipe to pipe it waits without any lock.
//!
//! # Invariants
//!
//! - No more than a pipe and one [`CHUNK`] of a stream is under way: who reads slowly slows the job.
//! - When nobody reads our standard output any more, nobody reads the job's: it gets EPIPE, as in any pipeline.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use super::interruption::Interruptions;

/// Bytes moved at once: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// Our ends of a job's pipes, and what they are to be joined with.
#[derive(Debug)]
pub(super) struct Streams {
    stdin: (Source, OwnedFd),
    stdout: OwnedFd,
    stderr: OwnedFd,
}

#[derive(Debug)]
enum Source {
    Stdin,
    File(File),
}

/// Makes the pipes: the job's ends as its descriptors 0, 1, 2, and ours.
pub(super) fn pipes(stdin: Option<File>) -> io::Result<([OwnedFd; 3], Streams)> {
    if let Some(file) = &stdin
        && file.metadata()?.is_dir()
    {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let (stdin_of_job, to_stdin) = pipe_with(PipeFlags::CLOEXEC)?;
    let (from_stdout, stdout_of_job) = pipe_with(PipeFlags::CLOEXEC)?;
    let (from_stderr, stderr_of_job) = pipe_with(PipeFlags::CLOEXEC)?;
    let source = stdin.map_or(Source::Stdin, Source::File);
    Ok((
        [stdin_of_job, stdout_of_job, stderr_of_job],
        Streams {
            stdin: (source, to_stdin),
            stdout: from_stdout,
            stderr: from_stderr,
        },
    ))
}

/// The threads that carry.
#[derive(Debug)]
pub(super) struct Pumps {
    outputs: [thread::JoinHandle<io::Result<()>>; 2],
    /// Readable (end of file) when both have ended.
    both_ended: OwnedFd,
}

/// How long the outputs of a job that its user has ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the user has asked for meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing.
    Nothing,
    /// That the job ends.
    ForTheEnd,
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// To the end of both outputs, or to where nobody reads on.
    Everything,
    /// To where the user interrupted.
    Interrupted,
}

impl Streams {
    /// Starts to carry.
    pub(super) fn start(self) -> io::Result<Pumps> {
        let (both_ended, guard) = pipe_with(PipeFlags::CLOEXEC)?;
        let guard_of_stderr = guard.try_clone()?;
        let (source, to_stdin) = self.stdin;
        // Nobody waits for this one: it may sit in a read of a terminal for ever, and ends with the process.
        thread::Builder::new().name("stdin".into()).spawn(move || {
            let carried = match &source {
                Source::Stdin => carry(&io::stdin(), &to_stdin),
                Source::File(file) => carry(file, &to_stdin),
            };
            // It has ended, as far as the job can know; its user is to know more.
            if let Err(error) = carried {
                let line =
                    format!("wpool: the job's input ends here: it cannot be read: {error}\n");
                io::stderr().write_all(line.as_bytes()).unwrap_or_default();
            }
        })?;
        let (from_stdout, from_stderr) = (self.stdout, self.stderr);
        let stdout = thread::Builder::new()
            .name("stdout".into())
            .spawn(move || {
                let carried = carry(&from_stdout, &io::stdout());
                drop((from_stdout, guard));
                carried
            })?;
        let stderr = thread::Builder::new()
            .name("stderr".into())
            .spawn(move || {
                let carried = carry(&from_stderr, &io::stderr());
                drop((from_stderr, guard_of_stderr));
                carried
            })?;
        Ok(Pumps {
            outputs: [stdout, stderr],
            both_ended,
        })
    }
}

impl Pumps {
    /// Waits until everything the job wrote has been passed on.
    ///
    /// A user who has `asked` for the end of the job waits for no reader for long.
    pub(super) fn finish(
        self,
        asked: Asked,
        interruptions: &mut Interruptions,
    ) -> io::Result<Carried> {
        let until = (asked == Asked::ForTheEnd).then(|| Instant::now() + LAST_WORDS);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec::try_from(left).unwrap_or_default());
            let mut fds = [
                PollFd::new(&self.both_ended, PollFlags::IN),
                PollFd::new(interruptions, PollFlags::IN),
            ];
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(Carried::Interrupted),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let [ended, interrupted] = fds.map(|fd| !fd.revents().is_empty());
            if ended {
                break;
            }
            if interrupted && interruptions.take() {
                return Ok(Carried::Interrupted);
            }
        }
        for output in self.outputs {
            output
                .join()
                .map_err(|_| io::Error::other("a thread panicked"))??;
        }
        Ok(Carried::Everything)
    }
}

/// Moves bytes until one side ends.
fn carry(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let carried = if is_pipe(from) && is_pipe(to) {
        carry_pages(from, to)
    } else {
        carry_bytes(from, to)
    };
    match carried {
        // Nobody reads on: that is for the job to know, and for nobody to complain of.
        Ok(()) | Err(Errno::PIPE) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

fn carry_pages(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    loop {
        match splice(from, None, to, None, CHUNK, SpliceFlags::MOVE) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(from, to)?,
            Err(Errno::INVAL) => return carry_bytes(from, to),
            Err(errno) => return Err(errno),
        }
    }
}

fn carry_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let len = match read(from, &mut chunk) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                wait_for_one(from, PollFlags::IN)?;
                continue;
            }
            Err(errno) => return Err(errno),
        };
        let mut rest = chunk.get(..len).unwrap_or_default();
        while !rest.is_empty() {
            match write(to, rest) {
                Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait_for_one(to, PollFlags::OUT)?,
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Waits for both sides of a splice: which of them was not ready it does not say.
fn wait_for(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    wait_for_one(from, PollFlags::IN)?;
    wait_for_one(to, PollFlags::OUT)
}

/// Waits for a descriptor that somebody else has made non-blocking: a terminal or a pipe that we share.
fn wait_for_one(fd: BorrowedFd<'_>, what: PollFlags) -> Result<(), Errno> {
    match poll(&mut [PollFd::new(&fd, what)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
