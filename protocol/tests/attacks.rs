//! Bytes of an attacker: every one becomes a value or an error, in bounded time and memory.
//!
//! The allocator of this program counts. One test holds it at a time (a lock), because the counters are
//! of the whole process; nothing else runs in it.

mod wire {
    pub(crate) mod strategies;
}

use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde::de::DeserializeOwned;
use wpool_protocol::codec;
use wpool_protocol::frame::{self, Decoder, LEN_MAX, PREFIX_LEN, REPLY_LEN_MAX};
use wpool_protocol::wire::{FromWorker, ToWorker};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

static MEASURING: Mutex<()> = Mutex::new(());

/// What decoding may hold beside what grows with the input: serde reserves up to 1 MiB for a list
/// whose announced length it does not believe yet, once a level, and lists stand in lists here.
const RESERVE: usize = 4 << 20;

/// What one byte of input may cost: an empty text is one byte on the wire and 24 in memory (a report of a
/// layer three and 72), a list is grown by doubling, and the old half is there while it is copied.
const COST_OF_A_BYTE: usize = 24 * 2 * 2;

/// The most memory that `act` held at one time.
fn peak_of(act: impl FnOnce()) -> usize {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    act();
    ALLOCATOR.peak_usage().saturating_sub(before)
}

/// Decodes `bytes` as `T` and gives the most memory that took.
fn decode_cost<T: DeserializeOwned>(bytes: &[u8]) -> usize {
    peak_of(|| drop(codec::decode::<T>(bytes)))
}

fn hold() -> std::sync::MutexGuard<'static, ()> {
    MEASURING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// bincode's form of a length that needs 64 bits.
fn length(claimed: u64) -> Vec<u8> {
    let mut bytes = vec![253];
    bytes.extend_from_slice(&claimed.to_le_bytes());
    bytes
}

#[test]
fn any_bytes_decode_within_bounds() {
    let _held = hold();
    let bytes = prop_oneof![
        vec(any::<u8>(), 0..200),
        // A known variant first, so that what follows is looked at.
        (0u8..9, vec(any::<u8>(), 0..2_000)).prop_map(|(variant, mut rest)| {
            rest.insert(0, variant);
            rest
        }),
        // Lengths that lie, at any place.
        (0u8..9, vec(any::<u8>(), 0..20), any::<u64>()).prop_map(|(variant, rest, claimed)| {
            [vec![variant], rest, length(claimed)].concat()
        }),
    ];
    let mut runner = TestRunner::deterministic();
    runner
        .run(&bytes, |bytes| {
            let allowed = RESERVE + COST_OF_A_BYTE * bytes.len();
            prop_assert!(decode_cost::<ToWorker>(&bytes) <= allowed);
            prop_assert!(decode_cost::<FromWorker>(&bytes) <= allowed);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_message_with_any_byte_changed_decodes_within_bounds() {
    let _held = hold();
    let mut runner = TestRunner::deterministic();
    let case = (
        wire::strategies::to_worker(),
        wire::strategies::from_worker(),
        any::<prop::sample::Index>(),
        any::<u8>(),
    );
    runner
        .run(&case, |(to_worker, from_worker, index, value)| {
            let mut bytes = codec::encode(&to_worker).unwrap();
            let place = index.index(bytes.len());
            bytes[place] = value;
            let allowed = RESERVE + COST_OF_A_BYTE * bytes.len();
            prop_assert!(decode_cost::<ToWorker>(&bytes) <= allowed);
            let mut bytes = codec::encode(&from_worker).unwrap();
            let place = index.index(bytes.len());
            bytes[place] = value;
            let allowed = RESERVE + COST_OF_A_BYTE * bytes.len();
            prop_assert!(decode_cost::<FromWorker>(&bytes) <= allowed);
            Ok(())
        })
        .unwrap();
}

/// The lists and texts of every message, each with every length that could hurt.
#[test]
fn an_announced_length_is_not_believed() {
    let _held = hold();
    for claimed in [
        1 << 16,
        u64::try_from(LEN_MAX).unwrap(),
        u64::from(u32::MAX),
        1 << 40,
        u64::MAX,
    ] {
        for variant in 0u8..9 {
            for before in 0..12 {
                for filler in [0, 1, 2] {
                    let bytes = [vec![variant], vec![filler; before], length(claimed)].concat();
                    let most =
                        decode_cost::<ToWorker>(&bytes).max(decode_cost::<FromWorker>(&bytes));
                    assert!(most <= RESERVE, "{most} bytes for {bytes:?}");
                }
            }
        }
    }
}

/// The dearest frame a worker can send: as many empty reports of layers as fit.
#[test]
fn the_dearest_reply_costs_the_supervisor_little() {
    let _held = hold();
    let reports = (REPLY_LEN_MAX - 16) / 3;
    let mut bytes = vec![1, 0, 0];
    bytes.extend_from_slice(&length(u64::try_from(reports).unwrap()));
    bytes.resize(bytes.len() + 3 * reports, 0);
    assert!(bytes.len() <= REPLY_LEN_MAX);
    let cost = decode_cost::<FromWorker>(&bytes);
    assert!(codec::decode::<FromWorker>(&bytes).is_ok());
    assert!(cost > REPLY_LEN_MAX, "it is dear: {cost}");
    assert!(cost <= 32 << 20, "but not this dear: {cost}");
}

/// A prefix alone makes nobody allocate, and the buffer follows the bytes that come.
#[test]
fn a_prefix_costs_nothing() {
    let _held = hold();
    for announced in [
        u32::try_from(REPLY_LEN_MAX).unwrap(),
        u32::try_from(LEN_MAX).unwrap(),
        u32::try_from(LEN_MAX).unwrap() + 1,
        u32::MAX,
        0,
    ] {
        for mut decoder in [Decoder::default(), Decoder::of_replies()] {
            let cost = peak_of(|| {
                decoder.extend(&announced.to_le_bytes());
                drop(decoder.message::<FromWorker>());
                decoder.extend(&[7; 100]);
                drop(decoder.message::<FromWorker>());
            });
            assert!(cost <= 64 << 10, "{cost} bytes for a length of {announced}");
        }
    }
}

/// A sender who never stops is refused at the first frame that is too long, and costs no more after that.
#[test]
fn a_lost_stream_holds_no_memory() {
    let _held = hold();
    let mut decoder = Decoder::of_replies();
    let noise = vec![0xff; 64 << 10];
    let cost = peak_of(|| {
        for _ in 0..1_000 {
            decoder.extend(&noise);
            assert!(decoder.frame().is_err());
        }
    });
    assert!(cost <= 1 << 20, "{cost} bytes held");
}

/// A byte at a time, and a thousand frames in one read: the buffer holds what came and no more.
#[test]
fn the_buffer_holds_one_frame_and_one_read() {
    let _held = hold();
    let mut one = Vec::new();
    frame::push(&FromWorker::Pong(7), &mut one).unwrap();
    let many = one.repeat(1_000);
    let mut decoder = Decoder::of_replies();
    let mut heard = 0;
    let cost = peak_of(|| {
        for bytes in many.chunks(1).chain(std::iter::once(many.as_slice())) {
            decoder.extend(bytes);
            while decoder.message::<FromWorker>().unwrap().is_some() {
                heard += 1;
            }
        }
    });
    assert_eq!(heard, 2_000);
    assert!(decoder.is_between_frames());
    assert!(cost <= 4 * (many.len() + PREFIX_LEN), "{cost} bytes held");
}
