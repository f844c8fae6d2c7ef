//! The worker processes of a world: what they really do, whatever the pool thinks of them.
//!
//! A process says things through its pipe, in order, and dies once; that it is dead is told by another
//! way, so that its last words may come after the news of its death.

use std::collections::BTreeMap;
use std::time::Duration;

use wpool_pool::event::{Event, JobEnd};
use wpool_pool::time::Instant;
use wpool_protocol::id::{AttemptRef, JobId, SlotId, WorkerRef};

use crate::chance::Chance;
use crate::sim::knobs::Knobs;

/// All processes that were ever born, or could not be: the last one of each slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes {
    last: BTreeMap<SlotId, Process>,
}

#[derive(Clone, Debug)]
struct Process {
    worker: WorkerRef,
    life: Life,
    run: Option<AttemptRef>,
    /// Counts orders: what was planned before the last one is not done any more.
    plan: u64,
    /// When the last thing that it said arrives.
    pipe: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Lives,
    Stalled,
    Dead,
}

/// What really goes on, whatever anybody says.
pub(crate) trait Reality {
    /// Whether any process of a slot lives.
    fn lives_in(&self, slot: SlotId) -> bool;

    /// Whether this job really runs anywhere.
    fn runs(&self, job: JobId) -> bool;
}

/// What a process does of itself, at a later moment.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// It says something, if it still follows this plan.
    Say(u64, Event),
    /// It stops doing anything, for ever, if it still follows this plan.
    Stall(u64),
    /// It dies.
    Die,
    /// It was never born.
    Unborn,
}

/// Deeds with the time until then.
pub(crate) type Deeds = Vec<(Duration, Deed)>;

impl Processes {
    pub(crate) fn spawn(&mut self, worker: WorkerRef, knobs: &Knobs, chance: &mut Chance) -> Deeds {
        let mut process = Process {
            worker,
            life: Life::Lives,
            run: None,
            plan: 0,
            pipe: Instant::START,
        };
        let boot = chance.within_ms(30);
        let deeds = if chance.permille(knobs.spawn_fails) {
            process.life = Life::Dead;
            vec![(boot / 4, Deed::Unborn)]
        } else if chance.permille(knobs.boot_crashes) {
            vec![(boot, Deed::Die)]
        } else if chance.permille(knobs.boot_hangs) {
            vec![(boot, Deed::Stall(0))]
        } else if chance.permille(knobs.violations) {
            vec![(boot, Deed::Say(0, Event::WorkerViolated(worker)))]
        } else {
            vec![(boot, Deed::Say(0, Event::WorkerReady(worker)))]
        };
        self.last.insert(worker.slot, process);
        deeds
    }

    pub(crate) fn assign(
        &mut self,
        worker: WorkerRef,
        attempt: AttemptRef,
        run_time_max: Duration,
        (knobs, chance): (&Knobs, &mut Chance),
    ) -> Deeds {
        let Some(process) = self.living(worker) else {
            return Vec::new();
        };
        process.run = Some(attempt);
        process.plan += 1;
        let plan = process.plan;
        let start = chance.within_ms(10);
        let mut end = start + chance.within_ms(knobs.run_ms).min(run_time_max);
        let say = |event| Deed::Say(plan, event);
        let ended = |end| say(Event::JobEnded(worker, attempt, end));
        let mut deeds = vec![(start, say(Event::JobStarted(worker, attempt)))];
        if chance.permille(knobs.unbuilt) {
            return vec![(start, ended(JobEnd::BoxFailed))];
        } else if chance.permille(50) {
            return vec![(start, ended(JobEnd::Failed))];
        } else if chance.permille(knobs.crashes) {
            deeds.push((chance.within_ms(knobs.run_ms + 10), Deed::Die));
        } else if chance.permille(knobs.stalls) {
            deeds.push((chance.within_ms(knobs.run_ms + 10), Deed::Stall(plan)));
        } else if chance.permille(knobs.violations) {
            deeds.push((end, say(Event::WorkerViolated(worker))));
        } else if chance.permille(knobs.overruns) {
            end += run_time_max * 3;
        }
        let how = match chance.up_to(5) {
            0 if chance.permille(knobs.false_stops) => JobEnd::Stopped,
            0 | 1 => JobEnd::Succeeded,
            2 => JobEnd::Failed,
            3 => JobEnd::TimedOut,
            4 => JobEnd::MemoryExceeded,
            _ => JobEnd::LimitExceeded,
        };
        deeds.push((end, ended(how)));
        deeds
    }

    pub(crate) fn stop(
        &mut self,
        worker: WorkerRef,
        attempt: AttemptRef,
        knobs: &Knobs,
        chance: &mut Chance,
    ) -> Deeds {
        let ignored = chance.permille(knobs.orders_ignored);
        let Some(process) = self
            .living(worker)
            .filter(|process| process.run == Some(attempt))
        else {
            return Vec::new();
        };
        process.plan += 1;
        if ignored {
            return Vec::new();
        }
        let said = Event::JobEnded(worker, attempt, JobEnd::Stopped);
        vec![(chance.within_ms(20), Deed::Say(process.plan, said))]
    }

    pub(crate) fn ping(&mut self, worker: WorkerRef, number: u64, chance: &mut Chance) -> Deeds {
        let Some(process) = self.living(worker) else {
            return Vec::new();
        };
        let said = Event::PingAnswered(worker, number);
        vec![(chance.within_ms(5), Deed::Say(process.plan, said))]
    }

    pub(crate) fn retire(
        &mut self,
        worker: WorkerRef,
        knobs: &Knobs,
        chance: &mut Chance,
    ) -> Deeds {
        if self.living(worker).is_none() || chance.permille(knobs.orders_ignored) {
            return Vec::new();
        }
        vec![(chance.within_ms(10), Deed::Die)]
    }

    /// SIGKILL cannot be ignored, by a stalled process neither.
    pub(crate) fn kill(&self, worker: WorkerRef, chance: &mut Chance) -> Deeds {
        if self.is_dead(worker) {
            return Vec::new();
        }
        vec![(chance.within_ms(5), Deed::Die)]
    }

    /// It does what it had in mind: what it says thereby, and when that arrives.
    pub(crate) fn act(
        &mut self,
        now: Instant,
        worker: WorkerRef,
        deed: Deed,
        (knobs, chance): (&Knobs, &mut Chance),
    ) -> Option<(Instant, Event)> {
        let process = self.last.get_mut(&worker.slot)?;
        if process.worker != worker {
            return None;
        }
        match (deed, process.life) {
            (Deed::Unborn, _) => Some((now, Event::SpawnFailed(worker))),
            (Deed::Die, Life::Lives | Life::Stalled) => {
                process.life = Life::Dead;
                process.run = None;
                let at = now.after(chance.within_ms(knobs.pipe_ms));
                Some((at, Event::WorkerExited(worker)))
            }
            (Deed::Stall(plan), Life::Lives) => {
                if plan == process.plan {
                    process.life = Life::Stalled;
                }
                None
            }
            (Deed::Say(plan, event), Life::Lives) => {
                let pong = matches!(event, Event::PingAnswered(..));
                if plan != process.plan && !pong {
                    return None;
                }
                if matches!(event, Event::JobEnded(..)) {
                    process.run = None;
                }
                let at = now.after(chance.within_ms(knobs.pipe_ms));
                process.pipe = process.pipe.max(at);
                Some((process.pipe, event))
            }
            (Deed::Die | Deed::Stall(_) | Deed::Say(..), Life::Dead)
            | (Deed::Stall(_) | Deed::Say(..), Life::Stalled) => None,
        }
    }

    /// Stops a process from outside, as SIGSTOP does.
    pub(crate) fn stall(&mut self, slot: SlotId) {
        if let Some(process) = self.last.get_mut(&slot)
            && process.life == Life::Lives
        {
            process.life = Life::Stalled;
        }
    }

    pub(crate) fn present(&self, slot: SlotId) -> Option<WorkerRef> {
        self.last.get(&slot).map(|process| process.worker)
    }

    /// What really runs in a slot, and where.
    pub(crate) fn run_in(&self, slot: SlotId) -> Option<(WorkerRef, AttemptRef)> {
        let process = self.last.get(&slot)?;
        Some((process.worker, process.run?))
    }

    pub(crate) fn is_dead(&self, worker: WorkerRef) -> bool {
        self.last
            .get(&worker.slot)
            .is_none_or(|process| process.worker != worker || process.life == Life::Dead)
    }

    fn living(&mut self, worker: WorkerRef) -> Option<&mut Process> {
        self.last
            .get_mut(&worker.slot)
            .filter(|process| process.worker == worker && process.life == Life::Lives)
    }
}

impl Reality for Processes {
    fn lives_in(&self, slot: SlotId) -> bool {
        self.last
            .get(&slot)
            .is_some_and(|process| process.life != Life::Dead)
    }

    fn runs(&self, job: JobId) -> bool {
        self.last
            .values()
            .any(|process| process.run.is_some_and(|run| run.job == job))
    }
}
