//! Round trips, and every single bit that may flip.

use proptest::prelude::*;

use super::*;

fn member() -> Member {
    Member {
        seq: 7,
        mirror: MirrorId::from_bytes([9; 16]),
        generation: 3,
        holder: Holder::Seat(1),
        states: [SeatState::Current, SeatState::Rebuilding],
        cursor: "seg/0000002a.seg".to_owned(),
    }
}

#[test]
fn fields_lie_where_the_format_says() {
    let bytes = member().encode();
    assert_eq!(bytes.len(), MEMBER_BYTES);
    assert_eq!(&bytes[..8], b"KLUISMEM");
    assert_eq!(bytes[8..20], [1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[20..36], [9; 16]);
    assert_eq!(bytes[36..48], [3, 0, 0, 0, 0, 0, 0, 0, 1, 1, 3, 16]);
    assert_eq!(&bytes[48..64], b"seg/0000002a.seg");
    assert!(bytes[64..4092].iter().all(|&byte| byte == 0));
}

#[test]
fn no_flipped_bit_is_taken() {
    let good = member().encode();
    assert_eq!(Member::decode(&good), Ok(member()));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Member::decode(&bad).is_err(), "bit {bit}");
    }
}

/// A record whose checksum is right and whose byte `at` is `byte`.
fn forged(at: usize, byte: u8) -> Result<Member, MemberError> {
    let mut bytes = member().encode();
    bytes[at] = byte;
    let crc = crc32c(&bytes[..COVERED_BYTES]).to_le_bytes();
    bytes[COVERED_BYTES..].copy_from_slice(&crc);
    Member::decode(&bytes)
}

#[test]
fn fields_that_break_a_rule_are_named() {
    assert_eq!(forged(8, 2), Err(MemberError::Newer(2)));
    assert_eq!(forged(8, 0), Err(MemberError::Field("version")));
    assert_eq!(forged(44, 2), Err(MemberError::Field("holder")));
    assert_eq!(forged(45, 0), Err(MemberError::Field("states")));
    assert_eq!(forged(45, 2), Err(MemberError::Field("states")), "no member is current");
    assert_eq!(forged(48, 0xFF), Err(MemberError::Field("cursor")));
    assert_eq!(forged(4000, 1), Err(MemberError::Field("padding")));
    assert_eq!(Member::decode(b"KLUISMEM"), Err(MemberError::Crc));
    assert_eq!(Member::decode(&[0; MEMBER_BYTES]), Err(MemberError::NoMagic));
}

proptest! {
    #[test]
    fn what_decodes_encodes_to_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut block = member().encode();
        for (at, byte) in bytes.iter().enumerate().skip(12) {
            block[at] = *byte;
        }
        let crc = crc32c(&block[..COVERED_BYTES]).to_le_bytes();
        block[COVERED_BYTES..].copy_from_slice(&crc);
        if let Ok(member) = Member::decode(&block) {
            prop_assert_eq!(member.encode(), block);
        }
    }
}
