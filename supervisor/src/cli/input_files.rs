//! `--in`: files and directory trees, read by the command line itself with the user's own rights.
//!
//! A tree may come from anywhere, and a link in it may point anywhere: one to `~/.ssh/id_rsa` would carry the
//! user's key into the box. So a tree is read beneath its root (openat2, `RESOLVE_BENEATH`): links
//! inside it are followed, one that leads out of it is an error that names it.
//!
//! # Invariants
//!
//! - No more than [`FILES_MAX`] files and [`FILES_BYTES_MAX`] bytes are ever read, whatever grows meanwhile.
//! - What is in a tree is a regular file, a directory, a link inside the tree, or an error; nothing is opened that
//!   could wait (a pipe) or act (a device). Only a path that the user named may be anything readable.
//! - Empty directories are left out: a job has files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2};
use wpool_protocol::job::{FILES_BYTES_MAX, FILES_MAX, InputContent, InputFile};
use wpool_protocol::path::BoxPath;
use wpool_protocol::quantity::ByteSize;

use super::job_args::InSpec;

/// Reads what all `--in` name.
pub(crate) fn read(specs: &[InSpec]) -> anyhow::Result<BTreeMap<BoxPath, InputFile>> {
    let mut collection = Collection::default();
    for spec in specs {
        let doing = || format!("failed to hand in {}", spec.path.display());
        let metadata = std::fs::metadata(&spec.path).with_context(doing)?;
        let name = name_in_box(spec).with_context(doing)?;
        if metadata.is_dir() {
            collection.add_tree(&spec.path, &name).with_context(doing)?;
        } else {
            let file = File::open(&spec.path).with_context(doing)?;
            collection.add(&name, file).with_context(doing)?;
        }
    }
    Ok(collection.files)
}

/// The name that the user gave, or the last component of the path; empty for the box itself.
fn name_in_box(spec: &InSpec) -> anyhow::Result<String> {
    match spec.name.as_deref() {
        Some(".") => Ok(String::new()),
        Some(name) => Ok(name.to_owned()),
        None => {
            // `..` and `.` have no last component until they are made absolute.
            let path = spec.path.canonicalize()?;
            let given = spec.path.file_name().or_else(|| path.file_name());
            let name = given.context("it has no name: write PATH:NAME")?;
            let name = name
                .to_str()
                .context("its name is not UTF-8: write PATH:NAME")?;
            Ok(name.to_owned())
        }
    }
}

#[derive(Default)]
struct Collection {
    files: BTreeMap<BoxPath, InputFile>,
    bytes: u64,
}

impl Collection {
    /// Adds an open file.
    fn add(&mut self, name: &str, file: File) -> anyhow::Result<()> {
        let name: BoxPath = name.parse()?;
        ensure!(
            self.files.len() < FILES_MAX,
            "there are more than {FILES_MAX} files, the most a job can be handed in"
        );
        let metadata = file.metadata()?;
        let mode = if metadata.is_file() {
            metadata.permissions().mode() & 0o777
        } else {
            InputFile::DEFAULT_MODE
        };
        let room = FILES_BYTES_MAX - self.bytes;
        let mut content = Vec::new();
        file.take(room + 1).read_to_end(&mut content)?;
        let len = u64::try_from(content.len())?;
        ensure!(
            len <= room,
            "the files are larger than {} together, the most a job can be handed in; \
             `wpool run --ro` shows files without handing them in",
            ByteSize(FILES_BYTES_MAX)
        );
        self.bytes += len;
        let taken = self.files.insert(
            name.clone(),
            InputFile {
                content: InputContent::Bytes(content),
                mode,
            },
        );
        ensure!(taken.is_none(), "two files are named {name} in the box");
        Ok(())
    }

    /// Adds all files beneath the directory `root`, under `name`.
    fn add_tree(&mut self, root: &Path, name: &str) -> anyhow::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, root, flags, Mode::empty())?;
        let mut pending = vec![PathBuf::new()];
        let mut entries = 0usize;
        while let Some(directory) = pending.pop() {
            let below = if directory.as_os_str().is_empty() {
                Path::new(".")
            } else {
                &directory
            };
            let opened = openat2(
                &root,
                below,
                flags | OFlags::NOFOLLOW,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            )
            .with_context(|| format!("failed to read {}", directory.display()))?;
            for entry in Dir::read_from(&opened)? {
                let entry = entry?;
                let entry_name = entry.file_name().to_bytes();
                if matches!(entry_name, b"." | b"..") {
                    continue;
                }
                entries += 1;
                // Directories and their entries are counted too, or a tree of empty ones could be read for ever.
                ensure!(
                    entries <= 4 * FILES_MAX,
                    "there are more than {FILES_MAX} files, the most a job can be handed in"
                );
                let entry_name = std::str::from_utf8(entry_name)
                    .with_context(|| format!("a name in {} is not UTF-8", below.display()))?;
                let path = directory.join(entry_name);
                match self.add_entry(&root, &path, name)? {
                    Found::File => {}
                    Found::Directory => pending.push(path),
                }
            }
        }
        Ok(())
    }

    /// Adds the file at `path` beneath `root`, or says that it is a directory.
    fn add_entry(
        &mut self,
        root: &rustix::fd::OwnedFd,
        path: &Path,
        prefix: &str,
    ) -> anyhow::Result<Found> {
        let shown = path.display();
        let stat = rustix::fs::statat(root, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => return Ok(Found::Directory),
            FileType::RegularFile | FileType::Symlink => {}
            _ => bail!("{shown} is no file: leave it out"),
        }
        // O_NONBLOCK: had a pipe taken the file's place since, its open would wait for a writer.
        let opened = openat2(
            root,
            path,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        );
        let file = match opened {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::XDEV) => {
                bail!(
                    "{shown} is a link that leads out of the tree: hand in what it points to by its own --in"
                )
            }
            Err(rustix::io::Errno::NOENT) if kind == FileType::Symlink => {
                bail!("{shown} is a link to nothing: leave it out")
            }
            Err(errno) => return Err(errno).with_context(|| format!("failed to open {shown}")),
        };
        ensure!(
            file.metadata()?.is_file(),
            "{shown} is a link to something that is no file: leave it out, or hand that in by its own --in"
        );
        let separator = if prefix.is_empty() { "" } else { "/" };
        let path = path.to_str().context("a name is not UTF-8")?;
        self.add(&format!("{prefix}{separator}{path}"), file)?;
        Ok(Found::File)
    }
}

enum Found {
    File,
    Directory,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn spec(path: &Path, name: Option<&str>) -> InSpec {
        InSpec {
            path: path.to_owned(),
            name: name.map(str::to_owned),
        }
    }

    fn names(files: &BTreeMap<BoxPath, InputFile>) -> Vec<&str> {
        files.keys().map(BoxPath::as_str).collect()
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("p/sub/empty")).unwrap();
        fs::write(dir.path().join("p/main.py"), "x").unwrap();
        fs::write(dir.path().join("p/sub/tool"), [0xff]).unwrap();
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path().join("p/sub/tool"), executable).unwrap();
        dir
    }

    #[test]
    fn a_tree_comes_with_its_names_and_modes() {
        let dir = tree();
        let files = read(&[spec(&dir.path().join("p"), None)]).unwrap();
        assert_eq!(names(&files), ["p/main.py", "p/sub/tool"]);
        let tool = &files[&"p/sub/tool".parse().unwrap()];
        assert_eq!(tool.mode, 0o755);
        assert_eq!(tool.content, InputContent::Bytes(vec![0xff]));
    }

    #[test]
    fn a_tree_may_be_put_into_the_box_itself() {
        let dir = tree();
        let files = read(&[spec(&dir.path().join("p"), Some("."))]).unwrap();
        assert_eq!(names(&files), ["main.py", "sub/tool"]);
    }

    #[test]
    fn a_link_inside_the_tree_is_followed_and_one_out_of_it_is_refused() {
        let dir = tree();
        symlink("main.py", dir.path().join("p/alias.py")).unwrap();
        let files = read(&[spec(&dir.path().join("p"), None)]).unwrap();
        assert_eq!(names(&files), ["p/alias.py", "p/main.py", "p/sub/tool"]);

        fs::write(dir.path().join("secret"), "s").unwrap();
        for target in ["/etc/passwd", "../secret", "/proc/self/fd/0"] {
            let link = dir.path().join("p/leak");
            symlink(target, &link).unwrap();
            let error = read(&[spec(&dir.path().join("p"), None)]).unwrap_err();
            assert!(
                format!("{error:#}").contains("leads out of the tree"),
                "{error:#}"
            );
            fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn a_pipe_in_a_tree_is_refused_and_not_waited_for() {
        let dir = tree();
        let pipe = dir.path().join("p/pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("pipe", dir.path().join("p/alias")).unwrap();
        let error = read(&[spec(&dir.path().join("p"), None)]).unwrap_err();
        assert!(format!("{error:#}").contains("no file"), "{error:#}");
        fs::remove_file(pipe).unwrap();
    }

    #[test]
    fn a_name_that_leaves_the_box_or_comes_twice_is_refused() {
        let dir = tree();
        let file = dir.path().join("p/main.py");
        assert!(read(&[spec(&file, Some("../x"))]).is_err());
        assert!(read(&[spec(&file, Some("."))]).is_err());
        assert!(read(&[spec(&file, None), spec(&file, None)]).is_err());
    }

    #[test]
    fn more_than_may_be_handed_in_is_refused_and_not_read() {
        let error = read(&[spec(Path::new("/dev/zero"), Some("zero"))]).unwrap_err();
        assert!(
            format!("{error:#}").contains("larger than 64 MiB"),
            "{error:#}"
        );
    }
}
