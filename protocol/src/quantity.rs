//! Sizes and durations, as people write them and as JSON carries them.
//!
//! In JSON and TOML a size is a number of bytes and a duration a number of milliseconds; in TOML and
//! on the command line both may also be written like `256M` or `5s`.
//!
//! # Invariants
//!
//! - Parsing never rounds: `0.5` of anything is refused, and so is what does not fit.
//! - Printing gives the largest unit that divides the value, so that what is printed parses back to it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// A number of milliseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

/// A text that is no size or duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: expected a whole number with an optional unit, like {example}")]
pub struct ParseQuantityError {
    text: String,
    what: &'static str,
    example: &'static str,
}

const BYTE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
    ("k", 1 << 10),
    ("", 1),
];

const TIME_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("", 1),
];

/// Splits `text` into digits and unit and multiplies the two; `None` if it is no such thing.
fn parse_with_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = units
        .iter()
        .find_map(|&(name, factor)| (name == unit.trim_start()).then_some(factor))?;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

impl ByteSize {
    /// `count` kibibytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// `count` mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// `count` gibibytes.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = [
            ("TiB", 1 << 40),
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("KiB", 1 << 10),
        ]
        .into_iter()
        .find(|&(_, factor)| self.0 != 0 && self.0.is_multiple_of(factor))
        .unwrap_or(("B", 1));
        f.pad(&format!("{} {name}", self.0 / factor))
    }
}

impl FromStr for ByteSize {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_with_units(text, BYTE_UNITS)
            .map(Self)
            .ok_or_else(|| ParseQuantityError {
                text: text.chars().take(40).collect(),
                what: "size",
                example: "65536, 64K, 256M or 2G",
            })
    }
}

impl Millis {
    /// `count` seconds.
    pub const fn seconds(count: u64) -> Self {
        Self(count * 1_000)
    }
}

impl From<Millis> for Duration {
    fn from(millis: Millis) -> Self {
        Self::from_millis(millis.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = [("h", 3_600_000), ("min", 60_000), ("s", 1_000)]
            .into_iter()
            .find(|&(_, factor)| self.0 != 0 && self.0.is_multiple_of(factor))
            .unwrap_or(("ms", 1));
        f.pad(&format!("{} {name}", self.0 / factor))
    }
}

impl FromStr for Millis {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_with_units(text, TIME_UNITS)
            .map(Self)
            .ok_or_else(|| ParseQuantityError {
                text: text.chars().take(40).collect(),
                what: "duration",
                example: "1500, 1500ms, 5s, 2m or 1h",
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_parses_back(value: u64) {
            prop_assert_eq!(ByteSize(value).to_string().parse(), Ok(ByteSize(value)));
            prop_assert_eq!(Millis(value).to_string().parse(), Ok(Millis(value)));
        }

        #[test]
        fn any_text_parses_or_is_refused(text: String) {
            drop(text.parse::<ByteSize>());
            drop(text.parse::<Millis>());
        }
    }

    #[test]
    fn people_write_sizes_and_durations() {
        assert_eq!("256M".parse(), Ok(ByteSize::mib(256)));
        assert_eq!("64 KiB".parse(), Ok(ByteSize::kib(64)));
        assert_eq!("17".parse(), Ok(ByteSize(17)));
        assert_eq!("5s".parse(), Ok(Millis::seconds(5)));
        assert_eq!("2m".parse(), Ok(Millis::seconds(120)));
    }

    #[test]
    fn what_does_not_fit_or_is_no_whole_number_is_refused() {
        for text in ["", "M", "0.5G", "-1", "99999999999G", "1e3", "5 s 3"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert!("5x".parse::<Millis>().is_err());
    }
}
