//! Looking through a box for what patterns match.
//!
//! # Invariants
//!
//! - Links are met, not followed; other mounts are not entered.
//! - Time, memory and descriptors are bounded by [`Bounds`], however many files there are: as many directories
//!   are open at a time as the walk is deep, and as many names are kept as may be delivered.
//! - Where a bound ends the search for a pattern, that is told: no file is left out in silence.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, OFlags, statat};
use rustix::io::Errno;

use super::Bounds;
use super::pattern::Patterns;
use crate::beneath;

/// How often a name may be held against a pattern: while it looks, a worker answers nobody, and one that is silent
/// for seconds is killed. With 32 patterns these are the 128 Ki entries of a large box.
const MATCHES_MAX: usize = 4 << 20;

/// Bytes of names times bytes of dear patterns, as far as they are held against each other: less than a second.
const DEAR_MAX: usize = 32 << 20;

/// What was found.
#[derive(Debug)]
pub(super) struct Findings {
    /// The first names, in order, of everything that matches and is no directory.
    pub(super) names: BTreeSet<Vec<u8>>,
    /// Directories that could not be read, the first of them.
    pub(super) unreadable: Vec<Vec<u8>>,
    /// What is to be said about each pattern.
    pub(super) verdicts: Vec<Verdict>,
}

/// How the search for a pattern ended; the later, the more it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Nothing matches.
    Missing,
    /// Directories match, and nothing else.
    Directories,
    /// All that matches was found.
    Found,
    /// A bound ended the search.
    Cut,
    /// The box itself cannot be read.
    Unreadable,
}

/// A walk under way.
struct Walk<'a> {
    patterns: &'a Patterns,
    bounds: &'a Bounds,
    /// How many names may be kept.
    names_max: usize,
    /// How many entries were met.
    entries: usize,
    /// See [`Patterns::dearness`], and what is left of [`DEAR_MAX`].
    dearness: usize,
    dear_left: usize,
    findings: Findings,
}

/// Looks for everything that matches one of the patterns, and keeps up to `names_max` names.
pub(super) fn walk(
    root: BorrowedFd<'_>,
    patterns: &Patterns,
    bounds: &Bounds,
    names_max: usize,
) -> Findings {
    let mut search = Walk {
        patterns,
        bounds,
        names_max,
        entries: 0,
        dearness: patterns.dearness(),
        dear_left: DEAR_MAX,
        findings: Findings {
            names: BTreeSet::new(),
            unreadable: Vec::new(),
            verdicts: vec![Verdict::Missing; patterns.texts().len()],
        },
    };
    if patterns.texts().is_empty() {
        return search.findings;
    }
    let entries_max = bounds
        .entries
        .min(MATCHES_MAX / patterns.texts().len().max(1));
    // The path of the innermost open directory, and how long it was before each of the open ones.
    let mut path: Vec<u8> = Vec::new();
    let mut open = Vec::from_iter(search.open(root, b".", &path).map(|top| (top, 0)));
    while let Some((directory, length_before)) = open.last_mut() {
        let entry = match directory.read() {
            Some(Ok(entry)) => entry,
            ended => {
                if ended.is_some() {
                    search.unreadable(&path);
                }
                path.truncate(*length_before);
                open.pop();
                continue;
            }
        };
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        search.entries += 1;
        if search.entries > entries_max {
            search.findings.verdicts.fill(Verdict::Cut);
            break;
        }
        let length_before = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let cost = path.len().saturating_mul(search.dearness);
        let Some(dear_left) = search.dear_left.checked_sub(cost) else {
            search.findings.verdicts.fill(Verdict::Cut);
            break;
        };
        search.dear_left = dear_left;
        match search.meet(directory, &entry, &path) {
            Some(deeper) => open.push((deeper, length_before)),
            None => path.truncate(length_before),
        }
    }
    search.findings
}

impl Walk<'_> {
    /// Looks at one entry; gives it back open if it is a directory to look through.
    fn meet(&mut self, directory: &Dir, entry: &DirEntry, path: &[u8]) -> Option<Dir> {
        let within = directory.fd().ok()?;
        if kind(within, entry)? != FileType::Directory {
            self.keep(path);
            return None;
        }
        self.judge(self.patterns.matching(path), Verdict::Directories);
        let reaching: Vec<usize> = self.patterns.reaching(path).collect();
        if reaching.is_empty() {
            return None;
        }
        // What lies in this directory has one component more than the directory itself.
        let components = path.split(|byte| *byte == b'/').count();
        if components >= self.bounds.depth || path.len() >= self.bounds.name {
            self.judge(reaching, Verdict::Cut);
            return None;
        }
        self.open(within, entry.file_name().to_bytes(), path)
    }

    /// Keeps a name if it matches, and gives up the last one if there are too many.
    fn keep(&mut self, path: &[u8]) {
        let matching = self.patterns.matching(path);
        if matching.is_empty() {
            return;
        }
        if path.len() > self.bounds.name {
            self.judge(matching, Verdict::Cut);
            return;
        }
        self.judge(matching, Verdict::Found);
        self.findings.names.insert(path.to_vec());
        if self.findings.names.len() > self.names_max
            && let Some(dropped) = self.findings.names.pop_last()
        {
            self.judge(self.patterns.matching(&dropped), Verdict::Cut);
        }
    }

    fn judge(&mut self, patterns: Vec<usize>, verdict: Verdict) {
        for index in patterns {
            if let Some(present) = self.findings.verdicts.get_mut(index) {
                *present = verdict.max(*present);
            }
        }
    }

    fn open(&mut self, within: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Option<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match beneath::open(within, name, flags).and_then(Dir::new) {
            Ok(directory) => Some(directory),
            // Gone, replaced, or another mount: there is no such directory of the job's.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => None,
            Err(_) => {
                self.unreadable(path);
                None
            }
        }
    }

    fn unreadable(&mut self, path: &[u8]) {
        if path.is_empty() {
            self.findings.verdicts.fill(Verdict::Unreadable);
        } else if self.findings.unreadable.len() < self.bounds.files {
            self.findings.unreadable.push(path.to_vec());
        }
    }
}

/// What an entry is; nothing if it has gone.
fn kind(within: BorrowedFd<'_>, entry: &DirEntry) -> Option<FileType> {
    match entry.file_type() {
        // Some file systems do not tell it in the directory.
        FileType::Unknown => statat(within, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            .ok()
            .map(|stat| FileType::from_raw_mode(stat.st_mode)),
        told => Some(told),
    }
}
