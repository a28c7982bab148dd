//! Location rows: every value comes back, other bytes are refused.

use proptest::prelude::*;

use super::*;

fn location(offset: u64, plain_len: u64) -> Location {
    let layout = ChunkLayout::for_plain_len(CHUNK_SHIFT, plain_len).unwrap();
    Location { segment: 7, incarnation: 8, offset, layout }
}

#[test]
fn locations_and_rows_round_trip() {
    let location = location(4096 + 8, 200_000);
    assert_eq!(Location::decode(&location.encode()).unwrap(), location);
    for state in [
        SegmentState::Free,
        SegmentState::Open,
        SegmentState::Closing,
        SegmentState::Closed,
        SegmentState::Cleaning,
    ] {
        let row = SegmentRow { segment: 1, state, incarnation: 2, written_bytes: 3 };
        assert_eq!(SegmentRow::decode(&row.encode()).unwrap(), row);
    }
}

#[test]
fn locations_that_no_record_fits_are_refused() {
    let good = location(4096, 200_000).encode();
    for (at, value) in [(0, 2), (1, 15), (14, 1), (21, 0xFF), (25, 1)] {
        let mut bad = good;
        bad[at] = value;
        assert_eq!(kind(Location::decode(&bad)), ErrorKind::Corrupt, "byte {at}");
    }
    assert_eq!(kind(Location::decode(&good[1..])), ErrorKind::Corrupt);
    assert_eq!(kind(SegmentRow::decode(&[1, 9])), ErrorKind::Corrupt);
}

proptest! {
    #[test]
    fn decoding_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        drop(Location::decode(&bytes));
        drop(SegmentRow::decode(&bytes));
    }

    #[test]
    fn pieces_cover_what_is_asked_for_in_blocks_that_fit_a_buffer(
        offset in 0..1_000_000_u64,
        plain_len in 0..=4 * MIB,
        from in 0..64_u32,
        with_header: bool,
    ) {
        let location = location(offset * 8, plain_len);
        let count = location.n_chunks();
        let from = if with_header { 0 } else { from % count };
        let piece = location.piece(from..count, with_header);
        prop_assert!(piece.chunks.start == from && piece.chunks.end <= count);
        prop_assert!(piece.chunks.len() >= 15.min((count - from) as usize));
        let bytes = piece.blocks.end - piece.blocks.start;
        prop_assert!(bytes <= MIB && bytes.is_multiple_of(4096));
        prop_assert!(piece.blocks.start.is_multiple_of(4096));
        let start = location.layout.chunk_range(from).start;
        let start = location.offset + if with_header { 0 } else { u64::from(start) };
        let end = location.layout.chunk_range(piece.chunks.end - 1).end;
        prop_assert!(piece.blocks.start <= start);
        prop_assert!(location.offset + u64::from(end) <= piece.blocks.end);
        prop_assert!(piece.blocks.end < location.offset + u64::from(end) + 4096);
    }
}
