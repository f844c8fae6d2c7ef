//! Hostile jobs: each leaves behind whatever it can, or takes whatever it can, and ends in one of the ways that it may.
//!
//! That each is contained while it runs is another test's (`escape.rs`); here it is what they come to, thousands of them one
//! after the other. A program that comes to its end says `tried`; one that meets what another left says `found`.

use serde_json::{Value, json};

use super::task::Manner;

/// A hostile job.
#[derive(Debug)]
pub(crate) struct Misdeed {
    pub(crate) name: &'static str,
    program: Program,
    limits: &'static [(&'static str, u64)],
    /// Patterns of files to bring out.
    outputs: &'static [&'static str],
    pub(crate) manner: Manner,
    /// How it may end.
    pub(crate) ends: &'static [&'static str],
}

#[derive(Debug)]
enum Program {
    /// After [`PRELUDE`].
    Python(&'static str),
    Shell(&'static str),
    /// Without arguments.
    File(&'static str),
}

impl Misdeed {
    pub(crate) fn request(&self) -> Value {
        let limits = self
            .limits
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)));
        let command = match self.program {
            Program::Python(code) => json!(["python3", "-S", "-c", format!("{PRELUDE}{code}")]),
            Program::Shell(script) => json!(["sh", "-c", script]),
            Program::File(path) => json!([path]),
        };
        json!({
            "command": command,
            "limits": Value::Object(limits.collect()),
            "outputs": self.outputs,
        })
    }
}

/// What the programs begin with: `lots` does something until it is refused, `linger` leaves a process that does not want to end.
const PRELUDE: &str = "\
import ctypes, errno, os, resource, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    longs = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return libc.syscall(ctypes.c_long(number), *longs)
def say(*words): os.write(1, (' '.join(map(str, words)) + '\\n').encode())
def lots(most, make):
    made = []
    try:
        for n in range(most): made.append(make(n))
    except OSError: pass
    return made
def linger(body):
    ready, is_ready = os.pipe()
    if os.fork() == 0:
        os.setsid()
        for number in signal.valid_signals() - {9, 19}: signal.signal(number, signal.SIG_IGN)
        body(); os.write(is_ready, b'.')
        while True: signal.pause()
    os.read(ready, 1); os.close(ready); os.close(is_ready)
def tried():
    say('tried'); os._exit(0)
";

const TRIED: &[&str] = &["succeeded"];
/// Whoever burns all CPU time has, within a wall time of the same length, the one or the other.
const TIME: &[&str] = &["timed_out", "limit_exceeded: cpu"];

const fn python(name: &'static str, code: &'static str) -> Misdeed {
    Misdeed {
        name,
        program: Program::Python(code),
        limits: &[],
        outputs: &[],
        manner: Manner::Waits,
        ends: TRIED,
    }
}

const fn shell(name: &'static str, script: &'static str) -> Misdeed {
    Misdeed {
        program: Program::Shell(script),
        ..python(name, "")
    }
}

impl Misdeed {
    const fn limits(self, limits: &'static [(&'static str, u64)]) -> Self {
        Self { limits, ..self }
    }

    const fn outputs(self, outputs: &'static [&'static str]) -> Self {
        Self { outputs, ..self }
    }

    const fn ends(self, ends: &'static [&'static str]) -> Self {
        Self { ends, ..self }
    }

    const fn vanishes(self) -> Self {
        Self {
            manner: Manner::Vanishes,
            ..self
        }
    }

    const fn cancelled(self) -> Self {
        let cancelled: &[&str] = &["cancelled"];
        Self {
            manner: Manner::Cancels,
            ends: cancelled,
            ..self
        }
    }
}

const SHORT: &[(&str, u64)] = &[("timeout_ms", 200)];
const SMALL: &[(&str, u64)] = &[
    ("memory_bytes", 40 << 20),
    ("disk_bytes", 256 << 20),
    ("file_size_bytes", 256 << 20),
];

pub(crate) const MISDEEDS: &[Misdeed] = &[
    // Processes and threads.
    python("forks without end", "
while True:
    try: os.fork()
    except OSError: pass").limits(SHORT).ends(TIME),
    python("starts threads without end", "
import threading
def more():
    while True:
        try: threading.Thread(target=more).start()
        except RuntimeError: pass
more()").limits(SHORT).ends(TIME),
    python("is another process every moment", "
if os.fork(): time.sleep(0.05); tried()
while True:
    if os.fork(): os._exit(0)
    os.setsid()"),
    python("leaves deaf orphans", "
for _ in range(5): linger(lambda: None)
linger(lambda: libc.prctl(4, 0)); linger(lambda: libc.prctl(15, b'wpool')); linger(lambda: libc.prctl(36, 1))
tried()"),
    python("leaves the dead", "
for _ in range(40):
    if os.fork() == 0: os._exit(0)
tried()"),
    python("leaves those who are stopped", "
for _ in range(10):
    if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)
for _ in range(10): os.waitpid(-1, os.WUNTRACED)
tried()"),
    python("leaves threads", "
import threading
for _ in range(40): threading.Thread(target=signal.pause).start()
threading.Thread(target=tried).start()
signal.pause()"),
    python("leaves one in the kernel that waits for its child", "
os.mkfifo('/box/fifo')
if os.fork() == 0: os.posix_spawn('/bin/true', ['true'], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, '/box/fifo', os.O_RDONLY, 0)])
time.sleep(0.02); tried()"),
    python("leaves its streams to somebody", "
linger(lambda: None)
tried()"),
    python("kills all that it may", "
if os.fork() == 0: signal.pause()
for pid in (1, os.getppid(), -1): lots(1, lambda _: os.kill(pid, signal.SIGKILL))
tried()"),
    python("kills its group", "os.killpg(0, signal.SIGKILL)").ends(&["failed: SIGKILL"]),
    python("stops its group", "os.killpg(0, signal.SIGSTOP)").limits(SHORT).ends(&["timed_out"]),
    python("crashes in ten processes", "
for _ in range(9):
    if os.fork() == 0: break
os.abort()").ends(&["failed: SIGABRT"]),
    shell("executes itself without end", "echo 'exec sh ./again' > again; exec sh ./again").limits(SHORT).ends(TIME),
    // Time.
    shell("sleeps", "sleep 60 & sleep 60").limits(&[("timeout_ms", 100)]).ends(&["timed_out"]),
    shell("says goodbye late", "trap 'sleep 60 & wait' TERM; sleep 60 & wait; wait").limits(&[("timeout_ms", 100), ("grace_ms", 100)]).ends(&["timed_out"]),
    python("burns time in four", "
for _ in range(2): os.fork()
while True: pass").limits(&[("cpu_ms", 80)]).ends(&["limit_exceeded: cpu"]),
    shell("is idle", "exec sleep 60").limits(&[("idle_ms", 150)]).ends(&["limit_exceeded: idle"]),
    // Memory and files.
    python("takes memory", "
held = bytearray(150 << 20)
for n in range(0, len(held), 4096): held[n] = 1
tried()").limits(SMALL).ends(&["limit_exceeded: memory"]),
    python("takes memory in ten", "
for _ in range(9):
    if os.fork() == 0: break
held = bytearray(12 << 20)
for n in range(0, len(held), 4096): held[n] = 1
time.sleep(60)").limits(SMALL).ends(&["limit_exceeded: memory"]),
    shell("takes memory in files", "cat /dev/zero > /dev/shm/full; sleep 60").limits(SMALL).ends(&["limit_exceeded: memory"]),
    python("fills its disk", "
if os.statvfs('/tmp').f_bfree < os.statvfs('/tmp').f_blocks - 256: say('found a full disk')
for place in ('/box', '/tmp', '/dev/shm'):
    with open(place + '/full', 'wb', buffering=0) as file: lots(100, lambda _: file.write(bytes(1 << 20)))
tried()").limits(&[("disk_bytes", 16 << 20)]),
    python("makes files without end", "
lots(40_000, lambda n: os.close(os.open(f'/tmp/{n}', os.O_CREAT)))
tried()").limits(&[("disk_bytes", 8 << 20)]),
    python("digs a tree", "
def deeper(_): os.mkdir('d' * 200); os.chdir('d' * 200)
lots(1_000, deeper); linger(lambda: None)
tried()").outputs(&["**"]),
    python("holds what it has removed", "
import mmap
def hold():
    file = os.open('/tmp/gone', os.O_CREAT | os.O_RDWR); os.truncate(file, 1 << 20); mmap.mmap(file, 1 << 20)[0] = 1
    os.unlink('/tmp/gone'); os.mkdir('/tmp/cwd'); os.chdir('/tmp/cwd'); os.rmdir('/tmp/cwd')
    held.append(file)
held = []
for _ in range(5): linger(hold)
tried()"),
    python("gives out what is no file", "
os.mkfifo('fifo'); os.symlink('/etc/passwd', 'link'); os.symlink('/', 'root'); os.symlink('.', 'loop'); os.mkdir('shut', 0)
socket.socket(socket.AF_UNIX).bind('socket'); open(b'\\xff\\n', 'w').close(); open('sealed', 'w').close(); os.chmod('sealed', 0)
os.truncate(os.open('vast', os.O_CREAT | os.O_RDWR), 100_000)
lots(1, lambda _: os.setxattr('sealed', 'user.left', bytes(1000)))
os.chmod('.', 0)
tried()").outputs(&["*", "**", "root/etc/passwd", "fifo", "link"]),
    python("gives out more files than may be", "
for n in range(4_200): os.close(os.open(f'f{n}', os.O_CREAT))
tried()").outputs(&["*"]),
    shell("writes a file that is too large", "exec head -c 3000000 /dev/zero > file").limits(&[("file_size_bytes", 1 << 20)]).ends(&["limit_exceeded: file_size"]),
    shell("floods its streams", "yes error >&2 & yes").limits(SHORT).ends(TIME),
    shell("floods and goes", "head -c 20M /dev/zero >&2; head -c 5M /dev/zero; (yes >&2 &); echo tried").limits(&[("output_bytes", 4_000)]),
    python("locks what all can read", "
import fcntl
fcntl.flock(os.open('/usr/bin/env', os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)
linger(lambda: None)
tried()"),
    // Objects of the kernel.
    python("leaves System V objects", "
for name, get in {'segment': (29, 4711, 4096), 'semaphores': (64, 4711, 8), 'queue': (68, 4711)}.items():
    if call(*get, 0) >= 0: say('found', name)
    call(*get, 0o1666)
    for _ in range(20): call(get[0], 0, *get[2:], 0o1666)
tried()"),
    python("leaves message queues", "
if call(240, b'left', os.O_RDWR, 0, 0) >= 0 or os.listdir('/dev/mqueue'): say('found a queue')
small = struct.pack('8q', 0, 1, 16, 0, 0, 0, 0, 0)
queue = call(240, b'left', os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o666, small)
call(242, queue, b'left', 4, 0, 0)
for n in range(300): call(3, call(240, b'more%d' % n, os.O_CREAT | os.O_RDWR, 0o666, small))
linger(lambda: None)
tried()"),
    python("leaves keys", "
for ring in (-2, -3, -4, -5):
    if call(250, 10, ring, b'user', b'left', 0) >= 0: say('found a key')
    call(248, b'user', b'left', b'secret', 6, ring)
call(250, 1, b'left'); call(250, 1, 0); call(248, b'keyring', b'ring', 0, 0, -3)
tried()"),
    python("leaves names without files", "
if 'left' in open('/proc/net/unix').read(): say('found a name')
kept = [socket.socket(socket.AF_UNIX) for _ in range(50)]
for n, one in enumerate(kept): one.bind(f'\\0left-{n}'); one.listen()
linger(lambda: None)
tried()"),
    python("leaves connections that wait", "
server = socket.create_server(('127.0.0.1', 8080), backlog=64)
for _ in range(40):
    client = socket.create_connection(('127.0.0.1', 8080)); peer, _ = server.accept()
    peer.sendall(bytes(1000)); peer.close(); client.close()
kept = [socket.create_connection(('127.0.0.1', 8080)) for _ in range(20)]
for one in kept: one.setblocking(False); lots(20, lambda _: one.send(bytes(65_536)))
six = socket.socket(socket.AF_INET6); lots(1, lambda _: six.bind(('::1', 8080)))
tried()"),
    python("has descriptors in flight", "
for _ in range(20):
    here, there = socket.socketpair(); here.setblocking(False)
    lots(1, lambda _: socket.send_fds(here, [b'x'], [here.fileno(), there.fileno()] * 5))
    here.close(); there.close()
tried()"),
    python("opens all that it may", "
for make in (lambda _: os.dup(0), lambda _: call(294, 0), lambda _: call(291, 0), lambda _: call(283, 1, 0), lambda _: call(290, 0, 0), lambda _: os.pipe()):
    def made(n):
        one = make(n)
        if one == -1: raise OSError
        return one
    for one in lots(300, made)[:-20]:
        for fd in one if isinstance(one, tuple) else (one,): os.close(fd)
tried()"),
    python("fills pipes and sockets", "
import fcntl
def full(_):
    ends = os.pipe(); os.set_blocking(ends[1], False); lots(1, lambda _: fcntl.fcntl(ends[1], 1031, 1 << 20))
    lots(40, lambda _: os.write(ends[1], bytes(65_536))); return ends
lots(20, full)
for one in socket.socketpair(): one.setblocking(False); lots(40, lambda _: one.send(bytes(65_536)))
linger(lambda: None)
tried()"),
    python("watches files and polls in rings", "
import select
polls = lots(20, lambda _: select.epoll())
for one in polls:
    for other in polls: lots(1, lambda _: one.register(other.fileno()))
watch = call(294, 0)
for n in range(100): os.mkdir(f'/tmp/{n}'); call(254, watch, b'/tmp/%d' % n, 0xfff)
linger(lambda: None)
tried()"),
    python("arms timers and signals", "
timer = ctypes.c_int()
for _ in range(200): call(222, 1, 0, ctypes.byref(timer))
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
for _ in range(2_000): libc.sigqueue(os.getpid(), 40, 0)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
tried()"),
    python("asks for what it may not have", "
for number, *arguments in [(272, 0x7e020000), (272, 0x10000000), (165, b'none', b'/tmp', b'tmpfs', 0, 0), (161, b'/box'), (155, b'.', b'.'), (166, b'/', 2),
    (101, 0, 1), (321, 0, 0, 0), (323, 0), (298, 0, 0, 0, 0, 0), (425, 8, 0), (319, b'left', 0), (317, 1, 0, 0), (435, 0, 0), (170, b'left', 4), (246, 0, 0, 0, 0), (56, 0x10000011, 0)]:
    if call(number, *arguments) == 0 and number == 56: os._exit(0)
tried()"),
    python("lowers what it has", "
for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_AS):
    if resource.getrlimit(limit)[1] == 7: say('found a limit')
os.umask(0o777); os.nice(19); os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)); signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC): resource.setrlimit(limit, (7, 7))
tried()"),
    python("writes wherever it can", "
places = ['oom_score_adj', 'comm', 'timerslack_ns', 'coredump_filter', 'setgroups', 'uid_map', 'autogroup', 'loginuid', 'clear_refs', 'attr/current']
for pid in ('1', 'self'):
    for name in places:
        for text in (b'1000', b'0'): lots(1, lambda _: os.write(os.open(f'/proc/{pid}/{name}', os.O_WRONLY), text))
for place, _, names in os.walk('/proc/sys/kernel'):
    for name in names: lots(1, lambda _: os.close(os.open(f'{place}/{name}', os.O_WRONLY)))
tried()"),
    python("has an environment that is too large", "
for count in (14, 60):
    try:
        if os.spawnve(os.P_WAIT, '/bin/true', ['true'], {f'n{n}': 'x' * 131_000 for n in range(count)}): break
    except OSError: break
tried()"),
    // Programs that are none.
    Misdeed { program: Program::File("no-such-program"), ..python("is not there", "") }.ends(&["failed: not_found"]),
    Misdeed { program: Program::File("/etc/passwd"), ..python("is no program", "") }.ends(&["failed: not_executable"]),
    // Clients.
    shell("is cancelled", "echo ready; sleep 60").cancelled(),
    python("is cancelled and deaf", "
for _ in range(5): linger(lambda: None)
for number in signal.valid_signals() - {9, 19}: signal.signal(number, signal.SIG_IGN)
say('ready')
while True: signal.pause()").cancelled(),
    python("is cancelled while it forks", "
say('ready')
while True:
    try: os.fork()
    except OSError: pass").cancelled(),
    shell("is cancelled while it floods", "echo ready; yes; sleep 60").limits(&[("output_bytes", 1 << 18)]).cancelled(),
    python("loses its client and lingers", "
linger(lambda: None)
tried()").vanishes(),
    shell("loses its client and sleeps", "sleep 60").limits(&[("timeout_ms", 100)]).ends(&["timed_out"]).vanishes(),
];
