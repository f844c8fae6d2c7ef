//! What a job's `outputs` ask for: names, and patterns of names.
//!
//! A pattern holds `*`, `?` or `[…]`, which stay within one component, or a component `**`, which stands
//! for any number of directories. A backslash takes the meaning from what follows. Everything else is itself,
//! braces and leading dots included. What looks like a pattern and is none (`a[`) is a name.
//!
//! # Invariants
//!
//! - Names are bytes: a pattern meets them as they are, UTF-8 or not.

use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// The pattern that `output` is; `None` where it is a name.
///
/// Public for the one who has to tell, of a file that came out, which output asked for it.
pub fn glob(output: &str) -> Option<Glob> {
    output
        .contains(['*', '?', '[', '\\'])
        .then(|| without_braces(output))
        .and_then(|text| GlobBuilder::new(&text).literal_separator(true).build().ok())
}

/// Places for one character each, behind a `*`, from which on patterns are dear: what meets them may be in as many states as there are
/// ways to set them, and no automaton holds so many.
const DEAR_FROM: usize = 8;

/// The patterns of a job, and which of them something can be said about.
#[derive(Debug)]
pub(super) struct Patterns {
    texts: Vec<String>,
    components: Vec<Vec<Component>>,
    set: GlobSet,
}

/// One component of a pattern, as far as it matters for where to look.
#[derive(Debug, PartialEq, Eq)]
enum Component {
    /// One name.
    Literal(Vec<u8>),
    /// Some names.
    Some,
    /// Any number of directories.
    AnyDepth,
}

/// A list of outputs, sorted out.
#[derive(Debug)]
pub(super) struct Asked {
    /// Plain names.
    pub(super) names: Vec<String>,
    /// Patterns.
    pub(super) patterns: Patterns,
    /// Patterns that are too large to be looked for, all together.
    pub(super) too_large: Vec<String>,
}

impl Asked {
    pub(super) fn sort_out(outputs: &[String]) -> Self {
        let mut names = Vec::new();
        let mut texts = Vec::new();
        let mut builder = GlobSetBuilder::new();
        for output in outputs {
            match glob(output) {
                None => names.push(output.clone()),
                Some(glob) => {
                    builder.add(glob);
                    texts.push(output.clone());
                }
            }
        }
        match builder.build() {
            Ok(set) => Self {
                names,
                patterns: Patterns::new(texts, set),
                too_large: Vec::new(),
            },
            // The compiled patterns are bounded in memory; a few hundred long ones exceed it.
            Err(_) => Self {
                names,
                patterns: Patterns::new(Vec::new(), GlobSet::empty()),
                too_large: texts,
            },
        }
    }
}

impl Patterns {
    fn new(texts: Vec<String>, set: GlobSet) -> Self {
        let components = texts
            .iter()
            .map(|text| text.split('/').map(Component::new).collect())
            .collect();
        Self {
            texts,
            components,
            set,
        }
    }

    pub(super) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// What it takes to hold one byte of a name against all dear patterns, in their bytes: they are one automaton, whose states
    /// multiply.
    pub(super) fn dearness(&self) -> usize {
        let places = |text: &String| {
            let behind = text.split_once('*').map_or("", |(_, behind)| behind);
            behind.matches(['?', '[']).count()
        };
        if self.texts.iter().map(places).sum::<usize>() < DEAR_FROM {
            return 0;
        }
        let dear = self.texts.iter().filter(|text| places(text) > 0);
        dear.map(String::len).sum()
    }

    /// The patterns, by index, that match this name.
    pub(super) fn matching(&self, name: &[u8]) -> Vec<usize> {
        self.set.matches_candidate(&Candidate::from_bytes(name))
    }

    /// The patterns, by index, that may match something beneath this directory.
    pub(super) fn reaching(&self, directory: &[u8]) -> impl Iterator<Item = usize> {
        self.components
            .iter()
            .enumerate()
            .filter(|(_, components)| reaches(components, directory))
            .map(|(index, _)| index)
    }
}

impl Component {
    fn new(text: &str) -> Self {
        if text == "**" {
            Self::AnyDepth
        } else if text.contains(['*', '?', '[', ']', '\\']) {
            Self::Some
        } else {
            Self::Literal(text.as_bytes().to_vec())
        }
    }
}

/// Whether a pattern goes on beneath a directory: a cheap look that may say yes too often.
fn reaches(pattern: &[Component], directory: &[u8]) -> bool {
    let mut rest = pattern.iter();
    for name in directory.split(|byte| *byte == b'/') {
        match rest.next() {
            Some(Component::AnyDepth) => return true,
            Some(Component::Some) => {}
            Some(Component::Literal(literal)) if literal == name => {}
            Some(Component::Literal(_)) | None => return false,
        }
    }
    rest.next().is_some()
}

/// The pattern with its braces made plain: globset would read alternatives.
fn without_braces(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len() + 8);
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                text.push('\\');
                text.extend(characters.next());
            }
            '{' | '}' => {
                text.push('\\');
                text.push(character);
            }
            '[' => {
                // A class is copied as it is, up to its end: a `]` that is not its first member.
                text.push('[');
                text.extend(characters.next_if(|next| matches!(next, '!' | '^')));
                text.extend(characters.next_if_eq(&']'));
                for member in characters.by_ref() {
                    text.push(member);
                    if member == ']' {
                        break;
                    }
                }
            }
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &[u8]) -> bool {
        let asked = Asked::sort_out(&[pattern.to_owned()]);
        !asked.patterns.matching(name).is_empty()
    }

    #[test]
    fn patterns_match_what_their_description_says() {
        for (pattern, name) in [
            ("*.png", "a.png"),
            ("*", ".hidden"),
            ("out/*", "out/a"),
            ("out/**", "out/a/b/c"),
            ("**/x", "x"),
            ("**/x", "a/b/x"),
            ("a/**/x", "a/x"),
            ("?", "x"),
            ("[a-c]x", "bx"),
            ("[!a]x", "bx"),
            ("[]]x", "]x"),
            ("{a,b}*", "{a,b}c"),
            ("[{]*", "{x"),
            (r"\*", "*"),
            ("*", "line\nfeed"),
        ] {
            assert!(matches(pattern, name.as_bytes()), "{pattern} {name:?}");
        }
        for (pattern, name) in [
            ("*.png", "out/a.png"),
            ("out/*", "out/a/b"),
            ("out/*", "out"),
            ("{a,b}*", "ac"),
            (r"\**", "ab"),
            ("[!a]x", "ax"),
        ] {
            assert!(!matches(pattern, name.as_bytes()), "{pattern} {name:?}");
        }
        assert!(matches("a*b", b"a\xff\xfeb"));
    }

    #[test]
    fn what_is_no_pattern_is_a_name() {
        let outputs = ["plain", "a[", "{a,b}"].map(str::to_owned);
        let asked = Asked::sort_out(&outputs);
        assert_eq!(asked.names, outputs);
        assert!(asked.patterns.texts().is_empty());
    }

    #[test]
    fn patterns_that_are_too_much_together_are_said_to_be() {
        let outputs: Vec<String> = (0..256)
            .map(|n| format!("{}{n}", "[!a-z]".repeat(1_600)))
            .collect();
        let asked = Asked::sort_out(&outputs);
        assert_eq!(asked.too_large.len(), 256);
        assert!(asked.patterns.matching(b"x").is_empty());
    }

    #[test]
    fn directories_that_no_pattern_reaches_are_not_entered() {
        let outputs = ["out/*.png", "a/*/c", "deep/**/x"].map(str::to_owned);
        let patterns = Asked::sort_out(&outputs).patterns;
        let reached = |directory: &str| patterns.reaching(directory.as_bytes()).next().is_some();
        for directory in ["out", "a", "a/b", "deep", "deep/a/b/c"] {
            assert!(reached(directory), "{directory}");
        }
        for directory in ["o", "out/x", "a/b/c", "node_modules"] {
            assert!(!reached(directory), "{directory}");
        }
    }

    proptest! {
        #[test]
        fn a_match_lies_where_the_pattern_reaches(
            pattern in "([ab*?]{1,3}|\\*\\*)(/([ab*?]{1,3}|\\*\\*)){0,3}",
            name in "[ab]{1,3}(/[ab]{1,3}){1,4}",
        ) {
            let patterns = Asked::sort_out(&[pattern]).patterns;
            if !patterns.matching(name.as_bytes()).is_empty() {
                for (index, _) in name.match_indices('/') {
                    let directory = &name.as_bytes()[..index];
                    prop_assert!(patterns.reaching(directory).next().is_some());
                }
            }
        }

        #[test]
        fn any_text_is_a_name_or_a_pattern(text in "[\\[\\]{}!^*?/\\\\a-c,-]{0,12}") {
            let asked = Asked::sort_out(&[text]);
            prop_assert_eq!(asked.names.len() + asked.patterns.texts().len(), 1);
        }
    }
}
