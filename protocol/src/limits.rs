//! What a job may use: the limits a client asks for, and the limits that hold.
//!
//! | limit | when it is reached |
//! | --- | --- |
//! | wall, cpu, idle, memory, file size | the job is ended and its outcome names the limit |
//! | processes, open files, disk | a call in the job fails with an errno; `limits_hit` names the limit |
//! | kept output | the middle of the stream is left out; the job does not notice |
//!
//! # Invariants
//!
//! - A [`Limits`] is complete and within its ceilings: it comes only from [`LimitsRequest::resolve`].
//! - Asking for more than a ceiling is an error that names both, never a silent cut.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::quantity::{ByteSize, Millis};

/// The limits a client asks for; what it leaves out is decided by the profile's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsRequest {
    /// Wall-clock time, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<Millis>,
    /// Time between SIGTERM and SIGKILL when the wall time is over, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<Millis>,
    /// CPU time of all processes together, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<Millis>,
    /// Time in which all processes together use less than a thousandth of a core, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<Millis>,
    /// Memory of all processes together, shared pages counted once, and what they wrote to their tmpfs; bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<ByteSize>,
    /// Processes and threads at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Open descriptors of one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u32>,
    /// Size of one file, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size_bytes: Option<ByteSize>,
    /// All files in `/box`, `/tmp` and `/dev/shm` together, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<ByteSize>,
    /// What is kept of each output stream, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<ByteSize>,
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u16>,
}

/// The limits that hold for one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock time.
    pub timeout_ms: Millis,
    /// Time between SIGTERM and SIGKILL when the wall time is over.
    pub grace_ms: Millis,
    /// CPU time of all processes together.
    pub cpu_ms: Millis,
    /// Time without any CPU use, if that is limited.
    pub idle_ms: Option<Millis>,
    /// Memory of all processes together and what they wrote to their tmpfs.
    pub memory_bytes: ByteSize,
    /// Processes and threads at one time.
    pub processes: u32,
    /// Open descriptors of one process.
    pub open_files: u32,
    /// Size of one file.
    pub file_size_bytes: ByteSize,
    /// All files of the job together.
    pub disk_bytes: ByteSize,
    /// What is kept of each output stream.
    pub output_bytes: ByteSize,
    /// Cores.
    pub cpus: u16,
}

impl Limits {
    /// What the kernel takes to end one process of a large tree on one busy core, ms: 1 to 2 were measured for interpreters.
    const END_OF_ONE_MS: u64 = 2;

    /// How long a run may take from its start to the end of its last process.
    pub const fn run_time_max(&self) -> core::time::Duration {
        let wall_ms = self.timeout_ms.0.saturating_add(self.grace_ms.0);
        let end_ms = Self::END_OF_ONE_MS * self.processes as u64;
        core::time::Duration::from_millis(wall_ms.saturating_add(end_ms))
    }

    /// What holds where neither client nor config says otherwise.
    ///
    /// `cpu_ms` of [`Millis`]`(0)` stands for "wall × cpus" and is replaced when a request is resolved.
    pub const DEFAULT: Self = Self {
        timeout_ms: Millis(30_000),
        grace_ms: Millis(0),
        cpu_ms: Millis(0),
        idle_ms: None,
        memory_bytes: ByteSize::mib(512),
        processes: 64,
        open_files: 256,
        file_size_bytes: ByteSize::mib(64),
        disk_bytes: ByteSize::mib(128),
        output_bytes: ByteSize::mib(1),
        cpus: 1,
    };

    /// The most that a client may ask for where the config does not say otherwise.
    pub const CEILING: Self = Self {
        timeout_ms: Millis(24 * 3_600_000),
        grace_ms: Millis(60_000),
        cpu_ms: Millis(1_024 * 24 * 3_600_000),
        idle_ms: Some(Millis(24 * 3_600_000)),
        memory_bytes: ByteSize::gib(16),
        processes: 512,
        open_files: 65_536,
        file_size_bytes: ByteSize::gib(16),
        disk_bytes: ByteSize::gib(16),
        output_bytes: ByteSize::mib(16),
        cpus: 1_024,
    };

    /// How many bytes of tmpfs stand for one inode: 128 MiB give 16 Ki inodes.
    const DISK_BYTES_PER_INODE: u64 = 8 * 1024;

    /// Files, directories and links that the job may make: a share of `disk_bytes`, at least 64.
    pub const fn inodes(&self) -> u64 {
        let share = self.disk_bytes.0 / Self::DISK_BYTES_PER_INODE;
        if share < 64 { 64 } else { share }
    }
}

/// A limit, by the name that outcomes and refusals use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// Wall-clock time.
    Wall,
    /// CPU time of the tree.
    Cpu,
    /// Time without CPU use.
    Idle,
    /// Memory of the tree.
    Memory,
    /// Size of one file.
    FileSize,
    /// Processes and threads.
    Processes,
    /// Open descriptors of a process.
    OpenFiles,
    /// Bytes or inodes of the job's files.
    Disk,
    /// Kept output.
    Output,
}

impl LimitName {
    /// The name as JSON and people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Cpu => "cpu",
            Self::Idle => "idle",
            Self::Memory => "memory",
            Self::FileSize => "file_size",
            Self::Processes => "processes",
            Self::OpenFiles => "open_files",
            Self::Disk => "disk",
            Self::Output => "output",
        }
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A request that cannot be granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// More than the ceiling.
    #[error("limits.{field} is {asked}, above the highest allowed, {ceiling}")]
    AboveCeiling {
        /// The field of the request.
        field: &'static str,
        /// What was asked for, with its unit.
        asked: String,
        /// The ceiling, with its unit.
        ceiling: String,
    },
    /// Less than a program needs to start at all.
    #[error("limits.{field} is {asked}, below the lowest that a program can start with, {floor}")]
    BelowFloor {
        /// The field of the request.
        field: &'static str,
        /// What was asked for, with its unit.
        asked: String,
        /// The floor, with its unit.
        floor: String,
    },
}

/// What was asked for, or else the default, cut to the ceiling; held within `range`.
fn granted<T: Copy + Ord + fmt::Display>(
    field: &'static str,
    asked: Option<T>,
    default: T,
    range: RangeInclusive<T>,
) -> Result<T, ResolveError> {
    let (floor, ceiling) = range.into_inner();
    let value = asked.unwrap_or(default.min(ceiling));
    if value > ceiling {
        Err(ResolveError::AboveCeiling {
            field,
            asked: value.to_string(),
            ceiling: ceiling.to_string(),
        })
    } else if value < floor {
        Err(ResolveError::BelowFloor {
            field,
            asked: value.to_string(),
            floor: floor.to_string(),
        })
    } else {
        Ok(value)
    }
}

/// The limits that depend on each other.
struct Times {
    timeout_ms: Millis,
    grace_ms: Millis,
    cpu_ms: Millis,
    idle_ms: Option<Millis>,
    cpus: u16,
}

impl LimitsRequest {
    /// The limits that hold: what was asked for, else `defaults`, never above `ceilings`.
    ///
    /// # Errors
    ///
    /// [`ResolveError`] names the first field that is above its ceiling or below what any program needs.
    /// A default above a ceiling is cut to it: the ceiling is the operator's word.
    pub fn resolve(&self, defaults: &Limits, ceilings: &Limits) -> Result<Limits, ResolveError> {
        let times = self.resolve_times(defaults, ceilings)?;
        Ok(Limits {
            timeout_ms: times.timeout_ms,
            grace_ms: times.grace_ms,
            cpu_ms: times.cpu_ms,
            idle_ms: times.idle_ms,
            cpus: times.cpus,
            memory_bytes: granted(
                "memory_bytes",
                self.memory_bytes,
                defaults.memory_bytes,
                ByteSize::mib(1)..=ceilings.memory_bytes,
            )?,
            processes: granted(
                "processes",
                self.processes,
                defaults.processes,
                1..=ceilings.processes,
            )?,
            open_files: granted(
                "open_files",
                self.open_files,
                defaults.open_files,
                8..=ceilings.open_files,
            )?,
            file_size_bytes: granted(
                "file_size_bytes",
                self.file_size_bytes,
                defaults.file_size_bytes,
                ByteSize(0)..=ceilings.file_size_bytes,
            )?,
            disk_bytes: granted(
                "disk_bytes",
                self.disk_bytes,
                defaults.disk_bytes,
                ByteSize::kib(64)..=ceilings.disk_bytes,
            )?,
            output_bytes: granted(
                "output_bytes",
                self.output_bytes,
                defaults.output_bytes,
                ByteSize(0)..=ceilings.output_bytes,
            )?,
        })
    }

    fn resolve_times(&self, defaults: &Limits, ceilings: &Limits) -> Result<Times, ResolveError> {
        let timeout_ms = granted(
            "timeout_ms",
            self.timeout_ms,
            defaults.timeout_ms,
            Millis(1)..=ceilings.timeout_ms,
        )?;
        let cpus = granted("cpus", self.cpus, defaults.cpus, 1..=ceilings.cpus)?;
        let all_of_wall = Millis(timeout_ms.0.saturating_mul(u64::from(cpus)));
        let cpu_default = match defaults.cpu_ms {
            Millis(0) => all_of_wall,
            set => set,
        };
        let idle_ceiling = ceilings.idle_ms.unwrap_or(Millis(u64::MAX));
        Ok(Times {
            timeout_ms,
            grace_ms: granted(
                "grace_ms",
                self.grace_ms,
                defaults.grace_ms,
                Millis(0)..=ceilings.grace_ms,
            )?,
            cpu_ms: granted(
                "cpu_ms",
                self.cpu_ms,
                cpu_default,
                Millis(1)..=ceilings.cpu_ms,
            )?,
            idle_ms: self
                .idle_ms
                .or(defaults.idle_ms.map(|idle| idle.min(idle_ceiling)))
                .map(|idle| granted("idle_ms", Some(idle), idle, Millis(1)..=idle_ceiling))
                .transpose()?,
            cpus,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(request: &LimitsRequest) -> Result<Limits, ResolveError> {
        request.resolve(&Limits::DEFAULT, &Limits::CEILING)
    }

    #[test]
    fn cpu_time_defaults_to_wall_times_cpus() {
        let limits = resolve(&LimitsRequest {
            timeout_ms: Some(Millis(2_000)),
            cpus: Some(3),
            ..LimitsRequest::default()
        });
        assert_eq!(limits.unwrap().cpu_ms, Millis(6_000));
    }

    #[test]
    fn an_absurd_limit_is_refused_by_name_with_the_ceiling() {
        let error = resolve(&LimitsRequest {
            memory_bytes: Some(ByteSize::gib(1 << 20)),
            ..LimitsRequest::default()
        });
        assert_eq!(
            error.unwrap_err().to_string(),
            "limits.memory_bytes is 1024 TiB, above the highest allowed, 16 GiB"
        );
        let error = resolve(&LimitsRequest {
            timeout_ms: Some(Millis(0)),
            ..LimitsRequest::default()
        });
        assert!(error.unwrap_err().to_string().contains("below the lowest"));
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(serde_json::from_str::<LimitsRequest>("{\"memory\": 1}").is_err());
    }

    #[test]
    fn inodes_follow_the_disk_limit() {
        assert_eq!(Limits::DEFAULT.inodes(), 16 * 1024);
    }
}
