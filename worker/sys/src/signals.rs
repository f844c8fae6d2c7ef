//! Signals as a fresh program expects them.
//!
//! # Invariants
//!
//! - After [`reset`] no signal is blocked and none is ignored.

use std::io;
use std::ptr;

/// Hears of children: whoever has started this program may ignore SIGCHLD, that stays so over `exec`, and then the kernel reaps
/// them and tells nobody how they ended.
pub fn hear_of_children() {
    // SAFETY: SIG_DFL is no function of ours that could run.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Unblocks every signal and gives each its default action.
///
/// Rust's runtime ignores SIGPIPE, and an ignored signal stays ignored over `exec`: without this, a
/// job's `yes | head -1` would never end.
///
/// # Errors
///
/// Those of `sigprocmask(2)`.
pub fn reset() -> io::Result<()> {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is no function of ours that could run; for KILL, STOP and the two signals
        // that the C library keeps for itself the call fails, and their action is the default anyway.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: `sigset_t` is plain data, and sigemptyset fills it in.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is a live sigset_t.
    unsafe { libc::sigemptyset(&raw mut none) };
    // SAFETY: `none` is a live sigset_t; the old mask is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
