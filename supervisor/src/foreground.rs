//! One job in the foreground, without a daemon: `wpool run`.
//!
//! ```text
//!   wpool run ── births ──▶ worker ──▶ init ──▶ job
//!      │  ◀─ commands and replies ─▶ │            │
//!      │                             └ stdin, stdout, stderr
//!      └── live: pumps between its own standard streams and three pipes of the job
//! ```
//!
//! Live, a job's output passes byte for byte and a slow reader slows the job. Captured, it is kept in the output
//! store, bounded, and comes with the outcome.
//!
//! # Invariants
//!
//! - The job never holds a descriptor of the user's: a terminal can be typed into (TIOCSTI), a file position moved and a
//!   flag set through a shared description. It has pipes, and `live` carries between them.
//! - Whatever happens, no process of the run outlives it: the worker is killed by its pidfd when the [`worker::Worker`] is dropped.
//! - The first interruption asks for the job's end, the second does not ask.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use wpool_protocol::id::{AttemptNumber, AttemptRef, JobId};
use wpool_protocol::job::JobRequest;
use wpool_protocol::limits::{Limits, ResolveError};
use wpool_protocol::outcome::Outcome;
use wpool_protocol::timestamp::Timestamp;
use wpool_protocol::wire::{
    AttemptReport, Ending, FromWorker, IsolationPolicy, MountSetup, Ready, Refused, Stdio, ToWorker,
};

pub mod dialogue;
mod ending;
pub mod interruption;
mod live;
mod order;
pub mod worker;

use crate::birth::ids::{IdentityPolicy, Ids, NoIds};
use crate::config::{Config, DEFAULT_PROFILE, IdentityChoice, Profile};
use crate::diagnosis::{self, Failure};
use crate::gather::Gathered;
use crate::report::Streams;
use crate::resource_limits::{self, TooLow};
use dialogue::{Dialogue, DialogueError, Event};
use interruption::Interruptions;
use worker::{Worker, WorkerError, WorkerPlan};

/// Past a job's wall time and grace, how long its worker has to report.
const OVERRUN_SLACK: Duration = Duration::from_secs(10);

/// How long a worker may take to exit when it is told to.
const RETIRE_PATIENCE: Duration = Duration::from_secs(1);

/// A job to run in the foreground.
#[derive(Debug)]
pub struct ForegroundRun {
    /// What to run. Its standard input counts only in [`Mode::Captured`].
    pub request: JobRequest,
    /// What is visible, read-only, beside what its profile shows: the absolute path outside, and the one inside.
    pub read_only: Vec<(PathBuf, String)>,
    /// What the operator decided: profiles, limits, ceilings, isolation.
    pub config: Config,
    /// What becomes of its streams.
    pub mode: Mode,
}

/// What becomes of a job's streams.
#[derive(Debug)]
pub enum Mode {
    /// They pass through this process' own as they come.
    Live {
        /// What the job reads, if not this process' standard input.
        stdin: Option<File>,
    },
    /// They are kept, bounded, and come with the outcome.
    Captured,
}

/// How a run in the foreground ended.
#[derive(Debug)]
pub enum RunEnd {
    /// The job ran.
    Ended(Box<Outcome>),
    /// There is no such program in the sandbox.
    NotFound,
    /// The program is there, and this file is not, without which it does not start.
    Lacking(String),
    /// The program is there but cannot be executed.
    NotExecutable(io::Error),
    /// The user interrupted twice, and did not wait for an outcome.
    Abandoned,
}

/// A run that failed through no fault of the job's.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A profile that the config does not have.
    #[error(
        "profile `{name}` is not in the config, which has {known}: name one of them, or add it"
    )]
    Profile {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A limit that cannot be granted.
    #[error(transparent)]
    Limits(#[from] ResolveError),
    /// No worker.
    #[error(transparent)]
    Worker(WorkerError),
    /// A host that does not let a sandbox stand, or a worker that will not run a job without one of its walls.
    #[error("the sandbox cannot be built: layer `{layer}`: {reason}; remedy: {remedy}")]
    Refused {
        /// The wall.
        layer: String,
        /// Why it cannot be built.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// Two things are to be shown in one place.
    #[error(
        "two paths are to appear at {destination}: leave one out, or name another place with --ro PATH:DEST"
    )]
    Mounts {
        /// The place.
        destination: String,
    },
    /// Nobody's ids for its job.
    #[error(transparent)]
    Ids(NoIds),
    /// This process itself may use too little.
    #[error(transparent)]
    TooLow(#[from] TooLow),
    /// The worker died, hung or broke the protocol.
    #[error("the job's worker was lost: try again, and run `wpool doctor` if it happens again")]
    Lost(#[source] DialogueError),
    /// The box of the job could not be built, or has failed since.
    #[error("the job's box has failed: {0}")]
    BoxFailed(String),
    /// The streams cannot be set up, or what the job writes cannot be passed on.
    #[error("failed to {step}")]
    Streams {
        /// What failed.
        step: &'static str,
        /// How.
        #[source]
        source: io::Error,
    },
}

impl From<Refused> for RunError {
    fn from(refused: Refused) -> Self {
        Self::Refused {
            layer: refused.layer,
            reason: refused.reason,
            remedy: refused.remedy,
        }
    }
}

impl From<WorkerError> for RunError {
    fn from(error: WorkerError) -> Self {
        let failure = match &error {
            WorkerError::Birth(error) => Failure::of_birth(error),
            WorkerError::Nursery(_) | WorkerError::Mount(_) => None,
        };
        failure.map_or_else(|| Self::Worker(error), |failure| failure.explained().into())
    }
}

impl From<NoIds> for RunError {
    fn from(error: NoIds) -> Self {
        diagnosis::refused_ids(&error).map_or_else(|| Self::Ids(error), Self::from)
    }
}

/// Runs the job to its end. To be called on the main thread, with which the worker dies.
///
/// # Errors
///
/// [`RunError`] if wpool failed; how the job ended is never an error.
pub fn run(run: ForegroundRun) -> Result<RunEnd, RunError> {
    resource_limits::raise(1)?;
    let profile = profile_of(&run)?.clone();
    let mounts = [&profile.mounts[..], &run.read_only].concat();
    if let Some(destination) = MountSetup::met_twice(mounts.iter().map(|(_, at)| at.as_str())) {
        return Err(RunError::Mounts {
            destination: destination.to_owned(),
        });
    }
    let limits = run.request.limits.resolve(
        &run.config.limits_of(&profile),
        &run.config.ceilings_of(&profile),
    )?;
    let streams = |step| move |source| RunError::Streams { step, source };
    let interruptions = Interruptions::listen().map_err(streams("listen for interruptions"))?;
    let (stdio, live) = match run.mode {
        Mode::Captured => (None, None),
        Mode::Live { stdin } => {
            let (of_job, ours) = live::pipes(stdin).map_err(streams("make the job's streams"))?;
            (Some(of_job), Some(ours))
        }
    };
    let ids = Ids::claim(match run.config.identity {
        IdentityChoice::Best => IdentityPolicy::Quick,
        IdentityChoice::Own => IdentityPolicy::Own,
    })?;
    let worker = Worker::bear(WorkerPlan {
        policy: run.config.isolation,
        ids,
        mounts,
        stream_bytes: match &stdio {
            Some(_) => 0,
            None => limits.output_bytes.0,
        },
        stdio: stdio
            .as_ref()
            .map(|ends| ends.each_ref().map(OwnedFd::as_fd)),
    })?;
    // The job's ends are the worker's now: ours would keep the pumps from ever seeing the end.
    drop(stdio);
    Run {
        env: profile.env,
        request: run.request,
        limits,
        live,
        interruptions,
        asked: live::Asked::Nothing,
    }
    .with(worker)
}

fn profile_of(run: &ForegroundRun) -> Result<&Profile, RunError> {
    let profiles = &run.config.profiles;
    let name = run.request.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
    profiles.get(name).ok_or_else(|| RunError::Profile {
        name: name.to_owned(),
        known: run.config.profile_names().join(", "),
    })
}

/// Bears a worker for its word on the sandbox alone.
///
/// # Errors
///
/// [`RunError`] if there is no worker or it cannot build one.
pub fn examine(policy: IsolationPolicy, ids: Ids) -> Result<Ready, RunError> {
    let mut worker = Worker::bear(WorkerPlan {
        policy,
        ids,
        mounts: Vec::new(),
        stream_bytes: 0,
        stdio: None,
    })?;
    greet(&mut worker)
}

/// Hears what stands around the jobs of a newborn.
fn greet(worker: &mut Worker) -> Result<Ready, RunError> {
    let greeted = Dialogue::new(worker).and_then(|mut dialogue| dialogue.greet());
    let failure = match greeted {
        Ok(Ok(ready)) => return Ok(ready),
        Ok(Err(refused)) if worker.process.is_none() => return Err(refused.into()),
        Ok(Err(refused)) => Failure::of_layer(&refused),
        Err(error) => match worker.bury() {
            Some(reason) => Failure::of_start(&reason),
            None => return Err(RunError::Lost(error)),
        },
    };
    Err(failure.explained().into())
}

/// A run whose worker has been born.
struct Run {
    request: JobRequest,
    /// What the profile sets in the job's environment.
    env: BTreeMap<String, String>,
    limits: Limits,
    live: Option<live::Streams>,
    interruptions: Interruptions,
    asked: live::Asked,
}

impl Run {
    fn with(mut self, mut worker: Worker) -> Result<RunEnd, RunError> {
        let queued_at = Timestamp::from_system(std::time::SystemTime::now());
        let attempt = AttemptRef {
            job: JobId::first(u64::try_from(queued_at.0).unwrap_or(0)),
            attempt: AttemptNumber::FIRST,
        };
        let ready = greet(&mut worker)?;
        let mut dialogue = Dialogue::with_ready(&mut worker);
        let pumps = self.carry()?;
        let source = match &pumps {
            Some(_) => order::Stdin::Inherited,
            None => order::Stdin::Request,
        };
        let payload = order::payload(&self.request, &self.env, source);
        let stdio = match source {
            order::Stdin::Inherited => Stdio::Inherited,
            order::Stdin::Request => payload.captured(),
        };
        let order = payload.order(attempt, 0, self.limits, stdio);
        dialogue.send_all(order::messages(order, payload));
        let mut outputs = Gathered::default();
        let heard = self.follow(&mut dialogue, attempt, &mut outputs);
        if matches!(heard, Ok(None)) {
            return Ok(RunEnd::Abandoned);
        }
        dialogue.retire(RETIRE_PATIENCE);
        let streams = match (&heard, &pumps) {
            (Ok(Some(report)), None) => {
                let kept = ending::kept(&worker, report, &self.limits);
                kept.map_err(|source| RunError::Streams {
                    step: "read what the job wrote",
                    source,
                })?
            }
            (_, Some(_)) | (Ok(None) | Err(_), None) => Streams::default(),
        };
        // The worker holds the job's ends of the pipes: only its death lets the pumps see their end. And what the job
        // of a lost worker wrote is passed on like any other's.
        drop(worker);
        if self.pass_on(pumps)? == live::Carried::Interrupted {
            return Ok(RunEnd::Abandoned);
        }
        let Some(report) = heard.map_err(RunError::Lost)? else {
            return Ok(RunEnd::Abandoned);
        };
        match &report.ending {
            Ending::NotFound => return Ok(RunEnd::NotFound),
            Ending::Lacking(lacks) => return Ok(RunEnd::Lacking(lacks.clone())),
            Ending::NotExecutable(errno) => {
                return Ok(RunEnd::NotExecutable(io::Error::from_raw_os_error(*errno)));
            }
            Ending::BoxFailed { reason } => return Err(RunError::BoxFailed(reason.clone())),
            Ending::Exited(_)
            | Ending::Signaled(_)
            | Ending::TimedOut(_)
            | Ending::Limit { .. }
            | Ending::Stopped => {}
        }
        Ok(RunEnd::Ended(Box::new(ending::outcome(ending::Ended {
            request: self.request,
            limits: self.limits,
            ready,
            report: *report,
            streams,
            files: outputs.finish(),
            queued_at,
        }))))
    }

    /// Starts to carry the job's streams, if they are live.
    fn carry(&mut self) -> Result<Option<live::Pumps>, RunError> {
        let pumps = self.live.take().map(live::Streams::start).transpose();
        pumps.map_err(|source| RunError::Streams {
            step: "carry the job's streams",
            source,
        })
    }

    /// Waits until everything the job wrote has been read.
    fn pass_on(&mut self, pumps: Option<live::Pumps>) -> Result<live::Carried, RunError> {
        let Some(pumps) = pumps else {
            return Ok(live::Carried::Everything);
        };
        let carried = pumps.finish(self.asked, &mut self.interruptions);
        carried.map_err(|source| RunError::Streams {
            step: "pass on what the job wrote",
            source,
        })
    }

    /// Hears the worker out; `None` if the user did not want to.
    fn follow(
        &mut self,
        dialogue: &mut Dialogue<'_>,
        attempt: AttemptRef,
        outputs: &mut Gathered,
    ) -> Result<Option<Box<AttemptReport>>, DialogueError> {
        let deadline = Instant::now() + self.limits.run_time_max() + OVERRUN_SLACK;
        loop {
            match dialogue.next(deadline, Some(&mut self.interruptions))? {
                Event::Interrupted if self.asked == live::Asked::ForTheEnd => return Ok(None),
                Event::Interrupted => {
                    self.asked = live::Asked::ForTheEnd;
                    dialogue.send_last(ToWorker::Stop(attempt));
                }
                Event::Said(message) => match message {
                    FromWorker::Started(of) if of == attempt => {}
                    FromWorker::Output(header) if header.attempt == attempt => {
                        outputs.announce(header.name, header.size)?;
                    }
                    FromWorker::OutputBytes(piece) if piece.attempt == attempt => {
                        outputs.take(&piece.bytes)?;
                    }
                    FromWorker::Ended(report) if report.attempt == attempt => {
                        return Ok(Some(report));
                    }
                    FromWorker::Started(_)
                    | FromWorker::Output(_)
                    | FromWorker::OutputBytes(_)
                    | FromWorker::Ended(_)
                    | FromWorker::Written(_)
                    | FromWorker::Pong(_)
                    | FromWorker::Hello(_)
                    | FromWorker::Ready(_)
                    | FromWorker::Refused(_) => return Err(DialogueError::Unasked),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests;
