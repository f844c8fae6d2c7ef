//! A Landlock domain, entered for real: by a thread of the test, since a domain is a thread's own.

#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    reason = "tests start programs by std's Command"
)]
use std::io::{Write as _, stderr};

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use wpool_protocol::wire::LayerState;
use wpool_worker::landlock::{Grants, LandlockError, Ruleset, state};

/// The version of Landlock here; if it is older than wanted, says that the test is skipped.
fn abi_at_least(wanted: u32) -> bool {
    let abi = match state() {
        LayerState::Active(detail) => detail.trim_start_matches("ABI ").parse().unwrap_or(0),
        LayerState::Missing { reason, .. } => {
            stderr()
                .write_all(format!("skipped: {reason}\n").as_bytes())
                .unwrap();
            return false;
        }
    };
    if abi < wanted {
        stderr()
            .write_all(
                format!("skipped: Landlock has ABI {abi} here, {wanted} is wanted\n").as_bytes(),
            )
            .unwrap();
    }
    abi >= wanted
}

/// Runs `body` in a domain of these grants.
fn within<T: Send>(grants: Grants<'_>, body: impl FnOnce() -> T + Send) -> T {
    let ruleset = Ruleset::new(&grants).unwrap();
    thread::scope(|scope| {
        scope
            .spawn(|| {
                ruleset.restrict_self().unwrap();
                body()
            })
            .join()
            .unwrap()
    })
}

fn refused<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn sleeper() -> Child {
    Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

#[test]
fn a_job_writes_and_renames_in_its_own_places_only() {
    if !abi_at_least(3) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [own, foreign] = ["own", "foreign"].map(|name| directory.path().join(name));
    for place in [&own, &foreign] {
        fs::create_dir_all(place.join("a")).unwrap();
        fs::create_dir(place.join("b")).unwrap();
        fs::write(place.join("a/file"), "x").unwrap();
    }
    let grants = Grants {
        read_only: &[Path::new("/")],
        read_write: &[&own],
        write_in_place: &[],
    };
    within(grants, || {
        fs::rename(own.join("a/file"), own.join("b/file")).unwrap();
        fs::hard_link(own.join("b/file"), own.join("a/link")).unwrap();
        fs::write(own.join("b/file"), "shorter").unwrap();
        std::os::unix::fs::symlink("b", own.join("symbolic")).unwrap();
        fs::remove_dir_all(own.join("a")).unwrap();
        let _listener = UnixListener::bind(own.join("socket")).unwrap();
        UnixStream::connect(own.join("socket")).unwrap();

        assert_eq!(fs::read(foreign.join("a/file")).unwrap(), b"x");
        assert!(refused(fs::write(foreign.join("a/file"), "y")));
        assert!(refused(fs::write(foreign.join("new"), "y")));
        assert!(refused(fs::create_dir(foreign.join("new"))));
        assert!(refused(fs::remove_file(foreign.join("a/file"))));
        assert!(fs::rename(foreign.join("a/file"), own.join("stolen")).is_err());
        assert!(fs::rename(own.join("b/file"), foreign.join("b/file")).is_err());
        assert!(fs::hard_link(foreign.join("a/file"), own.join("stolen")).is_err());
        let truncated = nix::unistd::truncate(&foreign.join("a/file"), 0);
        assert_eq!(truncated, Err(Errno::EACCES));
    });
    assert_eq!(fs::read(foreign.join("a/file")).unwrap(), b"x");
}

#[test]
fn what_no_grant_names_cannot_be_read_or_executed() {
    if !abi_at_least(2) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [seen, hidden] = ["seen", "hidden"].map(|name| directory.path().join(name));
    fs::write(&seen, "seen").unwrap();
    fs::copy("/bin/true", &hidden).unwrap();
    let grants = Grants {
        read_only: &[&seen],
        ..Grants::default()
    };
    within(grants, || {
        assert_eq!(fs::read(&seen).unwrap(), b"seen");
        assert!(refused(File::open(&hidden)));
        assert!(refused(fs::read_dir(directory.path())));
        assert!(refused(Command::new(&hidden).status()));
    });
}

#[test]
fn devices_and_proc_are_written_in_place() {
    if !abi_at_least(5) {
        return;
    }
    let grants = Grants {
        read_only: &[Path::new("/")],
        read_write: &[],
        write_in_place: &[Path::new("/dev"), Path::new("/proc")],
    };
    within(grants, || {
        fs::write("/dev/null", "x").unwrap();
        fs::write("/proc/thread-self/comm", "landlocked").unwrap();
        let zero = File::open("/dev/zero").unwrap();
        // FIONREAD: /dev/zero has no such ioctl, which only the device itself can say.
        assert_eq!(
            rustix::io::ioctl_fionread(&zero),
            Err(rustix::io::Errno::NOTTY)
        );
        assert!(refused(File::create("/dev/made-by-a-job")));
    });
    let without = Grants {
        read_only: &[Path::new("/")],
        ..Grants::default()
    };
    within(without, || {
        assert!(refused(OpenOptions::new().write(true).open("/dev/null")));
        let zero = File::open("/dev/zero").unwrap();
        assert_eq!(
            rustix::io::ioctl_fionread(&zero),
            Err(rustix::io::Errno::ACCESS)
        );
        assert!(refused(fs::write("/proc/thread-self/comm", "x")));
    });
}

#[test]
fn signals_reach_the_own_tree_and_nothing_else() {
    if !abi_at_least(6) {
        return;
    }
    let grants = Grants {
        read_only: &[Path::new("/")],
        read_write: &[Path::new("/dev")],
        ..Grants::default()
    };
    let mut outsider = sleeper();
    kill(pid(&outsider), None).unwrap();
    let outsider_pid = pid(&outsider);
    within(grants, || {
        assert_eq!(kill(outsider_pid, None), Err(Errno::EPERM));
        let mut own = sleeper();
        kill(pid(&own), nix::sys::signal::Signal::SIGKILL).unwrap();
        own.wait().unwrap();
    });
    outsider.kill().unwrap();
    outsider.wait().unwrap();
}

#[test]
fn abstract_sockets_end_at_the_domain() {
    if !abi_at_least(6) {
        return;
    }
    let name = |who: &str| {
        let name = format!("wpool-test-{who}-{}", std::process::id());
        SocketAddr::from_abstract_name(name).unwrap()
    };
    let [outside, inside] = [name("outside"), name("inside")];
    let _outside_listener = UnixListener::bind_addr(&outside).unwrap();
    UnixStream::connect_addr(&outside).unwrap();
    within(Grants::default(), || {
        assert!(refused(UnixStream::connect_addr(&outside)));
        let _inside_listener = UnixListener::bind_addr(&inside).unwrap();
        UnixStream::connect_addr(&inside).unwrap();
    });
}

#[test]
fn a_granted_path_that_is_not_there_is_named() {
    if !abi_at_least(2) {
        return;
    }
    let nowhere = Path::new("/there/is/no/such/place");
    let grants = Grants {
        read_only: &[nowhere],
        ..Grants::default()
    };
    let error = Ruleset::new(&grants).unwrap_err();
    assert!(matches!(error, LandlockError::Path { path, .. } if path == nowhere));
}
