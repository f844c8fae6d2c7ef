//! One output stream of a job, on its way from a pipe into the output store.
//!
//! The store survives the worker: the supervisor holds it too, and finds there what a lost job wrote.
//!
//! # Invariants
//!
//! - The counter in the store never runs ahead of the bytes: bytes first, then the counter.
//! - A job is never stalled by a reader: what is over the limit is counted and dropped.
//! - Memory is one buffer, whatever the job writes.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;

use wpool_protocol::wire::{StoreLayout, Stream};

/// Bytes that one read may bring; what a pipe can hold after [`Capture::new`] has asked for more.
pub(crate) const BUFFER_LEN: usize = 256 << 10;

/// The output store.
#[derive(Debug)]
pub(crate) struct Store {
    file: File,
    layout: StoreLayout,
}

impl Store {
    pub(crate) fn new(file: File, layout: StoreLayout) -> Self {
        Self { file, layout }
    }

    /// Forgets what the last job wrote: frees the pages and zeroes the counters.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let flags = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
            | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let len = i64::try_from(self.layout.len()).unwrap_or(i64::MAX);
        Ok(nix::fcntl::fallocate(&self.file, flags, 0, len)?)
    }
}

/// One output stream of a job.
#[derive(Debug)]
pub(crate) struct Capture {
    pipe: Option<File>,
    stream: Stream,
    /// Half of what is kept.
    half: u64,
    /// Bytes seen so far.
    total: u64,
}

impl Capture {
    /// Captures what comes through `pipe`, which must not block; of it `output_bytes` are kept.
    pub(crate) fn new(pipe: File, stream: Stream, store: &Store, output_bytes: u64) -> Self {
        Self {
            pipe: Some(pipe),
            stream,
            half: store.layout.half(output_bytes),
            total: 0,
        }
    }

    /// What to poll for reading; `None` after the end of the stream.
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Bytes seen so far.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// Moves what one read brings into the store.
    pub(crate) fn pump(&mut self, store: &Store, buffer: &mut [u8]) -> io::Result<Progress> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(Progress::Ended);
        };
        match pipe.read(buffer) {
            Ok(0) => {
                self.pipe = None;
                Ok(Progress::Ended)
            }
            Ok(len) => {
                self.keep(store, buffer.get(..len).unwrap_or_default())?;
                Ok(Progress::Moved)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Progress::Empty),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Progress::Moved),
            Err(error) => Err(error),
        }
    }

    /// Takes in what the pipe holds and closes it: for when the job's tree is dead.
    ///
    /// Not until its end: a job can hand its descriptors to a server of the host's whose socket it was shown,
    /// and who holds on to them, or writes on and on.
    pub(crate) fn finish(&mut self, store: &Store, buffer: &mut [u8]) -> io::Result<()> {
        let Some(pipe) = &self.pipe else {
            return Ok(());
        };
        let until = self.total + rustix::io::ioctl_fionread(pipe)?;
        while self.total < until && self.pump(store, buffer)? == Progress::Moved {}
        self.pipe = None;
        Ok(())
    }

    fn keep(&mut self, store: &Store, bytes: &[u8]) -> io::Result<()> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let until = self.total + len;
        // What the ring would overwrite within this very piece need not be written.
        let mut at = if self.total < self.half {
            self.total
        } else {
            self.total.max(until.saturating_sub(self.half))
        };
        while let Some((offset, run)) = store.layout.run(self.stream, self.half, at, until) {
            let from = usize::try_from(at - self.total).unwrap_or(usize::MAX);
            let run_len = usize::try_from(run).unwrap_or(usize::MAX);
            let piece = bytes.get(from..from + run_len).unwrap_or_default();
            store.file.write_all_at(piece, offset)?;
            at += run;
        }
        self.total = until;
        let counter = store.layout.counter_offset(self.stream);
        store.file.write_all_at(&self.total.to_le_bytes(), counter)
    }
}

/// What a read has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Bytes.
    Moved,
    /// Nothing for now.
    Empty,
    /// The end: every process that could write is gone.
    Ended,
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    /// What the store keeps of `written` under `limit`: the first half, and the ring.
    fn kept(written: &[&[u8]], limit: u64) -> (String, String, u64) {
        let layout = StoreLayout { stream_bytes: 16 };
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(layout.len()).unwrap();
        let store = Store::new(file.try_clone().unwrap(), layout);
        let (reader, mut writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(reader));
        let mut capture = Capture::new(pipe, Stream::Stdout, &store, limit);
        let mut buffer = [0; 64];
        for bytes in written {
            writer.write_all(bytes).unwrap();
            assert_eq!(capture.pump(&store, &mut buffer).unwrap(), Progress::Moved);
        }
        drop(writer);
        assert_eq!(capture.pump(&store, &mut buffer).unwrap(), Progress::Ended);
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        let half = usize::try_from(layout.half(limit)).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let counter = u64::from_le_bytes(content[..8].try_into().unwrap());
        (
            text(&content[16..16 + half]),
            text(&content[16 + half..16 + 2 * half]),
            counter,
        )
    }

    #[test]
    fn the_first_and_the_last_half_are_kept_however_it_is_cut() {
        let whole = kept(&[b"abcdefghijklmnopqrstuvwxyz"], 8);
        let cut = kept(&[b"abc", b"defghijk", b"l", b"mnopqrstuvwxyz"], 8);
        assert_eq!(whole, cut);
        // Bytes 4 to 25 go round a ring of 4: 25 (`z`) lies at (25 - 4) % 4 = 1.
        assert_eq!(whole, ("abcd".into(), "yzwx".into(), 26));
    }

    #[test]
    fn nothing_is_kept_under_a_limit_of_nothing_and_all_is_counted() {
        assert_eq!(kept(&[b"abc"], 0), (String::new(), String::new(), 3));
    }
}
