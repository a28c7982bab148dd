//! Server-side encryption: what a write asks for, which key it gets, and what every reply says.
//!
//! Owns: the headers of SSE-S3 and SSE-KMS, the one function that resolves the
//! key of a write ([`S3Api::sse_request`]). Knows nothing of: the bytes of keys,
//! wraps, the forms of names.
//!
//! Invariants
//! - Every object is encrypted under a tenant key. The headers choose which one, the reply and the
//!   ETag rule, and the context that the data key is bound to, never whether.
//! - Headers come before the bucket's default, and that before the tenant's.
//! - A key of another account or region answers like one that is not there.
//! - A reply says `AES256` where the request did, and `aws:kms` with the tenant key's ARN anywhere
//!   else but with customers' keys: so clients do not take the ETag for an MD5.
//!   docs/ARCHITECTURE.md, "Encryption modes", "ETags".

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kluis_kms::{EncryptionContext, TenantKeyId};
use kluis_storage::{BucketInfo, DefaultEncryption, SseChoice, SseMode};
use s3s::dto::ServerSideEncryption;

use super::customer::{self, Sent};
use super::error::{Answer, bad_request, invalid_argument, not_implemented};
use super::{Call, S3Api, error};
use crate::auth::User;
use crate::kms::Names;

/// The longest encryption context (AWS KMS, Encrypt: 8,192 bytes).
const CONTEXT_BYTES_MAX: usize = 8_192;

const MODE: &str = "x-amz-server-side-encryption";
const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CONTEXT: &str = "x-amz-server-side-encryption-context";
const BUCKET_KEY: &str = "x-amz-server-side-encryption-bucket-key-enabled";

/// What a write gets.
pub(super) struct SseRequest {
    /// For the engine.
    pub(super) choice: SseChoice,
    /// Whether the request said anything about it.
    pub(super) asked: bool,
    /// The customer's key, if the request brings one.
    pub(super) customer: Option<Sent>,
}

/// What a reply says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SseReply {
    /// `AES256` or `aws:kms`; nothing with a customer's key.
    pub(super) mode: Option<&'static str>,
    /// The tenant key's ARN, where the mode is `aws:kms`.
    pub(super) key_id: Option<String>,
    /// The MD5 of the customer's key, in that mode.
    pub(super) customer_md5: Option<String>,
}

impl SseReply {
    /// The element of an output.
    pub(super) fn element(&self) -> Option<ServerSideEncryption> {
        self.mode.map(ServerSideEncryption::from_static)
    }

    /// There is a bucket key in any case; it is told where AWS tells it.
    pub(super) fn bucket_key(&self) -> Option<bool> {
        self.key_id.as_ref().map(|_| true)
    }

    /// The algorithm of the customer's key.
    pub(super) fn customer_algorithm(&self) -> Option<String> {
        self.customer_md5.as_ref().map(|_| customer::ALGORITHM.to_owned())
    }

    /// The same as headers of an answer that s3s does not write.
    pub(super) fn headers(&self) -> Vec<(&'static str, &str)> {
        let told = |name, text: Option<&'static str>| text.map(|text| (name, text));
        let key_id = self.key_id.as_deref();
        let md5 = self.customer_md5.as_deref();
        [
            told(MODE, self.mode),
            key_id.map(|arn| (KEY_ID, arn)),
            told(BUCKET_KEY, key_id.map(|_| "true")),
            told(customer::ALGORITHM_HEADER, md5.map(|_| customer::ALGORITHM)),
            md5.map(|md5| (customer::MD5_HEADER, md5)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Fills the fields that most outputs have.
macro_rules! fill {
    ($output:expr, $reply:expr) => {{
        let reply = $reply;
        $output.server_side_encryption = reply.element();
        $output.bucket_key_enabled = reply.bucket_key();
        $output.sse_customer_algorithm = reply.customer_algorithm();
        $output.sse_customer_key_md5 = reply.customer_md5;
        $output.ssekms_key_id = reply.key_id;
    }};
}
pub(super) use fill;

impl S3Api {
    /// Reads the encryption headers of a write into `bucket` and resolves its key.
    pub(super) fn sse_request<Input>(
        &self,
        call: &Call<Input>,
        bucket: &BucketInfo,
        user: &User,
    ) -> Answer<SseRequest> {
        let asked = read(call.header(MODE), call.header(KEY_ID), call.header(CONTEXT))?;
        check_bucket_key(call.header(BUCKET_KEY))?;
        let names = self.key_names(user);
        if let Some(sent) = call.customer.own()? {
            return with_customer_key(sent, asked.mode, call.header(MODE), bucket);
        }
        let Asked { mode, context } = asked;
        let configured = bucket.encryption.default.as_ref();
        let (chosen, tenant_key) = match (mode, configured) {
            (Some(SseMode::Kms), _) => (SseMode::Kms, named(&names, call.header(KEY_ID))?),
            (Some(mode), _) => (mode, None),
            (None, Some(default)) => (default.mode, of_default(&names, default)?),
            (None, None) => (SseMode::Kms, None),
        };
        let choice = SseChoice { mode: chosen, tenant_key, context, customer_key: None };
        Ok(SseRequest { choice, asked: mode.is_some(), customer: None })
    }

    /// Where the caller's keys are looked up.
    pub(super) fn key_names(&self, user: &User) -> Names<'_> {
        Names {
            kms: self.engine.kms(),
            region: &self.region,
            tenant: user.tenant,
            account: user.account_id,
        }
    }

    /// What a reply says of an object or upload.
    pub(super) fn sse_reply(
        &self,
        mode: SseMode,
        tenant_key: TenantKeyId,
        user: &User,
        customer: Option<&Sent>,
    ) -> SseReply {
        match mode {
            SseMode::S3 => {
                SseReply { mode: Some(ServerSideEncryption::AES256), ..SseReply::default() }
            }
            SseMode::Kms => SseReply {
                mode: Some(ServerSideEncryption::AWS_KMS),
                key_id: Some(self.key_names(user).key_arn(tenant_key)),
                ..SseReply::default()
            },
            SseMode::Customer => SseReply {
                customer_md5: customer.map(|sent| sent.md5.clone()),
                ..SseReply::default()
            },
        }
    }
}

fn named(names: &Names<'_>, name: Option<&str>) -> Answer<Option<TenantKeyId>> {
    name.map(|name| find_key(names, name)).transpose()
}

/// A write with a customer's key: alone, and only where the bucket takes it.
fn with_customer_key(
    sent: Sent,
    mode: Option<SseMode>,
    named: Option<&str>,
    bucket: &BucketInfo,
) -> Answer<SseRequest> {
    if mode.is_some() {
        let message = "Server Side Encryption with Customer provided key is incompatible with the \
            encryption method specified";
        return Err(invalid_argument(message, MODE, named.unwrap_or_default()).into());
    }
    if !bucket.encryption.customer_keys {
        let mut refused = error::access_denied();
        refused.message = "Server-side encryption with customer-provided keys (SSE-C) is blocked \
            for this bucket. PutBucketEncryption with BlockedEncryptionTypes NONE allows it."
            .into();
        return Err(refused.into());
    }
    let choice = SseChoice {
        mode: SseMode::Customer,
        customer_key: customer::key_of(Some(&sent)),
        ..SseChoice::default()
    };
    Ok(SseRequest { choice, asked: true, customer: Some(sent) })
}

/// A read takes no encryption headers but those of customers' keys.
pub(super) fn refuse_on_read<Input>(call: &Call<Input>) -> Answer<()> {
    match call.header(MODE) {
        None => Ok(()),
        Some(value) => {
            let message =
                "x-amz-server-side-encryption header is not supported for this operation.";
            Err(invalid_argument(message, MODE, value).into())
        }
    }
}

/// What the headers of SSE-S3 and SSE-KMS ask for.
#[derive(Clone, Debug)]
struct Asked {
    mode: Option<SseMode>,
    context: EncryptionContext,
}

fn read(mode: Option<&str>, key_id: Option<&str>, context: Option<&str>) -> Answer<Asked> {
    let needs_kms = |name, value| {
        let message = "Server Side Encryption with AWS KMS managed key requires HTTP header \
            x-amz-server-side-encryption : aws:kms";
        invalid_argument(message, name, value)
    };
    let mode = match mode {
        Some(ServerSideEncryption::AWS_KMS) => {
            let context = context.map(parse_context).transpose()?.unwrap_or_default();
            return Ok(Asked { mode: Some(SseMode::Kms), context });
        }
        None => None,
        Some(other) => Some(bucket_mode(other).map_err(|failure| {
            failure.unwrap_or_else(|| {
                let message = "The encryption method specified is not supported";
                invalid_argument(message, MODE, other).into()
            })
        })?),
    };
    if let Some(value) = key_id {
        return Err(needs_kms(KEY_ID, value).into());
    }
    if context.is_some() {
        // The context is the caller's data and is not shown again.
        return Err(needs_kms(CONTEXT, "").into());
    }
    Ok(Asked { mode, context: EncryptionContext::new() })
}

/// The mode that a name of AWS means. The error is a failure of its own, or none if the name is
/// unknown.
pub(super) fn bucket_mode(name: &str) -> Result<SseMode, Option<error::Failure>> {
    match name {
        ServerSideEncryption::AES256 => Ok(SseMode::S3),
        ServerSideEncryption::AWS_KMS => Ok(SseMode::Kms),
        ServerSideEncryption::AWS_KMS_DSSE => Err(Some(not_implemented(name).into())),
        _ => Err(None),
    }
}

fn check_bucket_key(value: Option<&str>) -> Answer<()> {
    match value {
        None => Ok(()),
        Some(text) if ["true", "false"].iter().any(|it| it.eq_ignore_ascii_case(text)) => Ok(()),
        Some(text) => {
            let message = "The value of x-amz-server-side-encryption-bucket-key-enabled is true or \
                false";
            Err(invalid_argument(message, BUCKET_KEY, text).into())
        }
    }
}

/// `base64(JSON object of texts)`.
fn parse_context(text: &str) -> Answer<EncryptionContext> {
    let invalid = || {
        let message = "The header 'x-amz-server-side-encryption-context' shall be a Base64-encoded \
            UTF-8 JSON object with string values, of at most 8192 bytes.";
        error::Failure::from(invalid_argument(message, CONTEXT, ""))
    };
    let json = STANDARD.decode(text).map_err(|_| invalid())?;
    if json.len() > CONTEXT_BYTES_MAX {
        return Err(invalid());
    }
    let pairs: BTreeMap<String, String> = serde_json::from_slice(&json).map_err(|_| invalid())?;
    pairs.iter().try_fold(EncryptionContext::new(), |context, (name, value)| {
        context.with(name.as_bytes(), value.as_bytes()).map_err(|_| invalid())
    })
}

/// The key that a bucket's default means now: its alias may have moved.
fn of_default(names: &Names<'_>, default: &DefaultEncryption) -> Answer<Option<TenantKeyId>> {
    named(names, Some(default.tenant_key.as_str()).filter(|name| !name.is_empty()))
}

/// The tenant's key of that name: an id, an alias, or the ARN of either. What is in another account
/// or region, malformed or not there answers alike.
pub(super) fn find_key(names: &Names<'_>, name: &str) -> Answer<TenantKeyId> {
    let found = names.find(&names.read(name)).map(|info| info.id);
    found.ok_or_else(|| {
        let message = format!("Key '{name}' does not exist");
        bad_request("KMS.NotFoundException", message).into()
    })
}

#[cfg(test)]
mod tests;
