//! Waits that double and that chance spreads.
//!
//! Chance is a generator of the pool's own, so that a run can be repeated from its seed: `SplitMix64`
//! (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). It decides nothing but
//! the length of waits, so its quality is ample.

use core::time::Duration;

use serde::{Deserialize, Serialize};

/// The source of chance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `most`, both included.
    pub(crate) const fn up_to(&mut self, most: u64) -> u64 {
        match most.checked_add(1) {
            Some(count) => self.next() % count,
            None => self.next(),
        }
    }
}

/// Waits that begin with `min`, double each time and end at `max`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl Backoff {
    /// The wait after `before` others: between half and the whole of it, so that what failed together
    /// does not come back together, and never above the cap.
    pub(crate) fn wait(self, before: u32, random: &mut Random) -> Duration {
        let factor = 1u32.checked_shl(before).unwrap_or(u32::MAX);
        let whole = self.min.saturating_mul(factor).min(self.max);
        let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(nanos - random.up_to(nanos / 2))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wait_is_between_half_and_all_of_its_doubled_minimum(seed: u64, before in 0u32..70) {
            let backoff = Backoff {
                min: Duration::from_millis(50),
                max: Duration::from_secs(10),
            };
            let wait = backoff.wait(before, &mut Random::new(seed));
            let whole = 50u128.saturating_mul(1 << before.min(64)).min(10_000) * 1_000_000;
            prop_assert!(wait.as_nanos() <= whole);
            prop_assert!(wait.as_nanos() >= whole / 2);
        }

        #[test]
        fn chance_stays_in_its_range(seed: u64, most: u64) {
            prop_assert!(Random::new(seed).up_to(most) <= most);
        }
    }

    #[test]
    fn different_seeds_spread_the_waits() {
        let backoff = Backoff {
            min: Duration::from_secs(1),
            max: Duration::from_secs(1),
        };
        assert_ne!(
            backoff.wait(0, &mut Random::new(1)),
            backoff.wait(0, &mut Random::new(2))
        );
    }
}
