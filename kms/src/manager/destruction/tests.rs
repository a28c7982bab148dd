//! Destruction: its order, its proof, a crash at every step, and what old copies can do.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::super::Vault;
use super::*;
use crate::bucket_key::{BucketKeyPurpose, BucketKeyScope};
use crate::env::{Env, ManualClock};
use crate::fixtures::{TestAudit, copy_dir, purpose, ramp, timed_kms};
use crate::gate::{Access, KeyUse};
use crate::keyring::RootFile;
use crate::secret::RootKey;
use crate::slots::SlotFile;
use crate::store::{Capabilities, KeyStore, MemoryStore};
use crate::wrap::WrappedKey;

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);
const BOB: TenantId = TenantId::from_bytes([0xb0; 16]);
const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1000;

fn scope() -> BucketKeyScope {
    BucketKeyScope { bucket: ramp(0x20), epoch: 1, purpose: BucketKeyPurpose::Data }
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn wrap(kms: &Kms, tenant: TenantId, id: TenantKeyId) -> WrappedKey {
    let permit = kms.permit(&purpose(tenant), id, Access::direct(KeyUse::Write)).unwrap();
    kms.create_bucket_key(&permit, &scope()).unwrap().2
}

fn unwrap(kms: &Kms, tenant: TenantId, id: TenantKeyId, wrapped: &WrappedKey) -> Result<()> {
    let permit = kms.permit(&purpose(tenant), id, Access::direct(KeyUse::Read))?;
    kms.unwrap_bucket_key(&permit, wrapped, &scope()).map(drop)
}

/// Ada's key with two materials, due for destruction; Bob's beside it.
struct Scene {
    dir: tempfile::TempDir,
    kms: Kms,
    store: MemoryStore,
    env: Env,
    clock: Arc<ManualClock>,
    ada: TenantKeyId,
    bob: TenantKeyId,
    wraps: [WrappedKey; 3],
    /// The directory before the deletion was scheduled.
    before: tempfile::TempDir,
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env, clock) = timed_kms(dir.path(), 1);
    let ada = kms.create_tenant_key(ADA).unwrap().id;
    let bob = kms.create_tenant_key(BOB).unwrap().id;
    let first = wrap(&kms, ADA, ada);
    kms.rotate(&purpose(ADA), ada).unwrap();
    let wraps = [first, wrap(&kms, ADA, ada), wrap(&kms, BOB, bob)];
    kms.set_entries(&purpose(BOB), None, vec![(b"a/x".to_vec(), Some(b"1".to_vec()))]).unwrap();
    let before = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), before.path());
    kms.schedule_deletion(&purpose(ADA), ada, 7).unwrap();
    clock.advance_ms(WEEK_MS);
    Scene { dir, kms, store, env, clock, ada, bob, wraps, before }
}

/// Goes on from wherever the destruction is, and checks its end.
#[track_caller]
fn finish(kms: &Kms, scene: &Scene, place: &str) {
    let is_done = kms.describe(ADA, scene.ada).unwrap().state == KeyState::Destroyed;
    assert_eq!(kms.due_destructions().is_empty(), is_done, "{place}");
    kms.begin_destruction(ADA, scene.ada).unwrap();
    let evidence = kms.erase_materials(ADA, scene.ada).unwrap();
    assert_eq!((evidence.materials, evidence.canaries_refused), (2, 2), "{place}");
    assert_eq!(evidence.epochs, (1, 2), "{place}");
    kms.finish_destruction(ADA, scene.ada).unwrap();
    let destroyed = Some(ErrorKind::KeyDestroyed);
    for wrapped in &scene.wraps[..2] {
        assert_eq!(kind(unwrap(kms, ADA, scene.ada, wrapped)), destroyed, "{place}");
    }
    unwrap(kms, BOB, scene.bob, &scene.wraps[2]).unwrap();
    assert_eq!(&*kms.entry_value(BOB, b"a/x").unwrap(), b"1", "{place}");
    assert_eq!(kms.erase_materials(ADA, scene.ada).unwrap(), evidence, "repeatable at {place}");
}

#[test]
fn a_destruction_goes_step_by_step() {
    let scene = scene();
    let (kms, id) = (&scene.kms, scene.ada);
    let conflict = Some(ErrorKind::Conflict);
    assert_eq!(kind(kms.erase_materials(ADA, id)), conflict);
    assert_eq!(kind(kms.finish_destruction(ADA, id)), conflict);
    assert_eq!(kms.due_destructions(), [(ADA, id)]);
    kms.begin_destruction(ADA, id).unwrap();
    assert_eq!(kind(kms.cancel_deletion(&purpose(ADA), id)), conflict);
    assert_eq!(kind(kms.finish_destruction(ADA, id)), conflict);
    assert_eq!(kind(kms.begin_destruction(BOB, id)), Some(ErrorKind::NotFound));
    let aad = EncryptionContext::new();
    let credential = kms.seal_credential(BOB, &aad, b"secret").unwrap();
    let mac = kms.root_mac("audit", b"entry");
    finish(kms, &scene, "the running node");
    let info = kms.describe(ADA, id).unwrap();
    assert_eq!(
        (info.state, info.current_material, info.deletion_ms),
        (KeyState::Destroyed, 0, None)
    );
    let who = purpose(ADA);
    let destroyed = Some(ErrorKind::KeyDestroyed);
    assert_eq!(kind(kms.enable(&who, id)), destroyed);
    assert_eq!(kind(kms.rotate(&who, id)), destroyed);
    assert_eq!(kind(kms.schedule_deletion(&who, id, 7)), destroyed);
    // What hangs off the node's secret outlives the epoch.
    assert_eq!(kms.open_credential(BOB, &aad, &credential).unwrap().as_slice(), b"secret");
    assert_eq!(kms.root_mac("audit", b"entry"), mac);
    let next = wrap(kms, BOB, scene.bob);
    let keys = scene.dir.path().join("keys");
    let mut names: Vec<_> = fs::read_dir(&keys)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["keyring.2", "root.sealed", "slots.2"]);
    let Scene { dir, kms, store, env, bob, .. } = scene;
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    assert_eq!(kms.describe(ADA, id).unwrap(), info);
    assert_eq!(kms.root_mac("audit", b"entry"), mac);
    unwrap(&kms, BOB, bob, &next).unwrap();
}

#[test]
fn nothing_is_destroyed_before_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, _, _, clock) = timed_kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    let conflict = Some(ErrorKind::Conflict);
    assert_eq!(kind(kms.begin_destruction(ADA, id)), conflict);
    for days in [0, 6, 31] {
        assert_eq!(kind(kms.schedule_deletion(&purpose(ADA), id, days)), Some(ErrorKind::Misuse));
    }
    let due_ms = kms.schedule_deletion(&purpose(ADA), id, 7).unwrap();
    assert_eq!(due_ms, 1_700_000_000_000 + WEEK_MS);
    clock.advance_ms(WEEK_MS - 1);
    assert!(kms.due_destructions().is_empty());
    assert_eq!(kind(kms.begin_destruction(ADA, id)), conflict);
    clock.advance_ms(1);
    kms.begin_destruction(ADA, id).unwrap();
}

/// Copies the data directory whenever it seals, which is just before an epoch is committed.
struct CopyingStore {
    inner: Arc<dyn KeyStore>,
    copy: Arc<dyn Fn(&str) + Send + Sync>,
}

impl KeyStore for CopyingStore {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn seal_root(&self, root_key: &RootKey, context: &EncryptionContext) -> Result<Vec<u8>> {
        (self.copy)("seal");
        self.inner.seal_root(root_key, context)
    }

    fn unseal_root(&self, sealed: &[u8], context: &EncryptionContext) -> Result<RootKey> {
        self.inner.unseal_root(sealed, context)
    }

    fn share(&self) -> Result<Arc<dyn KeyStore>> {
        Ok(Arc::new(Self { inner: self.inner.share()?, copy: Arc::clone(&self.copy) }))
    }

    fn health(&self) -> Result<()> {
        self.inner.health()
    }
}

#[test]
fn a_crash_at_every_step_resumes() {
    let mut scene = scene();
    let copies: Arc<Mutex<Vec<(String, tempfile::TempDir)>>> = Arc::default();
    let copy: Arc<dyn Fn(&str) + Send + Sync> = {
        let (copies, from) = (Arc::clone(&copies), scene.dir.path().to_owned());
        Arc::new(move |place| {
            let to = tempfile::tempdir().unwrap();
            copy_dir(&from, to.path());
            let mut copies = copies.lock().unwrap();
            let place = format!("{place} {}", copies.len());
            copies.push((place, to));
        })
    };
    let hook = Arc::clone(&copy);
    let audit = TestAudit { hook: Some(Box::new(move || hook("event"))), ..TestAudit::default() };
    // The same keyring, with a store and a trail that copy.
    let inner: Arc<dyn KeyStore> = scene.store.share().unwrap();
    let stand_in = tempfile::tempdir().unwrap();
    scene.kms = timed_kms(stand_in.path(), 9).0;
    let copying = CopyingStore { inner, copy: Arc::clone(&copy) };
    let kms = Kms::open(scene.dir.path(), &copying, scene.env.clone()).unwrap();
    let kms = kms.with_audit(Arc::new(audit));
    kms.begin_destruction(ADA, scene.ada).unwrap();
    copy("begun");
    kms.erase_materials(ADA, scene.ada).unwrap();
    copy("erased");
    let root = fs::read(scene.dir.path().join("keys/root.sealed")).unwrap();
    kms.finish_destruction(ADA, scene.ada).unwrap();
    copy("finished");
    drop(kms);
    let copies = std::mem::take(&mut *copies.lock().unwrap());
    assert!(copies.len() >= 10, "{} places", copies.len());
    let mut places = 0;
    for (place, dir) in &copies {
        // Both sides of the commit point: the files as they were, and with the new root file.
        let is_seal = place.starts_with("seal");
        for is_committed in [false, true] {
            if is_committed && !is_seal {
                continue;
            }
            let again = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), again.path());
            if is_committed {
                fs::write(again.path().join("keys/root.sealed"), &root).unwrap();
            }
            let kms = Kms::open(again.path(), &scene.store, scene.env.clone()).unwrap();
            unwrap(&kms, BOB, scene.bob, &scene.wraps[2]).unwrap();
            finish(&kms, &scene, place);
            drop(kms);
            let kms = Kms::open(again.path(), &scene.store, scene.env.clone()).unwrap();
            finish(&kms, &scene, place);
            places += 1;
        }
    }
    println!("resumed from {places} places");
}

fn files(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let keys = dir.join("keys");
    (keys.join("root.sealed"), keys.join("keyring.1"), keys.join("slots.1"))
}

#[test]
fn an_old_copy_does_not_revive_a_key_under_the_new_root() {
    let scene = scene();
    finish(&scene.kms, &scene, "the running node");
    let root = fs::read(scene.dir.path().join("keys/root.sealed")).unwrap();
    for renamed in [false, true] {
        let old = tempfile::tempdir().unwrap();
        copy_dir(scene.before.path(), old.path());
        let (root_path, keyring, slots) = files(old.path());
        fs::write(root_path, &root).unwrap();
        if renamed {
            fs::rename(&keyring, keyring.with_extension("2")).unwrap();
            fs::rename(&slots, slots.with_extension("2")).unwrap();
        }
        let opened = Kms::open(old.path(), &scene.store, scene.env.clone());
        let want = if renamed { ErrorKind::Corrupt } else { ErrorKind::Unavailable };
        assert_eq!(kind(opened), Some(want));
    }
    // And no check aside: the old slots and wraps under the new root key.
    let old = tempfile::tempdir().unwrap();
    copy_dir(scene.before.path(), old.path());
    let before = Kms::open(old.path(), &scene.store, scene.env.clone()).unwrap();
    let record = before.entry(ADA, scene.ada).unwrap().record();
    let (_, _, slots) = files(old.path());
    let root_file = RootFile::read(&scene.dir.path().join("keys/root.sealed")).unwrap();
    let identity = (root_file.keyring_id, root_file.epoch);
    let context = super::super::root_context(identity).unwrap();
    let vault = Vault {
        root_key: scene.store.unseal_root(&root_file.sealed, &context).unwrap(),
        epoch: 2,
        keyring_id: root_file.keyring_id,
        slots: SlotFile::open(&slots, root_file.keyring_id, &before.mac_key).unwrap(),
    };
    for held in &record.materials {
        assert_eq!(kind(vault.open(&record, held, &before.mac_key)), Some(ErrorKind::Corrupt));
    }
}

#[test]
fn an_old_copy_of_everything_revives_a_key_as_the_assurance_says() {
    let scene = scene();
    finish(&scene.kms, &scene, "the running node");
    let assurance = scene.kms.capabilities().erasure_assurance;
    assert_eq!(assurance, ErasureAssurance::OverwriteBestEffort);
    let old = Kms::open(scene.before.path(), &scene.store, scene.env.clone()).unwrap();
    assert!(unwrap(&old, ADA, scene.ada, &scene.wraps[0]).is_ok());
    scene.clock.advance_ms(1);
}

#[test]
fn destructions_of_two_keys_may_overlap() {
    let scene = scene();
    let kms = &scene.kms;
    kms.schedule_deletion(&purpose(BOB), scene.bob, 7).unwrap();
    scene.clock.advance_ms(WEEK_MS);
    kms.begin_destruction(ADA, scene.ada).unwrap();
    kms.begin_destruction(BOB, scene.bob).unwrap();
    // Bob's slots are erased, and a crash comes before his epoch.
    kms.erase_slots(&kms.entry(BOB, scene.bob).unwrap()).unwrap();
    assert_eq!(kms.erase_materials(ADA, scene.ada).unwrap().epochs, (1, 2));
    let evidence = kms.erase_materials(BOB, scene.bob).unwrap();
    assert_eq!((evidence.epochs, evidence.canaries_refused), ((1, 2), 1));
    kms.finish_destruction(BOB, scene.bob).unwrap();
    kms.finish_destruction(ADA, scene.ada).unwrap();
}

/// The canaries of a destruction that has begun, tried now.
fn tried(scene: &Scene) -> Result<u32> {
    scene.kms.refuse_canaries(&scene.kms.entry(ADA, scene.ada).unwrap())
}

#[test]
fn a_canary_is_refused_because_of_an_erased_slot_and_for_no_other_reason() {
    let scene = scene();
    let (kms, path) = (&scene.kms, scene.dir.path().join("keys/slots.1"));
    kms.begin_destruction(ADA, scene.ada).unwrap();
    let corrupt = Some(ErrorKind::Corrupt);
    let error = tried(&scene).unwrap_err();
    assert!(error.to_string().contains("a canary still opens"), "{error}");
    // A disk that does not answer proves nothing.
    let unreadable = fs::File::options().write(true).open(&path).unwrap();
    let readable = super::super::write(&kms.vault).slots.swap_file(unreadable);
    assert_eq!(kind(tried(&scene)), Some(ErrorKind::Unavailable));
    assert_eq!(kind(kms.erase_materials(ADA, scene.ada)), Some(ErrorKind::Unavailable));
    super::super::write(&kms.vault).slots.swap_file(readable);
    // Nor does a slot that is damaged and may still be read by someone.
    let slots = fs::read(&path).unwrap();
    let mut damaged = vec![0; slots.len()];
    damaged[4096 + 40] = 1;
    fs::write(&path, &damaged).unwrap();
    assert_eq!(kind(tried(&scene)), corrupt);
    fs::write(&path, vec![0; slots.len()]).unwrap();
    assert_eq!(tried(&scene).unwrap(), 2);
}

#[test]
fn a_wrap_that_opens_after_its_epoch_is_no_proof() {
    let scene = scene();
    let kms = &scene.kms;
    kms.begin_destruction(ADA, scene.ada).unwrap();
    let entry = kms.entry(ADA, scene.ada).unwrap();
    kms.erase_slots(&entry).unwrap();
    kms.reseal(&[scene.ada]).unwrap();
    assert_eq!(tried(&scene).unwrap(), 2);
    // As if what is left were enough: a wrap under the new root key and an erased slot.
    let record = entry.record();
    let kept = {
        let vault = read(&kms.vault);
        let kek = crate::derive::extract(&[0; 32], vault.root_key.borrow().as_slice());
        let header = crate::wrap::WrapHeader {
            kind: crate::wrap::WrapKind::TenantKey,
            wrapping_key_id: vault.keyring_id,
            wrapping_version: vault.epoch,
        };
        let digest = crate::types::context_digest(&[
            (b"k", record.id.as_bytes()),
            (b"o", &[record.origin.code()]),
            (b"t", record.tenant.as_bytes()),
        ]);
        crate::wrap::wrap(&kek, header, &digest, (&[5; 32], &*kms.env.rng))
    };
    kms.change(&entry, |changed, _| {
        changed.destruction.as_mut().unwrap().canaries[1].wrapped = kept;
        Ok(())
    })
    .unwrap();
    let error = kms.erase_materials(ADA, scene.ada).unwrap_err();
    assert!(error.to_string().contains("its wrap still opens"), "{error}");
    assert_eq!(kind(kms.finish_destruction(ADA, scene.ada)), Some(ErrorKind::Conflict));
}

#[test]
fn keys_that_are_due_together_go_with_one_epoch() {
    let scene = scene();
    let kms = &scene.kms;
    let more: Vec<_> =
        kms.create_tenant_keys(&[BOB; 5]).unwrap().iter().map(|info| info.id).collect();
    for id in &more {
        kms.schedule_deletion(&purpose(BOB), *id, 7).unwrap();
    }
    scene.clock.advance_ms(WEEK_MS);
    assert!(kms.run_due().unwrap().is_empty());
    let conflict = Some(ErrorKind::Conflict);
    assert_eq!(kind(kms.cancel_deletion(&purpose(BOB), more[0])), conflict, "it has begun");
    finish(kms, &scene, "together");
    for id in more {
        let evidence = kms.erase_materials(BOB, id).unwrap();
        assert_eq!((evidence.epochs, evidence.canaries_refused), ((1, 2), 1));
        kms.finish_destruction(BOB, id).unwrap();
    }
    assert_eq!(read(&kms.vault).epoch, 2);
}

#[test]
fn only_an_older_material_retires_and_its_slot_serves_again() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env, _) = timed_kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    let who = purpose(ADA);
    let old = wrap(&kms, ADA, id);
    assert_eq!(kind(kms.retire_material(&who, id, 1)), Some(ErrorKind::Conflict));
    assert_eq!(kind(kms.retire_material(&who, id, 2)), Some(ErrorKind::NotFound));
    kms.rotate(&who, id).unwrap();
    let new = wrap(&kms, ADA, id);
    kms.retire_material(&who, id, 1).unwrap();
    kms.retire_material(&who, id, 1).unwrap();
    let slots = fs::read(dir.path().join("keys/slots.1")).unwrap();
    assert!(slots[4096..8192].iter().all(|byte| *byte == 0), "slot 0 is erased");
    let destroyed = Some(ErrorKind::KeyDestroyed);
    assert_eq!(kind(unwrap(&kms, ADA, id, &old)), destroyed);
    let next = kms.create_tenant_key(ADA).unwrap().id;
    let slot = kms.entry(ADA, next).unwrap().record().materials[0].slot;
    assert_eq!(slot, Some(0), "the slot is free again");
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    let states: Vec<_> =
        kms.describe(ADA, id).unwrap().materials.iter().map(|held| held.state).collect();
    assert_eq!(
        states,
        [super::super::MaterialState::Retired, super::super::MaterialState::Current]
    );
    assert_eq!(kind(unwrap(&kms, ADA, id, &old)), destroyed);
    unwrap(&kms, ADA, id, &new).unwrap();
    wrap(&kms, ADA, next);
}
