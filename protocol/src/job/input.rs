//! A file of a job as clients write it: a text, or an object that says more.
//!
//! | JSON | meaning |
//! | --- | --- |
//! | `"text"` | these bytes, mode 644 |
//! | `{"text": …, "mode": "755"}` | these bytes, that mode |
//! | `{"base64": …}` | bytes that are no text |
//! | `{"path": …}` | a file of the supervisor's machine |
//!
//! # Invariants
//!
//! - Exactly one of `text`, `base64`, `path` is there, and no other field.
//! - What is printed parses back to the same value.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::blob::decode_base64;

/// A file to lay into the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Where its bytes come from.
    pub content: InputContent,
    /// Permission bits, 0 to 0o777; 0o644 unless said.
    pub mode: u32,
}

/// Where the bytes of an input file come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputContent {
    /// The request itself.
    Bytes(Vec<u8>),
    /// A file on the supervisor's machine, beneath a root that the profile allows.
    HostPath(String),
}

impl InputFile {
    /// Permission bits of a file that does not name its own.
    pub const DEFAULT_MODE: u32 = 0o644;
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum InputForm {
    Text(String),
    Fields(InputFields),
}

impl<'de> Deserialize<'de> for InputFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "a file is a text, or an object with one of text, base64, path and an optional mode like \"755\"";
        let form = InputForm::deserialize(deserializer).map_err(|_| de::Error::custom(EXPECTED))?;
        let fields = match form {
            InputForm::Text(text) => {
                return Ok(Self {
                    content: InputContent::Bytes(text.into_bytes()),
                    mode: Self::DEFAULT_MODE,
                });
            }
            InputForm::Fields(fields) => fields,
        };
        let content = match (fields.text, fields.base64, fields.path) {
            (Some(text), None, None) => InputContent::Bytes(text.into_bytes()),
            (None, Some(coded), None) => InputContent::Bytes(decode_base64(&coded)?),
            (None, None, Some(path)) => InputContent::HostPath(path),
            _ => return Err(de::Error::custom(EXPECTED)),
        };
        let mode = match fields.mode {
            None => Self::DEFAULT_MODE,
            Some(octal) => u32::from_str_radix(&octal, 8)
                .ok()
                .filter(|mode| *mode <= 0o777)
                .ok_or_else(|| de::Error::custom("mode is three octal digits, like \"755\""))?,
        };
        Ok(Self { content, mode })
    }
}

impl Serialize for InputFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = InputFields {
            text: None,
            base64: None,
            path: None,
            mode: (self.mode != Self::DEFAULT_MODE).then(|| format!("{:o}", self.mode)),
        };
        match &self.content {
            InputContent::Bytes(bytes) => match str::from_utf8(bytes) {
                Ok(text) if fields.mode.is_none() => return serializer.serialize_str(text),
                Ok(text) => fields.text = Some(text.to_owned()),
                Err(_) => {
                    fields.base64 = Some(BASE64_STANDARD.encode(bytes));
                }
            },
            InputContent::HostPath(path) => fields.path = Some(path.clone()),
        }
        fields.serialize(serializer)
    }
}

impl InputFile {
    /// Bytes that the request itself carries.
    pub(super) fn inline_bytes(&self) -> u64 {
        match &self.content {
            InputContent::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            InputContent::HostPath(_) => 0,
        }
    }
}
