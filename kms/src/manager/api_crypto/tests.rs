//! The API's cryptography through the manager, and its counters over crashes.

use super::*;
use crate::fixtures::{kms, purpose};
use crate::gate::{Access, KeyUse};

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);

fn context(value: &[u8]) -> EncryptionContext {
    EncryptionContext::new().with(b"purpose", value).unwrap()
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn what_is_encrypted_opens_under_every_later_material() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env) = kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    let other = kms.create_tenant_key(ADA).unwrap().id;
    let permit = kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write)).unwrap();
    let blob = kms.encrypt(&permit, b"plain", &context(b"x")).unwrap();
    kms.rotate(&purpose(ADA), id).unwrap();
    let (plain, new) = kms.generate_data_key(&permit, 1024, &context(b"x")).unwrap();
    let parse = |blob: &[u8]| ApiCiphertext::parse(blob).unwrap();
    assert_eq!((parse(&blob).material(), parse(&new).material()), (1, 2));
    drop((permit, kms));
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    let permit = kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Read)).unwrap();
    assert_eq!(*kms.decrypt(&permit, &parse(&blob), &context(b"x")).unwrap(), b"plain");
    assert_eq!(*kms.decrypt(&permit, &parse(&new), &context(b"x")).unwrap(), *plain);
    let invalid = Some(ErrorKind::InvalidCiphertext);
    assert_eq!(kind(kms.decrypt(&permit, &parse(&blob), &context(b"y"))), invalid);
    let foreign = kms.permit(&purpose(ADA), other, Access::direct(KeyUse::Read)).unwrap();
    assert_eq!(kind(kms.decrypt(&foreign, &parse(&blob), &context(b"x"))), invalid);
    let mut unknown = blob.clone();
    unknown[23] = 9;
    assert_eq!(kind(kms.decrypt(&permit, &parse(&unknown), &context(b"x"))), invalid);
    for length in [0, 4097] {
        let made = kms.encrypt(&permit, &vec![0; length], &context(b"x"));
        assert_eq!(kind(made), Some(ErrorKind::Misuse));
    }
    kms.disable(&purpose(ADA), id).unwrap();
    let disabled = Some(ErrorKind::KeyDisabled);
    assert_eq!(kind(kms.decrypt(&permit, &parse(&blob), &context(b"x"))), disabled);
    assert_eq!(kind(kms.encrypt(&permit, b"plain", &context(b"x"))), disabled);
    assert_eq!(kms.last_usage(ADA, id).unwrap().1, "kluis:Test");
    assert_eq!(kms.last_usage(ADA, TenantKeyId::from_bytes([9; 16])), None);
}

#[test]
fn counts_are_never_too_low() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env) = kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    let permit = kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write)).unwrap();
    let encrypt = |kms: &Kms, permit: &UnwrapPermit, count: u64| {
        for _ in 0..count {
            kms.encrypt(permit, b"plain", &context(b"x")).unwrap();
        }
    };
    assert_eq!(kms.api_ciphertexts(ADA, id).unwrap(), [(1, 0)]);
    encrypt(&kms, &permit, COUNT_STEP + 1);
    assert_eq!(kms.api_ciphertexts(ADA, id).unwrap(), [(1, COUNT_STEP + 1)]);
    kms.rotate(&purpose(ADA), id).unwrap();
    encrypt(&kms, &permit, 3);
    assert_eq!(kms.api_ciphertexts(ADA, id).unwrap(), [(1, COUNT_STEP + 1), (2, 3)]);
    // A crash: what was reserved counts.
    drop((permit, kms));
    let kms = Kms::open(dir.path(), &store, env).unwrap();
    let counts = [(1, 2 * COUNT_STEP), (2, COUNT_STEP)];
    assert_eq!(kms.api_ciphertexts(ADA, id).unwrap(), counts);
    let permit = kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write)).unwrap();
    encrypt(&kms, &permit, 1);
    assert_eq!(kms.api_ciphertexts(ADA, id).unwrap()[1], (2, COUNT_STEP + 1));
}

#[test]
fn a_ciphertext_that_cannot_be_counted_does_not_leave() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, ..) = kms(dir.path(), 1);
    let id = kms.create_tenant_key(ADA).unwrap().id;
    let permit = kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write)).unwrap();
    lock(&kms.writer).keyring.fence();
    let made = kms.encrypt(&permit, b"plain", &context(b"x"));
    assert_eq!(kind(made), Some(ErrorKind::Unavailable));
}
