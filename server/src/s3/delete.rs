//! DeleteObject and DeleteObjects.
//!
//! Owns: reading the requests, one line of answer for each name. Knows nothing of: what is freed.

use kluis_storage::{Conditions, DeleteRequest, ETagMatch, ErrorKind};
use s3s::S3Response;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject,
    Error, ObjectIdentifier,
};

use super::error::{Answer, Failure, Subject, invalid_request, malformed_xml};
use super::{Call, S3Api, check_version, etag, headers, object_key, time};
use crate::body::DigestHandle;
use crate::policy::{Authorised, DeleteObject};

/// The most names in one DeleteObjects.
const NAMES_MAX: usize = 1_000;

/// Answers DeleteObject.
pub(super) async fn delete_object(
    api: &S3Api,
    call: Call<DeleteObjectInput>,
) -> Answer<S3Response<DeleteObjectOutput>> {
    let right = api.on_bucket::<DeleteObject, _>(&call, &call.input.bucket).await?;
    check_version(call.input.version_id.as_deref())?;
    let time = call.input.if_match_last_modified_time.as_ref();
    let conditions = Conditions {
        if_match_size: size(call.input.if_match_size)?,
        if_match_modified_ms: time.and_then(time::unix_ms),
        ..headers::write_conditions(&call)
    };
    api.delete(&right, &call.input.key, conditions).await?;
    Ok(S3Response::new(DeleteObjectOutput::default()))
}

/// Answers DeleteObjects: 200, with what became of each name.
pub(super) async fn delete_objects(
    api: &S3Api,
    call: Call<DeleteObjectsInput>,
) -> Answer<S3Response<DeleteObjectsOutput>> {
    let right = api.on_bucket::<DeleteObject, _>(&call, &call.input.bucket).await?;
    require_digest(&call)?;
    let names = &call.input.delete.objects;
    if names.is_empty() || names.len() > NAMES_MAX {
        return Err(malformed_xml().into());
    }
    let quiet = call.input.delete.quiet.unwrap_or(false);
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for named in names {
        match one(api, &right, named).await {
            Ok(()) if quiet => {}
            Ok(()) => deleted.push(DeletedObject {
                key: Some(named.key.clone()),
                version_id: named.version_id.clone(),
                ..DeletedObject::default()
            }),
            Err(failure) => errors.push(error_line(named, &failure)),
        }
    }
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: Some(deleted),
        errors: Some(errors),
        request_charged: None,
    }))
}

async fn one(
    api: &S3Api,
    right: &Authorised<DeleteObject>,
    named: &ObjectIdentifier,
) -> Answer<()> {
    check_version(named.version_id.as_deref())?;
    let tag = named.e_tag.as_ref().map(|tag| match tag.value() {
        "*" => ETagMatch::Any,
        text => ETagMatch::OneOf(vec![etag::single(text)]),
    });
    let conditions = Conditions {
        if_match: tag,
        if_match_size: size(named.size)?,
        if_match_modified_ms: named.last_modified_time.as_ref().and_then(time::unix_ms),
        ..Conditions::default()
    };
    api.delete(right, &named.key, conditions).await
}

impl S3Api {
    async fn delete(
        &self,
        right: &Authorised<DeleteObject>,
        name: &str,
        conditions: Conditions,
    ) -> Answer<()> {
        let object_key = object_key(name)?;
        let unconditional = conditions.is_empty();
        let request = DeleteRequest { bucket: right.bucket(), object_key: &object_key, conditions };
        match self.engine.delete(right.purpose(), request).await {
            Ok(_) => Ok(()),
            // An object that is not there is deleted already, so it is the bucket that went.
            Err(cause) if unconditional && cause.kind() == ErrorKind::NotFound => {
                Err(Subject::Bucket.failed(&cause))
            }
            Err(cause) => Err(Subject::Object.failed(&cause)),
        }
    }
}

/// A size that a conditional delete expects.
fn size(expected: Option<i64>) -> Answer<Option<u64>> {
    expected
        .map(|size| {
            u64::try_from(size).map_err(|_| invalid_request("A size cannot be negative").into())
        })
        .transpose()
}

/// The list must carry a digest, by header or by trailer; the body's reader has verified it.
fn require_digest(call: &Call<DeleteObjectsInput>) -> Answer<()> {
    if call.digests.as_ref().is_some_and(DigestHandle::has_client_digest) {
        return Ok(());
    }
    let message = "Missing required header for this request: Content-MD5 OR x-amz-checksum-*";
    Err(invalid_request(message).into())
}

fn error_line(named: &ObjectIdentifier, failure: &Failure) -> Error {
    let error = failure.api();
    Error {
        code: Some(error.code.to_string()),
        key: Some(named.key.clone()),
        message: Some(error.message.to_string()),
        version_id: named.version_id.clone(),
    }
}
