//! Which Landlock the kernel has; the crate `landlock` does the rest but keeps the number to itself.
//!
//! Not here: rulesets and their rules.

use std::io;
use std::ptr;

/// `LANDLOCK_CREATE_RULESET_VERSION` of `linux/landlock.h`.
const VERSION: u32 = 1;

/// The version of Landlock's ABI, 1 or more.
///
/// # Errors
///
/// `ENOSYS` where the kernel is built without Landlock (or a sandbox around this process refuses it),
/// `EOPNOTSUPP` where it is switched off at boot.
pub fn abi() -> io::Result<u32> {
    // SAFETY: with the version flag the kernel wants no attributes and a size of 0, and touches no memory.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<u8>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(answer).map_err(|_| io::Error::last_os_error())
}
