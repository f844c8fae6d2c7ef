//! Jobs in real boxes, one worker at a time: how they end, what they see, what is left of them.
//!
//! The program is its own worker: started with `worker` as its first argument it is what a supervisor
//! would have given birth to (see `wpool_tests::rig`).

mod boxes {
    pub(crate) mod endings;
    pub(crate) mod escapes;
    pub(crate) mod leftovers;
    pub(crate) mod streams;
}

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test: its name, and what it does.
pub(crate) type Test = (&'static str, fn() -> anyhow::Result<()>);

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == "worker")
    {
        return wpool_worker::main();
    }
    let tests = [
        boxes::endings::TESTS,
        boxes::escapes::TESTS,
        boxes::leftovers::TESTS,
        boxes::streams::TESTS,
    ];
    let trials = tests
        .into_iter()
        .flatten()
        .map(|&(name, test)| {
            Trial::test(name, move || {
                test().map_err(|error| format!("{error:?}").into())
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
