//! Chunks against known answers, and every way of damaging a stream.

use proptest::prelude::*;

use super::*;
use crate::derive::ContentScope;
use crate::fixtures::{data_key, flip, ramp, tenant};

const CHUNK_BYTES: usize = 65_536;
const SHORT_CHUNK_BYTES: usize = 16_384;

fn stream_key() -> StreamKey {
    let scope = ContentScope::new(tenant(), ramp(0x40));
    data_key().stream_key(&scope, &ramp(0x50)).unwrap()
}

fn short_chunks(stream_uid: u8) -> StreamKey {
    let scope = ContentScope { chunk_shift: 14, ..ContentScope::new(tenant(), ramp(0x40)) };
    data_key().stream_key(&scope, &ramp(stream_uid)).unwrap()
}

const fn at(index: u64, is_last: bool) -> ChunkPosition {
    ChunkPosition { index, is_last }
}

fn body(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// A chunk with its tag.
type Sealed = Vec<u8>;

fn encrypt_all(stream_key: &StreamKey, plain: &[u8]) -> Vec<Sealed> {
    let count = plain.len().div_ceil(stream_key.chunk_bytes()).max(1);
    let chunk = |index: usize| {
        let start = index * stream_key.chunk_bytes();
        let end = (start + stream_key.chunk_bytes()).min(plain.len());
        let mut sealed = vec![0; end - start + TAG_BYTES];
        let position = at(index as u64, index + 1 == count);
        stream_key.encrypt_chunk_to(position, &plain[start..end], &mut sealed);
        sealed
    };
    (0..count).map(chunk).collect()
}

fn decrypt_all(stream_key: &StreamKey, chunks: &[Sealed]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    for (index, sealed) in chunks.iter().enumerate() {
        let mut out = vec![0xaa; sealed.len().saturating_sub(TAG_BYTES)];
        let position = at(index as u64, index + 1 == chunks.len());
        let result = stream_key.decrypt_chunk_to(position, sealed, &mut out);
        if result.is_err() {
            assert!(out.iter().all(|byte| *byte == 0), "a failure left bytes behind");
        }
        result?;
        plain.extend_from_slice(&out);
    }
    Ok(plain)
}

#[test]
fn derived_key_and_nonce_known_answer() {
    let stream_key = stream_key();
    let want = "b88d2619d7f685034a1092f50c796e21b95b3d00ce737b8a031b0427c4a72487";
    assert_eq!(hex::encode(*stream_key.secret.borrow()), want);
    assert_eq!(hex::encode(stream_key.base_nonce), "dd2fb24816829c00a5834787");
}

#[test]
fn empty_body_known_answer() {
    let tag = stream_key().encrypt_chunk(at(0, true), &mut []);
    assert_eq!(hex::encode(tag), "f01260f40479edcd37ab7c873c74a040");
}

#[test]
fn two_chunks_known_answer() {
    let chunks = encrypt_all(&stream_key(), &body(65_541));
    let [first, second] = chunks.as_slice() else { panic!("65,541 bytes are two chunks") };
    assert_eq!(hex::encode(&first[CHUNK_BYTES..]), "375af13d74722ab99dda0f32eff6c6ee");
    assert_eq!(hex::encode(second), "f646cbf720747c3b487bb2f1bcaf15d83f34e311d9");
    assert_eq!(decrypt_all(&stream_key(), &chunks).unwrap(), body(65_541));
}

#[test]
fn in_place_and_between_buffers_are_the_same() {
    let stream_key = stream_key();
    for length in [1, 15, 16, 17, CHUNK_BYTES] {
        let mut in_place = body(length);
        let tag = stream_key.encrypt_chunk(at(0, true), &mut in_place);
        let mut sealed = vec![0; length + TAG_BYTES];
        stream_key.encrypt_chunk_to(at(0, true), &body(length), &mut sealed);
        assert_eq!(sealed, [in_place.as_slice(), &tag].concat());
        stream_key.decrypt_chunk(at(0, true), &mut in_place, &tag).unwrap();
        assert_eq!(in_place, body(length));
    }
}

#[test]
fn high_chunk_numbers_change_the_nonce() {
    let stream_key = stream_key();
    let mut nonces: Vec<_> =
        [0, 1, 255, 256, (1 << 32) - 1].map(|index| stream_key.nonce(at(index, false))).to_vec();
    assert_eq!(nonces[0], stream_key.base_nonce);
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), 5);
}

#[track_caller]
fn check_rejects(damage: impl FnOnce(&mut Vec<Sealed>)) {
    let mut chunks = encrypt_all(&short_chunks(0x50), &body(3 * SHORT_CHUNK_BYTES));
    damage(&mut chunks);
    let got = decrypt_all(&short_chunks(0x50), &chunks).unwrap_err().kind();
    assert_eq!(got, ErrorKind::Corrupt);
}

#[test]
fn swapped_chunks_are_rejected() {
    check_rejects(|chunks| chunks.swap(0, 1));
}

#[test]
fn a_missing_first_chunk_is_rejected() {
    check_rejects(|chunks| drop(chunks.remove(0)));
}

#[test]
fn a_missing_last_chunk_is_rejected() {
    check_rejects(|chunks| drop(chunks.pop()));
}

#[test]
fn truncation_to_the_first_chunk_is_rejected() {
    check_rejects(|chunks| chunks.truncate(1));
}

#[test]
fn a_repeated_chunk_is_rejected() {
    check_rejects(|chunks| chunks.insert(1, chunks[0].clone()));
}

#[test]
fn an_added_chunk_is_rejected() {
    check_rejects(|chunks| chunks.push(chunks[2].clone()));
}

#[test]
fn a_shortened_chunk_is_rejected() {
    check_rejects(|chunks| chunks[2].truncate(SHORT_CHUNK_BYTES + TAG_BYTES - 1));
}

#[test]
fn a_chunk_without_room_for_a_tag_is_rejected() {
    check_rejects(|chunks| chunks[2].truncate(TAG_BYTES - 1));
}

#[test]
fn a_chunk_of_another_stream_is_rejected() {
    let other = encrypt_all(&short_chunks(0x51), &body(3 * SHORT_CHUNK_BYTES));
    check_rejects(|chunks| chunks[1].clone_from(&other[1]));
}

#[test]
fn a_chunk_of_another_content_is_rejected() {
    let scope = ContentScope { chunk_shift: 14, ..ContentScope::new(tenant(), ramp(0x41)) };
    let other = data_key().stream_key(&scope, &ramp(0x50)).unwrap();
    let other = encrypt_all(&other, &body(3 * SHORT_CHUNK_BYTES));
    check_rejects(|chunks| chunks[1].clone_from(&other[1]));
}

#[test]
fn a_buffer_of_another_length_is_misuse() {
    let chunks = encrypt_all(&stream_key(), &body(10));
    let mut out = [0xaa; 11];
    let error = stream_key().decrypt_chunk_to(at(0, true), &chunks[0], &mut out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert_eq!(out, [0; 11]);
}

#[test]
fn positions_ask_for_lengths() {
    let stream_key = stream_key();
    let full = stream_key.chunk_bytes();
    let good = [(0, true, 0), (0, true, full), (1, true, 1), (0, false, full)];
    let bad = [
        (1, true, 0),
        (0, true, full + 1),
        (0, false, full - 1),
        (0, false, 0),
        (STREAM_CHUNKS_MAX, true, 1),
    ];
    for (index, is_last, length) in good {
        assert!(stream_key.has_shape(at(index, is_last), length));
    }
    for (index, is_last, length) in bad {
        assert!(!stream_key.has_shape(at(index, is_last), length));
        let mut inout = vec![1; length];
        assert!(stream_key.decrypt_chunk(at(index, is_last), &mut inout, &[0; 16]).is_err());
        assert!(inout.iter().all(|byte| *byte == 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_bit_of_a_chunk_never_opens(
        length in 0_usize..300,
        bit: prop::sample::Index,
    ) {
        let mut chunks = encrypt_all(&stream_key(), &body(length));
        let bit = bit.index(chunks[0].len() * 8);
        flip(&mut chunks[0], bit);
        prop_assert!(decrypt_all(&stream_key(), &chunks).is_err());
    }

    #[test]
    fn streams_read_back(length in 0_usize..4 * SHORT_CHUNK_BYTES) {
        let stream_key = short_chunks(0x50);
        let chunks = encrypt_all(&stream_key, &body(length));
        prop_assert_eq!(decrypt_all(&stream_key, &chunks).unwrap(), body(length));
    }
}
