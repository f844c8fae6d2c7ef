//! What is promised about births: a lost worker is replaced at once, unless its slot only burns them.

use std::time::Duration;

use wpool_pool::action::{KillReason, Lost};
use wpool_pool::settings::Settings;
use wpool_pool::time::Instant;
use wpool_protocol::id::WorkerRef;

use crate::sim::oracle::Verdict;

/// A worker that dies idle within this time of being ready, without ever a job, is as one that was never ready.
const SETTLED_AFTER: Duration = Duration::from_millis(50);

/// The births and deaths of a slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Births {
    /// Moments of the counted deaths since the slot was last parked, or since that was over.
    deaths: Vec<Instant>,
    /// Since when nothing has happened that counts, while workers lived here.
    quiet_since: Option<Instant>,
    /// How often the slot was parked since it last proved itself.
    parkings: u32,
    /// The present event has parked it, for so long or down to half of that.
    parked_for: Option<Duration>,
    /// The present worker is the one on which everything hangs.
    probe: bool,
    life: Life,
    death: Death,
}

/// Whether the slot's last worker is dead and has no successor.
#[derive(Clone, Copy, Debug, Default)]
enum Death {
    #[default]
    No,
    /// By the present event, and this is whether it counts.
    Now(bool),
    Before,
}

/// How far the present worker has got.
#[derive(Clone, Copy, Debug, Default)]
enum Life {
    #[default]
    Booting,
    ReadyAt(Instant),
    /// It had a job, or lived for a while.
    Proved,
    /// It was killed or told to go, and this is whether its death will count.
    Killed(bool),
}

impl Births {
    pub(super) fn ready(&mut self, now: Instant) {
        self.life = Life::ReadyAt(now);
        if std::mem::take(&mut self.probe) {
            self.deaths.clear();
            self.quiet_since = Some(now);
        }
    }

    pub(super) const fn job(&mut self) {
        self.life = Life::Proved;
    }

    pub(super) fn kill(&mut self, now: Instant, reason: KillReason) {
        self.life = Life::Killed(self.counts(now) && reason != KillReason::Shrunk);
    }

    /// A job has ended here as jobs do.
    pub(super) const fn prove(&mut self) {
        self.parkings = 0;
    }

    /// It was told to go: that it does says nothing about its slot.
    pub(super) fn retire(&mut self) {
        self.life = Life::Killed(false);
    }

    pub(super) fn death(&mut self, now: Instant, lost: Lost, settings: &Settings) {
        let counts = self.counts(now) || lost == Lost::Killed(KillReason::BoxFailed);
        if counts {
            self.deaths.push(now);
            let before = self.quiet_since.replace(now);
            let quiet = before.is_some_and(|before| now.since(before) > settings.restart_period);
            if quiet && !self.probe {
                self.parkings = 0;
            }
        }
        self.death = Death::Now(counts);
    }

    fn counts(&self, now: Instant) -> bool {
        match self.life {
            Life::Booting => true,
            Life::ReadyAt(at) => now < at.after(SETTLED_AFTER),
            Life::Proved => false,
            Life::Killed(counts) => counts,
        }
    }

    /// Whether the slot burns workers: judged when its last one has died.
    fn burns(&self, now: Instant, settings: &Settings) -> bool {
        let recent = |death: &&Instant| now.since(**death) <= settings.restart_period;
        let recent = self.deaths.iter().filter(recent).count();
        let burst = usize::try_from(settings.restart_burst.max(1)).unwrap_or(usize::MAX);
        match self.death {
            Death::Now(true) => self.probe || recent >= burst,
            Death::Now(false) | Death::Before | Death::No => false,
        }
    }

    pub(super) fn birth(
        &mut self,
        worker: WorkerRef,
        now: Instant,
        settings: &Settings,
    ) -> Verdict {
        require!(
            !self.burns(now, settings),
            "{worker} is born at once although its slot only burns workers"
        );
        if matches!(self.death, Death::Before) {
            self.probe = true;
        }
        self.death = Death::No;
        self.life = Life::Booting;
        Ok(())
    }

    /// The slot is empty at the end of an event.
    pub(super) fn settle(
        &mut self,
        worker: WorkerRef,
        now: Instant,
        settings: &Settings,
    ) -> Verdict {
        if matches!(self.death, Death::Now(_)) {
            require!(
                self.burns(now, settings),
                "{worker} is dead and its slot is parked without need"
            );
            self.death = Death::Before;
            self.deaths = vec![now];
            let doubled = settings.park_min * 2u32.saturating_pow(self.parkings);
            self.parked_for = Some(doubled.min(settings.park_max));
            self.parkings = self.parkings.saturating_add(1);
        }
        Ok(())
    }

    /// What is shown of a parked slot: until when it is left alone.
    pub(super) fn judge_parking(&mut self, now: Instant, until: Instant) -> Verdict {
        if let Some(whole) = self.parked_for.take() {
            require!(
                now.after(whole / 2) <= until && until <= now.after(whole),
                "a slot is parked at {now} until {until}, which is not {whole:?} or half of it"
            );
        }
        Ok(())
    }
}
