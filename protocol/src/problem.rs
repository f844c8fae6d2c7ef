//! Why a request was refused: a problem document (RFC 9457).

use serde::{Deserialize, Serialize};

/// A problem document, sent as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem, as a URN that programs may compare, like `urn:wpool:queue-full`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This occurrence, for people: what is wrong and what to do.
    pub detail: String,
    /// Which limit was reached, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// The value of that limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<u64>,
    /// When to try again, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    /// What stands before the name of every kind.
    pub const KIND_PREFIX: &str = "urn:wpool:";

    /// A problem of the kind `name` (like `queue-full`).
    pub fn new(status: u16, name: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{}{name}", Self::KIND_PREFIX),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            limit: None,
            allowed: None,
            retry_after_ms: None,
        }
    }
}
