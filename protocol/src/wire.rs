//! The messages between the supervisor and one worker.
//!
//! ```text
//!   supervisor                                   worker
//!       │ ── Hello ────────────────────────────────▶ │   both say who they are;
//!       │ ◀───────────────────────────────── Hello ── │   another version ends it here
//!       │ ── Setup ────────────────────────────────▶ │
//!       │ ◀─────────────────────── Ready │ Refused ── │   Refused: a layer is missing, the worker exits
//!       │                                             │
//!       │ ── Job, Input…, Start ───────────────────▶ │ ┐
//!       │ ◀─────────────────────────────── Started ── │ │
//!       │ ── Follow ───────────────────────────────▶ │ │ any number of times
//!       │ ◀─────────────────────────────── Written ── │ │
//!       │ ── Stop ─────────────────────────────────▶ │ │ at most once, at any moment
//!       │ ◀─────────── Output, OutputBytes…, Ended ── │ ┘ then the next Job
//!       │                                             │
//!       │ ── Ping ─────────────────────────────────▶ │   at any moment after Ready
//!       │ ◀────────────────────────────────── Pong ── │
//!       │ ── Retire ───────────────────────────────▶ │   exits with 0 when no job runs
//! ```
//!
//! What a job writes does not travel here: it lies in the *output store*, a sealed memory file that
//! both sides hold (see [`StoreLayout`]), so that it survives the worker and costs no wake-up.
//!
//! # Invariants
//!
//! - The worker is hostile once a job has run in it: which message it may send when is the table in
//!   [`crate::phase`], and nothing it says is trusted beyond that.
//! - Variants are only ever appended: bincode numbers them. A change of meaning raises [`Hello::PROTOCOL`].

use serde::{Deserialize, Serialize};

use crate::id::{AttemptRef, SlotId};
use crate::limits::{LimitName, Limits};
use crate::outcome::{Identity, IsolationLevel, MeasuredBy, OutputError};
use crate::path::BoxPath;

/// Who speaks: the first message in both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`Hello::MAGIC`].
    pub magic: [u8; 8],
    /// [`Hello::PROTOCOL`].
    pub protocol: u32,
    /// The version of the binary.
    pub version: String,
}

impl Hello {
    /// What a stream of wpool's begins with.
    pub const MAGIC: [u8; 8] = *b"wpool\r\n\0";

    /// The version of these messages.
    pub const PROTOCOL: u32 = 1;

    /// What this binary says.
    pub fn ours() -> Self {
        Self {
            magic: Self::MAGIC,
            protocol: Self::PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Whether the other side may be spoken to.
    ///
    /// # Errors
    ///
    /// [`HelloError`] says what differs.
    pub fn check(&self) -> Result<(), HelloError> {
        let ours = Self::ours();
        if self.magic != ours.magic {
            return Err(HelloError::Magic);
        }
        if self.protocol != ours.protocol || self.version != ours.version {
            return Err(HelloError::Version {
                theirs: format!(
                    "{} (protocol {})",
                    self.version.escape_debug(),
                    self.protocol
                ),
                ours: format!("{} (protocol {})", ours.version, ours.protocol),
            });
        }
        Ok(())
    }
}

/// The other side is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It is no wpool.
    #[error("the other side does not speak wpool's protocol")]
    Magic,
    /// It is another wpool.
    #[error("the other side is wpool {theirs}, this is wpool {ours}")]
    Version {
        /// The other side.
        theirs: String,
        /// This side.
        ours: String,
    },
}

/// What the supervisor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Who speaks.
    Hello(Hello),
    /// Build the slot's sandbox.
    Setup(Setup),
    /// A job is coming; its inputs follow.
    Job(Box<JobOrder>),
    /// The next bytes of an input, in order.
    Input(InputBytes),
    /// All inputs are there: run it.
    Start(AttemptRef),
    /// End the job now.
    Stop(AttemptRef),
    /// Somebody follows the output: say once when there is more than this.
    Follow(Written),
    /// Are you there?
    Ping(u64),
    /// Exit when no job runs.
    Retire,
}

/// What the worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// Who speaks.
    Hello(Hello),
    /// The sandbox stands.
    Ready(Ready),
    /// The sandbox could not be built.
    Refused(Refused),
    /// The job's program runs.
    Started(AttemptRef),
    /// There is more output than was last said.
    Written(Written),
    /// A file is coming out; if it has a size, its bytes follow.
    Output(OutputHeader),
    /// The next bytes of the last announced file.
    OutputBytes(OutputBytes),
    /// The job's tree is dead, everything about it has been said.
    Ended(Box<AttemptReport>),
    /// The answer to a ping.
    Pong(u64),
}

/// How to build a slot's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The place.
    pub slot: SlotId,
    /// What to do about a missing security layer.
    pub policy: IsolationPolicy,
    /// Whose ids the jobs have.
    pub identity: Identity,
    /// The profiles that jobs may name.
    pub profiles: Vec<ProfileSetup>,
    /// Room for one stream in the output store: the ceiling of `output_bytes`.
    pub store: StoreLayout,
    /// The descriptor of the slot's cgroup directory, if controllers are delegated.
    pub cgroup: Option<u32>,
    /// Descriptors that become the job's 0, 1 and 2, where the job is run in the foreground.
    pub stdio: Option<[u32; 3]>,
    /// The cores the worker may use, as numbers of the host.
    pub cores: Vec<u16>,
}

/// What to do about a missing security layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationPolicy {
    /// Refuse to work.
    Required,
    /// Work without it, and say so.
    Reduced,
}

/// A named sandbox set-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileSetup {
    /// Its name.
    pub name: String,
    /// What is visible beside the system directories.
    pub mounts: Vec<MountSetup>,
}

/// A host file or directory that is visible, read-only, in a profile's boxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSetup {
    /// Where it comes from.
    pub source: MountSource,
    /// Where it appears: an absolute path without `..`.
    pub destination: String,
}

/// Where a mount comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A path that the worker itself can reach.
    Path(String),
    /// A detached mount that the supervisor made (`open_tree`), at this descriptor.
    Descriptor(u32),
}

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

/// How much a job has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The run.
    pub attempt: AttemptRef,
    /// Bytes to descriptor 1.
    pub stdout: u64,
    /// Bytes to descriptor 2.
    pub stderr: u64,
}

/// A job, for the worker that is to run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOrder {
    /// The run.
    pub attempt: AttemptRef,
    /// The profile, as an index into [`Setup::profiles`].
    pub profile: u16,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The whole environment of the job.
    pub env: Vec<(String, String)>,
    /// The limits that hold.
    pub limits: Limits,
    /// What is on its descriptors 0, 1, 2.
    pub stdio: Stdio,
    /// The files whose bytes follow, in this order.
    pub inputs: Vec<InputHeader>,
    /// Names or patterns of the files to bring out.
    pub outputs: Vec<String>,
}

/// What is on a job's descriptors 0, 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// Nothing, or so many bytes that follow as [`InputTarget::Stdin`]; output goes to the store.
    Captured {
        /// Bytes of standard input.
        stdin_bytes: u64,
    },
    /// The descriptors of [`Setup::stdio`]; the store stays empty.
    Inherited,
}

/// A file to lay into the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputHeader {
    /// Its name there.
    pub name: BoxPath,
    /// Its permission bits.
    pub mode: u32,
    /// Its size, bytes.
    pub size: u64,
}

/// Where input bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputTarget {
    /// The job's standard input.
    Stdin,
    /// The n-th of [`JobOrder::inputs`].
    File(u16),
}

/// Bytes of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputBytes {
    /// Where they go.
    pub target: InputTarget,
    /// The bytes, at most [`CHUNK_MAX`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Bytes of one `Input` or `OutputBytes` message.
pub const CHUNK_MAX: usize = 256 << 10;

/// What stands around the jobs of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Whether every security layer stands.
    pub level: IsolationLevel,
    /// Whose ids the jobs have.
    pub identity: Identity,
    /// Every layer wpool knows.
    pub layers: Vec<LayerReport>,
}

/// One layer of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Its name, like `pid`.
    pub name: String,
    /// Whether it stands.
    pub state: LayerState,
}

/// Whether a layer stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerState {
    /// It does; the text is a detail like `ABI 7`, or empty.
    Active(String),
    /// It does not.
    Missing {
        /// Why.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
}

/// Why a worker could not build its sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The layer that is missing.
    pub layer: String,
    /// The step that failed, and how.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

/// A file that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputHeader {
    /// The run.
    pub attempt: AttemptRef,
    /// Its name in the box, or the pattern that nothing matches; not necessarily UTF-8.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Its size in bytes, or why it is not delivered.
    pub size: Result<u64, OutputError>,
}

/// Bytes of the last announced file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputBytes {
    /// The run.
    pub attempt: AttemptRef,
    /// The bytes, at most [`CHUNK_MAX`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// How a run ended, as its worker saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// The run.
    pub attempt: AttemptRef,
    /// How it ended.
    pub ending: Ending,
    /// Limits that made calls fail.
    pub limits_hit: Vec<LimitName>,
    /// What it used.
    pub usage: RunUsage,
    /// How much it wrote in all.
    pub written: Written,
}

/// How a job's tree came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The job's first process exited.
    Exited(u8),
    /// A signal ended the job's first process, and wpool did not send it.
    Signaled(u8),
    /// There is no such program.
    NotFound,
    /// The program is there but could not be executed: the errno.
    NotExecutable(i32),
    /// The wall time was over.
    TimedOut,
    /// Another limit was reached.
    Limit {
        /// Which.
        limit: LimitName,
        /// The highest that was seen, in the limit's unit (bytes or ms).
        peak: u64,
        /// When, after the start; ms.
        at_ms: u64,
    },
    /// The supervisor said `Stop`.
    Stopped,
    /// The job's box could not be built, through no fault of the job's: the step and the errno.
    Unbuilt {
        /// The step that failed, and how.
        reason: String,
    },
}

/// What a run used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunUsage {
    /// From the start of its program to the end of its last process, µs.
    pub wall_us: u64,
    /// CPU time in its own code, µs.
    pub cpu_user_us: u64,
    /// CPU time in the kernel, µs.
    pub cpu_system_us: u64,
    /// The most memory at one time, bytes.
    pub memory_peak_bytes: u64,
    /// The most processes and threads at one time.
    pub processes_peak: u32,
    /// Where the figures come from.
    pub measured_by: MeasuredBy,
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

    #[test]
    fn another_binary_is_not_spoken_to() {
        assert_eq!(Hello::ours().check(), Ok(()));
        let stranger = Hello {
            magic: *b"HTTP/1.1",
            ..Hello::ours()
        };
        assert_eq!(stranger.check(), Err(HelloError::Magic));
        let older = Hello {
            version: "0.0.9".into(),
            ..Hello::ours()
        };
        assert!(
            older
                .check()
                .unwrap_err()
                .to_string()
                .contains("wpool 0.0.9")
        );
    }
}
