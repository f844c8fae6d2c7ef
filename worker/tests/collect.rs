//! Outputs of hostile jobs, brought out of real directories: the attacks of a job on whoever collects.

#![cfg(test)]
use std::io::{Write as _, stderr};

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::mkfifo;
use wpool_protocol::outcome::OutputError;
use wpool_worker::collect::{Bounds, Output, collect};

/// What came out: names, and the content or the error.
type Collected = Vec<(String, Result<Vec<u8>, OutputError>)>;

fn content(output: Output) -> (String, Result<Vec<u8>, OutputError>) {
    let bytes = output.file.map(|mut file| {
        let mut bytes = Vec::new();
        let mut buffer = [0; 100];
        loop {
            match file.read(&mut buffer).unwrap() {
                0 => break bytes,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    });
    (output.name.escape_ascii().to_string(), bytes)
}

fn collect_within(root: &Path, outputs: &[&str], bounds: &Bounds) -> Collected {
    let directory = File::open(root).unwrap();
    let outputs: Vec<String> = outputs.iter().map(ToString::to_string).collect();
    collect(directory.as_fd(), &outputs, bounds)
        .map(content)
        .collect()
}

fn collected(root: &Path, outputs: &[&str]) -> Collected {
    collect_within(root, outputs, &Bounds::JOB)
}

fn file(name: &str, bytes: &str) -> (String, Result<Vec<u8>, OutputError>) {
    (name.to_owned(), Ok(bytes.as_bytes().to_vec()))
}

fn error(name: &str, error: OutputError) -> (String, Result<Vec<u8>, OutputError>) {
    (name.to_owned(), Err(error))
}

#[test]
fn names_and_patterns_bring_files_out() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("out/deep/er")).unwrap();
    for (name, bytes) in [
        ("report.json", "{}"),
        ("out/a.png", "A"),
        ("out/b.png", "B"),
        ("out/c.txt", "C"),
        ("out/deep/er/d.png", "D"),
    ] {
        fs::write(root.path().join(name), bytes).unwrap();
    }
    assert_eq!(
        collected(root.path(), &["report.json", "out/*.png", "out/a.png"]),
        [
            file("out/a.png", "A"),
            file("out/b.png", "B"),
            file("report.json", "{}")
        ]
    );
    assert_eq!(
        collected(
            root.path(),
            &["**/*.png", "x", "out/*.gif", "out/d*", "out"]
        ),
        [
            error("out", OutputError::NotRegular),
            file("out/a.png", "A"),
            file("out/b.png", "B"),
            file("out/deep/er/d.png", "D"),
            error("x", OutputError::Missing),
            error("out/*.gif", OutputError::Missing),
            error("out/d*", OutputError::NotRegular),
        ]
    );
}

#[test]
fn a_link_is_not_followed_at_the_end_nor_on_the_way() {
    let root = tempfile::tempdir().unwrap();
    let secrets = tempfile::tempdir().unwrap();
    fs::write(secrets.path().join("secret"), "secret").unwrap();
    let inside = |name: &str| root.path().join(name);
    symlink(secrets.path().join("secret"), inside("link")).unwrap();
    symlink(secrets.path(), inside("directory")).unwrap();
    symlink("/proc/self", inside("proc")).unwrap();
    symlink("loop", inside("loop")).unwrap();
    symlink("nowhere", inside("dangling")).unwrap();
    fs::write(inside("real"), "real").unwrap();
    symlink("real", inside("to-real")).unwrap();
    fs::create_dir(inside("kept")).unwrap();
    fs::write(inside("kept/real"), "real").unwrap();
    symlink("kept", inside("to-kept")).unwrap();
    let names = [
        "link",
        "directory/secret",
        "proc/environ",
        "proc/fd/0",
        "loop",
        "loop/x",
        "dangling",
        "to-real",
        "to-kept/real",
        "../secret",
        "/etc/passwd",
    ];
    for name in names {
        assert_eq!(
            collected(root.path(), &[name]),
            [error(name, OutputError::NotRegular)],
        );
    }
    assert_eq!(
        collected(root.path(), &["**/secret", "proc/*", "**/environ"]),
        [
            error("**/secret", OutputError::Missing),
            error("proc/*", OutputError::Missing),
            error("**/environ", OutputError::Missing),
        ]
    );
    let through_pattern = collected(root.path(), &["*"]);
    let readable: Vec<_> = through_pattern
        .iter()
        .filter(|(_, file)| file.is_ok())
        .collect();
    assert_eq!(readable, [&file("real", "real")]);
}

#[test]
fn a_name_that_turns_into_a_link_is_never_followed() {
    let root = tempfile::tempdir().unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let secret = secrets.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::write(root.path().join("file"), "mine").unwrap();
    symlink(&secret, root.path().join("link")).unwrap();
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let directory = File::open(root.path()).unwrap();
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            for _ in 0..50_000 {
                rustix::fs::renameat_with(&directory, "file", &directory, "link", exchange)
                    .unwrap();
            }
        });
        while !swapper.is_finished() {
            for (_, file) in collected(root.path(), &["file", "*"]) {
                if let Ok(bytes) = file {
                    assert_eq!(bytes, b"mine");
                }
            }
        }
    });
}

#[test]
fn what_is_no_regular_file_is_refused_and_blocks_nobody() {
    let root = tempfile::tempdir().unwrap();
    let inside = |name: &str| root.path().join(name);
    mkfifo(&inside("fifo"), Mode::from_bits_truncate(0o666)).unwrap();
    let _socket = UnixListener::bind(inside("socket")).unwrap();
    fs::create_dir(inside("directory")).unwrap();
    let mut names = vec!["fifo", "socket", "directory"];
    let device = nix::sys::stat::makedev(1, 5);
    match mknod(
        &inside("zero"),
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        device,
    ) {
        Ok(()) => names.push("zero"),
        Err(errno) => stderr()
            .write_all(format!("skipped: devices cannot be made here: {errno}\n").as_bytes())
            .unwrap(),
    }
    for name in &names {
        assert_eq!(
            collected(root.path(), &[name]),
            [error(name, OutputError::NotRegular)]
        );
    }
    let by_pattern = collected(root.path(), &["*"]);
    assert!(by_pattern.len() >= 2);
    for (name, file) in by_pattern {
        assert_eq!(file, Err(OutputError::NotRegular), "{name}");
    }
}

#[test]
fn a_file_with_two_names_is_two_files() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a"), "x").unwrap();
    fs::hard_link(root.path().join("a"), root.path().join("b")).unwrap();
    assert_eq!(
        collected(root.path(), &["*"]),
        [file("a", "x"), file("b", "x")]
    );
}

#[test]
fn a_file_of_a_terabyte_that_is_none_costs_nothing() {
    let root = tempfile::tempdir().unwrap();
    let sparse = File::create(root.path().join("sparse")).unwrap();
    if let Err(error) = sparse.set_len(1 << 40) {
        stderr()
            .write_all(format!("skipped: no file of 1 TiB can be made here: {error}\n").as_bytes())
            .unwrap();
        return;
    }
    fs::write(root.path().join("z"), "small").unwrap();
    assert_eq!(
        collected(root.path(), &["*"]),
        [error("sparse", OutputError::TooLarge), file("z", "small")]
    );
}

#[test]
fn all_files_together_stay_within_the_bytes() {
    let root = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(root.path().join(name), [b'x'; 400]).unwrap();
    }
    let bounds = Bounds {
        bytes: 1_000,
        ..Bounds::JOB
    };
    let answers = collect_within(root.path(), &["*"], &bounds);
    let delivered: Vec<bool> = answers.iter().map(|(_, file)| file.is_ok()).collect();
    assert_eq!(delivered, [true, true, false]);
    assert_eq!(answers[2].1, Err(OutputError::TooLarge));
}

#[test]
fn a_file_that_changes_while_it_is_read_keeps_its_announced_size() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("f");
    fs::write(&path, "12345").unwrap();
    let directory = File::open(root.path()).unwrap();
    let open = || {
        let output = collect(directory.as_fd(), &["f".to_owned()], &Bounds::JOB).next();
        output.unwrap().file.unwrap()
    };
    let mut growing = open();
    fs::write(&path, "1234567890").unwrap();
    let mut buffer = [0; 100];
    assert_eq!(growing.size(), 5);
    assert_eq!(growing.read(&mut buffer).unwrap(), 5);
    assert_eq!(growing.read(&mut buffer).unwrap(), 0);
    let mut shrinking = open();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(3)
        .unwrap();
    assert_eq!(shrinking.read(&mut buffer).unwrap(), 3);
    let error = shrinking.read(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_hundred_thousand_files_are_cut_and_it_is_said() {
    // A box lies in memory; on a disk, making the files would take most of the time.
    let in_memory = tempfile::tempdir_in("/dev/shm");
    let root = in_memory.or_else(|_| tempfile::tempdir()).unwrap();
    for directory in 0..100 {
        let directory = root.path().join(format!("{directory:02}"));
        fs::create_dir(&directory).unwrap();
        for name in 0..1_000 {
            File::create(directory.join(format!("{name:03}"))).unwrap();
        }
    }
    let bounds = Bounds::JOB;
    let answers = collected(root.path(), &["**", "99/999"]);
    assert_eq!(answers.len(), bounds.files + 1);
    // The names asked for come first into the count, then the first ones that match.
    assert_eq!(answers[0], file("00/000", ""));
    assert_eq!(answers[bounds.files - 1], file("99/999", ""));
    assert_eq!(answers[bounds.files], error("**", OutputError::TooMany));

    let few = Bounds {
        entries: 1_000,
        ..bounds
    };
    let answers = collect_within(root.path(), &["**/nothing", "00/000"], &few);
    assert_eq!(
        answers,
        [
            file("00/000", ""),
            error("**/nothing", OutputError::TooMany)
        ]
    );
}

#[test]
fn patterns_that_are_dear_are_cut_and_it_is_said() {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    let root = in_memory.or_else(|_| tempfile::tempdir()).unwrap();
    for n in 0..5_000u32 {
        // Every name is another word of a and b.
        let word: String = (0..200)
            .map(|bit| if (n >> (bit % 13)) & 1 == 0 { 'a' } else { 'b' })
            .collect();
        File::create(root.path().join(format!("{n:05}{word}"))).unwrap();
    }
    let dear = format!("**/*a{}b", "?".repeat(40));
    let answers = collected(root.path(), &[&dear]);
    assert_eq!(answers.last().unwrap(), &error(&dear, OutputError::TooMany));
    // Many that are cheap alone are dear together.
    let many: Vec<String> = (b'a'..=b'z')
        .map(|c| format!("*{}???", char::from(c)))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let answers = collected(root.path(), &many);
    assert!(
        answers.contains(&error("*a???", OutputError::TooMany)),
        "{answers:?}"
    );
    let cheap = collected(root.path(), &["**/*c?"]);
    assert_eq!(cheap, [error("**/*c?", OutputError::Missing)]);
}

#[test]
fn a_tree_thousands_deep_is_cut_and_it_is_said() {
    let root = tempfile::tempdir().unwrap();
    let mut directory = std::os::fd::OwnedFd::from(File::open(root.path()).unwrap());
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    for _ in 0..4_096 {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        rustix::fs::mkdirat(&directory, "d", mode).unwrap();
        directory = rustix::fs::openat(&directory, "d", flags, mode).unwrap();
    }
    fs::write(root.path().join("d/d/x"), "near").unwrap();
    assert_eq!(
        collected(root.path(), &["**/x"]),
        [file("d/d/x", "near"), error("**/x", OutputError::TooMany)]
    );
    assert_eq!(collected(root.path(), &["d/*/x"]), [file("d/d/x", "near")]);
}

#[test]
fn a_name_that_is_too_long_to_tell_is_cut_and_it_is_said() {
    let root = tempfile::tempdir().unwrap();
    let long = "d".repeat(250);
    let mut deep = root.path().to_owned();
    for _ in 0..6 {
        deep.push(&long);
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join("f"), "x").unwrap();
    }
    let found = collected(root.path(), &["**"]);
    let (files, remarks) = found.split_at(4);
    assert!(
        files
            .iter()
            .all(|(name, file)| name.len() <= 1_024 && file.is_ok())
    );
    assert_eq!(remarks, [error("**", OutputError::TooMany)]);
}

#[test]
fn names_are_bytes() {
    let root = tempfile::tempdir().unwrap();
    let names: [&[u8]; 6] = [
        b"new\nline",
        b"\xff\xfe",
        b"..x",
        b" ",
        b"\x1b[31m",
        b"a\\b",
    ];
    for name in names {
        fs::write(root.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let directory = File::open(root.path()).unwrap();
    let mut found = Vec::new();
    for mut output in collect(directory.as_fd(), &["*".to_owned()], &Bounds::JOB) {
        let mut buffer = [0; 100];
        let count = output.file.as_mut().unwrap().read(&mut buffer).unwrap();
        assert_eq!(output.name, buffer[..count]);
        found.push(OsString::from_vec(output.name));
    }
    assert_eq!(found.len(), names.len());
}

#[test]
fn what_cannot_be_opened_is_said_to_be_unreadable_unless_one_may() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("closed")).unwrap();
    fs::write(root.path().join("closed/inside"), "i").unwrap();
    fs::write(root.path().join("mode-000"), "m").unwrap();
    for name in ["closed", "mode-000"] {
        fs::set_permissions(root.path().join(name), Permissions::from_mode(0o000)).unwrap();
    }
    let answers = collected(root.path(), &["mode-000", "closed/*"]);
    if File::open(root.path().join("mode-000")).is_ok() {
        assert_eq!(answers, [file("closed/inside", "i"), file("mode-000", "m")]);
    } else {
        assert_eq!(
            answers,
            [
                error("mode-000", OutputError::Unreadable),
                error("closed/*", OutputError::Missing),
                error("closed", OutputError::Unreadable),
            ]
        );
    }
    fs::set_permissions(root.path().join("closed"), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_tmpfs_that_is_mounted_nowhere_is_collected_from() {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen,
    };

    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_create(&context)?;
        fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
    });
    let detached = match tmpfs {
        Ok(detached) => detached,
        Err(errno) => {
            stderr()
                .write_all(format!("skipped: a tmpfs cannot be made here: {errno}\n").as_bytes())
                .unwrap();
            return;
        }
    };
    let open = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CREATE;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let written = rustix::fs::openat(&detached, "f", open, mode).unwrap();
    File::from(written).write_all_at(b"x", 0).unwrap();
    let answers: Collected = collect(detached.as_fd(), &["*".to_owned()], &Bounds::JOB)
        .map(content)
        .collect();
    assert_eq!(answers, [file("f", "x")]);
    let mut again = File::from(rustix::fs::openat(&detached, "f", open, mode).unwrap());
    let mut bytes = Vec::new();
    again.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"x");
}
