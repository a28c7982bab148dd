//! Row values come back as they were, and arbitrary bytes are refused without a panic.

use proptest::prelude::*;

use super::*;
use crate::digest::ChecksumType;
use crate::meta::Family;
use crate::types::*;

fn low(number: u32) -> u8 {
    u8::try_from(number % 256).unwrap()
}

fn manifest(parts: u32, composite: bool) -> Manifest {
    let checksum = |algorithm: ChecksumAlgorithm, byte| Checksum {
        algorithm,
        value: vec![byte; algorithm.value_bytes()],
    };
    let streams: Vec<_> = (1..=parts)
        .map(|number| ManifestStream {
            stream: StreamId::from_bytes([low(number); 16]),
            size: u64::from(number) * 10,
            part_number: number * 2,
            checksums: vec![checksum(ChecksumAlgorithm::Sha256, low(number))],
        })
        .collect();
    Manifest {
        size: streams.iter().map(|stream| stream.size).sum(),
        streams,
        checksums: vec![
            checksum(ChecksumAlgorithm::Crc64Nvme, 5),
            checksum(ChecksumAlgorithm::Crc32, 6),
        ],
        composite,
    }
}

#[test]
fn a_manifest_comes_back() {
    for (parts, composite) in [(1, false), (3, true), (10_000, false)] {
        let manifest = manifest(parts, composite);
        assert!(Manifest::decode(&manifest.encode()).unwrap() == manifest);
    }
}

#[test]
fn a_manifest_that_does_not_add_up_is_refused() {
    let mut manifest = manifest(3, false);
    manifest.size += 1;
    assert_eq!(Manifest::decode(&manifest.encode()).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn small_rows_come_back() {
    let bucket = BucketInfo {
        id: BucketId::from_bytes([1; 16]),
        name: BucketName::new("some-bucket").unwrap(),
        owner: UserId::from_bytes([2; 16]),
        created_ms: 3,
        etag_rule: ETagRule::Opaque,
        location: "eu".to_owned(),
        encryption: BucketEncryption::default(),
    };
    let encryptions = [
        (None, false),
        (None, true),
        (Some((SseMode::S3, "", false)), true),
        (Some((SseMode::S3, "", true)), false),
        (Some((SseMode::Kms, "", false)), false),
        (Some((SseMode::Kms, "alias/of-mine", true)), true),
    ];
    for (default, customer_keys) in encryptions {
        let default = default.map(|(mode, tenant_key, bucket_key)| DefaultEncryption {
            mode,
            tenant_key: tenant_key.to_owned(),
            bucket_key,
        });
        let encryption = BucketEncryption { default, customer_keys };
        let bucket = BucketInfo { encryption: encryption.clone(), ..bucket.clone() };
        let again = decode_bucket(bucket.name.clone(), &encode_bucket(&bucket)).unwrap();
        assert_eq!(again.encryption, encryption);
        assert_eq!(encode_bucket(&again), encode_bucket(&bucket));
    }
    let ns = NsId::from_bytes([4; 16]);
    for family in [Family::Pooled(7), Family::Dedicated(ns)] {
        let row = NamespaceRow { ns, family, created_ms: 9 };
        assert_eq!(NamespaceRow::decode(&row.encode()).unwrap(), row);
    }
    let attributes = Attributes {
        etag: ETag::new("abc-1"),
        checksum_algorithm: Some(ChecksumAlgorithm::Sha1),
        checksum_type: ChecksumType::Composite,
        tag_count: 3,
        size: 4,
        modified_ms: 5,
        multipart: true,
        upload: Some(UploadId::from_bytes([6; 16])),
    };
    assert_eq!(Attributes::decode(&attributes.encode()).unwrap(), attributes);
    let mut heading = Heading { context: vec![1, 2], headers: ObjectHeaders::default() };
    heading.headers.0.insert("x-amz-meta-ключ".to_owned(), "v".repeat(70_000));
    assert!(Heading::decode(&heading.encode()).unwrap() == heading);
    let tags = Tags(vec![("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())]);
    assert!(decode_tags(&encode_tags(&tags)).unwrap() == tags);
    let part = PartRow {
        stream: StreamId::from_bytes([5; 16]),
        size: 6,
        extents: 7,
        modified_ms: 8,
        sealed: vec![9; 40],
    };
    assert_eq!(PartRow::decode(&part.encode()).unwrap(), part);
}

proptest! {
    // What decodes encodes to the same bytes; nothing panics.
    #[test]
    fn any_bytes_decode_or_are_refused(
        tail in proptest::collection::vec(any::<u8>(), 0..300), versioned in any::<bool>(),
    ) {
        let mut bytes = tail;
        if versioned && !bytes.is_empty() {
            bytes[0] = ROW_VERSION;
        }
        if let Ok(row) = ObjectRow::decode(&bytes) { prop_assert_eq!(row.encode(), &*bytes); }
        if let Ok(row) = ContentRow::decode(&bytes) { prop_assert_eq!(row.encode(), &*bytes); }
        if let Ok(row) = UploadRow::decode(&bytes) { prop_assert_eq!(row.encode(), &*bytes); }
        if let Ok(row) = PartRow::decode(&bytes) { prop_assert_eq!(row.encode(), &*bytes); }
        if let Ok(row) = PartSeal::decode(&bytes) { prop_assert_eq!(row.encode(), &*bytes); }
        if let Ok(row) = BucketKeyRow::decode(&bytes) { prop_assert_eq!(row.encode(), &*bytes); }
        if let Ok(row) = NamespaceRow::decode(&bytes) { prop_assert_eq!(row.encode(), &*bytes); }
        let name = BucketName::new("bucket").unwrap();
        if let Ok(row) = decode_bucket(name, &bytes) { prop_assert_eq!(encode_bucket(&row), &*bytes); }
        let _ = Manifest::decode(&bytes);
        let _ = Heading::decode(&bytes);
        let _ = Attributes::decode(&bytes);
        let _ = decode_tags(&bytes);
    }
}
