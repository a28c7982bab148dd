//! The next epoch of the root key beside everything else: slots, names, readers, damage.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::bucket_key::{BucketKeyPurpose, BucketKeyScope};
use crate::env::Env;
use crate::fixtures::{TestAudit, kms, purpose, ramp};
use crate::gate::{Access, KeyUse};
use crate::store::{Capabilities, KeyStore, MemoryStore};
use crate::types::EncryptionContext;
use crate::wrap::WrappedKey;

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);
const BOB: TenantId = TenantId::from_bytes([0xb0; 16]);

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn scope() -> BucketKeyScope {
    BucketKeyScope { bucket: ramp(0x20), epoch: 1, purpose: BucketKeyPurpose::Data }
}

fn wrap(kms: &Kms, tenant: TenantId, id: TenantKeyId) -> WrappedKey {
    let permit = kms.permit(&purpose(tenant), id, Access::direct(KeyUse::Write)).unwrap();
    kms.create_bucket_key(&permit, &scope()).unwrap().2
}

/// Opens a wrap without anything that is cached.
fn open(kms: &Kms, tenant: TenantId, id: TenantKeyId, wrapped: &WrappedKey) -> Result<()> {
    lock(&kms.entry(tenant, id).unwrap().materials).clear();
    let permit = kms.permit(&purpose(tenant), id, Access::direct(KeyUse::Read))?;
    kms.unwrap_bucket_key(&permit, wrapped, &scope()).map(drop)
}

#[test]
fn keys_are_opened_while_the_root_key_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, ..) = kms(dir.path(), 1);
    let ids: Vec<_> =
        kms.create_tenant_keys(&[BOB; 200]).unwrap().iter().map(|info| info.id).collect();
    let wraps: Vec<_> = ids.iter().map(|id| wrap(&kms, BOB, *id)).collect();
    let is_done = AtomicBool::new(false);
    thread::scope(|threads| {
        let read_on = || {
            let mut opened = 0_usize;
            while !is_done.load(Ordering::SeqCst) {
                for (id, wrapped) in ids.iter().zip(&wraps) {
                    open(&kms, BOB, *id, wrapped).unwrap();
                    opened += 1;
                }
            }
            opened
        };
        let readers = [threads.spawn(read_on), threads.spawn(read_on)];
        for _ in 0..10 {
            kms.reseal(&[]).unwrap();
        }
        is_done.store(true, Ordering::SeqCst);
        let opened: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(opened >= 200, "{opened} openings beside 10 epochs");
    });
}

/// No slot is free that a material is in, and none is free twice.
#[track_caller]
fn check_slots(kms: &Kms) {
    let writer = lock(&kms.writer);
    let records = kms.key_records();
    let materials = records.iter().flat_map(|record| &record.materials);
    let used: Vec<u32> = materials.filter_map(|held| held.slot).collect();
    let taken: HashSet<u32> = used.iter().chain(&writer.free_slots).copied().collect();
    assert_eq!(taken.len(), used.len() + writer.free_slots.len());
    assert!(taken.iter().all(|slot| *slot < writer.next_slot));
}

#[test]
fn slots_that_are_freed_while_the_root_key_changes_are_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, ..) = kms(dir.path(), 1);
    let ada = kms.create_tenant_key(ADA).unwrap().id;
    let bobs: Vec<_> =
        kms.create_tenant_keys(&[BOB; 20]).unwrap().iter().map(|info| info.id).collect();
    let wraps: Vec<_> = bobs.iter().map(|id| wrap(&kms, BOB, *id)).collect();
    let is_done = AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            for number in 1..120 {
                kms.rotate(&purpose(ADA), ada).unwrap();
                kms.retire_material(&purpose(ADA), ada, number).unwrap();
            }
            is_done.store(true, Ordering::SeqCst);
        });
        while !is_done.load(Ordering::SeqCst) {
            kms.reseal(&[]).unwrap();
            check_slots(&kms);
        }
    });
    check_slots(&kms);
    kms.create_tenant_keys(&[ADA; 20]).unwrap();
    for (id, wrapped) in bobs.iter().zip(&wraps) {
        open(&kms, BOB, *id, wrapped).unwrap();
    }
}

#[test]
fn a_slot_that_a_key_is_in_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, ..) = kms(dir.path(), 1);
    let bob = kms.create_tenant_key(BOB).unwrap().id;
    let wrapped = wrap(&kms, BOB, bob);
    // As if a bug had let it into the list of free ones.
    lock(&kms.writer).free_slots.push(0);
    assert_eq!(kind(kms.create_tenant_key(ADA)), Some(ErrorKind::Corrupt));
    open(&kms, BOB, bob, &wrapped).unwrap();
    // What a crash left between slot and journal is written over.
    kms.create_tenant_key(ADA).unwrap();
    let next = lock(&kms.writer).next_slot;
    let slots = fs::File::options().write(true).open(dir.path().join("keys/slots.1")).unwrap();
    slots.write_all_at(&[9; 96], u64::from(next + 1) * 4096).unwrap();
    kms.create_tenant_key(ADA).unwrap();
}

/// A store that does not seal while it is told not to.
struct Moody {
    inner: Arc<dyn KeyStore>,
    is_down: Arc<AtomicBool>,
}

impl KeyStore for Moody {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn seal_root(&self, root_key: &RootKey, context: &EncryptionContext) -> Result<Vec<u8>> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "seal a root key"));
        }
        self.inner.seal_root(root_key, context)
    }

    fn unseal_root(&self, sealed: &[u8], context: &EncryptionContext) -> Result<RootKey> {
        self.inner.unseal_root(sealed, context)
    }

    fn share(&self) -> Result<Arc<dyn KeyStore>> {
        Ok(Arc::new(Self { inner: self.inner.share()?, is_down: Arc::clone(&self.is_down) }))
    }

    fn health(&self) -> Result<()> {
        self.inner.health()
    }
}

#[test]
fn an_epoch_that_is_given_up_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::seeded(1, 1_700_000_000_000);
    let store = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
    let is_down = Arc::new(AtomicBool::new(false));
    let moody = Moody { inner: store.share().unwrap(), is_down: Arc::clone(&is_down) };
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let kms = Kms::create(&data, &moody, env.clone()).unwrap();
    let bob = kms.create_tenant_key(BOB).unwrap().id;
    let wrapped = wrap(&kms, BOB, bob);
    let set = |value: Option<&[u8]>| {
        let change = (b"a/again".to_vec(), value.map(<[u8]>::to_vec));
        kms.set_entries(&purpose(BOB), None, vec![change]).unwrap();
    };
    set(Some(b"1"));
    set(None);
    is_down.store(true, Ordering::SeqCst);
    assert_eq!(kind(kms.reseal(&[])), Some(ErrorKind::Unavailable));
    // The journal still holds that the name was deleted: it goes on from there.
    set(Some(b"2"));
    set(None);
    is_down.store(false, Ordering::SeqCst);
    kms.reseal(&[]).unwrap();
    set(Some(b"3"));
    drop(kms);
    let kms = Kms::open(&data, &moody, env).unwrap();
    assert_eq!(&*kms.entry_value(BOB, b"a/again").unwrap(), b"3");
    open(&kms, BOB, bob, &wrapped).unwrap();
}

#[test]
fn a_damaged_material_is_lost_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env) = kms(dir.path(), 1);
    let audit = Arc::new(TestAudit::default());
    let kms = kms.with_audit(Arc::clone(&audit) as Arc<dyn crate::AuditSink>);
    let (bob, ada) =
        (kms.create_tenant_key(BOB).unwrap().id, kms.create_tenant_key(ADA).unwrap().id);
    let first = wrap(&kms, BOB, bob);
    kms.rotate(&purpose(BOB), bob).unwrap();
    let (second, adas) = (wrap(&kms, BOB, bob), wrap(&kms, ADA, ada));
    let slots = fs::File::options().write(true).open(dir.path().join("keys/slots.1")).unwrap();
    slots.write_all_at(&[9], 4096 + 40).unwrap();
    assert_eq!(kind(open(&kms, BOB, bob, &first)), Some(ErrorKind::Corrupt));
    audit.events.lock().unwrap().clear();
    kms.reseal(&[]).unwrap();
    let events = audit.events.lock().unwrap().clone();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].operation, events[0].tenant), (AuditOperation::LoseMaterial, BOB));
    assert_eq!((events[0].tenant_key, events[0].access.material), (Some(bob), Some(1)));
    let check = |kms: &Kms| {
        assert_eq!(kind(open(kms, BOB, bob, &first)), Some(ErrorKind::Corrupt));
        open(kms, BOB, bob, &second).unwrap();
        open(kms, ADA, ada, &adas).unwrap();
    };
    check(&kms);
    kms.reseal(&[]).unwrap();
    drop(kms);
    check(&Kms::open(dir.path(), &store, env).unwrap());
}
