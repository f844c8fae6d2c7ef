//! Taking in what a run left behind: its output from the store, its files from the pipe.
//!
//! Little is taken in at once; what would hold the driver's thread for long is taken in on another one,
//! and until that is done the pool does not hear that the run is over, so that no other job touches the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use wpool_protocol::outcome::OutputFile;
use wpool_protocol::wire::{AttemptReport, Stream};

use crate::gather::Gathered;
use crate::output::OutputStore;
use crate::report::Streams;

/// Bytes that are taken in at once: copying them takes less than 0.2 ms.
const AT_ONCE_MAX: u64 = 256 << 10;

/// What a run left behind.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// What its worker says, if it has lived to say it.
    pub(super) report: Option<Box<AttemptReport>>,
    /// Its output.
    pub(super) streams: Streams,
    /// Its files.
    pub(super) files: BTreeMap<String, OutputFile>,
}

/// What is to be taken in.
#[derive(Debug)]
pub(super) struct Leftovers {
    pub(super) report: Option<Box<AttemptReport>>,
    /// `None` if the run never began: the store then holds what is not its own.
    pub(super) store: Option<Arc<OutputStore>>,
    pub(super) output_bytes: u64,
    pub(super) gathered: Gathered,
}

impl Leftovers {
    /// Whether taking it in holds nobody up.
    pub(super) fn is_little(&self) -> bool {
        let (stdout, stderr) = self.written();
        let output = stdout.min(self.output_bytes) + stderr.min(self.output_bytes);
        output + self.gathered.announced() <= AT_ONCE_MAX
    }

    fn written(&self) -> (u64, u64) {
        match (&self.report, &self.store) {
            (_, None) => (0, 0),
            (Some(report), Some(_)) => (report.written.stdout, report.written.stderr),
            // The worker is dead: what it counted in the store is all there is to know.
            (None, Some(store)) => store.counters().unwrap_or_default(),
        }
    }

    /// Takes it in.
    pub(super) fn take(self) -> Collected {
        let (stdout_bytes, stderr_bytes) = self.written();
        // A store that cannot be read is a memory file gone mad; the outcome says 0 bytes are kept.
        let kept = |stream, total| {
            let kept = self.store.as_ref();
            kept.and_then(|store| store.kept(stream, self.output_bytes, total).ok())
                .unwrap_or_default()
        };
        Collected {
            streams: Streams {
                stdout: kept(Stream::Stdout, stdout_bytes),
                stderr: kept(Stream::Stderr, stderr_bytes),
                stdout_bytes,
                stderr_bytes,
            },
            files: self.gathered.finish(),
            report: self.report,
        }
    }
}
