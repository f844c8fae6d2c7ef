//! `--out`: what a job left, written where the user asked for it.
//!
//! The names come from the job, so that they say where below a directory a file goes only as far as the user's own
//! pattern lets them; and the directory may be one where others plant links (`/tmp`).
//!
//! # Invariants
//!
//! - A file is written only if its name matches an `--out` of the command line.
//! - Below the directory that the user named no link is followed, and no name climbs; a file is written aside
//!   and renamed into place, so that it is never half there and never written through a link.
//! - Nothing but a regular file is ever replaced.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use globset::GlobMatcher;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use wpool_protocol::outcome::{OutputError, OutputFile};
use wpool_protocol::path::BoxPath;

use super::screen::Screen;

/// `--out NAME[:PATH]`. The first colon separates.
#[derive(Clone, Debug)]
pub(crate) struct OutSpec {
    /// A name in the box, or a pattern.
    pub(crate) pattern: String,
    /// What it matches, if it is a pattern.
    matcher: Option<GlobMatcher>,
    /// Where it goes.
    to: Destination,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Destination {
    /// Below the working directory, by its name in the box.
    Here,
    /// Below this directory, by its name in the box.
    Directory(PathBuf),
    /// Here, whatever its name in the box.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

impl OutSpec {
    /// Takes the argument apart and sees whether it can be done.
    pub(crate) fn parse(text: OsString) -> Result<Self, String> {
        let mut bytes = text.into_vec();
        let to = bytes.iter().position(|&byte| byte == b':').map(|colon| {
            let path = bytes.split_off(colon).split_off(1);
            OsString::from_vec(path)
        });
        let pattern = String::from_utf8(bytes).map_err(|_| "the name is not UTF-8".to_owned())?;
        pattern
            .parse::<BoxPath>()
            .map_err(|error| error.to_string())?;
        // As the worker understands it.
        let matcher = wpool_worker::collect::glob(&pattern).map(|glob| glob.compile_matcher());
        let to = match to {
            None if matcher.is_some() && pattern.starts_with(['*', '?', '[', '\\']) => {
                return Err(format!(
                    "it could replace any file here: name a directory, like `{pattern}:results`"
                ));
            }
            None => Destination::Here,
            Some(path) if path.is_empty() => {
                return Err("expected a path after the colon".to_owned());
            }
            Some(path) if path == "-" => Destination::Stdout,
            Some(path)
                if matcher.is_some()
                    || path.as_bytes().ends_with(b"/")
                    || Path::new(&path).is_dir() =>
            {
                Destination::Directory(path.into())
            }
            Some(path) => Destination::File(path.into()),
        };
        Ok(Self {
            pattern,
            matcher,
            to,
        })
    }

    fn matches(&self, name: &str) -> bool {
        match &self.matcher {
            Some(matcher) => matcher.is_match(name),
            None => self.pattern == name,
        }
    }
}

/// Writes all files where the command line says, and gives back a line about each that cannot be.
pub(crate) fn write(
    specs: &[OutSpec],
    files: &std::collections::BTreeMap<String, OutputFile>,
    screen: &mut Screen<'_>,
) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for (name, file) in files {
        let content = match file {
            OutputFile::Text(text) => text.clone().into_bytes(),
            OutputFile::Base64(coded) => base64::prelude::BASE64_STANDARD
                .decode(coded)
                .with_context(|| format!("{name} came out damaged"))?,
            OutputFile::Error(error) => {
                problems.push(format!("{name} did not come out: {}", in_words(*error)));
                continue;
            }
        };
        for spec in specs.iter().filter(|spec| spec.matches(name)) {
            let doing = || format!("failed to write {name}");
            match &spec.to {
                Destination::Stdout => screen.raw(&content)?,
                Destination::Here => {
                    put_below(Path::new("."), name, &content).with_context(doing)?;
                }
                Destination::Directory(directory) => {
                    std::fs::create_dir_all(directory).with_context(doing)?;
                    put_below(directory, name, &content).with_context(doing)?;
                }
                Destination::File(path) => put_at(path, &content).with_context(doing)?,
            }
        }
    }
    Ok(problems)
}

fn in_words(error: OutputError) -> &'static str {
    match error {
        OutputError::Missing => "the job left no such file",
        OutputError::NotRegular => "it is no regular file",
        OutputError::TooLarge => "it, or all files together, are larger than 64 MiB",
        OutputError::TooMany => "there are more than 4096 files",
        OutputError::Unreadable => "it could not be read",
        OutputError::Lost => "its worker was lost",
    }
}

/// Writes a file at a path that the user named.
fn put_at(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let name = path.file_name().context("it has no file name")?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = open_directory(parent)?;
    put(&directory, Path::new(name), content)
}

/// Writes a file below a directory that the user named, under a name that the job chose.
fn put_below(directory: &Path, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let name: BoxPath = name.parse()?;
    let mut directory = open_directory(directory)?;
    let mut components: Vec<&str> = name.components().collect();
    let last = components.pop().context("it has no file name")?;
    for component in components {
        match mkdirat(&directory, component, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = openat(&directory, component, flags, Mode::empty())
            .with_context(|| format!("{component} is there and is no directory"))?;
    }
    put(&directory, Path::new(last), content)
}

fn open_directory(path: &Path) -> anyhow::Result<OwnedFd> {
    openat(
        CWD,
        path,
        OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .with_context(|| format!("failed to open {}", path.display()))
}

/// Writes a file aside and renames it into place.
fn put(directory: &OwnedFd, name: &Path, content: &[u8]) -> anyhow::Result<()> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
        Ok(stat) => ensure!(
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
            "{} is there and is no regular file: remove it, or name another place",
            name.display()
        ),
    }
    let (aside, file) = create_aside(directory)?;
    let written = write_all(file, content)
        .and_then(|()| renameat(directory, &aside, directory, name).map_err(io::Error::from));
    if written.is_err() {
        // What cannot be written may be impossible to remove too; the first error is the one to tell.
        drop(unlinkat(directory, &aside, AtFlags::empty()).map_err(io::Error::from));
    }
    Ok(written?)
}

fn write_all(mut file: File, content: &[u8]) -> io::Result<()> {
    file.write_all(content)
}

/// A new file under a name that nobody has; `O_EXCL` follows no link and takes no file of others.
fn create_aside(directory: &OwnedFd) -> anyhow::Result<(String, File)> {
    for n in 0..100 {
        let name = format!(".wpool-{}-{n}.part", std::process::id());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(directory, name.as_str(), flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => return Ok((name, File::from(file))),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    anyhow::bail!("files named .wpool-*.part are in the way: remove them")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::screen::Form;
    use super::*;

    fn write_out(option: &str, name: &str) -> (anyhow::Result<Vec<String>>, Vec<u8>) {
        let spec = OutSpec::parse(option.into()).unwrap();
        let files = BTreeMap::from([(name.to_owned(), OutputFile::Text("new".into()))]);
        let mut shown = Vec::new();
        let written = write(&[spec], &files, &mut Screen::into(&mut shown, Form::Text));
        (written, shown)
    }

    #[test]
    fn a_file_goes_where_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("result.json");
        let (written, _) = write_out(&format!("r.json:{}", to.display()), "r.json");
        assert!(written.unwrap().is_empty());
        assert_eq!(fs::read_to_string(to).unwrap(), "new");
    }

    #[test]
    fn what_a_pattern_matches_keeps_its_name_below_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let option = format!("out/*.png:{}/deep", dir.path().display());
        write_out(&option, "out/a.png").0.unwrap();
        assert!(dir.path().join("deep/out/a.png").is_file());
        write_out(&option, "out/a.txt").0.unwrap();
        assert!(
            !dir.path().join("deep/out/a.txt").exists(),
            "it was not asked for"
        );
        let names: Vec<_> = fs::read_dir(dir.path().join("deep/out"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["a.png"], "nothing is left aside");
    }

    #[test]
    fn a_planted_link_is_neither_followed_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "old").unwrap();
        let planted = dir.path().join("r.json");
        symlink(&victim, &planted).unwrap();
        let (written, _) = write_out(&format!("r.json:{}", planted.display()), "r.json");
        assert!(format!("{:#}", written.unwrap_err()).contains("no regular file"));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "old");
        assert!(planted.is_symlink());
    }

    #[test]
    fn a_planted_link_to_a_directory_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), dir.path().join("out")).unwrap();
        let (written, _) = write_out(&format!("out/*:{}/", dir.path().display()), "out/x");
        assert!(written.is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn names_that_climb_are_refused_wherever_they_come_from() {
        for option in ["../x", "/etc/x", "a/../b", "", "**/x", "*"] {
            assert!(OutSpec::parse(option.into()).is_err(), "{option}");
        }
        assert!(put_below(Path::new("."), "../x", b"").is_err());
    }

    #[test]
    fn a_dash_is_standard_output_and_a_missing_file_is_a_problem() {
        let (written, shown) = write_out("r.json:-", "r.json");
        assert!(written.unwrap().is_empty());
        assert_eq!(shown, b"new");
        let spec = OutSpec::parse("x:-".into()).unwrap();
        let files = BTreeMap::from([("x".into(), OutputFile::Error(OutputError::Missing))]);
        let mut shown = Vec::new();
        let problems = write(&[spec], &files, &mut Screen::into(&mut shown, Form::Text)).unwrap();
        assert_eq!(problems, ["x did not come out: the job left no such file"]);
    }
}
