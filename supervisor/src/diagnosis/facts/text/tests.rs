//! Odd and hostile files.

use super::*;

#[test]
fn no_text_is_too_odd() {
    for text in [
        "",
        "\0",
        "::::",
        " - ",
        "a b c d e - ",
        "0 0\n\n0",
        "-1",
        "99999999999999999999 1 1",
        "/.service",
        "0::/.service",
        "\u{fffd}\n",
    ] {
        assert_eq!(version(text).filter(|_| text.starts_with('-')), None);
        assert_eq!(field(text, "Seccomp", 10), None);
        assert_ne!(id_space(Some(text)), IdSpace::Whole);
        assert_eq!(family(text), Family::Other);
        assert_eq!(wsl(text), None);
        assert_eq!(unit(text), None, "{text:?}");
        assert_eq!(proc(text), Proc::Absent);
        assert_eq!(root(text), Root::Mount, "{text:?}");
        assert_eq!(
            container(&|path| path.starts_with("/proc").then(|| text.to_owned())),
            None
        );
    }
}

#[test]
fn releases_are_read_up_to_their_second_number() {
    for (release, expected) in [
        ("6.1.0-28-amd64", Some((6, 1))),
        ("5.15", Some((5, 15))),
        ("5.15.167.4-microsoft-standard-WSL2\n", Some((5, 15))),
        ("6", None),
        ("next", None),
    ] {
        assert_eq!(version(release), expected, "{release}");
    }
}

#[test]
fn a_unit_is_a_service_and_no_scope_in_one() {
    let of = |text: &str| unit(text).map(|unit| (unit.name, unit.manager));
    let name = |name: &str, manager| Some((name.to_owned(), manager));
    assert_eq!(
        of("0::/system.slice/wpool.service\n"),
        name("wpool.service", Manager::System)
    );
    assert_eq!(
        of("0::/system.slice/wpool.service/supervisor"),
        name("wpool.service", Manager::System)
    );
    assert_eq!(
        of("12:memory:/x.service\n1:name=systemd:/system.slice/cron.service\n0::/\n"),
        name("cron.service", Manager::System)
    );
    let user = "/user.slice/user-1000.slice/user@1000.service";
    assert_eq!(
        of(&format!("0::{user}/app.slice/a.service\n")),
        name("a.service", Manager::User)
    );
    assert_eq!(of(&format!("0::{user}/app.slice/run-1.scope\n")), None);
    assert_eq!(of(&format!("0::{user}/init.scope\n")), None);
    assert_eq!(of("0::/user.slice/user-1000.slice/session-3.scope\n"), None);
}

#[test]
fn what_hides_nothing_masks_nothing() {
    let own = "24 21 0:22 / /proc rw,relatime - proc proc rw\n";
    let over = |line: &str| proc(&format!("{own}{line}\n"));
    assert_eq!(over(""), Proc::Visible);
    assert_eq!(
        over("30 24 0:27 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw"),
        Proc::Visible
    );
    assert_eq!(
        over("30 21 0:27 / /procession rw - tmpfs none rw"),
        Proc::Visible
    );
    let masked = Proc::Masked(vec!["/proc/kcore".to_owned()]);
    assert_eq!(
        over("30 24 0:6 /null /proc/kcore rw - devtmpfs udev rw"),
        masked
    );
    assert_eq!(
        over("30 24 0:27 / /proc rw - tmpfs none rw"),
        Proc::Masked(vec!["/proc".to_owned()])
    );
    // Another one that is whole, anywhere, is enough.
    let other =
        "30 24 0:6 /null /proc/kcore rw - devtmpfs udev rw\n40 21 0:30 / /mnt/p rw - proc p rw";
    assert_eq!(over(other), Proc::Visible);
    assert_eq!(
        proc("24 21 0:22 / /proc ro,relatime - proc proc rw\n"),
        Proc::ReadOnly
    );
    assert_eq!(
        proc("24 21 0:22 / /proc rw,relatime - proc proc ro\n"),
        Proc::ReadOnly
    );
    assert_eq!(
        proc("24 21 0:22 /sys /proc/sys rw - proc proc rw\n"),
        Proc::Absent
    );
}
