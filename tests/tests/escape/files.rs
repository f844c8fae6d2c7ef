//! Files: what comes out of a box and goes into it through the daemon, what a job may write, and what it may not.
//!
//! The walls around read-only files are tried one by one: each alone must do for what both are there for.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wpool_protocol::wire::LayerState;
use wpool_tests::rig::{Job, Rig};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Daemon, resident_bytes};

use super::attack::{Attack, Shown};
use super::removal::Removal;

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "only_what_is_in_memory_is_written",
        program: "
MEMORY = {'tmpfs', 'proc', 'devpts', 'mqueue', 'devtmpfs'}
for line in open('/proc/self/mountinfo'):
    before, behind = line.split(' - ')
    point, flags = before.split()[4:6]
    kind = behind.split()[0]
    if 'rw' in flags.split(',') and kind not in MEMORY: escaped('on a disk:', point)
# What writes out every disk of the machine does nothing; what writes out one's own file has nothing to write.
for number, *arguments in [(162,), (306, 0)]: call(number, *arguments)
own = os.open('/box/own', os.O_CREAT | os.O_RDWR)
for n in range(2000): os.pwrite(own, bytes(4096), n << 12); os.fsync(own)
",
        shown: Shown::Without(Removal::ReadOnly, &["on a disk:"]),
    },
    Attack {
        name: "no_mount_gives_ids_by_exec",
        program: "
for line in open('/proc/self/mountinfo'):
    point, flags = line.split()[4:6]
    # What is neither executed nor looked through gives nothing either.
    if not {'nosuid', 'noexec'} & set(flags.split(',')): escaped('a mount with set-user-id bits', point)
",
        shown: Shown::Without(Removal::ReadOnly, &["a mount with set-user-id bits /usr"]),
    },
];

pub(crate) const TESTS: &[Test] = &[
    test!(an_output_that_is_a_link_is_never_followed, "python3"),
    test!(
        a_link_that_is_swapped_until_the_end_is_never_followed,
        "python3"
    ),
    test!(what_is_no_file_is_no_output_and_holds_nobody_up, "python3"),
    test!(huge_many_and_deep_files_are_cut_and_told, "python3"),
    test!(an_archive_is_a_file_like_any_other, "python3"),
    test!(an_input_stays_in_its_box, "python3"),
    test!(modes_and_attributes_of_outputs_mean_nothing, "python3"),
    test!(a_stream_without_lines_or_end_is_cut_and_told, "python3"),
    test!(a_closed_stream_is_no_end_and_an_open_one_no_life, "python3"),
    test!(each_wall_around_read_only_files_holds_alone, "python3"),
    test!(a_lock_of_a_job_is_not_held_for_the_next, "python3"),
];

/// Runs a program that is to succeed on the worker that was there from the beginning.
fn ran(daemon: &Daemon, code: &str, more: &Value) -> anyhow::Result<Value> {
    let mut job = json!({"command": ["python3", "-c", code]});
    let fields = job.as_object_mut().context("it is an object")?;
    fields.extend(more.as_object().cloned().unwrap_or_default());
    let outcome = daemon.outcome_of(&job)?;
    ensure!(outcome["state"] == "succeeded", "{outcome}");
    ensure!(outcome["attempts"][0]["generation"] == 1, "{outcome}");
    Ok(outcome)
}

/// What an output is: its text, or the error for which it is none.
fn output<'a>(outcome: &'a Value, name: &str) -> Result<&'a str, &'a str> {
    let file = &outcome["files"][name];
    match file["text"].as_str() {
        Some(text) => Ok(text),
        None => Err(file["error"].as_str().unwrap_or("nothing is said of it")),
    }
}

fn an_output_that_is_a_link_is_never_followed() -> anyhow::Result<()> {
    let code = "import os
links = {'passwd': '/etc/passwd', 'shadow': '/etc/shadow', 'environ': '/proc/self/environ', 'above': '../../../etc/passwd',
    'own': 'real', 'absolute': '/box/real', 'loop': 'loop', 'input': '/dev/stdin', 'descriptor': '/proc/self/fd/3',
    'root': '/', 'init': '/proc/1', 'here': '.', 'up': '..', 'all': '/proc/self/root'}
for name, to in links.items(): os.symlink(to, name)
open('real', 'w').write('own'); os.mkdir('folder'); os.symlink('/etc', 'folder/deeper')";
    let links = [
        "passwd",
        "shadow",
        "environ",
        "above",
        "own",
        "absolute",
        "loop",
        "input",
        "descriptor",
        "root/etc/passwd",
        "init/environ",
        "here/real",
        "up/etc/passwd",
        "all/etc/passwd",
        "folder/deeper/passwd",
    ];
    let patterns = ["*", "**/passwd", "init/*", "*/*"];
    let outputs: Vec<_> = links.into_iter().chain(patterns).chain(["real"]).collect();
    let daemon = Daemon::start(1)?;
    for _ in 0..2 {
        let outcome = ran(&daemon, code, &json!({"outputs": outputs}))?;
        let files = outcome["files"].as_object().context("no files")?;
        for name in files.keys().filter(|name| *name != "real") {
            let error = output(&outcome, name).err();
            ensure!(
                error.is_some_and(|error| ["not_regular", "missing"].contains(&error)),
                "{name}: {outcome}"
            );
        }
        ensure!(links.iter().all(|link| files.contains_key(*link)));
        ensure!(output(&outcome, "real") == Ok("own"), "{outcome}");
    }
    Ok(())
}

fn a_link_that_is_swapped_until_the_end_is_never_followed() -> anyhow::Result<()> {
    // A file and a link to one of the host's, a directory and a link to another, in turn until the tree is dead.
    let code = "import ctypes, os
libc = ctypes.CDLL(None)
os.mkdir('d'); open('d/passwd', 'w').write('own'); open('file', 'w').write('own')
os.symlink('/etc', 'e'); os.symlink('/etc/passwd', 'link')
ready, is_ready = os.pipe()
if os.fork() == 0:
    os.setsid(); turns = 0
    while True:
        libc.renameat2(-100, b'd', -100, b'e', 2); libc.renameat2(-100, b'file', -100, b'link', 2)
        turns += 1
        if turns == 100: os.write(is_ready, b'.')
os.read(ready, 1)";
    let daemon = Daemon::start(1)?;
    for _ in 0..8 {
        let outputs = ["d/passwd", "e/passwd", "file", "link", "*/passwd"];
        let outcome = ran(&daemon, code, &json!({"outputs": outputs}))?;
        let files = outcome["files"].as_object().context("no files")?;
        let mut own = 0;
        for name in files.keys() {
            match output(&outcome, name) {
                Ok("own") => own += 1,
                Err("not_regular" | "missing") => {}
                _ => anyhow::bail!("{name}: {outcome}"),
            }
        }
        // Whichever way round they were in the end, one of each pair is the job's own.
        ensure!(own == 2, "{outcome}");
    }
    Ok(())
}

fn what_is_no_file_is_no_output_and_holds_nobody_up() -> anyhow::Result<()> {
    let code = "import os, socket, sys
os.mkfifo('fifo'); os.mkdir('folder'); socket.socket(socket.AF_UNIX).bind('socket')
for target, name in [(sys.executable, 'shared'), ('/etc/passwd', 'passwd'), ('/dev/null', 'null'), ('/proc/self/mem', 'memory')]:
    try: os.link(target, name)
    except OSError: pass
try: os.mknod('device', 0o020666, os.makedev(1, 3))
except OSError: pass
os.link('fifo', 'second'); open('plain', 'w').write('own'); os.link('plain', 'twice')";
    let daemon = Daemon::start(1)?;
    let expected = [
        ("fifo", Err("not_regular")),
        ("second", Err("not_regular")),
        ("folder", Err("not_regular")),
        ("socket", Err("not_regular")),
        ("shared", Err("missing")),
        ("passwd", Err("missing")),
        ("null", Err("missing")),
        ("memory", Err("missing")),
        ("device", Err("missing")),
        ("plain", Ok("own")),
        ("twice", Ok("own")),
    ];
    let names: Vec<_> = expected.iter().map(|(name, _)| name).collect();
    for _ in 0..2 {
        let outcome = ran(&daemon, code, &json!({"outputs": names}))?;
        for (name, expected) in expected {
            ensure!(output(&outcome, name) == expected, "{name}: {outcome}");
        }
    }
    Ok(())
}

fn huge_many_and_deep_files_are_cut_and_told() -> anyhow::Result<()> {
    let code = "import os
for n in range(3): os.truncate(os.open(f'sparse{n}', os.O_CREAT | os.O_WRONLY), 16 << 30)
os.mkdir('many')
for n in range(6000): os.close(os.open(f'many/{n}', os.O_CREAT | os.O_WRONLY))
os.mkdir('curious')
for name in [b'line\\nend', b'\\xff\\xfe', b'..hidden', b'-rf', b'\\x1b[2J', b'a' * 255]: os.close(os.open(b'curious/' + name, os.O_CREAT))
open('small', 'w').write('own')
for _ in range(4000): os.mkdir('d'); os.chdir('d')
open('bottom', 'w').write('deep')";
    let daemon = Daemon::start(1)?;
    let asked = json!({
        "outputs": ["sparse0", "sparse1", "small", "curious/*", "many/*", "**/bottom"],
        "limits": {"file_size_bytes": 16_u64 << 30},
    });
    for _ in 0..2 {
        let outcome = ran(&daemon, code, &asked)?;
        for name in ["sparse0", "sparse1"] {
            ensure!(output(&outcome, name) == Err("too_large"), "{name}");
        }
        for pattern in ["many/*", "**/bottom"] {
            ensure!(output(&outcome, pattern) == Err("too_many"), "{pattern}");
        }
        ensure!(output(&outcome, "small") == Ok("own"), "small");
        let files = outcome["files"].as_object().context("no files")?;
        ensure!(files.len() <= 4_096 + 8, "{}", files.len());
        ensure!(
            files.contains_key("curious/line\nend"),
            "a name is its bytes, whatever they are"
        );
        ensure!(
            files
                .keys()
                .all(|name| !name.contains("bottom") || name.contains('*'))
        );
    }
    Ok(())
}

/// Nothing unpacks what a client or a job hands over.
fn an_archive_is_a_file_like_any_other() -> anyhow::Result<()> {
    let code = "import io, tarfile
with tarfile.open('a.tar', 'w') as archive:
    for name in ['../climbs', '/absolute', 'plain']: archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    link = tarfile.TarInfo('link'); link.type = tarfile.SYMTYPE; link.linkname = '/etc'; archive.addfile(link)";
    let daemon = Daemon::start(1)?;
    let outcome = ran(&daemon, code, &json!({"outputs": ["a.tar", "*"]}))?;
    let files = outcome["files"].as_object().context("no files")?;
    ensure!(files.keys().eq(["a.tar"]), "{files:?}");
    let code = "import os\nprint(os.listdir('/box'), os.path.exists('/climbs'), os.path.exists('/absolute'))";
    let outcome = ran(&daemon, code, &json!({"files": files}))?;
    ensure!(outcome["stdout"] == "['a.tar'] False False\n", "{outcome}");
    Ok(())
}

fn an_input_stays_in_its_box() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    for name in [
        "../x",
        "/tmp/x",
        "a/../../x",
        "a//x",
        "./x",
        "a/.",
        "",
        "..",
        "x\0y",
    ] {
        let job = json!({"command": ["true"], "files": {name: "planted"}});
        let answer = daemon.post("/v1/jobs?wait=60s", &job)?;
        ensure!((400..500).contains(&answer.status), "{name:?}: {answer:?}");
    }
    // What the job before has laid in the way is not there any more, and a path does not lead through it.
    let plant = "import os\nos.symlink('/tmp', 'way'); os.symlink('/tmp/target', 'file'); open('/tmp/target', 'w').write('old')";
    ran(&daemon, plant, &json!({}))?;
    let look = "import os\nprint(os.path.islink('way'), os.path.islink('file'), os.listdir('/tmp'), open('way/x').read(), open('file').read())";
    let inputs = json!({"files": {"way/x": "new", "file": "new"}});
    let outcome = ran(&daemon, look, &inputs)?;
    ensure!(outcome["stdout"] == "False False [] new new\n", "{outcome}");
    Ok(())
}

fn modes_and_attributes_of_outputs_mean_nothing() -> anyhow::Result<()> {
    let code = "import os
for name, mode in [('ids', 0o6777), ('shut', 0), ('sticky', 0o1777)]:
    open(name, 'w').write('own')
    try: os.setxattr(name, 'user.note', b'x' * 100)
    except OSError: pass
    for attempt in [lambda: os.setxattr(name, 'security.capability', bytes(20)), lambda: os.setxattr(name, 'trusted.x', b'x'), lambda: os.chown(name, 0, 0)]:
        try: attempt(); print('escaped')
        except OSError: pass
    os.chmod(name, mode)
os.mkdir('closed'); open('closed/file', 'w').write('own'); os.chmod('closed', 0)";
    let daemon = Daemon::start(1)?;
    for _ in 0..2 {
        let outputs = json!({"outputs": ["ids", "shut", "sticky", "closed/file"]});
        let outcome = ran(&daemon, code, &outputs)?;
        ensure!(outcome["stdout"] == "", "{outcome}");
        for name in ["ids", "sticky"] {
            ensure!(output(&outcome, name) == Ok("own"), "{outcome}");
        }
        // Whoever collects may have a right that the job has not; what comes is the job's own all the same.
        for name in ["shut", "closed/file"] {
            let is_own = matches!(output(&outcome, name), Ok("own") | Err("unreadable"));
            ensure!(is_own, "{outcome}");
        }
    }
    Ok(())
}

fn a_stream_without_lines_or_end_is_cut_and_told() -> anyhow::Result<()> {
    let code = "import os
piece = bytes(range(256)).replace(b'\\n', b'\\xff') * 4096
for _ in range(200): os.write(1, piece); os.write(2, piece)";
    let daemon = Daemon::start(1)?;
    ran(&daemon, code, &json!({}))?;
    let before = resident_bytes(daemon.pid())?;
    for _ in 0..2 {
        let outcome = ran(&daemon, code, &json!({}))?;
        for stream in ["stdout", "stderr"] {
            ensure!(outcome[format!("{stream}_truncated")] == true, "{stream}");
            let bytes = outcome[format!("{stream}_bytes")].as_u64();
            ensure!(
                bytes > Some(200 << 20) || bytes == Some(200 << 20),
                "{bytes:?}"
            );
        }
        let now = resident_bytes(daemon.pid())?;
        ensure!(now < before + (24 << 20), "from {before} to {now} bytes");
    }
    Ok(())
}

fn a_closed_stream_is_no_end_and_an_open_one_no_life() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    // Who has closed all three goes on, and what it does then counts.
    let closes = "import os, signal
for fd in (0, 1, 2): os.close(fd)
for _ in range(200): os.waitpid(os.spawnlp(os.P_NOWAIT, 'true', 'true'), 0)
open('/box/done', 'w').write('own')";
    // Who has ended has ended, though somebody deaf holds its pipes and would never let go.
    let leaves = "import os, signal
ready, is_ready = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    for number in (1, 2, 3, 13, 15): signal.signal(number, signal.SIG_IGN)
    print('held', flush=True); os.write(is_ready, b'.')
    while True: signal.pause()
os.read(ready, 1)";
    for _ in 0..2 {
        let outcome = ran(&daemon, closes, &json!({"outputs": ["done"]}))?;
        ensure!(output(&outcome, "done") == Ok("own"), "{outcome}");
        // It is waited for a minute; the job could take four.
        let patient = json!({"limits": {"timeout_ms": 240_000}});
        let outcome = ran(&daemon, leaves, &patient)?;
        ensure!(outcome["stdout"] == "held\n", "{outcome}");
    }
    Ok(())
}

/// Everything by which something beneath `/data` could be changed, each with a name.
const WRITES: &str = "
import mmap, os, socket
def ways():
    yield 'open', lambda: os.open('/data/file', os.O_WRONLY)
    yield 'append', lambda: os.open('/data/file', os.O_RDWR | os.O_APPEND)
    yield 'map', lambda: mmap.mmap(os.open('/data/file', os.O_RDWR), 4096)
    yield 'truncate', lambda: os.truncate('/data/file', 0)
    yield 'reopen', lambda: os.open(f\"/proc/self/fd/{os.open('/data/file', os.O_RDONLY)}\", os.O_RDWR)
    yield 'create', lambda: os.open('/data/new', os.O_CREAT | os.O_WRONLY)
    yield 'nameless', lambda: os.open('/data', os.O_TMPFILE | os.O_RDWR)
    yield 'directory', lambda: os.mkdir('/data/folder')
    yield 'symlink', lambda: os.symlink('/etc', '/data/link')
    yield 'hard link', lambda: os.link('/data/file', '/data/second')
    yield 'hard link out', lambda: os.link('/data/file', '/box/second')
    yield 'rename out', lambda: os.rename('/data/spare', '/box/spare')
    yield 'rename in', lambda: os.rename('/box/own', '/data/own')
    yield 'rename', lambda: os.rename('/data/file', '/data/renamed')
    yield 'unlink', lambda: os.unlink('/data/spare')
    yield 'socket', lambda: socket.socket(socket.AF_UNIX).bind('/data/socket')
    yield 'fifo', lambda: os.mkfifo('/data/made')
    yield 'pipe', lambda: os.open('/data/pipe', os.O_RDWR)
    yield 'mode', lambda: os.chmod('/data/file', 0o600)
    yield 'time', lambda: os.utime('/data/file')
    yield 'attribute', lambda: os.setxattr('/data/file', 'user.x', b'x')
open('/box/own', 'w').close()
for name, way in ways():
    try: way()
    except OSError: continue
    print(name)
print('tried')
";

/// A folder that everybody may write, as far as its own modes go.
fn open_folder() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let make = |name: &str, mode: u32| {
        let path = folder.path().join(name);
        if !path.exists() {
            fs::write(&path, vec![b'.'; 4096])?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    make("", 0o777)?;
    make("file", 0o666)?;
    make("spare", 0o666)?;
    nix::unistd::mkfifo(&folder.path().join("pipe"), nix::sys::stat::Mode::all())?;
    make("pipe", 0o666)?;
    Ok(folder)
}

/// The ways that lead to it on a worker that lacks this.
fn ways_to_write(removal: Option<Removal>, folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mounts = vec![(folder.to_owned(), "/data".to_owned())];
    let mut rig = match removal {
        Some(removal) => Rig::in_slot(removal.slot(), mounts)?,
        None => Rig::with_mounts(mounts)?,
    };
    let ran = rig.run(&Job::python(WRITES))?;
    let mut ways: BTreeSet<String> = ran.stdout.lines().map(str::to_owned).collect();
    ensure!(ways.remove("tried"), "{ran:?}");
    Ok(ways)
}

fn each_wall_around_read_only_files_holds_alone() -> anyhow::Result<()> {
    let folder = open_folder()?;
    let has_landlock = matches!(wpool_worker::landlock::state(), LayerState::Active(_));
    let both = ways_to_write(None, folder.path())?;
    // Where there is no Landlock, a pipe that everybody may write is written: a mount's flag is for files.
    let of_mounts: &[&str] = &["pipe"];
    let is_held =
        |ways: &BTreeSet<String>, but: &[&str]| ways.iter().all(|way| but.contains(&way.as_str()));
    ensure!(
        is_held(&both, if has_landlock { &[] } else { of_mounts }),
        "{both:?}"
    );
    let mounts_alone = ways_to_write(Some(Removal::Landlock), folder.path())?;
    ensure!(is_held(&mounts_alone, of_mounts), "{mounts_alone:?}");
    ensure!(mounts_alone.contains("pipe"), "Landlock is needed for it");
    if has_landlock {
        // It knows nothing of modes, times and attributes.
        let landlock_alone = ways_to_write(Some(Removal::MountFlags), folder.path())?;
        let of_landlock = ["mode", "time", "attribute"];
        ensure!(is_held(&landlock_alone, &of_landlock), "{landlock_alone:?}");
    }
    let untouched: Vec<u8> = fs::read(folder.path().join("file"))?;
    ensure!(untouched == vec![b'.'; 4096] && folder.path().join("spare").exists());
    let neither = ways_to_write(Some(Removal::ReadOnly), folder.path())?;
    for way in [
        "open",
        "truncate",
        "reopen",
        "map",
        "create",
        "directory",
        "symlink",
        "rename",
        "unlink",
        "socket",
    ] {
        ensure!(neither.contains(way), "`{way}` proves nothing: {neither:?}");
    }
    Ok(())
}

fn a_lock_of_a_job_is_not_held_for_the_next() -> anyhow::Result<()> {
    let daemon = Daemon::start_gated(1, "")?;
    daemon.open_gate()?;
    // Somebody in the background holds it, and does not want to end.
    let code = "import fcntl, os, signal
file = open('/gate/open')
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
if os.fork() == 0:
    os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True: signal.pause()";
    for _ in 0..3 {
        ran(&daemon, code, &json!({}))?;
    }
    Ok(())
}
