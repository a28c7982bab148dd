//! CopyObject.
//!
//! Owns: the source of a copy, the two directives, the copy that would change nothing. Knows
//! nothing of: whether bytes move; inside a tenant they rarely do.

use kluis_storage::{BucketInfo, CopyRequest, ObjectKey};
use s3s::S3Response;
use s3s::dto::{CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, ETag};

use super::checksum::{self, Fields};
use super::customer::Sent;
use super::error::{Answer, Failure, Subject, invalid_argument, invalid_request, not_implemented};
use super::put::Written;
use super::{Call, S3Api, check_version, customer, headers, object_key, sse, time};
use crate::policy::{Authorised, GetObject, PutObject};

/// Asks for new ciphertext where a copy would share its source's; docs/ARCHITECTURE.md, "Encryption
/// modes".
const REENCRYPT: &str = "x-kluis-reencrypt";

/// Where a copy comes from: the right to read it, and its name.
pub(super) struct Source {
    pub(super) right: Authorised<GetObject>,
    pub(super) object_key: ObjectKey,
    /// The key that the client sent for it.
    pub(super) customer: Option<Sent>,
}

impl Source {
    /// The pair that the engine takes.
    pub(super) fn named(&self) -> (&BucketInfo, &ObjectKey) {
        (self.right.bucket(), &self.object_key)
    }
}

impl S3Api {
    /// Finds the source that `x-amz-copy-source` names, in the caller's own tenant.
    pub(super) async fn copy_source<Input>(
        &self,
        call: &Call<Input>,
        source: &CopySource,
    ) -> Answer<Source> {
        let CopySource::Bucket { bucket, key: name, version_id } = source else {
            return Err(not_implemented("x-amz-copy-source with an ARN").into());
        };
        let right = self
            .look_up::<GetObject, _>(call, bucket, "x-amz-source-expected-bucket-owner")
            .await?;
        check_version(version_id.as_deref())?;
        Ok(Source { right, object_key: object_key(name)?, customer: call.customer.source()? })
    }
}

/// Answers CopyObject.
pub(super) async fn copy_object(
    api: &S3Api,
    call: Call<CopyObjectInput>,
) -> Answer<S3Response<CopyObjectOutput>> {
    let right = api.on_bucket::<PutObject, _>(&call, &call.input.bucket).await?;
    let source = api.copy_source(&call, &call.input.copy_source).await?;
    let object_key = object_key(&call.input.key)?;
    let written = api.written(&call, right.bucket(), right.user())?;
    let directives = Directives::read(&call)?;
    let reencrypt = reencrypt(call.header(REENCRYPT))?;
    let is_same = source.right.bucket().id == right.bucket().id && source.object_key == object_key;
    if is_same && !reencrypt && !changes_something(&call, directives, &written) {
        return Err(unchanged());
    }
    let algorithm = call.input.checksum_algorithm.as_ref();
    let algorithm = algorithm.map(|text| checksum::algorithm(text.as_str())).transpose()?;
    let request = CopyRequest {
        source: source.named(),
        source_purpose: source.right.purpose(),
        source_conditions: headers::source_conditions(&call),
        source_customer_key: customer::key_of(source.customer.as_ref()),
        bucket: right.bucket(),
        object_key: &object_key,
        headers: directives.replace_metadata.then_some(written.headers),
        tags: directives.replace_tags.then_some(written.tags),
        sse: written.sse.choice,
        conditions: headers::write_conditions(&call),
        checksum: algorithm,
        reencrypt,
    };
    let receipt = api
        .engine
        .copy(right.purpose(), request)
        .await
        .map_err(|cause| Subject::CopySource.failed(&cause))?;
    let customer = written.sse.customer.as_ref();
    let reply = api.sse_reply(receipt.sse, receipt.tenant_key, right.user(), customer);
    let mut result = CopyObjectResult {
        checksum_type: Some(checksum::type_element(receipt.checksum_type)),
        e_tag: Some(ETag::Strong(receipt.etag.as_str().to_owned())),
        last_modified: Some(time::timestamp(receipt.modified_ms)),
        ..CopyObjectResult::default()
    };
    checksum::fill!(result, Fields::full(&receipt.checksums));
    let mut output =
        CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() };
    sse::fill!(output, reply);
    Ok(S3Response::new(output))
}

/// Whether a copy has to be encrypted anew under a data key of its own.
fn reencrypt(value: Option<&str>) -> Answer<bool> {
    match value {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            let message = "x-kluis-reencrypt is true or false";
            Err(invalid_argument(message, REENCRYPT, other).into())
        }
    }
}

/// Whether metadata and tags come from the request or from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Directives {
    replace_metadata: bool,
    replace_tags: bool,
}

impl Directives {
    fn read(call: &Call<CopyObjectInput>) -> Answer<Self> {
        let metadata = call.input.metadata_directive.as_ref();
        let tags = call.input.tagging_directive.as_ref();
        Ok(Self {
            replace_metadata: is_replace(
                "x-amz-metadata-directive",
                metadata.map(s3s::dto::MetadataDirective::as_str),
            )?,
            replace_tags: is_replace(
                "x-amz-tagging-directive",
                tags.map(s3s::dto::TaggingDirective::as_str),
            )?,
        })
    }
}

fn is_replace(name: &'static str, directive: Option<&str>) -> Answer<bool> {
    match directive {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(other) => Err(invalid_argument("Unknown directive.", name, other).into()),
    }
}

/// What AWS counts as a change of an object that is copied onto itself.
fn changes_something(
    call: &Call<CopyObjectInput>,
    directives: Directives,
    written: &Written,
) -> bool {
    directives.replace_metadata
        || written.sse.asked
        || call.has_header("x-amz-storage-class")
        || call.has_header("x-amz-website-redirect-location")
}

fn unchanged() -> Failure {
    let message = "This copy request is illegal because it is trying to copy an object to itself \
        without changing the object's metadata, storage class, website redirect location or \
        encryption attributes.";
    invalid_request(message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_copy_or_replace() {
        assert!(!is_replace("x", None).unwrap());
        assert!(!is_replace("x", Some("COPY")).unwrap());
        assert!(is_replace("x", Some("REPLACE")).unwrap());
        for text in ["replace", "MERGE", ""] {
            let failure = is_replace("x", Some(text)).unwrap_err();
            assert_eq!(failure.api().code, "InvalidArgument", "{text}");
        }
    }
}
