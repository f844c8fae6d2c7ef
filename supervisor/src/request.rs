//! From what a client asks to what a worker is told: profile, limits, host files, tenant.
//!
//! # Invariants
//!
//! - What comes out needs no further question: within its ceilings, allowed to its tenant, its bytes here.
//! - A host file is opened beneath a root of the profile, by a name without links (`openat2`, which also sees
//!   to what moves meanwhile), and read only if it is a regular file.
//! - This blocks (files are read): it is not for the pool's thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wpool_pool::event::{NewJob, RetryRule};
use wpool_protocol::id::JobId;
use wpool_protocol::job::{
    FILES_BYTES_MAX, Growth, InputContent, InputFile, JobError, JobRequest, Priority,
};
use wpool_protocol::limits::{Limits, ResolveError};
use wpool_protocol::path::BoxPath;
use wpool_protocol::quantity::{ByteSize, Millis};

use crate::config::{Config, DEFAULT_PROFILE, Profile};

pub mod host_file;
pub mod payload;

use host_file::HostFileError;
use payload::{Input, Payload};

/// What a job takes of the queue beside its own bytes: the records about it, roughly.
const JOB_OVERHEAD: u64 = 1_024;

/// Characters of a command that listings show.
const COMMAND_SHOWN_MAX: usize = 120;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whose jobs these are, unless an administrator says otherwise.
    pub tenant: Arc<str>,
    /// What they may do.
    pub role: Role,
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// See to their own jobs.
    Submitter,
}

/// A job that can be queued.
#[derive(Clone, Debug)]
pub struct ResolvedJob {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Its class.
    pub priority: Priority,
    /// Order within class and tenant.
    pub rank: i32,
    /// What it takes of the queue's bytes.
    pub bytes: u64,
    /// Earliest start.
    pub delay: Duration,
    /// Latest start.
    pub start_within: Option<Millis>,
    /// Lost workers that it may cost.
    pub attempts_max: u32,
    /// What makes a further attempt.
    pub retry_on: RetryRule,
    /// The memory limit after an attempt that reached it: how many times as much, and at most.
    pub memory_growth: Option<(Growth, ByteSize)>,
    /// The memory limit of the first attempt.
    pub memory_asked: ByteSize,
    /// The limits that hold.
    pub limits: Limits,
    /// The name of its profile.
    pub profile: String,
    /// The start of its command, for listings.
    pub command: Arc<str>,
    /// As submitted.
    pub labels: BTreeMap<String, String>,
    /// What only its worker needs.
    pub payload: Arc<Payload>,
    /// The name under which it is accepted only once, and the mark of what it asks.
    pub key: Option<(String, u64)>,
    /// The quarantined job that it is made of.
    pub released_from: Option<JobId>,
}

/// A job that cannot be accepted, whatever the queue holds.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A field that cannot be.
    #[error(transparent)]
    Field(#[from] JobError),
    /// A limit that is not granted.
    #[error(transparent)]
    Limits(#[from] ResolveError),
    /// Another tenant than the caller's own.
    #[error(
        "tenant: only an administrator may submit for another tenant; leave it out, or name `{own}`"
    )]
    Tenant {
        /// The caller's own.
        own: String,
    },
    /// No such profile.
    #[error("profile: there is no profile `{name}`; there are: {known}")]
    UnknownProfile {
        /// The name.
        name: String,
        /// Those that the caller may use.
        known: String,
    },
    /// A profile for others.
    #[error("profile: `{name}` may not be used by this tenant")]
    ForbiddenProfile {
        /// The name.
        name: String,
    },
    /// A host file.
    #[error("files.{name}: {source}")]
    HostFile {
        /// The name in the box.
        name: String,
        /// What is wrong with it.
        #[source]
        source: HostFileError,
    },
    /// All files together, host files included.
    #[error("files: together they are larger than 64 MiB")]
    FilesTooLarge,
}

/// Makes of a request a job that can be queued.
///
/// # Errors
///
/// [`RequestError`] names the first field that cannot be.
pub fn resolve(
    request: JobRequest,
    caller: &Caller,
    config: &Config,
) -> Result<ResolvedJob, RequestError> {
    request.validate()?;
    let key = request.idempotency_key.clone();
    let key = key.map(|key| (key, mark(&request)));
    let tenant = tenant(request.tenant.as_deref(), caller)?;
    let name = request.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
    let profile = profile(name, &tenant, caller, config)?;
    let limits = request
        .limits
        .resolve(&config.limits_of(profile), &config.ceilings_of(profile))?;
    let name = name.to_owned();
    let files = inputs(request.files, profile)?;
    let payload = Payload {
        env: payload::environment(&profile.env, request.env),
        argv: request.command,
        stdin: request.stdin.unwrap_or_default().0,
        files,
        outputs: request.outputs,
    };
    let labels = request.labels.iter();
    let labels = labels.map(|(name, value)| payload::text(name) + payload::text(value));
    let key_len = key.as_ref().map_or(0, |(key, _)| payload::text(key));
    let beside = u64::try_from(labels.sum::<usize>() + key_len).unwrap_or(u64::MAX >> 1);
    let retry_on = match request.retry_on.as_deref() {
        None => RetryRule::WORKER_LOST,
        Some(reasons) => {
            let reasons = reasons.iter();
            reasons.fold(RetryRule::NEVER, |rule, reason| rule.and(*reason))
        }
    };
    let memory_max = config.ceilings_of(profile).memory_bytes;
    Ok(ResolvedJob {
        tenant,
        priority: request.priority,
        rank: request.rank,
        bytes: payload.bytes().saturating_add(JOB_OVERHEAD + beside),
        delay: request.delay_ms.unwrap_or_default().into(),
        start_within: request.start_within_ms,
        attempts_max: request.attempts_max.unwrap_or(config.attempts_max),
        retry_on,
        memory_growth: request.memory_growth.map(|growth| (growth, memory_max)),
        memory_asked: limits.memory_bytes,
        limits,
        profile: name,
        command: summary(&payload.argv).into(),
        labels: request.labels,
        payload: Arc::new(payload),
        key,
        released_from: None,
    })
}

/// Tells two requests apart: a key that comes again must mean the same.
fn mark(request: &JobRequest) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    let mut hasher = DefaultHasher::new();
    // A request that came as JSON goes as JSON.
    serde_json::to_vec(request)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

fn tenant(named: Option<&str>, caller: &Caller) -> Result<Arc<str>, RequestError> {
    match (named, caller.role) {
        (None, _) => Ok(Arc::clone(&caller.tenant)),
        (Some(named), _) if *named == *caller.tenant => Ok(Arc::clone(&caller.tenant)),
        (Some(named), Role::Admin) => Ok(named.into()),
        (Some(_), Role::Submitter) => Err(RequestError::Tenant {
            own: caller.tenant.as_ref().to_owned(),
        }),
    }
}

fn profile<'a>(
    name: &str,
    tenant: &str,
    caller: &Caller,
    config: &'a Config,
) -> Result<&'a Profile, RequestError> {
    let may_use = |profile: &Profile| {
        let users = profile.users.as_ref();
        caller.role == Role::Admin
            || users.is_none_or(|users| users.iter().any(|user| user == tenant))
    };
    let Some(profile) = config.profiles.get(name) else {
        let known = config.profiles.iter();
        let known: Vec<_> = known
            .filter(|(_, profile)| may_use(profile))
            .map(|(name, _)| name.as_str())
            .collect();
        return Err(RequestError::UnknownProfile {
            name: name.to_owned(),
            known: known.join(", "),
        });
    };
    if may_use(profile) {
        Ok(profile)
    } else {
        Err(RequestError::ForbiddenProfile {
            name: name.to_owned(),
        })
    }
}

/// The files, those of the host read.
fn inputs(
    files: BTreeMap<BoxPath, InputFile>,
    profile: &Profile,
) -> Result<Vec<Input>, RequestError> {
    let mut inputs = Vec::with_capacity(files.len());
    let mut room = FILES_BYTES_MAX;
    for (name, file) in files {
        let bytes = match file.content {
            InputContent::Bytes(bytes) => bytes,
            InputContent::HostPath(path) => {
                let read = host_file::read_beneath(&path, &profile.file_roots, room);
                read.map_err(|source| RequestError::HostFile {
                    name: name.to_string(),
                    source,
                })?
            }
        };
        room = room
            .checked_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            .ok_or(RequestError::FilesTooLarge)?;
        inputs.push(Input {
            name,
            mode: file.mode,
            bytes,
        });
    }
    Ok(inputs)
}

/// The start of a command, on one line.
fn summary(argv: &[String]) -> String {
    let mut text = String::new();
    for argument in argv {
        if text.chars().count() > COMMAND_SHOWN_MAX {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.extend(argument.chars().take(COMMAND_SHOWN_MAX));
    }
    if text.chars().count() > COMMAND_SHOWN_MAX {
        text = text.chars().take(COMMAND_SHOWN_MAX - 1).collect();
        text.push('…');
    }
    text
}

impl ResolvedJob {
    /// What the pool must know of it.
    pub fn for_pool(&self, id: JobId) -> NewJob {
        NewJob {
            id,
            tenant: self.tenant.as_ref().to_owned(),
            priority: self.priority,
            rank: self.rank,
            bytes: self.bytes,
            run_time_max: self.limits.run_time_max(),
            delay: self.delay,
            start_within: self.start_within.map(Duration::from),
            attempts_max: self.attempts_max,
            retry_on: self.retry_on,
        }
    }
}

#[cfg(test)]
mod tests;
