//! Headers and superblocks: round trips, and every bit flipped.

use proptest::prelude::*;

use super::*;
use crate::types::{CHUNK_BYTES, CHUNK_SHIFT, EXTENT_BYTES, NsId, StreamId};

fn layout(plain_len: u64) -> ChunkLayout {
    ChunkLayout::for_plain_len(CHUNK_SHIFT, plain_len).unwrap()
}

fn extent(plain_len: u64) -> (ExtentHeader, Vec<u32>) {
    let layout = layout(plain_len);
    let table = (0..u32::from(layout.n_chunks())).map(|i| i.wrapping_mul(0x9E37_79B9)).collect();
    let id = ExtentId {
        ns: NsId::from_bytes([1; 16]),
        stream: StreamId::from_bytes([2; 16]),
        number: 3,
    };
    let body = RecordBody::Extent { id, layout, logical_off: 5 * EXTENT_BYTES };
    (header(body), table)
}

fn header(body: RecordBody) -> ExtentHeader {
    ExtentHeader {
        volume: VolumeId::from_bytes([4; 16]),
        segment: 5,
        incarnation: 6 << 40,
        rec_seq: 7 << 40 | 8,
        meta_seq: 9,
        write_time_ms: 1_800_000_000_000,
        body,
    }
}

fn superblock() -> Superblock {
    Superblock {
        seq: 10,
        volume: VolumeId::from_bytes([11; 16]),
        segment_bytes: 256 << 20,
        pooled_families: 16,
        open_count: 12,
        incarnation_next: 13 << 16,
        meta_seq: 14,
        write_time_ms: 15,
        clean: true,
    }
}

/// Sets the checksum of a record to what its bytes say, as somebody would who forges one.
fn reseal(record: &mut [u8]) {
    record[110..114].fill(0);
    let crc = crc32c(record);
    record[110..114].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_full_extent_has_the_length_that_the_design_says() {
    let full = layout(EXTENT_BYTES);
    assert_eq!((full.n_chunks(), full.stored_len()), (64, 4_195_712));
    assert_eq!(align_up(u64::from(full.stored_len()), BLOCK_BYTES) / BLOCK_BYTES, 1_025);
}

#[test]
fn an_empty_body_is_one_chunk_that_is_only_a_tag() {
    let empty = layout(0);
    assert_eq!((empty.n_chunks(), empty.last_chunk_len(), empty.stored_len()), (1, 16, 148));
    assert_eq!(ChunkLayout::for_sealed_len(CHUNK_SHIFT, 16), Some(empty));
    assert_eq!(ChunkLayout::for_sealed_len(CHUNK_SHIFT, 0), None);
    assert_eq!(ChunkLayout::for_sealed_len(CHUNK_SHIFT, 15), None);
}

#[test]
fn a_tag_alone_is_a_chunk_only_of_an_empty_body() {
    let full = CHUNK_BYTES + 16;
    assert_eq!(ChunkLayout::for_sealed_len(CHUNK_SHIFT, full), Some(layout(CHUNK_BYTES)));
    assert_eq!(ChunkLayout::for_sealed_len(CHUNK_SHIFT, full + 16), None);
    assert_eq!(ChunkLayout::for_sealed_len(CHUNK_SHIFT, full + 17), Some(layout(CHUNK_BYTES + 1)));
}

#[test]
fn chunks_lie_one_after_another_behind_the_table() {
    for plain_len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, EXTENT_BYTES] {
        let layout = layout(plain_len);
        let mut at = layout.data_offset();
        for index in 0..u32::from(layout.n_chunks()) {
            let range = layout.chunk_range(index);
            assert_eq!((range.start, range.len()), (at, layout.chunk_len(index) as usize));
            at = range.end;
        }
        assert_eq!(at, layout.stored_len());
        assert_eq!(layout.chunk_len(u32::from(layout.n_chunks())), 0);
        assert_eq!(layout.chunk_range(u32::MAX - 1).len(), 0);
    }
    assert_eq!(ChunkLayout::for_plain_len(CHUNK_SHIFT, EXTENT_BYTES + 1), None);
    assert_eq!(ChunkLayout::for_plain_len(15, 1), None);
}

/// The bytes of a one-chunk record, written out by hand from the table in the design.
#[test]
fn the_header_is_laid_out_as_documented() {
    let (header, _) = extent(100);
    let bytes = header.encode(&[0xAABB_CCDD]);
    assert_eq!(bytes.len(), 132);
    assert_eq!(bytes[..8], *b"XTNT\x01\x00\x10\x00");
    assert_eq!(bytes[8..24], [4; 16]);
    assert_eq!(bytes[24..28], [5, 0, 0, 0]);
    assert_eq!(bytes[28..36], (6_u64 << 40).to_le_bytes());
    assert_eq!(bytes[36..44], (7_u64 << 40 | 8).to_le_bytes());
    assert_eq!(bytes[44..60], [1; 16]);
    assert_eq!(bytes[60..76], [2; 16]);
    assert_eq!(bytes[76..82], [3, 0, 0, 0, 1, 0]);
    assert_eq!(bytes[82..90], (5 * EXTENT_BYTES).to_le_bytes());
    assert_eq!(bytes[90..94], (128_u32 + 4 + 116).to_le_bytes());
    assert_eq!(bytes[94..102], 9_u64.to_le_bytes());
    assert_eq!(bytes[102..110], 1_800_000_000_000_u64.to_le_bytes());
    let mut zeroed = bytes.clone();
    zeroed[110..114].fill(0);
    assert_eq!(bytes[110..114], crc32c(&zeroed).to_le_bytes());
    assert_eq!(bytes[114..128], [0; 14]);
    assert_eq!(bytes[128..132], [0xDD, 0xCC, 0xBB, 0xAA]);
}

#[test]
fn headers_round_trip() {
    for plain_len in [0, 1, 65_536, 65_537, EXTENT_BYTES] {
        let (header, table) = extent(plain_len);
        let mut bytes = header.encode(&table);
        bytes.extend_from_slice(b"what follows does not matter");
        let (decoded, found) = ExtentHeader::decode(&bytes).unwrap();
        assert_eq!((decoded, found.to_vec()), (header, table.clone()));
        assert_eq!(found.crc(0), table.first().copied());
        assert_eq!(found.crc(u32::from(layout(plain_len).n_chunks())), None);
        assert_eq!(ExtentHeader::claim(&bytes), Some((header.volume, 5, 6 << 40)));
    }
    let filler = header(RecordBody::Filler(8192));
    assert_eq!(ExtentHeader::decode(&filler.encode(&[])).unwrap().0, filler);
}

#[test]
fn every_flipped_bit_of_header_and_table_is_detected() {
    let (extent, table) = extent(3 * CHUNK_BYTES);
    let filler = header(RecordBody::Filler(4096));
    for bytes in [extent.encode(&table), filler.encode(&[])] {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A longer table than there are bytes is no reason to accept it either.
            assert!(ExtentHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn every_truncation_asks_for_more() {
    let (header, table) = extent(3 * CHUNK_BYTES);
    let bytes = header.encode(&table);
    for len in 0..bytes.len() {
        let expected = match len {
            0..4 => HeaderError::NoMagic,
            4..128 => HeaderError::Short(128),
            _ => HeaderError::Short(140),
        };
        assert_eq!(ExtentHeader::decode(&bytes[..len]).unwrap_err(), expected);
    }
}

#[track_caller]
fn check_forged(bytes: &[u8], at: usize, value: &[u8], expected: HeaderError) {
    let mut forged = bytes.to_vec();
    forged[at..at + value.len()].copy_from_slice(value);
    reseal(&mut forged);
    assert_eq!(ExtentHeader::decode(&forged).unwrap_err(), expected);
}

#[test]
fn fields_that_break_a_rule_are_refused_although_the_checksum_is_right() {
    let (header_of_three, table) = extent(3 * CHUNK_BYTES);
    let bytes = header_of_three.encode(&table);
    check_forged(&bytes, 4, &[2], HeaderError::Version(2));
    check_forged(&bytes, 5, &[2], HeaderError::Field("flags"));
    check_forged(&bytes, 5, &[1], HeaderError::Field("identity"));
    check_forged(&bytes, 6, &[17], HeaderError::Field("stored_len"));
    check_forged(&bytes, 7, &[1], HeaderError::Field("reserved"));
    check_forged(&bytes, 80, &[2, 0], HeaderError::Crc);
    check_forged(&bytes, 80, &[0xFF, 0xFF], HeaderError::Field("n_chunks"));
    check_forged(&bytes, 82, &[1], HeaderError::Field("logical_off"));
    check_forged(&bytes, 90, &[0; 4], HeaderError::Field("stored_len"));
    check_forged(&bytes, 90, &[0xFF; 4], HeaderError::Field("stored_len"));
    check_forged(&bytes, 127, &[1], HeaderError::Field("reserved"));
    let filler = header(RecordBody::Filler(4096)).encode(&[]);
    check_forged(&filler, 5, &[0], HeaderError::Field("stored_len"));
    check_forged(&filler, 6, &[16], HeaderError::Field("layout"));
    check_forged(&filler, 76, &[1], HeaderError::Field("identity"));
    check_forged(&filler, 82, &[1], HeaderError::Field("layout"));
    check_forged(&filler, 90, &[0; 4], HeaderError::Field("stored_len"));
    check_forged(&filler, 90, &[1], HeaderError::Field("stored_len"));
}

#[test]
fn superblocks_round_trip_and_fill_their_block() {
    for clean in [false, true] {
        let superblock = Superblock { clean, ..superblock() };
        let bytes = superblock.encode();
        assert_eq!(bytes.len(), SUPER_BYTES);
        assert_eq!(Superblock::decode(&bytes), Ok(superblock));
    }
    assert_eq!(Superblock::decode(&[0; SUPER_BYTES]), Err(SuperError::NoMagic));
    assert_eq!(Superblock::decode(&superblock().encode()[..4095]), Err(SuperError::Crc));
}

#[test]
fn every_flipped_bit_of_a_superblock_is_detected() {
    let bytes = superblock().encode();
    for bit in 0..SUPER_BYTES * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Superblock::decode(&flipped).is_err(), "bit {bit}");
    }
}

#[track_caller]
fn check_forged_super(at: usize, value: &[u8], expected: SuperError) {
    let mut forged = superblock().encode();
    forged[at..at + value.len()].copy_from_slice(value);
    let crc = crc32c(&forged[..SUPER_BYTES - 4]);
    forged[SUPER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Superblock::decode(&forged), Err(expected));
}

#[test]
fn a_later_format_is_told_from_damage() {
    check_forged_super(8, &2_u32.to_le_bytes(), SuperError::Newer(2));
    check_forged_super(8, &u32::MAX.to_le_bytes(), SuperError::Newer(u32::MAX));
    check_forged_super(8, &0_u32.to_le_bytes(), SuperError::Field("format version"));
    check_forged_super(36, &0_u64.to_le_bytes(), SuperError::Field("segment bytes"));
    check_forged_super(36, &4097_u64.to_le_bytes(), SuperError::Field("segment bytes"));
    check_forged_super(48, &(1_u64 << 24).to_le_bytes(), SuperError::Field("open count"));
    check_forged_super(80, &[2], SuperError::Field("clean"));
    check_forged_super(81, &[1], SuperError::Field("reserved"));
    check_forged_super(4091, &[1], SuperError::Field("reserved"));
}

#[test]
fn aligning_stops_at_the_largest_offset() {
    assert_eq!([0, 1, 8, 9].map(|offset| align_up(offset, 8)), [0, 8, 8, 16]);
    assert_eq!(align_up(u64::MAX, 4096), !4095);
}

proptest! {
    #[test]
    fn decoding_any_bytes_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        _ = ExtentHeader::decode(&bytes);
        _ = Superblock::decode(&bytes);
        // Past the checksum as well, where the fields are judged.
        if bytes.len() >= 128 {
            let table = bytes.len() % 100;
            bytes[..8].copy_from_slice(b"XTNT\x01\x00\x10\x00");
            bytes[80] = u8::try_from(table).unwrap();
            bytes[81] = 0;
            bytes.resize(128 + 4 * table, 7);
            reseal(&mut bytes);
            _ = ExtentHeader::decode(&bytes);
        }
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        numbers in proptest::array::uniform5(any::<u64>()),
        plain_len in 0..=EXTENT_BYTES,
        filler_blocks in 1..2000_u32,
        is_filler: bool,
        segment: u32,
        ids in proptest::array::uniform32(any::<u8>()),
    ) {
        let [incarnation, rec_seq, meta_seq, write_time_ms, logical] = numbers;
        let layout = layout(plain_len);
        let (ns, stream) = ids.split_at(16);
        let id = ExtentId {
            ns: NsId::from_bytes(ns.try_into().unwrap()),
            stream: StreamId::from_bytes(stream.try_into().unwrap()),
            number: segment.rotate_left(7),
        };
        let body = if is_filler {
            RecordBody::Filler(filler_blocks * 4096)
        } else {
            RecordBody::Extent { id, layout, logical_off: logical & !(CHUNK_BYTES - 1) }
        };
        let table = if is_filler { vec![] } else { vec![segment; usize::from(layout.n_chunks())] };
        let volume = VolumeId::from_bytes([8; 16]);
        let header =
            ExtentHeader { volume, segment, incarnation, rec_seq, meta_seq, write_time_ms, body };
        let bytes = header.encode(&table);
        let (decoded, found) = ExtentHeader::decode(&bytes).unwrap();
        prop_assert_eq!(decoded, header);
        prop_assert_eq!(decoded.encode(&found.to_vec()), bytes);
    }

    #[test]
    fn a_sealed_length_has_the_layout_of_its_plain_length(
        plain_len in 0..=EXTENT_BYTES,
        shift in proptest::sample::select(vec![14_u8, 16, 18, 20]),
    ) {
        let layout = ChunkLayout::for_plain_len(shift, plain_len).unwrap();
        let sealed = ChunkLayout::for_sealed_len(shift, u64::from(layout.data_len()));
        prop_assert_eq!(sealed, Some(layout));
        prop_assert_eq!(
            u64::from(layout.data_len()),
            plain_len + 16 * u64::from(layout.n_chunks())
        );
    }
}
