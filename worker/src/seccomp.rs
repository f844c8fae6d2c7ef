//! The syscall filter of a job: from a readable table to a loaded program.
//!
//! [`table`] says in rows what each call is answered, and why; [`compile`] turns the table into a
//! classic BPF program, a balanced search tree over the call's number. A linear list of the same
//! rules takes the kernel six times as long to load, since it walks the filter once for every
//! number to fill its cache of calls that are always allowed: on a short job that is felt.
//!
//! What the job gets is a wide allow-list in the style of the container profiles (the starting point was
//! the default of moby, without what it ties to capabilities), so that interpreters and compilers live with it.
//!
//! # Invariants
//!
//! - What the table does not name is answered `ENOSYS`, as by a kernel that does not have it yet:
//!   libraries fall back, and a call of the next kernel is refused before anyone thought about it.
//! - A call of a foreign architecture (i386, x32) kills the process: its numbers mean other calls.
//! - A program is compiled once, before anything is forked; [`load`] allocates nothing.
//! - The filter is the job's alone: neither the worker nor an init is ever under it.

pub mod compile;
pub mod table;

use std::io;

use wpool_protocol::wire::LayerState;
use wpool_sys::seccomp::{available, install_filter};

pub use self::compile::Program;
pub use self::table::{Accounting, Table};

/// Puts the calling thread under the program, for good; `no_new_privs` must be set before.
///
/// To be called in the job's own process, as the last step before `execve`.
///
/// # Errors
///
/// Those of `seccomp(2)`; `EACCES` if `no_new_privs` is not set.
pub fn load(program: &Program) -> io::Result<()> {
    install_filter(program.instructions())
}

/// Whether this kernel can filter calls.
pub fn state() -> LayerState {
    match available() {
        Ok(()) => LayerState::Active(String::new()),
        Err(error) => LayerState::Missing {
            reason: format!("the kernel refuses seccomp filters: {error}"),
            remedy: "use a kernel with CONFIG_SECCOMP_FILTER; inside a container, let its own \
                     profile allow the call seccomp"
                .to_owned(),
        },
    }
}
