//! Names of files inside a job's box.
//!
//! # Invariants
//!
//! - A [`BoxPath`] is relative, has no empty, `.` or `..` component and no NUL, is at most
//!   [`BoxPath::LEN_MAX`] bytes long and [`BoxPath::DEPTH_MAX`] deep. Whoever holds one need not ask again.
//! - It says nothing about what lies there: symbolic links are met (and refused) by whoever opens it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A relative path beneath `/box`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BoxPath(String);

/// A text that names no file beneath `/box`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a file name inside the box: {reason}")]
pub struct ParseBoxPathError {
    text: String,
    reason: &'static str,
}

impl BoxPath {
    /// Bytes of a path; with `/box/` before it, it stays far below the kernel's `PATH_MAX` of 4096.
    pub const LEN_MAX: usize = 1024;

    /// Components of a path.
    pub const DEPTH_MAX: usize = 32;

    /// Bytes of one component: the kernel's `NAME_MAX`.
    pub const COMPONENT_LEN_MAX: usize = 255;

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, outermost first; there is always one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for BoxPath {
    type Err = ParseBoxPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| {
            Err(ParseBoxPathError {
                text: text
                    .chars()
                    .take(80)
                    .collect::<String>()
                    .escape_debug()
                    .to_string(),
                reason,
            })
        };
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.len() > Self::LEN_MAX {
            return refuse("it is longer than 1024 bytes");
        }
        if text.contains('\0') {
            return refuse("it holds a NUL byte");
        }
        if text.starts_with('/') {
            return refuse("it is absolute; names are relative to /box");
        }
        if text.split('/').count() > Self::DEPTH_MAX {
            return refuse("it is deeper than 32 components");
        }
        for component in text.split('/') {
            match component {
                "" => return refuse("it has an empty component"),
                "." | ".." => return refuse("it has a `.` or `..` component"),
                long if long.len() > Self::COMPONENT_LEN_MAX => {
                    return refuse("a component is longer than 255 bytes");
                }
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for BoxPath {
    type Error = ParseBoxPathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BoxPath> for String {
    fn from(path: BoxPath) -> Self {
        path.0
    }
}

impl fmt::Display for BoxPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_leave_the_box_are_refused() {
        for text in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            ".",
            "a/./b",
            "a\0b",
        ] {
            assert!(text.parse::<BoxPath>().is_err(), "{text:?}");
        }
        assert!("x".repeat(256).parse::<BoxPath>().is_err());
        assert!(vec!["d"; 33].join("/").parse::<BoxPath>().is_err());
    }

    #[test]
    fn ordinary_names_are_accepted() {
        for text in [
            "main.py",
            "out/a.png",
            "..hidden",
            "a b",
            "ü/\n",
            "...",
            "~",
        ] {
            assert!(text.parse::<BoxPath>().is_ok(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_accepted_name_has_a_component_that_climbs(text in "[./a\\\\]{0,12}") {
            if let Ok(path) = text.parse::<BoxPath>() {
                prop_assert!(path.components().all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
