//! Watching real process trees: each limit is reached by what reaches it, and by nothing else.
//!
//! A job here is a Python script under `unshare`, in a pid namespace of its own with `sh` as its init. It waits
//! for the word to start, so that the watch begins before it does anything.
//!
//! Not here: the decisions on made-up readings; those are beside the code.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking, and a skipped one says why"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _, stderr};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::outcome::MeasuredBy;
use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_worker::usage::proc::TreeReader;
use wpool_worker::usage::verdict::{Account, Excess};
use wpool_worker::usage::{Remains, Watch};

/// A job that has not been let go yet.
struct Job {
    unshare: Child,
    output: BufReader<ChildStdout>,
    init: u32,
}

/// A job that was watched to its end.
struct Watched {
    excess: Option<Excess>,
    account: Account,
}

impl Watched {
    fn peak_mib(&self) -> u64 {
        self.account.usage.memory_peak_bytes >> 20
    }
}

/// Mounts a tmpfs of 200 MiB at /mnt, says it is ready and waits for the word.
const INIT: &str = "mount -t tmpfs -o size=200m,nr_inodes=1000 none /mnt && python3 -c \"$0\"; :";

const PRELUDE: &str = "
import os, sys, time, mmap, signal, ctypes, threading
print('ready', flush=True)
sys.stdin.read(1)
";

#[expect(
    clippy::disallowed_methods,
    reason = "a test job is no child of wpool's"
)]
fn job(script: &str) -> Option<Job> {
    let mut unshare = Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--mount", "--net"])
        .args(["--fork", "--kill-child", "sh", "-c", INIT])
        .arg(format!("{PRELUDE}{script}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut output = BufReader::new(unshare.stdout.take()?);
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    if line != "ready\n" {
        stderr()
            .write_all(b"skipped: unshare, user namespaces or python3 are missing here\n")
            .unwrap();
        return None;
    }
    let pid = unshare.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let init = children.trim().parse().unwrap();
    Some(Job {
        unshare,
        output,
        init,
    })
}

/// Runs the script to its end, or to its excess.
fn watch(limits: &Limits, cores: u16, script: &str) -> Option<Watched> {
    let mut job = job(script)?;
    let proc = File::open("/proc").unwrap();
    let disk = File::open(format!("/proc/{}/root/mnt", job.init)).unwrap();
    let tree = TreeReader::new(proc.as_fd(), job.init, Some(disk.as_fd())).unwrap();
    let mut watch = Watch::sampling(tree, limits, cores, Instant::now());
    job.unshare.stdin.take().unwrap().write_all(b"x").unwrap();
    let excess = loop {
        let patience = watch.deadline().saturating_duration_since(Instant::now());
        let patience = Timespec::try_from(patience).unwrap();
        let mut output = [PollFd::new(job.output.get_ref(), PollFlags::IN)];
        if poll(&mut output, Some(&patience)).unwrap() > 0 {
            break None;
        }
        if let Some(excess) = watch.look(None).unwrap() {
            break Some(excess);
        }
    };
    job.unshare.kill().unwrap();
    job.unshare.wait().unwrap();
    let account = watch.finish(Remains::default()).unwrap();
    Some(Watched { excess, account })
}

fn limits() -> Limits {
    Limits {
        cpu_ms: Millis(60_000),
        memory_bytes: ByteSize::mib(256),
        ..Limits::DEFAULT
    }
}

fn with_cpu_ms(cpu_ms: u64) -> Limits {
    Limits {
        cpu_ms: Millis(cpu_ms),
        ..limits()
    }
}

fn with_memory_mib(mib: u64) -> Limits {
    Limits {
        memory_bytes: ByteSize::mib(mib),
        ..limits()
    }
}

#[test]
fn a_busy_process_is_stopped_at_its_cpu_limit() {
    let Some(watched) = watch(&with_cpu_ms(300), 1, "while True: pass") else {
        return;
    };
    let excess = watched.excess.unwrap();
    assert_eq!(excess.limit, LimitName::Cpu);
    assert!((300..330).contains(&excess.peak), "{excess:?}");
}

#[test]
fn the_time_of_children_that_have_ended_counts() {
    let script = "
while True:
    if os.fork() == 0:
        end = time.process_time() + 0.03
        while time.process_time() < end: pass
        os._exit(0)
    os.wait()
";
    let Some(watched) = watch(&with_cpu_ms(400), 2, script) else {
        return;
    };
    let excess = watched.excess.unwrap();
    assert_eq!(excess.limit, LimitName::Cpu);
    assert!((400..460).contains(&excess.peak), "{excess:?}");
}

#[test]
fn the_time_of_children_that_nobody_waits_for_counts() {
    let script = "
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    reader, writer = os.pipe()
    if os.fork() == 0:
        end = time.process_time() + 0.2
        while time.process_time() < end: pass
        os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
";
    let Some(watched) = watch(&with_cpu_ms(600), 1, script) else {
        return;
    };
    let excess = watched.excess.unwrap();
    assert_eq!(excess.limit, LimitName::Cpu);
    assert!(excess.at < Duration::from_secs(4), "{excess:?}");
}

#[test]
fn a_sleeper_is_idle_and_one_that_works_now_and_then_is_not() {
    let idle = Limits {
        idle_ms: Some(Millis(400)),
        ..limits()
    };
    let Some(watched) = watch(&idle, 1, "time.sleep(60)") else {
        return;
    };
    let excess = watched.excess.unwrap();
    assert_eq!(excess.limit, LimitName::Idle);
    assert!((400..700).contains(&excess.peak), "{excess:?}");
    let script = "
for _ in range(10):
    time.sleep(0.1)
    sum(range(100000))
";
    assert_eq!(watch(&idle, 1, script).unwrap().excess, None);
}

/// Touches so many MiB, a MiB at a time.
const TOUCH: &str = "
def touch(mib, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, file=-1):
    memory = mmap.mmap(file, mib << 20, flags)
    for page in range(0, mib << 20, 4096): memory[page] = 1
    return memory
";

#[test]
fn a_process_that_grows_is_stopped_at_its_memory_limit() {
    let script = format!("{TOUCH}\ntouch(2000)");
    let Some(watched) = watch(&with_memory_mib(128), 1, &script) else {
        return;
    };
    let excess = watched.excess.unwrap();
    assert_eq!(excess.limit, LimitName::Memory);
    assert!((128..1_000).contains(&(excess.peak >> 20)), "{excess:?}");
    assert_eq!(watched.account.usage.measured_by, MeasuredBy::Sampling);
}

#[test]
fn ten_processes_reach_the_memory_limit_together() {
    let script = format!(
        "{TOUCH}
for _ in range(10):
    if os.fork() == 0:
        kept = touch(30)
        time.sleep(60)
time.sleep(60)"
    );
    let Some(watched) = watch(&with_memory_mib(128), 2, &script) else {
        return;
    };
    let excess = watched.excess.unwrap();
    assert_eq!(excess.limit, LimitName::Memory);
    assert!((128..=320).contains(&(excess.peak >> 20)), "{excess:?}");
}

#[test]
fn a_parent_of_100_mb_that_forks_and_forks_is_innocent_and_its_peak_is_100_mb() {
    let script = format!(
        "{TOUCH}
kept = touch(100)
for _ in range(10):
    if os.fork() == 0: time.sleep(60)
end = time.time() + 1
while time.time() < end:
    if os.fork() == 0: os._exit(0)
    os.wait()"
    );
    let Some(watched) = watch(&with_memory_mib(256), 2, &script) else {
        return;
    };
    assert_eq!(watched.excess, None);
    assert!(
        (100..150).contains(&watched.peak_mib()),
        "{watched:?}",
        watched = watched.account
    );
    assert!(watched.account.usage.processes_peak >= 11);
}

#[test]
fn shared_memory_counts_once_and_it_counts() {
    let many = |mib| {
        format!(
            "{TOUCH}
file = os.open('/mnt/file', os.O_RDWR | os.O_CREAT)
os.truncate(file, {mib} << 20)
kept = touch({mib}, mmap.MAP_SHARED, file)
for _ in range(6):
    if os.fork() == 0:
        sum(kept[page] for page in range(0, {mib} << 20, 4096))
        time.sleep(60)
time.sleep(1.0)"
        )
    };
    let Some(watched) = watch(&with_memory_mib(128), 2, &many(80)) else {
        return;
    };
    assert_eq!(watched.excess, None);
    assert!(
        (80..120).contains(&watched.peak_mib()),
        "{:?}",
        watched.account
    );
    let watched = watch(&with_memory_mib(128), 2, &many(160)).unwrap();
    assert_eq!(watched.excess.unwrap().limit, LimitName::Memory);
}

#[test]
fn a_child_of_vfork_has_no_memory_of_its_own() {
    // As vfork does it, but that the parent runs on: usleep in the parent's memory, on a stack of its own.
    let script = format!(
        "{TOUCH}
kept = touch(160)
libc = ctypes.CDLL(None)
stack = ctypes.create_string_buffer(1 << 16)
top = ctypes.c_void_p((ctypes.addressof(stack) + (1 << 16)) & ~15)
CLONE_VM = 0x100
libc.clone(libc.usleep, top, CLONE_VM | signal.SIGCHLD, ctypes.c_void_p(700000))
os.wait()
"
    );
    let Some(watched) = watch(&with_memory_mib(256), 1, &script) else {
        return;
    };
    assert_eq!(watched.excess, None, "{:?}", watched.account);
    assert_eq!(watched.account.usage.processes_peak, 2);
    assert!(
        (160..200).contains(&watched.peak_mib()),
        "{:?}",
        watched.account
    );
}

#[test]
fn page_tables_are_memory() {
    let script = "
space = mmap.mmap(-1, 128 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
for block in range(0, 128 << 30, 2 << 20): space[block]
time.sleep(60)
";
    let Some(watched) = watch(&with_memory_mib(64), 1, script) else {
        return;
    };
    assert_eq!(watched.excess.unwrap().limit, LimitName::Memory);
}

#[test]
fn limits_that_make_calls_fail_are_named() {
    let script = "
kept = [os.dup(0) for _ in range(40)]
threads = [threading.Thread(target=time.sleep, args=(0.6,)) for _ in range(20)]
for thread in threads: thread.start()
with open('/mnt/file', 'wb') as file:
    try:
        while True: file.write(bytes(1 << 20))
    except OSError: pass
";
    let small = Limits {
        processes: 20,
        open_files: 40,
        ..limits()
    };
    let Some(watched) = watch(&small, 1, script) else {
        return;
    };
    assert_eq!(watched.excess, None);
    let mut hit = watched.account.limits_hit.clone();
    hit.sort();
    let expected = [LimitName::Processes, LimitName::OpenFiles, LimitName::Disk];
    assert_eq!(hit, expected);
    assert_eq!(watched.account.usage.processes_peak, 21);
    let watched = watch(&limits(), 1, "time.sleep(0.6)").unwrap();
    assert_eq!(watched.account.limits_hit, []);
}
