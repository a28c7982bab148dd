//! Server-side encryption headers.
//!
//! Owns: which of them are accepted, and what every reply says. Knows nothing of: keys; it compares
//! the id of a key with the tenant's default.
//!
//! Invariants
//! - Every object is encrypted under a tenant key. The headers choose the reply and the ETag rule,
//!   and the context that the data key is bound to, never whether.
//! - A reply says `AES256` where the request did, and `aws:kms` with the tenant key's ARN anywhere
//!   else: so clients do not take the ETag for an MD5. docs/ARCHITECTURE.md, "ETag".

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kluis_kms::{EncryptionContext, TenantKeyId};
use kluis_storage::SseMode;
use s3s::dto::ServerSideEncryption;

use super::error::{Answer, bad_request, invalid_argument, not_implemented};
use super::{Call, S3Api, error};
use crate::auth::User;

/// The longest encryption context (AWS KMS, Encrypt: 8,192 bytes).
const CONTEXT_BYTES_MAX: usize = 8_192;

const MODE: &str = "x-amz-server-side-encryption";
const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CONTEXT: &str = "x-amz-server-side-encryption-context";

/// What a write asks for.
#[derive(Clone, Debug)]
pub(super) struct SseRequest {
    /// How encryption was asked for; [`SseMode::Kms`] where it was not.
    pub(super) mode: SseMode,
    /// Whether the request said anything about it.
    pub(super) asked: bool,
    /// The caller's context.
    pub(super) context: EncryptionContext,
}

/// What a reply says: the mode's name, and the key's ARN where it is `aws:kms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SseReply {
    /// `AES256` or `aws:kms`.
    pub(super) mode: &'static str,
    /// The ARN.
    pub(super) key_id: Option<String>,
}

impl SseReply {
    /// The element of an output.
    pub(super) fn element(&self) -> ServerSideEncryption {
        ServerSideEncryption::from_static(self.mode)
    }
}

impl S3Api {
    /// Reads the encryption headers of a write.
    pub(super) fn sse_request<Input>(&self, call: &Call<Input>, user: &User) -> Answer<SseRequest> {
        refuse_customer_keys(call)?;
        let mode = call.header(MODE);
        let sse = read(mode, call.header(KEY_ID), call.header(CONTEXT))?;
        if let Some(named) = call.header(KEY_ID) {
            let default_key = self
                .engine
                .kms()
                .default_tenant_key(user.tenant)
                .map_err(|cause| error::Subject::Object.failed(&cause.into()))?;
            let account = user.account_id.to_string();
            check_key_id(named, default_key, &self.region, &account)?;
        }
        Ok(sse)
    }

    /// What a reply says about `tenant_key`.
    pub(super) fn sse_reply(
        &self,
        mode: SseMode,
        tenant_key: TenantKeyId,
        user: &User,
    ) -> SseReply {
        match mode {
            SseMode::S3 => SseReply { mode: ServerSideEncryption::AES256, key_id: None },
            SseMode::Kms => SseReply {
                mode: ServerSideEncryption::AWS_KMS,
                key_id: Some(key_arn(&self.region, &user.account_id.to_string(), tenant_key)),
            },
        }
    }
}

/// A read takes no encryption headers but those of customer keys, which are not there yet.
pub(super) fn refuse_on_read<Input>(call: &Call<Input>) -> Answer<()> {
    refuse_customer_keys(call)?;
    match call.header(MODE) {
        None => Ok(()),
        Some(value) => {
            let message =
                "x-amz-server-side-encryption header is not supported for this operation.";
            Err(invalid_argument(message, MODE, value).into())
        }
    }
}

/// SSE-C: the client would send its key with each request.
pub(super) fn refuse_customer_keys<Input>(call: &Call<Input>) -> Answer<()> {
    let named = [
        "x-amz-server-side-encryption-customer-algorithm",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-server-side-encryption-customer-key-md5",
        "x-amz-copy-source-server-side-encryption-customer-algorithm",
        "x-amz-copy-source-server-side-encryption-customer-key",
        "x-amz-copy-source-server-side-encryption-customer-key-md5",
    ];
    match named.into_iter().find(|name| call.has_header(name)) {
        None => Ok(()),
        Some(name) => Err(not_implemented(name).into()),
    }
}

fn read(mode: Option<&str>, key_id: Option<&str>, context: Option<&str>) -> Answer<SseRequest> {
    let needs_kms = |name, value| {
        let message = "Server Side Encryption with AWS KMS managed key requires HTTP header \
            x-amz-server-side-encryption : aws:kms";
        invalid_argument(message, name, value)
    };
    let request = |mode, asked, context| SseRequest { mode, asked, context };
    match mode {
        Some("aws:kms") => {
            let context = context.map(parse_context).transpose()?.unwrap_or_default();
            return Ok(request(SseMode::Kms, true, context));
        }
        None | Some("AES256") => {}
        Some("aws:kms:dsse") => return Err(not_implemented("aws:kms:dsse").into()),
        Some(other) => {
            let message = "The encryption method specified is not supported";
            return Err(invalid_argument(message, MODE, other).into());
        }
    }
    if let Some(value) = key_id {
        return Err(needs_kms(KEY_ID, value).into());
    }
    if context.is_some() {
        // The context is the caller's data and is not shown again.
        return Err(needs_kms(CONTEXT, "").into());
    }
    match mode {
        Some(_) => Ok(request(SseMode::S3, true, EncryptionContext::new())),
        None => Ok(request(SseMode::Kms, false, EncryptionContext::new())),
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

/// Whether a request names the tenant's default key: by ARN, by id, or by the alias of S3's own.
fn check_key_id(named: &str, default_key: TenantKeyId, region: &str, account: &str) -> Answer<()> {
    let arn = |resource: &str| format!("arn:aws:kms:{region}:{account}:{resource}");
    let uuid = Uuid(default_key).to_string();
    let known = [
        uuid.clone(),
        default_key.to_string(),
        arn(&format!("key/{uuid}")),
        "alias/aws/s3".to_owned(),
        arn("alias/aws/s3"),
    ];
    if known.iter().any(|it| it.eq_ignore_ascii_case(named)) {
        return Ok(());
    }
    let message = format!("Key '{named}' does not exist");
    Err(bad_request("KMS.NotFoundException", message).into())
}

/// The ARN of a tenant key.
fn key_arn(region: &str, account: &str, tenant_key: TenantKeyId) -> String {
    format!("arn:aws:kms:{region}:{account}:key/{}", Uuid(tenant_key))
}

/// A key id in the 8-4-4-4-12 form that AWS KMS uses.
struct Uuid(TenantKeyId);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.as_bytes().iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
