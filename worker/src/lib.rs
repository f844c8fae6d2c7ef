//! Being written.

pub mod usage;
