//! Text of others, made harmless for a terminal.
//!
//! Names, labels, commands and messages come from jobs, clients and daemons, and may hold what a
//! terminal obeys: escape sequences that rewrite the screen, C1 controls that do the same in one
//! character, marks that turn the direction of writing so that a line reads as another.
//!
//! # Invariants
//!
//! - What comes out holds no control character but the line ends of [`json`]'s own layout, and no invisible one
//!   that changes how its neighbours look.
//! - Escaping shows what was there: nothing is dropped, and in names `\` is doubled so that none can pretend to be an escape.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a terminal would do something else with `c` than show it.
fn is_hostile(c: char) -> bool {
    c.is_control() || is_invisible(c)
}

/// Marks that turn, hide or join text without being seen (Unicode's `Bidi_Control` and its kin), line separators, tags.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// `text` as one line that a terminal shows and does not obey.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| is_hostile(c) || c == '\\') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hostile(c) || c == '\\' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// A message of several parts as one line; parts of it may be escaped already, so that `\` stays.
pub(crate) fn message(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hostile(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// As [`line`], cut to `width` characters.
pub(crate) fn short(text: &str, width: usize) -> String {
    let shown = line(text);
    if shown.chars().count() <= width {
        return shown.into_owned();
    }
    let mut cut: String = shown.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// JSON that a terminal shows and does not obey; its meaning is the same.
///
/// JSON itself escapes only the C0 controls. All else that is hostile can only stand inside a string,
/// where `\uXXXX` says the same.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| is_hostile(c) && !matches!(c, '\n' | '\t');
    if !text.contains(hostile) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                write!(shown, "\\u{unit:04x}").unwrap_or_default();
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert_eq!(line("\u{1b}[2Jx\r\n"), "\\u{1b}[2Jx\\r\\n");
        assert_eq!(line("a\u{9b}31m"), "a\\u{9b}31m");
        assert_eq!(line("gpj.\u{202e}exe"), "gpj.\\u{202e}exe");
        assert_eq!(line("\u{7f}"), "\\u{7f}");
    }

    #[test]
    fn ordinary_text_of_any_language_stays() {
        for text in ["main.py", "größer", "日本語", "👍", "a b"] {
            assert_eq!(line(text), text);
        }
    }

    #[test]
    fn no_text_can_pretend_to_be_an_escape() {
        assert_ne!(line("\\u{1b}"), line("\u{1b}"));
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("abcd", 4), "abcd");
    }

    proptest! {
        #[test]
        fn nothing_hostile_is_left(text: String) {
            prop_assert!(!line(&text).contains(is_hostile));
            prop_assert!(!message(&text).contains(is_hostile));
            prop_assert!(!short(&text, 9).contains(is_hostile));
        }

        #[test]
        fn json_keeps_its_meaning(text: String) {
            let coded = serde_json::to_string(&text).unwrap();
            let shown = json(&coded);
            prop_assert!(!shown.contains(is_hostile));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }

    #[test]
    fn json_outside_the_basic_plane_keeps_its_meaning() {
        let text = "\u{e0041}\u{9b}\u{202e}";
        let coded = serde_json::to_string(text).unwrap();
        assert_eq!(json(&coded), "\"\\udb40\\udc41\\u009b\\u202e\"");
        assert_eq!(serde_json::from_str::<String>(&json(&coded)).unwrap(), text);
    }
}
