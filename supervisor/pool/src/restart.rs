//! When a slot whose workers keep dying is left alone for a while: the restart breaker.
//!
//! ```text
//!               restart_burst counted deaths
//!               within restart_period
//!      Closed ─────────────────────────────────▶ Open ◀──┐
//!        ▲                                        │      │
//!        │                       the wait is over │      │ the probe dies
//!        │                                        ▼      │ before it is ready
//!        └─────────────────────────────────── HalfOpen ──┘
//!              the probe is ready              (one worker)
//! ```
//!
//! Which deaths are counted is decided where workers die (`pool/deaths.rs`): those before ready, and
//! those that would make a hot loop although the worker was ready.
//!
//! # Invariants
//!
//! - `Open` exactly while the slot is parked: nothing is spawned in it.
//! - The wait doubles from one parking to the next until the slot has proved itself, by a job that
//!   ended in it or by `restart_period` without a counted death while workers lived in it: a wait is no peace.

use core::time::Duration;

use alloc::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::backoff::{Backoff, Random};
use crate::settings::Settings;
use crate::time::Instant;
use crate::view::ParkedBy;

/// The breaker of one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Breaker {
    state: BreakerState,
    /// Counted deaths within the period, oldest first.
    deaths: VecDeque<Instant>,
    /// The last counted death of all, or the moment when the last parking was over.
    last: Option<Instant>,
    /// How often the slot was parked since it last proved itself.
    parkings: u32,
    /// What it was parked for then.
    parked_by: Option<ParkedBy>,
}

/// Whether workers may be born.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BreakerState {
    /// At once.
    #[default]
    Closed,
    /// Not before the wait is over.
    Open,
    /// One was, and everything hangs on it.
    HalfOpen,
}

impl Breaker {
    pub(crate) const fn state(&self) -> BreakerState {
        self.state
    }

    /// What the slot was parked for last, since it proved itself.
    pub(crate) const fn parked_by(&self) -> Option<ParkedBy> {
        self.parked_by
    }

    /// Counts a death; the answer is how long the slot is parked for, if it is.
    pub(crate) fn death(
        &mut self,
        now: Instant,
        settings: &Settings,
        random: &mut Random,
    ) -> Option<Duration> {
        let period = settings.restart_period;
        let last = self.last.replace(now);
        let at_peace = last.is_some_and(|last| now.since(last) > period);
        if at_peace && self.state == BreakerState::Closed {
            self.prove();
        }
        while self
            .deaths
            .front()
            .is_some_and(|&death| now.since(death) > period)
        {
            self.deaths.pop_front();
        }
        self.deaths.push_back(now);
        let burst = usize::try_from(settings.restart_burst.max(1)).unwrap_or(usize::MAX);
        let parks = match self.state {
            BreakerState::Closed => self.deaths.len() >= burst,
            BreakerState::HalfOpen | BreakerState::Open => true,
        };
        if !parks {
            return None;
        }
        let backoff = Backoff {
            min: settings.park_min,
            max: settings.park_max,
        };
        let wait = backoff.wait(self.parkings, random);
        self.parkings = self.parkings.saturating_add(1);
        self.parked_by = Some(match self.state {
            BreakerState::Closed => {
                ParkedBy::Burst(u32::try_from(self.deaths.len()).unwrap_or(u32::MAX))
            }
            BreakerState::HalfOpen | BreakerState::Open => ParkedBy::Probe(self.parkings),
        });
        self.state = BreakerState::Open;
        self.deaths.clear();
        Some(wait)
    }

    /// The wait is over and one worker is born.
    pub(crate) const fn probe(&mut self) {
        self.state = BreakerState::HalfOpen;
    }

    /// A worker is ready.
    pub(crate) fn ready(&mut self, now: Instant) {
        match self.state {
            BreakerState::Closed => {}
            BreakerState::Open | BreakerState::HalfOpen => {
                self.state = BreakerState::Closed;
                self.deaths.clear();
                self.last = Some(now);
            }
        }
    }

    /// A job has ended here.
    pub(crate) const fn prove(&mut self) {
        self.parkings = 0;
        self.parked_by = None;
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::new(Duration::from_secs(seconds))
    }

    fn die(breaker: &mut Breaker, seconds: u64) -> Option<Duration> {
        breaker.death(
            at(seconds),
            &Settings::default_for(1),
            &mut Random::new(seconds),
        )
    }

    /// Workers die until the slot is parked.
    fn park(breaker: &mut Breaker, seconds: u64) -> Duration {
        loop {
            if let Some(wait) = die(breaker, seconds) {
                return wait;
            }
        }
    }

    #[test]
    fn a_burst_within_the_period_parks_and_the_same_deaths_further_apart_do_not() {
        let mut breaker = Breaker::default();
        for seconds in [0, 1, 2, 3] {
            assert_eq!(die(&mut breaker, seconds), None);
        }
        assert!(die(&mut breaker, 4).is_some());
        assert_eq!(breaker.state(), BreakerState::Open);

        let mut breaker = Breaker::default();
        for death in 0..100 {
            assert_eq!(die(&mut breaker, death * 10), None, "{death}");
        }
    }

    #[test]
    fn a_probe_that_dies_parks_for_longer_and_one_that_is_ready_closes() {
        let mut breaker = Breaker::default();
        let waits: [_; 5] = core::array::from_fn(|_| die(&mut breaker, 0));
        let first = waits[4].unwrap();
        assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&first));
        breaker.probe();
        let second = die(&mut breaker, 1).unwrap();
        assert!((Duration::from_secs(1)..=Duration::from_secs(2)).contains(&second));
        breaker.probe();
        breaker.ready(at(0));
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(die(&mut breaker, 2), None);
    }

    #[test]
    fn workers_that_die_right_after_ready_each_time_are_parked_for_longer_and_longer() {
        let mut breaker = Breaker::default();
        let mut waits = Vec::new();
        for _ in 0..4 {
            waits.push(park(&mut breaker, 0));
            breaker.probe();
            breaker.ready(at(0));
        }
        assert!(waits[3] > waits[0] * 3, "{waits:?}");
        breaker.prove();
        assert!(park(&mut breaker, 0) <= Duration::from_secs(1));
    }

    #[test]
    fn a_period_without_a_counted_death_is_forgiven_also_after_a_probe_that_was_ready() {
        let mut breaker = Breaker::default();
        let first = park(&mut breaker, 0);
        breaker.probe();
        breaker.ready(at(0));
        let later = park(&mut breaker, 3_600);
        assert!(later <= Duration::from_secs(1), "{first:?}, {later:?}");
    }

    #[test]
    fn a_wait_that_is_longer_than_the_period_is_no_peace() {
        let mut breaker = Breaker::default();
        let mut seconds = 0;
        let waits: Vec<_> = core::iter::repeat_with(|| {
            let wait = park(&mut breaker, seconds);
            seconds += wait.as_secs() + 40;
            breaker.probe();
            wait
        })
        .take(9)
        .collect();
        // From the eighth on the whole wait is `park_max`, or down to half of it.
        assert!(
            waits[7..]
                .iter()
                .all(|wait| *wait >= Duration::from_secs(30)),
            "{waits:?}"
        );
    }
}
