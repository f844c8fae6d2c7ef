//! What clients and signals ask of the driver, and the handle by which they ask.
//!
//! # Invariants
//!
//! - A client waits for room here, the driver never for a client: answers go to a channel that takes them at once.
//! - Of another tenant's job a submitter learns nothing, not even that it is there.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use wpool_pool::action::Refusal;
use wpool_protocol::explanation::{JobExplanation, PoolExplanation};
use wpool_protocol::id::{AttemptNumber, JobId};
use wpool_protocol::outcome::{JobState, Outcome};
use wpool_protocol::status::{PoolStatus, Submitted};
use wpool_protocol::wire::Stream;

use super::job::Progress;
pub use super::quarantine::NotAside;
use super::register::{Filter, Page};
use crate::config::{Config, Reload};
use crate::request::{Caller, ResolvedJob};

/// Commands that may wait for the driver.
const COMMANDS_MAX: usize = 256;

/// What is asked of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// Queue a job.
    Submit(Box<ResolvedJob>, oneshot::Sender<SubmitAnswer>),
    /// End a job, or forget how it ended.
    Delete(JobId, Caller, oneshot::Sender<Option<Deleted>>),
    /// Say what becomes of a job.
    Watch(JobId, Caller, oneshot::Sender<Option<Watched>>),
    /// Give what a job has written.
    Read(Reader, oneshot::Sender<Option<Reading>>),
    /// Submit a copy of a quarantined job.
    Release(JobId, Caller, oneshot::Sender<ReleaseAnswer>),
    /// Let go of a quarantined job.
    Discard(JobId, Caller, oneshot::Sender<Result<(), NotAside>>),
    /// List jobs.
    List(Filter, oneshot::Sender<Page>),
    /// Say why a job is where it is.
    Explain(JobId, Caller, oneshot::Sender<Option<JobExplanation>>),
    /// Say why the pool and its slots are as they are.
    ExplainPool(Caller, oneshot::Sender<PoolExplanation>),
    /// Show the pool; only an administrator sees whose jobs run.
    Status(Caller, oneshot::Sender<PoolStatus>),
    /// Tell the pool what to do.
    Order(PoolOrder, oneshot::Sender<()>),
    /// End what waits, and say how many jobs that were.
    Clear(oneshot::Sender<u64>),
    /// Use another config from now on, or say why that cannot be.
    Configure(Result<Box<Reload>, String>),
    /// Finish what runs, then stop.
    Shutdown,
    /// Kill what runs, then stop.
    StopAtOnce,
}

/// What an operator tells the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolOrder {
    /// Accept jobs and start none.
    Pause,
    /// Accept and start jobs.
    Resume,
    /// Refuse jobs and finish what runs.
    Drain,
    /// Refuse jobs and finish what runs and what waits.
    DrainQueued,
    /// Have so many workers.
    Resize(u16),
    /// Replace every worker, one by one.
    Recycle,
}

/// The answer to a release: where to hear whether the copy is accepted.
type ReleaseAnswer = Result<oneshot::Receiver<SubmitAnswer>, NotAside>;

/// The answer to a submission.
pub type SubmitAnswer = Result<Acceptance, NotAccepted>;

/// A job that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is new.
    New(Submitted),
    /// The key was used for it before.
    Known(Submitted),
}

/// Why a job is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAccepted {
    /// The pool says no.
    Refused(Refusal),
    /// Its key stands for another job.
    KeyTaken(Box<KeyTaken>),
    /// The driver is gone.
    Gone,
}

/// Two jobs that want one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTaken {
    /// The key.
    pub key: String,
    /// The job that has it.
    pub id: JobId,
    /// The start of its command.
    pub command: Arc<str>,
    /// The start of the command of the one that came now.
    pub new_command: Arc<str>,
}

/// Why a quarantined job is not tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReleased {
    /// It is not there to be released.
    NotAside(NotAside),
    /// Its copy is not accepted.
    NotAccepted(NotAccepted),
}

impl From<NotAside> for NotReleased {
    fn from(not_aside: NotAside) -> Self {
        Self::NotAside(not_aside)
    }
}

impl From<NotAccepted> for NotReleased {
    fn from(not_accepted: NotAccepted) -> Self {
        Self::NotAccepted(not_accepted)
    }
}

/// What became of the wish to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The job is asked to end; this is its state until it has.
    Asked(JobState),
    /// Its outcome is forgotten.
    Forgotten,
}

/// What becomes of a job.
#[derive(Clone, Debug)]
pub enum Watched {
    /// It has not ended.
    Live(watch::Receiver<Progress>),
    /// It has.
    Ended(Arc<Outcome>),
}

/// How far a reader of a job's output has come.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The job.
    pub id: JobId,
    /// Who reads.
    pub caller: Caller,
    /// The attempt that the positions are of.
    pub attempt: Option<AttemptNumber>,
    /// Which streams, and from which byte on.
    pub from: Vec<(Stream, u64)>,
    /// Whether it will want to know when there is more.
    pub interest: Interest,
}

/// Whether a reader will come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// It wants what there is.
    Present,
    /// It wants to know when there is more.
    Future,
}

/// What a job has written.
#[derive(Debug)]
pub enum Reading {
    /// Of a run that goes on: the next bytes, and where to wait for more.
    Live {
        /// The run; `None` if there is none at present.
        attempt: Option<AttemptNumber>,
        /// The bytes that come next.
        chunks: Vec<Chunk>,
        /// Changes when there may be more.
        progress: watch::Receiver<Progress>,
    },
    /// The job has ended: all that is kept is in its outcome.
    Ended(Arc<Outcome>),
}

/// Bytes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which.
    pub stream: Stream,
    /// The number of the first of them.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// By which the driver is asked.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    config: watch::Receiver<Arc<Config>>,
}

/// The driver has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor has stopped")]
pub struct Stopped;

impl Handle {
    /// A handle, and where its commands come out.
    pub(super) fn new(config: watch::Receiver<Arc<Config>>) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        (Self { commands, config }, receiver)
    }

    /// The config that holds now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Queues a job.
    pub async fn submit(&self, job: ResolvedJob) -> SubmitAnswer {
        let answer = self.ask(|reply| Command::Submit(Box::new(job), reply));
        answer.await.unwrap_or(Err(NotAccepted::Gone))
    }

    /// Ends a job, or forgets how it ended; `None` if there is none for this caller.
    ///
    /// # Errors
    ///
    /// [`Stopped`], here and below, if nobody is there to answer.
    pub async fn delete(&self, id: JobId, caller: &Caller) -> Result<Option<Deleted>, Stopped> {
        self.ask(|reply| Command::Delete(id, caller.clone(), reply))
            .await
    }

    /// Tries a quarantined job again, as a new one.
    pub async fn release(
        &self,
        id: JobId,
        caller: &Caller,
    ) -> Result<Result<Submitted, NotReleased>, Stopped> {
        let answer = self.ask(|reply| Command::Release(id, caller.clone(), reply));
        let submission = match answer.await? {
            Ok(submission) => submission,
            Err(not_aside) => return Ok(Err(not_aside.into())),
        };
        let accepted = submission.await.map_err(|_| Stopped)?;
        Ok(match accepted {
            Ok(Acceptance::New(submitted) | Acceptance::Known(submitted)) => Ok(submitted),
            Err(not_accepted) => Err(not_accepted.into()),
        })
    }

    /// Lets go of a quarantined job.
    pub async fn discard(
        &self,
        id: JobId,
        caller: &Caller,
    ) -> Result<Result<(), NotAside>, Stopped> {
        self.ask(|reply| Command::Discard(id, caller.clone(), reply))
            .await
    }

    /// What becomes of a job; `None` if there is none for this caller.
    pub async fn watch(&self, id: JobId, caller: &Caller) -> Result<Option<Watched>, Stopped> {
        self.ask(|reply| Command::Watch(id, caller.clone(), reply))
            .await
    }

    /// What a job has written; `None` if there is none for this caller.
    pub async fn read(&self, reader: Reader) -> Result<Option<Reading>, Stopped> {
        self.ask(|reply| Command::Read(reader, reply)).await
    }

    /// A page of a listing; the driver is asked for as many parts as it takes.
    pub async fn list(&self, mut filter: Filter) -> Result<Page, Stopped> {
        let mut jobs = Vec::new();
        loop {
            let part = filter.clone();
            let page = self.ask(|reply| Command::List(part, reply)).await?;
            filter.limit -= page.jobs.len().min(filter.limit);
            jobs.extend(page.jobs);
            match page.next {
                Some(next) if filter.limit > 0 => filter.before = next,
                next => return Ok(Page { jobs, next }),
            }
        }
    }

    /// Why a job is where it is; `None` if there is none for this caller.
    pub async fn explain(
        &self,
        id: JobId,
        caller: &Caller,
    ) -> Result<Option<JobExplanation>, Stopped> {
        self.ask(|reply| Command::Explain(id, caller.clone(), reply))
            .await
    }

    /// Why the pool and its slots are as they are.
    pub async fn explain_pool(&self, caller: &Caller) -> Result<PoolExplanation, Stopped> {
        self.ask(|reply| Command::ExplainPool(caller.clone(), reply))
            .await
    }

    /// The pool at a glance.
    pub async fn status(&self, caller: &Caller) -> Result<PoolStatus, Stopped> {
        self.ask(|reply| Command::Status(caller.clone(), reply))
            .await
    }

    /// Tells the pool what to do.
    pub async fn order(&self, order: PoolOrder) -> Result<(), Stopped> {
        self.ask(|reply| Command::Order(order, reply)).await
    }

    /// Ends what waits now; so many jobs.
    pub async fn clear(&self) -> Result<u64, Stopped> {
        self.ask(Command::Clear).await
    }

    /// Puts another config in force, or tells why it cannot be.
    pub async fn configure(&self, reload: Result<Box<Reload>, String>) -> Result<(), Stopped> {
        self.tell(Command::Configure(reload)).await
    }

    /// Finishes what runs within the grace, then stops.
    pub async fn shut_down(&self) -> Result<(), Stopped> {
        self.tell(Command::Shutdown).await
    }

    /// Kills what runs and stops.
    pub async fn stop_at_once(&self) -> Result<(), Stopped> {
        self.tell(Command::StopAtOnce).await
    }

    async fn tell(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }
}
