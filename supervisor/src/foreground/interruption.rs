//! SIGINT, SIGTERM and SIGHUP as something that can be polled.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// The interruptions of this process that have not been answered.
#[derive(Debug)]
pub struct Interruptions {
    heard: UnixStream,
}

impl Interruptions {
    /// Listens from now on; the signals no longer end this process.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the signals cannot be caught.
    pub fn listen() -> io::Result<Self> {
        let (told, heard) = UnixStream::pair()?;
        heard.set_nonblocking(true)?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            pipe::register(signal, told.try_clone()?)?;
        }
        Ok(Self { heard })
    }

    /// Interruptions that the other end of a socket makes.
    #[cfg(test)]
    pub(super) fn by_hand() -> (UnixStream, Self) {
        let (told, heard) = UnixStream::pair().expect("a socket pair");
        heard.set_nonblocking(true).expect("a socket of ours");
        (told, Self { heard })
    }

    /// Takes one interruption, if there is one.
    pub fn take(&mut self) -> bool {
        matches!((&self.heard).read(&mut [0]), Ok(1))
    }
}

impl AsFd for Interruptions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.heard.as_fd()
    }
}
