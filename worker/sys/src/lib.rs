//! The kernel calls of wpool that no safe crate offers: every `unsafe` of the repository is here.
//!
//! What nix and rustix offer is called from where it is needed; this crate holds the rest, as small
//! safe functions that take and give owned or borrowed descriptors.
//!
//! # Invariants
//!
//! - Nothing here decides anything: no policy, no retry, no logging.
//! - Between `clone3` and `exec` of a process with threads runs only `birth/child.rs`, and `steward.rs` around it.

#![expect(
    unsafe_code,
    reason = "this crate is the one corner for what the kernel offers and no safe crate does"
)]

pub mod birth;
pub mod clone3;
pub mod descriptor;
pub mod kcmp;
pub mod landlock;
pub mod loopback;
pub mod mount;
pub mod namespaces;
pub mod probe;
pub mod seccomp;
pub mod signals;
pub mod steward;
pub mod wait;
