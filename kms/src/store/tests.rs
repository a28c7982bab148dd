//! The contract over every store that needs no peer.

use std::sync::Arc;

use super::contract::{Subject, check_remote_store, check_root_store, context};
use super::*;
use crate::env::{Rng, SeededRng, SystemClock};
use crate::fixtures::flip;

fn rng(seed: u64) -> Arc<dyn Rng> {
    Arc::new(SeededRng::new(seed))
}

fn memory_keys(seed: u64) -> Arc<MemoryKeys> {
    let store = MemoryKeys::new(rng(seed));
    for store_key in ["one", "two", "doomed"] {
        store.add(store_key).unwrap();
    }
    Arc::new(store)
}

fn subject(store: &dyn RemoteKeyStore) -> Subject<'_> {
    Subject { store, store_key: "one", other_key: "two", doomed_key: "doomed", every_bit: true }
}

#[test]
fn the_memory_store_keeps_the_contract() {
    let stranger = MemoryStore::new(rng(9)).unwrap();
    check_root_store(&MemoryStore::new(rng(1)).unwrap(), &stranger);
}

#[test]
fn keys_in_memory_keep_the_contract() {
    check_remote_store(&subject(&*memory_keys(1)));
}

#[test]
fn a_guarded_store_keeps_the_contract() {
    let limits = GuardLimits::with_timeout(Duration::from_secs(10));
    let guarded = Guarded::new(memory_keys(1), limits, Arc::new(SystemClock));
    check_remote_store(&subject(&guarded));
}

#[test]
fn a_root_in_a_store_keeps_the_contract() {
    let root = |seed| RootInStore::new(memory_keys(seed), "one", rng(seed));
    check_root_store(&root(1), &root(2));
    let store = memory_keys(1);
    let held = Arc::clone(&store) as Arc<dyn RemoteKeyStore>;
    let other = RootInStore::new(Arc::clone(&held), "two", rng(3));
    check_root_store(&RootInStore::new(held, "one", rng(2)), &other);
}

#[test]
fn a_root_whose_store_is_down_does_not_open_and_says_so() {
    let store = memory_keys(1);
    let root = RootInStore::new(Arc::clone(&store) as Arc<dyn RemoteKeyStore>, "one", rng(2));
    let root_key = RootKey::generate(&SeededRng::new(3)).unwrap();
    let sealed = root.seal_root(&root_key, &context(&[])).unwrap();
    store.set_mood(Mood::Dead);
    let error = root.unseal_root(&sealed, &context(&[])).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    store.wake();
    let opened = root.unseal_root(&sealed, &context(&[])).unwrap();
    assert_eq!(*opened.borrow(), *root_key.borrow());
}

#[test]
fn no_flipped_bit_of_a_sealed_root_opens() {
    let plain = MemoryStore::new(rng(1)).unwrap();
    let remote = RootInStore::new(memory_keys(1), "one", rng(2));
    let root_key = RootKey::generate(&SeededRng::new(3)).unwrap();
    for store in [&plain as &dyn KeyStore, &remote] {
        let sealed = store.seal_root(&root_key, &context(&[])).unwrap();
        assert!(!sealed.windows(32).any(|window| window == root_key.borrow().as_slice()));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            flip(&mut damaged, bit);
            assert!(store.unseal_root(&damaged, &context(&[])).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn a_blob_has_bounds() {
    for length in [0, STORE_BLOB_BYTES_MAX + 1] {
        let error = StoreBlob::new(vec![1; length]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    assert!(StoreBlob::new(vec![1; STORE_BLOB_BYTES_MAX]).is_ok());
}
