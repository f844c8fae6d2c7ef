//! Hosts on which no sandbox can stand: `wpool run`, `wpool serve` and `wpool doctor` name the layer, why it cannot stand *here*, and
//! what to do, in words that can be pasted; and they end. Where the config lets jobs run without it (`hosts/reduced.rs`), they do.
//!
//! What this machine cannot be made to look like (another kernel, another distribution) is tried on recorded facts, beside the diagnosis.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use nix::errno::Errno;
use nix::libc;
use serde_json::Value;
use wpool_tests::host::{Filtered, HUNG, Host};
use wpool_tests::test;
use wpool_tests::trial::{self, Test};
use wpool_tests::wpool::Said;

#[path = "hosts/reduced.rs"]
mod reduced;

const TESTS: &[Test] = &[
    test!(a_filter_on_clone3_is_named, "python3"),
    test!(a_filter_that_hides_clone3_is_named, "python3"),
    test!(a_filter_on_mount_is_named, "python3"),
    test!(a_filter_that_hides_landlock_is_named, "python3"),
    test!(
        a_limit_on_user_namespaces_is_named,
        "open binary",
        "unshare",
        "setpriv"
    ),
    test!(a_masked_file_of_proc_is_named, "root", "unshare"),
    test!(a_masked_folder_of_proc_is_named, "root", "unshare"),
    test!(the_remedy_for_a_masked_proc_works, "root", "unshare"),
    test!(a_chroot_is_named, "root", "unshare"),
    test!(
        a_user_without_subordinate_ids_is_told_how_to_get_them,
        "root",
        "open binary",
        "setpriv"
    ),
    test!(
        a_range_of_ids_that_is_too_short_is_named,
        "root",
        "open binary",
        "setpriv",
        "newuidmap"
    ),
    test!(
        a_newuidmap_without_rights_is_named,
        "root",
        "open binary",
        "setpriv",
        "newuidmap"
    ),
];

fn main() -> ExitCode {
    trial::run([TESTS, reduced::TESTS])
}

/// What is told of a host.
struct Expected<'a> {
    layer: &'a str,
    reason: &'a str,
    /// What the remedy holds, wherever wpool runs.
    remedy: &'a str,
}

fn said(mut command: Command) -> anyhow::Result<Said> {
    let said = Said::from(command.output()?);
    ensure!(said.code != HUNG, "it hangs: {said:?}");
    Ok(said)
}

/// The refusal is one line of exactly these words, and gives this remedy.
fn refused(said: &Said, expected: &Expected<'_>) -> anyhow::Result<String> {
    let Expected {
        layer,
        reason,
        remedy,
    } = expected;
    let line = said.stderr.lines().last().unwrap_or_default();
    let start = format!("wpool: the sandbox cannot be built: layer `{layer}`: {reason}; remedy: ");
    let given = line.strip_prefix(&start);
    let given = given.with_context(|| format!("expected: {start}\n{said:?}"))?;
    ensure!(
        given.contains(remedy),
        "the remedy is {given}, without {remedy}"
    );
    ensure!(said.code == 125, "{said:?}");
    Ok(given.to_owned())
}

/// `run`, `serve` and both forms of `doctor` say the same of a host.
fn all_refuse(host: Host<'_>, expected: &Expected<'_>) -> anyhow::Result<()> {
    run_and_doctor_refuse(host, expected)?;
    refused(&served(host)?, expected)?;
    Ok(())
}

/// What a daemon says that cannot start.
fn served(host: Host<'_>) -> anyhow::Result<Said> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("control.sock");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory.path(), everybody)?;
    let socket = socket.to_string_lossy();
    said(host.wpool(&["serve", "--workers", "1", "--socket", &socket]))
}

fn run_and_doctor_refuse(host: Host<'_>, expected: &Expected<'_>) -> anyhow::Result<()> {
    let run = said(host.wpool(&["run", "--", "true"]))?;
    let remedy = refused(&run, expected)?;
    ensure!(run.stderr.lines().count() == 1, "{run:?}");

    let doctor = said(host.wpool(&["doctor"]))?;
    ensure!(doctor.code == 125, "{doctor:?}");
    let verdict = format!(
        "no job can run here: the sandbox cannot be built without {}",
        expected.layer
    );
    ensure!(doctor.stdout.lines().last() == Some(&verdict), "{doctor:?}");
    ensure!(doctor.stdout.contains(expected.reason), "{doctor:?}");
    ensure!(doctor.stdout.contains(expected.remedy), "{doctor:?}");

    let json = said(host.wpool(&["doctor", "--json"]))?.json()?;
    ensure!(json["works"] == false, "{json}");
    let layer = layer_of(&json, expected.layer)?;
    ensure!(layer["state"] == "missing", "{json}");
    ensure!(layer["detail"] == expected.reason, "{json}");
    ensure!(layer["remedy"] == remedy, "{json}");
    Ok(())
}

fn layer_of<'a>(doctor: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    let mut layers = doctor["layers"].as_array().into_iter().flatten();
    let layer = layers.find(|layer| layer["name"] == name);
    layer.with_context(|| format!("no layer {name}: {doctor}"))
}

const CLONE: &str = "failed to clone a worker into its namespaces (clone3)";

const ON_CLONE3: &str =
    "Operation not permitted (os error 1): a seccomp filter around wpool answers clone3 with EPERM";

/// Engines of before 2021 answer so what they do not know. The C library then starts no thread either.
fn a_filter_on_clone3_is_named() -> anyhow::Result<()> {
    let rules = [Filtered {
        call: libc::SYS_clone3,
        errno: Errno::EPERM,
    }];
    let host = Host::Filter(&rules);
    let expected = Expected {
        layer: "namespaces",
        reason: &format!("{CLONE}: {ON_CLONE3}"),
        remedy: "",
    };
    run_and_doctor_refuse(host, &expected)?;
    let reason = &format!("failed to start the log: {ON_CLONE3}");
    let expected = Expected { reason, ..expected };
    refused(&served(host)?, &expected)?;
    Ok(())
}

fn a_filter_that_hides_clone3_is_named() -> anyhow::Result<()> {
    let rules = [libc::SYS_clone3, libc::SYS_mount].map(|call| Filtered {
        call,
        errno: Errno::ENOSYS,
    });
    all_refuse(
        Host::Filter(&rules),
        &Expected {
            layer: "namespaces",
            reason: &format!(
                "{CLONE}: Function not implemented (os error 38): a seccomp filter around wpool answers clone3 with ENOSYS, mount with ENOSYS"
            ),
            remedy: "",
        },
    )
}

fn a_filter_on_mount_is_named() -> anyhow::Result<()> {
    let rules = [Filtered {
        call: libc::SYS_mount,
        errno: Errno::EPERM,
    }];
    all_refuse(
        Host::Filter(&rules),
        &Expected {
            layer: "mount",
            reason: "failed to make all mounts private: Operation not permitted (os error 1): a seccomp filter around wpool answers mount with EPERM",
            remedy: "",
        },
    )
}

fn a_filter_that_hides_landlock_is_named() -> anyhow::Result<()> {
    let rules = [Filtered {
        call: libc::SYS_landlock_create_ruleset,
        errno: Errno::EACCES,
    }];
    let doctor = said(Host::Filter(&rules).wpool(&["doctor", "--json"]))?;
    let json = doctor.json()?;
    let layer = layer_of(&json, "landlock")?;
    ensure!(layer["state"] == "missing", "{json}");
    let findings = json["findings"].as_array().context("no findings")?;
    let finding = findings
        .iter()
        .find(|finding| finding["layer"] == "landlock");
    let reason = &finding.context("no finding")?["reason"];
    ensure!(
        *reason == "a seccomp filter around wpool answers landlock_create_ruleset with EACCES",
        "{reason}"
    );
    Ok(())
}

fn a_limit_on_user_namespaces_is_named() -> anyhow::Result<()> {
    all_refuse(
        Host::NoUserNamespaces,
        &Expected {
            layer: "user",
            reason: &format!(
                "{CLONE}: No space left on device (os error 28): user.max_user_namespaces is 0: nobody may make user namespaces"
            ),
            remedy: "echo user.max_user_namespaces=10000 >>/etc/sysctl.d/60-wpool.conf && sysctl -p /etc/sysctl.d/60-wpool.conf",
        },
    )
}

/// What is said where this place is mounted over.
fn masked(place: &str) -> String {
    format!(
        "failed to mount proc at /tmp/proc: Operation not permitted (os error 1): {place} is mounted over, and the kernel allows no new /proc where the old one is masked"
    )
}

fn a_masked_file_of_proc_is_named() -> anyhow::Result<()> {
    let expected = Expected {
        layer: "pid",
        reason: &masked("/proc/interrupts"),
        remedy: "",
    };
    all_refuse(Host::MaskedProc("/proc/interrupts"), &expected)
}

fn a_masked_folder_of_proc_is_named() -> anyhow::Result<()> {
    let expected = Expected {
        layer: "pid",
        reason: &masked("/proc/sys"),
        remedy: "",
    };
    all_refuse(Host::MaskedProc("/proc/sys"), &expected)
}

fn the_remedy_for_a_masked_proc_works() -> anyhow::Result<()> {
    let host = Host::MaskedProcBesideWhole("/proc/interrupts");
    let run = said(host.wpool(&["run", "--", "echo", "ran"]))?;
    ensure!((run.code, &*run.stdout) == (0, "ran\n"), "{run:?}");
    let json = said(host.wpool(&["doctor", "--json"]))?.json()?;
    ensure!(json["works"] == true, "{json}");
    Ok(())
}

fn a_chroot_is_named() -> anyhow::Result<()> {
    let reason = format!(
        "{CLONE}: Operation not permitted (os error 1): wpool is in a chroot, in which the kernel makes no user namespaces"
    );
    let expected = Expected {
        layer: "user",
        reason: &reason,
        remedy: "systemd-nspawn -D",
    };
    let root = tempfile::tempdir()?;
    let host = Host::Chroot(root.path());
    let run = said(host.wpool(&["run", "--", "true"]))?;
    refused(&run, &expected)?;
    Ok(())
}

/// `wpool run` of a user whose jobs must have ids of their own.
fn run_with_own_ids(files: &[(&Path, &str)]) -> anyhow::Result<Said> {
    let mut command = Host::User(files).wpool(&["run", "--", "true"]);
    command.env("WPOOL_POOL_IDENTITY", "own");
    said(command)
}

fn a_user_without_subordinate_ids_is_told_how_to_get_them() -> anyhow::Result<()> {
    let tables = ["/etc/subuid", "/etc/subgid"]
        .map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(65_534))?;
    let user = user.context("nobody has no name")?.name;
    ensure!(
        !tables.concat().contains(&format!("{user}:")),
        "{user} has subordinate ids"
    );
    let run = run_with_own_ids(&[])?;
    let remedy = refused(
        &run,
        &Expected {
            layer: "identity",
            reason: &format!("/etc/subuid has no range for {user}"),
            remedy: "as root: usermod --add-subuids ",
        },
    )?;
    // Nobody's so far.
    let first = remedy
        .split_whitespace()
        .find_map(|word| word.split_once('-')?.0.parse::<u32>().ok());
    let first = first.context("no range")?;
    ensure!(!tables.concat().contains(&format!(":{first}:")), "{remedy}");
    Ok(())
}

fn a_range_of_ids_that_is_too_short_is_named() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let table = directory.path().join("table");
    std::fs::write(&table, "nobody:700000:1\n")?;
    let run = run_with_own_ids(&[(&table, "/etc/subuid"), (&table, "/etc/subgid")])?;
    refused(
        &run,
        &Expected {
            layer: "identity",
            reason: "/etc/subuid gives nobody 1 ids, fewer than the 2 of a slot",
            remedy: "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 nobody",
        },
    )?;
    Ok(())
}

fn a_newuidmap_without_rights_is_named() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let table = directory.path().join("table");
    std::fs::write(&table, "nobody:700000:65536\n")?;
    // A copy has no bit and no capability.
    let copy = directory.path().join("newuidmap");
    std::fs::copy("/usr/bin/newuidmap", &copy)?;
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let run = run_with_own_ids(&[
        (&table, "/etc/subuid"),
        (&table, "/etc/subgid"),
        (&copy, "/usr/bin/newuidmap"),
    ])?;
    refused(
        &run,
        &Expected {
            layer: "identity",
            reason: "/usr/bin/newuidmap is not setuid root, has no capability, or lies on a file system that is mounted nosuid",
            remedy: "as root: chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap",
        },
    )?;
    Ok(())
}
