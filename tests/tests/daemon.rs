//! A daemon from the outside: jobs, clients good and bad, the operator, its end.
//!
//! Each test starts one of its own on a socket of its own, and leaves nothing behind.

mod daemon {
    pub(crate) mod clients;
    pub(crate) mod explain;
    pub(crate) mod jobs;
    pub(crate) mod life;
    pub(crate) mod operator;
    pub(crate) mod quarantine;
}

use std::process::ExitCode;

use wpool_tests::trial;

fn main() -> ExitCode {
    trial::run([
        daemon::jobs::TESTS,
        daemon::clients::TESTS,
        daemon::life::TESTS,
        daemon::operator::TESTS,
        daemon::explain::TESTS,
        daemon::quarantine::TESTS,
    ])
}
