//! PutObject.
//!
//! Owns: reading the request and what every write of an object refuses. Knows nothing of: how bytes
//! are stored.

use kluis_storage::{
    BucketInfo, ChecksumAlgorithm, ETagRule, ObjectHeaders, PutRequest, SseMode, Tags,
};
use s3s::S3Response;
use s3s::dto::{ETag, PutObjectInput, PutObjectOutput};

use super::checksum::{self, Fields};
use super::error::{Answer, Subject, bad_request, invalid_request, not_implemented};
use super::sse::{self, SseRequest};
use super::{Call, S3Api, acl, body, headers, metadata, object_key, tagging};
use crate::auth::User;
use crate::policy;

/// Storage classes that AWS knows. One is stored; the others cost the same here as everywhere else
/// in this store, so a client is told that it gets none of them.
const STORAGE_CLASS: &str = "STANDARD";

/// Answers PutObject.
pub(super) async fn put_object(
    api: &S3Api,
    mut call: Call<PutObjectInput>,
) -> Answer<S3Response<PutObjectOutput>> {
    let right = api.on_bucket::<policy::PutObject, _>(&call, &call.input.bucket).await?;
    if call.input.write_offset_bytes.is_some() {
        return Err(not_implemented("x-amz-write-offset-bytes").into());
    }
    let object_key = object_key(&call.input.key)?;
    let written = api.written(&call, right.bucket(), right.user())?;
    let wanted = digests(right.bucket(), written.sse.choice.mode);
    let stream = call.input.body.take();
    let body = body::upload(&call, stream, &wanted)?;
    let request = PutRequest {
        bucket: right.bucket(),
        object_key: &object_key,
        headers: written.headers,
        tags: written.tags,
        sse: written.sse.choice,
        conditions: headers::write_conditions(&call),
        body,
    };
    let receipt = api
        .engine
        .put(right.purpose(), request)
        .await
        .map_err(|cause| Subject::Object.failed(&cause))?;
    let customer = written.sse.customer.as_ref();
    let reply = api.sse_reply(receipt.sse, receipt.tenant_key, right.user(), customer);
    let mut output = PutObjectOutput {
        checksum_type: Some(checksum::type_element(receipt.checksum_type)),
        e_tag: Some(ETag::Strong(receipt.etag.as_str().to_owned())),
        ..PutObjectOutput::default()
    };
    sse::fill!(output, reply);
    checksum::fill!(output, Fields::full(&receipt.checksums));
    Ok(S3Response::new(output))
}

/// What every write of an object says about it beside its bytes.
pub(super) struct Written {
    pub(super) headers: ObjectHeaders,
    pub(super) tags: Tags,
    pub(super) sse: SseRequest,
}

impl S3Api {
    /// Reads the headers of PutObject, CopyObject and CreateMultipartUpload.
    pub(super) fn written<Input>(
        &self,
        call: &Call<Input>,
        bucket: &BucketInfo,
        user: &User,
    ) -> Answer<Written> {
        acl::check_request(call)?;
        check_storage_class(call.header("x-amz-storage-class"))?;
        refuse_lock(call)?;
        Ok(Written {
            headers: metadata::of_request(call)?,
            tags: tagging::of_request(call)?,
            sse: self.sse_request(call, bucket, user)?,
        })
    }
}

/// The digests that an object keeps: always CRC64NVME, and MD5 where the ETag owes one
/// (docs/ARCHITECTURE.md, "ETag"). A digest that the client sends is kept as well.
pub(super) fn digests(bucket: &BucketInfo, sse: SseMode) -> Vec<ChecksumAlgorithm> {
    let mut wanted = vec![ChecksumAlgorithm::Crc64Nvme];
    if owes_md5(bucket.etag_rule, sse) {
        wanted.push(ChecksumAlgorithm::Md5);
    }
    wanted
}

fn owes_md5(rule: ETagRule, sse: SseMode) -> bool {
    match rule {
        ETagRule::Auto => sse == SseMode::S3,
        ETagRule::Md5 => true,
        ETagRule::Opaque => false,
    }
}

fn check_storage_class(class: Option<&str>) -> Answer<()> {
    match class {
        None | Some(STORAGE_CLASS) => Ok(()),
        Some(other) => {
            let message = "The storage class you specified is not valid";
            Err(bad_request("InvalidStorageClass", message)
                .with("StorageClassRequested", other)
                .into())
        }
    }
}

/// Object lock is not there, so an object that asks for it must not be stored without.
fn refuse_lock<Input>(call: &Call<Input>) -> Answer<()> {
    let named = [
        "x-amz-object-lock-mode",
        "x-amz-object-lock-retain-until-date",
        "x-amz-object-lock-legal-hold",
    ];
    if named.into_iter().any(|name| call.has_header(name)) {
        return Err(invalid_request("Bucket is missing Object Lock Configuration").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_is_owed_by_rule_and_by_mode() {
        for (rule, sse, want) in [
            (ETagRule::Auto, SseMode::Kms, false),
            (ETagRule::Auto, SseMode::S3, true),
            (ETagRule::Md5, SseMode::Kms, true),
            (ETagRule::Md5, SseMode::S3, true),
            (ETagRule::Opaque, SseMode::Kms, false),
            (ETagRule::Opaque, SseMode::S3, false),
        ] {
            assert_eq!(owes_md5(rule, sse), want, "{rule:?} {sse:?}");
        }
    }

    #[test]
    fn one_storage_class_is_stored() {
        assert!(check_storage_class(None).is_ok());
        assert!(check_storage_class(Some("STANDARD")).is_ok());
        for class in ["GLACIER", "STANDARD_IA", "REDUCED_REDUNDANCY", "standard", "x"] {
            let failure = check_storage_class(Some(class)).unwrap_err();
            assert_eq!(failure.api().code, "InvalidStorageClass", "{class}");
        }
    }
}
