//! Files as they come out of a box.
//!
//! # Invariants
//!
//! - What a worker announces is counted before anything is kept for it: never more than [`FILES_MAX`] files and
//!   [`FILES_BYTES_MAX`] bytes.
//! - A file that does not come whole is [`OutputError::Lost`].

use std::collections::BTreeMap;

use base64::Engine as _;
use wpool_protocol::id::AttemptRef;
use wpool_protocol::job::{FILES_BYTES_MAX, FILES_MAX};
use wpool_protocol::outcome::{OutputError, OutputFile};
use wpool_protocol::wire::{OutputBytes, OutputHeader};

use super::dialogue::DialogueError;

/// The files of one attempt, as far as they have come.
#[derive(Debug)]
pub(super) struct Outputs {
    attempt: AttemptRef,
    files: Vec<(String, Result<Incoming, OutputError>)>,
    /// Bytes that may still be announced.
    room: u64,
}

#[derive(Debug)]
struct Incoming {
    size: u64,
    bytes: Vec<u8>,
}

impl Outputs {
    pub(super) fn new(attempt: AttemptRef) -> Self {
        Self {
            attempt,
            files: Vec::new(),
            room: FILES_BYTES_MAX,
        }
    }

    /// A file is coming.
    pub(super) fn announced(&mut self, header: &OutputHeader) -> Result<(), DialogueError> {
        if header.attempt != self.attempt {
            return Err(DialogueError::Unasked);
        }
        let size = *header.size.as_ref().unwrap_or(&0);
        // A pattern that nothing matches is announced as well as what others match.
        if self.files.len() >= 2 * FILES_MAX || size > self.room {
            return Err(DialogueError::TooMuch);
        }
        self.room -= size;
        let name = String::from_utf8_lossy(&header.name).into_owned();
        let incoming = header.size.map(|size| Incoming {
            size,
            bytes: Vec::new(),
        });
        self.files.push((name, incoming));
        Ok(())
    }

    /// More of the last announced file.
    pub(super) fn came(&mut self, piece: &OutputBytes) -> Result<(), DialogueError> {
        let Some((_, Ok(incoming))) = self.files.last_mut() else {
            return Err(DialogueError::Unasked);
        };
        let len = incoming.bytes.len() + piece.bytes.len();
        if piece.attempt != self.attempt || u64::try_from(len).unwrap_or(u64::MAX) > incoming.size {
            return Err(DialogueError::TooMuch);
        }
        incoming.bytes.extend_from_slice(&piece.bytes);
        Ok(())
    }

    /// What came.
    pub(super) fn finish(self) -> BTreeMap<String, OutputFile> {
        let in_words = |incoming: Result<Incoming, OutputError>| match incoming {
            Err(error) => OutputFile::Error(error),
            Ok(incoming) if u64::try_from(incoming.bytes.len()) != Ok(incoming.size) => {
                OutputFile::Error(OutputError::Lost)
            }
            Ok(incoming) => match String::from_utf8(incoming.bytes) {
                Ok(text) => OutputFile::Text(text),
                Err(error) => {
                    OutputFile::Base64(base64::prelude::BASE64_STANDARD.encode(error.into_bytes()))
                }
            },
        };
        self.files
            .into_iter()
            .map(|(name, incoming)| (name, in_words(incoming)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use wpool_protocol::id::{AttemptNumber, JobId};

    use super::*;

    const ATTEMPT: AttemptRef = AttemptRef {
        job: JobId(1),
        attempt: AttemptNumber::FIRST,
    };

    fn header(name: &[u8], size: Result<u64, OutputError>) -> OutputHeader {
        OutputHeader {
            attempt: ATTEMPT,
            name: name.to_vec(),
            size,
        }
    }

    fn piece(bytes: &[u8]) -> OutputBytes {
        OutputBytes {
            attempt: ATTEMPT,
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn files_come_whole_or_are_lost() {
        let mut outputs = Outputs::new(ATTEMPT);
        outputs.announced(&header(b"a", Ok(3))).unwrap();
        outputs.came(&piece(b"ab")).unwrap();
        outputs.came(&piece(b"c")).unwrap();
        outputs
            .announced(&header(b"x", Err(OutputError::Missing)))
            .unwrap();
        outputs.announced(&header(b"\xff", Ok(9))).unwrap();
        let files = outputs.finish();
        assert_eq!(files["a"], OutputFile::Text("abc".into()));
        assert_eq!(files["x"], OutputFile::Error(OutputError::Missing));
        assert_eq!(files["\u{fffd}"], OutputFile::Error(OutputError::Lost));
    }

    #[test]
    fn more_than_was_announced_or_may_be_is_refused() {
        let mut outputs = Outputs::new(ATTEMPT);
        assert!(outputs.came(&piece(b"x")).is_err());
        outputs.announced(&header(b"a", Ok(1))).unwrap();
        assert!(outputs.came(&piece(b"ab")).is_err());
        assert!(
            outputs
                .announced(&header(b"b", Ok(FILES_BYTES_MAX)))
                .is_err()
        );
        for _ in 0..2 * FILES_MAX - 1 {
            outputs.announced(&header(b"c", Ok(0))).unwrap();
        }
        assert!(outputs.announced(&header(b"d", Ok(0))).is_err());
    }
}
