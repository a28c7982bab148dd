//! Bucket keys: known answers, permits, purposes, SSE-C.

use super::*;
use crate::env::SeededRng;
use crate::error::ErrorKind;
use crate::fixtures::{
    RampRng, bucket_key, data_key, permit, purpose, ramp, tenant, tenant_key_id, version_context,
};
use crate::gate::KeyUse;
use crate::gate::{GateClosed, KeyGate};

fn data_bucket_key() -> BucketKey {
    bucket_key(BucketKeyPurpose::Data, Arc::new(SeededRng::new(1)))
}

fn customer_key(start: u8) -> CustomerKey {
    CustomerKey::new(&ramp(start)).unwrap()
}

#[test]
fn the_id_is_derived_from_the_bytes() {
    assert_eq!(data_bucket_key().id().to_string(), "cfd8b9893f77d53026d128a453202b81");
    let meta = bucket_key(BucketKeyPurpose::Meta, Arc::new(SeededRng::new(1)));
    assert_ne!(meta.id(), data_bucket_key().id());
}

#[test]
fn a_data_key_comes_back() {
    let (permit, _) = permit();
    let context = version_context(ramp(0x30));
    let wrapped =
        data_bucket_key().wrap_data_key(&permit, &data_key(), &context, &RampRng(0xe0)).unwrap();
    assert_eq!(wrapped.kind(), WrapKind::DataKey);
    assert_eq!(wrapped.wrapping_key_id(), data_bucket_key().id().as_bytes());
    assert_eq!(wrapped.wrapping_version(), 7);
    let unwrapped = data_bucket_key().unwrap_data_key(&permit, &wrapped, &context).unwrap();
    assert_eq!(*unwrapped.borrow(), *data_key().borrow());
}

#[track_caller]
fn check_unwrap(
    bucket_key: &BucketKey,
    wrapped: &WrappedKey,
    context: &EncryptionContext,
    want: ErrorKind,
) {
    let (permit, _) = permit();
    let got = bucket_key.unwrap_data_key(&permit, wrapped, context).err();
    assert_eq!(got.map(|error| error.kind()), Some(want));
}

#[test]
fn another_version_or_bucket_key_does_not_open() {
    let (permit, _) = permit();
    let context = version_context(ramp(0x30));
    let wrapped =
        data_bucket_key().wrap_data_key(&permit, &data_key(), &context, &RampRng(0xe0)).unwrap();
    let other_version = version_context(ramp(0x31));
    check_unwrap(&data_bucket_key(), &wrapped, &other_version, ErrorKind::Corrupt);
    let mut other_epoch = data_bucket_key();
    other_epoch.scope.epoch = 8;
    check_unwrap(&other_epoch, &wrapped, &context, ErrorKind::Corrupt);
    let mut other_id = data_bucket_key();
    other_id.id = BucketKeyId::from_bytes(ramp(0x99));
    check_unwrap(&other_id, &wrapped, &context, ErrorKind::Corrupt);
}

#[test]
fn a_permit_for_another_key_finds_nothing() {
    let context = EncryptionContext::new();
    let other_key = TenantKeyId::from_bytes(ramp(0x03));
    let other_tenant = TenantId::from_bytes(ramp(0x11));
    for (tenant, tenant_key) in [(tenant(), other_key), (other_tenant, tenant_key_id())] {
        let gate = Arc::new(KeyGate::new(None));
        let permit =
            UnwrapPermit::issue(&purpose(tenant), tenant_key, gate, KeyUse::Write).unwrap();
        let got = data_bucket_key().wrap_data_key(&permit, &data_key(), &context, &RampRng(0));
        assert_eq!(got.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[test]
fn a_closed_gate_stops_wraps_and_unwraps() {
    let (permit, gate) = permit();
    let context = EncryptionContext::new();
    let bucket_key = data_bucket_key();
    let wrapped = bucket_key.wrap_data_key(&permit, &data_key(), &context, &RampRng(0xe0)).unwrap();
    gate.close(GateClosed::Disabled);
    let unwrapped = bucket_key.unwrap_data_key(&permit, &wrapped, &context).err().unwrap();
    assert_eq!(unwrapped.kind(), ErrorKind::KeyDisabled);
    let wrapped = bucket_key.wrap_data_key(&permit, &data_key(), &context, &RampRng(0xe0));
    assert_eq!(wrapped.unwrap_err().kind(), ErrorKind::KeyDisabled);
}

#[test]
fn a_bucket_key_does_what_it_is_for() {
    let (permit, _) = permit();
    let rng: Arc<dyn Rng> = Arc::new(SeededRng::new(1));
    let meta = bucket_key(BucketKeyPurpose::Meta, Arc::clone(&rng));
    let wrapped = meta.wrap_data_key(&permit, &data_key(), &EncryptionContext::new(), &*rng);
    assert_eq!(wrapped.unwrap_err().kind(), ErrorKind::Misuse);
    let refused = |made: Result<FieldCipher>| made.err().map(|error| error.kind());
    let misuse = Some(ErrorKind::Misuse);
    assert_eq!(refused(data_bucket_key().field_cipher(tenant(), &ramp(0x20))), misuse);
    assert_eq!(refused(meta.field_cipher(tenant(), &ramp(0x21))), misuse);
    assert_eq!(refused(meta.field_cipher(TenantId::from_bytes(ramp(0)), &ramp(0x20))), misuse);
    assert_eq!(refused(meta.field_cipher(tenant(), &ramp(0x20))), None);
    let mixed = meta.with_customer_key(&customer_key(0x60)).err().map(|error| error.kind());
    assert_eq!(mixed, misuse);
}

#[test]
fn a_customers_key_is_needed_beside_the_bucket_key() {
    let (permit, _) = permit();
    let context = version_context(ramp(0x30));
    let plain = data_bucket_key();
    let mixed = plain.with_customer_key(&customer_key(0x60)).unwrap();
    assert_eq!(mixed.id(), plain.id());
    let wrapped = mixed.wrap_data_key(&permit, &data_key(), &context, &RampRng(0xe0)).unwrap();
    assert_eq!(wrapped.kind(), WrapKind::DataKeyCustomer);
    let unwrapped = mixed.unwrap_data_key(&permit, &wrapped, &context).unwrap();
    assert_eq!(*unwrapped.borrow(), *data_key().borrow());
    check_unwrap(&plain, &wrapped, &context, ErrorKind::Corrupt);
    let other = plain.with_customer_key(&customer_key(0x61)).unwrap();
    check_unwrap(&other, &wrapped, &context, ErrorKind::Corrupt);
    let plain_wrap = plain.wrap_data_key(&permit, &data_key(), &context, &RampRng(0xe0)).unwrap();
    check_unwrap(&mixed, &plain_wrap, &context, ErrorKind::Corrupt);
    assert!(mixed.with_customer_key(&customer_key(0x61)).is_err());
}
