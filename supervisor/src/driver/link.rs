//! The two tasks that speak with one worker: the ear reads what it says and sees it die, the mouth writes.
//!
//! ```text
//!   replies ──▶ frames ──▶ Input::Said ──▶ ┐
//!   pidfd   ──▶ exit status ─────────────▶ │ driver      (bounded: a worker that talks too much waits)
//!                                          │
//!   commands ◀── frames ◀── Speech ◀────── ┘             (bounded: what does not fit is lost, and the
//!                                                         pool's deadlines see to a worker that does not read)
//! ```
//!
//! # Invariants
//!
//! - The exit is told last: everything that the worker said before it died is heard first.
//! - A job's inputs are encoded one chunk at a time, as the pipe takes them. What is said meanwhile (a ping, a stop)
//!   goes between two chunks, never before the job itself.
//! - An order whose job has ended is not written to its end: the mouth holds the payload weakly.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Weak;
use std::time::Duration;

use interprocess::unnamed_pipe::tokio::{Recver, Sender};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use wpool_protocol::frame::{self, Decoder};
use wpool_protocol::id::{AttemptRef, WorkerRef};
use wpool_protocol::wire::{CHUNK_MAX, FromWorker, JobOrder, ToWorker};

use super::input::Input;
use crate::report::signal_name;
use crate::request::payload::{Payload, Place};

/// Bytes of one read: what a pipe holds.
const READ_LEN: usize = 64 << 10;

/// Things to say that may wait for a worker to read: a ping, a stop and a follow each, and a job.
const SPEECHES_MAX: usize = 64;

/// How long a worker whose pipe is closed may live on: dying takes milliseconds.
const SILENT_LIFE_MAX: Duration = Duration::from_secs(1);

/// Something to say to a worker.
#[derive(Debug)]
pub(super) enum Speech {
    /// One message.
    Message(ToWorker),
    /// A job with its inputs.
    Job(Box<JobOrder>, Weak<Payload>),
}

/// How a worker process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
    Unknown,
}

/// Both tasks; they end with it.
#[derive(Debug)]
pub(super) struct Link {
    mouth: mpsc::Sender<Speech>,
    ear: tokio::task::AbortHandle,
}

impl Link {
    /// Starts both tasks.
    pub(super) fn open(
        worker: WorkerRef,
        commands: OwnedFd,
        replies: OwnedFd,
        pidfd: OwnedFd,
        tell: mpsc::Sender<Input>,
    ) -> io::Result<Self> {
        let commands = Sender::try_from(commands)?;
        let replies = Recver::try_from(replies)?;
        let pidfd = watch(pidfd)?;
        let (mouth, speeches) = mpsc::channel(SPEECHES_MAX);
        // The mouth ends when its sender is dropped, or with the pipe.
        drop(tokio::spawn(speak(commands, speeches)));
        let ear = Ear {
            worker,
            replies: Some(replies),
            decoder: Decoder::of_replies(),
            tell,
        };
        let ear = tokio::spawn(ear.listen(pidfd)).abort_handle();
        Ok(Self { mouth, ear })
    }

    /// Says something, or loses it if the worker has not read for long.
    pub(super) fn say(&self, speech: Speech) -> Result<(), Speech> {
        self.mouth.try_send(speech).map_err(|error| match error {
            mpsc::error::TrySendError::Full(speech) | mpsc::error::TrySendError::Closed(speech) => {
                speech
            }
        })
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for types that may give out another descriptor later; an OwnedFd cannot"
)]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE)
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ear.abort();
    }
}

struct Ear {
    worker: WorkerRef,
    /// `None` once nothing more is listened to.
    replies: Option<Recver>,
    decoder: Decoder,
    tell: mpsc::Sender<Input>,
}

/// What the ear waited for.
enum Heard {
    Bytes(io::Result<usize>),
    Death,
    LivesOn,
}

impl Ear {
    async fn listen(mut self, pidfd: AsyncFd<OwnedFd>) {
        let mut buffer = vec![0; READ_LEN];
        let mut silent_until = None;
        loop {
            let heard = tokio::select! {
                // What it said comes before its death.
                biased;
                read = read(self.replies.as_mut(), &mut buffer) => Heard::Bytes(read),
                _ = pidfd.readable() => Heard::Death,
                () = until(silent_until) => Heard::LivesOn,
            };
            match heard {
                Heard::Bytes(Ok(len)) if len > 0 => {
                    self.decoder.extend(buffer.get(..len).unwrap_or_default());
                    self.tell_messages().await;
                }
                Heard::Bytes(_) => {
                    self.replies = None;
                    silent_until = Some(Instant::now() + SILENT_LIFE_MAX);
                }
                Heard::LivesOn => {
                    silent_until = None;
                    self.tell_violation("it closed its pipe and lived on").await;
                }
                Heard::Death => break,
            }
        }
        let exit = reap(pidfd.get_ref());
        // The driver is gone only when everything ends.
        drop(self.tell.send(Input::Exited(self.worker, exit)).await);
    }

    async fn tell_messages(&mut self) {
        loop {
            match self.decoder.message::<FromWorker>() {
                Ok(None) => return,
                Ok(Some(message)) => {
                    drop(self.tell.send(Input::Said(self.worker, message)).await);
                }
                Err(error) => {
                    self.replies = None;
                    let text = match std::error::Error::source(&error) {
                        Some(source) => format!("{error}: {source}"),
                        None => error.to_string(),
                    };
                    self.tell_violation(&text).await;
                    return;
                }
            }
        }
    }

    async fn tell_violation(&self, text: &str) {
        let input = Input::Garbled(self.worker, text.to_owned());
        drop(self.tell.send(input).await);
    }
}

async fn read(replies: Option<&mut Recver>, buffer: &mut [u8]) -> io::Result<usize> {
    match replies {
        Some(replies) => replies.read(buffer).await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Takes the exit status of a process that has ended.
fn reap(pidfd: &OwnedFd) -> Exit {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), options);
    let status = status.ok().flatten();
    let code = status.as_ref().and_then(WaitIdStatus::exit_status);
    let signal = status.as_ref().and_then(WaitIdStatus::terminating_signal);
    match (code, signal) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "it exited with code {code}"),
            Self::Signal(signal) => write!(f, "{} killed it", signal_name(*signal)),
            Self::Unknown => f.write_str("it ended, nobody knows how"),
        }
    }
}

/// The mouth: ends with the pipe, or when nobody can tell it anything any more.
async fn speak(mut commands: Sender, mut speeches: mpsc::Receiver<Speech>) {
    let mut frame = Vec::new();
    let mut next = speeches.recv().await;
    while let Some(speech) = next {
        let spoken = match speech {
            Speech::Message(message) => write(&mut commands, &mut frame, &message)
                .await
                .map(|()| None),
            Speech::Job(order, payload) => {
                speak_job(&mut commands, &mut frame, *order, payload, &mut speeches).await
            }
        };
        next = match spoken {
            Ok(None) => speeches.recv().await,
            Ok(met) => met,
            // It takes no more: the ear hears why.
            Err(_) => return,
        };
    }
}

/// Writes a job, its inputs and the order to start; between the chunks whatever else is to be said. If that is
/// another job, this one has ended meanwhile: the other is given back, to be spoken next.
async fn speak_job(
    commands: &mut Sender,
    frame: &mut Vec<u8>,
    order: JobOrder,
    payload: Weak<Payload>,
    speeches: &mut mpsc::Receiver<Speech>,
) -> io::Result<Option<Speech>> {
    let attempt = order.attempt;
    write(commands, frame, &ToWorker::Job(Box::new(order))).await?;
    let mut place = Place::default();
    loop {
        while let Ok(speech) = speeches.try_recv() {
            match speech {
                Speech::Message(message) => write(commands, frame, &message).await?,
                Speech::Job(..) => return Ok(Some(speech)),
            }
        }
        let Some(payload) = payload.upgrade() else {
            // The job has ended meanwhile; its worker has said so and waits for another.
            return Ok(None);
        };
        let Some(input) = place.next_chunk(&payload) else {
            break;
        };
        drop(payload);
        write(commands, frame, &ToWorker::Input(input)).await?;
    }
    start(commands, frame, attempt).await?;
    Ok(None)
}

async fn start(commands: &mut Sender, frame: &mut Vec<u8>, attempt: AttemptRef) -> io::Result<()> {
    write(commands, frame, &ToWorker::Start(attempt)).await
}

async fn write(commands: &mut Sender, frame: &mut Vec<u8>, message: &ToWorker) -> io::Result<()> {
    frame.clear();
    frame::push(message, frame).map_err(io::Error::other)?;
    commands.write_all(frame).await?;
    if frame.capacity() > 2 * CHUNK_MAX {
        *frame = Vec::new();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use wpool_protocol::id::{AttemptNumber, JobId};
    use wpool_protocol::limits::Limits;

    use super::*;

    fn job(id: u64, stdin_len: usize) -> (Box<JobOrder>, Arc<Payload>) {
        let payload = Payload {
            argv: vec!["true".to_owned()],
            env: Vec::new(),
            stdin: vec![7; stdin_len],
            files: Vec::new(),
            outputs: Vec::new(),
        };
        let attempt = AttemptRef {
            job: JobId(id),
            attempt: AttemptNumber::FIRST,
        };
        let order = payload.order(attempt, 0, Limits::DEFAULT, payload.captured());
        (Box::new(order), Arc::new(payload))
    }

    /// What the worker hears: jobs by the order for them and by the word to start.
    fn heard(mut pipe: io::PipeReader) -> Vec<String> {
        let (mut decoder, mut buffer) = (Decoder::default(), vec![0; READ_LEN]);
        let mut heard = Vec::new();
        loop {
            let len = pipe.read(&mut buffer).unwrap();
            if len == 0 {
                return heard;
            }
            decoder.extend(&buffer[..len]);
            while let Some(message) = decoder.message::<ToWorker>().unwrap() {
                match message {
                    ToWorker::Job(order) => heard.push(format!("job {}", order.attempt.job.0)),
                    ToWorker::Start(attempt) => heard.push(format!("start {}", attempt.job.0)),
                    ToWorker::Ping(number) => heard.push(format!("ping {number}")),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn a_job_that_comes_while_the_inputs_of_an_ended_one_are_written_is_not_lost() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for first_is_forgotten in [false, true] {
            let (reader, writer) = io::pipe().unwrap();
            let (mouth, speeches) = mpsc::channel(SPEECHES_MAX);
            // More than the pipe holds: the mouth waits in the middle of it.
            let (first, first_payload) = job(1, 8 << 20);
            let (second, second_payload) = job(2, 3);
            let heard = runtime.block_on(async {
                let commands = Sender::try_from(OwnedFd::from(writer)).unwrap();
                let speaking = tokio::spawn(speak(commands, speeches));
                let say = |speech| mouth.try_send(speech).unwrap();
                say(Speech::Job(first, Arc::downgrade(&first_payload)));
                tokio::task::yield_now().await;
                say(Speech::Message(ToWorker::Ping(1)));
                say(Speech::Job(second, Arc::downgrade(&second_payload)));
                say(Speech::Message(ToWorker::Ping(2)));
                let first_payload = (!first_is_forgotten).then_some(first_payload);
                drop(mouth);
                let heard = tokio::task::spawn_blocking(move || heard(reader));
                speaking.await.unwrap();
                drop(first_payload);
                heard.await.unwrap()
            });
            assert_eq!(heard, ["job 1", "ping 1", "job 2", "ping 2", "start 2"]);
        }
    }
}
