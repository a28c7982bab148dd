//! From kinds of errors to codes and statuses, as a table.

use kluis_storage::Error;

use super::*;

fn told(subject: Subject, kind: ErrorKind) -> (u16, String) {
    let failure = subject.failed(&Error::new(kind, "test"));
    (failure.api().status.as_u16(), failure.api().code.to_string())
}

#[test]
fn every_kind_has_a_code() {
    use ErrorKind as Kind;
    use Subject::{Bucket, CopySource, Object, Upload};
    for (subject, kind, status, code) in [
        (Object, Kind::Body, 400, "IncompleteBody"),
        (Object, Kind::Conflict, 409, "ConditionalRequestConflict"),
        (Object, Kind::AccessDenied, 403, "AccessDenied"),
        (Object, Kind::Corrupt, 500, "InternalError"),
        (Object, Kind::CustomerKeyMissing, 400, "InvalidRequest"),
        (Upload, Kind::CustomerKeyMissing, 400, "InvalidRequest"),
        (Object, Kind::CustomerKeyUnexpected, 400, "InvalidRequest"),
        (Object, Kind::CustomerKeyWrong, 403, "AccessDenied"),
        (CopySource, Kind::CustomerKeyWrong, 403, "AccessDenied"),
        (Upload, Kind::CustomerKeyWrong, 400, "InvalidRequest"),
        (Object, Kind::Tampered, 500, "InternalError"),
        (Bucket, Kind::Exists, 409, "BucketAlreadyExists"),
        (Object, Kind::Exists, 412, "PreconditionFailed"),
        (Object, Kind::Fenced, 503, "ServiceUnavailable"),
        (Object, Kind::Full, 507, "InsufficientCapacity"),
        (Upload, Kind::InvalidPart, 400, "InvalidPart"),
        (Upload, Kind::InvalidPartOrder, 400, "InvalidPartOrder"),
        (Object, Kind::InvalidRange, 416, "InvalidRange"),
        (Object, Kind::KeyDestroyed, 400, "KMS.KMSInvalidStateException"),
        (Object, Kind::KeyDisabled, 400, "KMS.DisabledException"),
        (Object, Kind::KeyUnusable, 400, "KMS.KMSInvalidStateException"),
        (Object, Kind::Misuse, 400, "InvalidRequest"),
        (Bucket, Kind::NotEmpty, 409, "BucketNotEmpty"),
        (Bucket, Kind::NotFound, 404, "NoSuchBucket"),
        (Object, Kind::NotFound, 404, "NoSuchKey"),
        (CopySource, Kind::NotFound, 404, "NoSuchKey"),
        (Upload, Kind::NotFound, 404, "NoSuchUpload"),
        (Object, Kind::NotModified, 304, "NotModified"),
        (CopySource, Kind::NotModified, 412, "PreconditionFailed"),
        (Upload, Kind::PartTooSmall, 400, "EntityTooSmall"),
        (Object, Kind::PreconditionFailed, 412, "PreconditionFailed"),
        (Object, Kind::Refused, 403, "AccessDenied"),
        (Object, Kind::Unavailable, 503, "ServiceUnavailable"),
    ] {
        assert_eq!(told(subject, kind), (status, code.to_owned()), "{subject:?} {kind:?}");
    }
}

#[test]
fn the_text_of_an_inner_error_stays_inside() {
    let inner = Error::new(ErrorKind::Corrupt, "append extent 17 to segment 42")
        .with_advice("run kluis check");
    let shown = format!("{:?}", Subject::Object.failed(&inner));
    assert!(!shown.contains("segment") && !shown.contains("kluis check"), "{shown}");
}

#[test]
fn the_bodys_own_error_is_found_in_its_causes() {
    let bad = ApiError::new(StatusCode::BAD_REQUEST, "BadDigest", "no match");
    let inner = Error::new(ErrorKind::Body, "take a piece").with_source(bad);
    let outer = Error::new(ErrorKind::Body, "read a body").with_source(inner);
    assert_eq!(Subject::Object.failed(&outer).api().code, "BadDigest");
}

#[test]
fn a_busy_node_says_when_to_come_back() {
    let failure = Subject::Object.failed(&Error::new(ErrorKind::Unavailable, "test"));
    assert_eq!(failure.0.1.get(header::RETRY_AFTER).unwrap(), RETRY_AFTER_SECONDS);
}

#[test]
fn errors_pass_s3s_whole() {
    let slot = ErrorSlot::default();
    let error = bad_request("KMS.DisabledException", "off").with("KeyId", "7");
    let outer = reply::<()>(Some(slot.clone()), Err(error.into())).unwrap_err();
    assert_eq!(outer.code().as_str(), "KMS.DisabledException");
    assert_eq!(outer.status_code(), Some(StatusCode::BAD_REQUEST));
    let kept = slot.take().unwrap();
    assert_eq!(kept.extra, [("KeyId", "7".to_owned())]);
    assert!(slot.take().is_none());
}
