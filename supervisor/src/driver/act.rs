//! Doing what the pool says.

use std::collections::VecDeque;
use std::sync::Arc;

use wpool_pool::action::{Action, KillReason, Lost, Record, RecordId};
use wpool_pool::event::Event;
use wpool_protocol::id::{AttemptRef, JobId, WorkerRef};
use wpool_protocol::job::RetryOn;
use wpool_protocol::outcome::{AttemptEnd, Isolation, JobState};
use wpool_protocol::phase::Phase;
use wpool_protocol::quantity::ByteSize;
use wpool_protocol::status::Submitted;
use wpool_protocol::wire::{Hello, Refused, ToWorker};

use super::births::Born;
use super::command::{Acceptance, NotAccepted};
use super::link::{Link, Speech};
use super::recorder::Durable;
use super::seat::{Follow, Run, RunCourse, Seat, kill_in_words};
use super::{Driver, Life};
use crate::birth::BirthError;
use crate::cgroup::SlotDirectory;
use crate::diagnosis::{Course, Failure};
use crate::gather::Gathered;

impl Driver {
    pub(super) fn act(&mut self, action: &Action) {
        match *action {
            Action::Record(id, record) => self.record(id, record),
            Action::Accept(job) => self.accept(job),
            Action::Refuse(job, refusal) => {
                let refused = self.register.refuse(job);
                let from = refused.as_ref().and_then(|job| job.request.released_from);
                if let Some(from) = from {
                    self.register.set_released(from, None);
                }
                if let Some(submitter) = refused.and_then(|job| job.submitter) {
                    // The client may be gone; nothing was kept for it.
                    drop(submitter.send(Err(NotAccepted::Refused(refusal))));
                }
            }
            Action::Spawn(worker) => self.spawn(worker),
            Action::Assign(worker, attempt) => self.assign(worker, attempt),
            Action::Stop(worker, attempt) => self.say(worker, ToWorker::Stop(attempt)),
            Action::Ping(worker, number) => {
                if let Some(seat) = self.seat(worker) {
                    seat.ping(number);
                }
            }
            Action::Kill(worker, reason) => self.kill(worker, reason),
            Action::Retire(worker) => self.say(worker, ToWorker::Retire),
            Action::Requeue {
                attempt,
                worker,
                lost,
                not_before,
            } => {
                let wait = not_before.since(self.now());
                tracing::warn!(job = %attempt.job, attempt = %attempt.attempt, slot = worker.slot.0,
                    generation = worker.generation.0, lost = lost_in_words(lost), wait_ms = wait.as_millis(),
                    "a worker was lost; its job waits for another");
                self.requeue(attempt);
            }
            Action::Retry {
                attempt,
                worker,
                reason,
                not_before,
            } => {
                let wait = not_before.since(self.now());
                tracing::debug!(job = %attempt.job, attempt = %attempt.attempt, slot = worker.slot.0,
                    generation = worker.generation.0, reason = reason.as_str(), wait_ms = wait.as_millis(),
                    "a job is tried again, as it asked");
                self.retry(attempt, reason);
            }
            Action::Conclude(job, conclusion) => self.conclude(job, conclusion),
            Action::Stopped => self.life = Life::Stopped,
        }
    }

    fn record(&mut self, id: RecordId, record: Record) {
        match self.recorder.record(id, record) {
            Durable::AtOnce => self.events.push_back(Event::RecordSynced(id)),
        }
    }

    fn accept(&mut self, id: JobId) {
        let Some(job) = self.register.live.get_mut(&id) else {
            return;
        };
        tracing::debug!(job = %id, tenant = %job.request.tenant, priority = %job.request.priority, "accepted");
        if let Some(submitter) = job.submitter.take() {
            let submitted = Submitted {
                id,
                state: JobState::Queued,
            };
            // A client that has gone meanwhile has submitted all the same.
            drop(submitter.send(Ok(Acceptance::New(submitted))));
        }
        if let Some(from) = job.request.released_from {
            self.register.drop_request(from);
        }
    }

    fn say(&mut self, worker: WorkerRef, message: ToWorker) {
        if let Some(seat) = self.seat(worker) {
            seat.say(message);
        }
    }

    fn spawn(&mut self, worker: WorkerRef) {
        self.make_room(worker.slot);
        let born = self.births.give_birth(worker);
        let seated = born
            .map_err(anyhow::Error::from)
            .and_then(|born| Ok(self.seat_for(worker, born)?));
        let slot = usize::from(worker.slot.0);
        match seated {
            Ok(seat) => {
                tracing::debug!(
                    slot = worker.slot.0,
                    generation = worker.generation.0,
                    pid = seat.pid,
                    "a worker is born"
                );
                seat.say(ToWorker::Hello(Hello::ours()));
                if let Some(place) = self.seats.get_mut(slot) {
                    *place = Some(seat);
                }
            }
            Err(error) => {
                let birth = error.downcast_ref::<BirthError>();
                let text = match birth.and_then(Failure::of_birth) {
                    Some(failure) => self.give_up_if_it_lasts(&failure),
                    None => format!("{error:#}"),
                };
                tracing::error!(
                    slot = worker.slot.0,
                    generation = worker.generation.0,
                    error = text,
                    "failed to give birth to a worker"
                );
                self.note_trouble(worker, text);
                self.events.push_back(Event::SpawnFailed(worker));
            }
        }
    }

    /// Explains why there is no worker, in words. If it was to be the first of all, and none will ever be, that is the end.
    pub(super) fn give_up_if_it_lasts(&mut self, failure: &Failure) -> String {
        let refused = self.births.explain(failure);
        let text = in_words(&refused);
        if self.life == Life::Starting && failure.course() == Course::Lasting {
            self.life = Life::Hopeless(Box::new(refused));
        }
        text
    }

    /// The seat of a newborn; if its pipes cannot be had, it is ended.
    fn seat_for(&self, worker: WorkerRef, born: Born) -> std::io::Result<Seat> {
        let tell = self.tell.clone();
        let (commands, replies) = (born.commands, born.replies);
        let watched = born.pidfd.try_clone();
        let link = watched.and_then(|watched| Link::open(worker, commands, replies, watched, tell));
        let link = match link {
            Ok(link) => link,
            Err(error) => {
                wpool_sys::birth::end(&born.pidfd);
                if let Some(Err(error)) = born.cgroup.map(SlotDirectory::remove) {
                    tracing::warn!(slot = worker.slot.0, %error, "the cgroup of a worker stays");
                }
                return Err(error);
            }
        };
        Ok(Seat {
            worker,
            pid: born.pid,
            pidfd: born.pidfd,
            link,
            store: Arc::new(born.store),
            setup: born.setup,
            failure: born.failure,
            cgroup: born.cgroup,
            _session: born.session,
            phase: Phase::Greeting,
            isolation: Isolation::default(),
            attempt: None,
            run: None,
            pings: VecDeque::new(),
            killed: None,
            violation: None,
            refused: None,
            is_collecting: false,
            exit: None,
        })
    }

    fn assign(&mut self, worker: WorkerRef, attempt: AttemptRef) {
        let now = Self::wall_clock();
        let Some(job) = self.register.live.get_mut(&attempt.job) else {
            return;
        };
        let place = self.seats.get_mut(usize::from(worker.slot.0));
        let Some(seat) = place.and_then(Option::as_mut) else {
            return;
        };
        let request = &job.request;
        let profiles = &mut seat.setup.profiles.iter();
        // The config keeps the profiles that workers were told of: what was resolved against it is there.
        let profile = profiles
            .position(|profile| profile.name == request.profile)
            .and_then(|index| u16::try_from(index).ok())
            .unwrap_or(0);
        let payload = &request.payload;
        let order = payload.order(attempt, profile, request.limits, payload.captured());
        seat.phase = Phase::Loading;
        seat.attempt = Some(attempt);
        seat.run = Some(Run {
            attempt,
            course: RunCourse::Given,
            output_bytes: request.limits.output_bytes.0,
            gathered: Gathered::default(),
            follow: Follow::Unasked,
        });
        let speech = Speech::Job(Box::new(order), Arc::downgrade(&request.payload));
        if seat.link.say(speech).is_err() {
            // Nothing starts then, and the pool's deadline for that sees to the worker.
            tracing::warn!(job = %attempt.job, slot = worker.slot.0, generation = worker.generation.0,
                "a worker does not read: its job is lost on it");
        }
        job.isolation = seat.isolation.clone();
        job.begin(attempt, worker, now);
        tracing::debug!(job = %attempt.job, attempt = %attempt.attempt, slot = worker.slot.0,
            generation = worker.generation.0, "assigned");
    }

    fn kill(&mut self, worker: WorkerRef, reason: KillReason) {
        if let Some(seat) = self.seat(worker) {
            seat.killed = Some(reason);
            seat.kill();
            let why = kill_in_words(reason);
            let detail = seat.violation.as_deref().unwrap_or_default();
            if matches!(reason, KillReason::Shutdown | KillReason::Shrunk) {
                tracing::debug!(
                    slot = worker.slot.0,
                    generation = worker.generation.0,
                    why,
                    "killed a worker"
                );
            } else {
                tracing::warn!(
                    slot = worker.slot.0,
                    generation = worker.generation.0,
                    why,
                    detail,
                    "killed a worker"
                );
            }
        }
    }

    fn requeue(&mut self, attempt: AttemptRef) {
        let now = Self::wall_clock();
        if let Some(job) = self.register.live.get_mut(&attempt.job) {
            // Of its output the tails stay; the next run begins both streams anew.
            drop(job.close_run(AttemptEnd::WorkerLost, now));
            job.tell_watchers();
        }
    }

    fn retry(&mut self, attempt: AttemptRef, reason: RetryOn) {
        let now = Self::wall_clock();
        if let Some(job) = self.register.live.get_mut(&attempt.job) {
            let end = match reason {
                RetryOn::TimedOut => AttemptEnd::TimedOut,
                RetryOn::Failed
                | RetryOn::Memory
                | RetryOn::LimitExceeded
                | RetryOn::WorkerLost => AttemptEnd::Exited,
            };
            job.close_retried(end, now);
            if let (RetryOn::Memory, Some((growth, most))) = (reason, job.request.memory_growth) {
                let limit = &mut job.request.limits.memory_bytes;
                *limit = ByteSize(growth.of(limit.0)).min(most).max(*limit);
            }
            job.tell_watchers();
        }
    }

    /// Why a slot has no worker, for those who ask.
    pub(super) fn note_trouble(&mut self, worker: WorkerRef, text: String) {
        if let Some(trouble) = self.troubles.get_mut(usize::from(worker.slot.0)) {
            *trouble = Some(text);
        }
    }
}

/// A refusal, for people.
pub(super) fn in_words(refused: &Refused) -> String {
    let Refused {
        layer,
        reason,
        remedy,
    } = refused;
    format!("layer `{layer}`: {reason}; remedy: {remedy}")
}

fn lost_in_words(lost: Lost) -> &'static str {
    match lost {
        Lost::Exited => "it died of itself, or somebody else killed it",
        Lost::Killed(reason) => kill_in_words(reason),
    }
}
