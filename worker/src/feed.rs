//! A job's standard input: bytes that wait until the job reads them.
//!
//! # Invariants
//!
//! - The pipe does not block; it is closed when the last byte is in it, or when nobody reads any more.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};

/// A job's standard input.
#[derive(Debug)]
pub(crate) struct Feed {
    pipe: File,
    bytes: Vec<u8>,
    written: usize,
}

/// Whether there is more to feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appetite {
    /// The job takes no more for now.
    Later,
    /// All is fed, or the job reads no more.
    Done,
}

impl Feed {
    /// Feeds `bytes` through `pipe`, which must not block.
    pub(crate) const fn new(pipe: File, bytes: Vec<u8>) -> Self {
        Self {
            pipe,
            bytes,
            written: 0,
        }
    }

    /// More bytes, before the job has started.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What to poll for writing.
    pub(crate) fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Writes as much as the pipe takes.
    pub(crate) fn pump(&mut self) -> io::Result<Appetite> {
        while let Some(rest @ [_, ..]) = self.bytes.get(self.written..) {
            match self.pipe.write(rest) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Appetite::Later);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Appetite::Done)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn more_than_a_pipe_holds_is_fed_as_it_is_read() {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer = File::from(OwnedFd::from(writer));
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut feed = Feed::new(writer, bytes.clone());
        let mut read = Vec::new();
        let mut buffer = vec![0; 50_000];
        while feed.pump().unwrap() == Appetite::Later {
            let len = reader.read(&mut buffer).unwrap();
            read.extend_from_slice(&buffer[..len]);
        }
        drop(feed);
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
    }

    #[test]
    fn a_job_that_reads_nothing_ends_the_feed() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut feed = Feed::new(File::from(OwnedFd::from(writer)), vec![1]);
        assert_eq!(feed.pump().unwrap(), Appetite::Done);
    }
}
