//! The job's outputs on their way to the supervisor: announced, then sent in pieces.
//!
//! # Invariants
//!
//! - A file is delivered with exactly the size that was announced: the tree is dead, and where reading
//!   fails all the same, zeroes fill the rest.
//! - However many files there are, the supervisor's pings are answered meanwhile.

use std::io;
use std::os::fd::BorrowedFd;

use wpool_protocol::wire::{CHUNK_MAX, FromWorker, JobOrder, OutputBytes, OutputHeader};

use crate::collect::{Bounds, OutputFile, collect};
use crate::worker::Link;

/// Brings out what `order` asks for from `directory`, the job's `/box`.
pub(crate) fn deliver(
    link: &mut Link,
    order: &JobOrder,
    directory: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<()> {
    for output in collect(directory, &order.outputs, &Bounds::JOB) {
        let (file, size) = match output.file {
            Ok(file) => {
                let size = file.size();
                (Some(file), Ok(size))
            }
            Err(error) => (None, Err(error)),
        };
        link.say_with_others(&FromWorker::Output(OutputHeader {
            attempt: order.attempt,
            name: output.name,
            size,
        }))?;
        if let Some(file) = file {
            send(link, order, file, buffer)?;
        }
    }
    Ok(())
}

fn send(
    link: &mut Link,
    order: &JobOrder,
    mut file: OutputFile,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut left = file.size();
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(CHUNK_MAX).min(CHUNK_MAX);
        let piece = buffer.get_mut(..want).ok_or(io::ErrorKind::InvalidInput)?;
        let bytes = match file.read(piece) {
            Ok(len @ 1..) => piece.get(..len).unwrap_or_default().to_vec(),
            Ok(0) | Err(_) => vec![0; want],
        };
        left = left.saturating_sub(u64::try_from(bytes.len()).unwrap_or(left));
        link.say_with_others(&FromWorker::OutputBytes(OutputBytes {
            attempt: order.attempt,
            bytes,
        }))?;
    }
    Ok(())
}

const _: () = assert!(crate::capture::BUFFER_LEN >= CHUNK_MAX);
