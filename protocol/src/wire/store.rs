//! The output store: what a job writes lies here, not in messages.
//!
//! A sealed memory file that supervisor and worker both hold. It survives the worker, costs no wake-up,
//! and its size is fixed before a job runs, so that no job can make either side hold more.
//!
//! ```text
//!   0          8          16                     16 + stream_bytes
//!   ┌──────────┬──────────┬──────────┬───────────┬──────────┬───────────┐
//!   │ written 1│ written 2│ first L/2│ ring of L/2│ first L/2│ ring of L/2│
//!   └──────────┴──────────┴──────────┴───────────┴──────────┴───────────┘
//!    counters               stdout                 stderr
//! ```
//!
//! # Invariants
//!
//! - Under a half that [`StoreLayout::half`] gave, [`StoreLayout::run`] never leaves its stream,
//!   whatever the counters say.
//!
//! Not here: the file itself; each side opens and reads it with what it may use.

use serde::{Deserialize, Serialize};

/// Where the bytes of a job's output lie in the output store.
///
/// The store is a memory file of [`StoreLayout::len`] bytes. At its start stand two little-endian u64:
/// how much the running job has written to descriptor 1 and to descriptor 2. Then come two streams of
/// `stream_bytes` each. Of a job with an output limit of L (even), a stream keeps the first L/2
/// bytes as they come, and after them the last L/2 in a ring: byte n ≥ L/2 lies at L/2 + (n − L/2) mod L/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreLayout {
    /// Room for one stream, bytes.
    pub stream_bytes: u64,
}

/// One of a job's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl StoreLayout {
    /// Bytes before the first stream.
    pub const HEADER_LEN: u64 = 16;

    /// Bytes of the whole store.
    pub const fn len(self) -> u64 {
        Self::HEADER_LEN + 2 * self.stream_bytes
    }

    /// Whether it has room for no output at all.
    pub const fn is_empty(self) -> bool {
        self.stream_bytes == 0
    }

    /// Where a stream's counter stands.
    pub const fn counter_offset(self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 8,
        }
    }

    /// Where a stream begins.
    pub const fn stream_offset(self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => Self::HEADER_LEN,
            Stream::Stderr => Self::HEADER_LEN + self.stream_bytes,
        }
    }

    /// Half of what is kept of a stream under an output limit: what of `output_bytes` fits the store, halved.
    pub const fn half(self, output_bytes: u64) -> u64 {
        let kept = if output_bytes < self.stream_bytes {
            output_bytes
        } else {
            self.stream_bytes
        };
        kept / 2
    }

    /// The next run of bytes of a stream that lie together: where byte number `from` lies in the store,
    /// and how many of the bytes up to number `until` follow it there.
    ///
    /// `None` where nothing is kept (`half` is 0) or `from` is not before `until`.
    pub fn run(self, stream: Stream, half: u64, from: u64, until: u64) -> Option<(u64, u64)> {
        if half == 0 || from >= until {
            return None;
        }
        let (place, room) = if from < half {
            (from, half - from)
        } else {
            let in_ring = (from - half) % half;
            (half + in_ring, half - in_ring)
        };
        Some((self.stream_offset(stream) + place, room.min(until - from)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Writes a stream through `run` and reads it back: the first and the last half are there.
        #[test]
        fn the_store_keeps_the_first_and_the_last_half(total in 0u64..200, limit in 0u64..64) {
            let layout = StoreLayout { stream_bytes: 48 };
            let half = layout.half(limit);
            let mut store = vec![0u8; usize::try_from(layout.len()).unwrap()];
            let mut at = 0;
            while let Some((offset, len)) = layout.run(Stream::Stderr, half, at, total) {
                for n in 0..len {
                    store[usize::try_from(offset + n).unwrap()] = u8::try_from(at + n).unwrap();
                }
                at += len;
            }
            let read = |number: u64| {
                let (offset, _) = layout.run(Stream::Stderr, half, number, total).unwrap();
                store[usize::try_from(offset).unwrap()]
            };
            for number in (0..total.min(half)).chain(total.saturating_sub(half).max(half)..total) {
                if half > 0 {
                    prop_assert_eq!(u64::from(read(number)), number);
                }
            }
            prop_assert!(store[..16].iter().all(|byte| *byte == 0), "the counters are not touched");
        }
    }
}
