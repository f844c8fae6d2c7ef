//! Documents: one title each, links that lead somewhere, names of things that exist.

use super::crates;
use super::{Repository, folder, normal};

/// The document whose code map names everything.
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

/// Folders whose names make a code span a path.
const ROOTS: [&str; 8] = [
    "protocol/",
    "supervisor/",
    "worker/",
    "tests/",
    "docs/",
    "packaging/",
    ".ci/",
    "benches/",
];

/// Lines outside fenced blocks, with their number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fence && !is_fenced
    })
}

/// What stands between two of these on a line.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// A document has one title, on its first line.
pub fn titles(repository: &Repository) -> Vec<String> {
    repository
        .with_extension("md")
        .filter(|(_, text)| {
            let titles = prose(text)
                .filter(|(_, line)| line.starts_with("# "))
                .count();
            titles != 1 || !text.starts_with("# ")
        })
        .map(|(path, _)| format!("{path}: does not have one title, on its first line"))
        .collect()
}

/// Relative links lead to a file.
pub fn links(repository: &Repository) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in repository.with_extension("md") {
        for (number, line) in prose(text) {
            for rest in line.split("](").skip(1) {
                let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
                if target.is_empty() || target.contains(':') {
                    continue;
                }
                let is_there = normal(&format!("{}/{target}", folder(path)))
                    .is_some_and(|target| repository.holds(&target));
                if !is_there {
                    wrong.push(format!(
                        "{path}:{number}: the link to {target} leads nowhere"
                    ));
                }
            }
        }
    }
    wrong
}

/// A code span that looks like a path of the repository is one; `path::name` names something in it.
pub fn names(repository: &Repository) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in repository.with_extension("md") {
        for (number, line) in prose(text) {
            for span in spans(line) {
                let is_path = ROOTS.iter().any(|root| span.starts_with(root));
                if !is_path || span.contains([' ', '*', '<', '{', 'N']) {
                    continue;
                }
                let (file, name) = span.split_once("::").unwrap_or((span, ""));
                if !repository.holds(file) {
                    wrong.push(format!("{path}:{number}: {file} does not exist"));
                } else if !name.is_empty() && !is_said_in(repository, file, name) {
                    wrong.push(format!(
                        "{path}:{number}: nothing is called {name} in {file}"
                    ));
                }
            }
        }
    }
    wrong
}

/// Whether a file, or one of the folder of its name, holds the word.
fn is_said_in(repository: &Repository, file: &str, name: &str) -> bool {
    let folder = format!("{}/", file.trim_end_matches(".rs"));
    repository
        .files()
        .filter(|(path, _)| *path == file || path.starts_with(&folder))
        .any(|(_, text)| super::identifiers(text).any(|word| word == name))
}

/// A command of wpool's that a document names is one that can be typed.
pub fn commands(repository: &Repository) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in repository.with_extension("md") {
        // An ADR and the changelog may name what is yet to come, or is gone.
        if path.starts_with("docs/adr/") || path == "docs/CHANGELOG.md" {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            let is_command_line = line.trim_start().starts_with("wpool ");
            let typed = spans(line).chain(is_command_line.then_some(line.trim_start()));
            for command in typed {
                let mut words = command.split_whitespace();
                if words.next() != Some("wpool") {
                    continue;
                }
                let Some(verb) = words.next() else { continue };
                let is_verb = verb.chars().all(|c| c.is_ascii_lowercase());
                let source = format!("supervisor/src/cli/{verb}.rs");
                if is_verb && verb != "worker" && !repository.holds(&source) {
                    wrong.push(format!("{path}:{number}: there is no `wpool {verb}`"));
                }
            }
        }
    }
    wrong
}

/// In a table of promises, each row names what keeps it, and every test that it names is one.
pub fn promises(repository: &Repository) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in repository.with_extension("md") {
        let mut is_table = false;
        for (number, line) in prose(text) {
            is_table = line.starts_with('|') && (is_table || line.contains("| kept by |"));
            let is_row = is_table && !line.contains("| kept by |") && !line.contains("| --- |");
            if !is_row {
                continue;
            }
            if spans(line).next().is_none() {
                wrong.push(format!("{path}:{number}: nothing keeps this promise"));
            }
            for span in spans(line).filter(|span| is_test_name(span)) {
                let definition = format!("fn {span}(");
                let is_there = repository
                    .with_extension("rs")
                    .any(|(_, text)| text.contains(&definition));
                if !is_there {
                    wrong.push(format!("{path}:{number}: there is no test {span}"));
                }
            }
        }
    }
    wrong
}

/// Whether a code span reads like the name of a test: a sentence in one word.
fn is_test_name(span: &str) -> bool {
    span.split('_').count() > 3 && span.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// The code map names every crate and everything at the top.
pub fn code_map(repository: &Repository) -> Vec<String> {
    let Some(text) = repository.text(ARCHITECTURE) else {
        return vec![format!("{ARCHITECTURE}: is missing")];
    };
    let tops = repository
        .top_level()
        .into_iter()
        .filter(|name| !name.starts_with('.') && !name.contains('.'))
        .map(|name| format!("{name}/"));
    let folders = crates::folders().map(|folder| format!("{folder}/"));
    tops.chain(folders)
        .filter(|name| !text.contains(&format!("`{name}`")))
        .map(|name| format!("{ARCHITECTURE}: does not say what `{name}` is"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_titles_or_none_are_seen() {
        let repository = Repository::invented(&[
            ("a.md", "# One\n# Two\n"),
            ("b.md", "text\n"),
            ("c.md", "# One\n```\n# a comment of the shell's\n```\n"),
        ]);
        assert_eq!(titles(&repository).len(), 2);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_seen() {
        let repository = Repository::invented(&[
            (
                "docs/a.md",
                "[b](b.md), [c](../c.md#part), [d](https://example.org), [e](adr)",
            ),
            ("c.md", ""),
            ("docs/adr/x.md", ""),
        ]);
        assert_eq!(links(&repository).len(), 1);
    }

    #[test]
    fn a_name_of_nothing_is_seen() {
        let repository = Repository::invented(&[
            (
                "README.md",
                "`tests/tests/a.rs::is_kept`, `tests/tests/a.rs::in_a_module`, `tests/tests/a.rs::is_not`, `docs/no.md`",
            ),
            ("tests/tests/a.rs", "fn is_kept() {}"),
            ("tests/tests/a/b.rs", "fn in_a_module() {}"),
        ]);
        assert_eq!(names(&repository).len(), 2);
    }

    #[test]
    fn a_promise_that_nothing_keeps_is_seen() {
        let readme = "# A\n| promise | kept by |\n| --- | --- |\n| one | `a_test_of_one_thing` |\n\
                      | two | `a_test_of_no_thing` |\n| three | hope |\n\n| limit | x |\n| wall | |\n";
        let repository = Repository::invented(&[
            ("README.md", readme),
            ("tests/tests/a.rs", "fn a_test_of_one_thing() {}"),
        ]);
        assert_eq!(promises(&repository).len(), 2);
    }

    #[test]
    fn a_command_that_cannot_be_typed_is_seen() {
        let repository = Repository::invented(&[
            (
                "README.md",
                "`wpool run` and\n    wpool dance -- x\n`wpool --help`",
            ),
            ("supervisor/src/cli/run.rs", ""),
        ]);
        assert_eq!(commands(&repository).len(), 1);
    }

    #[test]
    fn a_hole_in_the_code_map_is_seen() {
        let repository = Repository::invented(&[(ARCHITECTURE, "`docs/` `protocol/`")]);
        let wrong = code_map(&repository);
        assert!(wrong.iter().any(|line| line.contains("`worker/sys/`")));
        assert!(!wrong.iter().any(|line| line.contains("`protocol/`")));
    }
}
