//! What is seen of init, of the kernel, and of the host through /proc, /dev and descriptors, and what could be written there.

use super::attack::{Attack, Shown};
use super::removal::Removal;

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "init_shows_nothing_of_itself",
        program: INIT,
        shown: Shown::Without(
            Removal::Lockdown,
            &["root", "cwd", "exe", "maps", "files by its root"],
        ),
    },
    Attack {
        name: "the_binary_that_runs_jobs_is_not_overwritten",
        program: BINARY,
        shown: Shown::Not(
            "it is a sealed file in memory, which nobody can write, not even a job with every capability; what lets a job name it at all is tried beside this",
        ),
    },
    Attack {
        name: "processes_outside_of_the_job_are_not_seen",
        program: STRANGERS,
        shown: Shown::Without(Removal::Pid, &["command line", "signal"]),
    },
    Attack {
        name: "settings_of_the_kernel_are_not_changed",
        program: SETTINGS,
        shown: Shown::Without(
            Removal::LockdownAndReadOnly,
            &["user/max_user_namespaces", "net/ipv4/ip_forward"],
        ),
    },
    Attack {
        name: "what_the_kernel_tells_of_the_machine_is_masked",
        program: MASKED,
        shown: Shown::Without(Removal::Masks, &["/proc/kallsyms", "/proc/locks"]),
    },
    Attack {
        name: "nothing_of_the_host_is_there_but_what_programs_need",
        program: HOST,
        shown: Shown::Without(Removal::SmallRoot, &["/sys", "/run", "/dev"]),
    },
    Attack {
        name: "devices_are_not_made",
        program: DEVICES,
        shown: Shown::Not(
            "the kernel lets nobody in a user namespace make a device, with or without a layer of ours",
        ),
    },
    Attack {
        name: "only_three_descriptors_are_open",
        program: DESCRIPTORS,
        shown: Shown::Not(
            "every descriptor of a worker is closed at exec from its birth on, so that none is left when the step that closes them again is taken away",
        ),
    },
    Attack {
        name: "a_job_begins_in_its_box_and_nothing_is_above_the_root",
        program: DIRECTORIES,
        shown: Shown::Without(Removal::Directory, &["working directory"]),
    },
    Attack {
        name: "pages_of_shared_files_are_written_for_oneself_alone",
        program: PAGES,
        shown: Shown::Not(
            "that a private page is copied before it is written is the kernel's own promise, and no layer stands behind it",
        ),
    },
    Attack {
        name: "mounts_stay_as_they_are",
        program: MOUNTS,
        shown: Shown::Without(
            Removal::Lockdown,
            &[
                "cover",
                "remount",
                "unmask",
                "move",
                "chroot",
                "copy",
                "attributes",
                "new file system",
            ],
        ),
    },
    Attack {
        name: "cgroups_are_not_seen_nor_entered",
        program: CGROUPS,
        shown: Shown::Without(Removal::Lockdown, &["cgroup2 is mounted"]),
    },
    Attack {
        name: "exec_gives_no_rights",
        program: RIGHTS,
        shown: Shown::Without(
            Removal::Lockdown,
            &["capabilities", "bounding set", "filter"],
        ),
    },
    Attack {
        name: "ids_are_not_changed",
        program: IDS,
        shown: Shown::Without(Removal::Lockdown, &["capset"]),
    },
    Attack {
        name: "nothing_outside_is_reached_by_a_network",
        program: NETWORK,
        shown: Shown::Not(
            "a worker is born into a network of its own, too, so that taking away the job's leads only there; the host's own listeners are tried elsewhere",
        ),
    },
];

const INIT: &str = r"
for name in ['root', 'cwd', 'exe']:
    cannot(name, lambda: os.readlink(f'/proc/1/{name}'))
    cannot(name + ' opened', lambda: os.open(f'/proc/1/{name}', os.O_RDONLY))
for name in ['environ', 'maps', 'mem', 'auxv', 'smaps', 'pagemap', 'io', 'stack', 'syscall', 'personality', 'timers']:
    cannot(name, lambda: os.read(os.open(f'/proc/1/{name}', os.O_RDONLY), 0))
for name in ['mem', 'oom_score_adj', 'clear_refs', 'coredump_filter', 'uid_map', 'setgroups', 'comm', 'sched', 'autogroup', 'projid_map', 'make-it-fail']:
    cannot('written ' + name, lambda: os.open(f'/proc/1/{name}', os.O_WRONLY))
cannot('timer slack', lambda: os.write(os.open('/proc/1/timerslack_ns', os.O_WRONLY), b'1000000'))
cannot('written attr', lambda: os.write(os.open('/proc/1/attr/current', os.O_WRONLY), b'x'))
for name in ['fd', 'fdinfo', 'map_files']:
    cannot(name, lambda: os.listdir(f'/proc/1/{name}'))
# The pipes to the supervisor and their like.
for fd in range(256):
    cannot(f'fd {fd}', lambda: os.open(f'/proc/1/fd/{fd}', os.O_WRONLY | os.O_NONBLOCK))
cannot('files by its root', lambda: os.listdir('/proc/1/root/'))
cannot('files by its thread', lambda: os.listdir('/proc/1/task/1/root/'))
";

const BINARY: &str = r"
WAYS = [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND]
for path in ['/proc/1/exe', '/proc/self/exe', '/proc/1/task/1/exe', sys.executable]:
    for flags in WAYS: cannot(path, lambda: os.open(path, flags))
    cannot(path + ' cut', lambda: os.truncate(path, 0))
    cannot(path + ' mode', lambda: os.chmod(path, 0o777))
    cannot(path + ' gone', lambda: os.unlink(path))
# A descriptor that only names the file, opened anew for writing.
named = os.open('/proc/self/exe', os.O_PATH)
cannot('by its descriptor', lambda: os.open(f'/proc/self/fd/{named}', os.O_RDWR))
cannot('mapped for writing', lambda: mmap.mmap(os.open(sys.executable, os.O_RDONLY), 4096, flags=mmap.MAP_SHARED, prot=3))
";

/// Numbers of processes are small in a namespace of one's own.
const STRANGERS: &str = r"
own = {1, os.getpid()}
for pid in range(2, 5000):
    if pid in own: continue
    try: os.kill(pid, 0); escaped('signal', pid)
    except ProcessLookupError: pass
    except PermissionError: escaped('signal', pid)
for name in os.listdir('/proc'):
    if not name.isdigit() or int(name) in own: continue
    escaped('command line', name, open(f'/proc/{name}/cmdline').read())
if os.getppid() not in (0, 1): escaped('parent', os.getppid())
init = open('/proc/1/cmdline', 'rb').read()
if b'python' in init or b'=' not in init: escaped('the command line of init', init)
";

const SETTINGS: &str = r"
for name in ['user/max_user_namespaces', 'user/max_net_namespaces', 'net/ipv4/ip_forward', 'net/ipv4/tcp_rmem', 'kernel/hostname',
    'kernel/shmmax', 'kernel/msgmax', 'kernel/sem', 'kernel/core_pattern', 'kernel/modprobe', 'kernel/ns_last_pid', 'kernel/sysrq',
    'kernel/randomize_va_space', 'fs/mqueue/msg_max', 'fs/suid_dumpable', 'vm/overcommit_memory', 'vm/drop_caches', 'kernel/keys/maxkeys']:
    cannot(name, lambda: os.open('/proc/sys/' + name, os.O_WRONLY))
for name in ['sysrq-trigger', 'kcore', 'acpi/wakeup', 'irq/default_smp_affinity', 'sys', 'mtrr', 'timer_list']:
    # What is masked can be written, and that goes nowhere.
    try: written = os.open('/proc/' + name, os.O_WRONLY)
    except OSError: continue
    if os.fstat(written).st_rdev != os.makedev(1, 3): escaped(name)
for name in ['uid_map', 'gid_map', 'setgroups', 'attr/current', 'attr/exec', 'attr/fscreate', 'loginuid']:
    cannot('self/' + name, lambda: os.write(os.open('/proc/self/' + name, os.O_WRONLY), b'0 0 1'))
# Back to where it was is its right; below the start of everybody is not.
cannot('oom_score_adj', lambda: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1'))
";

const MASKED: &str = r"
own = open('/box/own', 'w'); fcntl.flock(own, fcntl.LOCK_EX)
NAMES = ['kallsyms', 'kcore', 'key-users', 'keys', 'kmsg', 'latency_stats', 'locks', 'modules', 'sched_debug', 'sysrq-trigger', 'timer_list', 'timer_stats']
for name in NAMES:
    try: told = os.read(os.open(f'/proc/{name}', os.O_RDONLY | os.O_NONBLOCK), 16)
    except OSError: continue
    if told: escaped(f'/proc/{name}', told)
# Paths of mounts tell where the root of the host is; what lies there must be no more than what is shown here.
for line in open('/proc/self/mountinfo'):
    source, point = line.split()[3:5]
    if ' - tmpfs ' in line: continue
    if source.startswith(('/home', '/root', '/tmp', '/var/lib', '/run')): escaped('a path of the host', source, point)
# Cgroups are named from where the slot begins.
for line in open('/proc/self/cgroup'):
    path = line.rstrip().split(':', 2)[2]
    if line.startswith('0:') and ('slice' in path or '..' in path): escaped('the cgroup of the host', path)
";

const HOST: &str = r"
EXPECTED = {'fd', 'full', 'mqueue', 'null', 'ptmx', 'pts', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'tty', 'urandom', 'zero'}
more = set(os.listdir('/dev')) - EXPECTED
if more: escaped('/dev', *sorted(more))
if os.path.exists('/sys/kernel') or os.path.exists('/sys/fs'): escaped('/sys')
for path in ['/run', '/root', '/home', '/srv', '/opt', '/boot', '/media', '/mnt', '/var/lib', '/var/log', '/var/run', '/lost+found']:
    try: found = os.listdir(path)
    except OSError: continue
    if found: escaped(path, *found[:3])
for path in ['/etc/shadow', '/etc/gshadow', '/etc/sudoers', '/etc/ssh', '/etc/machine-id', '/etc/fstab', '/etc/resolv.conf', '/etc/environment',
    '/etc/crontab', '/etc/systemd', '/etc/wpool', '/run/docker.sock', '/var/run/docker.sock', '/run/dbus/system_bus_socket', '/run/systemd/private', '/.dockerenv']:
    if os.path.lexists(path): escaped(path)
users = [line.split(':')[0] for line in open('/etc/passwd')]
if users != ['root', 'job', 'nobody']: escaped('/etc/passwd', users)
for name in os.listdir('/dev/pts'):
    if name != 'ptmx': escaped('/dev/pts', name)
";

const DEVICES: &str = r"
for place in ['/box', '/tmp', '/dev/shm']:
    for kind, major, minor in [(0o020000, 1, 1), (0o020000, 1, 3), (0o020000, 5, 0), (0o020000, 10, 229), (0o020000, 10, 232), (0o060000, 7, 0), (0o060000, 8, 0), (0o060000, 254, 0)]:
        cannot(f'{major}:{minor}', lambda: os.mknod(f'{place}/device', kind | 0o666, os.makedev(major, minor)))
        refused(f'{major}:{minor} by at', 259, -100, f'{place}/device'.encode(), kind | 0o666, os.makedev(major, minor))
cannot('in /dev', lambda: os.open('/dev/made', os.O_CREAT | os.O_WRONLY))
cannot('another null', lambda: os.unlink('/dev/null'))
cannot('the mode of null', lambda: os.chmod('/dev/null', 0o600))
cannot('the owner of null', lambda: os.chown('/dev/null', os.getuid(), os.getgid()))
os.write(os.open('/dev/null', os.O_WRONLY), b'harmless')
";

const DESCRIPTORS: &str = r"
for fd in range(3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
    try: os.fstat(fd)
    except OSError: continue
    escaped('descriptor', fd, os.readlink(f'/proc/self/fd/{fd}'))
import stat
for fd in range(3):
    if not stat.S_ISFIFO(os.fstat(fd).st_mode): escaped('no pipe', fd)
    # Whose other end is the worker's: opened anew for the other direction it still ends there.
    for flags in [os.O_RDONLY, os.O_WRONLY]:
        try: again = os.open(f'/proc/self/fd/{fd}', flags | os.O_NONBLOCK)
        except OSError: continue
        if os.fstat(again).st_ino != os.fstat(fd).st_ino: escaped('another pipe', fd)
        os.close(again)
    # No socket: nothing can be sent that the worker would have to take.
    cannot('descriptors to the worker', lambda: socket.send_fds(socket.socket(fileno=os.dup(fd)), [b'x'], [0]))
if os.environ.keys() & {'LISTEN_FDS', 'NOTIFY_SOCKET', 'WPOOL_SOCKET', 'WATCHDOG_PID', 'INVOCATION_ID', 'USER_SECRET', 'SSH_AUTH_SOCK'}: escaped('environment')
";

const DIRECTORIES: &str = r"
if os.getcwd() != '/box': escaped('working directory', os.getcwd())
root = os.stat('/')
def is_root(path):
    try: found = os.stat(path)
    except OSError: return True
    return (found.st_dev, found.st_ino) == (root.st_dev, root.st_ino)
for path in ['/..', '/../../..', '/proc/self/root', '/proc/self/root/..', '/proc/self/task/self/root/..', '/box/../..', '/proc/self/cwd/../..', '/dev/fd/../root/..']:
    if not is_root(path): escaped(path)
top = os.open('/', os.O_RDONLY)
os.mkdir('/box/deep')
deep = os.open('/box/deep', os.O_RDONLY)
for start in [top, deep]:
    up = os.open('../../../..', os.O_RDONLY, dir_fd=start)
    found = os.fstat(up)
    if (found.st_dev, found.st_ino) != (root.st_dev, root.st_ino): escaped('above the root')
os.fchdir(deep); os.rmdir('/box/deep')
for _ in range(8):
    try: os.chdir('..')
    except OSError: break
if os.path.exists('etc/shadow'): escaped('out of a directory that is gone')
if not is_root('/'): escaped('root')
";

const PAGES: &str = r"
path = sys.executable
with open(path, 'rb') as file: before = file.read(4096)
fd = os.open(path, os.O_RDONLY)
for flags in [mmap.MAP_PRIVATE, mmap.MAP_SHARED]:
    page = mmap.mmap(fd, 4096, flags=flags, prot=mmap.PROT_READ)
    # A page that may only be read can be written like this, as a debugger does; it becomes one's own, or it cannot.
    address = 0
    for line in open('/proc/self/maps'):
        span, mode, offset, _, inode, *_ = line.split()
        is_ours = int(inode) == os.fstat(fd).st_ino and int(offset, 16) == 0
        if is_ours and mode == ('r--p' if flags == mmap.MAP_PRIVATE else 'r--s'): address = int(span.split('-')[0], 16)
    if address == 0: raise OSError('it is not mapped')
    memory = os.open('/proc/self/mem', os.O_RDWR)
    try: os.pwrite(memory, b'planted', address)
    except OSError: pass
    # madvise(MADV_DONTNEED) throws one's own page away: then the file's is there again.
    call(28, address, 4096, 4)
with open(path, 'rb') as file:
    if file.read(4096) != before: escaped('a shared file')
again = mmap.mmap(fd, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
if again[:4096] != before: escaped('a shared page')
";

const MOUNTS: &str = r"
def mount(what, source, target, kind, flags):
    if call(165, source, target, kind, flags, 0) == 0: escaped(what)
masks = [line.split()[4] for line in open('/proc/self/mountinfo') if line.split()[4].startswith('/proc/')]
masks = [path for path in masks if path != '/proc/sys']
if not masks: raise OSError('nothing is masked')
def body():
    refused('unmask', 166, masks[0].encode(), 2)
    refused('unmask settings', 166, b'/proc/sys', 2)
    mount('remount', b'none', b'/usr', 0, 0x1020)
    mount('remount settings', b'none', b'/proc/sys', 0, 0x1020)
    mount('cover', b'none', b'/tmp', b'tmpfs', 0)
    mount('move', b'/dev/shm', b'/mnt', 0, 0x2000)
    mount('bind', b'/usr', b'/mnt', 0, 0x1000)
    mount('another proc', b'proc', b'/mnt', b'proc', 0)
    mount('pass on', b'none', b'/', 0, 0x104000)
    refused('attributes', 442, -100, b'/usr', 0, struct.pack('QQQQ', 0, 1, 0, 0), 32)
    copied = call(428, -100, b'/usr', 0x8001)
    if copied != -1: escaped('copy'); refused('moved copy', 429, copied, b'', -100, b'/mnt', 4)
    if call(430, b'tmpfs', 0) != -1: escaped('new file system')
    refused('open file system', 433, -100, b'/tmp', 0)
    refused('chroot', 161, b'/tmp')
    refused('pivot_root', 155, b'.', b'.')
    for path in [b'/', b'/usr', b'/proc', b'/box']: refused('umount ' + path.decode(), 166, path, 2)
child(body)
cannot('busy', lambda: os.rmdir('/tmp'))
cannot('renamed', lambda: os.rename('/tmp', '/box/tmp'))
";

const CGROUPS: &str = r"
for path in ['/sys/fs/cgroup', '/proc/self/root/sys/fs/cgroup', '/cgroup', '/dev/cgroup']:
    if os.path.exists(path): escaped(path)
def body():
    for kind, options in [(b'cgroup2', 0), (b'cgroup', b'memory'), (b'cgroup', b'none,name=made')]:
        if call(165, b'none', b'/mnt', kind, 0, options) != 0: continue
        escaped(kind.decode(), 'is mounted')
        for name in os.listdir('/mnt'):
            try: os.open(f'/mnt/{name}', os.O_WRONLY)
            except OSError: continue
            say('and can be written:', name)
    refused('opened', 430, b'cgroup2', 0)
    refused('namespace', 272, 0x2000000)
child(body)
for name in ['cgroup', 'cpuset', 'cpu_resctrl_groups']:
    cannot(name, lambda: os.write(os.open(f'/proc/self/{name}', os.O_WRONLY), b'0'))
";

const RIGHTS: &str = r"
import subprocess
def status(*command):
    text = open('/proc/self/status').read() if not command else subprocess.run(command, capture_output=True, text=True).stdout
    return dict(line.split(':', 1) for line in text.splitlines() if ':' in line)
def judge(told):
    if told['NoNewPrivs'].strip() != '1': escaped('new privileges')
    if told['Seccomp'].strip() != '2': escaped('filter')
    if int(told['CapBnd'], 16): escaped('bounding set')
    for name in ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']:
        if int(told[name], 16): escaped('capabilities', name)
    if len(set(told['Uid'].split())) != 1 or len(set(told['Gid'].split())) != 1: escaped('ids', told['Uid'], told['Gid'])
    if told['Uid'].split()[0] == '0': escaped('root')
judge(status())
judge(status('cat', '/proc/self/status'))
# Programs that give rights by their mode, and one of the job's own making; none may end up as somebody else.
with open('/box/own', 'wb') as own, open('/bin/cat', 'rb') as cat: own.write(cat.read())
os.chmod('/box/own', 0o6755)
judge(status('/box/own', '/proc/self/status'))
found = 0
for name in os.listdir('/usr/bin'):
    try: mode = os.stat(f'/usr/bin/{name}').st_mode
    except OSError: continue
    if mode & 0o6000:
        found += 1
        if not os.statvfs(f'/usr/bin/{name}').f_flag & 2: escaped('a mount with such bits', name)
if os.path.exists('/usr/bin/su'):
    said = subprocess.run(['/usr/bin/su', '-c', 'id -u'], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    if said.strip() == '0': escaped('su')
";

const IDS: &str = r"
for name, number, *arguments in [('setuid', 105, 0), ('setgid', 106, 0), ('setreuid', 113, 0, 0), ('setregid', 114, 0, 0), ('setresuid', 117, 0, 0, 0),
    ('setresgid', 119, 0, 0, 0), ('setgroups', 116, 1, struct.pack('I', 0))]:
    if child(lambda: os._exit(7 if call(number, *arguments) == 0 and (os.getuid() != 1000 or os.getgid() != 1000 or name == 'setgroups') else 0)): escaped(name)
head = struct.pack('II', 0x20080522, 0)
def raise_capability():
    refused('capset', 126, head, struct.pack('IIIIII', 1 << 21, 1 << 21, 1 << 21, 0, 0, 0))
    if call(157, 47, 2, 7, 0, 0) == 0: escaped('capability by exec')
child(raise_capability)
cannot('a map of ids', lambda: os.write(os.open('/proc/self/uid_map', os.O_WRONLY), b'0 0 1'))
for path in ['/usr', '/etc/passwd', '/dev/null', '/']:
    cannot('owner of ' + path, lambda: os.chown(path, os.getuid(), os.getgid()))
if os.getgroups() and os.getgroups() != [1000] and 65534 not in os.getgroups(): escaped('groups', os.getgroups())
";

const NETWORK: &str = r"
names = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]
if set(names) - {'lo', 'sit0', 'tunl0', 'ip6tnl0', 'gre0', 'gretap0', 'erspan0', 'ip_vti0', 'ip6_vti0', 'ip6gre0', 'teql0'}: escaped('a device', *names)
routes = open('/proc/net/route').readlines()[1:]
if routes: escaped('a route', *routes)
for address in ['8.8.8.8', '169.254.169.254', '10.0.0.1', '192.168.0.1', '172.17.0.1', '224.0.0.1', '255.255.255.255', '0.0.0.1']:
    for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM]:
        for port in [53, 80, 443]:
            one = socket.socket(socket.AF_INET, kind); one.settimeout(5)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            cannot(f'{address}:{port}', lambda: (one.connect((address, port)), one.send(b'x')))
            one.close()
for address in ['2001:4860:4860::8888', 'fe80::1', 'fe80::1%lo', 'ff02::1', '::ffff:8.8.8.8', 'fd00:ec2::254']:
    for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM]:
        one = socket.socket(socket.AF_INET6, kind); one.settimeout(5)
        cannot(address, lambda: (one.connect((address, 80)), one.send(b'x')))
        one.close()
cannot('a name', lambda: socket.getaddrinfo('example.org', 80))
cannot('ping', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP))
# Its own loopback is there.
server = socket.create_server(('127.0.0.1', 0)); socket.create_connection(server.getsockname()).close()
";
