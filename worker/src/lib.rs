//! The sandboxed worker of wpool: builds boxes, runs jobs in them, watches their limits.
//!
//! From the outside in:
//!
//! - [`worker`]: the life of a worker, its loop, its pipes;
//! - `slot`, [`ground`], [`plan`], [`blueprint`], [`apply`], `rehearsal`, `layers`: the sandbox of a slot, built once;
//! - `desk`, `job_box`, `directory`, `run`: one job, from order to report;
//! - `init`, `group`, `launch`: the job's own processes, until its program begins;
//! - `capture`, `feed`, [`lay`], [`collect`], `deliver`: its bytes, in and out;
//! - [`seccomp`], [`landlock`], [`rlimits`], [`cgroup`], [`usage`]: the walls and the meters.
//!
//! # Invariants
//!
//! - A worker has one thread, so that its forks may run ordinary code.
//! - No unsafe code: what needs it is in `wpool-sys`.

pub mod worker;

pub mod apply;
pub mod blueprint;
pub mod ground;
mod layers;
pub mod plan;
mod rehearsal;
mod slot;

mod desk;
pub mod directory;
mod job_box;
mod run;

mod dialogue;
mod group;
mod init;
mod launch;

mod beneath;
mod capture;
pub mod collect;
mod deliver;
mod feed;
pub mod lay;

pub mod cgroup;
pub mod landlock;
pub mod rlimits;
pub mod seccomp;
pub mod usage;

pub use worker::{main, main_altered};
