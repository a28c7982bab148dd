//! Directory records: their encoding, and that a value opens only as what it is.

use super::*;
use crate::env::SeededRng;
use crate::fixtures::{flip, ramp, tenant};
use crate::secret::copy_of;

fn node_secret() -> NodeSecret {
    NodeSecret::fill_with(copy_of(&ramp(0x41))).unwrap()
}

fn record(value: Option<&[u8]>) -> DirectoryRecord {
    DirectoryRecord::seal(&node_secret(), (tenant(), b"a/name", 3), value, &SeededRng::new(1))
}

fn encode(record: &DirectoryRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode_to(&mut bytes);
    bytes
}

#[test]
fn records_read_back() {
    for value in [None, Some(&b""[..]), Some(b"value")] {
        let made = record(value);
        let read = DirectoryRecord::decode(&encode(&made)).unwrap();
        assert_eq!(read, made);
        assert_eq!(read.open(&node_secret()).unwrap().as_deref(), value);
    }
}

#[test]
fn a_value_opens_for_its_tenant_name_and_version_only() {
    let made = record(Some(b"value"));
    let others = [
        DirectoryRecord { tenant: TenantId::from_bytes(ramp(0x11)), ..made.clone() },
        DirectoryRecord { name: b"a/other".to_vec(), ..made.clone() },
        DirectoryRecord { version: 4, ..made.clone() },
    ];
    for other in others {
        assert!(other.open(&node_secret()).is_err());
    }
    let stranger = NodeSecret::fill_with(copy_of(&ramp(0x42))).unwrap();
    assert!(made.open(&stranger).is_err());
}

#[test]
fn no_flipped_bit_gives_another_value() {
    let bytes = encode(&record(Some(b"value")));
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        flip(&mut damaged, bit);
        if let Ok(read) = DirectoryRecord::decode(&damaged) {
            assert_eq!(encode(&read), damaged, "one record has one encoding");
            assert!(read.open(&node_secret()).is_err(), "bit {bit}");
        }
    }
    for length in 0..28 + 6 + 28 {
        assert!(DirectoryRecord::decode(&bytes[..length]).is_err(), "{length}");
    }
}
