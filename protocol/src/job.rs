//! A job as a client submits it: `POST /v1/jobs`.
//!
//! Everything but `command` is optional, unknown fields are refused, and what can be wrong with one
//! field alone is refused while parsing. What depends on the config (profiles, ceilings, file roots)
//! is decided by the supervisor.
//!
//! # Invariants
//!
//! - A request that [`JobRequest::validate`] lets pass can be handed to `execve` and fits a frame.
//! - What is parsed and printed again is the same JSON: defaults are left out.

mod input;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::blob::Blob;
use crate::limits::LimitsRequest;
use crate::object::{each_key_once, object};
use crate::path::BoxPath;
use crate::quantity::Millis;

pub use input::{InputContent, InputFile};

/// Files of a job, each way.
pub const FILES_MAX: usize = 4_096;

/// Bytes of a job's files together, each way.
pub const FILES_BYTES_MAX: u64 = 64 << 20;

/// Bytes of `command` and `env` together, NULs included: half of what `execve` takes with a stack of 8 MiB is far more.
pub const ARGUMENTS_BYTES_MAX: usize = 512 << 10;

/// Bytes of one argument: the kernel's `MAX_ARG_STRLEN` (32 pages), NUL included.
pub const ARGUMENT_LEN_MAX: usize = 128 << 10;

/// Patterns in `outputs`.
pub const OUTPUTS_MAX: usize = 256;

/// Labels of a job.
pub const LABELS_MAX: usize = 32;

/// The longest `delay_ms`: a job that waits takes a place in the queue.
pub const DELAY_MAX: Millis = Millis(30 * 24 * 3_600_000);

/// Bytes of a label's name or value, of a tenant, of a profile's name, of an idempotency key.
pub const NAME_LEN_MAX: usize = 255;

/// A job, as submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// The program and its arguments; the program is looked up in the sandbox's `PATH`.
    pub command: Vec<String>,
    /// The sandbox set-up, by its name in the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What the job reads on descriptor 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Blob>,
    /// Files to lay into `/box` before the start.
    #[serde(
        default,
        deserialize_with = "each_key_once",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub files: BTreeMap<BoxPath, InputFile>,
    /// Names or patterns (`*`, `?`, `[…]`, `**`) of files to bring out of `/box` after the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// Environment variables, beside the few that the sandbox sets.
    #[serde(
        default,
        deserialize_with = "each_key_once",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub env: BTreeMap<String, String>,
    /// Limits.
    #[serde(
        default,
        deserialize_with = "object",
        skip_serializing_if = "is_default"
    )]
    pub limits: LimitsRequest,
    /// Which class of the queue.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// Order within class and tenant: higher first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rank: i32,
    /// Whose job it is; only an administrator may name another tenant than their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Free text pairs, given back with the outcome.
    #[serde(
        default,
        deserialize_with = "each_key_once",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// Earliest start, from now; ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<Millis>,
    /// Latest start, from now (else the job ends as `expired`); ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_within_ms: Option<Millis>,
    /// How many attempts it may have; 1 to 100. After the last a lost worker means quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    /// What makes a further attempt, as long as there are fewer than `attempts_max`; a lost worker alone if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<Vec<RetryOn>>,
    /// How many times its memory limit a job has that is tried again because that was reached; up to its ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_growth: Option<Growth>,
    /// A name under which the same job is accepted only once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The class of a job in the queue.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before all others, but not to their starvation.
    High,
    /// The usual.
    #[default]
    Normal,
    /// When nothing else waits, and at least every tenth start.
    Low,
}

impl Priority {
    /// The classes, first served first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The name as JSON and people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What makes a further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// The worker died, hung or broke the protocol.
    WorkerLost,
    /// It ended by itself, otherwise than with exit code 0.
    Failed,
    /// Its wall time was over.
    TimedOut,
    /// It reached its memory limit.
    Memory,
    /// It reached another limit that ends a job.
    LimitExceeded,
}

impl RetryOn {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::WorkerLost,
        Self::Failed,
        Self::TimedOut,
        Self::Memory,
        Self::LimitExceeded,
    ];

    /// The name as JSON and people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WorkerLost => "worker_lost",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Memory => "memory",
            Self::LimitExceeded => "limit_exceeded",
        }
    }
}

/// A factor from 1 to 8, in hundredths, so that it compares and travels as a whole number; in JSON a number like `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Growth(u16);

impl Growth {
    /// So many times `bytes`, and at least a byte more for a factor above 1.
    pub const fn of(self, bytes: u64) -> u64 {
        (bytes / 100)
            .saturating_mul(self.0 as u64)
            .saturating_add(bytes % 100 * self.0 as u64 / 100)
    }
}

impl TryFrom<f64> for Growth {
    type Error = &'static str;

    fn try_from(factor: f64) -> Result<Self, Self::Error> {
        if !(1.0..=8.0).contains(&factor) {
            return Err("memory_growth: it must be 1 to 8, like 2 or 1.5");
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is 100 to 800"
        )]
        Ok(Self((factor * 100.0).round() as u16))
    }
}

impl From<Growth> for f64 {
    fn from(growth: Growth) -> Self {
        Self::from(growth.0) / 100.0
    }
}

impl std::str::FromStr for Growth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let factor: f64 = text.parse().map_err(|_| "expected a number like 1.5")?;
        Self::try_from(factor).map_err(ToOwned::to_owned)
    }
}

/// A job that cannot be run whatever the config says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct JobError {
    /// The field of the request.
    pub field: &'static str,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

impl JobRequest {
    /// Checks what needs no config: sizes, counts, NULs.
    ///
    /// # Errors
    ///
    /// [`JobError`] names the first field that cannot be.
    pub fn validate(&self) -> Result<(), JobError> {
        self.validate_arguments()?;
        self.validate_files()?;
        self.validate_names()?;
        if self.delay_ms.unwrap_or_default() > DELAY_MAX {
            return refuse("delay_ms", "it is more than 30 days");
        }
        if !(1..=100).contains(&self.attempts_max.unwrap_or(1)) {
            return refuse("attempts_max", "it must be 1 to 100");
        }
        let delay = self.delay_ms.unwrap_or_default();
        if delay.0 > 0 && self.start_within_ms.is_some_and(|within| within <= delay) {
            return refuse(
                "start_within_ms",
                "it is over before delay_ms is: the job could only expire",
            );
        }
        let grows = |reasons: &Vec<RetryOn>| reasons.contains(&RetryOn::Memory);
        if self.memory_growth.is_some() && !self.retry_on.as_ref().is_some_and(grows) {
            return refuse(
                "memory_growth",
                "it means something only with `memory` in retry_on",
            );
        }
        Ok(())
    }

    /// `command` and `env`: what `execve` takes.
    fn validate_arguments(&self) -> Result<(), JobError> {
        match self.command.first().map(String::as_str) {
            None => return refuse("command", "it is empty; name a program"),
            Some("") => return refuse("command", "the program's name is empty"),
            Some(_) => {}
        }
        if self.command.iter().any(|argument| argument.contains('\0')) {
            return refuse("command", "an argument holds a NUL byte");
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return refuse(
                    "env",
                    "a name is empty or holds `=`, or something holds a NUL byte",
                );
            }
        }
        let arguments = self.command.iter().map(|argument| argument.len() + 1);
        let variables = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len() + 2);
        let mut lengths = arguments.chain(variables);
        if lengths.clone().any(|len| len > ARGUMENT_LEN_MAX) {
            return refuse(
                "command",
                "one argument or variable is longer than 128 KiB; hand it in as a file",
            );
        }
        // Every length is at most `ARGUMENT_LEN_MAX` now, but their number has no limit of its own.
        let total = lengths.try_fold(0usize, usize::checked_add);
        if total.is_none_or(|total| total > ARGUMENTS_BYTES_MAX) {
            return refuse(
                "command",
                "with env it is longer than 512 KiB; hand it in as a file",
            );
        }
        Ok(())
    }

    /// `files` and `outputs`: how many, how large, and where.
    fn validate_files(&self) -> Result<(), JobError> {
        if self.files.len() > FILES_MAX {
            return refuse("files", "more than 4096 files");
        }
        for name in self.files.keys() {
            let mut above = name.as_str().match_indices('/').filter_map(|(at, _)| {
                let above: BoxPath = name.as_str().get(..at)?.parse().ok()?;
                self.files.contains_key(&above).then_some(above)
            });
            if let Some(above) = above.next() {
                let problem = format!("`{name}` lies beneath `{above}`, which is a file");
                return refuse("files", problem);
            }
        }
        let bytes: u64 = self.files.values().map(InputFile::inline_bytes).sum();
        if bytes > FILES_BYTES_MAX {
            return refuse("files", "together they are larger than 64 MiB");
        }
        if self.outputs.len() > OUTPUTS_MAX {
            return refuse("outputs", "more than 256 patterns");
        }
        for pattern in &self.outputs {
            if let Err(error) = pattern.parse::<BoxPath>() {
                return refuse("outputs", error.to_string());
            }
        }
        Ok(())
    }

    /// What is only given back or compared: how many and how long.
    fn validate_names(&self) -> Result<(), JobError> {
        if self.labels.len() > LABELS_MAX {
            return refuse("labels", "more than 32 labels");
        }
        let labels = self.labels.iter();
        let labels = labels.flat_map(|(name, value)| [("labels", name), ("labels", value)]);
        let others = [
            ("tenant", &self.tenant),
            ("profile", &self.profile),
            ("idempotency_key", &self.idempotency_key),
        ];
        let others = others
            .into_iter()
            .filter_map(|(field, name)| Some((field, name.as_ref()?)));
        let mut names = labels.chain(others);
        if let Some((field, _)) = names.find(|(_, name)| name.len() > NAME_LEN_MAX) {
            return refuse(field, "a name or value is longer than 255 bytes");
        }
        if self.idempotency_key.as_deref() == Some("") {
            return refuse("idempotency_key", "it is empty; leave it out, or name one");
        }
        let tenant = self.tenant.as_deref();
        if tenant.is_some_and(|name| name.is_empty() || name.contains(char::is_control)) {
            return refuse("tenant", "it is empty or holds a control character");
        }
        Ok(())
    }
}

fn refuse(field: &'static str, problem: impl Into<String>) -> Result<(), JobError> {
    Err(JobError {
        field,
        problem: problem.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Object;

    fn parse(json: &str) -> Result<JobRequest, serde_json::Error> {
        serde_json::from_str(json).map(|Object(job)| job)
    }

    #[test]
    fn a_command_alone_is_a_job() {
        let job = parse(r#"{"command": ["true"]}"#).unwrap();
        assert!(job.validate().is_ok());
        assert_eq!(
            serde_json::to_string(&job).unwrap(),
            r#"{"command":["true"]}"#
        );
    }

    #[test]
    fn a_job_survives_json() {
        let json = r#"{"command":["python3","main.py"],"stdin":{"base64":"/w=="},"files":{"in.txt":"hi","tool":{"base64":"/w==","mode":"755"},"x":{"path":"/srv/x"}},"outputs":["out/*.png"],"limits":{"timeout_ms":5000},"priority":"high"}"#;
        let job = parse(json).unwrap();
        assert_eq!(serde_json::to_string(&job).unwrap(), json);
        assert_eq!(job.files[&"tool".parse().unwrap()].mode, 0o755);
    }

    #[test]
    fn what_is_wrong_with_one_field_is_said() {
        for (json, word) in [
            (
                r#"{"command": ["x"], "colour": 1}"#,
                "unknown field `colour`",
            ),
            (r#"{"command": ["x"], "files": {"../a": ""}}"#, "`..`"),
            (
                r#"{"command": ["x"], "files": {"a": {"mode": "755"}}}"#,
                "one of text",
            ),
            (
                r#"{"command": ["x"], "files": {"a": {"text": "", "mode": "4755"}}}"#,
                "octal",
            ),
            (r#"{"command": ["x"], "priority": "urgent"}"#, "urgent"),
            ("{}", "command"),
            (r#"[["true"]]"#, "an object"),
            (r#"{"command": ["x"], "limits": [5000]}"#, "an object"),
            (
                r#"{"command": ["x"], "env": {"A": "1", "A": "2"}}"#,
                "`A` is there twice",
            ),
            (
                r#"{"command": ["x"], "labels": {"a": "", "a": ""}}"#,
                "`a` is there twice",
            ),
            (
                r#"{"command": ["x"], "files": {"f": "", "f": ""}}"#,
                "`f` is there twice",
            ),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(word), "{json}: {error}");
        }
    }

    #[test]
    fn what_needs_the_whole_job_is_checked_by_validate() {
        let good = JobRequest {
            command: vec!["x".into()],
            ..JobRequest::default()
        };
        assert!(good.validate().is_ok());
        let empty = JobRequest::default();
        assert_eq!(empty.validate().unwrap_err().field, "command");
        let nul = JobRequest {
            command: vec!["x\0".into()],
            ..JobRequest::default()
        };
        assert_eq!(nul.validate().unwrap_err().field, "command");
        let climbing = JobRequest {
            outputs: vec!["../*".into()],
            ..good.clone()
        };
        assert_eq!(climbing.validate().unwrap_err().field, "outputs");
        let files = ["a", "a.b", "a/b/c"].map(|name| {
            let content = InputContent::Bytes(Vec::new());
            let mode = 0o644;
            (name.parse().unwrap(), InputFile { content, mode })
        });
        let one_in_the_way_of_another = JobRequest {
            files: files.into(),
            ..good.clone()
        };
        let error = one_in_the_way_of_another.validate().unwrap_err();
        assert_eq!(error.problem, "`a/b/c` lies beneath `a`, which is a file");
        let stubborn = JobRequest {
            attempts_max: Some(0),
            ..good
        };
        assert_eq!(stubborn.validate().unwrap_err().field, "attempts_max");
        for (json, field) in [
            (
                r#"{"command": ["x"], "idempotency_key": ""}"#,
                "idempotency_key",
            ),
            (
                r#"{"command": ["x"], "delay_ms": 10, "start_within_ms": 10}"#,
                "start_within_ms",
            ),
            (
                r#"{"command": ["x"], "memory_growth": 2, "retry_on": ["failed"]}"#,
                "memory_growth",
            ),
            (r#"{"command": ["x"], "memory_growth": 2}"#, "memory_growth"),
        ] {
            assert_eq!(parse(json).unwrap().validate().unwrap_err().field, field);
        }
    }

    #[test]
    fn the_field_that_is_too_long_is_named() {
        let long = Some("x".repeat(256));
        let job = || JobRequest {
            command: vec!["true".into()],
            ..JobRequest::default()
        };
        let key = JobRequest {
            idempotency_key: long.clone(),
            ..job()
        };
        assert_eq!(key.validate().unwrap_err().field, "idempotency_key");
        let profile = JobRequest {
            profile: long,
            ..job()
        };
        assert_eq!(profile.validate().unwrap_err().field, "profile");
        let late = JobRequest {
            delay_ms: Some(Millis(u64::MAX)),
            ..job()
        };
        assert_eq!(late.validate().unwrap_err().field, "delay_ms");
    }

    #[test]
    fn a_tenant_has_a_name_that_can_be_shown() {
        for name in ["", "a\nb", "\u{1b}[31m"] {
            let job = JobRequest {
                command: vec!["true".into()],
                tenant: Some(name.into()),
                ..JobRequest::default()
            };
            assert_eq!(job.validate().unwrap_err().field, "tenant", "{name:?}");
        }
    }
}
