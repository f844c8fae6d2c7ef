//! Files as they come out of a box.
//!
//! # Invariants
//!
//! - What a worker announces is counted before anything is kept for it: never more than [`ANNOUNCED_MAX`] files
//!   and [`FILES_BYTES_MAX`] bytes, and memory grows with what comes, not with what is announced.
//! - A file that does not come whole is [`OutputError::Lost`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use wpool_protocol::job::{FILES_BYTES_MAX, FILES_MAX, OUTPUTS_MAX};
use wpool_protocol::outcome::{OutputError, OutputFile};
use wpool_protocol::path::BoxPath;
use wpool_protocol::wire::CHUNK_MAX;

/// Announcements of one attempt: its files, and the patterns that match none.
pub const ANNOUNCED_MAX: usize = FILES_MAX + OUTPUTS_MAX;

/// A worker that sends something else than what it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatherError {
    /// Too many, too long a name, or too many bytes.
    #[error("it brings out more than any job may")]
    TooMuch,
    /// Bytes that belong to no file, or more than were announced.
    #[error("it brings out bytes that it did not announce")]
    Unannounced,
}

/// The files of one attempt, as far as they have come.
#[derive(Debug, Default)]
pub struct Gathered {
    files: Vec<(Vec<u8>, Result<Incoming, OutputError>)>,
    /// Bytes that were announced.
    announced: u64,
}

#[derive(Debug)]
struct Incoming {
    size: u64,
    bytes: Vec<u8>,
}

impl Gathered {
    /// A file is coming.
    ///
    /// # Errors
    ///
    /// [`GatherError::TooMuch`]
    pub fn announce(
        &mut self,
        name: Vec<u8>,
        size: Result<u64, OutputError>,
    ) -> Result<(), GatherError> {
        let announced = self.announced.saturating_add(size.unwrap_or(0));
        if self.files.len() >= ANNOUNCED_MAX
            || name.len() > BoxPath::LEN_MAX
            || announced > FILES_BYTES_MAX
        {
            return Err(GatherError::TooMuch);
        }
        self.announced = announced;
        let incoming = size.map(|size| Incoming {
            size,
            bytes: Vec::new(),
        });
        self.files.push((name, incoming));
        Ok(())
    }

    /// More of the last announced file.
    ///
    /// # Errors
    ///
    /// [`GatherError`]
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), GatherError> {
        let Some((_, Ok(incoming))) = self.files.last_mut() else {
            return Err(GatherError::Unannounced);
        };
        let len = u64::try_from(incoming.bytes.len() + bytes.len()).unwrap_or(u64::MAX);
        if bytes.len() > CHUNK_MAX {
            return Err(GatherError::TooMuch);
        }
        if len > incoming.size {
            return Err(GatherError::Unannounced);
        }
        incoming.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes that were announced.
    pub const fn announced(&self) -> u64 {
        self.announced
    }

    /// What came, as clients get it.
    pub fn finish(self) -> BTreeMap<String, OutputFile> {
        let mut files = BTreeMap::new();
        for (name, incoming) in self.files {
            let mut name = readable(&name);
            // The bytes of one name may be the letters of another.
            while files.contains_key(&name) {
                name.push(char::REPLACEMENT_CHARACTER);
            }
            files.insert(name, file(incoming));
        }
        files
    }
}

/// A name as text: bytes that are none become `\xff`.
fn readable(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            write!(text, "\\x{byte:02x}").unwrap_or_default();
        }
    }
    text
}

fn file(incoming: Result<Incoming, OutputError>) -> OutputFile {
    match incoming {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_whole_or_are_lost() {
        let mut gathered = Gathered::default();
        gathered.announce(b"a".to_vec(), Ok(3)).unwrap();
        gathered.take(b"ab").unwrap();
        gathered.take(b"c").unwrap();
        gathered
            .announce(b"x".to_vec(), Err(OutputError::Missing))
            .unwrap();
        gathered.announce(b"\xff".to_vec(), Ok(9)).unwrap();
        let files = gathered.finish();
        assert_eq!(files["a"], OutputFile::Text("abc".into()));
        assert_eq!(files["x"], OutputFile::Error(OutputError::Missing));
        assert_eq!(files["\\xff"], OutputFile::Error(OutputError::Lost));
    }

    #[test]
    fn no_two_files_come_out_under_one_name() {
        let mut gathered = Gathered::default();
        let names: [&[u8]; 4] = [b"a\xfe", b"a\xff", b"a\\xfe", b"a\\xff\xef\xbf\xbd"];
        for name in names {
            gathered.announce(name.to_vec(), Ok(0)).unwrap();
        }
        assert_eq!(gathered.finish().len(), names.len());
    }

    #[test]
    fn more_than_was_announced_or_may_be_is_refused() {
        let mut gathered = Gathered::default();
        assert_eq!(gathered.take(b"x"), Err(GatherError::Unannounced));
        gathered.announce(b"a".to_vec(), Ok(1)).unwrap();
        assert_eq!(gathered.take(b"ab"), Err(GatherError::Unannounced));
        let whole = gathered.announce(b"b".to_vec(), Ok(FILES_BYTES_MAX));
        assert_eq!(whole, Err(GatherError::TooMuch));
        let name = gathered.announce(vec![b'n'; BoxPath::LEN_MAX + 1], Ok(0));
        assert_eq!(name, Err(GatherError::TooMuch));
        for _ in 1..ANNOUNCED_MAX {
            gathered.announce(b"c".to_vec(), Ok(0)).unwrap();
        }
        let one_more = gathered.announce(b"d".to_vec(), Ok(0));
        assert_eq!(one_more, Err(GatherError::TooMuch));
    }
}
