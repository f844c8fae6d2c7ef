//! Where files are, what they are called, and how long they are.

use std::path::Path;

use super::Repository;

/// Lines of a Rust file, tests included; 400 are wished.
const LINES_MAX: usize = 600;

/// What may stand at the top beside what begins with a dot.
const TOP_LEVEL: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "docs",
    "packaging",
    "protocol",
    "supervisor",
    "tests",
    "worker",
];

/// What must stand there.
const REQUIRED: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "docs/LICENSE-APACHE",
    "docs/LICENSE-MIT",
    ".ci/run",
    "protocol",
    "supervisor",
    "tests",
    "worker",
];

/// Names that say nothing about what a file holds.
const EMPTY_NAMES: [&str; 11] = [
    "common", "helper", "helpers", "misc", "mod", "shared", "stuff", "types", "util", "utils",
    "various",
];

/// How files end that a tool has left behind.
const LEFT_OVER: [&str; 3] = [".snap.new", ".orig", ".rej"];

/// The top level holds what the owner fixed, and nothing else.
pub fn top_level(repository: &Repository) -> Vec<String> {
    let strangers = repository
        .top_level()
        .into_iter()
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(name))
        .map(|name| format!("{name}: does not belong to the top level"));
    let missing = REQUIRED
        .into_iter()
        .filter(|path| !repository.holds(path))
        .map(|path| format!("{path}: is missing"));
    strangers.chain(missing).collect()
}

/// A file is named after the one concept that it holds.
pub fn names(repository: &Repository) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, _) in repository.files() {
        let name = Path::new(path);
        if name.extension().is_some_and(|extension| extension == "rs")
            && name
                .file_stem()
                .and_then(|stem| stem.to_str())
                .is_some_and(|stem| EMPTY_NAMES.contains(&stem))
        {
            wrong.push(format!("{path}: its name says nothing about what it holds"));
        }
        if LEFT_OVER.iter().any(|ending| path.ends_with(ending)) {
            wrong.push(format!("{path}: is left over"));
        }
        if path.contains(char::is_whitespace) || !path.is_ascii() {
            wrong.push(format!(
                "{path}: has a space or a letter beyond ASCII in its name"
            ));
        }
    }
    wrong
}

/// A Rust file fits a reader's head.
pub fn lengths(repository: &Repository) -> Vec<String> {
    repository
        .with_extension("rs")
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|&(_, lines)| lines > LINES_MAX)
        .map(|(path, lines)| format!("{path}: has {lines} lines, more than {LINES_MAX}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_at_the_top_and_a_missing_licence_are_seen() {
        let wrong = top_level(&Repository::invented(&[("Makefile", ""), (".ci/run", "")]));
        assert!(wrong.contains(&"Makefile: does not belong to the top level".to_owned()));
        assert!(wrong.contains(&"docs/LICENSE-MIT: is missing".to_owned()));
        assert!(!wrong.iter().any(|line| line.starts_with(".ci")));
    }

    #[test]
    fn a_name_that_says_nothing_is_seen() {
        let repository = Repository::invented(&[
            ("worker/src/utils.rs", ""),
            ("worker/src/plan/mod.rs", ""),
            ("a.snap.new", ""),
            ("a b", ""),
            ("worker/src/plan.rs", ""),
        ]);
        assert_eq!(names(&repository).len(), 4);
    }

    #[test]
    fn a_long_file_is_seen() {
        let long = "\n".repeat(LINES_MAX + 1);
        let fits = "\n".repeat(LINES_MAX);
        let repository = Repository::invented(&[("a.rs", &long), ("b.rs", &fits)]);
        assert_eq!(lengths(&repository).len(), 1);
    }
}
