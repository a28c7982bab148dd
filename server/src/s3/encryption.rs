//! PutBucketEncryption, GetBucketEncryption, DeleteBucketEncryption.
//!
//! Owns: the document, which s3s 0.14 knows without `BlockedEncryptionTypes`: it is read here
//! before s3s sees it ([`Document::take`]) and written here. Knows nothing of: what a write makes
//! of it; that is [`super::sse`]'s.
//!
//! Invariants
//! - A configuration that cannot be honoured as a whole changes nothing.
//! - Customers' keys are blocked unless the document says `NONE`, as AWS blocks them in buckets
//!   made since April 2026.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use kluis_storage::{BucketEncryption, DefaultEncryption, KEY_NAME_BYTES_MAX, SseMode};
use s3s::S3Response;
use s3s::dto::{
    DeleteBucketEncryptionInput, DeleteBucketEncryptionOutput, GetBucketEncryptionInput,
    GetBucketEncryptionOutput, PutBucketEncryptionInput, PutBucketEncryptionOutput,
    ServerSideEncryption,
};
use s3s::xml::{
    DeError, DeResult, Deserialize, Deserializer, SerResult, SerializeContent, Serializer,
};

use super::door::Finish;
use super::error::{
    Answer, Subject, internal_error, invalid_argument, invalid_request, malformed_xml,
};
use super::{Call, S3Api, sse};
use crate::error::ApiError;
use crate::policy;

const XMLNS: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
const ROOT: &str = "ServerSideEncryptionConfiguration";
/// What s3s is shown in place of the document.
const STAND_IN: &str =
    "<ServerSideEncryptionConfiguration><Rule></Rule></ServerSideEncryptionConfiguration>";
/// The encryption type that allows all others, and the one that can be blocked.
const NOTHING: &str = "NONE";
const CUSTOMER_KEYS: &str = "SSE-C";

/// The configuration as a client sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    /// Algorithm and key, where the rule has a default.
    default: Option<(String, Option<String>)>,
    bucket_key: Option<bool>,
    blocked: Option<Vec<String>>,
}

impl Document {
    /// Reads the document of a request, and leaves one that s3s knows in its place.
    ///
    /// # Errors
    /// `MalformedXML`; or none, when the body failed: its own error says more.
    pub(super) async fn take(
        request: &mut Request<s3s::Body>,
        bytes_max: usize,
    ) -> Result<(), Option<ApiError>> {
        let bytes = request.body_mut().store_all_limited(bytes_max).await.map_err(|_| None)?;
        let read = |bytes| {
            let mut xml = Deserializer::new(bytes);
            let document = Self::deserialize(&mut xml)?;
            xml.expect_eof()?;
            Ok::<_, DeError>(document)
        };
        let document = read(&bytes).map_err(|_| Some(malformed_xml()))?;
        request.extensions_mut().insert(Arc::new(document));
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(STAND_IN.len()));
        *request.body_mut() = s3s::Body::from(STAND_IN.to_owned());
        Ok(())
    }

    /// What the engine is to keep.
    fn configuration(&self) -> Answer<BucketEncryption> {
        let [rule] = self.rules.as_slice() else {
            return Err(malformed_xml().into());
        };
        let bucket_key = rule.bucket_key.unwrap_or(false);
        let customer_keys = match rule.blocked.as_deref() {
            None => false,
            Some(types) => match types.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                [NOTHING] => true,
                [CUSTOMER_KEYS] => false,
                _ => return Err(malformed_xml().into()),
            },
        };
        let Some((algorithm, key)) = &rule.default else {
            if rule.bucket_key.is_some() || rule.blocked.is_none() {
                return Err(malformed_xml().into());
            }
            return Ok(BucketEncryption { default: None, customer_keys });
        };
        let mode = sse::bucket_mode(algorithm)
            .map_err(|failure| failure.unwrap_or_else(|| malformed_xml().into()))?;
        let tenant_key = key.clone().unwrap_or_default();
        if mode == SseMode::S3 && !tenant_key.is_empty() {
            let message = "a KMSMasterKeyID is not applicable if the default sse algorithm is not \
                aws:kms or aws:kms:dsse";
            return Err(invalid_argument(message, "KMSMasterKeyID", &tenant_key).into());
        }
        if tenant_key.len() > KEY_NAME_BYTES_MAX {
            return Err(invalid_request("The name of the KMS key is too long").into());
        }
        let default = Some(DefaultEncryption { mode, tenant_key, bucket_key });
        Ok(BucketEncryption { default, customer_keys })
    }
}

impl<'xml> Deserialize<'xml> for Document {
    fn deserialize(xml: &mut Deserializer<'xml>) -> DeResult<Self> {
        xml.named_element(ROOT, |xml| {
            let mut rules = Vec::new();
            xml.for_each_element(|xml, name| match name {
                b"Rule" => {
                    rules.push(rule(xml)?);
                    Ok(())
                }
                _ => Err(DeError::UnexpectedTagName),
            })?;
            Ok(Self { rules })
        })
    }
}

fn rule(xml: &mut Deserializer<'_>) -> DeResult<Rule> {
    let mut rule = Rule::default();
    xml.for_each_element(|xml, name| match name {
        b"ApplyServerSideEncryptionByDefault" => once(&mut rule.default, default(xml)?),
        b"BucketKeyEnabled" => once(&mut rule.bucket_key, xml.content()?),
        b"BlockedEncryptionTypes" => once(&mut rule.blocked, blocked(xml)?),
        _ => Err(DeError::UnexpectedTagName),
    })?;
    Ok(rule)
}

fn default(xml: &mut Deserializer<'_>) -> DeResult<(String, Option<String>)> {
    let (mut algorithm, mut key) = (None, None);
    xml.for_each_element(|xml, name| match name {
        b"SSEAlgorithm" => once(&mut algorithm, xml.content()?),
        b"KMSMasterKeyID" => once(&mut key, xml.content()?),
        _ => Err(DeError::UnexpectedTagName),
    })?;
    Ok((algorithm.ok_or(DeError::MissingField)?, key))
}

fn blocked(xml: &mut Deserializer<'_>) -> DeResult<Vec<String>> {
    let mut types = Vec::new();
    xml.for_each_element(|xml, name| match name {
        b"EncryptionType" => {
            types.push(xml.content()?);
            Ok(())
        }
        _ => Err(DeError::UnexpectedTagName),
    })?;
    Ok(types)
}

fn once<T>(place: &mut Option<T>, value: T) -> DeResult<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(DeError::DuplicateField),
    }
}

/// Answers PutBucketEncryption. The key must be there now; whether it may be used is asked at each
/// write, and so is what an alias means.
pub(super) async fn put_bucket_encryption(
    api: &S3Api,
    call: Call<PutBucketEncryptionInput>,
) -> Answer<S3Response<PutBucketEncryptionOutput>> {
    let right =
        api.on_bucket::<policy::PutBucketConfiguration, _>(&call, &call.input.bucket).await?;
    // The door takes one off every such request.
    let document = call.encryption.as_ref().ok_or_else(internal_error)?;
    let configuration = document.configuration()?;
    let key = configuration.default.as_ref().map(|default| default.tenant_key.as_str());
    if let Some(name) = key.filter(|name| !name.is_empty()) {
        sse::find_key(&api.key_names(right.user()), name)?;
    }
    let done =
        api.engine.set_bucket_encryption(right.purpose(), right.bucket(), configuration).await;
    done.map_err(|cause| Subject::Bucket.failed(&cause))?;
    Ok(S3Response::new(PutBucketEncryptionOutput::default()))
}

/// Answers DeleteBucketEncryption: back to what a new bucket has.
pub(super) async fn delete_bucket_encryption(
    api: &S3Api,
    call: Call<DeleteBucketEncryptionInput>,
) -> Answer<S3Response<DeleteBucketEncryptionOutput>> {
    let right =
        api.on_bucket::<policy::PutBucketConfiguration, _>(&call, &call.input.bucket).await?;
    let none = BucketEncryption::default();
    let done = api.engine.set_bucket_encryption(right.purpose(), right.bucket(), none).await;
    done.map_err(|cause| Subject::Bucket.failed(&cause))?;
    Ok(S3Response::new(DeleteBucketEncryptionOutput::default()))
}

/// Answers GetBucketEncryption.
pub(super) async fn get_bucket_encryption(
    api: &S3Api,
    call: Call<GetBucketEncryptionInput>,
) -> Answer<S3Response<GetBucketEncryptionOutput>> {
    let right =
        api.on_bucket::<policy::GetBucketConfiguration, _>(&call, &call.input.bucket).await?;
    let found = &right.bucket().encryption;
    if *found == BucketEncryption::default() {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "ServerSideEncryptionConfigurationNotFoundError",
            "The server side encryption configuration was not found",
        )
        .into());
    }
    let document = write(found).map_err(|_| internal_error())?;
    let xml = HeaderValue::from_static("application/xml");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, xml)]);
    let mut response = S3Response::with_headers(GetBucketEncryptionOutput::default(), headers);
    response.extensions.insert(Finish::document(StatusCode::OK, document));
    Ok(response)
}

fn write(encryption: &BucketEncryption) -> Result<Vec<u8>, s3s::xml::SerError> {
    let mut bytes = Vec::with_capacity(512);
    let mut serializer = Serializer::new(&mut bytes);
    serializer.decl()?;
    serializer.content_with_ns(ROOT, XMLNS, &Configured(encryption))?;
    Ok(bytes)
}

struct Configured<'a>(&'a BucketEncryption);
struct ConfiguredRule<'a>(&'a BucketEncryption);
struct ConfiguredDefault<'a>(&'a DefaultEncryption);
struct Blocked(&'static str);

impl SerializeContent for Configured<'_> {
    fn serialize_content<W: std::io::Write>(&self, to: &mut Serializer<W>) -> SerResult {
        to.content("Rule", &ConfiguredRule(self.0))
    }
}

impl SerializeContent for ConfiguredRule<'_> {
    fn serialize_content<W: std::io::Write>(&self, to: &mut Serializer<W>) -> SerResult {
        if let Some(default) = &self.0.default {
            to.content("ApplyServerSideEncryptionByDefault", &ConfiguredDefault(default))?;
            to.content("BucketKeyEnabled", &default.bucket_key)?;
        }
        let blocked = if self.0.customer_keys { NOTHING } else { CUSTOMER_KEYS };
        to.content("BlockedEncryptionTypes", &Blocked(blocked))
    }
}

impl SerializeContent for ConfiguredDefault<'_> {
    fn serialize_content<W: std::io::Write>(&self, to: &mut Serializer<W>) -> SerResult {
        let algorithm = match self.0.mode {
            SseMode::S3 => ServerSideEncryption::AES256,
            _ => ServerSideEncryption::AWS_KMS,
        };
        to.content("SSEAlgorithm", algorithm)?;
        if !self.0.tenant_key.is_empty() {
            to.content("KMSMasterKeyID", self.0.tenant_key.as_str())?;
        }
        Ok(())
    }
}

impl SerializeContent for Blocked {
    fn serialize_content<W: std::io::Write>(&self, to: &mut Serializer<W>) -> SerResult {
        to.content("EncryptionType", self.0)
    }
}

#[cfg(test)]
mod tests;
