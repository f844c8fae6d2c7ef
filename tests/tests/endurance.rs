//! Ten thousand jobs, good and hostile mixed, of four tenants on two slots: the good ones are right, and what the daemon and the host
//! hold afterwards is what they held before.
//!
//! Not here: workers that die all the time (`chaos.rs`), and whether an attack escapes (`escape.rs`).

mod endurance {
    pub(crate) mod census;
    pub(crate) mod client;
    pub(crate) mod history;
    pub(crate) mod host;
    pub(crate) mod misdeeds;
    pub(crate) mod process;
    pub(crate) mod room;
    pub(crate) mod task;
    pub(crate) mod works;
}

use std::process::ExitCode;

use wpool_tests::trial;

fn main() -> ExitCode {
    trial::run([endurance::history::TESTS])
}
