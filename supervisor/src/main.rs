//! The one binary of wpool: `run`, `serve`, every control verb, and the worker.
//!
//! # Invariants
//!
//! - The process ends by returning from `main`, so that every buffer is flushed and every guard runs.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    wpool_sys::signals::hear_of_children();
    let mut arguments = std::env::args_os().peekable();
    let program = arguments.next().unwrap_or_else(|| "wpool".into());
    // Nobody types `wpool worker slot=0 gen=1`: the supervisor does, a thousand times a day, and it is in no help.
    if arguments.peek().is_some_and(|word| word == "worker") {
        return wpool_worker::main();
    }
    cli::main(std::iter::once(program).chain(arguments))
}
