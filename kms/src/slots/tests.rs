//! Slots: reading, erasing, damage.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::fixtures::{mac_key, ramp, tenant_key_id};

const KEYRING_ID: [u8; 16] = [3; 16];

fn name(index: u32) -> SlotName {
    SlotName { index, tenant_key: tenant_key_id(), material: 1 }
}

fn secret(first: u8) -> SlotSecret {
    SlotSecret::fill_with(copy_of(&ramp(first))).unwrap()
}

fn three_slots() -> (tempfile::TempDir, PathBuf, SlotFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("slots");
    let slots = SlotFile::create(&path, KEYRING_ID, &mac_key()).unwrap();
    for index in 0..3 {
        let first = u8::try_from(index).unwrap();
        slots.write(&name(index), &secret(first), &mac_key()).unwrap();
    }
    slots.sync().unwrap();
    (dir, path, slots)
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn slots_read_back_after_opening() {
    let (_dir, path, _) = three_slots();
    assert_eq!(fs::metadata(&path).unwrap().len(), 4 * SLOT_BYTES as u64);
    let slots = SlotFile::open(&path, KEYRING_ID, &mac_key()).unwrap();
    for index in 0..3 {
        let first = u8::try_from(index).unwrap();
        let found = slots.read(&name(index), &mac_key()).unwrap();
        assert_eq!(*found.borrow(), ramp::<32>(first));
    }
}

#[test]
fn an_erased_slot_holds_nothing_and_its_neighbours_live() {
    let (_dir, path, slots) = three_slots();
    slots.erase(1).unwrap();
    assert_eq!(kind(slots.read(&name(1), &mac_key())), Some(ErrorKind::KeyDestroyed));
    assert!(slots.read(&name(0), &mac_key()).is_ok());
    assert!(slots.read(&name(2), &mac_key()).is_ok());
    let bytes = fs::read(path).unwrap();
    assert!(bytes[2 * SLOT_BYTES..3 * SLOT_BYTES].iter().all(|byte| *byte == 0));
}

#[test]
fn damage_is_told_from_erasure() {
    let (_dir, path, slots) = three_slots();
    let good = fs::read(&path).unwrap();
    for place in 0..USED_BYTES {
        let mut bytes = good.clone();
        bytes[2 * SLOT_BYTES + place] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(kind(slots.read(&name(1), &mac_key())), Some(ErrorKind::Corrupt));
    }
}

#[test]
fn a_slot_is_its_materials_alone() {
    let (_dir, path, slots) = three_slots();
    let others = [
        SlotName { index: 0, ..name(1) },
        SlotName { material: 2, ..name(1) },
        SlotName { tenant_key: TenantKeyId::from_bytes([9; 16]), ..name(1) },
    ];
    for other in &others[1..] {
        assert_eq!(kind(slots.read(other, &mac_key())), Some(ErrorKind::Corrupt));
    }
    // A slot that was moved to another place.
    let mut bytes = fs::read(&path).unwrap();
    bytes.copy_within(2 * SLOT_BYTES..3 * SLOT_BYTES, SLOT_BYTES);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(kind(slots.read(&others[0], &mac_key())), Some(ErrorKind::Corrupt));
}

#[test]
fn a_missing_slot_is_damage() {
    let (_dir, _, slots) = three_slots();
    assert_eq!(kind(slots.read(&name(3), &mac_key())), Some(ErrorKind::Corrupt));
    assert_eq!(kind(slots.read(&name(SLOTS_MAX), &mac_key())), Some(ErrorKind::Full));
}

#[test]
fn a_file_of_another_keyring_is_refused() {
    let (_dir, path, _) = three_slots();
    let opened = SlotFile::open(&path, [4; 16], &mac_key());
    assert_eq!(kind(opened), Some(ErrorKind::Corrupt));
}
