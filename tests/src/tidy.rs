//! The house rules, as functions from a repository to what is wrong with it.
//!
//! A rule takes a [`Repository`] and gives one line for each place that breaks it. The rules know nothing of git or disk,
//! so that each is also tried on a small invented repository that breaks it: a rule that cannot fail is no rule.
//!
//! Not here: what clippy, rustfmt and rustc find already (length of functions, missing documentation, `mod.rs`).

pub mod attacks;
pub mod code;
pub mod crates;
pub mod layout;
pub mod markdown;
pub mod mutations;
pub mod policy;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// The files of a repository that are, or could be, under version control.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    /// Their text by their path from the root, `/` between components; files that are no text are empty.
    files: BTreeMap<String, String>,
}

impl Repository {
    /// The repository that this crate belongs to, as it lies on disk.
    pub fn of_this_crate() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the crate has a parent folder")?;
        let mut files = BTreeMap::new();
        for path in list(root)? {
            // A file that was removed and not yet committed is still listed.
            let Ok(bytes) = std::fs::read(root.join(&path)) else {
                continue;
            };
            files.insert(path, String::from_utf8(bytes).unwrap_or_default());
        }
        anyhow::ensure!(
            files.contains_key("Cargo.toml"),
            "no Cargo.toml in {}",
            root.display()
        );
        Ok(Self { files })
    }

    /// An invented one.
    pub fn invented(files: &[(&str, &str)]) -> Self {
        Self {
            files: files
                .iter()
                .map(|&(path, text)| (path.to_owned(), text.to_owned()))
                .collect(),
        }
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The files whose name ends so.
    pub fn with_extension(&self, extension: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files()
            .filter(move |(path, _)| Path::new(path).extension().is_some_and(|e| e == extension))
    }

    /// One file's text.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether a file or folder of this path is there.
    pub fn holds(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.contains_key(path)
            || self.files.keys().any(|file| {
                file.strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('/'))
            })
    }

    /// What lies at the top.
    pub fn top_level(&self) -> BTreeSet<&str> {
        self.files
            .keys()
            .filter_map(|path| path.split('/').next())
            .collect()
    }
}

/// The paths of all files that are tracked, or that are neither tracked nor ignored.
#[expect(clippy::disallowed_methods, reason = "git alone knows what it ignores")]
fn list(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("git")
        // A checkout of another user's is read all the same: nothing of it is run.
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .args(["--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("failed to run git")?;
    anyhow::ensure!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8(output.stdout).context("a path is not UTF-8")?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// `text` split at everything that is no letter, digit or underscore.
pub(crate) fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// The folder that a path lies in, as text; empty at the top.
pub(crate) fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// `path` without `.` and `..` components; `None` where it climbs out of the repository.
pub(crate) fn normal(path: &str) -> Option<String> {
    let mut parts = PathBuf::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if !parts.pop() {
                    return None;
                }
            }
            part => parts.push(part),
        }
    }
    parts.to_str().map(str::to_owned)
}
