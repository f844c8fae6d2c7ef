//! Being written.

pub mod seccomp;
