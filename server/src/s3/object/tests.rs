//! What GET and HEAD show of an object.

use kluis_kms::TenantKeyId;
use kluis_storage::{
    Checksum, ChecksumAlgorithm, ETag, ObjectHeaders, PartInfo, SseMode, VersionId,
};

use super::*;

fn crc(byte: u8) -> Vec<Checksum> {
    vec![Checksum { algorithm: ChecksumAlgorithm::Crc32, value: vec![byte; 4] }]
}

fn info(multipart: bool) -> ObjectInfo {
    let part = |number: u32, byte| PartInfo { number, size: 5, checksums: crc(byte) };
    ObjectInfo {
        version: VersionId::from_bytes([1; 16]),
        size: 10,
        modified_ms: 1_445_412_480_123,
        etag: ETag::new("abc-2"),
        headers: ObjectHeaders::default(),
        tag_count: 0,
        checksums: crc(9),
        checksum_type: ChecksumType::Composite,
        parts: if multipart { vec![part(1, 1), part(2, 2)] } else { vec![part(1, 9)] },
        multipart,
        sse: SseMode::Kms,
        tenant_key: TenantKeyId::from_bytes([2; 16]),
    }
}

fn wanted(range: Option<RangeSpec>, part_number: Option<u32>) -> Wanted {
    Wanted {
        range,
        part_number,
        conditions: Conditions::default(),
        checksums: true,
        overrides: HeaderMap::new(),
        customer: None,
    }
}

fn crc_header(wanted: &Wanted, info: &ObjectInfo, length: u64) -> Option<String> {
    let mut headers = HeaderMap::new();
    checksums(wanted, info, length, &mut headers).unwrap();
    headers.get("x-amz-checksum-crc32").map(|value| value.to_str().unwrap().to_owned())
}

#[test]
fn a_checksum_goes_with_exactly_its_bytes() {
    let range = Some(RangeSpec::From { first: 0, last: Some(4) });
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(crc_header(&wanted(None, None), &info(true), 10), text("CQkJCQ==-2"));
    assert_eq!(crc_header(&wanted(range, None), &info(true), 5), None);
    assert_eq!(crc_header(&wanted(None, Some(2)), &info(true), 5), text("AgICAg=="));
    assert_eq!(crc_header(&wanted(None, Some(1)), &info(false), 10), text("CQkJCQ==-1"));
    assert_eq!(crc_header(&wanted(None, Some(3)), &info(true), 5), None);
}

#[test]
fn validators_are_quoted_and_in_seconds() {
    let mut headers = HeaderMap::new();
    validators(&info(false), &mut headers).unwrap();
    assert_eq!(headers.get(ETAG).unwrap(), "\"abc-2\"");
    assert_eq!(headers.get(LAST_MODIFIED).unwrap(), "Wed, 21 Oct 2015 07:28:00 GMT");
}

#[test]
fn a_bad_part_number_has_its_own_code() {
    let failure = unsatisfiable_part(7);
    assert_eq!(failure.api().code, "InvalidPartNumber");
    assert_eq!(failure.api().status, StatusCode::RANGE_NOT_SATISFIABLE);
}

#[test]
fn a_bad_range_tells_the_size() {
    let failure =
        Failure::from(ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", ""));
    let failure = unsatisfiable_range(failure, &info(false));
    assert!(failure.api().extra.contains(&("ActualObjectSize", "10".to_owned())));
}
