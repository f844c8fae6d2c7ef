//! What jobs have written: the supervisor's side of the output store.
//!
//! # Invariants
//!
//! - Everything in the store is the worker's word: lengths and counters are held against the layout, and
//!   bytes are only ever passed on.
//! - Reading never blocks and never allocates more than was asked for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use wpool_protocol::wire::{StoreLayout, Stream};

/// The output store of one worker.
#[derive(Debug)]
pub struct OutputStore {
    file: File,
    layout: StoreLayout,
}

/// What is kept of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptOutput {
    /// The first half and the last half, or all of it.
    pub bytes: Vec<u8>,
    /// Whether the middle is left out.
    pub truncated: bool,
}

impl OutputStore {
    /// A store of this layout.
    pub const fn new(file: File, layout: StoreLayout) -> Self {
        Self { file, layout }
    }

    /// How much the job has written to descriptor 1 and to descriptor 2, by its worker's word.
    ///
    /// # Errors
    ///
    /// Those of `pread(2)`.
    pub fn counters(&self) -> io::Result<(u64, u64)> {
        let mut header = [[0u8; 8]; 2];
        self.file.read_exact_at(header.as_flattened_mut(), 0)?;
        let [stdout, stderr] = header.map(u64::from_le_bytes);
        Ok((stdout, stderr))
    }

    /// The number of the first byte, from number `from` on, that is kept of a stream of `total` bytes.
    pub fn next_kept(&self, output_bytes: u64, from: u64, total: u64) -> u64 {
        let half = self.layout.half(output_bytes);
        if from < half {
            from
        } else {
            from.max(total.saturating_sub(half))
        }
    }

    /// The bytes of a stream from number `from` to number `until`, as far as they are kept; the first one
    /// that is may come after `from`. Returns its number with the bytes.
    ///
    /// # Errors
    ///
    /// Those of `pread(2)`.
    pub fn read(
        &self,
        stream: Stream,
        output_bytes: u64,
        from: u64,
        until: u64,
    ) -> io::Result<(u64, Vec<u8>)> {
        let half = self.layout.half(output_bytes);
        let mut bytes = Vec::new();
        let mut at = if from < half {
            from
        } else {
            from.max(until.saturating_sub(half))
        };
        let first = at;
        // From the first half on, only what lies together with `from` is read: a gap may follow.
        let until = if from < half { until.min(half) } else { until };
        while let Some((offset, len)) = self.layout.run(stream, half, at, until) {
            let begin = bytes.len();
            bytes.resize(begin + usize::try_from(len).unwrap_or(0), 0);
            self.file
                .read_exact_at(bytes.get_mut(begin..).unwrap_or_default(), offset)?;
            at += len;
        }
        Ok((first, bytes))
    }

    /// What is kept of a stream of `total` bytes.
    ///
    /// # Errors
    ///
    /// Those of `pread(2)`.
    pub fn kept(&self, stream: Stream, output_bytes: u64, total: u64) -> io::Result<KeptOutput> {
        let half = self.layout.half(output_bytes);
        let (_, mut bytes) = self.read(stream, output_bytes, 0, total)?;
        let (_, tail) = self.read(stream, output_bytes, half.min(total), total)?;
        bytes.extend_from_slice(&tail);
        Ok(KeptOutput {
            truncated: total > half * 2,
            bytes,
        })
    }

    /// The last bytes that are kept of a stream of `total` bytes, at most `len`.
    ///
    /// # Errors
    ///
    /// Those of `pread(2)`.
    pub fn tail(
        &self,
        stream: Stream,
        output_bytes: u64,
        total: u64,
        len: usize,
    ) -> io::Result<Vec<u8>> {
        let mut kept = self.kept(stream, output_bytes, total)?.bytes;
        let surplus = kept.len().saturating_sub(len);
        kept.drain(..surplus);
        Ok(kept)
    }
}
