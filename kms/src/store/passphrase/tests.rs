//! The contract over a passphrase, and what only a passphrase can get wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::env::SeededRng;
use crate::store::MemoryStore;
use crate::store::contract::{check_root_store, context};
use crate::store::sealed::{
    ARGON2_LANES_MAX, ARGON2_MEMORY_KIB, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES_MAX,
    SEALED_ROOT_BYTES,
};

const PASSPHRASE: &[u8] = b"correct horse battery staple";

fn rng() -> Arc<dyn Rng> {
    Arc::new(SeededRng::new(1))
}

fn passphrase_store() -> PassphraseStore {
    PassphraseStore::new(PASSPHRASE, rng()).unwrap()
}

fn epoch(epoch: u8) -> EncryptionContext {
    context(&[(b"e", &[epoch])])
}

#[test]
fn the_passphrase_store_keeps_the_contract() {
    let stranger = PassphraseStore::new(b"correct horse battery stapler", rng()).unwrap();
    check_root_store(&passphrase_store(), &stranger);
}

#[test]
fn the_header_names_the_cost() {
    let root_key = RootKey::generate(&*rng()).unwrap();
    let sealed = passphrase_store().seal_root(&root_key, &epoch(1)).unwrap();
    assert_eq!(sealed.len(), SEALED_ROOT_BYTES);
    assert_eq!(sealed[..16], [1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1]);
}

#[test]
fn a_sealed_file_cannot_ask_for_any_cost() {
    let root_key = RootKey::generate(&*rng()).unwrap();
    let sealed = passphrase_store().seal_root(&root_key, &epoch(1)).unwrap();
    let costs = [
        (4, ARGON2_MEMORY_KIB - 1),
        (4, ARGON2_MEMORY_KIB_MAX + 1),
        (4, u32::MAX),
        (8, 0),
        (8, ARGON2_PASSES_MAX + 1),
        (12, 0),
        (12, ARGON2_LANES_MAX + 1),
    ];
    for (place, cost) in costs {
        let mut changed = sealed.clone();
        changed[place..place + 4].copy_from_slice(&cost.to_be_bytes());
        let error = passphrase_store().unseal_root(&changed, &epoch(1)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn one_store_does_not_read_the_other_ones_seal() {
    let root_key = RootKey::generate(&*rng()).unwrap();
    let sealed = MemoryStore::new(rng()).unwrap().seal_root(&root_key, &epoch(1)).unwrap();
    let error = passphrase_store().unseal_root(&sealed, &epoch(1)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn passphrases_have_bounds() {
    let refused = |passphrase: &[u8]| {
        PassphraseStore::new(passphrase, rng()).err().map(|error| error.kind())
            == Some(ErrorKind::Refused)
    };
    assert!(refused(b""));
    assert!(refused(&[b'a'; PASSPHRASE_BYTES_MIN - 1]));
    assert!(!refused(&[b'a'; PASSPHRASE_BYTES_MIN]));
    assert!(refused(&[b'a'; PASSPHRASE_BYTES_MAX + 1]));
}

#[test]
fn a_passphrase_file_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("passphrase");
    fs::write(&path, [PASSPHRASE, b"\r\n"].concat()).unwrap();
    for mode in [0o640, 0o604, 0o660, 0o610] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let error = PassphraseStore::from_file(&path, rng()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Refused, "{mode:o}");
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let store = PassphraseStore::from_file(&path, rng()).unwrap();
        assert_eq!(&**store.passphrase, PASSPHRASE);
    }
    let missing = PassphraseStore::from_file(&dir.path().join("none"), rng()).err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::Unavailable);
    let directory = PassphraseStore::from_file(dir.path(), rng()).err().unwrap();
    assert_eq!(directory.kind(), ErrorKind::Refused);
}
