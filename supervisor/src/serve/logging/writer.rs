//! Lines on their way to a log that may have no reader: a thread writes them, and whoever has one to say never waits.
//!
//! # Invariants
//!
//! - A line is whole or is not there; how many are not is said where they are missing.
//! - The end waits for the last lines no longer than [`LAST_LINES`].

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written: some 10 MiB.
const LINES_MAX: usize = 1 << 16;

/// How long the last lines may take.
const LAST_LINES: Duration = Duration::from_secs(3);

/// What has to be told to the thread that writes.
enum Word {
    Line(Vec<u8>),
    /// There will be no more.
    End,
}

/// Where lines are given to.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    lines: SyncSender<Word>,
    lost: Arc<AtomicU64>,
}

/// Waits for the last lines when it goes.
#[derive(Debug)]
#[must_use = "without it the last lines are lost"]
pub(in crate::serve) struct LastLines {
    lines: SyncSender<Word>,
    written: Receiver<()>,
}

/// Starts the thread that writes.
///
/// # Errors
///
/// [`io::Error`] if there can be none.
pub(super) fn start(mut log: impl Write + Send + 'static) -> io::Result<(Writer, LastLines)> {
    let (lines, waiting) = sync_channel(LINES_MAX);
    let (done, written) = sync_channel(1);
    let lost = Arc::new(AtomicU64::new(0));
    let lost_lines = Arc::clone(&lost);
    thread::Builder::new().name("log".into()).spawn(move || {
        while let Ok(Word::Line(line)) = waiting.recv() {
            // A log that cannot be written to has nobody who could be told so.
            log.write_all(&line).unwrap_or_default();
            match lost_lines.swap(0, Ordering::Relaxed) {
                0 => {}
                lost => writeln!(log, "{lost} lines of the log are lost here").unwrap_or_default(),
            }
        }
        done.try_send(()).unwrap_or_default();
    })?;
    let writer = Writer {
        lines: lines.clone(),
        lost,
    };
    Ok((writer, LastLines { lines, written }))
}

impl Write for Writer {
    /// Takes a line, as it comes whole from the formatter.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Word::Line(buf.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Drop for LastLines {
    fn drop(&mut self) {
        let until = Instant::now() + LAST_LINES;
        while self.lines.try_send(Word::End).is_err() {
            if Instant::now() >= until {
                return;
            }
            thread::park_timeout(Duration::from_millis(10));
        }
        let left = until.saturating_duration_since(Instant::now());
        match self.written.recv_timeout(left) {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}
