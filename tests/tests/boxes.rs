//! Jobs in real boxes, one worker at a time: how they end, what they see, what is left of them.
//!
//! The program is its own worker: started with `worker` as its first argument it is what a supervisor
//! would have given birth to (see `wpool_tests::rig`).

mod boxes {
    pub(crate) mod endings;
    pub(crate) mod escapes;
    pub(crate) mod evasions;
    pub(crate) mod leftovers;
    pub(crate) mod streams;
}

use std::process::ExitCode;

use wpool_tests::trial;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == "worker")
    {
        return wpool_worker::main();
    }
    trial::run([
        boxes::endings::TESTS,
        boxes::escapes::TESTS,
        boxes::evasions::TESTS,
        boxes::leftovers::TESTS,
        boxes::streams::TESTS,
    ])
}
