//! Tenant keys that their tenant holds, behind the AWS KMS External Key Store proxy API.
//!
//! ```text
//! blob: format 0x01 ‖ len ‖ iv ‖ len ‖ tag ‖ len ‖ ciphertext metadata ‖ ciphertext (32)
//! ```
//! The additional authenticated data is the canonical context. Requests are signed with SigV4 for
//! the service `kms-xks-proxy`.
//! Owns: the calls, the blob, what the proxy's answers mean. Knows nothing of: the key behind it.
//!
//! Invariants
//! - The access key is read anew for each call, so that it can be changed in place.
//! - A key is destroyed by its tenant only.
//!   Specification: aws/aws-kms-xksproxy-api-spec.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use ureq::http::Method;
use zeroize::Zeroizing;

use super::http::{Answer, HttpClient, Question};
use super::sign::{Scope, Signed, authorization, time_text};
use super::transit::secret_of;
use super::{Capabilities, ErasureAssurance, RemoteKeyStore, StoreBlob, check_store_key};
use crate::env::{Clock, Env, Rng, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::private_file;
use crate::secret::StoreSecret;
use crate::types::EncryptionContext;

const SERVICE: &str = "kms-xks-proxy";
const CONTENT_TYPE: &str = "application/json";
const FORMAT: u8 = 0x01;
/// Longest file with an access key: an id of 30 and a secret of 64 characters, and room.
const ACCESS_KEY_BYTES_MAX: u64 = 1024;
/// The specification's limits of what a proxy gives, in bytes.
const IV_BYTES: std::ops::RangeInclusive<usize> = 12..=16;
const TAG_BYTES: usize = 16;
const METADATA_BYTES_MAX: usize = 20;
/// AES-GCM's ciphertext is as long as the secret.
const CIPHERTEXT_BYTES: usize = 32;

/// Where an XKS proxy is.
#[derive(Clone, Debug)]
pub struct XksSettings<'a> {
    /// The address, with the prefix that stands before `/kms/xks/v1`.
    pub url: &'a str,
    /// The region that requests are signed for.
    pub region: &'a str,
    /// PEM file with the certificates that the proxy's must be signed by.
    pub ca_file: Option<&'a Path>,
    /// File with the access key id and its secret, each on a line, for its owner only.
    pub access_key_file: &'a Path,
    /// How long a call may take. AWS KMS gives a proxy 250 ms.
    pub timeout: Duration,
}

/// Keys behind one XKS proxy.
pub struct XksStore {
    http: HttpClient,
    region: String,
    access_key_file: PathBuf,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestMetadata<'a> {
    aws_principal_arn: &'a str,
    kms_operation: &'a str,
    kms_request_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EncryptRequest<'a> {
    request_metadata: RequestMetadata<'a>,
    additional_authenticated_data: &'a str,
    plaintext: &'a str,
    encryption_algorithm: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DecryptRequest<'a> {
    request_metadata: RequestMetadata<'a>,
    additional_authenticated_data: &'a str,
    encryption_algorithm: &'a str,
    ciphertext: &'a str,
    ciphertext_metadata: &'a str,
    initialization_vector: &'a str,
    authentication_tag: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthRequest<'a> {
    request_metadata: RequestMetadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EncryptReply {
    ciphertext: String,
    #[serde(default)]
    ciphertext_metadata: String,
    initialization_vector: String,
    authentication_tag: String,
}

#[derive(Deserialize)]
struct DecryptReply<'a> {
    plaintext: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    error_name: String,
}

/// A blob, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    iv: Vec<u8>,
    tag: Vec<u8>,
    metadata: Vec<u8>,
    ciphertext: Vec<u8>,
}

impl Parts {
    fn fit(&self) -> bool {
        IV_BYTES.contains(&self.iv.len())
            && self.tag.len() == TAG_BYTES
            && self.metadata.len() <= METADATA_BYTES_MAX
            && self.ciphertext.len() == CIPHERTEXT_BYTES
    }

    fn of_reply(reply: &EncryptReply) -> Option<Self> {
        let parts = Self {
            iv: BASE64.decode(&reply.initialization_vector).ok()?,
            tag: BASE64.decode(&reply.authentication_tag).ok()?,
            metadata: BASE64.decode(&reply.ciphertext_metadata).ok()?,
            ciphertext: BASE64.decode(&reply.ciphertext).ok()?,
        };
        parts.fit().then_some(parts)
    }

    fn encode(&self) -> Option<StoreBlob> {
        let mut bytes = vec![FORMAT];
        for part in [&self.iv, &self.tag, &self.metadata] {
            bytes.push(u8::try_from(part.len()).ok()?);
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(&self.ciphertext);
        StoreBlob::new(bytes).ok()
    }

    fn decode(blob: &StoreBlob) -> Result<Self> {
        fn part(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
            let (length, rest) = bytes.split_first()?;
            let (part, rest) = rest.split_at_checked(usize::from(*length))?;
            Some((part.to_vec(), rest))
        }
        let split = || {
            let rest = blob.as_bytes().strip_prefix(&[FORMAT])?;
            let (iv, rest) = part(rest)?;
            let (tag, rest) = part(rest)?;
            let (metadata, rest) = part(rest)?;
            let parts = Self { iv, tag, metadata, ciphertext: rest.to_vec() };
            parts.fit().then_some(parts)
        };
        split().ok_or_else(|| Error::new(ErrorKind::Corrupt, "read an XKS proxy's blob"))
    }
}

impl XksStore {
    /// The store of these settings; nothing is asked yet.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`]: the URL cannot be used.
    /// [`ErrorKind::Unavailable`]: the file of certificates cannot be read.
    pub fn new(settings: &XksSettings<'_>, env: &Env) -> Result<Self> {
        Ok(Self {
            http: HttpClient::new(settings.url, settings.ca_file, settings.timeout)?,
            region: settings.region.to_owned(),
            access_key_file: settings.access_key_file.to_owned(),
            timeout: settings.timeout,
            clock: Arc::clone(&env.clock),
            rng: Arc::clone(&env.rng),
        })
    }

    fn ask(&self, path: &str, body: &[u8]) -> Result<Answer> {
        let file = private_file::read(&self.access_key_file, ACCESS_KEY_BYTES_MAX)?;
        let (access_key, secret) = split_access_key(&file).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "read the access key of an XKS proxy")
                .with_advice("its file must hold two lines: the access key id and its secret")
        })?;
        let time = time_text(self.clock.now_ms());
        let headers =
            [("content-type", CONTENT_TYPE), ("host", self.http.host()), ("x-amz-date", &time)];
        let whole_path = format!("{}{path}", self.http.base_path());
        let signed =
            Signed { method: "POST", path: &whole_path, headers: &headers, body, time: &time };
        let scope = Scope { region: &self.region, service: SERVICE };
        let authorization = authorization(&signed, scope, (access_key, secret));
        let headers = [
            ("content-type", CONTENT_TYPE),
            ("x-amz-date", &time),
            ("authorization", &authorization),
        ];
        let question = Question { method: Method::POST, path, headers: &headers, body };
        let answer = self.http.ask(&question)?;
        if answer.status == 200 { Ok(answer) } else { Err(problem(path, &answer)) }
    }

    fn request_id(&self) -> String {
        hex::encode(random_array::<16>(&*self.rng))
    }
}

fn split_access_key(file: &[u8]) -> Option<(&str, &[u8])> {
    let (id, secret) = file.split_at_checked(file.iter().position(|byte| *byte == b'\n')?)?;
    let (id, secret) = (std::str::from_utf8(id.trim_ascii()).ok()?, secret.trim_ascii());
    (!id.is_empty() && !secret.is_empty()).then_some((id, secret))
}

fn request_metadata<'a>(operation: &'a str, request_id: &'a str) -> RequestMetadata<'a> {
    // The node asks, whoever it asks for: a bucket key serves many principals.
    RequestMetadata {
        aws_principal_arn: "kluis.internal",
        kms_operation: operation,
        kms_request_id: request_id,
    }
}

/// JSON in a buffer that is wiped; large enough not to move.
fn body_of(request: &impl Serialize) -> Result<Zeroizing<Vec<u8>>> {
    let mut body = Zeroizing::new(Vec::with_capacity(32 << 10));
    serde_json::to_writer(&mut *body, request)
        .map_err(|error| Error::new(ErrorKind::Misuse, "write a request").with_source(error))?;
    Ok(body)
}

fn not_understood() -> Error {
    Error::new(ErrorKind::Unavailable, "understand an answer of an XKS proxy")
}

/// What an error answer means: the specification's error names.
fn problem(path: &str, answer: &Answer) -> Error {
    let name = serde_json::from_slice::<Problem>(&answer.body).map(|problem| problem.error_name);
    let name = name.unwrap_or_default();
    let kind = match name.as_str() {
        "AccessDeniedException" | "AuthenticationFailedException" => ErrorKind::AccessDenied,
        "InvalidCiphertextException" => ErrorKind::Corrupt,
        "InvalidKeyUsageException" | "UnsupportedOperationException" | "ValidationException" => {
            ErrorKind::Refused
        }
        "InvalidStateException" => ErrorKind::KeyDisabled,
        "InvalidUriPathException" | "KeyNotFoundException" => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    };
    let shown: String = name.chars().take(64).collect();
    let during = format!("call {path} of an XKS proxy, status {}", answer.status);
    Error::new(kind, during).with_source(shown)
}

impl RemoteKeyStore for XksStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "xks",
            erasure_assurance: ErasureAssurance::OverwriteBestEffort,
            remote_latency: Some(self.timeout),
            can_rewrap: true,
            can_destroy: false,
        }
    }

    fn wrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        secret: &StoreSecret,
    ) -> Result<StoreBlob> {
        check_store_key(store_key)?;
        let plaintext = Zeroizing::new(BASE64.encode(*secret.borrow()));
        let request_id = self.request_id();
        let body = body_of(&EncryptRequest {
            request_metadata: request_metadata("Encrypt", &request_id),
            additional_authenticated_data: &BASE64.encode(context.encode()),
            plaintext: &plaintext,
            encryption_algorithm: "AES_GCM",
        })?;
        let answer = self.ask(&format!("/kms/xks/v1/keys/{store_key}/encrypt"), &body)?;
        let reply: EncryptReply =
            serde_json::from_slice(&answer.body).map_err(|_| not_understood())?;
        let parts = Parts::of_reply(&reply);
        parts.and_then(|parts| parts.encode()).ok_or_else(not_understood)
    }

    fn unwrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        blob: &StoreBlob,
    ) -> Result<StoreSecret> {
        check_store_key(store_key)?;
        let parts = Parts::decode(blob)?;
        let request_id = self.request_id();
        let body = body_of(&DecryptRequest {
            request_metadata: request_metadata("Decrypt", &request_id),
            additional_authenticated_data: &BASE64.encode(context.encode()),
            encryption_algorithm: "AES_GCM",
            ciphertext: &BASE64.encode(&parts.ciphertext),
            ciphertext_metadata: &BASE64.encode(&parts.metadata),
            initialization_vector: &BASE64.encode(&parts.iv),
            authentication_tag: &BASE64.encode(&parts.tag),
        })?;
        let answer = self.ask(&format!("/kms/xks/v1/keys/{store_key}/decrypt"), &body)?;
        let reply: DecryptReply<'_> =
            serde_json::from_slice(&answer.body).map_err(|_| not_understood())?;
        secret_of(reply.plaintext).ok_or_else(not_understood)?
    }

    fn destroy(&self, store_key: &str) -> Result<()> {
        check_store_key(store_key)?;
        let during = format!("destroy key {store_key} behind an XKS proxy");
        Err(Error::new(ErrorKind::Refused, during)
            .with_advice("its tenant destroys it in the tenant's own key manager"))
    }

    fn health(&self) -> Result<()> {
        let request_id = self.request_id();
        let request_metadata = request_metadata("KmsHealthCheck", &request_id);
        let body = body_of(&HealthRequest { request_metadata })?;
        self.ask("/kms/xks/v1/health", &body).map(drop)
    }
}

#[cfg(test)]
mod tests;
