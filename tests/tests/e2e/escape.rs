//! What a job must not be able to do, tried through the whole of wpool: from the command line, and beside another job.
//!
//! Each program prints `escaped: WHAT` for what it could do, and `tried` at its end, so that one that never came to
//! try is no proof. Not here: single layers, which are tried one by one around a worker on a bench.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, ensure};
use serde_json::json;
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Daemon, Said, binary, descendants, feed, program, run, wait_for, wpool};

pub(crate) const TESTS: &[Test] = &[
    test!(nothing_of_the_host_is_read_or_written, "python3"),
    test!(sharp_calls_are_refused_to_a_compiled_program, "gcc"),
    test!(secrets_of_the_user_are_not_seen, "python3"),
    test!(a_listening_host_is_not_reached, "python3"),
    test!(only_three_descriptors_are_there, "python3"),
    test!(the_binary_is_the_same_after_an_attack, "python3"),
    test!(
        what_is_mounted_on_the_host_and_in_a_box_stays_there,
        "unshare"
    ),
    test!(root_that_has_no_ids_to_give_is_refused, "root", "setpriv"),
    test!(runs_at_one_time_have_different_ids, "root"),
    test!(jobs_side_by_side_do_not_meet, "python3"),
    test!(a_job_finds_nothing_of_the_one_before, "python3"),
];

/// Checks that a program tried, and did not escape.
fn contained(said: &Said) -> anyhow::Result<()> {
    ensure!(said.stdout.lines().any(|line| line == "tried"), "{said:?}");
    ensure!(!said.stdout.contains("escaped"), "{said:?}");
    Ok(())
}

fn python(code: &str) -> anyhow::Result<Said> {
    run(["run", "--", "python3", "-c", code])
}

/// A mount that is a peer of the host's would pass on what is mounted in either.
fn what_is_mounted_on_the_host_and_in_a_box_stays_there() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755))?;
    // As systemd leaves the root of most machines, and containers do not: all mounts are shared.
    let script = "mount --make-rshared / && exec \"$@\"";
    let mut command = program("unshare");
    command.args(["--mount", "--map-root-user", "--user"]);
    if nix::unistd::geteuid().is_root() {
        command = program("unshare");
        command.arg("--mount");
    }
    command
        .args(["sh", "-c", script, "sh"])
        .arg(binary())
        .args(["run", "--ro"])
        .arg(format!("{}:/srv/data", data.path().display()))
        .args(["--", "cat", "/proc/self/mountinfo"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let said: Said = command.output()?.into();
    ensure!(said.stdout.contains(" /srv/data "), "{said:?}");
    for line in said.stdout.lines() {
        // mountinfo, proc_pid_mountinfo(5): optional fields tell of propagation, and end with a hyphen; none is private.
        let (fields, _) = line.split_once(" - ").context("a line of mountinfo")?;
        ensure!(fields.split(' ').count() == 6, "{line}");
    }
    Ok(())
}

fn root_that_has_no_ids_to_give_is_refused() -> anyhow::Result<()> {
    let run_without = |capabilities: &str| -> anyhow::Result<Said> {
        let mut command = program("setpriv");
        command
            .args(["--bounding-set", capabilities, "--"])
            .arg(binary());
        command.args(["run", "--processes", "4", "--", "sh", "-c"]);
        command.arg("for n in 1 2 3 4 5 6 7 8; do sleep 1 & done; cat /proc/self/uid_map");
        Ok(command.output()?.into())
    };
    let said = run_without("-setuid,-setgid")?;
    ensure!(said.code == 125 && said.stdout.is_empty(), "{said:?}");
    ensure!(said.stderr.contains("CAP_SETUID"), "{said:?}");
    ensure!(said.stderr.lines().count() == 1, "{said:?}");
    // Root of a namespace of its own that is root outside as well.
    let mut command = program("unshare");
    command.args(["--user", "--map-root-user"]).arg(binary());
    let said: Said = command.args(["run", "--", "id"]).output()?.into();
    ensure!(said.code == 125 && said.stdout.is_empty(), "{said:?}");
    ensure!(said.stderr.contains("no ids from"), "{said:?}");
    // What a container usually has: enough for ids of their own, and so for the limit.
    let said = run_without("-sys_admin,-sys_resource")?;
    ensure!(said.stderr.to_lowercase().contains("fork"), "{said:?}");
    Ok(())
}

fn runs_at_one_time_have_different_ids() -> anyhow::Result<()> {
    let (mut runs, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let run = wpool(["run", "--", "sleep", "60"]).spawn()?;
        let pid = run.id();
        runs.push(run);
        let uid_of_job = || {
            let tree = descendants(pid).ok()?;
            let of_job = |pid: &u32| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm"));
                name.is_ok_and(|name| name == "sleep\n")
            };
            let job = tree.into_iter().find(of_job)?;
            let status = fs::read_to_string(format!("/proc/{job}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("Uid:"))?;
            Some(line.to_owned())
        };
        ensure!(wait_for(|| uid_of_job().is_some()), "the job does not run");
        let uid = uid_of_job().context("it has ended")?;
        seen.push(uid);
    }
    for mut run in runs {
        run.kill()?;
        run.wait()?;
    }
    ensure!(seen[0] != seen[1], "{seen:?}");
    Ok(())
}

/// `/dev/mqueue` is no fourth place for files: it shows the message queues of the job's own IPC namespace.
fn nothing_of_the_host_is_read_or_written() -> anyhow::Result<()> {
    contained(&python(
        "import os\n\
         for path in ['/etc/shadow', '/root', '/home', '/var/lib', '/var/log', '/run', '/sys/kernel', '/boot', '/proc/kcore', '/proc/sysrq-trigger']:\n\
         \x20   try:\n\
         \x20       found = os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1)\n\
         \x20       if found: print('escaped: read', path)\n\
         \x20   except OSError: pass\n\
         for folder, _, _ in os.walk('/'):\n\
         \x20   if folder.startswith(('/box', '/tmp', '/dev/shm', '/dev/mqueue', '/proc')): continue\n\
         \x20   try:\n\
         \x20       os.close(os.open(folder + '/wpool-was-here', os.O_CREAT | os.O_WRONLY)); print('escaped: wrote', folder)\n\
         \x20   except OSError: pass\n\
         pids = [int(name) for name in os.listdir('/proc') if name.isdigit()]\n\
         if len(pids) > 2: print('escaped: sees', pids)\n\
         print('tried')",
    )?)
}

/// Raw calls from C, so that no library stands between.
const SHARP: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void expect(const char *what, long result) {
    if (result >= 0) printf("escaped: %s gave %ld\n", what, result);
}

int main(void) {
    char nothing[256] = {0};
    expect("mount", mount("none", "/tmp", "tmpfs", 0, 0));
    expect("umount", umount2("/proc", MNT_DETACH));
    expect("pivot_root", syscall(SYS_pivot_root, "/", "/"));
    expect("chroot", chroot("/tmp"));
    expect("unshare user", unshare(CLONE_NEWUSER));
    expect("unshare mount", unshare(CLONE_NEWNS));
    expect("setns", syscall(SYS_setns, 0, 0));
    expect("ptrace", ptrace(PTRACE_ATTACH, 1, 0, 0));
    expect("keyctl", syscall(SYS_keyctl, 0, -3, 1));
    expect("add_key", syscall(SYS_add_key, "user", "a", "b", 1, -3));
    expect("bpf", syscall(SYS_bpf, 0, nothing, sizeof nothing));
    expect("io_uring", syscall(SYS_io_uring_setup, 8, nothing));
    expect("userfaultfd", syscall(SYS_userfaultfd, 0));
    expect("perf", syscall(SYS_perf_event_open, nothing, 0, -1, -1, 0));
    expect("kexec", syscall(SYS_kexec_load, 0, 0, 0, 0));
    expect("module", syscall(SYS_init_module, nothing, 0, ""));
    expect("reboot", syscall(SYS_reboot, 0, 0, 0, 0));
    expect("sethostname", sethostname("x", 1));
    expect("setuid", setuid(0));
    expect("capability", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0));
    expect("raw socket", socket(AF_INET, SOCK_RAW, 1));
    expect("packet socket", socket(AF_PACKET, SOCK_RAW, 0));
    expect("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    expect("tiocsti", ioctl(0, TIOCSTI, "x"));
    expect("new privileges", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    expect("memory of init", open("/proc/1/mem", O_RDWR));
    puts("tried");
    return 0;
}
"#;

fn sharp_calls_are_refused_to_a_compiled_program() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("sharp.c"), SHARP)?;
    let mut command = wpool(["run", "--in", "sharp.c", "--"]);
    command
        .args(["sh", "-c", "gcc -w -o sharp sharp.c && ./sharp"])
        .current_dir(folder.path());
    contained(&feed(command, b"")?)
}

fn secrets_of_the_user_are_not_seen() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    fs::write(&secret, "the word")?;
    contained(&python(&format!(
        "import os\n\
         try: print('escaped:', open('{}').read())\n\
         except OSError: pass\n\
         for pid in os.listdir('/proc'):\n\
         \x20   try:\n\
         \x20       if b'cargo' in open(f'/proc/{{pid}}/environ', 'rb').read(): print('escaped: environ of', pid)\n\
         \x20   except OSError: pass\n\
         print('tried')",
        secret.display()
    ))?)
}

fn a_listening_host_is_not_reached() -> anyhow::Result<()> {
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = server.local_addr()?.port();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path)?;
    let mut command = wpool(["run", "--", "python3", "-c"]);
    command.arg(format!(
        "import socket\n\
         for family, address in [(socket.AF_INET, ('127.0.0.1', {port})), (socket.AF_INET, ('192.0.2.1', 80)), (socket.AF_UNIX, '{}')]:\n\
         \x20   try:\n\
         \x20       end = socket.socket(family); end.settimeout(2); end.connect(address); print('escaped:', address)\n\
         \x20   except OSError: pass\n\
         own = socket.socket(); own.bind(('127.0.0.1', 0)); own.listen()\n\
         socket.create_connection(own.getsockname()).close()\n\
         print('tried')",
        path.display()
    ));
    contained(&feed(command, b"")?)
}

fn only_three_descriptors_are_there() -> anyhow::Result<()> {
    contained(&python(
        "import os\n\
         for fd in range(3, 4096):\n\
         \x20   try: os.fstat(fd); print('escaped: descriptor', fd)\n\
         \x20   except OSError: pass\n\
         print('tried')",
    )?)
}

fn the_binary_is_the_same_after_an_attack() -> anyhow::Result<()> {
    let before = fs::read(binary())?;
    let said = python(
        "import os\n\
         for pid in os.listdir('/proc'):\n\
         \x20   if not pid.isdigit() or int(pid) == os.getpid(): continue\n\
         \x20   for flags in [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC]:\n\
         \x20       try: os.write(os.open(f'/proc/{pid}/exe', flags), b'x'); print('escaped: wrote the binary of', pid)\n\
         \x20       except OSError: pass\n\
         print('tried')",
    )?;
    contained(&said)?;
    ensure!(fs::read(binary())? == before, "the binary is another");
    Ok(())
}

/// Says where it is, then looks for the other in every place that could be shared.
const NEIGHBOUR: &str = "import os, socket, sys, time\n\
    mine, other = sys.argv[1:]\n\
    for folder in ['/box', '/tmp', '/dev/shm']: open(f'{folder}/{mine}', 'w').write(mine)\n\
    abstract = socket.socket(socket.AF_UNIX); abstract.bind('\\0wpool-' + mine); abstract.listen()\n\
    port = {'a': 4001, 'b': 4002}\n\
    server = socket.socket(); server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
    server.bind(('127.0.0.1', port[mine])); server.listen()\n\
    until = time.monotonic() + 1.5\n\
    while time.monotonic() < until:\n\
    \x20   for folder in ['/box', '/tmp', '/dev/shm']:\n\
    \x20       if other in os.listdir(folder): print('escaped: file in', folder)\n\
    \x20   for family, address in [(socket.AF_UNIX, '\\0wpool-' + other), (socket.AF_INET, ('127.0.0.1', port[other]))]:\n\
    \x20       try: end = socket.socket(family); end.connect(address); print('escaped: socket', address)\n\
    \x20       except OSError: end.close()\n\
    \x20   for pid in range(3, 300):\n\
    \x20       if pid == os.getpid(): continue\n\
    \x20       try: os.kill(pid, 0); print('escaped: process', pid)\n\
    \x20       except OSError: pass\n\
    \x20   time.sleep(0.05)\n\
    print('tried')";

fn jobs_side_by_side_do_not_meet() -> anyhow::Result<()> {
    let daemon = Daemon::start(2)?;
    let mut ids = Vec::new();
    for (mine, other) in [("a", "b"), ("b", "a")] {
        let job = json!({"command": ["python3", "-c", NEIGHBOUR, mine, other]});
        let answer = daemon.post("/v1/jobs", &job)?;
        ids.push(answer.json()?["id"].as_str().context("no id")?.to_owned());
    }
    let mut slots = Vec::new();
    for id in ids {
        let outcome = daemon
            .get(&format!("/v1/jobs/{id}/result?wait=60s"))?
            .json()?;
        let text = outcome["stdout"].as_str().unwrap_or_default();
        ensure!(text == "tried\n", "{outcome}");
        slots.push(outcome["attempts"][0]["slot"].clone());
    }
    ensure!(
        slots[0] != slots[1],
        "they ran one after the other: {slots:?}"
    );
    Ok(())
}

fn a_job_finds_nothing_of_the_one_before() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let leave = "import ctypes, os, socket\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        for folder in ['/box', '/tmp', '/dev/shm']: open(f'{folder}/left', 'w').write('left')\n\
        segment = libc.shmget(4711, 4096, 0o1666); queue = libc.msgget(4711, 0o1666)\n\
        if os.fork() == 0:\n    os.setsid()\n    os.execvp('sleep', ['sleep', '60'])\n\
        print('tried')";
    let look = "import ctypes, os\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        for folder in ['/box', '/tmp', '/dev/shm']:\n    if os.listdir(folder): print('escaped:', folder, os.listdir(folder))\n\
        if libc.shmget(4711, 0, 0) >= 0: print('escaped: segment')\n\
        if libc.msgget(4711, 0) >= 0: print('escaped: queue')\n\
        if len([name for name in os.listdir('/proc') if name.isdigit()]) > 2: print('escaped: process')\n\
        print('tried')";
    for code in [leave, look] {
        let outcome = daemon.outcome_of(&json!({"command": ["python3", "-c", code]}))?;
        ensure!(outcome["stdout"] == "tried\n", "{outcome}");
    }
    Ok(())
}
