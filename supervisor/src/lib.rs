//! The supervisor of wpool: the shell around the pool, and what the commands of `wpool` do.
//!
//! - [`birth`], [`cgroup`], [`output`]: workers, their cgroups, and what their jobs write;
//! - [`diagnosis`]: why this host lets no sandbox stand;
//! - [`request`], [`gather`], [`report`]: a job on its way to a worker, and back;
//! - [`foreground`]: one job without a daemon;
//! - [`config`], [`driver`], [`store`], [`http`], [`notify`], [`serve`]: the daemon;
//! - [`client`]: its clients.
//!
//! # Invariants
//!
//! - Nothing here resolves a path that a job has named.
//! - What is decided about jobs and workers is decided by `wpool-pool`; here it is carried out.

pub mod birth;
pub mod cgroup;
pub mod diagnosis;
pub mod output;

pub mod gather;
pub mod report;
pub mod request;

pub mod foreground;

pub mod config;
pub mod driver;
pub mod http;
pub mod notify;
pub mod resource_limits;
pub mod serve;
pub mod store;

pub mod client;
