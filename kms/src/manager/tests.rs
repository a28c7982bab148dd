//! The key manager: tenants apart, keys switched off at once, files under crashes and strangers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::bucket_key::{BucketKeyPurpose, BucketKeyScope};
use crate::env::{Clock, SystemClock};
use crate::error::ErrorKind;
use crate::fixtures::{data_key, kms, purpose, ramp};
use crate::gate::{Access, KeyUse};
use crate::gate::{JobId, Reason};
use crate::lifecycle::KeyState;
use crate::slots::SlotName;
use crate::store::{MemoryStore, PassphraseStore};
use crate::types::EncryptionContext;
use crate::wrap::WrapKind;

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);
const BOB: TenantId = TenantId::from_bytes([0xb0; 16]);

fn scope(purpose: BucketKeyPurpose) -> BucketKeyScope {
    BucketKeyScope { bucket: ramp(0x20), epoch: 1, purpose }
}

fn data_scope() -> BucketKeyScope {
    scope(BucketKeyPurpose::Data)
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_tenants_first_key_is_its_default() {
    let dir = dir();
    let (kms, ..) = kms(dir.path(), 1);
    assert_eq!(kind(kms.default_tenant_key(ADA)), Some(ErrorKind::NotFound));
    let first = kms.create_tenant_key(ADA).unwrap();
    let second = kms.create_tenant_key(ADA).unwrap();
    assert!(first.is_default && !second.is_default);
    assert_eq!(kms.default_tenant_key(ADA).unwrap(), first.id);
    assert_eq!((first.state, first.current_material), (KeyState::Enabled, 1));
    assert_eq!(first.created_ms, 1_700_000_000_000);
    assert_eq!(kms.list(ADA), [first, second]);
    assert!(kms.list(BOB).is_empty());
    assert_eq!(kms.tenant_key_count(), 2);
}

#[test]
fn keys_made_together_have_one_default_per_tenant() {
    let dir = dir();
    let (kms, ..) = kms(dir.path(), 1);
    let defaults: Vec<_> = kms
        .create_tenant_keys(&[ADA, BOB, ADA])
        .unwrap()
        .iter()
        .map(|key| key.is_default)
        .collect();
    assert_eq!(defaults, [true, true, false]);
    assert!(kms.create_tenant_keys(&[]).unwrap().is_empty());
}

#[test]
fn everything_reads_back_after_opening_again() {
    let dir = dir();
    let (kms, store, env) = kms(dir.path(), 1);
    let ada = kms.create_tenant_key(ADA).unwrap();
    let bob = kms.create_tenant_key(BOB).unwrap();
    kms.disable(&purpose(BOB), bob.id).unwrap();
    let permit = kms.permit(&purpose(ADA), ada.id, Access::direct(KeyUse::Write)).unwrap();
    let (bucket_key, bucket_key_id, wrapped) =
        kms.create_bucket_key(&permit, &data_scope()).unwrap();
    assert_eq!(wrapped.kind(), WrapKind::BucketKey);
    assert_eq!(wrapped.wrapping_key_id(), ada.id.as_bytes());
    let context = EncryptionContext::new().with(b"k", b"object").unwrap();
    let data_wrap = bucket_key.wrap_data_key(&permit, &data_key(), &context, &*env.rng).unwrap();
    let described = kms.describe(BOB, bob.id).unwrap();
    drop(kms);

    let kms = Kms::open(dir.path(), &store, env).unwrap();
    assert_eq!(kms.describe(ADA, ada.id).unwrap(), ada);
    assert_eq!(kms.describe(BOB, bob.id).unwrap(), described);
    assert_eq!(described.state, KeyState::Disabled);
    assert_eq!(
        kind(kms.permit(&purpose(BOB), bob.id, Access::direct(KeyUse::Write))),
        Some(ErrorKind::KeyDisabled)
    );
    let permit = kms.permit(&purpose(ADA), ada.id, Access::direct(KeyUse::Write)).unwrap();
    let bucket_key = kms.unwrap_bucket_key(&permit, &wrapped, &data_scope()).unwrap();
    assert_eq!(bucket_key.id(), bucket_key_id);
    let unwrapped = bucket_key.unwrap_data_key(&permit, &data_wrap, &context).unwrap();
    assert_eq!(*unwrapped.borrow(), *data_key().borrow());
}

#[test]
fn another_tenants_key_is_not_found() {
    let dir = dir();
    let (kms, ..) = kms(dir.path(), 1);
    let ada = kms.create_tenant_key(ADA).unwrap().id;
    let not_found = Some(ErrorKind::NotFound);
    assert_eq!(kind(kms.describe(BOB, ada)), not_found);
    assert_eq!(kind(kms.permit(&purpose(BOB), ada, Access::direct(KeyUse::Write))), not_found);
    assert_eq!(kind(kms.disable(&purpose(BOB), ada)), not_found);
    assert_eq!(kind(kms.enable(&purpose(BOB), ada)), not_found);
    assert_eq!(kind(kms.rotate(&purpose(BOB), ada)), not_found);
    let foreign = kms.describe(BOB, ada).unwrap_err().to_string();
    let unknown = TenantKeyId::from_bytes([9; 16]);
    let absent = kms.describe(BOB, unknown).unwrap_err().to_string();
    assert_eq!(foreign.replace(&ada.to_string(), "id"), absent.replace(&unknown.to_string(), "id"));
}

#[test]
fn only_tenants_reasons_get_permits() {
    let dir = dir();
    let (kms, ..) = kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    let job = Reason::TenantJob { job: JobId::from("export-1") };
    assert!(
        kms.permit(&Purpose { reason: job, ..purpose(ADA) }, id, Access::direct(KeyUse::Write))
            .is_ok()
    );
    let support = Purpose { reason: Reason::CustomerSupport, ..purpose(ADA) };
    assert_eq!(
        kind(kms.permit(&support, id, Access::direct(KeyUse::Write))),
        Some(ErrorKind::Refused)
    );
}

#[test]
fn a_bucket_key_opens_only_as_what_it_is() {
    let dir = dir();
    let (kms, ..) = kms(dir.path(), 1);
    let ada = kms.create_tenant_key(ADA).unwrap().id;
    let other = kms.create_tenant_key(ADA).unwrap().id;
    let bob = kms.create_tenant_key(BOB).unwrap().id;
    let permit = kms.permit(&purpose(ADA), ada, Access::direct(KeyUse::Write)).unwrap();
    let (_, _, wrapped) = kms.create_bucket_key(&permit, &data_scope()).unwrap();
    let corrupt = Some(ErrorKind::Corrupt);
    for scope in [
        BucketKeyScope { bucket: ramp(0x21), ..data_scope() },
        BucketKeyScope { epoch: 2, ..data_scope() },
        scope(BucketKeyPurpose::Meta),
    ] {
        assert_eq!(kind(kms.unwrap_bucket_key(&permit, &wrapped, &scope)), corrupt);
    }
    for (tenant, id) in [(ADA, other), (BOB, bob)] {
        let permit = kms.permit(&purpose(tenant), id, Access::direct(KeyUse::Write)).unwrap();
        assert_eq!(kind(kms.unwrap_bucket_key(&permit, &wrapped, &data_scope())), corrupt);
    }
}

#[test]
fn a_permit_of_another_manager_is_misuse() {
    let (first_dir, second_dir) = (dir(), dir());
    let (first, ..) = kms(first_dir.path(), 1);
    let (second, ..) = kms(second_dir.path(), 1);
    let id = first.create_tenant_key(ADA).unwrap().id;
    assert_eq!(second.create_tenant_key(ADA).unwrap().id, id, "one seed, one id");
    let permit = first.permit(&purpose(ADA), id, Access::direct(KeyUse::Write)).unwrap();
    assert_eq!(kind(second.create_bucket_key(&permit, &data_scope())), Some(ErrorKind::Misuse));
}

#[test]
fn disable_is_at_once_and_enable_asks_for_new_permits() {
    let dir = dir();
    let (kms, ..) = kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    let told = Arc::new(AtomicU64::new(0));
    kms.on_close({
        let told = Arc::clone(&told);
        Arc::new(move |tenant, closed| {
            assert_eq!((tenant, closed), (ADA, id));
            told.fetch_add(1, Ordering::SeqCst);
        })
    });
    let old = kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write)).unwrap();
    let (_, _, wrapped) = kms.create_bucket_key(&old, &data_scope()).unwrap();
    let entry = kms.entry(ADA, id).unwrap();
    assert_eq!(lock(&entry.materials).len(), 1);
    kms.disable(&purpose(ADA), id).unwrap();
    assert!(lock(&entry.materials).is_empty(), "unwrapped materials are gone");
    assert_eq!(told.load(Ordering::SeqCst), 1);
    let disabled = Some(ErrorKind::KeyDisabled);
    assert_eq!(kind(old.enter()), disabled);
    assert_eq!(kind(kms.unwrap_bucket_key(&old, &wrapped, &data_scope())), disabled);
    assert_eq!(kind(kms.create_bucket_key(&old, &data_scope())), disabled);
    assert_eq!(kind(kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write))), disabled);
    assert_eq!(kind(kms.rotate(&purpose(ADA), id)), disabled);
    kms.disable(&purpose(ADA), id).unwrap();
    kms.enable(&purpose(ADA), id).unwrap();
    kms.enable(&purpose(ADA), id).unwrap();
    assert_eq!(kind(old.enter()), disabled);
    let new = kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write)).unwrap();
    assert!(kms.unwrap_bucket_key(&new, &wrapped, &data_scope()).is_ok());
    assert_eq!(kms.describe(ADA, id).unwrap().state, KeyState::Enabled);
}

#[test]
fn no_chunk_starts_after_disable_with_64_streams_open() {
    const STREAMS: usize = 64;
    let dir = dir();
    let (kms, ..) = kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    let permits: Vec<_> = (0..STREAMS)
        .map(|_| kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write)).unwrap())
        .collect();
    let chunks = AtomicU64::new(0);
    thread::scope(|scope| {
        for permit in &permits {
            scope.spawn(|| {
                while let Ok(guard) = permit.enter() {
                    chunks.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    drop(guard);
                }
            });
        }
        while chunks.load(Ordering::SeqCst) < 1_000 {
            thread::yield_now();
        }
        let start_ns = SystemClock.monotonic_ns();
        kms.disable(&purpose(ADA), id).unwrap();
        let settled = chunks.load(Ordering::SeqCst);
        let took = Duration::from_nanos(SystemClock.monotonic_ns() - start_ns);
        thread::yield_now();
        assert_eq!(chunks.load(Ordering::SeqCst), settled, "a chunk started after disable");
        println!("disable with {STREAMS} streams open took {took:?}");
    });
}

#[test]
fn rotation_wraps_under_a_new_material_and_reads_the_old() {
    let dir = dir();
    let (kms, store, env) = kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    let permit = kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write)).unwrap();
    let (_, _, old) = kms.create_bucket_key(&permit, &data_scope()).unwrap();
    let rotated = kms.rotate(&purpose(ADA), id).unwrap();
    assert_eq!(rotated.current_material, 2);
    assert_ne!(rotated.materials[0].id, rotated.materials[1].id);
    let (_, _, new) = kms.create_bucket_key(&permit, &data_scope()).unwrap();
    assert_eq!((old.wrapping_version(), new.wrapping_version()), (1, 2));
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    let permit = kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write)).unwrap();
    for wrapped in [old, new] {
        kms.unwrap_bucket_key(&permit, &wrapped, &data_scope()).unwrap();
    }
    assert_eq!(kms.describe(ADA, id).unwrap(), rotated);
}

#[test]
fn a_key_has_at_most_256_materials() {
    let dir = dir();
    let (kms, ..) = kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    for _ in 1..256 {
        kms.rotate(&purpose(ADA), id).unwrap();
    }
    assert_eq!(kind(kms.rotate(&purpose(ADA), id)), Some(ErrorKind::Full));
}

#[test]
fn changes_compact_the_journal_and_survive() {
    let dir = dir();
    let (kms, store, env) = kms(dir.path(), 1);
    let ids: Vec<_> =
        kms.create_tenant_keys(&[ADA, BOB]).unwrap().iter().map(|key| key.id).collect();
    // A key of many materials has a long record, so that compaction comes soon.
    for _ in 1..100 {
        kms.rotate(&purpose(ADA), ids[0]).unwrap();
    }
    for _ in 0..40 {
        kms.disable(&purpose(ADA), ids[0]).unwrap();
        kms.enable(&purpose(ADA), ids[0]).unwrap();
    }
    let length = fs::metadata(dir.path().join("keys/keyring.1")).unwrap().len();
    assert!(length < 1_500_000, "{length} bytes after 180 changes of up to 18 KiB");
    let before = kms.list(ADA);
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    assert_eq!(kms.list(ADA), before);
    assert_eq!(kms.list(BOB).len(), 1);
}

#[test]
fn a_second_opening_is_refused() {
    let dir = dir();
    let (kms, store, env) = kms(dir.path(), 1);
    let conflict = Some(ErrorKind::Conflict);
    assert_eq!(kind(Kms::open(dir.path(), &store, env.clone())), conflict);
    drop(kms);
    assert_eq!(kind(Kms::create(dir.path(), &store, env.clone())), conflict);
    assert!(Kms::open(dir.path(), &store, env).is_ok());
}

#[test]
fn files_that_others_may_read_are_refused() {
    let dir = dir();
    let (kms, store, env) = kms(dir.path(), 1);
    kms.create_tenant_key(ADA).unwrap();
    drop(kms);
    for name in ["keys/root.sealed", "keys/keyring.1", "keys/slots.1", "keys"] {
        let path = dir.path().join(name);
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if name == "keys" { 0o700 } else { 0o600 });
        for extra in [0o040, 0o004, 0o020, 0o001] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode | extra)).unwrap();
            let opened = Kms::open(dir.path(), &store, env.clone());
            assert_eq!(kind(opened), Some(ErrorKind::Refused), "{name} {extra:o}");
        }
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }
    assert!(Kms::open(dir.path(), &store, env).is_ok());
}

#[test]
fn a_wrong_passphrase_is_told_from_damage() {
    let dir = dir();
    let env = Env::seeded(1, 0);
    let store = |passphrase: &str| {
        PassphraseStore::new(passphrase.as_bytes(), Arc::clone(&env.rng)).unwrap()
    };
    let right = store("correct horse battery staple");
    drop(Kms::create(dir.path(), &right, env.clone()).unwrap());
    let wrong = Kms::open(dir.path(), &store("correct horse battery stable"), env.clone());
    assert_eq!(kind(wrong), Some(ErrorKind::WrongPassphrase));
    assert!(Kms::open(dir.path(), &right, env.clone()).is_ok());
    let path = dir.path().join("keys/root.sealed");
    let mut bytes = fs::read(&path).unwrap();
    bytes[120] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(kind(Kms::open(dir.path(), &right, env)), Some(ErrorKind::Corrupt));
}

#[test]
fn a_missing_keyring_is_not_found() {
    let dir = dir();
    let env = Env::seeded(1, 0);
    let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
    assert!(!Kms::exists(dir.path()));
    assert_eq!(kind(Kms::open(dir.path(), &store, env.clone())), Some(ErrorKind::NotFound));
    drop(Kms::create(dir.path(), &store, env).unwrap());
    assert!(Kms::exists(dir.path()));
}

#[test]
fn a_crash_during_create_can_be_repeated_but_lost_roots_are_not_replaced() {
    let dir = dir();
    let (kms, store, env) = kms(dir.path(), 1);
    let root = dir.path().join("keys/root.sealed");
    drop(kms);
    // The crash came before root.sealed: nothing was promised yet.
    fs::remove_file(&root).unwrap();
    let kms = Kms::create(dir.path(), &store, env.clone()).unwrap();
    kms.create_tenant_key(ADA).unwrap();
    drop(kms);
    // root.sealed was lost later: a new one would orphan the tenant's key for good.
    fs::remove_file(&root).unwrap();
    assert_eq!(kind(Kms::create(dir.path(), &store, env)), Some(ErrorKind::Conflict));
}

#[test]
fn a_crash_between_slot_and_journal_leaves_no_trace() {
    let dir = dir();
    let (kms, store, env) = kms(dir.path(), 1);
    let first = kms.create_tenant_key(ADA).unwrap();
    let journal = fs::read(dir.path().join("keys/keyring.1")).unwrap();
    let lost = kms.create_tenant_key(ADA).unwrap();
    drop(kms);
    fs::write(dir.path().join("keys/keyring.1"), &journal).unwrap();
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    assert_eq!(kms.list(ADA), [first]);
    assert_eq!(kind(kms.describe(ADA, lost.id)), Some(ErrorKind::NotFound));
    // Its slot is used again, and the new key works.
    let next = kms.create_tenant_key(ADA).unwrap();
    let permit = kms.permit(&purpose(ADA), next.id, Access::direct(KeyUse::Write)).unwrap();
    assert!(kms.create_bucket_key(&permit, &data_scope()).is_ok());
}

#[test]
fn an_erased_slot_is_a_destroyed_key_and_a_damaged_one_is_not() {
    let dir = dir();
    let (kms, ..) = kms(dir.path(), 1);
    let keys = kms.create_tenant_keys(&[ADA, BOB]).unwrap();
    read(&kms.vault).slots.erase(0).unwrap();
    let permit = kms.permit(&purpose(ADA), keys[0].id, Access::direct(KeyUse::Write)).unwrap();
    let made = kms.create_bucket_key(&permit, &data_scope());
    assert_eq!(kind(made), Some(ErrorKind::KeyDestroyed));
    let path = dir.path().join("keys/slots.1");
    let mut bytes = fs::read(&path).unwrap();
    bytes[2 * 4096 + 40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let permit = kms.permit(&purpose(BOB), keys[1].id, Access::direct(KeyUse::Write)).unwrap();
    assert_eq!(kind(kms.create_bucket_key(&permit, &data_scope())), Some(ErrorKind::Corrupt));
}

#[test]
fn ten_thousand_tenants_open_in_less_than_a_second() {
    let dir = dir();
    let (kms, store, env) = kms(dir.path(), 1);
    let tenants: Vec<_> = (0..10_000_u32)
        .map(|tenant| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&tenant.to_be_bytes());
            TenantId::from_bytes(bytes)
        })
        .collect();
    let start_ns = SystemClock.monotonic_ns();
    kms.create_tenant_keys(&tenants).unwrap();
    let made = Duration::from_nanos(SystemClock.monotonic_ns() - start_ns);
    drop(kms);
    let start_ns = SystemClock.monotonic_ns();
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    let opened = Duration::from_nanos(SystemClock.monotonic_ns() - start_ns);
    assert_eq!(kms.tenant_key_count(), 10_000);
    let start_ns = SystemClock.monotonic_ns();
    for tenant in &tenants {
        let id = kms.default_tenant_key(*tenant).unwrap();
        let permit = kms.permit(&purpose(*tenant), id, Access::direct(KeyUse::Write)).unwrap();
        kms.create_bucket_key(&permit, &data_scope()).unwrap();
    }
    let used = Duration::from_nanos(SystemClock.monotonic_ns() - start_ns);
    println!("10,000 tenants: made in {made:?}, opened in {opened:?}, first use in {used:?}");
    assert!(opened < Duration::from_secs(1), "opening took {opened:?}");
}

#[test]
fn credentials_open_for_their_tenant_and_context_only() {
    let dir = dir();
    let (kms, store, env) = kms(dir.path(), 1);
    let aad = EncryptionContext::new().with(b"a", b"AKIA").unwrap();
    let other = EncryptionContext::new().with(b"a", b"AKIB").unwrap();
    let sealed = kms.seal_credential(ADA, &aad, b"secret").unwrap();
    assert_ne!(sealed, kms.seal_credential(ADA, &aad, b"secret").unwrap());
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    assert_eq!(kms.open_credential(ADA, &aad, &sealed).unwrap().as_slice(), b"secret");
    let corrupt = Some(ErrorKind::Corrupt);
    assert_eq!(kind(kms.open_credential(BOB, &aad, &sealed)), corrupt);
    assert_eq!(kind(kms.open_credential(ADA, &other, &sealed)), corrupt);
    for bit in 0..sealed.len() * 8 {
        let mut damaged = sealed.clone();
        crate::fixtures::flip(&mut damaged, bit);
        assert_eq!(kind(kms.open_credential(ADA, &aad, &damaged)), corrupt);
    }
    for length in 0..sealed.len() {
        assert_eq!(kind(kms.open_credential(ADA, &aad, &sealed[..length])), corrupt);
    }
    let long = vec![0; CREDENTIAL_BYTES_MAX + 1];
    assert_eq!(kind(kms.seal_credential(ADA, &aad, &long)), Some(ErrorKind::Misuse));
}

#[test]
fn root_macs_differ_by_label_and_data_and_node() {
    let (first_dir, second_dir) = (dir(), dir());
    let (first, ..) = kms(first_dir.path(), 1);
    let (second, ..) = kms(second_dir.path(), 2);
    let one = first.root_mac("audit", b"entry");
    assert_eq!(one, first.root_mac("audit", b"entry"));
    assert_ne!(one, first.root_mac("audit", b"entrz"));
    assert_ne!(one, first.root_mac("audi", b"tentry"));
    assert_ne!(one, second.root_mac("audit", b"entry"));
}

#[test]
fn nothing_secret_is_in_the_files_or_in_debug_output() {
    let dir = dir();
    let (kms, ..) = kms(dir.path(), 1);
    let key = kms.create_tenant_key(ADA).unwrap();
    let permit = kms.permit(&purpose(ADA), key.id, Access::direct(KeyUse::Write)).unwrap();
    let (bucket_key, _, wrapped) = kms.create_bucket_key(&permit, &data_scope()).unwrap();
    let context = EncryptionContext::new().with(b"k", b"object").unwrap();
    let data_wrap =
        bucket_key.wrap_data_key(&permit, &data_key(), &context, &*kms.env.rng).unwrap();
    let entry = kms.entry(ADA, key.id).unwrap();
    let material = Arc::clone(&lock(&entry.materials)[&1]);
    let slot = SlotName { index: 0, tenant_key: key.id, material: 1 };
    let slot_secret = read(&kms.vault).slots.read(&slot, &kms.mac_key).unwrap();
    let secrets: [[u8; 32]; 5] = [
        *kms.node_secret.borrow(),
        *read(&kms.vault).root_key.borrow(),
        *kms.mac_key.borrow(),
        *material.borrow(),
        *data_key().borrow(),
    ];
    for name in ["root.sealed", "keyring.1", "slots.1"] {
        let bytes = fs::read(dir.path().join("keys").join(name)).unwrap();
        for secret in &secrets {
            assert!(!bytes.windows(32).any(|window| window == secret), "{name}");
        }
    }
    let shown = format!(
        "{key:?} {permit:?} {wrapped:?} {data_wrap:?} {:?} {:?} {:?} {context:?} {}",
        kms.capabilities(),
        kms.env,
        entry.gate,
        kms.describe(BOB, key.id).unwrap_err(),
    );
    let slot_bytes = *slot_secret.borrow();
    for secret in secrets.iter().chain([&slot_bytes]) {
        // Neither as hexadecimal text nor as a list of numbers.
        assert!(!shown.contains(&hex::encode(&secret[..4])));
        let numbers = format!("{}, {}, {}, {}", secret[0], secret[1], secret[2], secret[3]);
        assert!(!shown.contains(&numbers));
    }
}
