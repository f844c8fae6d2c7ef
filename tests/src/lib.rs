//! What the tests of wpool share; nothing else uses it.

pub mod cgroup;
pub mod chance;
pub mod host;
pub mod rig;
pub mod sim;
pub mod tidy;
pub mod trial;
pub mod wpool;
