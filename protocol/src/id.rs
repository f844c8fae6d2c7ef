//! Names of things that live longer than one message: jobs, slots, generations, attempts.
//!
//! # Invariants
//!
//! - A [`JobId`] is never given twice on one machine, not even across restarts: the first id of a
//!   supervisor is its start time in milliseconds shifted left by [`JobId::SEQUENCE_BITS`], and ids
//!   are counted up from there (a million jobs a millisecond would be needed to meet the next start).
//! - As text an id has exactly [`JobId::TEXT_LEN`] characters of Crockford's base 32, so that ids
//!   sort by age as text too.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A job, for as long as anybody may ask about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// The digits of Crockford's base 32: no `i`, `l`, `o`, `u`.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl JobId {
    /// How many ids a supervisor may give per millisecond of its life before the id of a later start could meet them.
    pub const SEQUENCE_BITS: u32 = 20;

    /// Characters of an id as text: 13 × 5 bits hold 64.
    pub const TEXT_LEN: usize = 13;

    /// The first id of a supervisor that starts at `unix_ms` milliseconds since 1970.
    pub const fn first(unix_ms: u64) -> Self {
        Self(unix_ms << Self::SEQUENCE_BITS)
    }

    /// The id after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(Self::TEXT_LEN);
        for place in (0..Self::TEXT_LEN).rev() {
            let digit = usize::try_from((self.0 >> (5 * place)) & 31).unwrap_or(0);
            text.push(DIGITS.get(digit).copied().map_or('0', char::from));
        }
        f.pad(&text)
    }
}

/// A text that is no job id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a job id: expected 13 characters of 0-9 and a-z without i, l, o, u")]
pub struct ParseJobIdError {
    text: String,
}

impl FromStr for JobId {
    type Err = ParseJobIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseJobIdError {
            text: text.chars().take(40).collect(),
        };
        if text.len() != Self::TEXT_LEN {
            return Err(error());
        }
        let mut value = 0u64;
        for byte in text.bytes() {
            let digit = DIGITS
                .iter()
                .position(|&digit| digit == byte)
                .ok_or_else(error)?;
            let digit = u64::try_from(digit).map_err(|_| error())?;
            value = value
                .checked_mul(32)
                .and_then(|value| value.checked_add(digit))
                .ok_or_else(error)?;
        }
        Ok(Self(value))
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}

/// The permanent place of a worker, one per core by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotId(pub u16);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The n-th incarnation of the worker in a slot, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One worker process: its slot and its generation there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerRef {
    /// The place.
    pub slot: SlotId,
    /// The incarnation.
    pub generation: Generation,
}

impl fmt::Display for WorkerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// One run of a job, counted from 1; lost and uncounted runs are numbered too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptNumber(pub NonZeroU32);

impl AttemptNumber {
    /// The first attempt of a job.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The attempt after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for AttemptNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One run of one job: what a worker's messages about a run must name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptRef {
    /// The job.
    pub job: JobId,
    /// Its run.
    pub attempt: AttemptNumber,
}

impl fmt::Display for AttemptRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.job, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn job_ids_survive_text_and_sort_as_text(a: u64, b: u64) {
            let (a, b) = (JobId(a), JobId(b));
            prop_assert_eq!(a.to_string().parse::<JobId>().unwrap(), a);
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        }
    }

    #[test]
    fn texts_that_are_no_ids_are_refused() {
        for text in [
            "",
            "0",
            "zzzzzzzzzzzzz",
            "000000000000i",
            "00000000000000",
            "000000000000A",
        ] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_of_a_later_start_are_greater() {
        let last_of_first_second = JobId(JobId::first(1_000).0 + (1 << JobId::SEQUENCE_BITS) - 1);
        assert!(JobId::first(1_001) > last_of_first_second);
    }
}
