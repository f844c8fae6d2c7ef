//! Being written.

pub mod sim;
