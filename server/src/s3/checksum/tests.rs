//! Checksum headers, both ways.

use super::*;

fn crc32(value: [u8; 4]) -> Checksum {
    Checksum { algorithm: ChecksumAlgorithm::Crc32, value: value.to_vec() }
}

#[test]
fn fields_go_both_ways() {
    let all = [
        crc32([1, 2, 3, 4]),
        Checksum { algorithm: ChecksumAlgorithm::Crc32c, value: vec![5; 4] },
        Checksum { algorithm: ChecksumAlgorithm::Crc64Nvme, value: vec![6; 8] },
        Checksum { algorithm: ChecksumAlgorithm::Sha1, value: vec![7; 20] },
        Checksum { algorithm: ChecksumAlgorithm::Sha256, value: vec![8; 32] },
    ];
    let fields = Fields::full(&all);
    assert_eq!(fields.crc32.as_deref(), Some("AQIDBA=="));
    assert_eq!(fields.clone().parse().unwrap(), all);
    let composite = Fields::of_object(&all, ChecksumType::Composite, 3);
    assert_eq!(composite.crc32.as_deref(), Some("AQIDBA==-3"));
    assert_eq!(composite.parse().unwrap(), all);
    assert_eq!(Fields::of_object(&all, ChecksumType::FullObject, 3), fields);
}

#[test]
fn an_md5_is_never_shown_as_a_checksum() {
    let md5 = Checksum { algorithm: ChecksumAlgorithm::Md5, value: vec![0; 16] };
    assert!(Fields::full(&[md5]).is_empty());
}

#[test]
fn malformed_values_are_refused() {
    for text in ["", "!", "AQID", "AQIDBAU=", "AQIDBA"] {
        let fields = Fields { crc32: Some(text.to_owned()), ..Fields::default() };
        assert_eq!(fields.parse().unwrap_err().api().code, "InvalidRequest", "{text}");
    }
}

#[test]
fn names_are_read_whatever_their_case() {
    assert_eq!(algorithm("CRC64NVME").unwrap(), ChecksumAlgorithm::Crc64Nvme);
    assert_eq!(algorithm("sha256").unwrap(), ChecksumAlgorithm::Sha256);
    for name in ["MD5", "", "crc", "XXHASH64"] {
        assert_eq!(algorithm(name).unwrap_err().api().code, "InvalidRequest", "{name}");
    }
}

#[test]
fn an_upload_carries_what_the_table_allows() {
    use ChecksumType::{Composite, FullObject};
    for (name, asked, want) in [
        ("CRC32", None, Some(Composite)),
        ("CRC32", Some("FULL_OBJECT"), Some(FullObject)),
        ("CRC32C", Some("COMPOSITE"), Some(Composite)),
        ("CRC64NVME", None, Some(FullObject)),
        ("CRC64NVME", Some("COMPOSITE"), None),
        ("SHA1", None, Some(Composite)),
        ("SHA1", Some("FULL_OBJECT"), None),
        ("SHA256", Some("COMPOSITE"), Some(Composite)),
        ("SHA256", Some("FULL_OBJECT"), None),
        ("CRC32", Some("HALF"), None),
    ] {
        let got = of_upload(Some(name), asked);
        match want {
            Some(want) => assert_eq!(got.unwrap().unwrap().1, want, "{name} {asked:?}"),
            None => assert_eq!(got.unwrap_err().api().code, "InvalidRequest", "{name} {asked:?}"),
        }
    }
    assert!(of_upload(None, None).unwrap().is_none());
    assert!(of_upload(None, Some("COMPOSITE")).is_err());
}
