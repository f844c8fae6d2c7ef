//! The words that the supervisor, the workers and the clients of wpool share.
//!
//! Three groups of types live here, and nothing that acts:
//!
//! - what every part speaks of: [`id`], [`quantity`], [`limits`], [`path`];
//! - what clients read and write as JSON: [`blob`], [`job`], [`object`], [`outcome`], [`status`], [`explanation`],
//!   [`problem`];
//! - what travels between supervisor and worker: [`wire`] messages, encoded by [`codec`], cut into
//!   frames by [`frame`], permitted by the table in [`phase`].
//!
//! # Invariants
//!
//! - No IO, no clock, no unsafe code: bytes in, values out, and back.
//! - JSON types refuse unknown fields; wire types use nothing that bincode cannot carry
//!   (no untagged, flattened or skipped fields).
//! - Every length is checked against a named limit before anything is allocated for it.

#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm, clippy::indexing_slicing)]

pub mod id;
pub mod limits;
pub mod path;
pub mod quantity;
pub mod timestamp;

pub mod blob;
pub mod explanation;
pub mod job;
pub mod object;
pub mod outcome;
pub mod problem;
pub mod status;

pub mod codec;
pub mod frame;
pub mod phase;
pub mod wire;
