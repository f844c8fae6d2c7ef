//! One world: the pool, what surrounds it, and the three parts of its history.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use wpool_pool::action::{Action, Actions, RecordId};
use wpool_pool::event::{Event, JobEnd};
use wpool_pool::pool::Pool;
use wpool_pool::settings::Settings;
use wpool_pool::time::Instant;
use wpool_protocol::id::{AttemptNumber, AttemptRef, Generation, JobId, SlotId, WorkerRef};

use crate::chance::Chance;
use crate::sim::agenda::Agenda;
use crate::sim::book::Book;
use crate::sim::client;
use crate::sim::knobs::Knobs;
use crate::sim::oracle::{Oracle, Verdict};
use crate::sim::process::{Deed, Processes};
use crate::sim::recorder::Recorder;
use crate::sim::{Failure, Summary};

/// Events that are shown with a failure.
const HISTORY: usize = 40;

/// Events after which the pool is taken down and restored from its snapshot.
const RESTORE_EVERY: u64 = 31;

/// Old events that may come again.
const ECHOES: usize = 64;

/// Events within which everything must reach its end once the faults have stopped: a world holds at most
/// some 50 jobs, each with at most 5 runs of at most some 20 events, and pings meanwhile.
const END_WITHIN: u64 = 50_000;

/// A world.
pub(crate) struct World {
    knobs: Knobs,
    safety_events: u64,
    chance: Chance,
    now: Instant,
    /// The time of the last event that the pool was given.
    given_at: Instant,
    pool: Pool,
    agenda: Agenda<Next>,
    processes: Processes,
    recorder: Recorder,
    book: Book,
    oracle: Oracle,
    next_job: JobId,
    echoes: VecDeque<Event>,
    history: VecDeque<(Instant, Event, Vec<Action>)>,
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Next {
    /// An event reaches the pool.
    Arrive(Event),
    /// A process does something of itself.
    Act(WorkerRef, Deed),
    /// A record has become durable.
    Durable(RecordId),
    Submit,
    Operate,
    ShutDown,
    KillSomebody,
    StopSomebody,
    Echo,
    Invent,
    Sleep,
    Crash,
}

impl World {
    pub(crate) fn new(knobs: Knobs, safety_events: u64) -> Self {
        let mut world = Self {
            safety_events,
            chance: Chance::new(knobs.seed ^ 0x5eed),
            now: Instant::START,
            given_at: Instant::START,
            pool: Pool::new(knobs.settings(), knobs.seed),
            agenda: Agenda::new(),
            processes: Processes::default(),
            recorder: Recorder::new(),
            book: Book::default(),
            oracle: Oracle::new(knobs.settings()),
            next_job: JobId(1),
            echoes: VecDeque::new(),
            history: VecDeque::new(),
            knobs,
        };
        for (next, every) in world.recurring() {
            world.again(next, every);
        }
        if world.chance.permille(world.knobs.early_shutdown) {
            let at = Instant::START.after(world.chance.within_ms(20_000));
            world.agenda.enter(at, Next::ShutDown);
        }
        world
    }

    pub(crate) fn run(mut self) -> Result<Summary, Box<Failure>> {
        self.live().map_err(|what| {
            Box::new(Failure {
                seed: self.knobs.seed,
                event: self.oracle.summary.events,
                what,
                history: std::mem::take(&mut self.history),
            })
        })?;
        Ok(self.oracle.summary)
    }

    fn live(&mut self) -> Verdict {
        while self.oracle.summary.events < self.safety_events && !self.oracle.has_stopped() {
            self.step()?;
        }
        // From here on nothing goes wrong that has not gone wrong already.
        self.knobs = self.knobs.calm();
        self.agenda.retain(|next| match next {
            Next::Arrive(_) | Next::Act(..) | Next::Durable(_) | Next::ShutDown => true,
            Next::Submit
            | Next::Operate
            | Next::KillSomebody
            | Next::StopSomebody
            | Next::Echo
            | Next::Invent
            | Next::Sleep
            | Next::Crash => false,
        });
        self.give(Event::SettingsChanged(Box::new(self.knobs.settings())))?;
        self.give(Event::ResumeRequested)?;
        self.until("every job has ended", Oracle::all_ended)?;
        let grace = self.chance.within_ms(100);
        self.give(Event::ShutdownRequested { grace })?;
        self.until("the pool has stopped", Oracle::has_stopped)?;
        while let Some((at, next)) = self.agenda.take() {
            self.now = self.now.max(at);
            self.happen(next)?;
        }
        self.recorder.write(self.now);
        self.book.close(&self.recorder)?;
        require!(
            self.pool.deadline().is_none(),
            "a stopped pool has a deadline"
        );
        let late = client::job(self.next_job, &self.knobs, &mut self.chance);
        self.give(Event::JobSubmitted(late))
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Oracle) -> bool) -> Verdict {
        let last = self.oracle.summary.events + END_WITHIN;
        while !is_so(&self.oracle) {
            require!(
                self.oracle.summary.events < last,
                "it takes for ever until {what}"
            );
            let waits = self.agenda.next_at().is_some() || self.pool.deadline().is_some();
            require!(waits, "nothing happens any more before {what}");
            self.step()?;
        }
        Ok(())
    }

    /// Lets the next thing happen, or lets the pool know that its time has come.
    fn step(&mut self) -> Verdict {
        let wake = self
            .pool
            .deadline()
            .map(|deadline| deadline.after(self.chance.within_ms(self.knobs.timer_late_ms)));
        match (self.agenda.next_at(), wake) {
            (Some(at), wake) if wake.is_none_or(|wake| at <= wake) => {
                let Some((at, next)) = self.agenda.take() else {
                    return Ok(());
                };
                self.now = self.now.max(at);
                self.happen(next)
            }
            (_, Some(wake)) => {
                self.now = self.now.max(wake);
                self.give(Event::TimeReached)
            }
            (_, None) => Ok(()),
        }
    }

    fn happen(&mut self, next: Next) -> Verdict {
        match next {
            Next::Arrive(event) => {
                // Only what was really sent may come again: an invention might have come true by then.
                if self.echoes.len() >= ECHOES {
                    self.echoes.pop_front();
                }
                self.echoes.push_back(event.clone());
                self.give(event)
            }
            Next::Act(worker, deed) => {
                let means = (&self.knobs, &mut self.chance);
                if let Some((at, event)) = self.processes.act(self.now, worker, deed, means) {
                    self.agenda.enter(at, Next::Arrive(event));
                }
                Ok(())
            }
            Next::Durable(id) => {
                if self.recorder.leaves_out(id, &self.knobs, &mut self.chance) {
                    return Ok(());
                }
                self.agenda
                    .enter(self.now, Next::Arrive(Event::RecordSynced(id)));
                Ok(())
            }
            Next::ShutDown => {
                let grace = self.chance.within_ms(500);
                self.give(Event::ShutdownRequested { grace })
            }
            Next::Submit => {
                self.again(Next::Submit, self.knobs.submit_ms);
                self.submit()
            }
            Next::Operate => {
                self.again(Next::Operate, self.knobs.operator_ms);
                let request = client::request(&self.knobs, self.pool.submitted(), &mut self.chance);
                self.give(request)
            }
            Next::KillSomebody => {
                self.again(Next::KillSomebody, self.knobs.killer_ms);
                let slot = self.any_slot();
                if let Some(worker) = self.processes.present(slot) {
                    self.agenda.enter(self.now, Next::Act(worker, Deed::Die));
                }
                Ok(())
            }
            Next::StopSomebody => {
                self.again(Next::StopSomebody, self.knobs.stopper_ms);
                let slot = self.any_slot();
                self.processes.stall(slot);
                Ok(())
            }
            Next::Echo => {
                self.again(Next::Echo, self.knobs.echo_ms);
                self.echo()
            }
            Next::Invent => {
                self.again(Next::Invent, self.knobs.invention_ms);
                let event = self.invention();
                self.give(event)
            }
            Next::Sleep => {
                self.again(Next::Sleep, self.knobs.sleep_ms);
                self.now = self.now.after(self.chance.within_ms(60_000));
                Ok(())
            }
            Next::Crash => {
                self.again(Next::Crash, self.knobs.crash_ms);
                self.crash()
            }
        }
    }

    /// Something that was sent comes once more.
    fn echo(&mut self) -> Verdict {
        let most = self.echoes.len().saturating_sub(1) as u64;
        let which = usize::try_from(self.chance.up_to(most)).unwrap_or(0);
        match self.echoes.get(which).cloned() {
            Some(event) => self.give(event),
            None => Ok(()),
        }
    }

    fn submit(&mut self) -> Verdict {
        for _ in 0..self.chance.between(1, self.knobs.submit_burst) {
            let id = self.next_job;
            self.next_job = id.next();
            let job = client::job(id, &self.knobs, &mut self.chance);
            if self.chance.permille(self.knobs.cancelled) {
                let at = self.now.after(self.chance.within_ms(500));
                let cancel = Next::Arrive(Event::CancelRequested(id));
                self.agenda.enter(at, cancel);
            }
            self.give(Event::JobSubmitted(job))?;
        }
        Ok(())
    }

    /// The supervisor dies, and its workers with it; its next life begins with what is on record.
    fn crash(&mut self) -> Verdict {
        if self.oracle.stops() {
            return Ok(());
        }
        self.recorder.crash(self.now);
        let jobs = self.book.after_crash(&self.recorder)?;
        let settings = self.knobs.settings();
        let roomy = Settings {
            queue_jobs: u64::MAX,
            queue_bytes: u64::MAX,
            ..settings
        };
        self.pool = Pool::new(roomy, self.chance.next());
        self.oracle = self.oracle.reborn(roomy);
        self.processes = Processes::default();
        self.echoes.clear();
        self.agenda
            .retain(|next| !matches!(next, Next::Arrive(_) | Next::Act(..) | Next::Durable(_)));
        // The new pool has not heard of any time that its clock could go back from.
        let clock_back = std::mem::take(&mut self.knobs.clock_back);
        for job in jobs {
            self.give(Event::JobSubmitted(job))?;
        }
        self.give(Event::SettingsChanged(Box::new(settings)))?;
        self.knobs.clock_back = clock_back;
        Ok(())
    }

    /// Gives an event to the pool, and carries out what it asks for.
    fn give(&mut self, event: Event) -> Verdict {
        let mut told = self.now;
        if self.knobs.clock_back > 0 && self.chance.permille(self.knobs.clock_back) {
            let back = self.chance.within_ms(2_000);
            told = Instant::new(self.now.since_start().saturating_sub(back));
        }
        // A clock that goes back stands still.
        self.given_at = self.given_at.max(told);
        let now = self.given_at;
        if let Event::JobSubmitted(new) = &event {
            self.book.submitted(new);
        }
        self.oracle.hear(now, &event);
        if self.history.len() >= HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((now, event.clone(), Vec::new()));
        let mut actions = Actions::new();
        self.pool.handle(told, event, &mut actions);
        if let Some(last) = self.history.back_mut() {
            last.2.clone_from(&actions);
        }
        for action in &actions {
            self.oracle.judge(action, &self.processes)?;
            self.book.told(action)?;
            self.carry_out(action);
        }
        self.pool.check().map_err(|broken| broken.to_string())?;
        if self.oracle.summary.events.is_multiple_of(RESTORE_EVERY) {
            self.restore()?;
        }
        self.oracle.settle(&self.pool)
    }

    /// Takes the pool down and puts up the one that its snapshot makes.
    fn restore(&mut self) -> Verdict {
        let restored = Pool::restore(self.pool.snapshot()).map_err(|error| error.to_string())?;
        require!(
            restored == self.pool,
            "the restored pool is another one: {restored:?}"
        );
        self.pool = restored;
        Ok(())
    }

    fn carry_out(&mut self, action: &Action) {
        let (knobs, chance) = (&self.knobs, &mut self.chance);
        let (worker, deeds) = match *action {
            Action::Record(id, record) => {
                self.recorder.write(self.now);
                let at = self.recorder.ask(self.now, (id, record), knobs, chance);
                self.agenda.enter(at, Next::Durable(id));
                return;
            }
            Action::Spawn(worker) => (worker, self.processes.spawn(worker, knobs, chance)),
            Action::Assign(worker, attempt) => {
                let most = self.oracle.run_time_max(attempt);
                let deeds = self
                    .processes
                    .assign(worker, attempt, most, (knobs, chance));
                (worker, deeds)
            }
            Action::Stop(worker, attempt) => {
                (worker, self.processes.stop(worker, attempt, knobs, chance))
            }
            Action::Ping(worker, number) => (worker, self.processes.ping(worker, number, chance)),
            Action::Kill(worker, _) => (worker, self.processes.kill(worker, chance)),
            Action::Retire(worker) => (worker, self.processes.retire(worker, knobs, chance)),
            Action::Accept(_)
            | Action::Refuse(..)
            | Action::Requeue { .. }
            | Action::Retry { .. }
            | Action::Conclude(..)
            | Action::Stopped => return,
        };
        for (after, deed) in deeds {
            self.agenda
                .enter(self.now.after(after), Next::Act(worker, deed));
        }
    }

    /// What happens again and again, and how often.
    fn recurring(&self) -> [(Next, u64); 8] {
        let knobs = &self.knobs;
        [
            (Next::Submit, knobs.submit_ms),
            (Next::Operate, knobs.operator_ms),
            (Next::KillSomebody, knobs.killer_ms),
            (Next::StopSomebody, knobs.stopper_ms),
            (Next::Echo, knobs.echo_ms),
            (Next::Invent, knobs.invention_ms),
            (Next::Sleep, knobs.sleep_ms),
            (Next::Crash, knobs.crash_ms),
        ]
    }

    fn again(&mut self, next: Next, every_ms: u64) {
        if every_ms > 0 && !self.oracle.stops() {
            let wait = self.chance.within_ms(every_ms * 2) + Duration::from_micros(1);
            self.agenda.enter(self.now.after(wait), next);
        }
    }

    fn any_slot(&mut self) -> SlotId {
        let last = u64::from(client::SLOTS_MAX);
        SlotId(u16::try_from(self.chance.up_to(last)).unwrap_or(0))
    }

    /// An event that nobody sent: of a slot, a generation, a run or a record that is not.
    fn invention(&mut self) -> Event {
        let slot = self.any_slot();
        if let Some((worker, run)) = self.processes.run_in(slot)
            && self.chance.permille(200)
        {
            // A worker that speaks of a run of the right job, but of one that never was.
            let attempt = AttemptNumber(NonZeroU32::MAX);
            let attempt = AttemptRef { attempt, ..run };
            return Event::JobEnded(worker, attempt, JobEnd::Succeeded);
        }
        if let Some(worker) = self.processes.present(slot)
            && self.chance.permille(200)
        {
            // A worker that says what it may not, whatever it does.
            return match self.chance.up_to(1) {
                0 => Event::WorkerViolated(worker),
                _ => Event::PingAnswered(worker, self.chance.up_to(9)),
            };
        }
        let present = self
            .processes
            .present(slot)
            .map_or(0, |worker| worker.generation.0);
        let worker = match self.chance.up_to(2) {
            0 => WorkerRef {
                // The last one that there may be stands in for another.
                slot: SlotId(client::SLOTS_MAX + 1),
                generation: Generation(1),
            },
            1 => WorkerRef {
                slot,
                generation: Generation(present + 1),
            },
            _ => WorkerRef {
                slot,
                generation: Generation(present.saturating_sub(1)),
            },
        };
        let attempt = AttemptRef {
            job: JobId(self.chance.up_to(self.next_job.0)),
            attempt: AttemptNumber::FIRST,
        };
        match self.chance.up_to(8) {
            0 => Event::WorkerReady(worker),
            1 => Event::WorkerExited(worker),
            2 => Event::WorkerViolated(worker),
            3 => Event::SpawnFailed(worker),
            4 => Event::PingAnswered(worker, self.chance.up_to(9)),
            5 => Event::JobStarted(worker, attempt),
            6 => Event::JobEnded(worker, attempt, JobEnd::Succeeded),
            7 => Event::CancelRequested(attempt.job),
            _ => Event::RecordSynced(RecordId(u64::MAX)),
        }
    }
}
