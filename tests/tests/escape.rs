//! Attacks on the sandbox, one by one: each as job A and then as job B on the same worker, through a daemon; and each on a
//! worker without the layer that contains it, where it must succeed.
//!
//! An attack is a program that says `escaped` for what it could do, and `tried` at its end. As B it first looks for what
//! it left as A. Where the daemon has a cgroup to divide, the kernel keeps its limits, else sampling; whoever runs this
//! decides whose ids jobs have. Which line of the list of attacks is tried where is told by `tests/attacks.toml`.
//!
//! # Invariants
//!
//! - An attack that does not work without its layer either proves nothing, and fails; or says why that cannot be shown.
//! - A layer is taken away by the code here, in a worker of this program's own; the shipped binary has no way to.

mod escape {
    pub(crate) mod attack;
    pub(crate) mod files;
    pub(crate) mod kernel;
    pub(crate) mod leftovers;
    pub(crate) mod proc;
    pub(crate) mod removal;
    pub(crate) mod resources;
}

use std::process::ExitCode;

use escape::attack::Attack;
use escape::removal;
use wpool_tests::trial;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().is_some_and(|first| first == "worker") {
        return wpool_worker::main_altered(removal::of_worker(arguments.next().as_deref()));
    }
    let attacks = [
        escape::leftovers::ATTACKS,
        escape::kernel::ATTACKS,
        escape::proc::ATTACKS,
        escape::files::ATTACKS,
        escape::resources::ATTACKS,
    ];
    let attacks = attacks.into_iter().flatten().map(Attack::trial);
    let others = [escape::files::TESTS, escape::resources::TESTS];
    trial::run_all(attacks.chain(others.into_iter().flatten().map(trial::Test::trial)))
}
