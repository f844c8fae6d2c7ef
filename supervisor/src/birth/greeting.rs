//! The first words with a worker that is borne only to say what stands around its jobs.
//!
//! Not here: the dialogues with workers that get jobs ([`crate::driver`], [`crate::foreground`]).

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wpool_protocol::frame::{self, Decoder};
use wpool_protocol::wire::{FromWorker, Hello, Refused, ToWorker};

use super::Newborn;

/// How long it may take to build its sandbox.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says what to build, and hears whether it stands.
pub(super) fn hear_out(born: &Newborn) -> io::Result<Result<(), Refused>> {
    let mut words = Vec::new();
    frame::push(&ToWorker::Hello(Hello::ours()), &mut words).map_err(io::Error::other)?;
    let setup = Box::new(born.setup.clone());
    frame::push(&ToWorker::Setup(setup), &mut words).map_err(io::Error::other)?;
    File::from(born.commands.try_clone()?).write_all(&words)?;
    let mut replies = File::from(born.replies.try_clone()?);
    let mut decoder = Decoder::of_replies();
    let mut buffer = [0; 4096];
    let deadline = Instant::now() + PATIENCE;
    loop {
        match decoder.message().map_err(io::Error::other)? {
            Some(FromWorker::Ready(_)) => return Ok(Ok(())),
            Some(FromWorker::Refused(refused)) => return Ok(Err(refused)),
            Some(_) => continue,
            None => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        if poll(
            &mut [PollFd::new(replies.as_fd(), PollFlags::POLLIN)],
            patience,
        )? == 0
        {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match replies.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => decoder.extend(buffer.get(..len).unwrap_or_default()),
        }
    }
}
