//! Words that do not belong into the project.
//!
//! The list is written in pieces, so that this file does not break its own rule.

use std::path::Path;

use super::{Repository, identifiers};

/// Words for people and for work that is not done.
const BANNED: [(&str, &str); 8] = [
    (concat!("black", "list"), "deny list"),
    (concat!("white", "list"), "allow list"),
    (concat!("mas", "ter"), "supervisor"),
    (concat!("sla", "ve"), "worker"),
    (concat!("TO", "DO"), "an issue, or nothing"),
    (concat!("FIX", "ME"), "an issue, or nothing"),
    (concat!("XX", "X"), "an issue, or nothing"),
    (concat!("ha", "ck"), "why it must be so"),
];

/// Places of the machines that it was written on.
const PLACES: [&str; 5] = [
    concat!("/wo", "rk/"),
    concat!("/root/.car", "go"),
    concat!("/tmp/to", "ols"),
    concat!("arti", "factory"),
    concat!("../sha", "red/"),
];

/// Words in documents and comments, and the name that is meant by them.
const SYNONYMS: [(&str, &str); 4] = [
    (concat!("dead-", "letter"), "quarantine"),
    (concat!("daemon ", "process"), "supervisor"),
    (concat!("sand", "boxee"), "job"),
    (concat!("sub", "process pool"), "pool"),
];

/// Texts that others wrote, or that a tool did.
fn is_foreign(path: &str) -> bool {
    let is_snapshot = Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "snap");
    is_snapshot
        || path == "Cargo.lock"
        || path.starts_with("docs/LICENSE")
        || path.starts_with(".git")
}

/// No banned word, no place of one machine.
pub fn banned(repository: &Repository) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in repository.files() {
        if is_foreign(path) {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            for word in identifiers(line) {
                let found = BANNED.iter().find(|(banned, _)| {
                    // Marks of work are written in capitals; in small letters they are ordinary words.
                    if banned.chars().all(char::is_uppercase) {
                        word == *banned
                    } else {
                        word.eq_ignore_ascii_case(banned)
                    }
                });
                if let Some((banned, instead)) = found {
                    wrong.push(format!("{path}:{number}: `{banned}`; instead: {instead}"));
                }
            }
            for place in PLACES.iter().filter(|place| line.contains(**place)) {
                wrong.push(format!(
                    "{path}:{number}: `{place}` is a place of one machine"
                ));
            }
            for (synonym, word) in SYNONYMS
                .iter()
                .filter(|(synonym, _)| line.contains(synonym))
            {
                wrong.push(format!(
                    "{path}:{number}: `{synonym}` is called {word} here"
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
    fn banned_words_and_places_are_seen() {
        let text = [
            concat!("a black", "list"),
            concat!("// TO", "DO: later"),
            concat!("todo is a word, MS_SLA", "VE the kernel's"),
            concat!("cd /wo", "rk/x"),
            concat!("goes to the dead-", "letter queue"),
        ]
        .join("\n");
        let repository = Repository::invented(&[("a.rs", &text), ("Cargo.lock", &text)]);
        assert_eq!(banned(&repository).len(), 4);
    }
}
