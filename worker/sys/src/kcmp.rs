//! `kcmp(2)`: whether two processes live in one address space.
//!
//! A child of `vfork` has its parent's memory until it execs; counted twice, an innocent parent of
//! 300 MB would be killed at 512. Nothing in `/proc` tells the two apart.
//!
//! # Invariants
//!
//! - Only address spaces are compared; nothing is read of what is in them.

use std::cmp::Ordering;
use std::io;

/// `KCMP_VM` of `linux/kcmp.h`; libc does not have it.
const KCMP_VM: libc::c_int = 1;

/// Compares the address spaces of two processes: equal if they share one, else by an order that is
/// total and holds until the next boot.
///
/// # Errors
///
/// Those of `kcmp(2)`: `EPERM` without the right to trace both, `ESRCH` if one has ended, `ENOSYS` on a
/// kernel built without it.
pub fn compare_memory(one: u32, other: u32) -> io::Result<Ordering> {
    // SAFETY: `kcmp` takes numbers only and writes no memory.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) };
    match order {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        unordered => Err(io::Error::other(format!("kcmp answered {unordered}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_shares_its_memory_with_itself_only() {
        let this = std::process::id();
        assert_eq!(compare_memory(this, this).unwrap(), Ordering::Equal);
        let parent = std::os::unix::process::parent_id();
        match compare_memory(this, parent) {
            Ok(order) => assert_ne!(order, Ordering::Equal),
            // The parent may belong to somebody else, or to an outer pid namespace.
            Err(error) => assert!(matches!(
                error.raw_os_error(),
                Some(libc::EPERM | libc::ESRCH)
            )),
        }
    }
}
