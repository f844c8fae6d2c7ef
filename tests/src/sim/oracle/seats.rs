//! What is promised about workers: one per slot, killed when and only when there is a cause.

use wpool_pool::action::{KillReason, Lost};
use wpool_pool::event::{Event, JobEnd};
use wpool_pool::time::Instant;
use wpool_protocol::id::{AttemptRef, Generation, SlotId, WorkerRef};

use crate::sim::oracle::births::Births;
use crate::sim::oracle::recycling::Wear;
use crate::sim::oracle::{JobFile, Oracle, Place, Verdict};
use crate::sim::process::Reality;

/// What is known of a slot: by orders given and news heard.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// The last worker that was asked for.
    pub(super) worker: WorkerRef,
    pub(super) state: Seated,
    /// Something has been heard for which it must be killed within this event.
    must_kill: Option<KillReason>,
    /// How long jobs have run here, in nanoseconds.
    pub(super) worked: u128,
    pub(super) births: Births,
    pub(super) wear: Wear,
}

/// What sits in a slot.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seated {
    Nobody,
    Booting { ready_by: Instant },
    Free,
    Busy(Run),
    Killed(KillReason, Option<(AttemptRef, Instant)>),
    Retiring { by: Instant },
}

/// A run, and until when what must be heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) attempt: AttemptRef,
    pub(super) began: Instant,
    start_by: Option<Instant>,
    end_by: Option<Instant>,
    stop_by: Option<Instant>,
    ping: Ping,
}

#[derive(Clone, Copy, Debug)]
enum Ping {
    None,
    Asked(u64, Instant),
    Again(Instant),
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Reported {
        attempt: AttemptRef,
        worker: WorkerRef,
        end: JobEnd,
        /// Somebody had asked for it.
        stopped: bool,
    },
    Lost {
        attempt: AttemptRef,
        worker: WorkerRef,
        lost: Lost,
    },
}

impl Seat {
    pub(super) fn new(slot: SlotId) -> Self {
        let worker = WorkerRef {
            slot,
            generation: Generation(0),
        };
        Self {
            worker,
            state: Seated::Nobody,
            must_kill: None,
            worked: 0,
            births: Births::default(),
            wear: Wear::default(),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        matches!(self.state, Seated::Nobody)
    }

    /// The state that an event of its worker meets; none if it is about a run that is not there.
    const fn shown(&self, event: &Event) -> Option<&'static str> {
        let run = match self.state {
            Seated::Busy(run) => Some(run.attempt),
            Seated::Killed(_, Some((attempt, _))) => Some(attempt),
            _ => None,
        };
        if let (Event::JobStarted(_, named) | Event::JobEnded(_, named, _), run) = (event, run) {
            match run {
                Some(run)
                    if run.job.0 == named.job.0 && run.attempt.0.get() == named.attempt.0.get() => {
                }
                _ => return None,
            }
        }
        match self.state {
            Seated::Nobody => None,
            Seated::Booting { .. } => Some("starting"),
            Seated::Free => Some("idle"),
            Seated::Busy(run) if run.start_by.is_some() => Some("loading"),
            Seated::Busy(_) => Some("running"),
            Seated::Killed(..) => Some("ending"),
            Seated::Retiring { .. } => Some("retiring"),
        }
    }

    /// Why it may be killed now, by what was not heard in time.
    fn overdue(&self, now: Instant) -> Option<KillReason> {
        let due = |by: Option<Instant>| by.is_some_and(|by| by <= now);
        match self.state {
            Seated::Booting { ready_by } => due(Some(ready_by)).then_some(KillReason::NotReady),
            Seated::Retiring { by } => due(Some(by)).then_some(KillReason::RetireIgnored),
            Seated::Busy(run) => {
                let unanswered = match run.ping {
                    Ping::Asked(_, by) => Some(by),
                    Ping::None | Ping::Again(_) => None,
                };
                if due(run.stop_by) {
                    Some(KillReason::StopIgnored)
                } else if run.stop_by.is_none() && due(run.end_by) {
                    Some(KillReason::Overrun)
                } else if due(run.start_by) || due(unanswered) {
                    Some(KillReason::Silent)
                } else {
                    None
                }
            }
            Seated::Nobody | Seated::Free | Seated::Killed(..) => None,
        }
    }
}

/// The moment after a wait, as the settings have it; a wait of nothing is still a wait.
pub(super) fn by(now: Instant, wait: std::time::Duration) -> Instant {
    now.after(wait.max(std::time::Duration::from_nanos(1)))
}

impl Oracle {
    pub(super) fn hear_worker(&mut self, worker: WorkerRef, event: &Event) {
        let (now, settings) = (self.now, self.settings);
        let Some(seat) = self.seats.get_mut(&worker.slot) else {
            return;
        };
        if seat.worker != worker {
            return;
        }
        if let Some(state) = seat.shown(event) {
            self.summary.coverage.see(state, event);
        }
        match (event, &mut seat.state) {
            (Event::SpawnFailed(_), Seated::Booting { .. } | Seated::Killed(..))
            | (
                Event::WorkerExited(_),
                Seated::Booting { .. }
                | Seated::Free
                | Seated::Busy(_)
                | Seated::Killed(..)
                | Seated::Retiring { .. },
            ) => self.hear_death(worker),
            (Event::WorkerReady(_), state @ Seated::Booting { .. }) => {
                *state = Seated::Free;
                seat.births.ready(now);
                seat.wear.up_at = Some(now);
                seat.wear.old_at = settings.recycle_age.map(|age| by(now, age));
                self.recycling.up(worker.slot);
            }
            (
                Event::WorkerViolated(_),
                Seated::Booting { .. } | Seated::Free | Seated::Busy(_) | Seated::Retiring { .. },
            ) => seat.must_kill = Some(KillReason::Violation),
            (Event::PingAnswered(_, number), Seated::Busy(run)) => {
                if matches!(run.ping, Ping::Asked(asked, _) if asked == *number) {
                    run.ping = Ping::Again(by(now, settings.ping_interval));
                }
            }
            (Event::JobStarted(_, attempt), Seated::Busy(run)) if run.attempt == *attempt => {
                let most = self.jobs.get(&attempt.job).map(|job| job.new.run_time_max);
                let most = most.unwrap_or_default() + settings.overrun_slack;
                if run.start_by.take().is_some() {
                    run.end_by = Some(by(now, most));
                }
            }
            (Event::JobEnded(_, attempt, end), Seated::Busy(run)) => {
                let run = *run;
                if run.attempt == *attempt {
                    self.hear_end(worker, run, *end);
                }
            }
            _ => {}
        }
    }

    /// Should an empty seat that nobody wants be wanted again, then what once parked it was another time.
    pub(super) fn forget_the_unwanted(&mut self) {
        let (wanted, spare) = (self.settings.slots, self.spare());
        for seat in self.seats.values_mut().filter(|seat| seat.is_empty()) {
            if seat.worker.slot.0 >= wanted && spare != Some(seat.worker.slot) {
                seat.births = Births::default();
            }
        }
    }

    fn hear_end(&mut self, worker: WorkerRef, run: Run, end: JobEnd) {
        let now = self.now;
        let Some(seat) = self.seats.get_mut(&worker.slot) else {
            return;
        };
        if end == JobEnd::BoxFailed {
            seat.must_kill = Some(KillReason::BoxFailed);
        } else if end == JobEnd::Stopped && run.stop_by.is_none() {
            seat.must_kill = Some(KillReason::Violation);
        } else {
            seat.state = Seated::Free;
            seat.worked += now.since(run.began).as_nanos();
            seat.births.prove();
            self.hear_worn(worker.slot);
            let attempt = run.attempt;
            if let Some(job) = self.jobs.get_mut(&attempt.job) {
                let stopped = run.stop_by.is_some();
                job.place = Place::Over(Over::Reported {
                    attempt,
                    worker,
                    end,
                    stopped,
                });
            }
        }
    }

    fn hear_death(&mut self, worker: WorkerRef) {
        let (now, settings) = (self.now, self.settings);
        let is_wanted = self.is_wanted(worker.slot);
        let Some(seat) = self.seats.get_mut(&worker.slot) else {
            return;
        };
        let (lost, run) = match seat.state {
            Seated::Killed(reason, run) => (Lost::Killed(reason), run),
            Seated::Busy(run) => (Lost::Exited, Some((run.attempt, run.began))),
            Seated::Nobody | Seated::Booting { .. } | Seated::Free | Seated::Retiring { .. } => {
                (Lost::Exited, None)
            }
        };
        seat.births.death(now, lost, &settings);
        if !is_wanted {
            seat.births = Births::default();
        }
        seat.state = Seated::Nobody;
        seat.must_kill = None;
        seat.wear = Wear::default();
        if let Some((attempt, began)) = run {
            seat.worked += now.since(began).as_nanos();
            if let Some(job) = self.jobs.get_mut(&attempt.job) {
                job.place = Place::Over(Over::Lost {
                    attempt,
                    worker,
                    lost,
                });
            }
        }
    }

    /// The seat of a worker that an order is for: the order must name the present one (I5).
    pub(super) fn seat(&mut self, worker: WorkerRef) -> Result<&mut Seat, String> {
        let seat = self
            .seats
            .get_mut(&worker.slot)
            .ok_or_else(|| format!("there is no slot of {worker}"))?;
        require!(
            seat.worker == worker && !seat.is_empty(),
            "I5: {worker} is not there"
        );
        Ok(seat)
    }

    pub(super) fn judge_spawn(&mut self, worker: WorkerRef, reality: &impl Reality) -> Verdict {
        let (now, settings) = (self.now, self.settings);
        let ready_by = by(now, settings.ready_within);
        require!(
            self.kill_at.is_none() || self.summary.events == 1,
            "{worker} is born while the pool stops"
        );
        require!(
            !reality.lives_in(worker.slot),
            "{worker} is born beside a living one"
        );
        require!(
            self.is_wanted(worker.slot),
            "{worker} is born in a slot that is to go"
        );
        self.recycling.born(worker.slot);
        let seat = self.seats.entry(worker.slot);
        let seat = seat.or_insert_with(|| Seat::new(worker.slot));
        let next = Generation(seat.worker.generation.0 + 1);
        require!(
            seat.is_empty() && worker.generation == next,
            "{worker} does not follow {}",
            seat.worker
        );
        seat.worker = worker;
        seat.state = Seated::Booting { ready_by };
        seat.births.birth(worker, now, &settings)
    }

    /// The worker of this seat gets a job.
    pub(super) fn seat_job(&mut self, worker: WorkerRef, attempt: AttemptRef) -> Verdict {
        let (now, start_by) = (self.now, by(self.now, self.settings.silence_max));
        let seat = self.seat(worker)?;
        require!(
            matches!(seat.state, Seated::Free),
            "I2: {worker} gets {attempt} and is {:?}",
            seat.state
        );
        seat.births.job();
        seat.state = Seated::Busy(Run {
            attempt,
            began: now,
            start_by: Some(start_by),
            end_by: None,
            stop_by: None,
            ping: Ping::None,
        });
        Ok(())
    }

    pub(super) fn judge_stop(&mut self, worker: WorkerRef, attempt: AttemptRef) -> Verdict {
        let stop_by = by(self.now, self.settings.overrun_slack);
        let cancelled = self.file(attempt.job)?.is_cancelled();
        require!(cancelled, "nobody asked for the end of {attempt}");
        let seat = self.seat(worker)?;
        match &mut seat.state {
            Seated::Busy(run) if run.attempt == attempt && run.stop_by.is_none() => {
                run.stop_by = Some(stop_by);
                Ok(())
            }
            state => Err(format!("{worker} is to stop {attempt} and is {state:?}")),
        }
    }

    pub(super) fn judge_ping(&mut self, worker: WorkerRef, number: u64) -> Verdict {
        let (now, answer_by) = (self.now, by(self.now, self.settings.silence_max));
        let seat = self.seat(worker)?;
        match &mut seat.state {
            Seated::Busy(run) => {
                let due = match run.ping {
                    Ping::None => true,
                    Ping::Again(at) => at <= now,
                    Ping::Asked(..) => false,
                };
                require!(due, "{worker} is asked out of time");
                run.ping = Ping::Asked(number, answer_by);
                Ok(())
            }
            state => Err(format!("{worker} is asked and is {state:?}")),
        }
    }

    pub(super) fn judge_kill(&mut self, worker: WorkerRef, reason: KillReason) -> Verdict {
        let (now, kill_at) = (self.now, self.kill_at);
        let may_go = self.may_go(worker.slot);
        let seat = self.seat(worker)?;
        let run = match seat.state {
            Seated::Busy(run) => Some((run.attempt, run.began)),
            Seated::Booting { .. } | Seated::Free | Seated::Retiring { .. } => None,
            Seated::Killed(..) | Seated::Nobody => {
                return Err(format!("{worker} is killed twice, now for {reason:?}"));
            }
        };
        let booting = matches!(seat.state, Seated::Booting { .. });
        let by_shutdown = kill_at.is_some_and(|at| at <= now || booting);
        let justified = seat.must_kill == Some(reason)
            || seat.overdue(now) == Some(reason)
            || (reason == KillReason::Shutdown && by_shutdown)
            || (reason == KillReason::Shrunk && may_go && booting);
        require!(justified, "{worker} is killed for {reason:?}: {seat:?}");
        seat.must_kill = None;
        seat.births.kill(now, reason);
        seat.state = Seated::Killed(reason, run);
        self.summary.kills += 1;
        Ok(())
    }

    pub(super) fn judge_retire(&mut self, worker: WorkerRef) -> Verdict {
        if self.kill_at.is_none() && !self.may_go(worker.slot) {
            self.judge_recycling(worker.slot)?;
        }
        let by = by(self.now, self.settings.silence_max);
        let seat = self.seat(worker)?;
        require!(
            matches!(seat.state, Seated::Free),
            "{worker} is retired and is {:?}",
            seat.state
        );
        seat.births.retire();
        seat.state = Seated::Retiring { by };
        Ok(())
    }

    /// Whoever must be killed has been, whoever must be asked or told to stop has been.
    pub(super) fn settle_seats(&mut self) -> Verdict {
        let grace_over = self.kill_at.is_some_and(|at| at <= self.now);
        self.settle_recycling()?;
        let (wanted, spare) = (self.settings.slots, self.spare());
        for seat in self.seats.values_mut() {
            let worker = seat.worker;
            let is_wanted = worker.slot.0 < wanted || spare == Some(worker.slot);
            let keeps = self.kill_at.is_none() && is_wanted;
            match (keeps, seat.is_empty()) {
                (true, true) => seat.births.settle(worker, self.now, &self.settings)?,
                (false, true) => seat.births = Births::default(),
                (_, false) => {}
            }
            require!(
                seat.must_kill.is_none() && seat.overdue(self.now).is_none(),
                "{worker} should have been killed: {seat:?}"
            );
            match seat.state {
                Seated::Busy(run) => {
                    let cancelled = self
                        .jobs
                        .get(&run.attempt.job)
                        .is_none_or(JobFile::is_cancelled);
                    require!(
                        cancelled == run.stop_by.is_some(),
                        "{} is cancelled and not stopped, or the reverse",
                        run.attempt
                    );
                    let due = match run.ping {
                        Ping::None => true,
                        Ping::Again(at) => at <= self.now,
                        Ping::Asked(..) => false,
                    };
                    require!(!due, "{worker} should have been asked");
                    require!(!grace_over, "{worker} lives on after the grace");
                }
                Seated::Booting { .. } | Seated::Free => {
                    require!(keeps, "{worker} lives on in a slot that is to go");
                }
                Seated::Retiring { .. } => {
                    require!(!grace_over, "{worker} lives on after the grace");
                }
                Seated::Nobody | Seated::Killed(..) => {}
            }
        }
        Ok(())
    }
}
