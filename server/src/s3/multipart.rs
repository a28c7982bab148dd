//! CreateMultipartUpload, UploadPart, UploadPartCopy.
//!
//! Owns: reading these requests. Completing is in [`super::complete`], listing and aborting in
//! [`super::uploads`]. Knows nothing of: where parts lie.

use kluis_storage::{
    ChecksumAlgorithm, Conditions, CreateUpload, ErrorKind, GetRequest, PartReceipt, RangeSpec,
    SseMode, UploadId, UploadInfo, UploadPart, UploadPartCopy,
};
use s3s::S3Response;
use s3s::dto::{
    CopyPartResult, CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag,
    UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};

use super::checksum::{self, Fields};
use super::copy::Source;
use super::error::{Answer, Failure, Subject, bad_request, invalid_request, no_such_upload};
use super::{Call, S3Api, body, customer, headers, object_key, put, sse, time};
use crate::policy::PutObject;

/// Answers CreateMultipartUpload.
pub(super) async fn create_multipart_upload(
    api: &S3Api,
    call: Call<CreateMultipartUploadInput>,
) -> Answer<S3Response<CreateMultipartUploadOutput>> {
    let input = &call.input;
    let right = api.on_bucket::<PutObject, _>(&call, &input.bucket).await?;
    let object_key = object_key(&input.key)?;
    let written = api.written(&call, right.bucket(), right.user())?;
    let asked = checksum::of_upload(
        input.checksum_algorithm.as_ref().map(s3s::dto::ChecksumAlgorithm::as_str),
        input.checksum_type.as_ref().map(s3s::dto::ChecksumType::as_str),
    )?;
    let request = CreateUpload {
        bucket: right.bucket(),
        object_key: &object_key,
        headers: written.headers,
        tags: written.tags,
        sse: written.sse.choice,
        // Where the client names nothing, the engine joins the CRC64NVME that every part gets.
        checksum: asked,
    };
    let upload = api
        .engine
        .create_upload(right.purpose(), request)
        .await
        .map_err(|cause| Subject::Bucket.failed(&cause))?;
    let customer = written.sse.customer.as_ref();
    let reply = api.sse_reply(upload.sse, upload.tenant_key, right.user(), customer);
    let mut output = CreateMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        upload_id: Some(upload.upload.to_string()),
        checksum_algorithm: asked.and_then(|(it, _)| checksum::algorithm_element(it)),
        checksum_type: asked.map(|(_, it)| checksum::type_element(it)),
        ..CreateMultipartUploadOutput::default()
    };
    sse::fill!(output, reply);
    Ok(S3Response::new(output))
}

/// Answers UploadPart.
pub(super) async fn upload_part(
    api: &S3Api,
    mut call: Call<UploadPartInput>,
) -> Answer<S3Response<UploadPartOutput>> {
    let right = api.on_bucket::<PutObject, _>(&call, &call.input.bucket).await?;
    let customer = call.customer.own()?;
    let object_key = object_key(&call.input.key)?;
    let part_number = headers::part_number(call.input.part_number)?;
    let upload = upload_id(&call.input.upload_id)?;
    let info = api
        .engine
        .upload_info(right.purpose(), right.bucket(), &object_key, upload)
        .await
        .map_err(|cause| Subject::Upload.failed(&cause))?;
    check_algorithm(&info, |name| call.has_header(name))?;
    let mut wanted = put::digests(right.bucket(), info.sse);
    wanted.extend(info.checksum.map(|(algorithm, _)| algorithm));
    let stream = call.input.body.take();
    let body = body::upload(&call, stream, &wanted)?;
    let request = UploadPart {
        bucket: right.bucket(),
        object_key: &object_key,
        upload,
        part_number,
        customer_key: customer::key_of(customer.as_ref()),
        body,
    };
    let receipt = api
        .engine
        .upload_part(right.purpose(), request)
        .await
        .map_err(|cause| Subject::Upload.failed(&cause))?;
    let reply = api.sse_reply(receipt.sse, receipt.tenant_key, right.user(), customer.as_ref());
    let mut output = UploadPartOutput {
        e_tag: Some(ETag::Strong(receipt.etag.as_str().to_owned())),
        ..UploadPartOutput::default()
    };
    sse::fill!(output, reply);
    checksum::fill!(output, Fields::full(&receipt.checksums));
    Ok(S3Response::new(output))
}

/// Answers UploadPartCopy.
pub(super) async fn upload_part_copy(
    api: &S3Api,
    call: Call<UploadPartCopyInput>,
) -> Answer<S3Response<UploadPartCopyOutput>> {
    let input = &call.input;
    let right = api.on_bucket::<PutObject, _>(&call, &input.bucket).await?;
    let source = api.copy_source(&call, &input.copy_source).await?;
    let object_key = object_key(&input.key)?;
    let part_number = headers::part_number(input.part_number)?;
    let upload = upload_id(&input.upload_id)?;
    let customer = call.customer.own()?;
    // Looked up first, so that what is missing below is the source.
    let info = api
        .engine
        .upload_info(right.purpose(), right.bucket(), &object_key, upload)
        .await
        .map_err(|cause| Subject::Upload.failed(&cause))?;
    check_customer_key(&info, customer.is_some())?;
    let range = match call.header("x-amz-copy-source-range") {
        Some(text) => Some(source_range(api, &source, headers::copy_range(text)?).await?),
        None => None,
    };
    let request = UploadPartCopy {
        source: source.named(),
        source_purpose: source.right.purpose(),
        source_conditions: headers::source_conditions(&call),
        source_customer_key: customer::key_of(source.customer.as_ref()),
        range,
        bucket: right.bucket(),
        object_key: &object_key,
        upload,
        part_number,
        customer_key: customer::key_of(customer.as_ref()),
    };
    let receipt = api
        .engine
        .upload_part_copy(right.purpose(), request)
        .await
        .map_err(|cause| Subject::CopySource.failed(&cause))?;
    let reply = api.sse_reply(receipt.sse, receipt.tenant_key, right.user(), customer.as_ref());
    let mut output = UploadPartCopyOutput {
        copy_part_result: Some(copy_result(&receipt)),
        ..UploadPartCopyOutput::default()
    };
    sse::fill!(output, reply);
    Ok(S3Response::new(output))
}

/// Told before the source is read, so that a later complaint about a key is about the source's.
fn check_customer_key(info: &UploadInfo, sent: bool) -> Answer<()> {
    let kind = match (info.sse == SseMode::Customer, sent) {
        (true, false) => ErrorKind::CustomerKeyMissing,
        (false, true) => ErrorKind::CustomerKeyUnexpected,
        _ => return Ok(()),
    };
    Err(Subject::Upload.failed(&kluis_storage::Error::new(kind, "copy a part")))
}

fn copy_result(receipt: &PartReceipt) -> CopyPartResult {
    let mut result = CopyPartResult {
        e_tag: Some(ETag::Strong(receipt.etag.as_str().to_owned())),
        last_modified: Some(time::timestamp(receipt.modified_ms)),
        ..CopyPartResult::default()
    };
    checksum::fill!(result, Fields::full(&receipt.checksums));
    result
}

/// A range of a copy must lie inside its source; unlike that of a GET it is not cut to fit.
async fn source_range(
    api: &S3Api,
    source: &Source,
    (first, last): (u64, u64),
) -> Answer<RangeSpec> {
    let (bucket, object_key) = source.named();
    let request = GetRequest {
        bucket,
        object_key,
        conditions: Conditions::default(),
        range: None,
        part_number: None,
        customer_key: customer::key_of(source.customer.as_ref()),
    };
    let found = api.engine.head(source.right.purpose(), request).await;
    let (info, _) = found.map_err(|cause| Subject::CopySource.failed(&cause))?;
    if last >= info.size {
        let message =
            format!("Range specified is not valid for source object of size: {}", info.size);
        return Err(bad_request("InvalidArgument", message).into());
    }
    Ok(RangeSpec::From { first, last: Some(last) })
}

/// The upload that a request names. What is no id is the id of no upload.
pub(super) fn upload_id(text: &str) -> Answer<UploadId> {
    text.parse().map_err(|_| no_such_upload().into())
}

/// A part of an upload with a named algorithm must not bring a checksum by another.
fn check_algorithm(info: &UploadInfo, has_header: impl Fn(&str) -> bool) -> Answer<()> {
    let Some((expected, _)) = info.checksum else {
        return Ok(());
    };
    let other = checksum::HEADERS
        .iter()
        .find(|(name, algorithm)| *algorithm != expected && has_header(name));
    match other {
        None => Ok(()),
        Some((_, found)) => Err(mismatch(expected, *found)),
    }
}

fn mismatch(expected: ChecksumAlgorithm, found: ChecksumAlgorithm) -> Failure {
    let name =
        |algorithm| checksum::algorithm_name(algorithm).unwrap_or("MD5").to_ascii_lowercase();
    let message = format!(
        "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
        name(expected),
        name(found),
    );
    invalid_request(message).into()
}

#[cfg(test)]
mod tests {
    use kluis_kms::TenantKeyId;
    use kluis_storage::ChecksumType;

    use super::*;

    fn info(checksum: Option<(ChecksumAlgorithm, ChecksumType)>) -> UploadInfo {
        UploadInfo {
            upload: UploadId::from_bytes([7; 16]),
            initiated_ms: 0,
            checksum,
            sse: SseMode::Kms,
            tenant_key: TenantKeyId::from_bytes([1; 16]),
        }
    }

    #[test]
    fn a_part_may_not_bring_another_algorithm() {
        let sha = info(Some((ChecksumAlgorithm::Sha256, ChecksumType::Composite)));
        let crc = info(Some((ChecksumAlgorithm::Crc64Nvme, ChecksumType::FullObject)));
        let brings = |wanted: &'static str| move |name: &str| name == wanted;
        assert!(check_algorithm(&sha, brings("x-amz-checksum-sha256")).is_ok());
        assert!(check_algorithm(&sha, |_| false).is_ok());
        let failure = check_algorithm(&sha, brings("x-amz-checksum-crc32")).unwrap_err();
        assert_eq!(failure.api().code, "InvalidRequest");
        assert!(failure.api().message.contains("expected checksum Type: sha256"));
        assert!(check_algorithm(&crc, brings("x-amz-checksum-crc32")).is_err());
        assert!(check_algorithm(&info(None), brings("x-amz-checksum-crc32")).is_ok());
    }

    #[test]
    fn upload_ids_are_hexadecimal() {
        let id = UploadId::from_bytes([0xab; 16]);
        assert_eq!(upload_id(&id.to_string()).unwrap(), id);
        for text in ["", "abc", "not-an-upload", &"AB".repeat(16)] {
            assert_eq!(upload_id(text).unwrap_err().api().code, "NoSuchUpload", "{text}");
        }
    }
}
