//! Doors into the kernel that are shut: namespaces, other processes, other architectures, sockets, and calls that no ordinary
//! program makes. Numbers are those of `x86_64`.

use super::attack::{Attack, Shown};
use super::removal::Removal;

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "namespaces_cannot_be_made",
        program: NAMESPACES_MADE,
        shown: Shown::Without(
            Removal::FilterAndNamespaceLimit,
            &["unshare user", "clone user", "clone3 user", "unshare net"],
        ),
    },
    Attack {
        name: "namespaces_cannot_be_entered",
        program: NAMESPACES_ENTERED,
        shown: Shown::Without(Removal::Lockdown, &["net of itself", "uts of init"]),
    },
    Attack {
        name: "calls_that_reach_deep_into_the_kernel_are_not_answered",
        program: DEEP,
        shown: Shown::Without(
            Removal::Filter,
            &[
                "io_uring_setup",
                "io_uring_enter",
                "io_uring_register",
                "perf_event_open",
                "userfaultfd",
                "name_to_handle_at",
                "open_tree",
                "keyctl",
                "add_key",
                "io_setup",
            ],
        ),
    },
    Attack {
        name: "the_machine_is_not_administered",
        program: ADMINISTRATION,
        shown: Shown::Not(
            "these ask for capabilities over the machine itself, which no process in a user namespace has, with or without a layer",
        ),
    },
    Attack {
        name: "other_processes_are_not_looked_into",
        program: LOOKED_INTO,
        shown: Shown::Without(
            Removal::Filter,
            &[
                "ptrace",
                "process_vm_readv",
                "process_vm_writev",
                "pidfd_getfd",
                "kcmp",
                "pidfd of init",
            ],
        ),
    },
    Attack {
        name: "init_is_not_looked_into",
        program: INIT_LOOKED_INTO,
        shown: Shown::Without(
            Removal::Lockdown,
            &["memory by call", "descriptor", "limits", "ptrace"],
        ),
    },
    Attack {
        name: "calls_of_another_architecture_are_not_made",
        program: ARCHITECTURES,
        shown: Shown::Without(Removal::Filter, &["int 0x80", "i386 program"]),
    },
    Attack {
        name: "what_a_process_is_to_the_kernel_stays_ordinary",
        program: PERSONALITY,
        shown: Shown::Without(
            Removal::Filter,
            &["no randomisation", "executable data", "segments"],
        ),
    },
    Attack {
        name: "sockets_of_other_families_are_not_made",
        program: FAMILIES,
        shown: Shown::Without(Removal::Filter, &["netlink", "dirty netlink", "program"]),
    },
    Attack {
        name: "raw_packets_are_not_sent",
        program: RAW,
        shown: Shown::Without(Removal::Lockdown, &["raw icmp", "raw tcp"]),
    },
    Attack {
        name: "terminals_are_not_typed_into_nor_taken_away",
        program: TERMINALS,
        shown: Shown::Without(
            Removal::Filter,
            &["line discipline", "dirty line discipline", "typing"],
        ),
    },
    Attack {
        name: "calls_of_one_process_are_not_answered_by_another",
        program: LISTENERS,
        shown: Shown::Without(Removal::Filter, &["listener"]),
    },
    Attack {
        name: "options_that_reach_beyond_the_process_are_unknown",
        program: OPTIONS,
        shown: Shown::Without(Removal::Filter, &["dispatch", "machine checks"]),
    },
    Attack {
        name: "files_that_all_can_read_are_not_watched_nor_held",
        program: WATCHES,
        shown: Shown::Without(
            Removal::Filter,
            &["fanotify", "lease", "notify", "equal pages"],
        ),
    },
    Attack {
        name: "clocks_are_not_set",
        program: CLOCKS,
        shown: Shown::Without(Removal::Lockdown, &["time namespace"]),
    },
    Attack {
        name: "cores_and_priorities_are_not_chosen",
        program: CORES,
        shown: Shown::Without(Removal::Filter, &["affinity"]),
    },
    Attack {
        name: "no_group_is_shared_with_anybody",
        program: GROUPS,
        shown: Shown::Without(Removal::Session, &["session", "group"]),
    },
];

/// `clone3` takes its flags from memory.
const NAMESPACES_MADE: &str = r"
KINDS = {'user': 0x10000000, 'mount': 0x20000, 'pid': 0x20000000, 'net': 0x40000000, 'ipc': 0x8000000, 'uts': 0x4000000, 'cgroup': 0x2000000, 'time': 0x80}
def by_unshare(name, bits):
    if call(272, bits) == 0: escaped('unshare', name)
def by_clone(what, name, *arguments):
    made = call(*arguments)
    if made == 0: escaped(what, name); os._exit(0)
    if made > 0: os.waitpid(made, 0)
for name, bit in KINDS.items():
    for bits in {bit, bit | KINDS['user']}:
        child(lambda: by_unshare(name, bits))
        by_clone('clone3', name, 435, struct.pack('11Q', bits, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0), 88)
        # The bit of time namespaces is part of clone's signal.
        if name != 'time': by_clone('clone', name, 56, bits | 17, 0, 0, 0, 0)
";

const NAMESPACES_ENTERED: &str = r"
def enter(path, what):
    try: fd = os.open(path, os.O_RDONLY)
    except OSError: return
    if call(308, fd, 0) == 0: escaped(what)
for name in os.listdir('/proc/self/ns'):
    child(lambda: enter(f'/proc/self/ns/{name}', name + ' of itself'))
    child(lambda: enter(f'/proc/1/ns/{name}', name + ' of init'))
def enter_by_pid():
    pidfd = call(434, 1, 0)
    if call(308, pidfd, 0x40000000) == 0: escaped('net by pidfd')
child(enter_by_pid)
";

/// Arguments are such that the kernel, where it looks at them, answers something else than that it will not.
const DEEP: &str = r"
if setting('kernel/io_uring_disabled'): moot('io_uring_setup'); moot('io_uring_enter'); moot('io_uring_register')
nothing = ctypes.create_string_buffer(4096)
unanswered('io_uring_setup', 425, 8, nothing)
unanswered('io_uring_enter', 426, -1, 0, 0, 0, 0, 0)
unanswered('io_uring_register', 427, -1, 0, 0, 0)
unanswered('bpf', 321, 5, nothing, 64)
unanswered('perf_event_open', 298, 1, 0, -1, -1, 0)
unanswered('userfaultfd', 323, -1)
unanswered('name_to_handle_at', 303, -100, b'/usr', nothing, nothing, 0)
unanswered('open_by_handle_at', 304, -100, nothing, 0)
unanswered('open_tree', 428, -100, b'/usr', 0)
unanswered('open_tree_attr', 467, -100, b'/usr', 0, 0, 0)
unanswered('statmount', 457, nothing, nothing, 4096, 0)
unanswered('listmount', 458, nothing, nothing, 1, 0)
unanswered('keyctl', 250, -1)
unanswered('add_key', 248, 0, 0, 0, 0, 0)
unanswered('request_key', 249, 0, 0, 0, 0)
unanswered('io_setup', 206, 1, 0)
unanswered('io_submit', 209, 0, 1, 0)
unanswered('memfd_secret', 447, -1)
unanswered('remap_file_pages', 216, 0, 0, 0, 0, 0)
unanswered('lookup_dcookie', 212, 0, 0, 0)
unanswered('process_madvise', 440, -1, 0, 0, 0, 0)
unanswered('migrate_pages', 256, 0, 0, 0, 0)
unanswered('move_pages', 279, 0, 0, 0, 0, 0, 0)
unanswered('set_mempolicy', 238, -1, 0, 0)
unanswered('cachestat', 451, -1, 0, 0, 0)
unanswered('huge file in memory', 319, b'huge', 4)
if call(9, 0, 2 << 20, 3, 0x40022, -1, 0) != -1: escaped('huge pages')
";

const ADMINISTRATION: &str = r"
import time
nothing = ctypes.create_string_buffer(4096)
refused('init_module', 175, nothing, 4096, b'')
refused('finit_module', 313, 0, b'', 0)
refused('delete_module', 176, b'nothing', 0)
refused('kexec_load', 246, 0, 0, nothing, 0)
refused('kexec_file_load', 320, 0, 0, 0, b'', 0)
refused('reboot', 169, 0xfee1dead, 672274793, 0, 0)
refused('swapon', 167, b'/tmp/swap', 0)
refused('swapoff', 168, b'/tmp/swap')
refused('acct', 163, b'/tmp/account')
refused('quotactl', 179, 0x80000100, 0, 0, 0)
refused('quotactl_fd', 443, 0, 0x80000100, 0, 0)
refused('syslog', 103, 3, nothing, 4096)
refused('iopl', 172, 3)
refused('ioperm', 173, 0x70, 1, 1)
refused('vhangup', 153)
refused('open_by_handle_at', 304, -100, struct.pack('Ii8s', 8, 1, bytes(8)), 0)
refused('settimeofday', 164, struct.pack('qq', 0, 0), 0)
refused('clock_settime', 227, 0, struct.pack('qq', 0, 0))
";

const LOOKED_INTO: &str = r"
if setting('kernel/yama/ptrace_scope') > 1:
    for what in ['ptrace', 'process_vm_readv', 'process_vm_writev', 'pidfd_getfd']: moot(what)
secret = ctypes.create_string_buffer(b'secret', 16)
ready, is_ready = os.pipe()
other = os.fork()
if other == 0:
    os.write(is_ready, b'.')
    while True: signal.pause()
os.read(ready, 1)
here = ctypes.create_string_buffer(16)
def vector(buffer): return struct.pack('PN', ctypes.addressof(buffer), 16)
# Its memory has the same addresses: it was forked here.
refused('process_vm_readv', 310, other, vector(here), 1, vector(secret), 1, 0)
refused('process_vm_writev', 311, other, vector(here), 1, vector(secret), 1, 0)
pidfd = call(434, other, 0)
if pidfd < 0: raise OSError('a process of the same job can be named')
refused('pidfd_getfd', 438, pidfd, 0, 0)
refused('kcmp', 312, os.getpid(), other, 0, 0, 1)
refused('process_madvise', 440, pidfd, vector(secret), 1, 20, 0)
refused('pidfd of init', 434, 1, 0)
refused('ptrace', 101, 0x4206, other, 0, 0)
refused('attach', 101, 16, other, 0, 0)
os.kill(other, signal.SIGKILL)
";

const INIT_LOOKED_INTO: &str = r"
if setting('kernel/yama/ptrace_scope') > 2: moot('ptrace')
here = ctypes.create_string_buffer(16)
address = int(open('/proc/self/maps').readline().split('-')[0], 16)
try: address = int(open('/proc/1/maps').readline().split('-')[0], 16)
except (OSError, ValueError): pass
refused('memory by call', 310, 1, struct.pack('PN', ctypes.addressof(here), 16), 1, struct.pack('PN', address, 16), 1, 0)
pidfd = call(434, 1, 0)
if pidfd >= 0: escaped('pidfd')
refused('descriptor', 438, pidfd, 0, 0)
refused('limits', 302, 1, 7, struct.pack('QQ', 64, 64), 0)
for number in range(1, signal.NSIG):
    try: os.kill(1, number)
    except OSError: pass
def trace():
    refused('ptrace', 101, 0x4206, 1, 0, 0)
child(trace)
";

/// Machine code that asks by `int 0x80` for `getpid`, and one that is a whole program of 32 bits and exits with 42.
const ARCHITECTURES: &str = r"
def run(code):
    def body():
        page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
        page.write(bytes.fromhex(code))
        function = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        os._exit(42 if function() > 0 else 43)
    return child(body)
def judge(what, status):
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 42: escaped(what)
    # A kernel without such a gate answers with SIGSEGV; a filter with SIGSYS.
    elif os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV: moot(what)
judge('int 0x80', run('b81400000053cd805bc3'))
# getpid of x32, 0x40000027.
status = run('b8270000400f05c3')
if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 42: escaped('x32')
code = bytes.fromhex('b801000000bb2a000000cd80')
head = b'\x7fELF\1\1\1' + bytes(9) + struct.pack('<HHIIIIIHHHHHH', 2, 3, 1, 0x8048054, 52, 0, 0, 52, 32, 1, 0, 0, 0)
load = struct.pack('<8I', 1, 0, 0x8048000, 0x8048000, 84 + len(code), 84 + len(code), 5, 4096)
with open('/box/program', 'wb') as file: file.write(head + load + code)
os.chmod('/box/program', 0o755)
def execute():
    try: os.execv('/box/program', ['program'])
    except OSError: os._exit(43)
status = child(execute)
judge('i386 program', status)
if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 43: moot('i386 program')
";

const PERSONALITY: &str = r"
refused('no randomisation', 135, 0x0040000)
refused('executable data', 135, 0x0400000)
refused('a page at address 0', 135, 0x0100000)
refused('dirty', 135, 0x0040000 | 1 << 40)
entry = struct.pack('IIII', 0, 0, 0xfffff, 0x51)
unanswered('segments', 154, 0, ctypes.create_string_buffer(64), 64)
unanswered('a segment', 154, 1, entry, 16)
refused('cpuid faults', 158, 0x1012, 0)
refused('vdso of x32', 158, 0x2001, 0x10000000)
refused('vdso of 32 bits', 158, 0x2002, 0x20000000)
# The old page of calls may be called, as what it stands for may, but tells nothing of the kernel's memory.
def read_old_page(): os._exit(42 if ctypes.string_at(0xffffffffff600000, 8) else 43)
status = child(read_old_page)
if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 42: say('the kernel shows its old page to everybody')
";

const FAMILIES: &str = r"
FAMILIES = {'netlink': 16, 'packet': 17, 'alg': 38, 'vsock': 40, 'xdp': 44, 'tipc': 30, 'bluetooth': 31, 'can': 29, 'kcm': 41, 'rds': 21, 'qipcrtr': 42, 'smc': 43, 'key': 15, 'appletalk': 5, 'ax25': 3, 'rxrpc': 33, 'nfc': 39, 'phonet': 35}
for name, family in FAMILIES.items():
    for kind in range(1, 7):
        for protocol in [0, 4, 9, 12, 15]:
            refused(name, 41, family, kind | socket.SOCK_CLOEXEC, protocol)
            # The kernel throws the upper half away.
            refused('dirty ' + name, 41, family | 1 << 32, kind | 1 << 40, protocol | 1 << 50)
        refused('pair of ' + name, 53, family, kind, 0, ctypes.create_string_buffer(8))
for protocol in [132, 33, 136, 262, 2, 103]:
    for kind in [1, 2, 5, 6]: refused(f'protocol {protocol}', 41, 2, kind, protocol)
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0xffff))
fprog = struct.pack('HxxxxxxP', 1, ctypes.addressof(code))
for option in [26, 50, 51, 52]:
    if call(54, one.fileno(), 1, option, fprog, 16) == 0: escaped('program', option)
    if call(54, one.fileno(), 1 | 1 << 32, option | 1 << 33, fprog, 16) == 0: escaped('program', option)
";

const RAW: &str = r"
for family, protocol, name in [(2, 1, 'raw icmp'), (2, 6, 'raw tcp'), (2, 255, 'raw ip'), (10, 58, 'raw icmp6')]:
    refused(name, 41, family, 3, protocol)
refused('packet', 41, 17, 3, 0x300)
refused('old packet', 41, 2, 10, 0x300)
cannot('low port', lambda: socket.socket().bind(('127.0.0.1', 80)))
";

/// On a terminal of the job's own, and with dirt in the upper half of the request, which the kernel ignores.
const TERMINALS: &str = r"
import pty
cannot('a terminal of before', lambda: os.open('/dev/tty', os.O_RDWR))
front, back = pty.openpty()
# It is the terminal of this session, which may be typed into where the kernel still lets anybody do so.
fcntl.ioctl(back, 0x540e, 0)
if os.path.exists('/proc/sys/dev/tty/legacy_tiocsti') and not setting('dev/tty/legacy_tiocsti'): moot('typing')
zero = struct.pack('i', 0)
for dirt, name in [(0, ''), (1 << 32, 'dirty '), (7 << 40, 'dirty ')]:
    refused(name + 'typing', 16, back, 0x5412 | dirt, b'x')
    refused(name + 'console', 16, back, 0x541c | dirt, b'\3')
    refused(name + 'redirection', 16, back, 0x541d | dirt, 0)
    refused(name + 'line discipline', 16, back, 0x5423 | dirt, zero)
def steal():
    os.setsid()
    refused('another session', 16, back, 0x540e, 1)
for fd in range(3):
    if os.isatty(fd): escaped('a terminal of the host')
# Now there is one, and it is the job's own, by this name too.
own = os.open('/dev/tty', os.O_RDWR)
if os.ttyname(own) not in ['/dev/tty', os.ttyname(back)]: escaped('another terminal', os.ttyname(own))
refused('typing by another name', 16, own, 0x5412, b'x')
for path in ['/dev/console', '/dev/tty0', '/dev/tty1', '/dev/ttyS0']:
    cannot(path, lambda: os.open(path, os.O_RDWR))
# Another session of the job cannot take it away.
child(steal)
";

const LISTENERS: &str = r"
allow = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
program = struct.pack('HxxxxxxP', 1, ctypes.addressof(allow))
def listen(flags, name):
    if call(317, 1, flags, program) > 0: escaped(name)
child(lambda: listen(8, 'listener'))
child(lambda: listen(8 | 1 << 32, 'listener'))
child(lambda: listen(8 | 16, 'listener with all threads'))
child(lambda: listen(8 | 32, 'listener that cannot be interrupted'))
# One that only refuses more is anybody's right; it must not replace the one that is there.
def add():
    if call(317, 1, 0, program) != 0: raise OSError('a further filter is refused')
    refused('io_uring_enter', 426, -1, 0, 0, 0, 0, 0)
    refused('unshare', 272, 0x10000000)
if child(add) != 0: escaped('a further filter')
";

const OPTIONS: &str = r"
refused('machine checks', 157, 33, 1, 1, 0, 0)
refused('dispatch', 157, 59, 0, 0, 0, 0)
refused('cores for itself', 157, 62, 1, 0, 0, 0)
refused('memory map', 157, 35, 1, 0, 0, 0)
refused('writing out', 157, 57, 1, 0, 0, 0)
refused('ambient', 157, 47, 2, 21, 0, 0)
refused('new privileges', 157, 38, 0, 0, 0, 0)
refused('secure bits', 157, 28, 0x2f, 0, 0, 0)
refused('an option of tomorrow', 157, 0x7fff, 0, 0, 0, 0)
# These are harmless, and what they change must not hinder the end of the job nor the next one.
for option, value in [(4, 0), (0x59616d61, -1), (36, 1), (1, 9), (29, 1 << 40), (26, 1), (65, 0)]:
    call(157, option, value, 0, 0, 0)
if child(lambda: None) != 0: raise OSError('it cannot fork any more')
";

const WATCHES: &str = r"
refused('fanotify', 300, 0x200, 0)
refused('fanotify', 300, 0, 0)
own = os.open('/box/own', os.O_CREAT | os.O_RDWR)
os.write(own, bytes(1 << 16)); os.close(own)
own = os.open('/box/own', os.O_RDONLY)
shared = os.open(sys.executable, os.O_RDONLY)
folder = os.open('/usr', os.O_RDONLY)
refused('lease', 72, own, 1024, 0)
refused('delegation', 72, own, 1040, struct.pack('IHH', 0, 0, 0))
refused('notify', 72, folder, 1026, 1)
refused('cached pages', 451, own, struct.pack('QQ', 0, 4096), ctypes.create_string_buffer(40), 0)
page = mmap.mmap(-1, 1 << 16, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
refused('equal pages', 28, ctypes.addressof(ctypes.c_char.from_buffer(page)), 1 << 16, 12)
# Which pages of somebody else's file lie in memory the kernel tells nobody: it says of all that they do.
address = call(9, 0, 1 << 20, 1, 2, shared, 0)
told = ctypes.create_string_buffer(256)
if call(27, address, 1 << 20, told) == 0 and any(byte & 1 == 0 for byte in told.raw[:256]): escaped('resident pages')
cannot('the lock of a file that is not there to write', lambda: fcntl.lockf(shared, fcntl.LOCK_EX | fcntl.LOCK_NB))
";

const CLOCKS: &str = r"
refused('real time', 227, 0, struct.pack('qq', 0, 0))
refused('time of day', 164, struct.pack('qq', 0, 0), 0)
refused('time zone', 164, 0, struct.pack('ii', 60, 0))
timex = ctypes.create_string_buffer(struct.pack('I', 0x8001), 208)
refused('adjustment', 159, timex)
refused('adjustment of a clock', 305, 0, timex)
def unshare():
    refused('time namespace', 272, 0x80)
child(unshare)
cannot('offsets', lambda: os.write(os.open('/proc/self/timens_offsets', os.O_WRONLY), b'monotonic 1000 0'))
";

const CORES: &str = r"
before = os.sched_getaffinity(0)
if len(before) < 2: moot('affinity')
os.sched_setaffinity(0, {min(before)})
if os.sched_getaffinity(0) != before: escaped('affinity')
def sched(policy, priority): os.sched_setscheduler(0, policy, os.sched_param(priority))
cannot('first in, first out', lambda: sched(os.SCHED_FIFO, 1))
cannot('round robin', lambda: sched(os.SCHED_RR, 1))
deadline = struct.pack('IIQiIQQQ', 48, 6, 0, 0, 0, 1_000_000, 2_000_000, 2_000_000)
refused('deadline', 314, 0, deadline, 0)
cannot('priority', lambda: os.nice(-1))
refused('priority of the disk', 251, 1, 0, 1 << 13)
cannot('processes of init', lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))
";

/// `kill(0)` and `setpriority` of a group reach whoever is in it, outside of the pid namespace, too.
const GROUPS: &str = r"
if os.getsid(0) != os.getpid(): escaped('session', os.getsid(0))
if os.getpgrp() != os.getpid(): escaped('group', os.getpgrp())
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(0, signal.SIGTERM)
os.setpriority(os.PRIO_PGRP, 0, 5)
cannot('the session of init', lambda: os.setpgid(0, 1))
";
