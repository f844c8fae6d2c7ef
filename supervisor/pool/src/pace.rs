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
    /// Since when there has been a job without a break, as long as none has ended.
    busy_since: Instant,
    /// When the place is free that was promised last.
    promised: Instant,
}

impl Pace {
    /// The first job is there, after none was: the time between is taken out, as if the last had ended now.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.busy_since = now;
        let quiet = self
            .ends
            .back()
            .map_or(Duration::ZERO, |last| now.since(*last));
        for end in &mut self.ends {
            *end = end.after(quiet);
        }
    }

    /// A job has ended.
    pub(crate) fn end(&mut self, now: Instant) {
        if self.ends.len() >= ENDS_KEPT {
            self.ends.pop_front();
        }
        self.ends.push_back(now);
    }

    /// How long it takes until `jobs` more have ended, behind those whom this was told before: each is told another moment.
    ///
    /// `elsewhere` is how fast jobs end where more is known.
    pub(crate) fn promise(
        &mut self,
        now: Instant,
        jobs: u64,
        elsewhere: Option<Duration>,
    ) -> Duration {
        let usual = self.usual().or(elsewhere).unwrap_or(RETRY_UNKNOWN);
        let each = usual.max(self.waited(now));
        let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
        let first = now.after(each.saturating_mul(jobs));
        let last = first.after(each.saturating_mul(PROMISED_MAX));
        let at = first.max(self.promised.after(each)).min(last);
        self.promised = at;
        at.since(now).clamp(RETRY_MIN, RETRY_MAX)
    }

    /// The time from one end to the next, as it was lately; nothing as long as none is known.
    pub(crate) fn usual(&self) -> Option<Duration> {
        let (first, last) = (self.ends.front()?, self.ends.back()?);
        let gaps = u32::try_from(self.ends.len()).ok()?.checked_sub(1)?;
        last.since(*first).checked_div(gaps)
    }

    /// How long the next end is in coming already.
    fn waited(&self, now: Instant) -> Duration {
        let last = self.ends.back().copied().unwrap_or_default();
        now.since(last.max(self.busy_since))
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
        let told = [(); 3].map(|()| pace.promise(at_ms(2_000), 1, None).as_millis());
        assert_eq!(told, [500, 1_000, 1_500]);
        let far = (0..1_000)
            .map(|_| pace.promise(at_ms(2_000), 1, None))
            .max();
        assert_eq!(far, Some(Duration::from_millis(500 * 65)));
    }

    #[test]
    fn quiet_time_does_not_count_and_a_long_job_does() {
        let mut pace = every_half_second();
        pace.begin(at_ms(90_000));
        assert_eq!(
            pace.clone().promise(at_ms(90_100), 1, None).as_millis(),
            500
        );
        // Also once jobs have ended on both sides of the quiet time.
        pace.end(at_ms(90_500));
        assert_eq!(pace.promise(at_ms(90_500), 1, None).as_millis(), 500);
        let mut pace = every_half_second();
        assert_eq!(pace.promise(at_ms(9_000), 1, None).as_millis(), 7_000);
    }

    #[test]
    fn where_nothing_is_known_the_pace_elsewhere_is_told() {
        let elsewhere = every_half_second().usual();
        assert_eq!(elsewhere, Some(Duration::from_millis(500)));
        let told = Pace::default().promise(at_ms(0), 2, elsewhere);
        assert_eq!(told.as_millis(), 1_000);
    }

    #[test]
    fn nothing_known_is_a_second_and_more_the_longer_it_lasts() {
        let mut pace = Pace::default();
        assert_eq!(pace.promise(at_ms(0), 1, None), RETRY_UNKNOWN);
        let mut pace = Pace::default();
        assert_eq!(pace.promise(at_ms(4_000), 1, None).as_millis(), 4_000);
        let mut pace = Pace::default();
        assert_eq!(pace.promise(at_ms(900_000), 1, None), RETRY_MAX);
    }
}
