//! What a job takes of the machine, how it ends when that is too much, and what of it is told to others.
//!
//! Verdicts are looked at from outside, through the daemon; the worker must survive them all, and so must whoever runs beside.

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Daemon, is_alive};

use super::attack::{Attack, Shown};
use super::removal::Removal;

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "no_more_processes_are_had_than_allowed",
        program: "
held, hold = os.pipe()
made = 0
try:
    while made < 80:
        if os.fork() == 0:
            os.close(hold); os.read(held, 1); os._exit(0)
        made += 1
except BlockingIOError: pass
os.close(hold)
if made >= 64: escaped('processes', made)
for _ in range(made): os.wait()
# Threads count as well, and who is dead and not yet waited for.
import threading
gate = threading.Event()
threads = 0
try:
    for _ in range(80): threading.Thread(target=gate.wait).start(); threads += 1
except RuntimeError: pass
gate.set()
if threads >= 64: escaped('threads', threads)
for thread in threading.enumerate():
    if thread is not threading.current_thread(): thread.join()
dead = 0
try:
    while dead < 80:
        if os.fork() == 0: os._exit(0)
        dead += 1
except BlockingIOError: pass
if dead >= 64: escaped('the dead', dead)
",
        shown: Shown::Without(Removal::ResourceLimits, &["processes", "threads", "the dead"]),
    },
    Attack {
        name: "no_more_descriptors_and_locked_memory_are_had_than_allowed",
        program: "
kept = []
try:
    while len(kept) < 400: kept.append(os.dup(0))
except OSError: pass
if len(kept) >= 256: escaped('descriptors', len(kept))
for fd in kept: os.close(fd)
page = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
refused('locked memory', 149, address, 1 << 20)
refused('memory locked later', 325, address, 1 << 20, 1)
refused('all memory locked', 151, 3)
kept = []
for what, make in [('inotify', lambda: call(294, 0)), ('epoll', lambda: call(291, 0)), ('timers', lambda: call(283, 1, 0)), ('events', lambda: call(290, 0, 0))]:
    kept = []
    while len(kept) < 300:
        made = make()
        if made < 0: break
        kept.append(made)
    if len(kept) >= 256: escaped(what)
    for fd in kept: os.close(fd)
for limit in [resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE]:
    soft, hard = resource.getrlimit(limit)
    try: resource.setrlimit(limit, (hard, hard + 1))
    except (ValueError, OSError): continue
    escaped('a higher limit', limit)
",
        shown: Shown::Without(Removal::ResourceLimits, &["descriptors", "locked memory"]),
    },
    Attack {
        name: "no_file_is_larger_than_allowed",
        program: "
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
own = os.open('/box/own', os.O_CREAT | os.O_RDWR)
cannot('length', lambda: os.ftruncate(own, (64 << 20) + 1))
cannot('offset', lambda: os.pwrite(own, b'x', 1 << 30))
cannot('room', lambda: os.posix_fallocate(own, 0, (64 << 20) + 1))
",
        shown: Shown::Without(Removal::ResourceLimits, &["length", "offset"]),
    },
];

pub(crate) const TESTS: &[Test] = &[
    test!(no_process_of_a_job_outlives_it_whatever_it_does, "python3"),
    test!(bombs_end_alone_and_hold_nobody_up, "python3"),
    test!(memory_of_every_kind_is_told_as_memory, "python3"),
    test!(memory_in_the_kernel_ends_with_its_job, "python3"),
    test!(memory_in_files_is_given_back_to_the_machine, "python3"),
    test!(message_queues_leave_their_room_to_the_next_job, "gcc"),
    test!(limits_of_one_job_are_not_those_of_the_next, "python3"),
    test!(cpu_time_is_counted_however_it_is_spent, "python3"),
    test!(whoever_sleeps_polls_or_stands_still_is_ended, "python3"),
    test!(what_a_job_says_of_its_own_end_is_not_believed, "python3"),
    test!(secrets_are_neither_logged_nor_shown_to_others, "python3"),
];

/// A job in Python under these limits.
fn job(code: &str, limits: &Value) -> Value {
    json!({"command": ["python3", "-c", code], "limits": limits})
}

/// Its outcome, on the worker that was there from the beginning.
fn outcome(daemon: &Daemon, job: &Value) -> anyhow::Result<Value> {
    let outcome = daemon.outcome_of(job)?;
    ensure!(outcome["attempts"][0]["generation"] == 1, "{outcome}");
    Ok(outcome)
}

/// The next job, which knows nothing of the one before.
fn next_is_well(daemon: &Daemon) -> anyhow::Result<()> {
    let next = outcome(daemon, &json!({"command": ["echo", "well"]}))?;
    ensure!(next["stdout"] == "well\n", "{next}");
    Ok(())
}

fn no_process_of_a_job_outlives_it_whatever_it_does() -> anyhow::Result<()> {
    let code = "import ctypes, os, signal, socket, threading
libc = ctypes.CDLL(None)
ready, is_ready = os.pipe()
def linger(*ways):
    if os.fork(): return
    if os.fork(): os._exit(0)
    os.setsid()
    for way in ways: way()
    os.write(is_ready, b'.')
    while True: signal.pause()
def deaf(): [signal.signal(number, signal.SIG_IGN) for number in signal.valid_signals() - {9, 19}]
def blocked(): signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
def prctl(option, value): return lambda: libc.prctl(option, value, 0, 0, 0)
linger(deaf); linger(blocked); linger(prctl(4, 0)); linger(prctl(36, 1)); linger(prctl(0x59616d61, -1)); linger(prctl(1, 0))
linger(lambda: os.closerange(0, 3), lambda: libc.prctl(15, b'wpool'))
linger(lambda: [threading.Thread(target=signal.pause, daemon=True).start() for _ in range(3)])
linger(lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)))
for _ in range(9): os.read(ready, 1)
stopped = os.fork()
if stopped == 0: os.kill(os.getpid(), signal.SIGSTOP)
os.waitpid(stopped, os.WUNTRACED)
# A parent that does not go on before its child does, in the kernel.
os.mkfifo('/box/fifo')
if os.fork() == 0:
    try: os.posix_spawn('/bin/true', ['true'], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, '/box/fifo', os.O_RDONLY, 0)])
    finally: os._exit(0)
# The dead whom nobody waits for, and one that always forks and goes.
for _ in range(5):
    if os.fork() == 0: os._exit(0)
if os.fork() == 0:
    while True:
        if os.fork(): os._exit(0)
        os.setsid()
print('tried', flush=True)
";
    let mut daemon = Daemon::start(1)?;
    for _ in 0..3 {
        let ended = outcome(&daemon, &job(code, &json!({})))?;
        ensure!(ended["stdout"] == "tried\n", "{ended}");
        let workers = daemon.workers()?.len();
        daemon.wait_until("nothing is left but the workers", |daemon| {
            let below = daemon.descendants()?;
            let alive = below.iter().filter(|pid| is_alive(**pid));
            Ok(alive.filter(|pid| !is_ours(**pid)).count() == 0 && below.len() <= workers + 1)
        })?;
    }
    next_is_well(&daemon)
}

/// Whether a process is a worker of wpool's (or who gives it its ids) and no init of a job's.
fn is_ours(pid: u32) -> bool {
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    command.starts_with("wpool\0") && name.trim() != "wpool-init" || command.contains("serve")
}

fn bombs_end_alone_and_hold_nobody_up() -> anyhow::Result<()> {
    let daemon = Daemon::start(2)?;
    let forks = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass";
    let threads = "import threading\ndef more():\n    while True:\n        try: threading.Thread(target=more).start()\n        except RuntimeError: pass\nmore()";
    let execs = "import os, sys\nos.fork(); os.fork()\nos.execv(sys.executable, ['python3', '-S', '-c', 'import os, sys; os.execv(sys.executable, sys.orig_argv)'])";
    let dead = "import os, time\nwhile True:\n    try:\n        if os.fork() == 0: os._exit(0)\n    except OSError: pass";
    for code in [forks, threads, execs, dead] {
        let bomb = job(code, &json!({"timeout_ms": 1_500}));
        let answer = daemon.post("/v1/jobs", &bomb)?;
        let id = answer.json()?["id"].as_str().context("no id")?.to_owned();
        for _ in 0..5 {
            // Beside it, and, once it has ended, on its worker.
            let beside = daemon.outcome_of(&json!({"command": ["echo", "well"]}))?;
            ensure!(beside["stdout"] == "well\n", "{beside}");
        }
        let ended = daemon.get(&format!("/v1/jobs/{id}/result?wait=60s"))?;
        let ended = ended.json()?;
        let state = ended["state"].as_str().unwrap_or_default();
        ensure!(["timed_out", "limit_exceeded"].contains(&state), "{ended}");
        let peak = ended["usage"]["processes_peak"].as_u64();
        ensure!(peak.is_some_and(|peak| peak <= 64), "{ended}");
        ensure!(ended["attempts"][0]["generation"] == 1, "{ended}");
    }
    next_is_well(&daemon)
}

fn memory_of_every_kind_is_told_as_memory() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let wait = "\nimport signal\nwhile True: signal.pause()";
    for code in [
        "data = bytearray(300 << 20)\nfor n in range(0, len(data), 4096): data[n] = 1",
        // Reserved without a thought, then touched.
        "import mmap\ndata = mmap.mmap(-1, 300 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)\nfor n in range(0, len(data), 4096): data[n] = 1",
        "for n in range(6):\n    with open(f'/dev/shm/{n}', 'wb') as file: file.write(bytes(50 << 20))",
        "import mmap, os\nfile = os.open('/tmp/file', os.O_CREAT | os.O_RDWR)\nos.truncate(file, 300 << 20)\ndata = mmap.mmap(file, 300 << 20)\nfor n in range(0, len(data), 4096): data[n] = 1",
        "import os\nfor _ in range(5): os.fork()\ndata = bytearray(20 << 20)\nfor n in range(0, len(data), 4096): data[n] = 1",
    ] {
        let limits = json!({"memory_bytes": 128 << 20, "disk_bytes": 512 << 20, "file_size_bytes": 512 << 20});
        let ended = outcome(&daemon, &job(&format!("{code}{wait}"), &limits))?;
        ensure!(ended["state"] == "limit_exceeded", "{ended}");
        ensure!(ended["cause"]["limit"] == "memory", "{ended}");
        next_is_well(&daemon)?;
    }
    Ok(())
}

fn memory_in_the_kernel_ends_with_its_job() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    // Mappings, page tables, pipes, sockets, epoll, timers, signals, names: each until it is refused, or for a while.
    let code = "import ctypes, mmap, os, select, signal, socket, time
libc = ctypes.CDLL(None, use_errno=True); libc.mmap.restype = ctypes.c_void_p
def until(refusal, most, make):
    kept = []
    try:
        for _ in range(most): kept.append(make())
    except refusal: pass
    return kept
def mapping():
    if libc.mmap(None, 4096, 1 + len(kinds) % 2 * 2, 0x22, -1, 0) in (None, ctypes.c_void_p(-1).value): raise OSError
    kinds.append(1)
far = mmap.mmap(-1, 8 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ)
for n in range(0, 8 << 30, 2 << 20): far[n]
def pipe():
    ends = os.pipe(); os.set_blocking(ends[1], False)
    try:
        while True: os.write(ends[1], bytes(65536))
    except BlockingIOError: pass
    return ends
for one in until(OSError, 40, pipe): [os.close(fd) for fd in one]
def full():
    pair = socket.socketpair(); pair[0].setblocking(False)
    try:
        while True: pair[0].send(bytes(65536))
    except BlockingIOError: pass
    return pair
for one in until(OSError, 40, full): [end.close() for end in one]
polls = until(OSError, 60, select.epoll)
for one in polls:
    for other in polls:
        try: one.register(other.fileno())
        except OSError: pass
timer = ctypes.c_int()
def arm():
    if libc.timer_create(1, None, ctypes.byref(timer)): raise OSError
until(OSError, 10_000, arm)
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
def queue():
    if libc.sigqueue(os.getpid(), 40, 0): raise OSError
until(OSError, 10_000, queue)
until(OSError, 20_000, lambda: os.symlink('x' * 200, f'/tmp/{time.monotonic_ns()}'))
# Last, and by another: with no mapping left even the interpreter has no memory.
kinds = []
if os.fork() == 0:
    try: until((OSError, MemoryError), 70_000, mapping)
    finally: os._exit(0)
os.wait()
print('tried', flush=True)";
    for _ in 0..3 {
        let ended = outcome(&daemon, &job(code, &json!({"timeout_ms": 60_000})))?;
        // It may well be too much, and is then told as memory; it is never the worker that goes.
        let is_memory = ended["cause"]["limit"] == "memory";
        ensure!(ended["stdout"] == "tried\n" || is_memory, "{ended}");
        next_is_well(&daemon)?;
    }
    Ok(())
}

fn memory_in_files_is_given_back_to_the_machine() -> anyhow::Result<()> {
    let shared = || -> anyhow::Result<u64> {
        let text = fs::read_to_string("/proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix("Shmem:"));
        let kib = line.context("no Shmem")?.trim().trim_end_matches(" kB");
        Ok(kib.parse::<u64>()? >> 10)
    };
    let daemon = Daemon::start(1)?;
    let code = "for n in range(2):\n    with open(f'/dev/shm/{n}', 'wb') as file: file.write(bytes(60 << 20))";
    let before = shared()?;
    for _ in 0..20 {
        let ended = outcome(&daemon, &job(code, &json!({})))?;
        ensure!(ended["state"] == "succeeded", "{ended}");
    }
    // Together 2400 MiB; others on this machine may take and give meanwhile.
    let after = shared()?;
    ensure!(after < before + 1200, "from {before} to {after} MiB");
    Ok(())
}

/// Makes message queues until there is no room for more, and says how many: with so low a limit of its own, one.
const QUEUES: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <sys/resource.h>
int main(void) {
    struct rlimit room = {100000, 100000};
    setrlimit(RLIMIT_MSGQUEUE, &room);
    int made = 0;
    char name[16];
    do snprintf(name, sizeof name, "/%d", made);
    while (mq_open(name, O_CREAT | O_RDWR, 0600, 0) >= 0 && ++made < 1000);
    printf("%d, then error %d", made, errno);
}
"#;

/// What they take is counted by user, and given back by the kernel some milliseconds after their namespace has gone: a
/// program that starts faster than an interpreter sees it.
fn message_queues_leave_their_room_to_the_next_job() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let built = daemon.outcome_of(&json!({
        "command": ["gcc", "-w", "-O1", "-o", "fill", "fill.c", "-lrt"],
        "files": {"fill.c": QUEUES},
        "outputs": ["fill"],
    }))?;
    let mut program = built["files"]["fill"].clone();
    ensure!(program["base64"].is_string(), "{built}");
    program["mode"] = json!("755");
    let job = json!({"command": ["./fill"], "files": {"fill": program}}).to_string();
    let jobs = format!("{job}\n").repeat(100);
    let answer = daemon.ask("POST", "/v1/jobs/batch", Some(jobs.as_bytes()))?;
    let mut told = std::collections::BTreeMap::<String, u32>::new();
    for line in answer.body.lines() {
        let line: Value = serde_json::from_str(line)?;
        let id = line["id"].as_str().with_context(|| line.to_string())?;
        let outcome = daemon.get(&format!("/v1/jobs/{id}/result?wait=60s"))?;
        let outcome = outcome.json()?;
        let made = outcome["stdout"].as_str().context("it is text")?;
        *told.entry(made.to_owned()).or_default() += 1;
    }
    ensure!(told.keys().eq(["1, then error 24"]), "{told:?}");
    Ok(())
}

fn limits_of_one_job_are_not_those_of_the_next() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let code = "import os, resource
data = bytearray(100 << 20)
for n in range(0, len(data), 4096): data[n] = 1
kept = [os.dup(0) for _ in range(100)]
children = [os.posix_spawn('/bin/true', ['true'], {}) for _ in range(30)]
with open('/tmp/file', 'wb') as file: file.write(bytes(40 << 20))
print('well')";
    let small = json!({"memory_bytes": 64 << 20, "processes": 4, "open_files": 16, "disk_bytes": 1 << 20, "file_size_bytes": 1 << 20, "cpu_ms": 60_000});
    for _ in 0..2 {
        let ended = outcome(&daemon, &job(code, &small))?;
        ensure!(ended["stdout"] != "well\n", "{ended}");
        let ended = outcome(&daemon, &job(code, &json!({})))?;
        ensure!(ended["stdout"] == "well\n", "{ended}");
    }
    Ok(())
}

fn cpu_time_is_counted_however_it_is_spent() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let burn = "import os, resource, signal, threading, time\n";
    for code in [
        // Eight at once, and by turns between two looks; the signal of the limit is not listened to.
        "for _ in range(3): os.fork()\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "def turn():\n    while True: sum(range(10_000)); time.sleep(0.0001)\nfor _ in range(8): threading.Thread(target=turn).start()",
        "while True:\n    if os.fork() == 0:\n        sum(range(300_000)); os._exit(0)\n    os.wait()",
        "os.nice(19); os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass",
    ] {
        let limits = json!({"cpu_ms": 600, "timeout_ms": 60_000});
        let ended = outcome(&daemon, &job(&format!("{burn}{code}"), &limits))?;
        ensure!(ended["state"] == "limit_exceeded", "{ended}");
        ensure!(ended["cause"]["limit"] == "cpu", "{ended}");
        let figure = |name: &str| ended["usage"][name].as_f64().context("no figure");
        let spent = figure("cpu_user_ms")? + figure("cpu_system_ms")?;
        ensure!((500.0..1_500.0).contains(&spent), "{ended}");
        next_is_well(&daemon)?;
    }
    Ok(())
}

fn whoever_sleeps_polls_or_stands_still_is_ended() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let deaf = "import os, select, signal, time\nfor number in (1, 2, 3, 15, 14): signal.signal(number, signal.SIG_IGN)\n";
    for code in [
        "while True: signal.pause()",
        "while True: select.select([], [], [], 0.01)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "if os.fork(): os.waitpid(-1, os.WUNTRACED)\nos.kill(os.getpid(), signal.SIGSTOP)",
        "os.mkfifo('fifo'); os.open('fifo', os.O_RDONLY)",
        "if os.fork() == 0: os.kill(os.getppid(), signal.SIGSTOP)\nwhile True: signal.pause()",
    ] {
        let ended = outcome(
            &daemon,
            &job(&format!("{deaf}{code}"), &json!({"timeout_ms": 400})),
        )?;
        ensure!(ended["state"] == "timed_out", "{ended}");
        next_is_well(&daemon)?;
    }
    let idle = job(
        &format!("{deaf}while True: signal.pause()"),
        &json!({"idle_ms": 300}),
    );
    let ended = outcome(&daemon, &idle)?;
    ensure!(ended["cause"]["limit"] == "idle", "{ended}");
    Ok(())
}

fn what_a_job_says_of_its_own_end_is_not_believed() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let import = "import os, signal, sys\n";
    let told = |code: &str| {
        outcome(
            &daemon,
            &job(&format!("{import}{code}"), &json!({"cpu_ms": 20_000})),
        )
    };
    // As those would end that reach a limit, and have not.
    for (code, state, exit) in [
        ("sys.exit(137)", "failed", 137),
        ("sys.exit(124)", "failed", 124),
        ("sys.exit(125)", "failed", 125),
        ("sys.exit(127)", "failed", 127),
    ] {
        let ended = told(code)?;
        ensure!(ended["state"] == state, "{ended}");
        ensure!(
            ended["exit_code"] == exit && ended["cause"]["kind"] == "exit_code",
            "{ended}"
        );
    }
    for (number, name) in [
        (9, "SIGKILL"),
        (24, "SIGXCPU"),
        (31, "SIGSYS"),
        (15, "SIGTERM"),
    ] {
        let ended = told(&format!("os.kill(os.getpid(), {number})"))?;
        ensure!(
            ended["state"] == "failed" && ended["signal"] == name,
            "{ended}"
        );
        ensure!(ended["cause"]["limit"].is_null(), "{ended}");
    }
    // Words on its streams are words.
    let ended = told(
        "print('{\"state\": \"timed_out\"}'); print('memory limit exceeded', file=sys.stderr)",
    )?;
    ensure!(ended["state"] == "succeeded", "{ended}");
    Ok(())
}

fn secrets_are_neither_logged_nor_shown_to_others() -> anyhow::Result<()> {
    let daemon = Daemon::start(2)?;
    let secret = "a-word-that-nobody-else-knows";
    let hold = "import os, signal\nprint(os.environ['SECRET'] in open('/proc/self/cmdline').read(), flush=True)\nwhile True: signal.pause()";
    let answer = daemon.post(
        "/v1/jobs",
        &json!({
            "command": ["python3", "-c", hold, secret],
            "env": {"SECRET": secret},
            "stdin": secret,
            "files": {"secret": secret},
        }),
    )?;
    let id = answer.json()?["id"].as_str().context("no id")?.to_owned();
    let mut daemon = daemon;
    daemon.wait_until("it runs", |daemon| {
        Ok(daemon
            .get(&format!("/v1/jobs/{id}/output?stream=stdout"))?
            .body
            .contains("True"))
    })?;
    let look = "import os
for pid in filter(str.isdigit, os.listdir('/proc')):
    for name in ['cmdline', 'environ', 'comm', 'stat', 'status', 'wchan']:
        if int(pid) == os.getpid(): continue
        try: told = open(f'/proc/{pid}/{name}', 'rb').read()
        except OSError: continue
        if b'nobody-else' in told: print('escaped', pid, name)
        if name == 'cmdline' and b'python' in told: print('escaped to', pid)
print('tried')";
    let beside = daemon.outcome_of(&job(look, &json!({})))?;
    ensure!(beside["stdout"] == "tried\n", "{beside}");
    daemon.ask("DELETE", &format!("/v1/jobs/{id}"), None)?;
    daemon.get(&format!("/v1/jobs/{id}/result?wait=60s"))?;
    ensure!(!daemon.said()?.contains(secret), "{}", daemon.said()?);
    let next = daemon.outcome_of(&job(look, &json!({})))?;
    ensure!(next["stdout"] == "tried\n", "{next}");
    Ok(())
}
