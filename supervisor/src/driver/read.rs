//! What a job has written so far, for those who follow it.
//!
//! # Invariants
//!
//! - The store is read only between a worker's `Started` and the end of that run, on the driver's own thread: so
//!   the bytes are this job's, never those of the one before or after it.
//! - One reading brings at most [`CHUNK_MAX`] bytes of a stream: some ten microseconds.

use std::sync::Arc;

use wpool_protocol::id::JobId;
use wpool_protocol::wire::{Stream, ToWorker, Written};

use super::Driver;
use super::command::{Chunk, Interest, Reader, Reading};
use super::obey::may_see;
use super::seat::{Follow, RunCourse, Seat};
use crate::output::OutputStore;

/// Bytes of a stream that one reading brings.
const CHUNK_MAX: u64 = 64 << 10;

impl Driver {
    pub(super) fn read(&mut self, reader: &Reader) -> Option<Reading> {
        let Some(job) = self.visible_job(reader.id, &reader.caller) else {
            let kept = self.register.ended(reader.id)?;
            let outcome = Arc::clone(&kept.outcome);
            return may_see(&reader.caller, &outcome.tenant).then_some(Reading::Ended(outcome));
        };
        let progress = job.watch();
        let attempt = job.attempt();
        let worker = job.run.as_ref().map(|run| run.worker);
        let from: Vec<_> = if attempt == reader.attempt {
            reader.from.clone()
        } else {
            // The run is another one: both streams begin anew.
            reader.from.iter().map(|(stream, _)| (*stream, 0)).collect()
        };
        let seat = worker.and_then(|worker| self.seat(worker));
        let chunks = seat.map_or_else(Vec::new, |seat| {
            seat.read(reader.id, &from, reader.interest)
        });
        Some(Reading::Live {
            attempt,
            chunks,
            progress,
        })
    }
}

impl Seat {
    fn read(&mut self, job: JobId, from: &[(Stream, u64)], interest: Interest) -> Vec<Chunk> {
        let Some(run) = &mut self.run else {
            return Vec::new();
        };
        if run.course == RunCourse::Given || run.attempt.job != job {
            return Vec::new();
        }
        let Ok(totals) = self.store.counters() else {
            return Vec::new();
        };
        let chunks = from.iter().filter_map(|(stream, from)| {
            next_chunk(&self.store, run.output_bytes, *stream, *from, totals)
        });
        let chunks: Vec<_> = chunks.collect();
        if chunks.is_empty() && interest == Interest::Future && run.follow == Follow::Unasked {
            run.follow = Follow::Asked;
            let written = Written {
                attempt: run.attempt,
                stdout: totals.0,
                stderr: totals.1,
            };
            self.say(ToWorker::Follow(written));
        }
        chunks
    }
}

/// The bytes of a stream that come next, as far as they are kept.
fn next_chunk(
    store: &OutputStore,
    output_bytes: u64,
    stream: Stream,
    from: u64,
    (stdout, stderr): (u64, u64),
) -> Option<Chunk> {
    let of = |(stdout, stderr): (u64, u64)| match stream {
        Stream::Stdout => stdout,
        Stream::Stderr => stderr,
    };
    let total = of((stdout, stderr));
    let from = store.next_kept(output_bytes, from, total);
    let until = total.min(from.saturating_add(CHUNK_MAX));
    let (offset, mut bytes) = store.read(stream, output_bytes, from, until).ok()?;
    // The job goes on writing: what it has overwritten meanwhile is not what it was.
    let now = of(store.counters().ok()?).max(total);
    let intact_from = store.next_kept(output_bytes, offset, now);
    let lost = usize::try_from(intact_from - offset).unwrap_or(usize::MAX);
    bytes.drain(..lost.min(bytes.len()));
    (!bytes.is_empty()).then_some(Chunk {
        stream,
        offset: intact_from,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use wpool_protocol::wire::StoreLayout;

    use super::*;

    const LAYOUT: StoreLayout = StoreLayout { stream_bytes: 64 };

    /// A store in which a job with a limit of 8 bytes has written so many, numbered.
    fn store(total: u64) -> (OutputStore, File) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LAYOUT.len()).unwrap();
        let half = LAYOUT.half(8);
        let mut at = 0;
        while let Some((offset, len)) = LAYOUT.run(Stream::Stdout, half, at, total) {
            for n in 0..len {
                let byte = u8::try_from((at + n) % 256).unwrap();
                file.write_all_at(&[byte], offset + n).unwrap();
            }
            at += len;
        }
        file.write_all_at(&total.to_le_bytes(), 0).unwrap();
        (OutputStore::new(file.try_clone().unwrap(), LAYOUT), file)
    }

    fn next(store: &OutputStore, from: u64, total: u64) -> Option<(u64, Vec<u8>)> {
        let chunk = next_chunk(store, 8, Stream::Stdout, from, (total, 0))?;
        Some((chunk.offset, chunk.bytes))
    }

    #[test]
    fn a_reader_gets_what_is_kept_and_sees_where_something_is_missing() {
        let (store, _) = store(20);
        assert_eq!(next(&store, 0, 20), Some((0, vec![0, 1, 2, 3])));
        // 4 to 15 are lost to a reader that comes this late.
        assert_eq!(next(&store, 4, 20), Some((16, vec![16, 17, 18, 19])));
        assert_eq!(next(&store, 18, 20), Some((18, vec![18, 19])));
        assert_eq!(next(&store, 20, 20), None);
    }

    #[test]
    fn what_is_overwritten_while_it_is_read_is_not_passed_on() {
        let (store, file) = store(20);
        file.write_all_at(&22u64.to_le_bytes(), 0).unwrap();
        assert_eq!(next(&store, 16, 20), Some((18, vec![18, 19])));
        file.write_all_at(&u64::MAX.to_le_bytes(), 0).unwrap();
        assert_eq!(next(&store, 16, 20), None);
    }

    #[test]
    fn nothing_is_kept_where_the_limit_is_zero() {
        let (store, _) = store(20);
        assert!(next_chunk(&store, 0, Stream::Stdout, 0, (20, 0)).is_none());
    }
}
