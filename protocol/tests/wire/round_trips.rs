//! Every message survives the way through codec and frames, in whatever pieces it arrives.

use proptest::collection::vec;
use proptest::prelude::*;
use wpool_protocol::codec;
use wpool_protocol::frame::{self, Decoder};
use wpool_protocol::wire::{FromWorker, ToWorker};

use super::strategies;

proptest! {
    #[test]
    fn what_the_supervisor_says_arrives(
        messages in vec(strategies::to_worker(), 1..4),
        piece in 1usize..200,
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            frame::push(message, &mut stream).unwrap();
        }
        let mut decoder = Decoder::default();
        let mut heard = Vec::new();
        for bytes in stream.chunks(piece) {
            decoder.extend(bytes);
            while let Some(message) = decoder.message::<ToWorker>().unwrap() {
                heard.push(message);
            }
        }
        prop_assert_eq!(heard, messages);
        prop_assert!(decoder.is_between_frames());
    }

    #[test]
    fn what_a_worker_says_arrives(
        messages in vec(strategies::from_worker(), 1..4),
        piece in 1usize..200,
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            frame::push(message, &mut stream).unwrap();
        }
        let mut decoder = Decoder::of_replies();
        let mut heard = Vec::new();
        for bytes in stream.chunks(piece) {
            decoder.extend(bytes);
            while let Some(message) = decoder.message::<FromWorker>().unwrap() {
                heard.push(message);
            }
        }
        prop_assert_eq!(heard, messages);
        prop_assert!(decoder.is_between_frames());
    }

    /// A frame is a message, all of it and nothing else.
    #[test]
    fn a_message_cut_short_or_followed_by_a_byte_is_refused(
        message in strategies::to_worker(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = codec::encode(&message).unwrap();
        let shorter = &bytes[..cut.index(bytes.len())];
        prop_assert!(codec::decode::<ToWorker>(shorter).is_err());
        bytes.push(0);
        prop_assert!(matches!(
            codec::decode::<ToWorker>(&bytes),
            Err(codec::DecodeError::Trailing(1))
        ));
    }

    /// What decodes encodes to a message that decodes to the same.
    #[test]
    fn bytes_that_are_a_message_stand_for_one_value(bytes in vec(any::<u8>(), 0..64)) {
        if let Ok(message) = codec::decode::<FromWorker>(&bytes) {
            let again = codec::encode(&message).unwrap();
            prop_assert_eq!(codec::decode::<FromWorker>(&again).unwrap(), message);
        }
    }
}

#[test]
fn the_longest_message_fits_its_frame() {
    use wpool_protocol::id::{AttemptNumber, AttemptRef, JobId};
    use wpool_protocol::wire::{CHUNK_MAX, OutputBytes};

    let mut stream = Vec::new();
    let longest = FromWorker::OutputBytes(OutputBytes {
        attempt: AttemptRef {
            job: JobId(u64::MAX),
            attempt: AttemptNumber(std::num::NonZeroU32::MAX),
        },
        bytes: vec![0xff; CHUNK_MAX],
    });
    frame::push(&longest, &mut stream).unwrap();
    let mut decoder = Decoder::of_replies();
    decoder.extend(&stream);
    assert_eq!(decoder.message().unwrap(), Some(longest));
}
