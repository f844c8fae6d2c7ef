//! A daemon whose processes are killed, stopped and starved from outside, while clients submit and some of them vanish.
//!
//! Not here: the same in virtual time, millions of times (`sim.rs`).

mod chaos {
    pub(crate) mod blows;
    pub(crate) mod client;
    pub(crate) mod fiend;
    pub(crate) mod ledger;
    pub(crate) mod task;
}

use std::process::ExitCode;

use wpool_tests::trial;

fn main() -> ExitCode {
    trial::run([chaos::blows::TESTS, chaos::ledger::TESTS])
}
