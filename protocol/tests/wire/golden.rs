//! Golden frames: the bytes of every kind of message, kept under `tests/golden/v1`.
//!
//! They pin what the codec writes, so that another codec, another compiler or another field order is seen.
//! A frame is written as hex: its length on the first line, then 32 bytes a line. `UPDATE_GOLDEN=1`
//! writes the files anew; a change of an old file asks for a new [`Hello::PROTOCOL`].

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wpool_protocol::codec;
use wpool_protocol::frame::{self, Decoder, PREFIX_LEN};
use wpool_protocol::wire::{FromWorker, Hello, ToWorker};

use super::samples;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("v{}", Hello::PROTOCOL))
}

fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1")
}

fn to_hex(frame: &[u8]) -> String {
    let (prefix, body) = frame.split_at(PREFIX_LEN);
    let mut text = String::new();
    for line in std::iter::once(prefix).chain(body.chunks(32)) {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Compares the frame of `message` with the file, and what the file decodes to with `message`.
fn check<T>(name: &str, message: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let mut bytes = Vec::new();
    frame::push(message, &mut bytes).unwrap();
    let path = folder().join(format!("{name}.hex"));
    if is_update() {
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, to_hex(&bytes)).unwrap();
    }
    let kept = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display()));
    assert_eq!(
        to_hex(&bytes),
        kept,
        "{name} is no longer written as it was"
    );
    let mut decoder = Decoder::default();
    decoder.extend(&from_hex(&kept));
    assert_eq!(decoder.message::<T>().unwrap().as_ref(), Some(message));
    assert!(decoder.is_between_frames());
}

/// What an unknown variant of `T` is answered with; it names how many there are.
fn unknown_variant<T: DeserializeOwned + Debug>(number: u8) -> String {
    let codec::DecodeError::Malformed(error) = codec::decode::<T>(&[number, 0, 0]).unwrap_err()
    else {
        panic!("variant {number} is known");
    };
    error.to_string()
}

#[test]
fn frames_are_written_as_they_were() {
    for (name, message) in samples::to_worker() {
        check(&format!("to_worker.{name}"), &message);
    }
    for (name, message) in samples::from_worker() {
        check(&format!("from_worker.{name}"), &message);
    }
}

#[test]
fn no_golden_frame_is_without_a_message() {
    let to_worker = samples::to_worker()
        .into_iter()
        .map(|(name, _)| format!("to_worker.{name}.hex"));
    let from_worker = samples::from_worker()
        .into_iter()
        .map(|(name, _)| format!("from_worker.{name}.hex"));
    let expected: BTreeSet<String> = to_worker.chain(from_worker).collect();
    let found: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
}

/// The first byte of a message is its variant; with a gap or a missing last one this fails.
#[test]
fn every_variant_has_a_golden_frame() {
    let numbers = |frames: Vec<Vec<u8>>| -> u8 {
        let seen: BTreeSet<u8> = frames.iter().map(|bytes| bytes[0]).collect();
        let count = u8::try_from(seen.len()).unwrap();
        assert_eq!(seen, (0..count).collect());
        count
    };
    let count = numbers(
        samples::to_worker()
            .iter()
            .map(|(_, message)| codec::encode(message).unwrap())
            .collect(),
    );
    let text = unknown_variant::<ToWorker>(count);
    assert!(
        text.contains(&format!("variant index 0 <= i < {count}")),
        "{text}"
    );
    let count = numbers(
        samples::from_worker()
            .iter()
            .map(|(_, message)| codec::encode(message).unwrap())
            .collect(),
    );
    let text = unknown_variant::<FromWorker>(count);
    assert!(
        text.contains(&format!("variant index 0 <= i < {count}")),
        "{text}"
    );
}
