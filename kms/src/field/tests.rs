//! Sealed fields: a known answer, and every way of moving or damaging one.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::bucket_key::BucketKeyPurpose;
use crate::env::{Rng, SeededRng};
use crate::fixtures::{RampRng, bucket_key, flip, permit, purpose, ramp, tenant};
use crate::gate::KeyUse;
use crate::gate::{GateClosed, KeyGate};
use crate::types::TenantKeyId;

const VERSION: [u8; 16] = *b"0123456789abcdef";
const NAME: FieldName<'_> =
    FieldName { field: "um", object_key: "dir/ключ".as_bytes(), version: &VERSION };

fn cipher_with(rng: Arc<dyn Rng>) -> FieldCipher {
    bucket_key(BucketKeyPurpose::Meta, rng).field_cipher(tenant(), &ramp(0x20)).unwrap()
}

fn cipher() -> FieldCipher {
    cipher_with(Arc::new(SeededRng::new(1)))
}

#[test]
fn known_answer() {
    let (permit, _) = permit();
    let version = ramp(0x30);
    let name = FieldName { version: &version, ..NAME };
    let cipher = cipher_with(Arc::new(RampRng(0xf0)));
    let sealed = cipher.seal(&permit, &name, b"x-amz-meta-a: b").unwrap();
    let want = "0100000007f0f1f2f3f4f5f6f7f8f9fafb\
        245fe6b1991b3d73b2736d58926da622b78975a89c452079e61c3d9fe2e271";
    assert_eq!(hex::encode(&sealed), want);
    assert_eq!(sealed.len(), 15 + FIELD_OVERHEAD_BYTES);
    assert_eq!(FieldCipher::epoch_of(&sealed).unwrap(), 7);
    assert_eq!(cipher.open(&permit, &name, &sealed).unwrap().as_slice(), b"x-amz-meta-a: b");
}

#[test]
fn a_field_opens_under_its_own_name_only() {
    let (permit, _) = permit();
    let sealed = cipher().seal(&permit, &NAME, b"value").unwrap();
    let others = [
        FieldName { field: "tg", ..NAME },
        FieldName { object_key: b"dir/", ..NAME },
        FieldName { version: &[0; 16], ..NAME },
    ];
    for other in others {
        let error = cipher().open(&permit, &other, &sealed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_field_of_another_bucket_or_epoch_does_not_open() {
    let (permit, _) = permit();
    let sealed = cipher().seal(&permit, &NAME, b"value").unwrap();
    let mut other = cipher();
    other.scope.bucket = ramp(0x21);
    assert_eq!(other.open(&permit, &NAME, &sealed).unwrap_err().kind(), ErrorKind::Corrupt);
    let mut other = cipher();
    other.scope.epoch = 8;
    assert_eq!(other.open(&permit, &NAME, &sealed).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_permit_must_fit_and_its_gate_be_open() {
    let (permit, gate) = permit();
    let sealed = cipher().seal(&permit, &NAME, b"value").unwrap();
    let other_gate = Arc::new(KeyGate::new(None));
    let other_key = TenantKeyId::from_bytes(ramp(3));
    let other =
        UnwrapPermit::issue(&purpose(tenant()), other_key, other_gate, KeyUse::Write).unwrap();
    assert_eq!(cipher().open(&other, &NAME, &sealed).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(cipher().seal(&other, &NAME, b"").unwrap_err().kind(), ErrorKind::NotFound);
    gate.close(GateClosed::Disabled);
    assert_eq!(cipher().open(&permit, &NAME, &sealed).unwrap_err().kind(), ErrorKind::KeyDisabled);
    assert_eq!(cipher().seal(&permit, &NAME, b"").unwrap_err().kind(), ErrorKind::KeyDisabled);
}

#[test]
fn the_limit_holds() {
    let (permit, _) = permit();
    let longest = vec![1; FIELD_BYTES_MAX];
    let sealed = cipher().seal(&permit, &NAME, &longest).unwrap();
    assert_eq!(*cipher().open(&permit, &NAME, &sealed).unwrap(), longest);
    let error = cipher().seal(&permit, &NAME, &vec![1; FIELD_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    let too_long = [sealed.as_slice(), &[0]].concat();
    let error = cipher().open(&permit, &NAME, &too_long).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn two_seals_of_one_value_differ() {
    let (permit, _) = permit();
    let cipher = cipher();
    let one = cipher.seal(&permit, &NAME, b"value").unwrap();
    assert_ne!(one, cipher.seal(&permit, &NAME, b"value").unwrap());
}

proptest! {
    #[test]
    fn a_flipped_bit_never_opens(value in vec(any::<u8>(), 0..100), bit: prop::sample::Index) {
        let (permit, _) = permit();
        let cipher = cipher();
        let mut sealed = cipher.seal(&permit, &NAME, &value).unwrap();
        let opened = cipher.open(&permit, &NAME, &sealed).unwrap();
        prop_assert_eq!(opened.as_slice(), value.as_slice());
        let bit = bit.index(sealed.len() * 8);
        flip(&mut sealed, bit);
        prop_assert!(cipher.open(&permit, &NAME, &sealed).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_open(mut bytes in vec(any::<u8>(), 0..100)) {
        let (permit, _) = permit();
        prop_assert!(cipher().open(&permit, &NAME, &bytes).is_err());
        if let Some(head) = bytes.first_chunk_mut() {
            *head = [1, 0, 0, 0, 7];
            prop_assert!(cipher().open(&permit, &NAME, &bytes).is_err());
        }
    }
}
