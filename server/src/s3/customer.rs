//! SSE-C headers: the key that a client sends with a request.
//!
//! Owns: taking the headers off before s3s looks, their checks, what a reply says of them. Knows
//! nothing of: wraps; what a key opens is the engine's business.
//!
//! Invariants
//! - The key's text and bytes are wiped in here; what leaves is a [`CustomerKey`] in locked memory
//!   and the MD5 that the client sent, which the reply repeats. Neither is logged or kept.
//!   The copy in the connection's read buffer is hyper's: see docs/KEYS.md, "Customer keys".
//! - A key is taken only over TLS or from this machine itself.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use kluis_kms::CustomerKey;
use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::error::{Answer, Failure, Subject, bad_request, invalid_argument, invalid_request};

/// The one algorithm.
pub(super) const ALGORITHM: &str = "AES256";
/// Names of the reply's headers, and of a request's for its own object.
pub(super) const ALGORITHM_HEADER: &str = "x-amz-server-side-encryption-customer-algorithm";
pub(super) const MD5_HEADER: &str = "x-amz-server-side-encryption-customer-key-md5";

/// The three headers of a request's own object.
const OWN: [&str; 3] = [ALGORITHM_HEADER, "x-amz-server-side-encryption-customer-key", MD5_HEADER];
/// The three headers of the source of a copy.
const SOURCE: [&str; 3] = [
    "x-amz-copy-source-server-side-encryption-customer-algorithm",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "x-amz-copy-source-server-side-encryption-customer-key-md5",
];
/// Bytes of a decoded key and what the decoder may ask for beyond them.
const DECODED_BYTES: usize = 48;

/// A key that a client sent.
#[derive(Clone)]
pub(super) struct Sent {
    /// The key.
    pub(super) key: Arc<CustomerKey>,
    /// Its MD5 as the client sent it.
    pub(super) md5: String,
}

/// The keys of a request, on their way past s3s.
#[derive(Clone, Default)]
pub(super) struct Keys {
    own: Option<Answer<Sent>>,
    source: Option<Answer<Sent>>,
}

impl Keys {
    /// Takes the headers out of a request. `is_private`: nobody on its way reads along.
    pub(super) fn lift(headers: &mut HeaderMap, is_private: bool) -> Self {
        Self { own: take(headers, &OWN, is_private), source: take(headers, &SOURCE, is_private) }
    }

    /// The key for the object that the request is about.
    pub(super) fn own(&self) -> Answer<Option<Sent>> {
        self.own.clone().transpose()
    }

    /// The key for the source of a copy.
    pub(super) fn source(&self) -> Answer<Option<Sent>> {
        self.source.clone().transpose()
    }
}

fn take(headers: &mut HeaderMap, names: &[&str; 3], is_private: bool) -> Option<Answer<Sent>> {
    if !names.iter().any(|name| headers.contains_key(*name)) {
        return None;
    }
    let [algorithm, key, md5] = names.map(|name| headers.remove(name));
    let sent = if is_private {
        read(algorithm.as_ref(), key.as_ref(), md5.as_ref())
    } else {
        let message = "Requests specifying Server Side Encryption with Customer provided keys \
            must be made over a secure connection.";
        Err(invalid_request(message).into())
    };
    Some(sent)
}

fn read(
    algorithm: Option<&HeaderValue>,
    key: Option<&HeaderValue>,
    md5: Option<&HeaderValue>,
) -> Answer<Sent> {
    let incomplete = |name, message: &str| Failure::from(invalid_argument(message, name, "null"));
    let Some(algorithm) = algorithm else {
        let message = "Requests specifying Server Side Encryption with Customer provided keys must \
            provide a valid encryption algorithm.";
        return Err(incomplete(ALGORITHM_HEADER, message));
    };
    if algorithm.as_bytes() != ALGORITHM.as_bytes() {
        let message = "The Encryption request you specified is not valid. Supported value: AES256.";
        return Err(bad_request("InvalidEncryptionAlgorithmError", message).into());
    }
    let Some(key) = key else {
        let message = "Requests specifying Server Side Encryption with Customer provided keys must \
            provide an appropriate secret key.";
        return Err(incomplete("x-amz-server-side-encryption-customer-key", message));
    };
    let Some(md5) = md5 else {
        let message = "Requests specifying Server Side Encryption with Customer provided keys must \
            provide the client calculated MD5 of the secret key.";
        return Err(incomplete(MD5_HEADER, message));
    };
    let key = decode(key.as_bytes())?;
    let digest: [u8; 16] = Md5::digest(key.as_slice()).into();
    let named = STANDARD.decode(md5.as_bytes()).unwrap_or_default();
    if !bool::from(digest.ct_eq(&named)) {
        let message =
            "The calculated MD5 hash of the key did not match the hash that was provided.";
        // Neither digest is shown: it is a guess at the key that somebody else may check.
        return Err(invalid_argument(message, MD5_HEADER, "").into());
    }
    let key = CustomerKey::new(&key).map_err(|cause| Subject::Object.failed(&cause.into()))?;
    Ok(Sent { key: Arc::new(key), md5: STANDARD.encode(digest) })
}

fn decode(text: &[u8]) -> Answer<Zeroizing<[u8; 32]>> {
    let mut decoded = Zeroizing::new([0; DECODED_BYTES]);
    let length = STANDARD.decode_slice(text, &mut *decoded).unwrap_or_default();
    let mut key = Zeroizing::new([0; 32]);
    match decoded.get(..length) {
        Some(bytes) if bytes.len() == key.len() => {
            key.copy_from_slice(bytes);
            Ok(key)
        }
        _ => {
            let message = "The secret key was invalid for the specified algorithm.";
            let name = "x-amz-server-side-encryption-customer-key";
            Err(invalid_argument(message, name, "").into())
        }
    }
}

/// The engine's form of a key that may have been sent.
pub(super) fn key_of(sent: Option<&Sent>) -> Option<Arc<CustomerKey>> {
    sent.map(|sent| Arc::clone(&sent.key))
}

#[cfg(test)]
mod tests;
