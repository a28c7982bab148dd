//! The name of the S3 operation that a request asks for, for logs and metrics.
//!
//! Owns: the table. Nothing is decided by it: the codec routes by its own.

use http::Method;
use http::request::Parts;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Service,
    Bucket,
    Object,
}

use Target::{Bucket, Object, Service};

/// Method, target, query name or header (`""` matches all), name. The first match counts.
#[rustfmt::skip]
const TABLE: &[(Method, Target, &str, &str)] = &[
    (Method::GET, Service, "", "ListBuckets"),
    (Method::GET, Bucket, "location", "GetBucketLocation"),
    (Method::GET, Bucket, "uploads", "ListMultipartUploads"),
    (Method::GET, Bucket, "versions", "ListObjectVersions"),
    (Method::GET, Bucket, "list-type", "ListObjectsV2"),
    (Method::GET, Bucket, "acl", "GetBucketAcl"),
    (Method::GET, Bucket, "policy", "GetBucketPolicy"),
    (Method::GET, Bucket, "versioning", "GetBucketVersioning"),
    (Method::GET, Bucket, "tagging", "GetBucketTagging"),
    (Method::GET, Bucket, "encryption", "GetBucketEncryption"),
    (Method::GET, Bucket, "cors", "GetBucketCors"),
    (Method::GET, Bucket, "lifecycle", "GetBucketLifecycleConfiguration"),
    (Method::GET, Bucket, "object-lock", "GetObjectLockConfiguration"),
    (Method::GET, Bucket, "", "ListObjects"),
    (Method::HEAD, Bucket, "", "HeadBucket"),
    (Method::PUT, Bucket, "acl", "PutBucketAcl"),
    (Method::PUT, Bucket, "policy", "PutBucketPolicy"),
    (Method::PUT, Bucket, "versioning", "PutBucketVersioning"),
    (Method::PUT, Bucket, "tagging", "PutBucketTagging"),
    (Method::PUT, Bucket, "encryption", "PutBucketEncryption"),
    (Method::PUT, Bucket, "cors", "PutBucketCors"),
    (Method::PUT, Bucket, "lifecycle", "PutBucketLifecycleConfiguration"),
    (Method::PUT, Bucket, "", "CreateBucket"),
    (Method::DELETE, Bucket, "policy", "DeleteBucketPolicy"),
    (Method::DELETE, Bucket, "tagging", "DeleteBucketTagging"),
    (Method::DELETE, Bucket, "encryption", "DeleteBucketEncryption"),
    (Method::DELETE, Bucket, "cors", "DeleteBucketCors"),
    (Method::DELETE, Bucket, "lifecycle", "DeleteBucketLifecycle"),
    (Method::DELETE, Bucket, "", "DeleteBucket"),
    (Method::POST, Bucket, "delete", "DeleteObjects"),
    (Method::POST, Bucket, "", "PostObject"),
    (Method::GET, Object, "uploadId", "ListParts"),
    (Method::GET, Object, "attributes", "GetObjectAttributes"),
    (Method::GET, Object, "tagging", "GetObjectTagging"),
    (Method::GET, Object, "acl", "GetObjectAcl"),
    (Method::GET, Object, "retention", "GetObjectRetention"),
    (Method::GET, Object, "legal-hold", "GetObjectLegalHold"),
    (Method::GET, Object, "", "GetObject"),
    (Method::HEAD, Object, "", "HeadObject"),
    (Method::PUT, Object, "tagging", "PutObjectTagging"),
    (Method::PUT, Object, "acl", "PutObjectAcl"),
    (Method::PUT, Object, "retention", "PutObjectRetention"),
    (Method::PUT, Object, "legal-hold", "PutObjectLegalHold"),
    (Method::PUT, Object, "uploadId", "UploadPart"),
    (Method::PUT, Object, "", "PutObject"),
    (Method::DELETE, Object, "uploadId", "AbortMultipartUpload"),
    (Method::DELETE, Object, "tagging", "DeleteObjectTagging"),
    (Method::DELETE, Object, "", "DeleteObject"),
    (Method::POST, Object, "uploads", "CreateMultipartUpload"),
    (Method::POST, Object, "uploadId", "CompleteMultipartUpload"),
    (Method::POST, Object, "restore", "RestoreObject"),
    (Method::POST, Object, "select", "SelectObjectContent"),
];

/// The operation's name in the AWS API, or `Unknown`. `path` begins with the bucket, wherever the
/// request has it.
pub(super) fn name(parts: &Parts, path: &str) -> &'static str {
    let target = target(path);
    let query = parts.uri.query().unwrap_or_default();
    let asks_for =
        |wanted: &str| query.split('&').any(|pair| pair.split('=').next() == Some(wanted));
    let found = TABLE.iter().find(|(method, on, sub_resource, _)| {
        *method == parts.method
            && *on == target
            && (sub_resource.is_empty() || asks_for(sub_resource))
    });
    let is_copy = parts.headers.contains_key("x-amz-copy-source");
    match found.map(|(.., name)| *name) {
        Some("PutObject") if is_copy => "CopyObject",
        Some("UploadPart") if is_copy => "UploadPartCopy",
        Some(name) => name,
        None if parts.method == Method::OPTIONS => "Preflight",
        None => "Unknown",
    }
}

fn target(path: &str) -> Target {
    match path.trim_start_matches('/').split_once('/') {
        _ if path == "/" || path.is_empty() => Service,
        None | Some((_, "")) => Bucket,
        Some(_) => Object,
    }
}
