//! Tenant keys in the Transit engine of Vault or OpenBao.
//!
//! A blob is `be32 key version ‖ nonce ‖ ciphertext ‖ tag`: the bytes of `vault:vN:…`. The
//! associated data is the canonical context.
//! Owns: the calls, what the store's answers mean. Knows nothing of: tokens but that a file holds
//! one.
//!
//! Invariants
//! - A key is used only if its kind authenticates associated data; it is never made by accident
//!   (Transit makes a missing key on encrypt where a token allows it).
//! - The token is read anew for each call, so that an agent can renew it in place.
//! - Transit's own `rewrap` takes no associated data (OpenBao 2.7), so a rewrap is a decrypt and an
//!   encrypt.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::Method;
use zeroize::Zeroizing;

use super::http::{Answer, HttpClient, Question};
use super::{Capabilities, ErasureAssurance, RemoteKeyStore, StoreBlob, check_store_key, no_key};
use crate::error::{Error, ErrorKind, Result};
use crate::private_file;
use crate::secret::StoreSecret;
use crate::types::EncryptionContext;

/// Longest token: a batch token of Vault is about 200 bytes, a JWT-like one some thousand.
const TOKEN_BYTES_MAX: u64 = 8192;
/// Kinds of Transit keys that authenticate associated data with 256 bits of key.
const KEY_KINDS: [&str; 2] = ["aes256-gcm96", "chacha20-poly1305"];

/// Where a Transit engine is.
#[derive(Clone, Debug)]
pub struct TransitSettings<'a> {
    /// The server's address: `https://vault.example.com:8200`.
    pub url: &'a str,
    /// Where the engine is mounted: `transit`.
    pub mount: &'a str,
    /// PEM file with the certificates that the server's must be signed by.
    pub ca_file: Option<&'a Path>,
    /// File with the token, for its owner only.
    pub token_file: &'a Path,
    /// How long a call may take.
    pub timeout: Duration,
}

/// Keys in one Transit engine.
pub struct TransitStore {
    http: HttpClient,
    mount: String,
    token_file: PathBuf,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Reply<T> {
    data: T,
}

#[derive(Deserialize)]
struct KeyData {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    derived: bool,
}

#[derive(Deserialize)]
struct CiphertextData {
    ciphertext: String,
}

#[derive(Deserialize)]
struct PlaintextData<'a> {
    plaintext: &'a str,
}

#[derive(Deserialize)]
struct Problems {
    errors: Vec<String>,
}

impl TransitStore {
    /// The store of these settings; nothing is asked yet.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`]: the URL or the mount cannot be used.
    /// [`ErrorKind::Unavailable`]: the file of certificates cannot be read.
    pub fn new(settings: &TransitSettings<'_>) -> Result<Self> {
        let mount = settings.mount.trim_matches('/');
        mount.split('/').try_for_each(check_store_key)?;
        Ok(Self {
            http: HttpClient::new(settings.url, settings.ca_file, settings.timeout)?,
            mount: mount.to_owned(),
            token_file: settings.token_file.to_owned(),
            timeout: settings.timeout,
        })
    }

    fn ask(&self, method: Method, path: &str, body: &[u8]) -> Result<Answer> {
        let token = private_file::read(&self.token_file, TOKEN_BYTES_MAX)?;
        let token = token.trim_ascii_end();
        let token = std::str::from_utf8(token).map_err(|_| {
            Error::new(ErrorKind::Unavailable, "read the token of a Transit store")
                .with_advice("its file must hold the token's text and nothing else")
        })?;
        let headers = [("x-vault-token", token), ("x-vault-request", "true")];
        let answer = self.http.ask(&Question { method, path, headers: &headers, body })?;
        if (200..300).contains(&answer.status) { Ok(answer) } else { Err(problem(path, &answer)) }
    }

    fn call(&self, verb: &str, store_key: &str, body: &[u8]) -> Result<Answer> {
        check_store_key(store_key)?;
        self.ask(Method::POST, &format!("/v1/{}/{verb}/{store_key}", self.mount), body)
    }

    /// Refuses a key that is not there or does not bind what it encrypts.
    fn check_key(&self, store_key: &str) -> Result<()> {
        check_store_key(store_key)?;
        let path = format!("/v1/{}/keys/{store_key}", self.mount);
        let answer = self.ask(Method::GET, &path, &[])?;
        let key: Reply<KeyData> = read_json(&answer)?;
        if KEY_KINDS.contains(&key.data.kind.as_str()) && !key.data.derived {
            return Ok(());
        }
        let during = format!("use Transit key {store_key} of kind {}", key.data.kind);
        Err(Error::new(ErrorKind::Refused, during)
            .with_advice("make a key of the type aes256-gcm96, without `derived`"))
    }
}

/// A request's body: names and values that need no escaping, among them a secret perhaps.
fn json(pairs: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let length: usize = pairs.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(length + 2));
    body.push(b'{');
    for (index, (name, value)) in pairs.iter().enumerate() {
        let comma: &[u8] = if index == 0 { b"" } else { b"," };
        for piece in [comma, b"\"", name.as_bytes(), b"\":\"", value.as_bytes(), b"\""] {
            body.extend_from_slice(piece);
        }
    }
    body.push(b'}');
    body
}

fn not_understood(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("understand {what} of a Transit store"))
}

fn read_json<T: DeserializeOwned>(answer: &Answer) -> Result<T> {
    serde_json::from_slice(&answer.body).map_err(|_| not_understood("an answer"))
}

/// What an error answer means.
fn problem(path: &str, answer: &Answer) -> Error {
    let texts = serde_json::from_slice::<Problems>(&answer.body).map(|problems| problems.errors);
    let text = texts.unwrap_or_default().join("; ");
    let has = |part: &str| text.contains(part);
    let kind = match answer.status {
        400 if has("key not found") => ErrorKind::NotFound,
        400 if has("too old") || has("soft delet") => ErrorKind::KeyDisabled,
        400 if has("authentication failed") || has("ciphertext") => ErrorKind::Corrupt,
        401 | 403 => ErrorKind::AccessDenied,
        404 => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    };
    let shown: String = text.chars().take(200).collect();
    let during = format!("call {path} of a Transit store, status {}", answer.status);
    Error::new(kind, during).with_source(shown)
}

/// `vault:vN:…` as a blob.
fn blob_of(ciphertext: &str) -> Option<StoreBlob> {
    let (version, text) = ciphertext.strip_prefix("vault:v")?.split_once(':')?;
    let version: u32 = version.parse().ok()?;
    let mut bytes = version.to_be_bytes().to_vec();
    bytes.extend(BASE64.decode(text).ok()?);
    StoreBlob::new(bytes).ok()
}

/// The text of a blob. Version 0, which Transit takes for 1, is not one it gives.
fn ciphertext_of(blob: &StoreBlob) -> Result<String> {
    let parts = blob.as_bytes().split_first_chunk();
    let parts = parts.map(|(version, rest)| (u32::from_be_bytes(*version), rest));
    match parts {
        Some((version, rest)) if version != 0 && !rest.is_empty() => {
            Ok(format!("vault:v{version}:{}", BASE64.encode(rest)))
        }
        _ => Err(Error::new(ErrorKind::Corrupt, "read a Transit store's blob")),
    }
}

impl RemoteKeyStore for TransitStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "transit",
            erasure_assurance: ErasureAssurance::BackendDestroyed,
            remote_latency: Some(self.timeout),
            can_rewrap: true,
            can_destroy: true,
        }
    }

    fn wrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        secret: &StoreSecret,
    ) -> Result<StoreBlob> {
        self.check_key(store_key)?;
        let plaintext = Zeroizing::new(BASE64.encode(*secret.borrow()));
        let associated = BASE64.encode(context.encode());
        let body = json(&[("plaintext", &plaintext), ("associated_data", &associated)]);
        let answer = self.call("encrypt", store_key, &body)?;
        let reply: Reply<CiphertextData> = read_json(&answer)?;
        blob_of(&reply.data.ciphertext).ok_or_else(|| not_understood("a ciphertext"))
    }

    fn unwrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        blob: &StoreBlob,
    ) -> Result<StoreSecret> {
        let ciphertext = ciphertext_of(blob)?;
        let associated = BASE64.encode(context.encode());
        let body = json(&[("ciphertext", &ciphertext), ("associated_data", &associated)]);
        let answer = self.call("decrypt", store_key, &body)?;
        let reply: Reply<PlaintextData<'_>> =
            serde_json::from_slice(&answer.body).map_err(|_| not_understood("a plaintext"))?;
        secret_of(reply.data.plaintext).ok_or_else(|| not_understood("a plaintext"))?
    }

    fn destroy(&self, store_key: &str) -> Result<()> {
        check_store_key(store_key)?;
        let path = format!("/v1/{}/keys/{store_key}", self.mount);
        self.ask(Method::GET, &path, &[]).map_err(|error| match error.kind() {
            ErrorKind::NotFound => no_key("Transit", store_key),
            _ => error,
        })?;
        let config = format!("{path}/config");
        self.ask(Method::POST, &config, br#"{"deletion_allowed":true}"#)?;
        self.ask(Method::DELETE, &path, &[]).map(drop)
    }

    fn health(&self) -> Result<()> {
        let path = "/v1/sys/health?standbyok=true&perfstandbyok=true";
        self.ask(Method::GET, path, &[]).map(drop)
    }
}

/// 32 bytes of base64, straight into a locked slot; none if it is anything else.
pub(super) fn secret_of(text: &str) -> Option<Result<StoreSecret>> {
    // One byte of room more than the decoder's estimate needs for 44 characters.
    let mut bytes = Zeroizing::new([0; 34]);
    let length = BASE64.decode_slice(text, bytes.as_mut_slice()).ok()?;
    let secret: &[u8; 32] = bytes.get(..length)?.try_into().ok()?;
    Some(StoreSecret::fill_with(crate::secret::copy_of(secret)))
}

#[cfg(test)]
mod tests;
