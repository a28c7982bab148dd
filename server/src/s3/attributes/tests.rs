//! GetObjectAttributes: which attributes, and paging of parts.

use kluis_kms::TenantKeyId;
use kluis_storage::{
    Checksum as Digest, ChecksumAlgorithm, ETag, ObjectHeaders, PartInfo, SseMode, VersionId,
};

use super::*;

fn info(checksum_type: ChecksumType, parts: u32) -> ObjectInfo {
    let crc = Digest { algorithm: ChecksumAlgorithm::Crc32, value: vec![0; 4] };
    let part = |number| PartInfo { number, size: 5, checksums: vec![crc.clone()] };
    ObjectInfo {
        version: VersionId::from_bytes([1; 16]),
        size: 5 * u64::from(parts),
        modified_ms: 0,
        etag: ETag::new("abc-3"),
        headers: ObjectHeaders::default(),
        tag_count: 0,
        checksums: vec![crc.clone()],
        checksum_type,
        parts: (1..=parts).map(part).collect(),
        multipart: parts > 1,
        sse: SseMode::Kms,
        tenant_key: TenantKeyId::from_bytes([2; 16]),
    }
}

fn text(names: &str, page: &Page, info: &ObjectInfo) -> String {
    let asked = Asked::read(&[names.to_owned()]).unwrap();
    String::from_utf8(document(asked, page, info).unwrap()).unwrap()
}

const FIRST: Page = Page { limit: 1_000, after: 0 };

#[test]
fn an_etag_stands_without_quotes() {
    let document = text("ETag,ObjectSize", &FIRST, &info(ChecksumType::FullObject, 1));
    assert!(document.contains("<ETag>abc-3</ETag>"), "{document}");
    assert!(document.contains("<ObjectSize>5</ObjectSize>"), "{document}");
    assert!(document.contains("<GetObjectAttributesResponse xmlns="), "{document}");
    assert!(!document.contains("StorageClass") && !document.contains("Checksum"), "{document}");
}

#[test]
fn parts_of_a_composite_object_are_paged() {
    let object = info(ChecksumType::Composite, 3);
    let first = text("ObjectParts,Checksum", &Page { limit: 2, after: 0 }, &object);
    assert!(first.contains("<PartsCount>3</PartsCount>"), "{first}");
    assert!(first.contains("<IsTruncated>true</IsTruncated>"), "{first}");
    assert!(first.contains("<NextPartNumberMarker>2</NextPartNumberMarker>"), "{first}");
    assert_eq!(first.matches("<Part>").count(), 2, "{first}");
    assert!(first.contains("<ChecksumCRC32>AAAAAA==</ChecksumCRC32>"), "{first}");
    let last = text("ObjectParts", &Page { limit: 2, after: 2 }, &object);
    assert!(last.contains("<IsTruncated>false</IsTruncated>"), "{last}");
    assert_eq!(last.matches("<Part>").count(), 1, "{last}");
}

#[test]
fn an_object_put_whole_has_no_parts() {
    let whole = text("ObjectParts,StorageClass", &FIRST, &info(ChecksumType::FullObject, 1));
    assert!(!whole.contains("ObjectParts"), "{whole}");
    let joined = text("ObjectParts", &FIRST, &info(ChecksumType::FullObject, 3));
    assert!(joined.contains("<PartsCount>3</PartsCount>"), "{joined}");
    assert!(!joined.contains("<Part>"), "{joined}");
}

#[test]
fn attributes_are_named_one_by_one_or_in_a_list() {
    let both = Asked::read(&["ETag".to_owned(), "Checksum, ObjectSize".to_owned()]).unwrap();
    assert!(both.etag && both.checksum && both.object_size && !both.object_parts);
    let unknown = Asked::read(&["ETag,Colour".to_owned()]).unwrap_err();
    assert_eq!(unknown.api().code, "InvalidArgument");
    assert_eq!(Asked::read(&[" ".to_owned()]).unwrap_err().api().code, "InvalidRequest");
}
