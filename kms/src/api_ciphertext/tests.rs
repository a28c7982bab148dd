//! API ciphertexts against the known answer, and every way of damaging one.

use super::*;
use crate::env::SeededRng;
use crate::fixtures::{RampRng, flip, ramp, tenant, tenant_key_id};

/// From the independent Python reference of the format: material R(0x80, 32), tenant R(0x10, 16),
/// key R(0x02, 16), material 3, salt R(0xe3, 32), context {department: 10103.0, purpose: test}.
const KIND_6: &str = "0101060102030405060708090a0b0c0d0e0f101100000003\
    e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102\
    36d14925b32a1280e86f0d4b217a7f255d95bcc50c6b\
    5b853a76b2dafe168328b1faa240a3c4\
    0c9098447a70b64892a654f0366c1d1897c7b8430e178b2776d562f62d547a5b";
const PLAIN: &[u8] = b"a secret of the tenant";

fn context() -> EncryptionContext {
    let context = EncryptionContext::new().with(b"purpose", b"test").unwrap();
    context.with(b"department", b"10103.0").unwrap()
}

fn seal(plain: &[u8], rng: &dyn Rng) -> ApiCiphertext {
    let digest = api_context(tenant(), &context());
    ApiCiphertext::seal(&ramp(0x80), (tenant_key_id(), 3), &digest, (plain, rng))
}

#[test]
fn the_known_answer() {
    let made = seal(PLAIN, &RampRng(0xe3));
    assert_eq!(hex::encode(made.as_bytes()), KIND_6);
    let parsed = ApiCiphertext::parse(&hex::decode(KIND_6).unwrap()).unwrap();
    assert_eq!((parsed.tenant_key(), parsed.material()), (tenant_key_id(), 3));
    let opened = parsed.open(&ramp(0x80), &api_context(tenant(), &context())).unwrap();
    assert_eq!(opened.as_slice(), PLAIN);
}

#[test]
fn another_material_tenant_or_context_does_not_open() {
    let made = seal(PLAIN, &SeededRng::new(1));
    let digest = api_context(tenant(), &context());
    assert!(made.open(&ramp(0x80), &digest).is_some());
    assert!(made.open(&ramp(0x81), &digest).is_none());
    let stranger = TenantId::from_bytes(ramp(0x11));
    assert!(made.open(&ramp(0x80), &api_context(stranger, &context())).is_none());
    let other = context().with(b"more", b"").unwrap();
    assert!(made.open(&ramp(0x80), &api_context(tenant(), &other)).is_none());
    let empty = EncryptionContext::new();
    assert!(made.open(&ramp(0x80), &api_context(tenant(), &empty)).is_none());
}

#[test]
fn every_length_reads_back_and_no_other_is_read() {
    let digest = api_context(tenant(), &context());
    for length in [1, 31, 32, 33, API_PLAINTEXT_BYTES_MAX] {
        let made = seal(&vec![7; length], &SeededRng::new(1));
        assert_eq!(made.as_bytes().len(), length + API_OVERHEAD_BYTES);
        let parsed = ApiCiphertext::parse(made.as_bytes()).unwrap();
        assert_eq!(*parsed.open(&ramp(0x80), &digest).unwrap(), vec![7; length]);
    }
    for length in [0, API_PLAINTEXT_BYTES_MAX + 1] {
        let made = seal(&vec![7; length], &SeededRng::new(1));
        let kind = ApiCiphertext::parse(made.as_bytes()).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::Corrupt);
    }
}

#[test]
fn no_flipped_bit_and_no_cut_opens() {
    let made = seal(PLAIN, &SeededRng::new(1));
    let digest = api_context(tenant(), &context());
    let opens = |bytes: &[u8]| {
        ApiCiphertext::parse(bytes).is_ok_and(|read| read.open(&ramp(0x80), &digest).is_some())
    };
    for bit in 0..made.as_bytes().len() * 8 {
        let mut bytes = made.as_bytes().to_vec();
        flip(&mut bytes, bit);
        assert!(!opens(&bytes), "bit {bit}");
    }
    for length in 0..made.as_bytes().len() {
        assert!(!opens(&made.as_bytes()[..length]));
    }
}
