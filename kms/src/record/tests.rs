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
    MaterialRecord {
        number,
        role: MaterialRole::Previous,
        is_automatic: false,
        created_ms: 77,
        expires_ms: None,
        id: ramp(7),
        description: None,
        slot: Some(number + 9),
        wrapped: Some(wrapped),
    }
}

pub(crate) fn record(materials: u32) -> KeyRecord {
    let mut materials: Vec<_> = (1..=materials).map(material).collect();
    if let Some(last) = materials.last_mut() {
        last.role = MaterialRole::Current;
    }
    KeyRecord {
        id: tenant_key_id(),
        tenant: tenant(),
        version: 1,
        state: KeyState::Enabled,
        is_default: true,
        origin: KeyOrigin::Local,
        created_ms: 1_700_000_000_000,
        changed_ms: 1_700_000_000_001,
        deletion_ms: None,
        rotation: None,
        destruction: None,
        materials,
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
        assert_eq!(bytes.len(), 81 + materials as usize * 196);
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

/// A record with everything that a record can have.
fn full() -> KeyRecord {
    let digest = [0; 32];
    let canary = |number| {
        let rng = SeededRng::new(number);
        let number = u32::try_from(number).unwrap();
        let name = (tenant_key_id(), number);
        let ciphertext = ApiCiphertext::seal(&ramp(9), name, &digest, (&[7; 32], &rng));
        let wrapped = record(1).materials.remove(0).wrapped.unwrap();
        Canary { ciphertext, wrapped }
    };
    let mut record = KeyRecord {
        state: KeyState::PendingDeletion,
        origin: KeyOrigin::Imported,
        deletion_ms: Some(9),
        destruction: Some(Destruction {
            step: DestructionStep::Begun,
            epochs: (1, 2),
            materials: 2,
            refused: 1,
            erased_ms: 5,
            canaries: vec![canary(1), canary(2)],
        }),
        ..record(3)
    };
    record.materials[0].expires_ms = Some(77);
    record.materials[0].description = Some("from the safe".into());
    record.materials[1].role = MaterialRole::Current;
    record.materials[1].wrapped = None;
    record.materials[2].role = MaterialRole::PendingRotation;
    (record.materials[2].slot, record.materials[2].wrapped) = (None, None);
    record
}

fn in_store() -> KeyRecord {
    let origin = KeyOrigin::Store { store: "vault".into(), key: "a/b".into() };
    let mut record = KeyRecord { origin, ..record(1) };
    (record.materials[0].slot, record.materials[0].wrapped) = (None, None);
    record
}

#[test]
fn every_part_of_a_record_reads_back() {
    let mut rotating = record(2);
    rotating.rotation = Some((365, 12));
    rotating.materials[1].is_automatic = true;
    let empty =
        KeyRecord { origin: KeyOrigin::Imported, state: KeyState::PendingImport, ..record(0) };
    let mut buried = full();
    (buried.state, buried.deletion_ms) = (KeyState::Destroyed, None);
    buried.destruction.as_mut().unwrap().step = DestructionStep::Proven;
    for held in &mut buried.materials {
        (held.role, held.slot, held.wrapped) = (MaterialRole::Retired, None, None);
    }
    for record in [full(), in_store(), rotating, empty, buried] {
        let bytes = encode(&record);
        assert_eq!(KeyRecord::decode(&bytes).unwrap(), record);
        for length in 0..bytes.len() {
            assert!(KeyRecord::decode(&bytes[..length]).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            flip(&mut bytes, bit);
            if let Ok(decoded) = KeyRecord::decode(&bytes) {
                assert_eq!(encode(&decoded), bytes, "bit {bit}");
            }
        }
    }
}

#[test]
fn records_that_contradict_themselves_are_refused() {
    #[track_caller]
    fn check(mut record: KeyRecord, edit: impl FnOnce(&mut KeyRecord)) {
        assert!(KeyRecord::decode(&encode(&record)).is_ok());
        edit(&mut record);
        assert!(KeyRecord::decode(&encode(&record)).is_err());
    }
    check(record(2), |record| record.materials[0].role = MaterialRole::Current);
    check(record(2), |record| record.materials[1].role = MaterialRole::Previous);
    check(record(2), |record| record.materials[0].role = MaterialRole::PendingRotation);
    check(record(2), |record| record.materials[0].role = MaterialRole::Retired);
    check(record(2), |record| record.materials[0].slot = None);
    check(record(2), |record| record.materials[0].expires_ms = Some(1));
    check(record(2), |record| record.deletion_ms = Some(1));
    check(record(2), |record| record.state = KeyState::PendingDeletion);
    check(record(2), |record| record.state = KeyState::Destroyed);
    check(record(2), |record| record.rotation = Some((89, 1)));
    check(record(2), |record| record.destruction = full().destruction);
    check(full(), |record| record.rotation = Some((90, 1)));
    check(full(), |record| record.materials[0].is_automatic = true);
    check(full(), |record| record.destruction.as_mut().unwrap().canaries.reverse());
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
