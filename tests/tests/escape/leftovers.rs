//! What one job could leave for the next on the same worker: each program first looks for what it left as A.
//!
//! Processes that outlive their job are looked for from outside, among the tests of resources.

use super::attack::{Attack, Shown};
use super::removal::Removal;

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "system_v_objects_are_not_found_by_the_next_job",
        program: SYSTEM_V,
        shown: Shown::Without(Removal::Ipc, &["segment", "semaphores", "queue"]),
    },
    Attack {
        name: "message_queues_are_not_found_by_the_next_job",
        program: MESSAGE_QUEUES,
        shown: Shown::Without(Removal::Ipc, &["by call"]),
    },
    Attack {
        name: "keys_of_a_job_are_not_found_by_the_next",
        program: KEYS,
        shown: Shown::Without(Removal::Filter, &["user keyring", "session keyring"]),
    },
    Attack {
        name: "files_of_a_job_are_not_found_by_the_next",
        program: FILES,
        shown: Shown::Without(Removal::Files, &["/box", "/tmp", "/dev/shm"]),
    },
    Attack {
        name: "what_a_job_plants_is_not_run_by_the_next",
        program: PLANTS,
        shown: Shown::Without(Removal::Files, &["usercustomize", "socket.py", "hook"]),
    },
    Attack {
        name: "room_that_a_job_takes_is_free_for_the_next",
        program: ROOM,
        shown: Shown::Without(Removal::Files, &["bytes", "inodes"]),
    },
    Attack {
        name: "a_connection_of_a_job_does_not_hold_its_port_for_the_next",
        program: PORTS,
        shown: Shown::Without(Removal::Net, &["port"]),
    },
    Attack {
        name: "limits_that_a_job_lowers_are_whole_for_the_next",
        program: LOWERED,
        shown: Shown::Without(
            Removal::ResourceLimits,
            &["open files", "core", "file size"],
        ),
    },
    Attack {
        name: "the_name_of_the_host_is_the_same_for_the_next_job",
        program: HOST_NAME,
        shown: Shown::Without(Removal::Lockdown, &["host name", "domain name"]),
    },
    Attack {
        name: "descriptors_in_flight_are_not_counted_against_the_next_job",
        program: IN_FLIGHT,
        shown: Shown::Not(
            "what is in flight goes with the last process that holds an end, and no layer can be taken away that ends those",
        ),
    },
    Attack {
        name: "processes_of_a_job_are_not_met_by_the_next",
        program: PROCESSES,
        shown: Shown::Without(Removal::Pid, &["a stranger"]),
    },
];

/// Refused under sampling; with a cgroup the namespace alone must do.
const SYSTEM_V: &str = r"
KINDS = {'segment': (29, 4711, 4096), 'semaphores': (64, 4711, 8), 'queue': (68, 4711)}
for name, get in KINDS.items():
    if call(*get, 0) >= 0: escaped(name)
    call(*get, 0o1666)
# Many, up to whatever limit there is, and attached, so that they outlive being removed.
libc.shmat.restype = ctypes.c_void_p
for _ in range(100):
    segment = call(29, 0, 1 << 16, 0o1666)
    if segment < 0: break
    libc.shmat(segment, None, 0)
";

/// Small ones: what they may take all together is counted by the user who runs this, too.
const MESSAGE_QUEUES: &str = r"
if call(240, b'left', os.O_RDWR, 0, 0) >= 0: escaped('by call')
if os.path.exists('/dev/mqueue/left'): escaped('by path')
small = struct.pack('8q', 0, 1, 16, 0, 0, 0, 0, 0)
queue = call(240, b'left', os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o666, small)
if queue < 0: raise OSError('there are no message queues')
call(242, queue, b'left', 4, 0, 0)
for n in range(20): call(240, b'more%d' % n, os.O_CREAT | os.O_RDWR, 0o666, small)
";

const KEYS: &str = r"
RINGS = {'user keyring': -4, 'user session keyring': -5, 'session keyring': -3, 'process keyring': -2}
for name, ring in RINGS.items():
    if call(250, 10, ring, b'user', b'left', 0) >= 0: escaped(name)
if call(249, b'user', b'left', 0, 0) >= 0: escaped('request')
for ring in RINGS.values(): call(248, b'user', b'left', b'secret', 6, ring)
# A named session is joined by whoever knows the name.
call(250, 1, b'left')
if call(250, 10, -3, b'user', b'named', 0) >= 0: escaped('named session')
call(248, b'user', b'named', b'secret', 6, -3)
";

const FILES: &str = r"
for place in ['/box', '/tmp', '/dev/shm']:
    if os.listdir(place): escaped(place, os.listdir(place))
    os.makedirs(f'{place}/deep/' + '/'.join('d' * 40), exist_ok=True)
    for name in ['plain', b'bad \xff\n name'.decode('utf8', 'surrogateescape'), '.hidden']:
        open(f'{place}/{name}', 'w').write('left')
    for attempt in [
        lambda: os.mkfifo(f'{place}/fifo'),
        lambda: os.symlink('/etc/passwd', f'{place}/link'),
        lambda: os.link(f'{place}/plain', f'{place}/second'),
        lambda: socket.socket(socket.AF_UNIX).bind(f'{place}/socket'),
        lambda: os.setxattr(f'{place}/plain', 'user.left', b'left'),
        lambda: os.chmod(f'{place}/plain', 0o6777),
        lambda: os.mkdir(f'{place}/shut', 0),
        # FS_IOC_SETFLAGS: immutable and append-only.
        lambda: fcntl.ioctl(os.open(f'{place}/plain', 0), 0x40086602, struct.pack('l', 0x30)),
    ]:
        try: attempt()
        except OSError: pass
# Deleted and still open, in a process that does not want to end, whose working directory is gone, too.
held = open('/tmp/deleted', 'wb'); held.write(bytes(1 << 20)); held.flush(); os.unlink('/tmp/deleted')
ready, is_ready = os.pipe()
if os.fork() == 0:
    os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.mkdir('/tmp/gone'); os.chdir('/tmp/gone'); os.rmdir('/tmp/gone')
    os.write(is_ready, b'.')
    while True: signal.pause()
os.read(ready, 1)
";

/// What programs of the next job would run by themselves: found by Python at its start, by git, by a shell.
const PLANTS: &str = r"
if getattr(sys, 'planted', None): escaped('usercustomize')
if getattr(socket, 'planted', None): escaped('socket.py')
if os.path.exists('/box/.git/hooks/post-checkout'): escaped('hook')
if os.path.exists(os.path.expanduser('~/.bashrc')): escaped('shell')
version = f'{sys.version_info[0]}.{sys.version_info[1]}'
site = os.path.expanduser(f'~/.local/lib/python{version}/site-packages')
def plant(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, 'w').write(text)
plant(f'{site}/usercustomize.py', 'import sys; sys.planted = True')
plant('/box/socket.py', 'planted = True')
plant('/box/conftest.py', 'planted = True')
plant('/box/.git/hooks/post-checkout', '#!/bin/sh\necho escaped')
plant('/box/.git/config', '[core]\n\tfsmonitor = echo escaped')
for name in ['.bashrc', '.profile', '.gitconfig', '.vscode/settings.json', '.claude/settings.json']:
    plant(f'/box/{name}', 'echo escaped')
";

const ROOM: &str = r"
room = os.statvfs('/tmp')
if (room.f_blocks - room.f_bfree) * room.f_frsize > 1 << 20: escaped('bytes')
if room.f_files - room.f_ffree > 64: escaped('inodes')
def fill(path):
    total = 0
    with open(path, 'wb', buffering=0) as file:
        try:
            while total < 62 << 20: total += file.write(bytes(1 << 20))
        except OSError as error: pass
    return total
total = sum(fill(f'{place}/{n}') for place in ['/box', '/tmp', '/dev/shm'] for n in range(2))
if total > 128 << 20: escaped('more than the limit', total)
os.truncate('/dev/shm/1', 0); os.truncate('/dev/shm/0', 0)
made = 0
try:
    while made < 20_000: os.close(os.open(f'/tmp/f{made}', os.O_CREAT | os.O_WRONLY)); made += 1
except OSError as error:
    if error.errno != errno.ENOSPC: raise
if made > 16_384: escaped('more files than the limit', made)
try:
    for n in range(20_000): os.setxattr('/tmp/f0', f'user.{n}', bytes(1024))
except OSError: pass
else: escaped('attributes without end')
";

const PORTS: &str = r"
server = socket.socket()
try: server.bind(('127.0.0.1', 8080))
except OSError: escaped('port')
else:
    server.listen()
    client = socket.create_connection(('127.0.0.1', 8080))
    # Who closes first keeps the pair in TIME_WAIT.
    accepted, _ = server.accept(); accepted.close(); client.recv(1); client.close()
with open('/proc/net/unix') as table:
    if 'left-behind' in table.read(): escaped('abstract name')
abstract = socket.socket(socket.AF_UNIX); abstract.bind('\0left-behind'); abstract.listen()
cannot('packet rules', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12))
cannot('old packet rules', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
";

const LOWERED: &str = r"
EXPECTED = {
    'open files': (resource.RLIMIT_NOFILE, (256, 256)),
    'file size': (resource.RLIMIT_FSIZE, (64 << 20, 64 << 20)),
    'core': (resource.RLIMIT_CORE, (1, 1)),
}
for name, (limit, expected) in EXPECTED.items():
    if resource.getrlimit(limit) != expected: escaped(name, resource.getrlimit(limit))
if os.nice(0) != 0: escaped('nice')
mask = os.umask(0)
if mask != 0o022: escaped('umask', mask)
if signal.pthread_sigmask(signal.SIG_BLOCK, []): escaped('signals are blocked')
if os.sched_getscheduler(0) != os.SCHED_OTHER: escaped('scheduling')
for name, (limit, (soft, hard)) in EXPECTED.items():
    try: resource.setrlimit(limit, (hard + 1, hard + 1))
    except (ValueError, OSError): pass
    else: escaped('raised', name)
    resource.setrlimit(limit, (min(soft, 64), min(hard, 64)))
os.umask(0o777); os.nice(19)
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
call(251, 1, 0, 3 << 13)
";

/// Jobs of one worker share its UTS namespace.
const HOST_NAME: &str = r"
if socket.gethostname() == 'left': escaped('host name')
if open('/proc/sys/kernel/domainname').read() == 'left\n': escaped('domain name')
refused('sets the host name', 170, b'left', 4)
refused('sets the domain name', 171, b'left', 4)
";

/// A user's descriptors in flight are bounded by the limit on open files, whichever process sent them.
const IN_FLIGHT: &str = r"
kept = []
for _ in range(20):
    here, there = socket.socketpair()
    here.setblocking(False)
    try: socket.send_fds(here, [b'x'], [here.fileno(), there.fileno()] * 5)
    except OSError as error: escaped('what the job before sent still counts', error)
    # Each end lies in the other: only the kernel's collector finds them.
    here.close(); there.close()
";

const PROCESSES: &str = r"
strangers = {int(name) for name in os.listdir('/proc') if name.isdigit()} - {1, os.getpid()}
if strangers: escaped('a stranger', *sorted(strangers))
ready, is_ready = os.pipe()
def linger(*ways):
    if os.fork(): return
    if os.fork(): os._exit(0)
    os.setsid()
    for way in ways: way()
    os.write(is_ready, b'.')
    while True: signal.pause()
deaf = lambda: [signal.signal(number, signal.SIG_IGN) for number in (1, 2, 3, 15, 13, 17)]
linger(deaf)
linger(lambda: call(157, 4, 0), lambda: call(157, 15, b'[kthreadd]'))
linger(lambda: [os.close(fd) for fd in (0, 1, 2)])
for _ in range(3): os.read(ready, 1)
# One that is stopped, and one whose child is born by vfork and does not go on.
stopped = os.fork()
if stopped == 0: os.kill(os.getpid(), signal.SIGSTOP)
os.waitpid(stopped, os.WUNTRACED)
";
