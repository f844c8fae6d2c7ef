//! Cutting a stream of bytes into frames: bytes in, frames out, no IO.
//!
//! A frame is a little-endian u32 length and that many bytes. Both sides of a pipe use this file: the
//! supervisor, which never blocks, and the worker, which does.
//!
//! # Invariants
//!
//! - A length of 0, or above what this side takes, is refused before anything is allocated for it:
//!   a worker takes [`LEN_MAX`], the supervisor, who trusts no worker, [`REPLY_LEN_MAX`].
//! - The buffer holds at most one incomplete frame and what one read brought with it; it grows with the
//!   bytes that arrive, never with the length that is announced.
//! - After an error the stream is lost: every later call gives the same error.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;

/// Bytes of a frame without its length. The longest message is a job's order: 512 KiB of arguments and
/// 4 096 file names of at most 1 KiB; everything longer travels in chunks.
pub const LEN_MAX: usize = 6 << 20;

const _: () = assert!(
    LEN_MAX
        > crate::job::ARGUMENTS_BYTES_MAX
            + crate::job::FILES_MAX * (crate::path::BoxPath::LEN_MAX + 16)
            + crate::job::OUTPUTS_MAX * crate::path::BoxPath::LEN_MAX
);

/// Bytes of a frame that a worker sends, without its length: one chunk and what stands around it.
///
/// Names of files and reports of layers are far shorter. The limit is low because a value may take
/// many times the memory of its bytes (a report of a layer takes 72 bytes and can be sent in 3).
pub const REPLY_LEN_MAX: usize = crate::wire::CHUNK_MAX + (8 << 10);

/// Bytes of the length before a frame.
pub const PREFIX_LEN: usize = 4;

/// A stream that holds something else than frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame without content.
    #[error("failed to read a frame: its length is 0")]
    Empty,
    /// A frame longer than any may be.
    #[error("failed to read a frame: its length is {announced}, above {allowed}")]
    TooLong {
        /// What its prefix says.
        announced: u32,
        /// What this side takes.
        allowed: usize,
    },
}

/// What can be wrong with what was received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The message in it.
    #[error(transparent)]
    Message(#[from] codec::DecodeError),
}

/// Appends the frame of `message` to `out`.
///
/// # Errors
///
/// [`codec::EncodeError`] if the message is longer than a frame may be; `out` is then as before.
pub fn push<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), codec::EncodeError> {
    let body = codec::encode(message)?;
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&body);
    Ok(())
}

/// Turns the bytes of a stream, in whatever pieces they come, into frames.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// How much of `buffer` has been given out.
    taken: usize,
    /// The longest frame that is taken.
    len_max: usize,
    failed: Option<FrameError>,
}

/// For what a supervisor sends: frames of up to [`LEN_MAX`].
impl Default for Decoder {
    fn default() -> Self {
        Self::with_len_max(LEN_MAX)
    }
}

impl Decoder {
    /// For what a worker sends: frames of up to [`REPLY_LEN_MAX`].
    pub const fn of_replies() -> Self {
        Self::with_len_max(REPLY_LEN_MAX)
    }

    const fn with_len_max(len_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            taken: 0,
            len_max,
            failed: None,
        }
    }

    /// Takes in what one read brought; of a stream that is lost, nothing.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether bytes of an incomplete frame wait for the rest of it.
    pub fn is_between_frames(&self) -> bool {
        self.buffer.len() == self.taken
    }

    /// The next whole frame, without its length; `None` until more bytes come.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the stream holds something else; it is then of no more use.
    pub fn frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let pending = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((prefix, rest)) = pending.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(None);
        };
        let announced = u32::from_le_bytes(*prefix);
        let len = usize::try_from(announced).unwrap_or(usize::MAX);
        let error = match len {
            0 => Some(FrameError::Empty),
            len if len > self.len_max => Some(FrameError::TooLong {
                announced,
                allowed: self.len_max,
            }),
            _ => None,
        };
        if let Some(error) = error {
            self.failed = Some(error);
            self.buffer = Vec::new();
            self.taken = 0;
            return Err(error);
        }
        if rest.len() < len {
            return Ok(None);
        }
        let start = self.taken + PREFIX_LEN;
        self.taken = start + len;
        Ok(self.buffer.get(start..self.taken))
    }

    /// The next whole message; `None` until more bytes come.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`] if the stream holds something else.
    pub fn message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ReceiveError> {
        match self.frame()? {
            None => Ok(None),
            Some(frame) => Ok(Some(codec::decode(frame)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..20),
            piece in 1usize..70,
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                stream.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
                stream.extend_from_slice(body);
            }
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for bytes in stream.chunks(piece) {
                decoder.extend(bytes);
                while let Some(frame) = decoder.frame().unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
            prop_assert!(decoder.is_between_frames());
        }

        #[test]
        fn any_bytes_give_frames_or_an_error_and_the_buffer_stays_small(bytes: Vec<u8>) {
            let mut decoder = Decoder::default();
            decoder.extend(&bytes);
            while let Ok(Some(_)) = decoder.frame() {}
            prop_assert!(decoder.buffer.capacity() <= 2 * bytes.len().max(8));
        }
    }

    #[test]
    fn a_length_of_nothing_or_of_everything_is_refused_for_good() {
        for (prefix, error) in [
            (0u32, FrameError::Empty),
            (
                u32::MAX,
                FrameError::TooLong {
                    announced: u32::MAX,
                    allowed: LEN_MAX,
                },
            ),
        ] {
            let mut decoder = Decoder::default();
            decoder.extend(&prefix.to_le_bytes());
            assert_eq!(decoder.frame(), Err(error));
            decoder.extend(&[1, 0, 0, 0, 7]);
            assert_eq!(decoder.frame(), Err(error));
        }
    }
}
