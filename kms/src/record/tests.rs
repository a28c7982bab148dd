//! The record's encoding.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::env::SeededRng;
use crate::fixtures::{flip, ramp, tenant, tenant_key_id};
use crate::wrap::{WrapHeader, WrapKind, wrap};

fn material(number: u32) -> MaterialRecord {
    let header =
        WrapHeader { kind: WrapKind::TenantKey, wrapping_key_id: ramp(3), wrapping_version: 1 };
    let wrapped = wrap(&ramp(4), header, &ramp(5), (&ramp(6), &SeededRng::new(number.into())));
    MaterialRecord { number, slot: number + 9, created_ms: 77, id: ramp(7), wrapped }
}

pub(crate) fn record(materials: u32) -> KeyRecord {
    KeyRecord {
        id: tenant_key_id(),
        tenant: tenant(),
        version: 1,
        state: KeyState::Enabled,
        is_default: true,
        created_ms: 1_700_000_000_000,
        changed_ms: 1_700_000_000_001,
        materials: (1..=materials).map(material).collect(),
    }
}

fn encode(record: &KeyRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode_to(&mut bytes);
    bytes
}

#[test]
fn records_read_back() {
    for materials in [1, 2, 256] {
        let bytes = encode(&record(materials));
        assert_eq!(bytes.len(), HEAD_BYTES + materials as usize * MATERIAL_BYTES);
        assert!(bytes.len() <= RECORD_BYTES_MAX);
        assert_eq!(KeyRecord::decode(&bytes).unwrap(), record(materials));
    }
}

#[test]
fn unsound_records_are_refused() {
    let refused = |record: KeyRecord| KeyRecord::decode(&encode(&record)).is_err();
    assert!(refused(record(0)));
    assert!(refused(record(257)));
    assert!(refused(KeyRecord { version: 0, ..record(1) }));
    let mut gap = record(2);
    gap.materials[1].number = 3;
    assert!(refused(gap));
}

#[test]
fn truncated_or_longer_records_are_refused() {
    let bytes = encode(&record(2));
    for length in 0..bytes.len() {
        assert!(KeyRecord::decode(&bytes[..length]).is_err());
    }
    assert!(KeyRecord::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
}

proptest! {
    #[test]
    fn one_record_has_one_encoding(bit: prop::sample::Index) {
        let mut bytes = encode(&record(2));
        let bit = bit.index(bytes.len() * 8);
        flip(&mut bytes, bit);
        if let Ok(decoded) = KeyRecord::decode(&bytes) {
            prop_assert_eq!(encode(&decoded), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(mut bytes in vec(any::<u8>(), 0..400)) {
        let _ = KeyRecord::decode(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = FORMAT;
        }
        let _ = KeyRecord::decode(&bytes);
    }
}
