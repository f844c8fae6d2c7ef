//! The supervisor of wpool.

pub mod birth;
pub mod cgroup;
pub mod config;
pub mod output;

pub mod client;
pub mod foreground;
