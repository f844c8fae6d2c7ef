//! How fast room becomes free where there is a limit, and what to tell those who find none.
//!
//! # Invariants
//!
//! - A wait is between [`RETRY_MIN`] and [`RETRY_MAX`].
//! - Time in which there was nothing to end does not count.

use core::time::Duration;

use alloc::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// Ends that the rate is taken from: enough to smooth it, few enough to follow a change.
const ENDS_KEPT: usize = 16;

/// What is told as long as no rate is known.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);

/// The shortest wait that is told: below it asking costs more than waiting.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(100);

/// The longest wait that is told.
pub(crate) const RETRY_MAX: Duration = Duration::from_mins(1);

/// Places that are promised to others before one is promised twice: who asks and never comes back delays others by no more.
const PROMISED_MAX: u32 = 64;

/// The ends of jobs that hold room, and what was promised of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pace {
    ends: VecDeque<Instant>,
    /// Since when there has been a job without a break.
    busy_since: Instant,
    /// When the place is free that was promised last.
    promised: Instant,
}

impl Pace {
    /// The first job is there, after none was.
    pub(crate) const fn begin(&mut self, now: Instant) {
        self.busy_since = now;
    }

    /// A job has ended.
    pub(crate) fn end(&mut self, now: Instant) {
        if self.ends.len() >= ENDS_KEPT {
            self.ends.pop_front();
        }
        self.ends.push_back(now);
    }

    /// How long it takes until `jobs` more have ended, behind those whom this was told before: each is told another moment.
    pub(crate) fn promise(&mut self, now: Instant, jobs: u64) -> Duration {
        let each = self.between_ends(now);
        let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
        let first = now.after(each.saturating_mul(jobs));
        let last = first.after(each.saturating_mul(PROMISED_MAX));
        let at = first.max(self.promised.after(each)).min(last);
        self.promised = at;
        at.since(now).clamp(RETRY_MIN, RETRY_MAX)
    }

    /// The time from one end to the next: as it was, or longer if it is longer already.
    fn between_ends(&self, now: Instant) -> Duration {
        let last = self.ends.back().copied().unwrap_or_default();
        let waited = now.since(last.max(self.busy_since));
        let gaps = u32::try_from(self.ends.len())
            .unwrap_or(0)
            .saturating_sub(1);
        let usual = match self.ends.front() {
            Some(first) if gaps > 0 => last.since(*first) / gaps,
            Some(_) | None => RETRY_UNKNOWN,
        };
        usual.max(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(millis: u64) -> Instant {
        Instant::new(Duration::from_millis(millis))
    }

    fn every_half_second() -> Pace {
        let mut pace = Pace::default();
        for end in 1..=4 {
            pace.end(at_ms(end * 500));
        }
        pace
    }

    #[test]
    fn each_is_told_another_moment_at_the_rate_of_the_last_ends() {
        let mut pace = every_half_second();
        let told = [(); 3].map(|()| pace.promise(at_ms(2_000), 1).as_millis());
        assert_eq!(told, [500, 1_000, 1_500]);
        let far = (0..1_000).map(|_| pace.promise(at_ms(2_000), 1)).max();
        assert_eq!(far, Some(Duration::from_millis(500 * 65)));
    }

    #[test]
    fn quiet_time_does_not_count_and_a_long_job_does() {
        let mut pace = every_half_second();
        pace.begin(at_ms(90_000));
        assert_eq!(pace.promise(at_ms(90_100), 1).as_millis(), 500);
        let mut pace = every_half_second();
        assert_eq!(pace.promise(at_ms(9_000), 1).as_millis(), 7_000);
    }

    #[test]
    fn nothing_known_is_a_second_and_more_the_longer_it_lasts() {
        let mut pace = Pace::default();
        assert_eq!(pace.promise(at_ms(0), 1), RETRY_UNKNOWN);
        let mut pace = Pace::default();
        assert_eq!(pace.promise(at_ms(4_000), 1).as_millis(), 4_000);
        let mut pace = Pace::default();
        assert_eq!(pace.promise(at_ms(900_000), 1), RETRY_MAX);
    }
}
