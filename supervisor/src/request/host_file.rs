//! Files of the host that a job names as its input.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fcntl_setfl, openat, openat2};
use rustix::io::Errno;

/// A host file that a job does not get.
#[derive(Debug, thiserror::Error)]
pub enum HostFileError {
    /// The profile has no roots at all, or none above this path.
    #[error("`{path}` is not beneath a directory that the profile allows (`file_roots`)")]
    OutsideRoots {
        /// The path.
        path: String,
    },
    /// It cannot be opened.
    #[error("`{path}` cannot be opened")]
    Open {
        /// The path.
        path: String,
        /// How.
        #[source]
        source: io::Error,
    },
    /// A link, a directory, a pipe, a device.
    #[error("`{path}` is not a regular file; name the file itself, without links")]
    NotRegular {
        /// The path.
        path: String,
    },
    /// Larger than there is room for.
    #[error("`{path}` is larger than what is left of the 64 MiB for all files")]
    TooLarge {
        /// The path.
        path: String,
    },
}

/// Reads a file beneath one of `roots`, at most `room` bytes.
pub(super) fn read_beneath(
    path: &str,
    roots: &[PathBuf],
    room: u64,
) -> Result<Vec<u8>, HostFileError> {
    let outside = || HostFileError::OutsideRoots {
        path: path.to_owned(),
    };
    let (beneath, rest) = roots
        .iter()
        .find_map(|root| Some((root, Path::new(path).strip_prefix(root).ok()?)))
        .filter(|(_, rest)| !rest.as_os_str().is_empty())
        .ok_or_else(outside)?;
    let failed = |errno: Errno| match errno {
        // openat2(2): EXDEV is an attempt to leave, ELOOP a link.
        Errno::XDEV => outside(),
        Errno::LOOP => HostFileError::NotRegular {
            path: path.to_owned(),
        },
        errno => HostFileError::Open {
            path: path.to_owned(),
            source: errno.into(),
        },
    };
    let dir = openat(
        CWD,
        beneath,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(failed)?;
    // NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    let file = openat2(
        &dir,
        rest,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(failed)?;
    fcntl_setfl(&file, OFlags::empty()).map_err(failed)?;
    let file = File::from(file);
    let unreadable = |source| HostFileError::Open {
        path: path.to_owned(),
        source,
    };
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(HostFileError::NotRegular {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    file.take(room.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > room {
        return Err(HostFileError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_beneath_a_root_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("in");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/a"), "content").unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink("../secret", root.join("link")).unwrap();
        symlink("sub", root.join("dirlink")).unwrap();
        rustix::fs::mknodat(
            CWD,
            root.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        let roots = [root.clone()];
        let read = |name: &str, room| {
            let path = root.join(name);
            read_beneath(path.to_str().unwrap(), &roots, room)
        };
        assert_eq!(read("sub/a", 7).unwrap(), b"content");
        assert!(matches!(
            read("sub/a", 6),
            Err(HostFileError::TooLarge { .. })
        ));
        for outside in ["../secret", "sub/../../secret"] {
            assert!(
                matches!(read(outside, 99), Err(HostFileError::OutsideRoots { .. })),
                "{outside}"
            );
        }
        for odd in ["link", "dirlink/a", "pipe", "sub"] {
            assert!(
                matches!(read(odd, 99), Err(HostFileError::NotRegular { .. })),
                "{odd}"
            );
        }
        assert!(matches!(
            read("missing", 9),
            Err(HostFileError::Open { .. })
        ));
        let elsewhere = read_beneath("/etc/passwd", &roots, 1 << 20);
        assert!(matches!(elsewhere, Err(HostFileError::OutsideRoots { .. })));
        let no_roots = read_beneath("/etc/passwd", &[], 1 << 20);
        assert!(matches!(no_roots, Err(HostFileError::OutsideRoots { .. })));
    }
}
