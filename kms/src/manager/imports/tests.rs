//! Import: what is taken, what is refused and by which name, and how material goes again.

use std::sync::Arc;

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

use super::super::{MaterialState, TenantKeyInfo, write};
use super::*;
use crate::api_ciphertext::ApiCiphertext;
use crate::env::{Env, ManualClock};
use crate::fixtures::{flip, purpose, ramp, timed_kms};
use crate::gate::{Access, KeyUse};
use crate::store::MemoryStore;
use crate::types::{EncryptionContext, TenantId};

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);
const HOUR_MS: u64 = 60 * 60 * 1000;
const OAEP: ImportAlgorithm = ImportAlgorithm::RsaOaepSha256;

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn oaep(public_key: &[u8], plain: &[u8]) -> Vec<u8> {
    let key = PublicEncryptingKey::from_der(public_key).unwrap();
    let key = OaepPublicEncryptingKey::new(key).unwrap();
    let mut block = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, plain, &mut block, None).unwrap();
    block
}

struct Scene {
    dir: tempfile::TempDir,
    kms: Kms,
    store: MemoryStore,
    env: Env,
    clock: Arc<ManualClock>,
    id: TenantKeyId,
    parameters: ImportParameters,
}

/// An imported key without material, and parameters for it.
fn scene(algorithm: ImportAlgorithm) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env, clock) = timed_kms(dir.path(), 1);
    let info = kms.create_key(&purpose(ADA), KeyOrigin::Imported).unwrap();
    assert_eq!((info.state, info.current_material), (KeyState::PendingImport, 0));
    assert!(!info.is_default);
    let parameters = kms.import_parameters(&purpose(ADA), info.id, algorithm, 2048).unwrap();
    Scene { dir, kms, store, env, clock, id: info.id, parameters }
}

impl Scene {
    fn import(&self, first: u8, request: ImportRequest) -> Result<MaterialInfo> {
        let encrypted = oaep(&self.parameters.public_key, &ramp::<32>(first));
        let token = &self.parameters.token;
        self.kms.import_material(&purpose(ADA), self.id, token, &encrypted, request)
    }

    fn info(&self) -> TenantKeyInfo {
        self.kms.describe(ADA, self.id).unwrap()
    }

    fn encrypt(&self) -> Result<ApiCiphertext> {
        let permit = self.kms.permit(&purpose(ADA), self.id, Access::direct(KeyUse::Write))?;
        let blob = self.kms.encrypt(&permit, b"plain", &EncryptionContext::new())?;
        ApiCiphertext::parse(&blob)
    }

    fn decrypt(&self, blob: &ApiCiphertext) -> Result<()> {
        let permit = self.kms.permit(&purpose(ADA), self.id, Access::direct(KeyUse::Read))?;
        self.kms.decrypt(&permit, blob, &EncryptionContext::new()).map(drop)
    }
}

fn new() -> ImportRequest {
    ImportRequest { is_new: true, ..ImportRequest::default() }
}

#[test]
fn material_comes_goes_and_comes_back_as_itself_only() {
    let scene = scene(OAEP);
    assert_eq!(kind(scene.encrypt()), Some(ErrorKind::KeyUnusable));
    let request = ImportRequest { description: Some("from the safe".into()), ..new() };
    let info = scene.import(1, request).unwrap();
    assert_eq!((info.number, info.state), (1, MaterialState::Current));
    assert_eq!(scene.info().materials, std::slice::from_ref(&info));
    let blob = scene.encrypt().unwrap();
    let incorrect = Some(ErrorKind::IncorrectMaterial);
    assert_eq!(kind(scene.import(2, ImportRequest::default())), incorrect, "another material");
    assert_eq!(kind(scene.import(1, new())), incorrect, "known, and called new");
    let wrong_id = ImportRequest { material_id: Some([9; 32]), ..ImportRequest::default() };
    assert_eq!(kind(scene.import(1, wrong_id)), incorrect);
    let who = purpose(ADA);
    let absent = scene.kms.delete_imported_material(&who, scene.id, Some([9; 32]));
    assert_eq!(kind(absent), Some(ErrorKind::NotFound));
    scene.kms.delete_imported_material(&who, scene.id, Some(info.id)).unwrap();
    scene.kms.delete_imported_material(&who, scene.id, None).unwrap();
    assert_eq!(scene.info().state, KeyState::PendingImport);
    assert_eq!(scene.info().materials[0].state, MaterialState::PendingImport);
    assert_eq!(kind(scene.decrypt(&blob)), Some(ErrorKind::KeyUnusable));
    let slots = std::fs::read(scene.dir.path().join("keys/slots.1")).unwrap();
    assert!(slots[4096..].iter().all(|byte| *byte == 0), "the slot is erased");
    assert_eq!(kind(scene.import(2, ImportRequest::default())), incorrect);
    scene.import(1, ImportRequest::default()).unwrap();
    assert_eq!(scene.info().materials[0].description.as_deref(), None);
    scene.decrypt(&blob).unwrap();
    assert_eq!(kind(scene.kms.enable(&who, scene.id)), None);
}

#[test]
fn a_wrapped_aes_key_may_carry_the_material() {
    let scene = scene(ImportAlgorithm::RsaAesKeyWrapSha256);
    let aes_key: [u8; 32] = ramp(0x55);
    let encrypted = |material: &[u8]| {
        let mut wrapped = vec![0; material.len() + 16];
        let kek = AesKek::new(&AES_256, &aes_key).unwrap();
        let length = kek.wrap_with_padding(material, &mut wrapped).unwrap().len();
        [oaep(&scene.parameters.public_key, &aes_key).as_slice(), &wrapped[..length]].concat()
    };
    let import = |bytes: &[u8]| {
        let token = &scene.parameters.token;
        scene.kms.import_material(&purpose(ADA), scene.id, token, bytes, new())
    };
    for length in [1, 16, 31, 33, 64] {
        let wrong = import(&encrypted(&vec![7; length]));
        assert_eq!(kind(wrong), Some(ErrorKind::IncorrectMaterial), "{length} bytes");
    }
    let good = encrypted(&ramp::<32>(1));
    for place in [0, 200, 256, good.len() - 1] {
        let mut damaged = good.clone();
        damaged[place] ^= 1;
        assert_eq!(kind(import(&damaged)), Some(ErrorKind::InvalidCiphertext));
    }
    for length in [0, 255, 256, good.len() - 1] {
        assert_eq!(kind(import(&good[..length])), Some(ErrorKind::InvalidCiphertext));
    }
    assert_eq!(scene.info().state, KeyState::PendingImport, "nothing changed so far");
    import(&good).unwrap();
    scene.encrypt().unwrap();
}

#[test]
fn tokens_are_for_one_key_and_one_day() {
    let scene = scene(OAEP);
    let who = purpose(ADA);
    let encrypted = oaep(&scene.parameters.public_key, &ramp::<32>(1));
    let import =
        |id, token: &[u8]| kind(scene.kms.import_material(&who, id, token, &encrypted, new()));
    let token = &scene.parameters.token;
    let other = scene.kms.create_key(&who, KeyOrigin::Imported).unwrap().id;
    let not_ours = Some(ErrorKind::ImportToken);
    assert_eq!(import(other, token), not_ours);
    for bit in (0..token.len() * 8).step_by(97) {
        let mut damaged = token.clone();
        flip(&mut damaged, bit);
        assert_eq!(import(scene.id, &damaged), not_ours);
    }
    for length in [0, 1, 13, 28, token.len() - 1] {
        assert_eq!(import(scene.id, &token[..length]), not_ours);
    }
    // Another key pair's token is genuine, and its private key does not fit.
    let second = scene.kms.import_parameters(&who, scene.id, OAEP, 2048).unwrap();
    assert_eq!(import(scene.id, &second.token), Some(ErrorKind::InvalidCiphertext));
    scene.clock.advance_ms(24 * HOUR_MS);
    assert_eq!(import(scene.id, token), Some(ErrorKind::ImportExpired));
    let local = scene.kms.create_tenant_key(ADA).unwrap().id;
    let unsupported = Some(ErrorKind::Unsupported);
    assert_eq!(import(local, token), unsupported);
    assert_eq!(kind(scene.kms.import_parameters(&who, local, OAEP, 2048)), unsupported);
    assert_eq!(kind(scene.kms.delete_imported_material(&who, local, None)), unsupported);
    let size = scene.kms.import_parameters(&who, scene.id, OAEP, 1024);
    assert_eq!(kind(size), Some(ErrorKind::Misuse));
}

#[test]
fn a_token_outlives_a_restart() {
    let Scene { dir, kms, store, env, id, parameters, .. } = scene(OAEP);
    drop(kms);
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    let encrypted = oaep(&parameters.public_key, &ramp::<32>(1));
    let token = &parameters.token;
    kms.import_material(&purpose(ADA), id, token, &encrypted, new()).unwrap();
}

#[test]
fn expired_material_does_not_serve_and_is_erased() {
    let scene = scene(OAEP);
    let expires_ms = scene.env.clock.now_ms() + HOUR_MS;
    let request = ImportRequest { expires_ms: Some(expires_ms), ..new() };
    scene.import(1, request.clone()).unwrap();
    let blob = scene.encrypt().unwrap();
    assert!(scene.kms.run_due().unwrap().is_empty());
    scene.clock.advance_ms(HOUR_MS);
    let unusable = Some(ErrorKind::KeyUnusable);
    assert_eq!(kind(scene.decrypt(&blob)), unusable, "before it is erased");
    assert_eq!(scene.info().state, KeyState::Enabled);
    assert_eq!(scene.kms.run_due().unwrap(), [(ADA, scene.id)]);
    assert_eq!(scene.info().state, KeyState::PendingImport);
    assert_eq!(kind(scene.decrypt(&blob)), unusable);
    assert!(scene.kms.run_due().unwrap().is_empty());
    let past = scene.import(1, request);
    assert_eq!(kind(past), Some(ErrorKind::Misuse), "an expiry that is past");
    scene.import(1, ImportRequest::default()).unwrap();
    scene.decrypt(&blob).unwrap();
}

#[test]
fn a_new_material_waits_for_the_rotation() {
    let scene = scene(OAEP);
    let who = purpose(ADA);
    let first = scene.import(1, new()).unwrap();
    let old = scene.encrypt().unwrap();
    let conflict = Some(ErrorKind::Conflict);
    assert_eq!(kind(scene.kms.rotate(&who, scene.id)), conflict, "nothing waits");
    let second = scene.import(2, new()).unwrap();
    assert_eq!((second.number, second.state), (2, MaterialState::PendingRotation));
    assert_eq!(kind(scene.import(3, new())), conflict, "one waits already");
    assert_eq!(scene.encrypt().unwrap().material(), 1);
    // One that waits goes without the key, and another may take its place.
    scene.kms.delete_imported_material(&who, scene.id, Some(second.id)).unwrap();
    assert_eq!(scene.info().state, KeyState::Enabled);
    assert_eq!(kind(scene.kms.rotate(&who, scene.id)), conflict);
    assert_eq!(scene.import(3, new()).unwrap().number, 2);
    assert_eq!(scene.kms.rotate(&who, scene.id).unwrap().current_material, 2);
    assert_eq!(scene.encrypt().unwrap().material(), 2);
    scene.decrypt(&old).unwrap();
    // Without the older one the key does not work.
    scene.kms.delete_imported_material(&who, scene.id, Some(first.id)).unwrap();
    assert_eq!(kind(scene.encrypt()), Some(ErrorKind::KeyUnusable));
    let unsupported = scene.kms.set_rotation(&who, scene.id, Some(90));
    assert_eq!(kind(unsupported), Some(ErrorKind::Unsupported));
    // Neither after its deletion was called off.
    scene.kms.schedule_deletion(&who, scene.id, 7).unwrap();
    assert_eq!(kind(scene.import(1, ImportRequest::default())), conflict);
    scene.kms.cancel_deletion(&who, scene.id).unwrap();
    assert_eq!(scene.info().state, KeyState::PendingImport);
    scene.import(1, ImportRequest::default()).unwrap();
    scene.decrypt(&old).unwrap();
}

/// A scene with material whose deletion found a disk that cannot be written.
fn half_deleted() -> (Scene, std::fs::File) {
    let scene = scene(OAEP);
    scene.import(1, new()).unwrap();
    let read_only = std::fs::File::open(scene.dir.path().join("keys/slots.1")).unwrap();
    let writable = write(&scene.kms.vault).slots.swap_file(read_only);
    let deleted = scene.kms.delete_imported_material(&purpose(ADA), scene.id, None);
    assert_eq!(kind(deleted), Some(ErrorKind::Unavailable));
    assert_eq!(scene.info().state, KeyState::PendingImport);
    assert!(!is_erased(&scene));
    // Asked again while the disk still fails: no success is told.
    let again = scene.kms.delete_imported_material(&purpose(ADA), scene.id, None);
    assert_eq!(kind(again), Some(ErrorKind::Unavailable));
    assert_eq!(kind(scene.import(1, ImportRequest::default())), Some(ErrorKind::Unavailable));
    (scene, writable)
}

fn is_erased(scene: &Scene) -> bool {
    let slots = std::fs::read(scene.dir.path().join("keys/slots.1")).unwrap();
    slots[4096..8192].iter().all(|byte| *byte == 0)
}

#[test]
fn a_deletion_that_failed_is_done_when_it_is_asked_for_again() {
    let (scene, writable) = half_deleted();
    write(&scene.kms.vault).slots.swap_file(writable);
    scene.kms.delete_imported_material(&purpose(ADA), scene.id, None).unwrap();
    assert!(is_erased(&scene));
    scene.import(1, ImportRequest::default()).unwrap();
    scene.encrypt().unwrap();
}

#[test]
fn a_deletion_that_failed_is_done_by_the_clock_or_before_material_comes_back() {
    let (scene, writable) = half_deleted();
    write(&scene.kms.vault).slots.swap_file(writable);
    assert_eq!(scene.kms.run_due().unwrap(), [(ADA, scene.id)]);
    assert!(is_erased(&scene));
    let (scene, writable) = half_deleted();
    write(&scene.kms.vault).slots.swap_file(writable);
    // It takes the slot that was freed: nothing of the old secret is left anywhere.
    scene.import(1, ImportRequest::default()).unwrap();
    let slots = scene.kms.entry(ADA, scene.id).unwrap().record();
    assert_eq!(slots.materials[0].slot, Some(0));
}
