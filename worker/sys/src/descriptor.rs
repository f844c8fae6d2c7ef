//! Descriptors by number: what a process inherits, and closing all others.
//!
//! # Invariants
//!
//! - A number is turned into an [`OwnedFd`] once: a second time is refused.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::Mutex;

/// The numbers given out so far.
static TAKEN: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Takes possession of the inherited descriptor `number`, and makes it close-on-exec.
///
/// # Errors
///
/// `EBADF` if it is not open; [`io::ErrorKind::AlreadyExists`] if it was taken before;
/// [`io::ErrorKind::InvalidInput`] for 0, 1 and 2, which belong to the standard library.
pub fn take_inherited(number: u32) -> io::Result<OwnedFd> {
    let raw = RawFd::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    if raw <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut taken = TAKEN
        .lock()
        .map_err(|_| io::Error::other("the list of taken descriptors is poisoned"))?;
    if taken.contains(&number) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // SAFETY: F_SETFD takes an int and touches nothing but the descriptor table; a number that is not
    // open gives EBADF.
    if unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    taken.push(number);
    // SAFETY: the descriptor is open, as fcntl has just shown, and the list above sees to it that it is
    // owned once. Callers name only descriptors that their parent has laid there for them.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Marks every descriptor from `first` up as close-on-exec.
///
/// # Errors
///
/// Those of `close_range(2)`: `ENOSYS` before Linux 5.9, `EINVAL` before 5.11.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC closes nothing now: no owner loses its descriptor.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd as _, IntoRawFd as _};

    use super::*;

    #[test]
    fn a_descriptor_is_taken_once_and_only_if_open() {
        let (read, _write) = io::pipe().unwrap();
        let number = u32::try_from(OwnedFd::from(read).into_raw_fd()).unwrap();
        let taken = take_inherited(number).unwrap();
        assert_eq!(u32::try_from(taken.as_raw_fd()).unwrap(), number);
        let again = take_inherited(number).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        let closed = take_inherited(1_000_000).unwrap_err();
        assert_eq!(closed.raw_os_error(), Some(libc::EBADF));
        assert!(take_inherited(1).is_err());
    }
}
