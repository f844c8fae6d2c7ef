//! The greeting: both sides say who they are before anything else.
//!
//! # Invariants
//!
//! - Supervisor and worker are one binary: another version is an error, never something to adapt to.

use serde::{Deserialize, Serialize};

/// Who speaks: the first message in both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`Hello::MAGIC`].
    pub magic: [u8; 8],
    /// [`Hello::PROTOCOL`].
    pub protocol: u32,
    /// The version of the binary.
    pub version: String,
}

impl Hello {
    /// What a stream of wpool's begins with.
    pub const MAGIC: [u8; 8] = *b"wpool\r\n\0";

    /// The version of these messages.
    pub const PROTOCOL: u32 = 1;

    /// What this binary says.
    pub fn ours() -> Self {
        Self {
            magic: Self::MAGIC,
            protocol: Self::PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Whether the other side may be spoken to.
    ///
    /// # Errors
    ///
    /// [`HelloError`] says what differs.
    pub fn check(&self) -> Result<(), HelloError> {
        let ours = Self::ours();
        if self.magic != ours.magic {
            return Err(HelloError::Magic);
        }
        if self.protocol != ours.protocol || self.version != ours.version {
            return Err(HelloError::Version {
                theirs: format!(
                    "{} (protocol {})",
                    self.version.escape_debug(),
                    self.protocol
                ),
                ours: format!("{} (protocol {})", ours.version, ours.protocol),
            });
        }
        Ok(())
    }
}

/// The other side is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It is no wpool.
    #[error("the other side does not speak wpool's protocol")]
    Magic,
    /// It is another wpool.
    #[error("the other side is wpool {theirs}, this is wpool {ours}")]
    Version {
        /// The other side.
        theirs: String,
        /// This side.
        ours: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_binary_is_not_spoken_to() {
        assert_eq!(Hello::ours().check(), Ok(()));
        let stranger = Hello {
            magic: *b"HTTP/1.1",
            ..Hello::ours()
        };
        assert_eq!(stranger.check(), Err(HelloError::Magic));
        let older = Hello {
            version: "0.0.9".into(),
            ..Hello::ours()
        };
        assert!(
            older
                .check()
                .unwrap_err()
                .to_string()
                .contains("wpool 0.0.9")
        );
    }
}
