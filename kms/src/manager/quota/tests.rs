//! Limits of a tenant and of the journal: what adds is refused in time, what ends never.

use std::path::Path;
use std::sync::Arc;

use super::super::{Kms, lock, read};
use super::*;
use crate::directory::ENTRY_VALUE_BYTES_MAX;
use crate::env::ManualClock;
use crate::fixtures::{purpose, timed_kms};
use crate::record::KeyOrigin;
use crate::store::MemoryStore;
use crate::types::TenantKeyId;

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);
const BOB: TenantId = TenantId::from_bytes([0xb0; 16]);
const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1000;
const FULL: Option<ErrorKind> = Some(ErrorKind::Full);

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn set(kms: &Kms, tenant: TenantId, name: &str, value: Option<usize>) -> Result<()> {
    let change = (name.as_bytes().to_vec(), value.map(|bytes| vec![b'v'; bytes]));
    kms.set_entries(&purpose(tenant), None, vec![change])
}

/// The count that is kept is the one that is found by counting.
#[track_caller]
fn check_counted(kms: &Kms) {
    let counted = Quotas::count(&kms.key_records(), &read(&kms.directory));
    let writer = lock(&kms.writer);
    for tenant in [ADA, BOB] {
        assert_eq!(writer.quotas.of(tenant), counted.of(tenant));
    }
}

fn destroy(kms: &Kms, clock: &ManualClock, tenant: TenantId, id: TenantKeyId) {
    kms.schedule_deletion(&purpose(tenant), id, 7).unwrap();
    clock.advance_ms(WEEK_MS);
    kms.begin_destruction(tenant, id).unwrap();
    kms.erase_materials(tenant, id).unwrap();
    kms.keep_erasure_report(&purpose(tenant), id, b"proved".to_vec()).unwrap();
    kms.finish_destruction(tenant, id).unwrap();
}

/// As if the tenant held this much more.
fn pretend(kms: &Kms, tenant: TenantId, more: Held) {
    lock(&kms.writer).quotas.add(tenant, more);
}

fn open(dir: &Path) -> (Kms, MemoryStore, crate::env::Env, Arc<ManualClock>) {
    timed_kms(dir, 1)
}

#[test]
fn names_of_the_node_are_exact() {
    let id = "0123456789abcdef0123456789abcdef";
    for name in ["erasure", "count/1", "count/256", "store/1"] {
        assert!(is_of_node(format!("k/{id}/{name}").as_bytes()), "{name}");
    }
    for name in [
        format!("k/{id}/count/"),
        format!("k/{id}/count/1/x"),
        format!("k/{id}/count/x1"),
        format!("k/{id}/policy"),
        format!("k/{id}/grant/count/1"),
        format!("k/{}/count/1", id.to_uppercase()),
        format!("k/{}/count/1", &id[1..]),
        format!("k/{id}0/count/1"),
        format!("a/k/{id}/count/1"),
        "a/mine/count/1".to_owned(),
        "at/alias/mine/count/1".to_owned(),
    ] {
        assert!(!is_of_node(name.as_bytes()), "{name}");
    }
}

#[test]
fn a_name_with_count_in_it_counts_and_names_of_the_node_are_not_a_tenants() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, ..) = open(dir.path());
    let id = kms.create_tenant_key(ADA).unwrap().id;
    for name in ["erasure", "count/1", "store/1"] {
        let name = format!("k/{id}/{name}");
        assert_eq!(kind(set(&kms, ADA, &name, Some(1))), Some(ErrorKind::Misuse));
        assert_eq!(kind(set(&kms, ADA, &name, None)), Some(ErrorKind::Misuse));
    }
    pretend(&kms, ADA, Held { names: ENTRIES_MAX, ..Held::default() });
    assert_eq!(kind(set(&kms, ADA, "a/x/count/1", Some(1))), FULL);
}

#[test]
fn a_tenant_has_so_many_keys_and_a_destroyed_one_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, _, _, clock) = open(dir.path());
    let first = kms.create_tenant_key(ADA).unwrap().id;
    pretend(&kms, ADA, Held { keys: TENANT_KEYS_MAX - 1, ..Held::default() });
    for origin in [KeyOrigin::Local, KeyOrigin::Imported] {
        assert_eq!(kind(kms.create_key(&purpose(ADA), origin)), FULL);
    }
    assert_eq!(kind(kms.create_tenant_keys(&[BOB, ADA])), FULL);
    assert!(kms.list(BOB).is_empty(), "a whole batch or none of it");
    kms.create_key(&purpose(BOB), KeyOrigin::Imported).unwrap();
    kms.schedule_deletion(&purpose(ADA), first, 7).unwrap();
    assert_eq!(kind(kms.create_key(&purpose(ADA), KeyOrigin::Imported)), FULL, "one that waits");
    kms.cancel_deletion(&purpose(ADA), first).unwrap();
    destroy(&kms, &clock, ADA, first);
    // The new epoch counted anew what is there.
    assert_eq!(lock(&kms.writer).quotas.of(ADA).keys, 0);
    kms.create_key(&purpose(ADA), KeyOrigin::Imported).unwrap();
    check_counted(&kms);
}

#[test]
fn a_tenant_has_so_many_slots_and_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, ..) = open(dir.path());
    let id = kms.create_tenant_key(ADA).unwrap().id;
    pretend(&kms, ADA, Held { slots: TENANT_SLOTS_MAX - 1, ..Held::default() });
    let next_slot = lock(&kms.writer).next_slot;
    assert_eq!(kind(kms.rotate(&purpose(ADA), id)), FULL);
    assert_eq!(kind(kms.create_tenant_key(ADA)), FULL);
    assert_eq!(lock(&kms.writer).next_slot, next_slot, "what is refused takes no slot");
    kms.create_key(&purpose(ADA), KeyOrigin::Imported).unwrap();

    kms.create_tenant_key(BOB).unwrap();
    set(&kms, BOB, "a/x", Some(1_000)).unwrap();
    let held = lock(&kms.writer).quotas.of(BOB).bytes;
    pretend(&kms, BOB, Held { bytes: TENANT_BYTES_MAX - held, ..Held::default() });
    assert_eq!(kind(set(&kms, BOB, "a/x", Some(1_001))), FULL);
    assert_eq!(kind(kms.create_key(&purpose(BOB), KeyOrigin::Imported)), FULL);
    let id = kms.default_tenant_key(BOB).unwrap();
    assert_eq!(kind(kms.rotate(&purpose(BOB), id)), FULL);
    kms.disable(&purpose(BOB), id).unwrap();
    set(&kms, BOB, "a/x", Some(999)).unwrap();
    set(&kms, BOB, "a/x", None).unwrap();
    set(&kms, BOB, "a/y", Some(900)).unwrap();
    set(&kms, ADA, "a/x", Some(1_000)).unwrap();
}

#[test]
fn what_is_held_is_counted_through_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env, clock) = open(dir.path());
    let (first, second) = (
        kms.create_tenant_key(ADA).unwrap().id,
        kms.create_key_with(&purpose(ADA), KeyOrigin::Local, |id| {
            vec![(format!("k/{id}/policy").into_bytes(), Some(vec![7; 300]))]
        }),
    );
    let second = second.unwrap().id;
    kms.create_tenant_key(BOB).unwrap();
    kms.rotate(&purpose(ADA), first).unwrap();
    kms.retire_material(&purpose(ADA), first, 1).unwrap();
    for (name, value) in [("a/x", Some(10)), ("a/y", Some(20)), ("a/x", Some(5)), ("a/y", None)] {
        set(&kms, ADA, name, value).unwrap();
    }
    check_counted(&kms);
    let before = lock(&kms.writer).quotas.of(ADA);
    assert_eq!((before.keys, before.slots, before.names), (2, 2, 2));
    destroy(&kms, &clock, ADA, second);
    check_counted(&kms);
    let after = lock(&kms.writer).quotas.of(ADA);
    assert_eq!((after.keys, after.slots, after.names), (1, 1, 1));
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    assert_eq!(lock(&kms.writer).quotas.of(ADA), after);
}

#[test]
fn a_key_is_destroyed_though_its_tenants_directory_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env, clock) = open(dir.path());
    let kept = kms.create_tenant_key(ADA).unwrap().id;
    let dying = kms.create_tenant_key(ADA).unwrap().id;
    let own = ["policy", "tags", "description", "grant/a", "grant/b"];
    let mut changes: Vec<_> =
        own.iter().map(|name| (format!("k/{dying}/{name}").into_bytes(), Some(vec![1]))).collect();
    for (alias, id) in [("dead", dying), ("live", kept)] {
        changes.push((format!("a/{alias}").into_bytes(), Some(id.as_bytes().to_vec())));
        changes.push((format!("at/alias/{alias}").into_bytes(), Some(vec![0; 16])));
    }
    changes.extend(
        (changes.len()..ENTRIES_MAX).map(|name| (format!("x/{name}").into_bytes(), Some(vec![]))),
    );
    kms.set_entries(&purpose(ADA), None, changes).unwrap();
    assert_eq!(kind(set(&kms, ADA, "x/more", Some(0))), FULL);
    pretend(&kms, ADA, Held { bytes: TENANT_BYTES_MAX, ..Held::default() });

    let permit =
        kms.permit(&purpose(ADA), dying, crate::gate::Access::direct(crate::gate::KeyUse::Write));
    kms.encrypt(&permit.unwrap(), b"x", &crate::types::EncryptionContext::new()).unwrap();
    destroy(&kms, &clock, ADA, dying);
    let check = |kms: &Kms| {
        let left = kms.entry_values(ADA, format!("k/{dying}/").as_bytes());
        let left: Vec<_> = left.into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, [format!("k/{dying}/erasure").into_bytes()]);
        assert_eq!(&*kms.erasure_report(ADA, dying).unwrap(), b"proved");
        let aliases = kms.entry_values(ADA, b"a");
        let aliases: Vec<_> = aliases.into_iter().map(|(name, _)| name).collect();
        assert_eq!(aliases, [b"a/live".to_vec(), b"at/alias/live".to_vec()]);
        let late = vec![(format!("k/{dying}/tags").into_bytes(), Some(vec![1]))];
        let late = kms.set_entries(&purpose(ADA), Some(dying), late);
        assert_eq!(kind(late), Some(ErrorKind::KeyDestroyed));
    };
    check(&kms);
    set(&kms, ADA, "x/more", Some(0)).unwrap();
    drop(kms);
    check(&Kms::open(dir.path(), &store, env).unwrap());
}

#[test]
fn a_full_journal_takes_no_more_and_still_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env, clock) = open(dir.path());
    let ada = kms.create_tenant_key(ADA).unwrap().id;
    let bob = kms.create_tenant_key(BOB).unwrap().id;
    // Nothing in it is dead, so that compaction makes no room.
    lock(&kms.writer).keyring.limit(64 << 10);
    let mut names = 0;
    for bytes in [4_000, 100] {
        while let Ok(()) = set(&kms, ADA, &format!("x/{names}"), Some(bytes)) {
            names += 1;
        }
        assert_eq!(kind(set(&kms, ADA, &format!("x/{names}"), Some(bytes))), FULL);
    }
    let length = std::fs::metadata(dir.path().join("keys/keyring.1")).unwrap().len();
    assert!((47 << 10..=48 << 10).contains(&length), "{length} of 48 KiB");
    assert_eq!(kind(kms.create_key(&purpose(BOB), KeyOrigin::Local)), FULL);
    assert_eq!(kind(kms.create_tenant_key(BOB)), FULL);
    assert_eq!(kind(kms.rotate(&purpose(BOB), bob)), FULL);
    assert_eq!(kms.list(BOB).len(), 1);
    kms.disable(&purpose(BOB), bob).unwrap();
    set(&kms, ADA, "x/0", None).unwrap();
    destroy(&kms, &clock, ADA, ada);
    kms.enable(&purpose(BOB), bob).unwrap();
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    assert_eq!(kms.entry_values(ADA, b"x/").len(), names - 1);

    // At the very end even that is refused, and what is there can be read again.
    let end = std::fs::metadata(dir.path().join("keys/keyring.2")).unwrap().len();
    lock(&kms.writer).keyring.limit(end + 10);
    assert_eq!(kind(kms.disable(&purpose(BOB), bob)), FULL);
    lock(&kms.writer).keyring.limit(1 << 20);
    kms.disable(&purpose(BOB), bob).unwrap();
}

#[test]
fn compaction_makes_room_before_anything_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, ..) = open(dir.path());
    lock(&kms.writer).keyring.limit(4 << 20);
    for _ in 0..100 {
        set(&kms, ADA, "x", Some(ENTRY_VALUE_BYTES_MAX)).unwrap();
    }
}

#[test]
fn what_is_made_and_deleted_again_does_not_fill_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env, _) = open(dir.path());
    for round in 0..300 {
        let name = format!("x/{round}");
        set(&kms, ADA, &name, Some(7_000)).unwrap();
        set(&kms, ADA, &name, None).unwrap();
    }
    let path = dir.path().join("keys/keyring.1");
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(length < 1_200_000, "{length} bytes of nothing");
    // What is dead is counted the same when it is read again.
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    for round in 0..150 {
        let name = format!("y/{round}");
        set(&kms, ADA, &name, Some(7_000)).unwrap();
        set(&kms, ADA, &name, None).unwrap();
    }
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(length < 1_200_000, "{length} bytes of nothing");
}

#[test]
fn a_key_and_what_is_beside_it_are_made_together_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env, _) = open(dir.path());
    let seeded = || env.clone();
    let make = |kms: &Kms, bytes: usize| {
        kms.create_key_with(&purpose(ADA), KeyOrigin::Local, |id| {
            vec![(format!("k/{id}/policy").into_bytes(), Some(vec![7; bytes]))]
        })
    };
    let first = make(&kms, 100).unwrap().id;
    pretend(&kms, ADA, Held { names: ENTRIES_MAX - 1, ..Held::default() });
    let journal = std::fs::read(dir.path().join("keys/keyring.1")).unwrap();
    assert_eq!(kind(make(&kms, 100)), FULL);
    assert_eq!(kind(make(&kms, ENTRY_VALUE_BYTES_MAX + 1)), Some(ErrorKind::Misuse));
    assert_eq!(std::fs::read(dir.path().join("keys/keyring.1")).unwrap(), journal);
    assert_eq!(kms.list(ADA).len(), 1);
    drop(kms);
    let kms = Kms::open(dir.path(), &store, seeded()).unwrap();
    assert_eq!(kms.list(ADA).len(), 1);
    assert_eq!(kms.entry_value(ADA, format!("k/{first}/policy").as_bytes()).unwrap().len(), 100);
    // One entry: wherever a crash cuts it, neither is there.
    let path = dir.path().join("keys/keyring.1");
    let start = std::fs::read(&path).unwrap().len();
    make(&kms, 5_000).unwrap();
    drop(kms);
    let whole = std::fs::read(&path).unwrap();
    for cut in [start + 1, start + 300, start + 3_000, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let kms = Kms::open(dir.path(), &store, seeded()).unwrap();
        let policies = kms.entry_values(ADA, b"k/").len();
        assert_eq!((kms.list(ADA).len(), policies), (1, 1), "cut at {cut}");
    }
}
