//! The list of known attacks, `tests/attacks.toml`: it is whole, what it names exists, and `docs/SECURITY.md` shows it.
//!
//! # Invariants
//!
//! - Every number from 1 to 76 is there once, and says what contains it or why nothing does.
//! - No attack is tried by `tests/tests/escape` that the list does not know of.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table};

use super::{Repository, identifiers};

/// The list.
pub const LIST: &str = "tests/attacks.toml";

/// Where it is shown.
pub const PAGE: &str = "docs/SECURITY.md";

/// The programs that try what the list is about.
const TRIALS: &str = "tests/tests/escape/";

/// The last number.
const NUMBER_MAX: i64 = 76;

/// Between these the page holds what [`table`] makes.
const MARKS: [&str; 2] = [
    "<!-- made from tests/attacks.toml -->",
    "<!-- end of what is made -->",
];

/// Classes that tests stand for, and those that a note stands for.
const TRIED: [&str; 3] = ["job", "wire", "supervisor"];
const TOLD: [&str; 2] = ["documented", "waits"];

/// One attack of the list.
struct Entry<'a> {
    number: i64,
    what: &'a str,
    class: &'a str,
    layer: &'a str,
    tests: Vec<&'a str>,
    note: &'a str,
}

impl<'a> Entry<'a> {
    fn of(table: &'a Table) -> Self {
        let text = |key: &str| table.get(key).and_then(Item::as_str).unwrap_or_default();
        let tests = table.get("tests").and_then(Item::as_array);
        Self {
            number: table
                .get("number")
                .and_then(Item::as_integer)
                .unwrap_or_default(),
            what: text("what"),
            class: text("class"),
            layer: text("layer"),
            tests: tests
                .into_iter()
                .flatten()
                .filter_map(|test| test.as_str())
                .collect(),
            note: text("note"),
        }
    }
}

/// The list is whole: each number once, and each entry has what its class asks for.
pub fn list(repository: &Repository) -> Vec<String> {
    let document = match parse(repository) {
        Ok(document) => document,
        Err(wrong) => return vec![wrong],
    };
    let mut wrong = Vec::new();
    let mut missing: BTreeSet<i64> = (1..=NUMBER_MAX).collect();
    for entry in entries(&document).map(Entry::of) {
        let number = entry.number;
        let mut say = |text: &str| wrong.push(format!("{LIST}: {number}: {text}"));
        if !missing.remove(&number) {
            say("this number comes twice, or is none of the list's");
        }
        if entry.what.is_empty() || entry.layer.is_empty() {
            say("it does not say what is tried and what contains it");
        }
        if TRIED.contains(&entry.class) {
            if entry.tests.is_empty() {
                say("no test tries it");
            }
        } else if TOLD.contains(&entry.class) {
            if entry.note.is_empty() {
                say("it is not contained, and no note says what to do");
            }
        } else {
            say("it is of no class");
        }
        if entry.note.split(". ").count() > 2 {
            say("its note is longer than two sentences");
        }
    }
    wrong.extend(
        missing
            .into_iter()
            .map(|number| format!("{LIST}: {number}: is missing")),
    );
    wrong
}

/// Every test that the list or its page names exists, and every attack that is tried is named.
pub fn tests(repository: &Repository) -> Vec<String> {
    let document = match parse(repository) {
        Ok(document) => document,
        Err(wrong) => return vec![wrong],
    };
    let known: BTreeSet<&str> = repository
        .with_extension("rs")
        .flat_map(|(_, text)| defined(text))
        .collect();
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for entry in entries(&document).map(Entry::of) {
        named.extend(entry.tests.iter().copied());
        for test in entry.tests.iter().filter(|test| !known.contains(*test)) {
            wrong.push(format!("{LIST}: {}: there is no test {test}", entry.number));
        }
    }
    let page = repository.text(PAGE).unwrap_or_default();
    let spans = page.split('`').skip(1).step_by(2);
    for test in spans.filter(|span| is_sentence(span) && !known.contains(span)) {
        wrong.push(format!("{PAGE}: there is no test {test}"));
    }
    for (path, text) in repository.with_extension("rs") {
        let tried = trials(text).filter(|_| path.starts_with(TRIALS));
        for name in tried.filter(|name| !named.contains(name)) {
            wrong.push(format!("{path}: {LIST} does not know of {name}"));
        }
    }
    wrong
}

/// The page shows the list as it is.
pub fn page(repository: &Repository) -> Vec<String> {
    let Some(page) = repository.text(PAGE) else {
        return vec![format!("{PAGE}: is missing")];
    };
    match renewed(repository, page) {
        Some(new) if new == page => Vec::new(),
        Some(_) => vec![format!(
            "{PAGE}: is stale: run the tidy tests with UPDATE_GOLDEN=1"
        )],
        None => vec![format!("{PAGE}: has no place for the list")],
    }
}

/// The page with the list as it is now; none if there is no list, or no place for it.
pub fn renewed(repository: &Repository, page: &str) -> Option<String> {
    let [begin, end] = MARKS;
    let (before, rest) = page.split_once(begin)?;
    let (_, behind) = rest.split_once(end)?;
    let table = table(&parse(repository).ok()?);
    Some(format!("{before}{begin}\n{table}{end}{behind}"))
}

fn table(document: &DocumentMut) -> String {
    let mut text = String::from(
        "\n| | what is tried | class | what contains it | tried by, and what remains |\n| --- | --- | --- | --- | --- |\n",
    );
    for entry in entries(document).map(Entry::of) {
        let tests: Vec<String> = entry.tests.iter().map(|test| format!("`{test}`")).collect();
        let mut remarks = tests.join(", ");
        if !remarks.is_empty() && !entry.note.is_empty() {
            remarks.push_str(". ");
        }
        remarks.push_str(entry.note);
        let Entry {
            number,
            what,
            class,
            layer,
            ..
        } = entry;
        // Writing to a string cannot fail.
        writeln!(
            text,
            "| {number} | {what} | {class} | {layer} | {remarks} |"
        )
        .unwrap_or_default();
    }
    text.push('\n');
    text
}

fn parse(repository: &Repository) -> Result<DocumentMut, String> {
    let text = repository
        .text(LIST)
        .ok_or_else(|| format!("{LIST}: is missing"))?;
    text.parse()
        .map_err(|error| format!("{LIST}: is no TOML: {error}"))
}

fn entries(document: &DocumentMut) -> impl Iterator<Item = &Table> {
    let entries = document.get("attack").and_then(Item::as_array_of_tables);
    entries.into_iter().flat_map(ArrayOfTables::iter)
}

/// Names of tests in a source: functions, and attacks.
fn defined(text: &str) -> impl Iterator<Item = &str> {
    let functions = text.split("fn ").skip(1);
    functions
        .filter_map(|rest| identifiers(rest).next())
        .chain(attacks(text))
}

/// Names of what a source of [`TRIALS`] tries.
fn trials(text: &str) -> impl Iterator<Item = &str> {
    let tests = text.split("test!(").skip(1);
    tests
        .filter_map(|rest| identifiers(rest).next())
        .chain(attacks(text))
}

fn attacks(text: &str) -> impl Iterator<Item = &str> {
    let names = text.split("name: \"").skip(1);
    names
        .filter_map(|rest| rest.split('"').next())
        .filter(|name| is_sentence(name))
}

/// Whether a code span reads like the name of a test.
fn is_sentence(span: &str) -> bool {
    span.split('_').count() > 3 && span.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIAL: &str = "fn nothing_is_found() {}\nname: \"nothing_is_left_for_the_next\",\ntest!(\n    nothing_is_found,\n)";

    fn entry(number: i64, class: &str, more: &str) -> String {
        format!(
            "[[attack]]\nnumber = {number}\nwhat = \"x\"\nclass = \"{class}\"\nlayer = \"y\"\n{more}\n"
        )
    }

    fn with(list: &str, page: &str) -> Repository {
        let trial = format!("{TRIALS}a.rs");
        Repository::invented(&[(LIST, list), (PAGE, page), (&trial, TRIAL)])
    }

    #[test]
    fn a_hole_in_the_list_is_seen() {
        let tried = "tests = [\"nothing_is_found\"]";
        let whole: String = (1..=NUMBER_MAX).map(|n| entry(n, "job", tried)).collect();
        assert_eq!(list(&with(&whole, "")), Vec::<String>::new());
        for (wrong, count) in [
            (entry(1, "job", tried), 1),
            (entry(77, "job", tried), 1),
            (entry(1, "hearsay", tried), 2),
            (entry(1, "waits", tried), 2),
            (entry(1, "wire", "tests = []"), 2),
            (entry(1, "job", "tests = [\"x\"]\nnote = \"A. B. C.\""), 2),
        ] {
            assert_eq!(list(&with(&format!("{whole}{wrong}"), "")).len(), count);
        }
        assert_eq!(list(&Repository::invented(&[])).len(), 1);
    }

    #[test]
    fn tests_that_are_not_there_and_attacks_that_nobody_knows_are_seen() {
        let both = "tests = [\"nothing_is_found\", \"nothing_is_left_for_the_next\"]";
        assert_eq!(tests(&with(&entry(1, "job", both), "")).len(), 0);
        let one = "tests = [\"nothing_is_found\", \"nothing_at_all\"]";
        let page = "`nothing_is_left_for_the_next` `nothing_is_left_for_anybody`";
        let wrong = tests(&with(&entry(1, "job", one), page));
        assert_eq!(wrong.len(), 3, "{wrong:?}");
    }

    #[test]
    fn a_stale_page_is_seen() {
        let list = entry(1, "job", "tests = [\"nothing_is_found\"]\nnote = \"But.\"");
        let [begin, end] = MARKS;
        let stale = format!("# A\n{begin}\nold\n{end}\nmore\n");
        let repository = with(&list, &stale);
        assert_eq!(page(&repository).len(), 1);
        let new = renewed(&repository, &stale).unwrap();
        assert!(new.contains("| 1 | x | job | y | `nothing_is_found`. But. |"));
        assert!(new.starts_with("# A\n") && new.ends_with("more\n"));
        assert_eq!(page(&with(&list, &new)).len(), 0);
        assert_eq!(page(&with(&list, "# A\n")).len(), 1);
    }
}
