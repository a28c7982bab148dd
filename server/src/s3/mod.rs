//! The S3 API on top of the engine: one verb a file, each parses, calls and answers.
//!
//! Owns: what S3 promises beyond storing bytes: names, headers, codes, paging, reply fields.
//! Knows nothing of: signatures, HTTP framing, keys, bytes on disk.
//!
//! A request arrives through [`door::Door`], s3s turns it into a typed input, [`verbs`] names the
//! function that serves it, and [`crate::policy`] decides before the engine is called.
//!
//! Invariants
//! - Every call of the engine carries the purpose of an [`Authorised`].
//! - HEAD and GET answer from one function ([`object`]).
//! - No failure but through [`error`]; one match turns what the engine says into an S3 code.
//!   Behaviour: docs/ARCHITECTURE.md, "S3".

mod acl;
mod attributes;
mod body;
mod bucket;
mod checksum;
mod complete;
mod copy;
mod customer;
mod defaults;
mod delete;
pub(crate) mod door;
mod encoding;
mod encryption;
mod error;
mod etag;
mod get;
mod head;
mod headers;
mod list;
mod metadata;
mod multipart;
mod object;
mod put;
mod rfc2047;
mod sse;
mod tagging;
mod time;
mod token;
mod uploads;
mod verbs;
mod versions;

use std::sync::Arc;

use http::{Extensions, HeaderMap, Uri};
use kluis_kms::RequestId;
use kluis_storage::{BucketInfo, BucketName, ETagRule, Engine, ObjectKey};
use s3s::S3Request;

use crate::auth::Caller;
use crate::body::DigestHandle;
use crate::key_policy::{KeyPolicies, Origin};
use crate::policy::{self, Asked, Authorised, Operation};

use self::error::{Answer, Subject, bad_request, invalid_argument, no_such_version};

/// The S3 API of one node.
pub(crate) struct S3Api {
    engine: Engine,
    region: Arc<str>,
    etag_rule: ETagRule,
    key_policies: Arc<KeyPolicies>,
}

impl S3Api {
    /// The API of `engine` in `region`. `etag_rule` is the rule of buckets made without one;
    /// `key_policies` decide who may use which key.
    pub(crate) fn new(
        engine: Engine,
        region: impl Into<Arc<str>>,
        etag_rule: ETagRule,
        key_policies: Arc<KeyPolicies>,
    ) -> Self {
        Self { engine, region: region.into(), etag_rule, key_policies }
    }

    /// What a call is decided on.
    fn asked<'a, Input>(&'a self, call: &'a Call<Input>) -> Asked<'a> {
        Asked {
            caller: &call.caller,
            request_id: &call.request_id,
            origin: call.origin,
            key_policies: &self.key_policies,
        }
    }

    /// Looks a bucket up in the caller's tenant and decides on `Op`.
    async fn on_bucket<Op, Input>(&self, call: &Call<Input>, name: &str) -> Answer<Authorised<Op>>
    where
        Op: Operation<Target = BucketInfo>,
    {
        self.look_up(call, name, "x-amz-expected-bucket-owner").await
    }

    /// As [`Self::on_bucket`], with the header that names the account the caller expects.
    async fn look_up<Op, Input>(
        &self,
        call: &Call<Input>,
        name: &str,
        owner_header: &'static str,
    ) -> Answer<Authorised<Op>>
    where
        Op: Operation<Target = BucketInfo>,
    {
        let right = policy::on_account::<policy::LookUpBucket>(self.asked(call))?;
        // A name that no bucket can have names no bucket.
        let name = BucketName::new(name).map_err(|_| error::no_such_bucket())?;
        let bucket = self
            .engine
            .head_bucket(right.purpose(), &name)
            .await
            .map_err(|cause| Subject::Bucket.failed(&cause))?;
        let account = right.user().account_id.to_string();
        check_expected_owner(call.header(owner_header), &account)?;
        Ok(policy::on_bucket(self.asked(call), bucket)?)
    }
}

/// What a verb is given: its typed input, who calls, and what s3s does not parse.
struct Call<Input> {
    input: Input,
    caller: Caller,
    request_id: RequestId,
    origin: Origin,
    digests: Option<DigestHandle>,
    headers: HeaderMap,
    /// Headers that s3s would refuse where AWS does not; see [`headers::lift`].
    lifted: HeaderMap,
    /// The keys that the client sent; see [`customer`].
    customer: customer::Keys,
    /// The document of PutBucketEncryption; see [`encryption`].
    encryption: Option<Arc<encryption::Document>>,
    uri: Uri,
}

impl<Input> Call<Input> {
    fn new(request: S3Request<Input>) -> Self {
        let S3Request { input, uri, headers, mut extensions, .. } = request;
        Self {
            input,
            caller: take(&mut extensions).unwrap_or(Caller::Anonymous),
            request_id: take(&mut extensions).unwrap_or_else(|| RequestId::from("-")),
            origin: take(&mut extensions).unwrap_or_default(),
            digests: take(&mut extensions),
            headers,
            lifted: take::<headers::Lifted>(&mut extensions)
                .map(|lifted| lifted.0)
                .unwrap_or_default(),
            customer: take(&mut extensions).unwrap_or_default(),
            encryption: take(&mut extensions),
            uri,
        }
    }

    /// The text of a header, or nothing when it is absent, empty or not UTF-8.
    fn header(&self, name: &str) -> Option<&str> {
        let value = self.lifted.get(name).or_else(|| self.headers.get(name))?;
        std::str::from_utf8(value.as_bytes()).ok().map(str::trim).filter(|text| !text.is_empty())
    }

    /// Whether a header is there, whatever it holds.
    fn has_header(&self, name: &str) -> bool {
        self.lifted.contains_key(name) || self.headers.contains_key(name)
    }
}

fn take<T: Send + Sync + 'static>(extensions: &mut Extensions) -> Option<T> {
    extensions.remove::<T>()
}

/// The object that a request names.
fn object_key(name: &str) -> Answer<ObjectKey> {
    ObjectKey::new(name).map_err(|_| {
        bad_request("KeyTooLongError", "Your key is too long")
            .with("Size", name.len().to_string())
            .with("MaxSizeAllowed", kluis_storage::OBJECT_KEY_BYTES_MAX.to_string())
            .into()
    })
}

/// Refuses a `versionId` other than that of the one version an unversioned object has.
fn check_version(version: Option<&str>) -> Answer<()> {
    match version {
        None | Some("null") => Ok(()),
        Some("") => {
            Err(invalid_argument("Version id cannot be the empty string", "versionId", "").into())
        }
        // AWS knows the form of its own ids: what has it is absent, the rest is malformed.
        Some(text) if text.len() == 32 && text.bytes().all(is_version_byte) => {
            Err(no_such_version(text).into())
        }
        Some(text) => {
            Err(invalid_argument("Invalid version id specified", "versionId", text).into())
        }
    }
}

fn is_version_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Compares the account that the caller expects to own a bucket with the one that does.
fn check_expected_owner(expected: Option<&str>, account: &str) -> Answer<()> {
    let Some(expected) = expected else {
        return Ok(());
    };
    if expected == account {
        return Ok(());
    }
    if expected.len() != 12 || !expected.bytes().all(|byte| byte.is_ascii_digit()) {
        let message = "The value of the expected bucket owner parameter must be an AWS account id";
        return Err(bad_request("InvalidBucketOwnerAWSAccountID", message).into());
    }
    Err(error::access_denied().into())
}

#[cfg(test)]
mod tests;
