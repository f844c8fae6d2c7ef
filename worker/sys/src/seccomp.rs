//! Installing a seccomp filter (seccomp(2)); nix and rustix offer only the strict mode.
//!
//! # Invariants
//!
//! - A filter is for the calling thread and what it forks later: never `TSYNC`, never a listener.
//! - What is in the filter is the caller's affair; the kernel checks that it is a well-formed program.

use std::io;

/// One instruction of a filter: `struct sock_filter` of `linux/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SockFilter {
    /// What to do.
    pub code: u16,
    /// Instructions to skip where a condition holds.
    pub jt: u8,
    /// Instructions to skip where it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

const _: () = assert!(size_of::<SockFilter>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<SockFilter>() == align_of::<libc::sock_filter>());

/// The most instructions that the kernel takes in one filter (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Puts the calling thread under `filter`, for good. `no_new_privs` must be set before.
///
/// Allocates nothing.
///
/// # Errors
///
/// `EACCES` without `no_new_privs`; `EINVAL` where the filter is empty, longer than
/// [`INSTRUCTIONS_MAX`] or not well-formed; `ENOSYS` where the kernel has no seccomp.
pub fn install_filter(filter: &[SockFilter]) -> io::Result<()> {
    let len = match u16::try_from(filter.len()) {
        Ok(len) if filter.len() <= INSTRUCTIONS_MAX => len,
        Ok(_) | Err(_) => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    let program = libc::sock_fprog {
        len,
        filter: filter.as_ptr().cast_mut().cast::<libc::sock_filter>(),
    };
    // SAFETY: SECCOMP_SET_MODE_FILTER reads one sock_fprog, which lives until the call returns, and
    // through it `len` instructions, which are there (`SockFilter` is laid out as `sock_filter`, asserted
    // above) and which the kernel only copies.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Asks whether the kernel can filter calls and kill a process for one.
///
/// # Errors
///
/// `ENOSYS` without seccomp, or where another sandbox around this process refuses it;
/// `EOPNOTSUPP` where the kernel cannot kill a whole process (before 4.14).
pub fn available() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: SECCOMP_GET_ACTION_AVAIL reads one u32, which lives until the call returns.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_is_refused() {
        let refused = |filter: &[SockFilter]| install_filter(filter).unwrap_err().raw_os_error();
        let nothing = SockFilter {
            code: 0xffff,
            jt: 0,
            jf: 0,
            k: 0,
        };
        assert_eq!(refused(&[]), Some(libc::EINVAL));
        assert_eq!(
            refused(&vec![nothing; INSTRUCTIONS_MAX + 1]),
            Some(libc::EINVAL)
        );
        // With no_new_privs unset an ordinary user hears EACCES before the program is looked at.
        assert!(matches!(
            refused(&[nothing]),
            Some(libc::EINVAL | libc::EACCES)
        ));
    }
}
