//! Bringing a job's output files out of its box, after its tree is dead.
//!
//! ```text
//!   collect(root, outputs, bounds) ─▶ for each Output: name, and an open file or why there is none
//!                                              └─▶ OutputFile::read … until its size is reached
//! ```
//!
//! The one who collects has more rights than the job, and everything in the box is of the job's making:
//! links to files of the host, pipes that block, files that claim to be huge, names of any bytes.
//!
//! # Invariants
//!
//! - Only regular files come out, and only such as lie in the box itself: no link is followed on the way
//!   or at its end (see `crate::beneath`), and nothing but a regular file is opened at all.
//! - All files together stay within [`Bounds`]; size is what the file claims, so that a sparse file costs no time.
//!   A file that grows while it is read is cut at the size that was announced.
//! - Each name and each pattern that was asked for is answered by at least one [`Output`].
//! - A hard link is a file like any other: links do not cross mounts, so that both names lie in the box.

mod pattern;
mod walk;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use wpool_protocol::job::{FILES_BYTES_MAX, FILES_MAX};
use wpool_protocol::outcome::OutputError;
use wpool_protocol::path::BoxPath;

use self::pattern::Asked;
pub use self::pattern::glob;
use self::walk::{Verdict, walk};
use crate::beneath;

/// How much may be brought out, and how much looked through for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Files, at most.
    pub files: usize,
    /// Bytes of all files together, at most.
    pub bytes: u64,
    /// Components of a name that a pattern finds, at most.
    pub depth: usize,
    /// Bytes of such a name, at most.
    pub name: usize,
    /// Directory entries that are looked at for patterns, at most.
    pub entries: usize,
}

impl Bounds {
    /// What holds for every job: the protocol's limits on files, the depth of names, and entries for a box of
    /// 1 GiB (which has as many inodes; looking at them takes less than a second).
    pub const JOB: Self = Self {
        files: FILES_MAX,
        bytes: FILES_BYTES_MAX,
        depth: BoxPath::DEPTH_MAX,
        name: BoxPath::LEN_MAX,
        entries: 128 << 10,
    };
}

/// One answer to what was asked for.
#[derive(Debug)]
pub struct Output {
    /// Its name in the box, as bytes; or the pattern, if it is a pattern that there is something to say about.
    pub name: Vec<u8>,
    /// The file, or why it is not delivered.
    pub file: Result<OutputFile, OutputError>,
}

/// An open output file.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    size: u64,
    left: u64,
}

/// The outputs of a job, one after the other: files are opened as they are asked for.
#[derive(Debug)]
pub struct Outputs<'a> {
    root: BorrowedFd<'a>,
    names: std::collections::btree_set::IntoIter<Vec<u8>>,
    remarks: std::vec::IntoIter<(Vec<u8>, OutputError)>,
    bytes_left: u64,
}

/// Looks for the outputs of a job in its box, whose directory is open as `root`.
///
/// Names come first, in order of their bytes, then what there is to say about patterns.
pub fn collect<'a>(root: BorrowedFd<'a>, outputs: &[String], bounds: &Bounds) -> Outputs<'a> {
    let Asked {
        names,
        patterns,
        too_large,
    } = Asked::sort_out(outputs);
    let mut remarks: Vec<(Vec<u8>, OutputError)> = too_large
        .into_iter()
        .map(|text| (text.into_bytes(), OutputError::TooLarge))
        .collect();
    let mut names: BTreeSet<Vec<u8>> = names.into_iter().map(String::into_bytes).collect();
    while names.len() > bounds.files {
        remarks.extend(names.pop_last().map(|name| (name, OutputError::TooMany)));
    }
    let mut findings = walk(root, &patterns, bounds, bounds.files - names.len());
    names.extend(findings.names);
    // Each of them is an answer, too, and no more answers than files are waited for.
    if findings.unreadable.len() > bounds.files - names.len() {
        findings.unreadable.truncate(bounds.files - names.len());
        for verdict in &mut findings.verdicts {
            *verdict = Verdict::Cut.max(*verdict);
        }
    }
    for (text, verdict) in patterns.texts().iter().zip(findings.verdicts) {
        let error = match verdict {
            Verdict::Found => continue,
            Verdict::Missing => OutputError::Missing,
            Verdict::Directories => OutputError::NotRegular,
            Verdict::Cut => OutputError::TooMany,
            Verdict::Unreadable => OutputError::Unreadable,
        };
        remarks.push((text.clone().into_bytes(), error));
    }
    let unreadable = findings.unreadable.into_iter();
    remarks.extend(unreadable.map(|name| (name, OutputError::Unreadable)));
    Outputs {
        root,
        names: names.into_iter(),
        remarks: remarks.into_iter(),
        bytes_left: bounds.bytes,
    }
}

impl Iterator for Outputs<'_> {
    type Item = Output;

    fn next(&mut self) -> Option<Output> {
        if let Some(name) = self.names.next() {
            let file = open_regular(self.root, &name).and_then(|file| {
                let left = self.bytes_left.checked_sub(file.size);
                self.bytes_left = left.ok_or(OutputError::TooLarge)?;
                Ok(file)
            });
            return Some(Output { name, file });
        }
        let (name, error) = self.remarks.next()?;
        Some(Output {
            name,
            file: Err(error),
        })
    }
}

fn open_regular(root: BorrowedFd<'_>, name: &[u8]) -> Result<OutputFile, OutputError> {
    let refused = |errno| match errno {
        Errno::NOENT | Errno::NOTDIR => OutputError::Missing,
        // A link on the way or at the end, a mount, a name that climbs; a socket.
        Errno::LOOP | Errno::XDEV | Errno::NXIO => OutputError::NotRegular,
        _ => OutputError::Unreadable,
    };
    let is_regular =
        |stat: &rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    // First without opening it: the other end of a pipe would notice, and a device might act.
    let held = beneath::hold(root, name).map_err(refused)?;
    if !is_regular(&fstat(&held).map_err(refused)?) {
        return Err(OutputError::NotRegular);
    }
    let file = beneath::open(root, name, OFlags::RDONLY).map_err(refused)?;
    // Between the two the name could have come to mean something else; this is what is read.
    let stat = fstat(&file).map_err(refused)?;
    if !is_regular(&stat) {
        return Err(OutputError::NotRegular);
    }
    let size = u64::try_from(stat.st_size).map_err(|_| OutputError::Unreadable)?;
    Ok(OutputFile {
        file: File::from(file),
        size,
        left: size,
    })
}

impl OutputFile {
    /// Its size when it was opened, bytes: as many come, whatever happens to the file.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes; 0 only when all have come (or the buffer has no room).
    ///
    /// # Errors
    ///
    /// Those of `read(2)`; [`io::ErrorKind::UnexpectedEof`] if the file has become shorter.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        let (buffer, _) = buffer.split_at_mut(most);
        loop {
            match self.file.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.left -= u64::try_from(count).unwrap_or(self.left);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
