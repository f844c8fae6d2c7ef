//! The policy of dependencies: every exception in `.ci/deny.toml` has a reason.

use toml_edit::{DocumentMut, Item, Value};

use super::Repository;

/// Where the policy stands.
const DENY: &str = ".ci/deny.toml";

/// Lists whose entries are exceptions.
const EXCEPTIONS: [(&str, &str); 4] = [
    ("advisories", "ignore"),
    ("bans", "skip"),
    ("bans", "skip-tree"),
    ("licenses", "exceptions"),
];

/// Every exception has a reason of more than a word.
pub fn exceptions(repository: &Repository) -> Vec<String> {
    let Some(text) = repository.text(DENY) else {
        return vec![format!("{DENY}: is missing")];
    };
    let document: DocumentMut = match text.parse() {
        Ok(document) => document,
        Err(error) => return vec![format!("{DENY}: {error}")],
    };
    let mut wrong = Vec::new();
    for (table, list) in EXCEPTIONS {
        let entries = document
            .get(table)
            .and_then(|table| table.get(list))
            .and_then(Item::as_array);
        for entry in entries.into_iter().flatten() {
            let reason = entry
                .as_inline_table()
                .and_then(|entry| entry.get("reason"))
                .and_then(Value::as_str)
                .unwrap_or_default();
            if reason.split_whitespace().count() < 3 {
                wrong.push(format!(
                    "{DENY}: an entry of {table}.{list} has no reason: {entry}"
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
    fn an_exception_without_a_reason_is_seen() {
        let deny = r#"
            [advisories]
            ignore = ["RUSTSEC-0000-0000", { id = "RUSTSEC-0000-0001", reason = "it is not reached" }]
            [bans]
            skip = [{ crate = "syn", reason = "" }]
        "#;
        let wrong = exceptions(&Repository::invented(&[(DENY, deny)]));
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert_eq!(exceptions(&Repository::invented(&[])).len(), 1);
    }
}
