//! The chunk decoder: any split, any cut, any changed byte.

use super::*;
use crate::auth::testing::Signer;

const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";

fn decoder(signed: bool) -> ChunkDecoder {
    ChunkDecoder::new(signed.then(|| Signer::example().chain(SEED)), None)
}

/// Feeds packets of `packet` bytes; gives the bytes that came out and the most that was ever held.
fn feed(chunks: &mut ChunkDecoder, raw: &[u8], packet: usize) -> (usize, usize) {
    let (mut out, mut held) = (0, 0);
    for packet in raw.chunks(packet) {
        let mut input = Bytes::copy_from_slice(packet);
        while let Some(piece) = chunks.decode(&mut input).unwrap() {
            out += piece.len();
            held = held.max(chunks.held_bytes());
        }
        held = held.max(chunks.held_bytes());
    }
    (out, held)
}

#[test]
fn an_unsigned_chunk_of_any_size_is_never_held() {
    let mut decoder = decoder(false);
    feed(&mut decoder, b"FFFFFFFFFFFFFFFF\r\n", 5);
    let packet = vec![7; 64 * 1024];
    for _ in 0..1_000 {
        let (out, held) = feed(&mut decoder, &packet, packet.len());
        assert_eq!(out, packet.len());
        assert!(held < LINE_BYTES_MAX, "{held}");
    }
}

#[test]
fn a_large_packet_leaves_in_bounded_slices() {
    let mut decoder = decoder(false);
    let mut raw = b"400000\r\n".to_vec();
    raw.resize(raw.len() + (4 << 20), 1);
    let mut input = Bytes::from(raw);
    let mut pieces = 0;
    while let Some(piece) = decoder.decode(&mut input).unwrap() {
        assert_eq!(piece.len(), PIECE_BYTES_MAX);
        pieces += 1;
    }
    assert_eq!(pieces, 4);
}

#[test]
fn a_signed_chunk_is_held_to_its_end_and_within_its_cap() {
    let cap = usize::try_from(SIGNED_CHUNK_BYTES_MAX).unwrap();
    let chunk = vec![9; cap];
    let signature = Signer::example().chain(SEED).sign_chunk(&chunk);
    let mut decoder = decoder(true);
    feed(&mut decoder, format!("{cap:x};chunk-signature={signature}\r\n").as_bytes(), 1_000);
    let (all_but_one, last) = chunk.split_at(cap - 1);
    for packet in [1_399, 70_001] {
        let mut fresh = self::decoder(true);
        feed(&mut fresh, format!("{cap:x};chunk-signature={signature}\r\n").as_bytes(), 1_000);
        let (out, held) = feed(&mut fresh, all_but_one, packet);
        assert_eq!(out, 0);
        assert!(held <= cap + LINE_BYTES_MAX, "{held}");
    }
    let (out, _) = feed(&mut decoder, all_but_one, 65_536);
    assert_eq!(out, 0);
    let (out, held) = feed(&mut decoder, last, 1);
    assert_eq!(out, cap);
    assert!(held <= cap + LINE_BYTES_MAX, "{held}");
}

#[test]
fn an_announced_chunk_takes_no_memory_before_it_comes() {
    let mut decoder = decoder(true);
    let line = format!("{SIGNED_CHUNK_BYTES_MAX:x};chunk-signature={SEED}\r\n");
    let (_, held) = feed(&mut decoder, line.as_bytes(), line.len());
    assert!(held < LINE_BYTES_MAX);
    let (_, held) = feed(&mut decoder, &[1; 1000], 1000);
    assert!(held < 4_096, "{held}");
}

#[test]
fn a_chunk_with_a_wrong_signature_yields_nothing() {
    let mut decoder = decoder(true);
    let mut input = Bytes::from(format!("5;chunk-signature={SEED}\r\nhello\r\n"));
    assert!(matches!(decoder.decode(&mut input), Err(BodyError::Signature)));
}

#[test]
fn a_trailer_has_a_hundred_lines_at_most() {
    let announced = Some(ChecksumAlgorithm::Crc32);
    let mut decoder = ChunkDecoder::new(None, announced);
    let mut input = Bytes::from("0\r\n".to_owned() + &"x-amz-checksum-crc32:a\r\n".repeat(101));
    let error = decoder.decode(&mut input).unwrap_err();
    assert!(matches!(error, BodyError::MalformedTrailer(_)));
    assert!(decoder.finish().is_err());
}
