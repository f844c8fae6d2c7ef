//! The same hosts with `isolation = "reduced"`: jobs run, every outcome says what was missing, and what stands in for it holds.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use nix::errno::Errno;
use nix::libc;
use serde_json::Value;
use wpool_tests::host::{Filtered, Host};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::wait_for;

use super::said;

pub(crate) const TESTS: &[Test] = &[
    test!(
        without_a_net_namespace_there_are_no_sockets,
        "python3",
        "open binary",
        "unshare",
        "setpriv"
    ),
    test!(
        without_an_ipc_namespace_there_are_no_shared_objects,
        "python3",
        "open binary",
        "unshare",
        "setpriv"
    ),
    test!(
        without_names_of_its_own_a_job_sees_those_of_the_host,
        "python3",
        "open binary",
        "unshare",
        "setpriv"
    ),
    test!(
        without_a_pid_namespace_a_group_holds_the_job_together,
        "python3",
        "open binary",
        "unshare",
        "setpriv"
    ),
    test!(
        behind_a_masked_proc_a_job_has_none,
        "python3",
        "root",
        "unshare"
    ),
    test!(
        without_mounts_a_box_is_a_directory_and_landlock_the_wall,
        "python3",
        "open binary",
        "unshare",
        "setpriv"
    ),
    test!(where_mount_is_refused_a_box_is_a_directory, "python3"),
    test!(
        without_any_namespace_a_job_runs_and_is_ended,
        "python3",
        "open binary",
        "unshare",
        "setpriv"
    ),
    test!(what_is_not_missing_is_not_called_so, "python3"),
    test!(
        without_the_filter_nothing_stands_in_for_a_namespace,
        "python3",
        "root",
        "unshare"
    ),
    test!(where_no_worker_can_be_born_at_all_it_is_said, "python3"),
];

/// Tells what it can do, and leaves a process behind that is called by its second argument.
const JOB: &str = r#"
import ctypes, json, os, socket, subprocess, sys
def can(attempt):
    try: attempt(); return True
    except OSError: return False
libc = ctypes.CDLL(None, use_errno=True)
def message_queue():
    if libc.syscall(240, b"queue", os.O_CREAT | os.O_RDWR, 0o600, None) == -1: raise OSError
def in_child(attempt):
    pid = os.fork()
    if pid == 0: os._exit(0 if can(attempt) else 1)
    return os.waitpid(pid, 0)[1] == 0
def everybody(): os.kill(-1, 0)
def datagram():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
if os.fork() == 0:
    can(os.setsid)
    if os.fork() == 0: os.execvp("python3", ["python3", "-c", "import time; time.sleep(600)", sys.argv[2]])
    os._exit(0)
os.wait()
open("mine", "w").write("x")
print(json.dumps({
    "reads": can(lambda: open(sys.argv[1]).read()),
    "writes outside": can(lambda: open(sys.argv[1] + ".new", "w")),
    "inet": can(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
    "unix": can(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)),
    "datagram pair": can(datagram),
    "queue": can(message_queue),
    "session": in_child(os.setsid),
    "everybody": can(everybody) and os.path.isdir("/proc/1") is False,
    "set-id": can(lambda: os.open("giver", os.O_CREAT | os.O_WRONLY, 0o4755)) or can(lambda: os.chmod("mine", 0o4755)) or can(lambda: os.fchmod(os.open("mine", os.O_WRONLY), 0o4755)),
    "shuts": can(lambda: os.chmod("..", 0)),
    "urgency": can(lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)),
    "gives away": can(lambda: os.chown(sys.argv[1], os.getuid(), os.getgid())),
    "processes": sum(name.isdigit() for name in os.listdir("/proc")) if can(lambda: os.listdir("/proc")) else 0,
    "python": subprocess.run(["sh", "-c", "echo $((6*7))"], capture_output=True, text=True).stdout,
}))
"#;

/// What a job on a host tells of itself, and what its outcome says is missing.
struct Told {
    can: Value,
    missing: BTreeSet<String>,
    level: String,
}

/// Runs the job on this host, and sees to it that nothing of it is left.
fn on(host: Host<'_>) -> anyhow::Result<Told> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
    let config = directory.path().join("wpool.toml");
    fs::write(&config, "[pool]\nisolation = \"reduced\"\n")?;
    let secret = directory.path().join("secret");
    fs::write(&secret, "hidden")?;
    for file in [&config, &secret] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o666))?;
    }
    let marker = directory.path().join("left-behind").display().to_string();
    let [config, secret] = [config, secret].map(|path| path.display().to_string());
    let run = said(host.wpool(&[
        "run", "--config", &config, "--json", "--", "python3", "-c", JOB, &secret, &marker,
    ]))?;
    let outcome = run.json()?;
    ensure!(outcome["state"] == "succeeded", "{outcome}");
    let stdout = outcome["stdout"].as_str().context("it is text")?;
    let isolation = &outcome["isolation"];
    let missing = isolation["missing"].as_array().into_iter().flatten();
    let is_told = |layer: &Value| {
        layer["reason"]
            .as_str()
            .is_some_and(|reason| reason.len() > 20)
    };
    ensure!(missing.clone().all(is_told), "{isolation}");
    ensure!(
        wait_for(|| !is_left(&marker)),
        "a process of the job is left"
    );
    ensure!(boxes(Path::new("/tmp")) == 0, "a box is left");
    let can: Value = serde_json::from_str(stdout).with_context(|| format!("{outcome}"))?;
    ensure!(can["python"] == "42\n", "{can}");
    ensure!(
        can["reads"] == false && can["writes outside"] == false,
        "{can}"
    );
    Ok(Told {
        can,
        missing: missing
            .filter_map(|layer| layer["layer"].as_str())
            .filter(|layer| !matches!(*layer, "cgroup_limits" | "landlock"))
            .map(str::to_owned)
            .collect(),
        level: isolation["level"].as_str().unwrap_or_default().to_owned(),
    })
}

/// Whether a process with this argument lives.
fn is_left(marker: &str) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut commands = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    commands.any(|command| {
        let mut arguments = command.split(|byte| *byte == 0);
        arguments.any(|argument| argument == b"import time; time.sleep(600)")
            && String::from_utf8_lossy(&command).contains(marker)
    })
}

/// Directories of boxes that nobody holds any more.
fn boxes(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("wpool-boxes-")
    });
    let mode = rustix::fs::FlockOperation::NonBlockingLockShared;
    ours.filter_map(|entry| fs::File::open(entry.path()).ok())
        .filter(|held| rustix::fs::flock(held, mode).is_ok())
        .count()
}

fn is(told: &Told, missing: &[&str], can: &[(&str, bool)]) -> anyhow::Result<()> {
    let expected: BTreeSet<String> = missing.iter().map(|layer| (*layer).to_owned()).collect();
    ensure!(told.missing == expected, "{:?}", told.missing);
    ensure!(told.level == "reduced", "{}", told.level);
    for (what, able) in can {
        ensure!(told.can[*what] == *able, "{what}: {}", told.can);
    }
    Ok(())
}

fn without_a_net_namespace_there_are_no_sockets() -> anyhow::Result<()> {
    let told = on(Host::Without("net"))?;
    let no_sockets = [
        ("inet", false),
        ("unix", false),
        ("datagram pair", false),
        ("queue", true),
    ];
    is(&told, &["net"], &no_sockets)
}

fn without_an_ipc_namespace_there_are_no_shared_objects() -> anyhow::Result<()> {
    let told = on(Host::Without("ipc"))?;
    is(
        &told,
        &["ipc"],
        &[("queue", false), ("inet", true), ("session", true)],
    )
}

fn without_names_of_its_own_a_job_sees_those_of_the_host() -> anyhow::Result<()> {
    for name in ["uts", "cgroup"] {
        is(
            &on(Host::Without(name))?,
            &[name],
            &[("inet", true), ("session", true)],
        )?;
    }
    Ok(())
}

fn without_a_pid_namespace_a_group_holds_the_job_together() -> anyhow::Result<()> {
    let told = on(Host::Without("pid"))?;
    is(
        &told,
        &["pid", "proc"],
        &[("session", false), ("everybody", false), ("unix", true)],
    )?;
    ensure!(told.can["processes"] == 0, "{}", told.can);
    Ok(())
}

fn behind_a_masked_proc_a_job_has_none() -> anyhow::Result<()> {
    let told = on(Host::MaskedProc("/proc/interrupts"))?;
    is(
        &told,
        &["pid", "proc"],
        &[("session", false), ("inet", true)],
    )?;
    ensure!(told.can["processes"] == 0, "{}", told.can);
    Ok(())
}

/// What a job in the host's root cannot do.
const IN_A_DIRECTORY: [(&str, bool); 8] = [
    ("set-id", false),
    ("shuts", false),
    ("urgency", false),
    ("session", false),
    ("everybody", false),
    ("unix", false),
    ("datagram pair", false),
    ("gives away", false),
];

fn without_mounts_a_box_is_a_directory_and_landlock_the_wall() -> anyhow::Result<()> {
    let told = on(Host::Without("mnt"))?;
    is(
        &told,
        &["disk_limit", "mount", "pid", "pivot_root"],
        &IN_A_DIRECTORY,
    )
}

fn where_mount_is_refused_a_box_is_a_directory() -> anyhow::Result<()> {
    let rules = [Filtered {
        call: libc::SYS_mount,
        errno: Errno::EPERM,
    }];
    let told = on(Host::Filter(&rules))?;
    is(
        &told,
        &["disk_limit", "mount", "pid", "pivot_root"],
        &IN_A_DIRECTORY,
    )?;
    ensure!(
        told.can["inet"] == true,
        "it has a network of its own: {}",
        told.can
    );
    Ok(())
}

fn without_any_namespace_a_job_runs_and_is_ended() -> anyhow::Result<()> {
    let told = on(Host::WithoutAny)?;
    let missing = [
        "cgroup",
        "disk_limit",
        "ipc",
        "mount",
        "net",
        "pid",
        "pivot_root",
        "user",
        "uts",
    ];
    is(&told, &missing, &IN_A_DIRECTORY)?;
    ensure!(
        told.can["inet"] == false && told.can["queue"] == false,
        "{}",
        told.can
    );
    Ok(())
}

fn what_is_not_missing_is_not_called_so() -> anyhow::Result<()> {
    let rules = [Filtered {
        call: libc::SYS_swapon,
        errno: Errno::EPERM,
    }];
    let told = on(Host::Filter(&rules))?;
    ensure!(
        told.missing.is_empty() && told.level == "full",
        "{:?}",
        told.missing
    );
    Ok(())
}

fn where_no_worker_can_be_born_at_all_it_is_said() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("wpool.toml");
    fs::write(&config, "[pool]\nisolation = \"reduced\"\n")?;
    let config = config.display().to_string();
    for errno in [Errno::EPERM, Errno::ENOSYS] {
        let rules = [Filtered {
            call: libc::SYS_clone3,
            errno,
        }];
        let run = said(Host::Filter(&rules).wpool(&["run", "--config", &config, "--", "true"]))?;
        ensure!(run.code == 125, "{run:?}");
        let line = "a seccomp filter around wpool answers clone3 with";
        ensure!(
            run.stderr.contains(line) || run.stderr.contains("no worker can be started"),
            "{run:?}"
        );
        ensure!(run.stderr.lines().count() == 1, "{run:?}");
    }
    Ok(())
}

fn without_the_filter_nothing_stands_in_for_a_namespace() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("wpool.toml");
    fs::write(&config, "[pool]\nisolation = \"reduced\"\n")?;
    let config = config.display().to_string();
    let host = Host::MaskedProcAndFilter(
        "/proc/interrupts",
        &[Filtered {
            call: libc::SYS_seccomp,
            errno: Errno::EPERM,
        }],
    );
    let run = said(host.wpool(&["run", "--config", &config, "--", "true"]))?;
    ensure!(run.code == 125, "{run:?}");
    let line = "nothing would stand in for the namespaces that are not allowed here";
    ensure!(run.stderr.contains(line), "{run:?}");
    Ok(())
}
