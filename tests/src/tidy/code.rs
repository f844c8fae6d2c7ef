//! What stands in Rust files.
//!
//! The rules look at lines, not at a syntax tree: comments and texts in quotes are taken out first, and that is
//! exact enough for rules whose exceptions are files.

use super::{Repository, identifiers};

/// The only folder with unsafe code.
const UNSAFE_FOLDER: &str = "worker/sys/";

/// The only file that names the codec.
const CODEC: &str = "protocol/src/codec.rs";

/// Folders of the crates whose files state their invariants.
const INVARIANT_FOLDERS: [&str; 3] = ["protocol/src/", "supervisor/pool/src/", "worker/sys/src/"];

/// Lines of code from which on a file has invariants worth a heading, or says what is not in it.
const INVARIANT_LINES: usize = 150;

/// What SAFETY comments begin with that argue nothing; in pieces, so that this file does not break its own rule.
const INCANTATIONS: [&str; 2] = [
    concat!("SAFETY: ", "safe because"),
    concat!("SAFETY: ", "Safe because"),
];

/// A line without its comment and without what stands in double quotes.
fn bare(line: &str) -> String {
    let mut bare = String::new();
    let mut chars = line.chars().peekable();
    let mut is_quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if is_quoted => drop(chars.next()),
            '"' => is_quoted = !is_quoted,
            '/' if !is_quoted && chars.peek() == Some(&'/') => break,
            c if !is_quoted => bare.push(c),
            _ => {}
        }
    }
    bare
}

/// Lines up to the unit tests.
fn before_tests(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
}

/// Every file opens with what it is.
pub fn headers(repository: &Repository) -> Vec<String> {
    repository
        .with_extension("rs")
        .filter(|(_, text)| {
            let Some(first) = text.lines().next() else {
                return true;
            };
            // A sentence, not a mark: `//!` alone says nothing.
            !first.starts_with("//! ") || first.len() < 16
        })
        .map(|(path, _)| format!("{path}: does not open with `//!` and what it is"))
        .collect()
}

/// Files that hold invariants state them.
pub fn invariants(repository: &Repository) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in repository.with_extension("rs") {
        let is_of_interest = INVARIANT_FOLDERS
            .iter()
            .any(|folder| path.starts_with(folder));
        if !is_of_interest || path.ends_with("/tests.rs") {
            continue;
        }
        let header: Vec<&str> = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        let is_stated = header
            .iter()
            .any(|line| line.trim_end() == "//! # Invariants" || line.contains("ot here"));
        let is_long = before_tests(text).count() > INVARIANT_LINES;
        let is_sharp = path.starts_with(UNSAFE_FOLDER)
            && before_tests(text).any(|line| identifiers(&bare(line)).any(|word| word == "unsafe"));
        if (is_long || is_sharp) && !is_stated {
            wrong.push(format!(
                "{path}: its header has no `# Invariants` (and does not say what is not here)"
            ));
        }
    }
    wrong
}

/// Unsafe code has one place, and the codec one file.
pub fn corners(repository: &Repository) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in repository.with_extension("rs") {
        for (number, line) in (1..).zip(text.lines()) {
            let bare = bare(line);
            let words: Vec<&str> = identifiers(&bare).collect();
            if !path.starts_with(UNSAFE_FOLDER) && words.contains(&"unsafe") {
                wrong.push(format!(
                    "{path}:{number}: unsafe code outside {UNSAFE_FOLDER}"
                ));
            }
            if path != CODEC && words.contains(&"bincode") {
                wrong.push(format!("{path}:{number}: names the codec outside {CODEC}"));
            }
        }
    }
    wrong
}

/// A lint is set aside only with a reason, and a SAFETY comment is an argument.
pub fn reasons(repository: &Repository) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in repository.with_extension("rs") {
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let number = index + 1;
            let line = line.trim_start();
            if line.starts_with("#[allow(") || line.starts_with("#![allow(") {
                wrong.push(format!(
                    "{path}:{number}: `allow`; `expect` says when it is no longer needed"
                ));
            }
            if line.starts_with("#[expect(") || line.starts_with("#![expect(") {
                let end = lines[index..]
                    .iter()
                    .position(|line| line.trim_end().ends_with(")]"))
                    .map_or(lines.len(), |length| index + length + 1);
                if !lines[index..end]
                    .iter()
                    .any(|line| line.contains("reason ="))
                {
                    wrong.push(format!("{path}:{number}: `expect` without a reason"));
                }
            }
            if INCANTATIONS.iter().any(|words| line.contains(words)) {
                wrong.push(format!(
                    "{path}:{number}: names no precondition and why it holds"
                ));
            }
        }
    }
    wrong
}

/// Tests do not sleep and are not switched off.
pub fn honest_tests(repository: &Repository) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in repository.with_extension("rs") {
        let mut is_test =
            path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs");
        for (number, line) in (1..).zip(text.lines()) {
            is_test |= line.starts_with("#[cfg(test)]");
            let bare = bare(line);
            let attribute = bare.trim_start();
            if attribute.starts_with("#[ignore") || attribute.starts_with("#[should_panic") {
                wrong.push(format!(
                    "{path}:{number}: a test that is switched off, or passes for any panic"
                ));
            }
            if is_test && (bare.contains("thread::sleep") || bare.contains("time::sleep")) {
                wrong.push(format!(
                    "{path}:{number}: a test that sleeps instead of waiting for an event"
                ));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_no_code() {
        assert_eq!(bare(r#"a("b // \" c") // d"#), "a() ");
        assert_eq!(bare("//! unsafe"), "");
    }

    #[test]
    fn a_missing_header_is_seen() {
        let repository = Repository::invented(&[
            ("a.rs", "fn a() {}\n"),
            ("b.rs", ""),
            ("c.rs", "//! x\n"),
            ("d.rs", "//! What this is.\n"),
        ]);
        assert_eq!(headers(&repository).len(), 3);
    }

    #[test]
    fn unstated_invariants_are_seen() {
        let long = format!("//! A long file.\n{}", "\n".repeat(INVARIANT_LINES));
        let stated = format!(
            "//! A long file.\n//! # Invariants\n{}",
            "\n".repeat(INVARIANT_LINES)
        );
        let repository = Repository::invented(&[
            ("protocol/src/a.rs", &long),
            ("protocol/src/b.rs", &stated),
            ("worker/sys/src/c.rs", "//! Sharp.\nunsafe {}\n"),
            ("worker/src/d.rs", &long),
        ]);
        assert_eq!(invariants(&repository).len(), 2);
    }

    #[test]
    fn unsafe_code_and_the_codec_are_seen_elsewhere() {
        let repository = Repository::invented(&[
            ("worker/src/a.rs", "    unsafe { x() }"),
            ("worker/src/b.rs", "// unsafe\n#![forbid(unsafe_code)]"),
            ("worker/sys/src/c.rs", "    unsafe { x() }"),
            ("protocol/src/wire.rs", "use bincode::config;"),
            (CODEC, "use bincode::config;"),
        ]);
        assert_eq!(corners(&repository).len(), 2);
    }

    #[test]
    fn a_missing_reason_is_seen() {
        let repository = Repository::invented(&[
            ("a.rs", "#[expect(clippy::x)]\nfn a() {}"),
            ("b.rs", "#[expect(\n    clippy::x,\n    reason = \"y\"\n)]"),
            ("c.rs", "    #[allow(clippy::x)]"),
            ("d.rs", INCANTATIONS[0]),
        ]);
        assert_eq!(reasons(&repository).len(), 3);
    }

    #[test]
    fn sleeping_and_ignored_tests_are_seen() {
        let repository = Repository::invented(&[
            ("tests/tests/a.rs", "    std::thread::sleep(x);"),
            (
                "worker/src/b.rs",
                "#[cfg(test)]\nmod tests {\n    #[ignore]\n    tokio::time::sleep(x)",
            ),
            (
                "supervisor/src/c.rs",
                "    tokio::time::sleep_until(deadline)",
            ),
        ]);
        assert_eq!(honest_tests(&repository).len(), 3);
    }
}
