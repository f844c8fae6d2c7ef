//! wpool from the outside: what its users type, and what its jobs and clients try.
//!
//! One module for each theme. Nothing here knows the inside: what is used is the binary, the control socket and /proc.
//! How a daemon lives, and what it survives, is told by its own tests (`daemon.rs`).

mod e2e {
    pub(crate) mod escape;
    pub(crate) mod hidden_memory;
    pub(crate) mod limits;
    pub(crate) mod mistakes;
    pub(crate) mod queue;
    pub(crate) mod readme;
    pub(crate) mod rude_clients;
    pub(crate) mod run;
}

use std::process::ExitCode;

use wpool_tests::trial;

fn main() -> ExitCode {
    trial::run([
        e2e::run::TESTS,
        e2e::mistakes::TESTS,
        e2e::limits::TESTS,
        e2e::hidden_memory::TESTS,
        e2e::escape::TESTS,
        e2e::queue::TESTS,
        e2e::rude_clients::TESTS,
        e2e::readme::TESTS,
    ])
}
