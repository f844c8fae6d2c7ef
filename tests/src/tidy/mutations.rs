//! The planted bugs of `tests/mutations/list.toml`: each fits the code as it is.

use toml_edit::{DocumentMut, Item, Table};

use super::Repository;

const LIST: &str = "tests/mutations/list.toml";

/// Where the files are that bugs are planted in.
const CORE: &str = "supervisor/pool/src";

/// What a bug replaces stands exactly once in its file, and is not what it is replaced by.
pub fn fit(repository: &Repository) -> Vec<String> {
    let Some(text) = repository.text(LIST) else {
        return vec![format!("{LIST}: is missing")];
    };
    let document: DocumentMut = match text.parse() {
        Ok(document) => document,
        Err(error) => return vec![format!("{LIST}: {error}")],
    };
    let list = document.get("mutation").and_then(Item::as_array_of_tables);
    list.into_iter()
        .flatten()
        .filter_map(|mutation| misfit(repository, mutation))
        .collect()
}

fn misfit(repository: &Repository, mutation: &Table) -> Option<String> {
    let field = |name: &str| {
        mutation
            .get(name)
            .and_then(Item::as_str)
            .unwrap_or_default()
    };
    let (what, old) = (field("what"), field("old"));
    let path = format!("{CORE}/{}", field("file"));
    let count = match repository.text(&path) {
        Some(text) if !old.is_empty() => text.matches(old).count(),
        Some(_) | None => 0,
    };
    let fits = count == 1 && field("new") != old;
    (!fits).then(|| format!("{LIST}: `{what}`: what it replaces stands {count} times in {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_that_does_not_fit_is_named() {
        let list = "[[mutation]]\nwhat = \"fits\"\nfile = \"a.rs\"\nold = \"one\"\nnew = \"two\"\n\
                    [[mutation]]\nwhat = \"stale\"\nfile = \"a.rs\"\nold = \"gone\"\nnew = \"two\"\n";
        let repository =
            Repository::invented(&[(LIST, list), ("supervisor/pool/src/a.rs", "fn one() {}\n")]);
        let wrong = fit(&repository);
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].contains("`stale`"), "{wrong:?}");
    }
}
