//! Limits kept by the kernel, on a host that delegates a cgroup to this test: memory, processes, CPU, and the account.
//!
//! It needs a cgroup of its own with controllers, as a service with `Delegate=yes` has (tests/vm runs it as one).
//! Elsewhere each test says why it is skipped.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking, and a skipped one says why"
)]
use std::io::{Write as _, stderr};

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wpool::cgroup::{Delegated, SlotDirectory};
use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::outcome::MeasuredBy;
use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_worker::cgroup::{JobCgroup, OutOfMemory, Population, SlotCgroup};
use wpool_worker::usage::proc::TreeReader;
use wpool_worker::usage::verdict::{Account, Excess};
use wpool_worker::usage::{Remains, Watch};

/// One slot for all tests, one after another: their process is moved only once.
struct Slot {
    directory: SlotDirectory,
    cgroup: SlotCgroup,
    jobs: u64,
    /// What stands in for the worker: it waits for its input to end.
    worker: Child,
}

fn slot() -> Option<MutexGuard<'static, Slot>> {
    static SLOT: OnceLock<Result<Mutex<Slot>, String>> = OnceLock::new();
    let made = SLOT.get_or_init(|| {
        let mut delegated = Delegated::find()
            .map_err(|refused| format!("{refused}; remedy: {}", refused.remedy()))?;
        delegated.claim(None).unwrap();
        let directory = delegated.make_slot(0).unwrap();
        let worker = shell(
            "exec cat",
            &directory.directory().try_clone_to_owned().unwrap(),
        );
        directory.settle(worker.id()).unwrap();
        let cgroup = SlotCgroup::new(directory.directory().try_clone_to_owned().unwrap());
        let jobs = 0;
        Ok(Mutex::new(Slot {
            directory,
            cgroup,
            jobs,
            worker,
        }))
    });
    match made {
        Ok(slot) => Some(slot.lock().unwrap_or_else(PoisonError::into_inner)),
        Err(reason) => {
            stderr()
                .write_all(format!("skipped: {reason}\n").as_bytes())
                .unwrap();
            None
        }
    }
}

/// Starts a shell that moves itself into a cgroup, says so, and waits for the word.
#[expect(
    clippy::disallowed_methods,
    reason = "a test job is no child of wpool's"
)]
fn shell(script: &str, directory: &OwnedFd) -> Child {
    let procs = format!(
        "/proc/{}/fd/{}/cgroup.procs",
        std::process::id(),
        directory.as_raw_fd()
    );
    let mut child = Command::new("sh")
        .args([
            "-c",
            "echo $$ >\"$0\" && echo && eval \"$1\"",
            &procs,
            script,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = [0];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut byte)
        .unwrap();
    child
}

/// What became of a job.
struct Ended {
    excess: Option<Excess>,
    account: Account,
    out_of_memory: OutOfMemory,
}

impl Slot {
    /// Runs a Python script in a pid namespace of its own, in a job's cgroup.
    fn run(&mut self, limits: &Limits, script: &str) -> Ended {
        self.jobs += 1;
        let job = self.cgroup.make(self.jobs).unwrap();
        // `sh`, `unshare` and the inner `sh` stand in for the job's init.
        job.limit(limits, 3).unwrap();
        let python = format!("python3 -c '\nimport os, time\nos.read(0, 1)\n{script}'; :");
        let unshare = format!(
            "unshare --user --map-root-user --pid --fork --kill-child sh -c \"echo; {python}\""
        );
        let mut child = shell(&unshare, &job.directory().try_clone_to_owned().unwrap());
        let mut byte = [0];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
        let ended = watch(&job, &mut child, limits);
        assert_eq!(job.population().unwrap(), Population::None);
        job.remove().unwrap();
        ended
    }
}

fn watch(job: &JobCgroup, child: &mut Child, limits: &Limits) -> Ended {
    let proc = File::open("/proc").unwrap();
    let tree = TreeReader::new(proc.as_fd(), child.id(), None).unwrap();
    let meter = job.meter().unwrap();
    let mut watch = Watch::cgroup(meter, tree, limits, limits.cpus, Instant::now()).unwrap();
    drop(child.stdin.take());
    let excess = loop {
        let patience = watch.deadline().saturating_duration_since(Instant::now());
        let patience = Timespec::try_from(patience).unwrap();
        let population = job.population().unwrap();
        let mut events = [PollFd::from_borrowed_fd(job.events(), PollFlags::PRI)];
        if population == Population::None {
            break None;
        }
        if poll(&mut events, Some(&patience)).unwrap() == 0
            && let Some(excess) = watch.look(None).unwrap()
        {
            break Some(excess);
        }
    };
    job.kill().unwrap();
    job.wait_until_empty(Instant::now() + Duration::from_secs(10))
        .unwrap();
    child.wait().unwrap();
    let account = watch.finish(Remains::default()).unwrap();
    Ended {
        excess,
        account,
        out_of_memory: job.meter().unwrap().out_of_memory().unwrap(),
    }
}

fn limits() -> Limits {
    Limits {
        cpu_ms: Millis(60_000),
        memory_bytes: ByteSize::mib(128),
        ..Limits::DEFAULT
    }
}

#[test]
fn memory_is_limited_by_the_kernel_and_the_verdict_is_its_own() {
    let Some(mut slot) = slot() else { return };
    let limits = Limits {
        memory_bytes: ByteSize::mib(64),
        ..limits()
    };
    let ended = slot.run(&limits, "kept = bytes([1]) * (200 << 20)");
    let excess = ended.account.excess.unwrap();
    assert_eq!(excess.limit, LimitName::Memory);
    assert_eq!(excess.peak, 64 << 20);
    assert_eq!(ended.out_of_memory, OutOfMemory::OwnLimit);
    // What is written to a file in memory belongs to no process, and counts all the same.
    let ended = slot.run(
        &limits,
        "os.write(os.memfd_create(str()), bytes(50 << 20))\nkept = bytes([1]) * (30 << 20)",
    );
    assert_eq!(ended.out_of_memory, OutOfMemory::OwnLimit);
    // A kill from within is no memory verdict.
    let ended = slot.run(&limits, "os.kill(os.getpid(), 9)");
    assert_eq!(
        (ended.account.excess, ended.out_of_memory),
        (None, OutOfMemory::Never)
    );
}

#[test]
fn the_peaks_and_times_are_the_kernels() {
    let Some(mut slot) = slot() else { return };
    let script = "
kept = bytearray(40 << 20)
for page in range(0, 40 << 20, 4096): kept[page] = 1
del kept
for _ in range(5):
    if os.fork() == 0:
        time.sleep(0.3)
        os._exit(0)
end = time.process_time() + 0.2
while time.process_time() < end: pass
for _ in range(5): os.wait()
";
    let ended = slot.run(&limits(), script);
    assert_eq!(ended.excess, None);
    let usage = ended.account.usage;
    assert_eq!(usage.measured_by, MeasuredBy::Cgroup);
    assert!(
        (40..80).contains(&(usage.memory_peak_bytes >> 20)),
        "{usage:?}"
    );
    assert!((6..=10).contains(&usage.processes_peak), "{usage:?}");
    assert!(
        usage.cpu_user_us + usage.cpu_system_us >= 200_000,
        "{usage:?}"
    );
}

#[test]
fn forks_above_the_limit_are_refused_and_named() {
    let Some(mut slot) = slot() else { return };
    let limits = Limits {
        processes: 20,
        ..limits()
    };
    let script = "
while True:
    try:
        if os.fork() == 0: time.sleep(60)
    except OSError: os._exit(0)
";
    let ended = slot.run(&limits, script);
    assert_eq!(ended.account.limits_hit, [LimitName::Processes]);
    assert_eq!(ended.account.usage.processes_peak, 23);
}

#[test]
fn the_cpu_limit_is_kept_within_ten_milliseconds_of_its_value() {
    let Some(mut slot) = slot() else { return };
    let limits = Limits {
        cpu_ms: Millis(500),
        ..limits()
    };
    // The watcher has to be scheduled at its moment, which a crowded host may deny it now and then.
    let mut peaks = Vec::new();
    while peaks.len() < 12 && !peaks.iter().any(|peak| *peak <= 510) {
        let excess = slot.run(&limits, "while True: pass").excess.unwrap();
        assert_eq!(excess.limit, LimitName::Cpu);
        peaks.push(excess.peak);
    }
    eprintln!("cpu limit of 500 ms: stopped at {peaks:?} ms");
    assert!(peaks.iter().all(|peak| *peak >= 500), "{peaks:?}");
    assert!(peaks.iter().any(|peak| *peak <= 510), "{peaks:?}");
}

#[test]
fn leftovers_of_a_lost_worker_are_killed_and_removed() {
    let Some(mut slot) = slot() else { return };
    slot.jobs += 1;
    let job = slot.cgroup.make(slot.jobs).unwrap();
    let mut left = shell("sleep 60", &job.directory().try_clone_to_owned().unwrap());
    slot.cgroup.remove_leftovers().unwrap();
    left.wait().unwrap();
    // Its number is free again, so that nothing is left of it.
    slot.cgroup.make(slot.jobs).unwrap().remove().unwrap();
    // The worker was not touched.
    assert_eq!(slot.worker.try_wait().unwrap(), None);
    assert!(slot.directory.directory().as_raw_fd() > 2);
}
