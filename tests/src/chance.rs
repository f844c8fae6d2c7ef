//! A source of chance that gives the same again for the same seed: xorshift64*, another one than the pool's.
//!
//! Not here: anything that has to be hard to guess.

use std::time::Duration;

/// A generator of chance.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Seeds that are near to each other give histories that are not.
    pub const fn new(seed: u64) -> Self {
        let mixed = seed
            .wrapping_add(0x6a09_e667_f3bc_c909)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self((mixed ^ (mixed >> 29)) | 1)
    }

    /// Any number of 53 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// From 0 to `most`, both included.
    pub const fn up_to(&mut self, most: u64) -> u64 {
        self.next() % (most + 1)
    }

    /// From `least` to `most`, both included.
    pub const fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.up_to(most - least)
    }

    /// True in so many of a thousand cases.
    pub const fn permille(&mut self, share: u64) -> bool {
        self.next() % 1_000 < share
    }

    /// From nothing to so many milliseconds, in microseconds: two things seldom happen together.
    pub const fn within_ms(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.up_to(most * 1_000))
    }
}
