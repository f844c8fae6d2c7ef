//! What a newborn worker does between `clone3` and `exec`: system calls, and nothing else.
//!
//! The supervisor has threads, and the child has a copy of the one that cloned: a lock that another
//! thread held stays locked for ever here. So: no allocation, no formatting, no lock, no panic.
//! Everything that must be computed is computed by [`Plan::new`], before the clone.
//!
//! Callees, all async-signal-safe: `prctl`, `read`, `setresuid`, `setresgid`, `setgroups`, `capset`,
//! `poll`, `dup2`, `close`, `close_range`, `execveat`, `write`, each as a raw system call.
//!
//! # Invariants
//!
//! - [`run`] returns only if something failed, after it has written a record of it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{FIRST_DESCRIPTOR, IdMap};

/// Bytes of a failure record: the step and the errno.
pub(super) const FAILURE_LEN: usize = 8;

/// The exit code of a child that could not exec.
const EXIT_CODE: u8 = 125;

/// What a plan is made of.
pub(super) struct Inputs<'a> {
    pub(super) null: &'a OwnedFd,
    pub(super) gate: &'a OwnedFd,
    pub(super) failure: &'a OwnedFd,
    /// The other ends of these two, of which the child has copies.
    pub(super) ends_of_parent: [&'a OwnedFd; 2],
    pub(super) binary: &'a OwnedFd,
    pub(super) descriptors: &'a [OwnedFd],
    pub(super) arguments: &'a [&'a CStr],
    pub(super) environment: &'a [&'a CStr],
    pub(super) ids: IdMap,
}

/// Everything the child needs, computed before the clone.
pub(super) struct Plan<'a> {
    inputs: Inputs<'a>,
    descriptors: Vec<RawFd>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(inputs: Inputs<'a>) -> Self {
        let pointers = |texts: &[&CStr]| {
            texts
                .iter()
                .map(|text| text.as_ptr())
                .chain([ptr::null()])
                .collect()
        };
        Self {
            descriptors: inputs.descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
            arguments: pointers(inputs.arguments),
            environment: pointers(inputs.environment),
            inputs,
        }
    }
}

/// A call that failed in the child; the number is what travels.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Step {
    DeathSignal = 1,
    Gate,
    Ids,
    Capabilities,
    Descriptors,
    Exec,
}

/// What a failure record says, for people.
pub(super) fn describe(record: [u8; FAILURE_LEN]) -> Option<String> {
    let (step, errno) = record.split_first_chunk::<4>()?;
    let errno = errno.first_chunk::<4>()?;
    let step = match u32::from_le_bytes(*step) {
        1 => "set its death signal",
        2 => "pass its gate",
        3 => "take its ids",
        4 => "keep its capabilities",
        5 => "arrange its descriptors",
        6 => "execute its program",
        _ => return None,
    };
    let error = io::Error::from_raw_os_error(i32::from_le_bytes(*errno));
    Some(format!("a worker failed to {step}: {error}"))
}

/// Becomes the worker. Returns an exit code if it could not.
pub(super) fn run(plan: &Plan<'_>) -> u8 {
    let Err(step) = try_run(plan) else {
        return EXIT_CODE;
    };
    // Reads errno; an `io::Error` made of an errno owns no memory.
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let mut record = [0u8; FAILURE_LEN];
    let (first, second) = record.split_at_mut(4);
    first.copy_from_slice(&(step as u32).to_le_bytes());
    second.copy_from_slice(&errno.to_le_bytes());
    let failure = plan.inputs.failure.as_raw_fd();
    // SAFETY: the record is live and of the length that is passed. That nobody reads it any more is no
    // reason to do anything else than exit.
    unsafe { libc::write(failure, record.as_ptr().cast(), FAILURE_LEN) };
    EXIT_CODE
}

fn try_run(plan: &Plan<'_>) -> Result<(), Step> {
    // While a copy is open here, this process waits for itself and is heard by itself.
    for end in plan.inputs.ends_of_parent {
        // SAFETY: close takes an integer; the owner of this number is in the parent's copied memory, where no
        // destructor runs.
        unsafe { libc::close(end.as_raw_fd()) };
    }
    die_with_parent()?;
    let mut byte = 0u8;
    // SAFETY: `byte` is live and one byte long.
    if unsafe { libc::read(plan.inputs.gate.as_raw_fd(), (&raw mut byte).cast(), 1) } != 1 {
        return Err(Step::Gate);
    }
    match plan.inputs.ids {
        IdMap::Single { .. } => keep_capabilities()?,
        IdMap::Same => {}
        IdMap::Pair { .. } => take_ids()?,
    }
    // A change of ids has cleared it (prctl(2)). A parent that died meanwhile reads no failures any more, and
    // nothing else would end a child that is stopped, or hangs, before it reads its pipes.
    die_with_parent()?;
    if !is_read(plan.inputs.failure.as_raw_fd()) {
        return Err(Step::Gate);
    }
    arrange_descriptors(plan)?;
    let empty = c"";
    // SAFETY: the arrays end with a null pointer, and what they point to outlives this call in the
    // parent's copied memory.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            plan.inputs.binary.as_raw_fd(),
            empty.as_ptr(),
            plan.arguments.as_ptr(),
            plan.environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(Step::Exec)
}

/// Asks for SIGKILL at the death of the thread that cloned.
fn die_with_parent() -> Result<(), Step> {
    // SAFETY: prctl with these two integers changes the death signal of this process alone.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == -1 {
        return Err(Step::DeathSignal);
    }
    Ok(())
}

/// Whether somebody holds the reading end of this pipe.
fn is_read(pipe: RawFd) -> bool {
    let mut polled = libc::pollfd {
        fd: pipe,
        events: 0,
        revents: 0,
    };
    // SAFETY: poll is told of one live pollfd, and not to wait.
    let ready = unsafe { libc::poll(&raw mut polled, 1, 0) };
    ready == 0 || polled.revents & libc::POLLERR == 0
}

/// Becomes id 0 of the new user namespace, with no supplementary group of the parent's.
///
/// Raw calls: the C library's wrappers would speak to threads that are not here.
fn take_ids() -> Result<(), Step> {
    // SAFETY: setgroups with length 0 reads nothing.
    if unsafe { libc::syscall(libc::SYS_setgroups, 0usize, ptr::null::<libc::gid_t>()) } == -1 {
        return Err(Step::Ids);
    }
    // SAFETY: setresgid takes three integers.
    if unsafe { libc::syscall(libc::SYS_setresgid, 0, 0, 0) } == -1 {
        return Err(Step::Ids);
    }
    // SAFETY: setresuid takes three integers.
    if unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) } == -1 {
        return Err(Step::Ids);
    }
    Ok(())
}

/// The header of capset(2), version 3.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// One half of the sets of capset(2).
#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Makes every capability ambient: a process whose id is not 0 loses at exec what is not (capabilities(7)).
fn keep_capabilities() -> Result<(), Step> {
    let header = CapHeader {
        version: LINUX_CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut data = [CapData {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: version 3 reads the header and fills in two halves.
    if unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) } == -1 {
        return Err(Step::Capabilities);
    }
    for half in &mut data {
        half.inheritable = half.permitted;
    }
    // SAFETY: version 3 reads the header and two halves.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } == -1 {
        return Err(Step::Capabilities);
    }
    let [low, high] = data;
    for number in 0..64u32 {
        let half = if number < 32 { low } else { high };
        if half.permitted >> (number % 32) & 1 == 0 {
            continue;
        }
        let raise = libc::PR_CAP_AMBIENT_RAISE;
        // SAFETY: prctl with integers; the unused ones must be 0.
        if unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, number, 0, 0) } == -1 {
            return Err(Step::Capabilities);
        }
    }
    Ok(())
}

/// Lays the descriptors at their numbers and marks all others to be closed by exec.
fn arrange_descriptors(plan: &Plan<'_>) -> Result<(), Step> {
    let null = plan.inputs.null.as_raw_fd();
    let mut number: RawFd = 0;
    let standard = [null; FIRST_DESCRIPTOR as usize];
    for source in standard.iter().chain(&plan.descriptors) {
        // SAFETY: dup2 takes two integers. Sources are above all targets, so that none is overwritten
        // before it is copied, and no owner exists in the child that would close a target.
        if unsafe { libc::dup2(*source, number) } == -1 {
            return Err(Step::Descriptors);
        }
        number += 1;
    }
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    let last = libc::c_uint::MAX;
    // SAFETY: close_range takes three integers.
    if unsafe { libc::syscall(libc::SYS_close_range, number, last, flags) } == -1 {
        return Err(Step::Descriptors);
    }
    Ok(())
}
