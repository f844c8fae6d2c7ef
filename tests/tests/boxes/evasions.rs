//! Limits hold however a job tries to get around them, and what a job says of its end is not believed.

use anyhow::ensure;
use wpool_protocol::limits::LimitName;
use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_protocol::wire::{Ending, InGrace, ToWorker, Written};
use wpool_tests::rig::{Job, Rig};
use wpool_tests::test;
use wpool_tests::trial::Test;

pub(crate) const TESTS: &[Test] = &[
    test!(memory_that_belongs_to_no_process_cannot_be_made, "python3"),
    test!(a_job_stays_on_its_cores, "python3"),
    test!(nobody_is_kept_from_a_shared_file_by_a_lease, "python3"),
    test!(memory_is_limited_in_the_time_of_grace, "python3"),
    test!(a_busy_job_has_its_time_of_grace, "python3"),
    test!(a_job_can_be_stopped_in_its_time_of_grace),
    test!(a_signal_that_a_job_sends_itself_is_no_limit),
    test!(memory_in_sockets_counts, "python3"),
    test!(many_idle_sockets_are_no_memory, "python3"),
    test!(what_all_users_share_is_not_used_up, "python3"),
];

/// Runs a program that says `refused` for everything it tries.
fn refused(program: &str) -> anyhow::Result<()> {
    let ran = Rig::new()?.run(&Job::python(program))?;
    ensure!(ran.report.ending == Ending::Exited(0), "{ran:?}");
    ensure!(!ran.stdout.is_empty(), "it has tried nothing: {ran:?}");
    ensure!(
        ran.stdout.lines().all(|line| line.starts_with("refused")),
        "{ran:?}"
    );
    Ok(())
}

fn memory_that_belongs_to_no_process_cannot_be_made() -> anyhow::Result<()> {
    // Numbers of x86_64: shmget, semget, msgget, memfd_create.
    refused(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        for call in [(29, 0, 1 << 26, 0o1600), (64, 0, 32000, 0o1600), (68, 0, 0o1600), (319, b'x', 0)]:\n\
        \x20 print('made' if libc.syscall(*call) >= 0 else 'refused', call[0])",
    )
}

fn a_job_stays_on_its_cores() -> anyhow::Result<()> {
    let mut rig = Rig::with_cores(vec![0])?;
    // `taskset` and those who pin their threads shall go on as if it had worked.
    let program = "import os\nos.sched_setaffinity(0, range(64))\nprint(os.sched_getaffinity(0))";
    let ran = rig.run(&Job::python(program))?;
    ensure!(ran.stdout == "{0}\n", "{ran:?}");
    Ok(())
}

fn nobody_is_kept_from_a_shared_file_by_a_lease() -> anyhow::Result<()> {
    refused(
        "import fcntl, os\nfile = open('/box/file', 'w+')\n\
        for what, argument in [(fcntl.F_SETLEASE, fcntl.F_WRLCK), (fcntl.F_NOTIFY, fcntl.DN_ACCESS)]:\n\
        \x20 try: fcntl.fcntl(file if what == fcntl.F_SETLEASE else os.open('/usr', 0), what, argument); print('done', what)\n\
        \x20 except OSError as error: print('refused', what, error)",
    )
}

/// A job that gets SIGTERM after 0.3 s, and a minute for what it says it does then.
fn graceful(program: &str) -> Job {
    Job::python(program).limits(|limits| {
        limits.timeout_ms = Some(Millis(300));
        limits.grace_ms = Some(Millis(60_000));
        limits.memory_bytes = Some(ByteSize::mib(128));
    })
}

fn memory_is_limited_in_the_time_of_grace() -> anyhow::Result<()> {
    let program = "import signal, time\nheld = []\n\
        def grow(*_):\n\
        \x20 for _ in range(1024): held.append(bytearray(1 << 20))\n\
        \x20 print('grown', flush=True)\n\
        signal.signal(signal.SIGTERM, grow)\ntime.sleep(60)";
    let ran = Rig::new()?.run(&graceful(program))?;
    ensure!(ran.report.ending == Ending::TimedOut(None), "{ran:?}");
    ensure!(ran.stdout.is_empty(), "{ran:?}");
    let peak = ran.report.usage.memory_peak_bytes;
    ensure!((128 << 20..768 << 20).contains(&peak), "{ran:?}");
    Ok(())
}

fn a_busy_job_has_its_time_of_grace() -> anyhow::Result<()> {
    // Together that is more CPU time than goes with the wall time.
    let program = "import signal, time\n\
        def clean_up(*_):\n\
        \x20 end = time.process_time() + 0.5\n\
        \x20 while time.process_time() < end: pass\n\
        \x20 print('clean', flush=True)\n\
        \x20 raise SystemExit\n\
        signal.signal(signal.SIGTERM, clean_up)\ntime.sleep(0.15)\nwhile True: pass";
    let ran = Rig::new()?.run(&graceful(program))?;
    let by_itself = Ending::TimedOut(Some(InGrace::Exited(0)));
    ensure!(ran.report.ending == by_itself, "{ran:?}");
    ensure!(ran.stdout == "clean\n", "{ran:?}");
    Ok(())
}

fn a_job_can_be_stopped_in_its_time_of_grace() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::shell("trap 'echo asked >&2' TERM; echo begun; while :; do sleep 0.01; done")
        .limits(|limits| {
            limits.timeout_ms = Some(Millis(200));
            limits.grace_ms = Some(Millis(60_000));
        });
    let attempt = rig.start(&job)?;
    let mut written = Written {
        attempt,
        stdout: 0,
        stderr: 0,
    };
    while written.stderr == 0 {
        written = rig.written_more(written)?;
    }
    rig.say(&ToWorker::Stop(attempt))?;
    let ran = rig.finish(&job)?;
    ensure!(ran.report.ending == Ending::TimedOut(None), "{ran:?}");
    ensure!(ran.report.usage.wall_us < 30_000_000, "{ran:?}");
    Ok(())
}

fn a_signal_that_a_job_sends_itself_is_no_limit() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let ran = rig.run(&Job::shell("kill -XCPU $$"))?;
    ensure!(ran.report.ending == Ending::Signaled(24), "{ran:?}");
    // The kernel's own account is a limit, whoever was quicker to end the job.
    let job = Job::shell("while :; do :; done").limits(|limits| limits.cpu_ms = Some(Millis(100)));
    let ran = rig.run(&job)?;
    let limit = LimitName::Cpu;
    ensure!(
        matches!(ran.report.ending, Ending::Limit { limit: reached, .. } if reached == limit),
        "{ran:?}"
    );
    Ok(())
}

fn what_all_users_share_is_not_used_up() -> anyhow::Result<()> {
    let program = "import ctypes, os\nlibc = ctypes.CDLL(None)\n\
        def count(make):\n\
        \x20 kept = []\n\
        \x20 while len(kept) < 200:\n\
        \x20   made = make()\n\
        \x20   if made < 0: break\n\
        \x20   kept.append(made)\n\
        \x20 for made in kept: os.close(made)\n\
        \x20 return len(kept)\n\
        def terminal():\n\
        \x20 try: return os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)\n\
        \x20 except OSError: return -1\n\
        print(count(libc.inotify_init), count(terminal))";
    let ran = Rig::new()?.run(&Job::python(program))?;
    ensure!(ran.stdout == "32 64\n", "{ran:?}");
    Ok(())
}

fn memory_in_sockets_counts() -> anyhow::Result<()> {
    // Who sent is closed: nobody has a descriptor for what lies there. And open ones, of which all are full.
    let closed = "import socket, time\nkept = []\n\
        def make():\n\
        \x20 made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); made.setblocking(False); return made\n\
        for n in range(200):\n\
        \x20 kept.append(make()); kept[-1].bind(f'/tmp/{n}')\n\
        \x20 try:\n\
        \x20   while True: make().sendto(bytes(200_000), f'/tmp/{n}')\n\
        \x20 except OSError: pass\n\
        time.sleep(60)";
    let open = "import os, socket, time\nkept = []\n\
        for _ in range(7): os.fork()\n\
        for _ in range(50):\n\
        \x20 pair = socket.socketpair(); kept.append(pair)\n\
        \x20 for one in pair:\n\
        \x20   one.setblocking(False)\n\
        \x20   one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)\n\
        \x20   try:\n\
        \x20     while True: one.send(bytes(65536))\n\
        \x20   except OSError: pass\n\
        time.sleep(60)";
    for program in [closed, open] {
        let job = Job::python(program).limits(|limits| {
            limits.memory_bytes = Some(ByteSize::mib(256));
            limits.processes = Some(256);
            limits.timeout_ms = Some(Millis(20_000));
        });
        let ran = Rig::new()?.run(&job)?;
        ensure!(
            matches!(
                ran.report.ending,
                Ending::Limit {
                    limit: LimitName::Memory,
                    ..
                }
            ),
            "{ran:?}"
        );
    }
    Ok(())
}

fn many_idle_sockets_are_no_memory() -> anyhow::Result<()> {
    // By the bound of one socket they would be 1.2 GiB.
    let program = "import socket, time\nkept = []\nserver = socket.create_server(('127.0.0.1', 8080), backlog=1024)\n\
        for _ in range(600):\n\
        \x20 kept.append(socket.socketpair())\n\
        for _ in range(600):\n\
        \x20 kept.append(socket.create_connection(('127.0.0.1', 8080))); kept.append(server.accept())\n\
        time.sleep(1)\nprint('done')";
    let job = Job::python(program).limits(|limits| {
        limits.memory_bytes = Some(ByteSize::mib(256));
        limits.open_files = Some(4_096);
    });
    let ran = Rig::new()?.run(&job)?;
    ensure!(ran.stdout == "done\n", "{ran:?}");
    Ok(())
}
