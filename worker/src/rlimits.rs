//! The resource limits of a job's process: what `setrlimit(2)` enforces, and far bounds behind the rest.
//!
//! They are set in the job's own process before its exec, inside the user namespace of its worker: before
//! that, `RLIMIT_NPROC` would count all processes of the user who runs wpool (seen on 6.1 and 6.18).
//!
//! # Invariants
//!
//! - No rlimit is the memory limit: a refused allocation is no verdict, the job would just fail. `RLIMIT_AS` is
//!   far enough for what reserves much and touches little (node, java), and only there to bound page tables
//!   where no cgroup counts them. Address sanitizers, which reserve terabytes, need a cgroup.
//! - Soft and hard are the same, so that a job cannot raise one, but for the stack.
//! - Nothing is asked for above what the worker itself was given: the host's own limits stay.
//!
//! Not here: `oom_score_adj`, nice and affinity, which are no rlimits.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wpool_protocol::limits::Limits;

use crate::seccomp::Accounting;

/// Address space that every job has where no cgroup counts page tables: 1/512 of it are 128 MiB of tables.
const ADDRESS_SPACE_MIN: u64 = 64 << 30;

/// Address space for each byte of the memory limit: a java on a large machine reserves a multiple of what it uses.
const ADDRESS_SPACE_PER_BYTE: u64 = 16;

/// CPU seconds of one process beyond the limit of its tree and its time of grace: then the account must have failed.
const CPU_BEYOND_S: u64 = 10;

/// No core file is so small. Under 0 the kernel still starts the machine's crash handler, as root and outside (a
/// `core_pattern` with a pipe); 1 it takes for a handler that has crashed itself, and starts none (kernel: `do_coredump`).
const CORE_BYTES: u64 = 1;

const STACK_SOFT_BYTES: u64 = 8 << 20;
/// A program may raise its stack so far by itself, as some compilers do.
const STACK_HARD_BYTES: u64 = 64 << 20;

/// Enough for keys in locked pages, too little to matter beside the memory limit.
const LOCKED_BYTES: u64 = 64 << 10;

/// The kernel's own default; message queues lie in kernel memory.
const MESSAGE_QUEUES_BYTES: u64 = 819_200;

/// Queued signals and timers; each is 160 bytes of kernel memory.
const SIGNALS_PENDING: u64 = 4_096;

/// One resource limit; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// Of what.
    pub resource: Resource,
    /// What holds.
    pub soft: Option<u64>,
    /// How far the process may raise it itself.
    pub hard: Option<u64>,
}

/// The resource limits of a job's process.
///
/// `own_processes` of wpool's are counted together with the job's: the same uid in the same user namespace.
pub fn for_job(limits: &Limits, accounting: Accounting, own_processes: u32) -> Vec<ResourceLimit> {
    let processes = u64::from(limits.processes);
    let (processes, address_space) = match accounting {
        // Twice, and room for the others: `pids.max` is the limit, exact and with an event when it is hit.
        Accounting::Cgroup => (2 * processes + 64, None),
        Accounting::Sampling => (
            processes + u64::from(own_processes),
            Some(
                limits
                    .memory_bytes
                    .0
                    .saturating_mul(ADDRESS_SPACE_PER_BYTE)
                    .max(ADDRESS_SPACE_MIN),
            ),
        ),
    };
    let grace_ms = limits.grace_ms.0.saturating_mul(u64::from(limits.cpus));
    let cpu_s = (limits.cpu_ms.0.saturating_add(grace_ms))
        .div_ceil(1_000)
        .saturating_add(CPU_BEYOND_S);
    let same = |resource, value| ResourceLimit {
        resource,
        soft: value,
        hard: value,
    };
    vec![
        same(Resource::Nproc, Some(processes)),
        same(Resource::Nofile, Some(u64::from(limits.open_files))),
        same(Resource::Fsize, Some(limits.file_size_bytes.0)),
        same(Resource::As, address_space),
        same(Resource::Cpu, Some(cpu_s)),
        same(Resource::Core, Some(CORE_BYTES)),
        ResourceLimit {
            resource: Resource::Stack,
            soft: Some(STACK_SOFT_BYTES),
            hard: Some(STACK_HARD_BYTES),
        },
        same(Resource::Memlock, Some(LOCKED_BYTES)),
        same(Resource::Msgqueue, Some(MESSAGE_QUEUES_BYTES)),
        same(Resource::Sigpending, Some(SIGNALS_PENDING)),
        same(Resource::Nice, Some(0)),
        same(Resource::Rtprio, Some(0)),
    ]
}

/// A resource limit could not be set.
#[derive(Debug, thiserror::Error)]
#[error("failed to set the resource limit {resource:?}")]
pub struct ApplyError {
    /// Which.
    pub resource: Resource,
    /// How.
    #[source]
    pub source: io::Error,
}

/// Sets the limits for this process and all that it becomes.
///
/// # Errors
///
/// [`ApplyError`] names the first that the kernel refuses.
pub fn apply(limits: &[ResourceLimit]) -> Result<(), ApplyError> {
    for &ResourceLimit {
        resource,
        soft,
        hard,
    } in limits
    {
        // Raising a hard limit is a privilege of the host's root.
        let inherited = getrlimit(resource).maximum;
        let hard = lower(hard, inherited);
        let rlimit = Rlimit {
            current: lower(soft, hard),
            maximum: hard,
        };
        setrlimit(resource, rlimit).map_err(|errno| ApplyError {
            resource,
            source: errno.into(),
        })?;
    }
    Ok(())
}

/// The lower of two limits, of which `None` is the highest.
fn lower(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use wpool_protocol::quantity::{ByteSize, Millis};

    use super::*;

    fn text(limits: &[ResourceLimit]) -> String {
        let mut text = String::new();
        for limit in limits {
            let value = |value: Option<u64>| value.map_or("none".into(), |value| value.to_string());
            let (soft, hard) = (value(limit.soft), value(limit.hard));
            writeln!(text, "{:?} {soft} {hard}", limit.resource).unwrap();
        }
        text
    }

    #[test]
    fn the_limits_of_a_job_that_the_worker_counts() {
        let limits = Limits {
            cpu_ms: Millis(30_000),
            ..Limits::DEFAULT
        };
        insta::assert_snapshot!(text(&for_job(&limits, Accounting::Sampling, 3)), @"
        Nproc 67 67
        Nofile 256 256
        Fsize 67108864 67108864
        As 68719476736 68719476736
        Cpu 40 40
        Core 1 1
        Stack 8388608 67108864
        Memlock 65536 65536
        Msgqueue 819200 819200
        Sigpending 4096 4096
        Nice 0 0
        Rtprio 0 0
        ");
    }

    #[test]
    fn a_cgroup_leaves_far_bounds_to_rlimits() {
        let limits = Limits {
            cpu_ms: Millis(1_500),
            memory_bytes: ByteSize::gib(8),
            ..Limits::DEFAULT
        };
        let [worker, cgroup] = [Accounting::Sampling, Accounting::Cgroup]
            .map(|accounting| text(&for_job(&limits, accounting, 0)));
        let differ: Vec<_> = worker
            .lines()
            .zip(cgroup.lines())
            .filter(|(worker, cgroup)| worker != cgroup)
            .collect();
        assert_eq!(
            differ,
            [
                ("Nproc 64 64", "Nproc 192 192"),
                ("As 137438953472 137438953472", "As none none")
            ]
        );
    }

    #[test]
    fn a_limit_of_the_host_is_never_raised() {
        assert_eq!(lower(Some(9), Some(5)), Some(5));
        assert_eq!(lower(None, Some(5)), Some(5));
        assert_eq!(lower(Some(9), None), Some(9));
        assert_eq!(lower(None, None), None);
    }

    #[test]
    fn what_holds_already_can_be_applied() {
        let held = getrlimit(Resource::Core);
        let same = ResourceLimit {
            resource: Resource::Core,
            soft: held.current,
            hard: None,
        };
        apply(&[same]).unwrap();
        assert_eq!(getrlimit(Resource::Core), held);
    }
}
