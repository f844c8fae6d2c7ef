//! What a job must not be able to do, tried from inside. Each program says `escaped` if it could.
//!
//! Most are Python with raw system calls: what is tried is in the program, and so is what would prove it.

use anyhow::ensure;
use wpool_protocol::wire::Ending;
use wpool_tests::rig::{Job, Rig};
use wpool_tests::test;
use wpool_tests::trial::Test;

pub(crate) const TESTS: &[Test] = &[
    test!(secrets_of_the_host_cannot_be_read, "python3"),
    test!(host_processes_cannot_be_seen, "python3"),
    test!(nothing_can_be_connected_to, "python3"),
    test!(sharp_system_calls_are_refused, "python3"),
    test!(capabilities_cannot_be_gained, "python3"),
    test!(nothing_can_be_written_outside_three_places, "python3"),
    test!(only_three_descriptors_are_inherited, "python3"),
    test!(the_binary_cannot_be_overwritten, "python3"),
    test!(a_terminal_cannot_be_typed_into, "python3"),
    test!(init_and_worker_cannot_be_disturbed, "python3"),
    test!(a_job_has_ids_that_are_not_root),
];

/// The prelude of the programs: `call` makes a raw system call and gives its result and errno.
const PRELUDE: &str = "import ctypes, os, sys, errno\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    def call(number, *args):\n\
    \x20 ctypes.set_errno(0)\n\
    \x20 return libc.syscall(number, *args), ctypes.get_errno()\n\
    def refused(name, number, *args):\n\
    \x20 result, error = call(number, *args)\n\
    \x20 print('escaped:' if result != -1 else 'refused:', name, errno.errorcode.get(error, error))\n";

/// Runs a program; it must end by itself and say nothing of an escape. Gives what it wrote.
fn contained(rig: &mut Rig, program: &str) -> anyhow::Result<String> {
    let ran = rig.run(&Job::python(&format!("{PRELUDE}{program}")))?;
    ensure!(ran.report.ending == Ending::Exited(0), "{ran:?}");
    ensure!(
        !ran.stdout.is_empty(),
        "the program has tried nothing: {ran:?}"
    );
    ensure!(!ran.stdout.contains("escaped"), "{ran:?}");
    Ok(ran.stdout)
}

fn secrets_of_the_host_cannot_be_read() -> anyhow::Result<()> {
    let program = "for path in ['/etc/shadow', '/etc/sudoers', '/etc/ssh', '/root', '/home', '/run/dbus', '/var/log', '/var/lib', '/sys', '/proc/kcore', '/proc/kmsg']:\n\
        \x20 try:\n\
        \x20   entries = os.listdir(path) if os.path.isdir(path) else [open(path, 'rb').read(1)]\n\
        \x20   print('escaped' if entries not in ([], [b'']) else 'empty', path)\n\
        \x20 except OSError as error: print('refused', path, error.errno)";
    contained(&mut Rig::new()?, program)?;
    Ok(())
}

fn host_processes_cannot_be_seen() -> anyhow::Result<()> {
    let program = "pids = sorted(int(p) for p in os.listdir('/proc') if p.isdigit())\n\
        print('seen', pids)\n\
        if pids != [1, 2]: print('escaped')\n\
        for pid in range(3, 500):\n\
        \x20 try: os.kill(pid, 0); print('escaped to', pid)\n\
        \x20 except ProcessLookupError: pass";
    contained(&mut Rig::new()?, program)?;
    Ok(())
}

fn nothing_can_be_connected_to() -> anyhow::Result<()> {
    // A server of the host's on loopback, and an abstract socket of the host's.
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = server.local_addr()?.port();
    let name = format!("wpool-test-{}", std::process::id());
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(
            &name,
        )?;
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address)?;
    let program = format!(
        "import socket\n\
        for family, address in [(socket.AF_INET, ('127.0.0.1', {port})), (socket.AF_INET, ('169.254.169.254', 80)), (socket.AF_INET, ('8.8.8.8', 53)), (socket.AF_INET6, ('fe80::1', 80)), (socket.AF_UNIX, '\\0{name}'), (socket.AF_UNIX, '/run/dbus/system_bus_socket')]:\n\
        \x20 try:\n\
        \x20   s = socket.socket(family); s.settimeout(2); s.connect(address); print('escaped', address)\n\
        \x20 except OSError as error: print('refused', address, error)\n\
        for family in [16, 17, 38, 40, 44]:\n\
        \x20 try: socket.socket(family, socket.SOCK_RAW); print('escaped', family)\n\
        \x20 except OSError as error: print('refused', family, error)\n\
        try: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print('escaped raw')\n\
        except OSError as error: print('refused raw', error)"
    );
    contained(&mut Rig::new()?, &program)?;
    Ok(())
}

fn sharp_system_calls_are_refused() -> anyhow::Result<()> {
    // Numbers of x86_64.
    let program = "refused('unshare user', 272, 0x10000000)\n\
        refused('unshare mount', 272, 0x20000)\n\
        refused('clone user', 56, 0x10000000 | 17, 0, 0, 0, 0)\n\
        refused('setns', 308, 0, 0)\n\
        refused('mount', 165, b'none', b'/tmp', b'tmpfs', 0, 0)\n\
        refused('umount', 166, b'/proc/sys', 2)\n\
        refused('pivot_root', 155, b'.', b'.')\n\
        refused('chroot', 161, b'/tmp')\n\
        refused('open_tree', 428, -100, b'/', 1)\n\
        refused('fsopen', 430, b'tmpfs', 0)\n\
        refused('mount_setattr', 442, -100, b'/', 0, 0, 0)\n\
        refused('ptrace', 101, 16, 1, 0, 0)\n\
        refused('process_vm_readv', 310, 1, 0, 0, 0, 0, 0)\n\
        refused('pidfd_getfd', 438, 0, 0, 0)\n\
        refused('kcmp', 312, 1, 2, 0, 0, 0)\n\
        refused('add_key', 248, b'user', b'x', b'y', 1, -3)\n\
        refused('keyctl', 250, 0, -3, 0, 0, 0)\n\
        refused('request_key', 249, b'user', b'x', 0, 0)\n\
        refused('bpf', 321, 0, 0, 0)\n\
        refused('perf_event_open', 298, 0, 0, -1, -1, 0)\n\
        refused('io_uring_setup', 425, 8, 0)\n\
        refused('userfaultfd', 323, 0)\n\
        refused('open_by_handle_at', 304, -100, 0, 0)\n\
        refused('kexec_load', 246, 0, 0, 0, 0)\n\
        refused('init_module', 175, 0, 0, b'')\n\
        refused('reboot', 169, 0xfee1dead, 672274793, 0, 0)\n\
        refused('swapon', 167, b'/tmp/x', 0)\n\
        refused('sethostname', 170, b'x', 1)\n\
        refused('settimeofday', 164, 0, 0)\n\
        refused('syslog', 103, 3, 0, 0)\n\
        refused('acct', 163, b'/tmp/x')\n\
        refused('quotactl', 179, 0, 0, 0, 0)\n\
        refused('prlimit of another', 302, 1, 7, b'\\0' * 16, 0)\n\
        refused('seccomp listener', 317, 1, 8, 0)\n\
        refused('personality', 135, 0x0040000)\n\
        refused('memfd_secret', 447, 0)\n\
        refused('fanotify_init', 300, 0, 0)\n\
        refused('mknod device', 133, b'/tmp/null', 0o20666, 0x103)\n\
        refused('iopl', 172, 3)\n\
        refused('modify_ldt', 154, 1, 0, 0)";
    let mut rig = Rig::new()?;
    let said = contained(&mut rig, program)?;
    ensure!(said.lines().count() == 40, "{said}");
    // A call of another architecture means another number: the process dies of it.
    let foreign = "import mmap\nm = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)\n\
        m.write(bytes.fromhex('b814000000cd80c3'))\n\
        f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n\
        print('escaped', f())";
    let ran = rig.run(&Job::python(&format!("{PRELUDE}{foreign}")))?;
    ensure!(
        matches!(ran.report.ending, Ending::Signaled(31 | 11)),
        "{ran:?}"
    );
    ensure!(!ran.stdout.contains("escaped"), "{ran:?}");
    Ok(())
}

fn capabilities_cannot_be_gained() -> anyhow::Result<()> {
    let program = "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n\
        for name in ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']:\n\
        \x20 print(name, 'none' if int(status[name], 16) == 0 else 'escaped')\n\
        print('no_new_privs', 'set' if status['NoNewPrivs'].strip() == '1' else 'escaped')\n\
        print('seccomp', 'filter' if status['Seccomp'].strip() == '2' else 'escaped')\n\
        refused('setuid 0', 105, 0)\n\
        import subprocess\n\
        suid = [p for p in ['/usr/bin/su', '/usr/bin/mount', '/usr/bin/passwd'] if os.path.exists(p)]\n\
        for path in suid:\n\
        \x20 out = subprocess.run(['sh', '-c', f'exec {path} --version; id -u'], capture_output=True, text=True).stdout\n\
        \x20 print('ran', path)\n\
        print(subprocess.run(['id', '-u'], capture_output=True, text=True).stdout)";
    contained(&mut Rig::new()?, program)?;
    Ok(())
}

fn nothing_can_be_written_outside_three_places() -> anyhow::Result<()> {
    let program = "tried = 0\n\
        for root, dirs, files in os.walk('/'):\n\
        \x20 if root in ('/proc', '/box', '/tmp') or root.startswith(('/dev/shm', '/dev/mqueue', '/dev/pts')) or root.count('/') > 3:\n\
        \x20   dirs.clear(); continue\n\
        \x20 tried += 1\n\
        \x20 try:\n\
        \x20   open(os.path.join(root, 'wpool-escape'), 'w'); print('escaped', root)\n\
        \x20 except OSError: pass\n\
        for path in ['/etc/passwd', '/usr/bin/env', '/proc/sys/kernel/hostname', '/proc/sys/kernel/shmmax', '/proc/sys/fs/mqueue/msg_max', '/proc/sysrq-trigger', '/proc/1/oom_score_adj', '/proc/1/mem']:\n\
        \x20 try: open(path, 'r+b').write(b'x'); print('escaped', path)\n\
        \x20 except OSError: pass\n\
        for path in ['/box/x', '/tmp/x', '/dev/shm/x']: open(path, 'w').write('x')\n\
        print('tried', tried, 'directories')\n\
        if tried < 20: print('escaped the test')";
    contained(&mut Rig::new()?, program)?;
    Ok(())
}

fn only_three_descriptors_are_inherited() -> anyhow::Result<()> {
    let program = "names = sorted(os.listdir('/proc/self/fd'), key=int)\n\
        # The last is the listing itself.\n\
        print(names)\n\
        if names[:3] != ['0', '1', '2'] or len(names) != 4: print('escaped')\n\
        for fd in '012':\n\
        \x20 target = os.readlink('/proc/self/fd/' + fd)\n\
        \x20 print(target if target.startswith('pipe:') else 'escaped ' + target)\n\
        try: os.open('/dev/tty', os.O_RDWR); print('escaped to a terminal')\n\
        except OSError as error: print(error)";
    contained(&mut Rig::new()?, program)?;
    Ok(())
}

fn the_binary_cannot_be_overwritten() -> anyhow::Result<()> {
    let program = "for path in ['/proc/1/exe', '/proc/1/root/usr/bin/env', '/proc/1/fd/3', '/proc/1/cwd/x', '/proc/1/map_files']:\n\
        \x20 for flags in [os.O_RDONLY, os.O_WRONLY, os.O_RDWR]:\n\
        \x20   try: os.open(path, flags); print('escaped', path)\n\
        \x20   except OSError as error: print('refused', path, error.errno)\n\
        try: os.readlink('/proc/1/exe'); print('escaped')\n\
        except OSError as error: print('refused', error.errno)";
    contained(&mut Rig::new()?, program)?;
    Ok(())
}

fn a_terminal_cannot_be_typed_into() -> anyhow::Result<()> {
    // On a terminal of the job's own, and with dirt in the upper half of the request, which the kernel ignores.
    let program = "import pty, fcntl\n\
        front, back = pty.openpty()\n\
        for request in [0x5412, 0x541c, 0x5412 | 1 << 32, 0x541c | 7 << 40]:\n\
        \x20 ctypes.set_errno(0)\n\
        \x20 result = libc.syscall(16, back, ctypes.c_ulong(request), ctypes.c_char_p(b'x'))\n\
        \x20 print('escaped' if result == 0 else 'refused', hex(request), ctypes.get_errno())";
    contained(&mut Rig::new()?, program)?;
    Ok(())
}

fn init_and_worker_cannot_be_disturbed() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let program = "import signal, resource\n\
        for number in list(range(1, 65)):\n\
        \x20 try: os.kill(1, number)\n\
        \x20 except (OSError, ValueError): pass\n\
        try: os.kill(0, 0); print('own group')\n\
        except OSError: pass\n\
        try: resource.prlimit(1, resource.RLIMIT_CPU, (0, 0)); print('escaped prlimit')\n\
        except (OSError, PermissionError) as error: print('refused prlimit', error.errno)\n\
        try: os.setpriority(os.PRIO_PROCESS, 1, 19); print('escaped nice')\n\
        except OSError as error: print('refused nice', error.errno)\n\
        try: os.sched_setaffinity(1, {0}); print('set affinity of 1:', os.sched_getaffinity(1))\n\
        except OSError as error: print('refused affinity', error.errno)\n\
        print('still here')";
    let said = contained(&mut rig, program)?;
    ensure!(said.contains("still here"), "{said}");
    let program = "signal = __import__('signal')\n\
        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
        os.setpriority(os.PRIO_PGRP, 0, 5)\nos.kill(0, signal.SIGTERM)\nprint('still here')";
    contained(&mut rig, program)?;
    let ran = rig.run(&Job::new(&["true"]))?;
    ensure!(
        ran.report.ending == Ending::Exited(0),
        "the next job: {ran:?}"
    );
    let nice = |process: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        anyhow::Ok(fields.split(' ').nth(16).unwrap_or_default().to_owned())
    };
    let (worker, ours) = (nice(&rig.pid.to_string())?, nice("self")?);
    ensure!(worker == ours, "the worker's nice value: {worker}");
    Ok(())
}

fn a_job_has_ids_that_are_not_root() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::new(&["sleep", "60"]);
    rig.start(&job)?;
    let processes = rig.processes()?;
    let pid = processes.last().copied().unwrap_or(0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in status
        .lines()
        .filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:"))
    {
        let ids: Vec<u32> = line
            .split_whitespace()
            .skip(1)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        ensure!(ids.iter().all(|id| *id != 0), "{line}");
        if nix::unistd::geteuid().is_root() {
            ensure!(
                ids.iter().all(|id| *id >= wpool::birth::ids::FIRST_ID),
                "{line}"
            );
        }
    }
    Ok(())
}
