//! What workers do.
//!
//! # Invariants
//!
//! - A message is looked at only if the table of [`wpool_protocol::phase`] permits it now, it names the run that the
//!   worker has, and it was asked for; everything else is a violation, and the worker is heard no more.
//! - What a worker that has been killed still says is not looked at.

use wpool_pool::event::Event;
use wpool_protocol::id::{AttemptRef, WorkerRef};
use wpool_protocol::phase::Phase;
use wpool_protocol::wire::{
    AttemptReport, Ending, FromWorker, Hello, OutputBytes, OutputHeader, Ready, Refused, ToWorker,
    Written,
};
use wpool_sys::birth::FailureReport;

use super::act::in_words;
use super::collect::{Collected, Leftovers};
use super::input::Input;
use super::job::Job;
use super::link::Exit;
use super::seat::{Follow, Run, RunCourse, Seat, kill_in_words};
use super::{Driver, Life};
use crate::cgroup::SlotDirectory;
use crate::diagnosis::Failure;
use crate::report;

/// What a message turns out to be.
enum Verdict {
    /// Nothing that the pool must hear of.
    Fine,
    /// Something that it must.
    Tell(Event),
    /// Its run has written more.
    Wrote(AttemptRef),
    /// The run is over.
    Over(Box<AttemptReport>),
    /// The sandbox stands.
    Ready(Ready),
    /// It does not.
    Refused(Refused),
}

/// Something that a worker may not say.
struct Violation(String);

impl From<crate::gather::GatherError> for Violation {
    fn from(error: crate::gather::GatherError) -> Self {
        Self(error.to_string())
    }
}

impl Driver {
    pub(super) fn hear(&mut self, input: Input) {
        match input {
            Input::Said(worker, message) => self.hear_message(worker, message),
            Input::Garbled(worker, text) => self.violated(worker, text),
            Input::Exited(worker, exit) => self.exited(worker, exit),
            Input::Collected(worker, attempt, collected) => {
                if let Some(seat) = self.seat(worker) {
                    seat.is_collecting = false;
                    let exit = seat.exit.take();
                    self.collected(worker, attempt, *collected);
                    if let Some(exit) = exit {
                        self.exited(worker, exit);
                    }
                }
            }
        }
    }

    fn hear_message(&mut self, worker: WorkerRef, message: FromWorker) {
        let Some(seat) = self.seat(worker) else {
            return;
        };
        if seat.killed.is_some() || seat.violation.is_some() {
            return;
        }
        let Some(phase) = seat.phase.after(message.kind()) else {
            let text = format!("it said {:?} while {:?}", message.kind(), seat.phase);
            self.violated(worker, text);
            return;
        };
        match seat.judge(message) {
            Err(Violation(text)) => self.violated(worker, text),
            Ok(verdict) => {
                seat.phase = phase;
                self.follow_verdict(worker, verdict);
            }
        }
    }

    fn follow_verdict(&mut self, worker: WorkerRef, verdict: Verdict) {
        match verdict {
            Verdict::Fine => {}
            Verdict::Tell(event) => {
                if let Event::JobStarted(_, attempt) = &event {
                    self.started(*attempt);
                }
                self.take_in(event);
            }
            Verdict::Wrote(attempt) => {
                if let Some(job) = self.register.live.get_mut(&attempt.job) {
                    job.tell_watchers();
                }
            }
            Verdict::Over(report) => self.over(worker, report),
            Verdict::Ready(ready) => self.ready(worker, ready),
            Verdict::Refused(refused) => self.refused(worker, &refused),
        }
    }

    fn ready(&mut self, worker: WorkerRef, ready: Ready) {
        let isolation = report::isolation(ready);
        tracing::info!(
            slot = worker.slot.0,
            generation = worker.generation.0,
            level = ?isolation.level,
            "a worker is ready"
        );
        self.isolation.clone_from(&isolation);
        if let Some(seat) = self.seat(worker) {
            seat.isolation = isolation;
        }
        if let Some(trouble) = self.troubles.get_mut(usize::from(worker.slot.0)) {
            *trouble = None;
        }
        if self.life == Life::Starting {
            self.life = Life::Serving;
            self.notifier.ready();
        }
        self.take_in(Event::WorkerReady(worker));
    }

    /// The worker exits by itself; if it is the first word of any, there will be no other.
    fn refused(&mut self, worker: WorkerRef, refused: &Refused) {
        let refused = self.births.explain(&Failure::of_layer(refused));
        let text = in_words(&refused);
        tracing::error!(
            slot = worker.slot.0,
            generation = worker.generation.0,
            refused = text,
            "a worker cannot build its sandbox"
        );
        self.note_trouble(worker, text);
        if let Some(seat) = self.seat(worker) {
            seat.refused = Some(refused.clone());
        }
        if self.life == Life::Starting {
            self.life = Life::Hopeless(Box::new(refused));
        }
    }

    fn started(&mut self, attempt: AttemptRef) {
        let now = Self::wall_clock();
        if let Some(job) = self.register.live.get_mut(&attempt.job)
            && let Some(run) = &mut job.run
        {
            run.started_at = now;
            job.tell_watchers();
        }
    }

    fn violated(&mut self, worker: WorkerRef, text: String) {
        let Some(seat) = self.seat(worker) else {
            return;
        };
        if seat.violation.is_some() || seat.killed.is_some() {
            return;
        }
        tracing::warn!(
            slot = worker.slot.0,
            generation = worker.generation.0,
            violation = text,
            "a worker broke the protocol"
        );
        seat.violation = Some(text);
        self.take_in(Event::WorkerViolated(worker));
    }

    /// A worker's word on how its run ended: what the run left is taken in, then the pool hears of it.
    fn over(&mut self, worker: WorkerRef, report: Box<AttemptReport>) {
        let Some(seat) = self.seat(worker) else {
            return;
        };
        let Some(run) = seat.run.take() else {
            return;
        };
        let leftovers = Leftovers {
            report: Some(report),
            store: run.own_store(&seat.store),
            output_bytes: run.output_bytes,
            gathered: run.gathered,
        };
        self.take_leftovers(worker, run.attempt, leftovers);
    }

    fn take_leftovers(&mut self, worker: WorkerRef, attempt: AttemptRef, leftovers: Leftovers) {
        if leftovers.is_little() {
            self.collected(worker, attempt, leftovers.take());
            return;
        }
        if let Some(seat) = self.seat(worker) {
            seat.is_collecting = true;
        }
        let tell = self.tell.clone();
        drop(tokio::spawn(async move {
            let taken = tokio::task::spawn_blocking(move || leftovers.take()).await;
            let collected = Box::new(taken.unwrap_or_default());
            drop(
                tell.send(Input::Collected(worker, attempt, collected))
                    .await,
            );
        }));
    }

    /// What a run left behind is there.
    fn collected(&mut self, worker: WorkerRef, attempt: AttemptRef, collected: Collected) {
        let now = Self::wall_clock();
        let ending = collected.report.as_ref();
        let ending = ending.map(|report| report.ending.clone());
        if let Some(job) = self.register.live.get_mut(&attempt.job)
            && let Some(run) = &mut job.run
            && run.attempt == attempt
        {
            run.ended_at = Some(now);
            if let Some(Ending::BoxFailed { reason }) = &ending {
                run.loss = Some(format!("its box has failed: {reason}"));
            }
            run.collected = collected;
        }
        if let Some(ending) = ending {
            let end = report::job_end(&ending);
            self.take_in(Event::JobEnded(worker, attempt, end));
            let job = self.register.live.get(&attempt.job);
            let goes_on = job.and_then(Job::attempt) == Some(attempt.attempt);
            if let Some(seat) = self.seat(worker)
                && seat.attempt == Some(attempt)
                && !goes_on
            {
                seat.attempt = None;
            }
        }
    }

    fn exited(&mut self, worker: WorkerRef, exit: Exit) {
        let Some(seat) = self.seat(worker) else {
            return;
        };
        if seat.is_collecting {
            seat.exit = Some(exit);
            return;
        }
        if let Some(run) = seat.run.take() {
            // It died with its job: what the job wrote is still in the store.
            let leftovers = Leftovers {
                report: None,
                store: run.own_store(&seat.store),
                output_bytes: run.output_bytes,
                gathered: run.gathered,
            };
            self.take_leftovers(worker, run.attempt, leftovers);
            // Comes here again with nothing left to take in.
            self.exited(worker, exit);
            return;
        }
        let unborn = seat.failure.as_mut().and_then(FailureReport::read);
        let loss = seat.loss(exit, unborn.as_deref());
        let was_ready = !matches!(
            seat.phase,
            Phase::Greeting | Phase::Building | Phase::Leaving
        );
        let (attempt, refused) = (seat.attempt, seat.refused.is_some());
        let expected = seat.killed.is_some() || exit == Exit::Code(0);
        tracing::debug!(
            slot = worker.slot.0,
            generation = worker.generation.0,
            loss,
            "a worker has ended"
        );
        if let Some(job) = attempt.and_then(|attempt| self.register.live.get_mut(&attempt.job))
            && let Some(run) = &mut job.run
            && Some(run.attempt) == attempt
        {
            let detail = run.loss.take().unwrap_or_else(|| loss.clone());
            run.loss = Some(detail);
            run.ended_at.get_or_insert_with(Self::wall_clock);
        }
        if !was_ready && !refused {
            tracing::warn!(
                slot = worker.slot.0,
                generation = worker.generation.0,
                loss,
                "a worker ended before it was ready"
            );
            let trouble = match &unborn {
                Some(said) => self.give_up_if_it_lasts(&Failure::of_start(said)),
                None => loss,
            };
            self.note_trouble(worker, trouble);
        } else if !expected && attempt.is_none() {
            tracing::warn!(
                slot = worker.slot.0,
                generation = worker.generation.0,
                loss,
                "an idle worker was lost"
            );
            self.note_trouble(worker, format!("an idle worker: {loss}"));
        }
        let place = self.seats.get_mut(usize::from(worker.slot.0));
        let cgroup = place.and_then(Option::take).and_then(|seat| seat.cgroup);
        // Before the next worker of the slot is born, which needs one of the same name.
        if let Some(Err(error)) = cgroup.map(SlotDirectory::remove) {
            tracing::warn!(slot = worker.slot.0, %error, "the cgroup of a worker stays");
        }
        self.take_in(Event::WorkerExited(worker));
    }
}

impl Seat {
    /// Holds a message that the table permits against what the worker was asked.
    fn judge(&mut self, message: FromWorker) -> Result<Verdict, Violation> {
        match message {
            FromWorker::Hello(hello) => self.judge_hello(&hello),
            FromWorker::Ready(ready) => Ok(Verdict::Ready(ready)),
            FromWorker::Refused(refused) => Ok(Verdict::Refused(refused)),
            FromWorker::Started(attempt) => {
                let worker = self.worker;
                self.run_of(attempt)?.course = RunCourse::Started;
                Ok(Verdict::Tell(Event::JobStarted(worker, attempt)))
            }
            FromWorker::Written(written) => self.judge_written(written),
            FromWorker::Output(OutputHeader {
                attempt,
                name,
                size,
            }) => {
                self.run_of(attempt)?.gathered.announce(name, size)?;
                Ok(Verdict::Fine)
            }
            FromWorker::OutputBytes(OutputBytes { attempt, bytes }) => {
                self.run_of(attempt)?.gathered.take(&bytes)?;
                Ok(Verdict::Fine)
            }
            FromWorker::Ended(report) => {
                self.run_of(report.attempt)?;
                self.run_of(report.written.attempt)?;
                Ok(Verdict::Over(report))
            }
            FromWorker::Pong(number) => {
                if !self.answered(number) {
                    return Err(Violation(format!("it answered ping {number}, unasked")));
                }
                let answered = Event::PingAnswered(self.worker, number);
                Ok(Verdict::Tell(answered))
            }
        }
    }

    fn judge_hello(&self, hello: &Hello) -> Result<Verdict, Violation> {
        hello
            .check()
            .map_err(|error| Violation(error.to_string()))?;
        self.say(ToWorker::Setup(Box::new(self.setup.clone())));
        Ok(Verdict::Fine)
    }

    fn judge_written(&mut self, written: Written) -> Result<Verdict, Violation> {
        let run = self.run_of(written.attempt)?;
        if std::mem::replace(&mut run.follow, Follow::Unasked) == Follow::Unasked {
            return Err(Violation("it told of output, unasked".to_owned()));
        }
        Ok(Verdict::Wrote(written.attempt))
    }

    fn run_of(&mut self, attempt: AttemptRef) -> Result<&mut Run, Violation> {
        let run = self.run.as_mut();
        run.filter(|run| run.attempt == attempt)
            .ok_or_else(|| Violation("it spoke of a run that it does not have".to_owned()))
    }

    /// Why the worker was lost, for people.
    fn loss(&self, exit: Exit, unborn: Option<&str>) -> String {
        match (self.killed, &self.violation, &self.refused) {
            (Some(reason), Some(violation), _) => {
                format!("{}: {violation}", kill_in_words(reason))
            }
            (Some(reason), None, _) => format!("{} and was killed", kill_in_words(reason)),
            (None, _, Some(refused)) => format!("{}: {}", refused.layer, refused.reason),
            (None, _, None) => match unborn {
                Some(failure) => format!("{exit}: {failure}"),
                None => exit.to_string(),
            },
        }
    }
}
