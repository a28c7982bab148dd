//! Known answers, and that joining parts equals digesting the whole.

use super::*;

fn digest(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Checksum {
    let mut digester = Digester::new(&[algorithm]);
    digester.update(bytes);
    digester.finish().pop().unwrap()
}

#[test]
fn check_values_of_the_catalogue() {
    // "123456789": the check value of the CRC catalogue; MD5 and SHA from RFC 1321 and FIPS 180-4
    // tools.
    let cases = [
        (ChecksumAlgorithm::Md5, "25f9e794323b453885f5181f1b624d0b"),
        (ChecksumAlgorithm::Crc32, "cbf43926"),
        (ChecksumAlgorithm::Crc32c, "e3069283"),
        (ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888"),
        (ChecksumAlgorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
        (
            ChecksumAlgorithm::Sha256,
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
        ),
    ];
    for (algorithm, expected) in cases {
        assert_eq!(hex::encode(digest(algorithm, b"123456789").value), expected, "{algorithm:?}");
    }
}

#[test]
fn joined_crcs_equal_the_crc_of_the_whole() {
    let body: Vec<u8> = (0..100_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    let (left, rest) = body.split_at(33_333);
    let (middle, right) = rest.split_at(1);
    for algorithm in
        [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme]
    {
        let parts: Vec<_> = [left, middle, right]
            .iter()
            .map(|part| (digest(algorithm, part), part.len() as u64))
            .collect();
        let joined = join(algorithm, ChecksumType::FullObject, &parts).unwrap();
        assert!(joined == digest(algorithm, &body), "{algorithm:?}");
    }
}

#[test]
fn a_hash_cannot_be_joined_over_the_whole() {
    let part = (digest(ChecksumAlgorithm::Sha256, b"x"), 1);
    let error = join(ChecksumAlgorithm::Sha256, ChecksumType::FullObject, &[part]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
}
