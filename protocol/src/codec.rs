//! Messages to bytes and back: the only file that names bincode.
//!
//! bincode 2.0.1 in serde mode with variable-length integers. It is no longer maintained; what guards
//! against its known holes, and the way out, are in docs/adr/0001-codec.md.
//!
//! # Invariants
//!
//! - Decoding never allocates more than [`frame::LEN_MAX`] bytes at once: bincode's
//!   limit is that of a frame, and no message holds a sequence of zero-sized or a type that contains itself.
//! - A frame is decoded whole: bytes after the message are an error.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<{ frame::LEN_MAX }>,
> = bincode::config::standard().with_limit::<{ frame::LEN_MAX }>();

/// A message that has no bytes.
#[derive(Debug, thiserror::Error)]
#[error("failed to encode a message")]
pub struct EncodeError(#[source] bincode::error::EncodeError);

/// Bytes that are no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They do not stand for a value of the type.
    #[error("failed to decode a message")]
    Malformed(#[source] bincode::error::DecodeError),
    /// More bytes follow the message.
    #[error("failed to decode a message: {0} bytes follow it in its frame")]
    Trailing(usize),
}

/// The bytes of `message`.
///
/// # Errors
///
/// [`EncodeError`] if the message is longer than a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, EncodeError> {
    bincode::serde::encode_to_vec(message, CONFIG).map_err(EncodeError)
}

/// The message that `bytes` stand for.
///
/// # Errors
///
/// [`DecodeError`] if they stand for none, or for one and something more.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (message, consumed) =
        bincode::serde::decode_from_slice(bytes, CONFIG).map_err(DecodeError::Malformed)?;
    match bytes.len() - consumed {
        0 => Ok(message),
        trailing => Err(DecodeError::Trailing(trailing)),
    }
}
