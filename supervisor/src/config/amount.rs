//! Sizes and durations as the config writes them: a number, or a text like `256M` or `5s`.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wpool_protocol::quantity::{ByteSize, Millis};

/// A quantity that may be written either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount<Q>(pub Q);

/// What can be written as an [`Amount`].
pub trait Quantity: Copy + FromStr<Err: fmt::Display> + fmt::Display {
    /// What to write, for people.
    const EXPECTED: &'static str;

    /// The quantity that a bare number stands for.
    fn from_number(number: u64) -> Self;
}

impl Quantity for ByteSize {
    const EXPECTED: &'static str = "a number of bytes, or a size like \"256M\"";

    fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl Quantity for Millis {
    const EXPECTED: &'static str = "a number of milliseconds, or a duration like \"5s\"";

    fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl<Q: Quantity> Serialize for Amount<Q> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct AmountVisitor<Q>(std::marker::PhantomData<Q>);

impl<Q: Quantity> Visitor<'_> for AmountVisitor<Q> {
    type Value = Amount<Q>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(Q::EXPECTED)
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Self::Value, E> {
        Ok(Amount(Q::from_number(v)))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Self::Value, E> {
        let number =
            u64::try_from(v).map_err(|_| E::invalid_value(de::Unexpected::Signed(v), &self))?;
        self.visit_u64(number)
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
        v.parse().map(Amount).map_err(E::custom)
    }
}

impl<'de, Q: Quantity> Deserialize<'de> for Amount<Q> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor(std::marker::PhantomData))
    }
}
