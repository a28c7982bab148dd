//! CompleteMultipartUpload.
//!
//! Owns: the list of parts and the checksums that go with it. Knows nothing of: joining; the engine
//! compares every part with what it stored, and answers a repeat with the first receipt.

use http::header::HOST;
use kluis_storage::{Checksum, CompleteUpload, CompletedPart, ETag, ErrorKind, PART_NUMBER_MAX};
use s3s::S3Response;
use s3s::dto;
use s3s::dto::{CompleteMultipartUploadInput, CompleteMultipartUploadOutput};

use super::checksum::{self, Fields};
use super::encoding::percent_encode;
use super::error::{Answer, Failure, Subject, bad_request, invalid_request, malformed_xml};
use super::{Call, S3Api, customer, etag, headers, multipart, object_key};
use crate::policy::PutObject;

/// Answers CompleteMultipartUpload.
pub(super) async fn complete_multipart_upload(
    api: &S3Api,
    call: Call<CompleteMultipartUploadInput>,
) -> Answer<S3Response<CompleteMultipartUploadOutput>> {
    let input = &call.input;
    let right = api.on_bucket::<PutObject, _>(&call, &input.bucket).await?;
    let customer = call.customer.own()?;
    let object_key = object_key(&input.key)?;
    let upload = multipart::upload_id(&input.upload_id)?;
    let listed = input.multipart_upload.as_ref().and_then(|list| list.parts.as_deref());
    let parts = parts(listed.unwrap_or_default())?;
    let part_count = parts.len();
    let size = input.mpu_object_size.map(u64::try_from).transpose();
    let request = CompleteUpload {
        bucket: right.bucket(),
        object_key: &object_key,
        upload,
        parts,
        checksum: expected(input, part_count)?,
        size: size.map_err(|_| invalid_request("x-amz-mp-object-size cannot be negative"))?,
        customer_key: customer::key_of(customer.as_ref()),
        conditions: headers::write_conditions(&call),
    };
    let said = Said {
        checksum: request.checksum.is_some(),
        object: request.conditions.if_match.is_some(),
    };
    let receipt = match api.engine.complete_upload(right.purpose(), request).await {
        Ok(receipt) => receipt,
        Err(cause) => {
            // Missing is either the upload, or the object that the condition expects.
            let (purpose, bucket) = (right.purpose(), right.bucket());
            let open = api.engine.upload_info(purpose, bucket, &object_key, upload).await;
            return Err(said.explain(&cause, open.is_ok()));
        }
    };
    let reply = api.sse_reply(receipt.sse, receipt.tenant_key, right.user(), customer.as_ref());
    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        location: Some(location(&call, &input.bucket, &input.key)),
        checksum_type: Some(checksum::type_element(receipt.checksum_type)),
        e_tag: Some(dto::ETag::Strong(receipt.etag.as_str().to_owned())),
        server_side_encryption: reply.element(),
        bucket_key_enabled: reply.bucket_key(),
        ssekms_key_id: reply.key_id,
        ..CompleteMultipartUploadOutput::default()
    };
    let fields = Fields::of_object(&receipt.checksums, receipt.checksum_type, part_count);
    checksum::fill!(output, fields);
    Ok(S3Response::new(output))
}

/// What the client said that may turn out wrong.
#[derive(Clone, Copy)]
struct Said {
    /// It named a checksum of the object.
    checksum: bool,
    /// It expects an object under the name already.
    object: bool,
}

impl Said {
    /// A mismatch is one of the checksum or, without one, of the size.
    fn explain(self, cause: &kluis_storage::Error, upload_is_open: bool) -> Failure {
        match cause.kind() {
            ErrorKind::Body if self.checksum => bad_digest(),
            ErrorKind::Body => {
                let message = "The provided 'x-amz-mp-object-size' header value does not match the \
                    object size.";
                invalid_request(message).into()
            }
            ErrorKind::NotFound if self.object && upload_is_open => Subject::Object.failed(cause),
            _ => Subject::Upload.failed(cause),
        }
    }
}

/// The list of parts: not empty, ascending, each with a number and an ETag.
fn parts(listed: &[dto::CompletedPart]) -> Answer<Vec<CompletedPart>> {
    if listed.is_empty() || listed.len() > PART_NUMBER_MAX as usize {
        return Err(malformed_xml().into());
    }
    let mut parts: Vec<CompletedPart> = Vec::with_capacity(listed.len());
    for part in listed {
        let (Some(number), Some(tag)) = (part.part_number, &part.e_tag) else {
            return Err(malformed_xml().into());
        };
        let number = headers::part_number(number)?;
        if parts.last().is_some_and(|last| last.number >= number) {
            let message = "The list of parts was not in ascending order. Parts must be ordered by \
                part number.";
            return Err(bad_request("InvalidPartOrder", message).into());
        }
        let etag: ETag = etag::single(tag.value());
        parts.push(CompletedPart { number, etag, checksums: checksum::read!(part)? });
    }
    Ok(parts)
}

/// The checksum that the client expects of the whole object.
fn expected(input: &CompleteMultipartUploadInput, part_count: usize) -> Answer<Option<Checksum>> {
    let fields = Fields {
        crc32: input.checksum_crc32.clone(),
        crc32c: input.checksum_crc32c.clone(),
        crc64nvme: input.checksum_crc64nvme.clone(),
        sha1: input.checksum_sha1.clone(),
        sha256: input.checksum_sha256.clone(),
    };
    let is_off =
        |text: &str| text.split_once('-').is_some_and(|(_, n)| n != part_count.to_string());
    if fields.clone().headers().any(|(_, text)| is_off(&text)) {
        return Err(bad_digest());
    }
    let mut found = fields.parse()?;
    if found.len() > 1 {
        let message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not \
            allowed.";
        return Err(invalid_request(message).into());
    }
    Ok(found.pop())
}

fn bad_digest() -> Failure {
    let message = "The checksum you specified did not match the calculated checksum.";
    bad_request("BadDigest", message).into()
}

/// Where the object is, by the name that the client used for this node.
fn location<Input>(call: &Call<Input>, bucket: &str, name: &str) -> String {
    let path = format!("/{bucket}/{}", percent_encode(name));
    match call.header(HOST.as_str()) {
        Some(host) => {
            let scheme = call.uri.scheme_str().unwrap_or("http");
            format!("{scheme}://{host}{path}")
        }
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: i32, tag: &str) -> dto::CompletedPart {
        dto::CompletedPart {
            part_number: Some(number),
            e_tag: Some(dto::ETag::Strong(tag.to_owned())),
            ..dto::CompletedPart::default()
        }
    }

    #[track_caller]
    fn check_refused(listed: &[dto::CompletedPart], code: &str) {
        assert_eq!(parts(listed).unwrap_err().api().code, code);
    }

    #[test]
    fn parts_ascend_and_are_complete() {
        let read = parts(&[part(1, "a-1"), part(3, "\"b-1\""), part(10_000, "c-1")]).unwrap();
        let seen: Vec<_> = read.iter().map(|it| (it.number, it.etag.as_str())).collect();
        assert_eq!(seen, [(1, "a-1"), (3, "b-1"), (10_000, "c-1")]);
        check_refused(&[], "MalformedXML");
        check_refused(&[part(2, "a"), part(1, "b")], "InvalidPartOrder");
        check_refused(&[part(2, "a"), part(2, "a")], "InvalidPartOrder");
        check_refused(&[part(0, "a")], "InvalidArgument");
        check_refused(&[part(10_001, "a")], "InvalidArgument");
        check_refused(&[dto::CompletedPart { e_tag: None, ..part(1, "a") }], "MalformedXML");
        check_refused(&[dto::CompletedPart { part_number: None, ..part(1, "a") }], "MalformedXML");
        let many: Vec<_> = (1..=10_001).map(|number| part(number, "a")).collect();
        check_refused(&many, "MalformedXML");
    }

    #[test]
    fn a_whole_checksum_must_fit_the_parts() {
        let asked = |text: &str| CompleteMultipartUploadInput {
            checksum_crc32: Some(text.to_owned()),
            ..CompleteMultipartUploadInput::default()
        };
        assert_eq!(expected(&asked("AAAAAA=="), 3).unwrap().unwrap().value, [0; 4]);
        assert!(expected(&asked("AAAAAA==-3"), 3).unwrap().is_some());
        assert_eq!(expected(&asked("AAAAAA==-2"), 3).unwrap_err().api().code, "BadDigest");
        assert_eq!(expected(&asked("AAAA"), 3).unwrap_err().api().code, "InvalidRequest");
        let both = CompleteMultipartUploadInput {
            checksum_sha1: Some("AAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned()),
            ..asked("AAAAAA==")
        };
        assert_eq!(expected(&both, 1).unwrap_err().api().code, "InvalidRequest");
    }

    #[test]
    fn a_failure_names_what_the_client_said() {
        let told = |kind, checksum, object, open| {
            let cause = kluis_storage::Error::new(kind, "test");
            Said { checksum, object }.explain(&cause, open).api().code.to_string()
        };
        assert_eq!(told(ErrorKind::Body, true, false, true), "BadDigest");
        assert_eq!(told(ErrorKind::Body, false, false, true), "InvalidRequest");
        assert_eq!(told(ErrorKind::NotFound, false, true, true), "NoSuchKey");
        assert_eq!(told(ErrorKind::NotFound, false, true, false), "NoSuchUpload");
        assert_eq!(told(ErrorKind::NotFound, false, false, true), "NoSuchUpload");
        assert_eq!(told(ErrorKind::InvalidPart, true, true, true), "InvalidPart");
    }
}
