//! Signature Version 4: signing keys, strings to sign, and the chain of chunk signatures.
//!
//! Owns: the HMACs and every comparison of a signature. Pure. Knows nothing of: HTTP, registry
//! rows.
//!
//! Invariants
//! - Signatures are compared in constant time, and only here.
//! - Keys have no `Debug` and are wiped when dropped.
//!
//! Sources: AWS, "Create a signed AWS API request"; "Signature calculations for the Authorization
//! header: Transferring payload in multiple chunks"; the same with trailing headers.

use std::fmt::Write as _;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::amz_date::AmzDate;

/// The only algorithm that is accepted.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The last word of every scope.
pub(crate) const TERMINAL: &str = "aws4_request";
/// SHA-256 of nothing, a constant line of a chunk's string to sign.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What a signing key is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// `20130524`.
    pub(crate) day: String,
    /// `us-east-1`.
    pub(crate) region: String,
    /// `s3`.
    pub(crate) service: String,
}

impl Scope {
    /// `20130524/us-east-1/s3/aws4_request`.
    pub(crate) fn text(&self) -> String {
        [&self.day, &self.region, &self.service, TERMINAL].join("/")
    }
}

fn hmac(hmac_key: &[u8], data: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(hmac_key).expect("HMAC takes keys of any length");
    mac.update(data);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The key that signs everything of one access key, day, region and service.
#[derive(Clone)]
pub(crate) struct SigningKey(Arc<Zeroizing<[u8; 32]>>);

impl SigningKey {
    /// Derives the key from a secret access key: four HMACs.
    pub(crate) fn derive(secret_access_key: &[u8], scope: &Scope) -> Self {
        let prefixed = Zeroizing::new([b"AWS4", secret_access_key].concat());
        let day = hmac(&prefixed, scope.day.as_bytes());
        let region = hmac(&*day, scope.region.as_bytes());
        let service = hmac(&*region, scope.service.as_bytes());
        Self(Arc::new(hmac(&*service, TERMINAL.as_bytes())))
    }

    /// The signature of `string_to_sign`, for the command line, which is a client.
    pub(crate) fn sign(&self, string_to_sign: &str) -> String {
        hex(&*hmac(self.0.as_slice(), string_to_sign.as_bytes()))
    }

    /// Whether `signature`, in lower-case hex, is that of `string_to_sign`. In constant time.
    pub(crate) fn verify(&self, string_to_sign: &str, signature: &[u8]) -> bool {
        bool::from(self.sign(string_to_sign).as_bytes().ct_eq(signature))
    }

    /// The signature of `string_to_sign`, for tests that play the client.
    #[cfg(test)]
    pub(crate) fn sign_for_test(&self, string_to_sign: &str) -> String {
        self.sign(string_to_sign)
    }
}

/// The string to sign of a request.
pub(crate) fn string_to_sign(date: AmzDate, scope: &Scope, canonical_request: &[u8]) -> String {
    [ALGORITHM, &date.basic(), &scope.text(), &sha256_hex(canonical_request)].join("\n")
}

/// Checks the signatures of chunks, each of which covers the one before it. The first covers the
/// signature of the request.
pub(crate) struct ChunkChain {
    signing_key: SigningKey,
    /// Date and scope, two lines that are the same in every string to sign.
    context: String,
    previous: String,
}

impl ChunkChain {
    /// The chain that begins with the verified `signature` of a request.
    pub(crate) fn new(
        signing_key: SigningKey,
        date: AmzDate,
        scope: &Scope,
        signature: &str,
    ) -> Self {
        let context = format!("{}\n{}", date.basic(), scope.text());
        Self { signing_key, context, previous: signature.to_owned() }
    }

    /// The string that the next chunk's signature is over.
    fn chunk_string(&self, sha256: &[u8]) -> String {
        let hash = hex(sha256);
        let algorithm = "AWS4-HMAC-SHA256-PAYLOAD";
        [algorithm, &self.context, &self.previous, EMPTY_SHA256, &hash].join("\n")
    }

    fn trailer_string(&self, sha256: &[u8]) -> String {
        ["AWS4-HMAC-SHA256-TRAILER", &self.context, &self.previous, &hex(sha256)].join("\n")
    }

    fn advance(&mut self, string_to_sign: &str, signature: &[u8]) -> bool {
        let expected = self.signing_key.sign(string_to_sign);
        let matches = bool::from(expected.as_bytes().ct_eq(signature));
        self.previous = expected;
        matches
    }

    /// Whether `signature` is that of the next chunk, whose bytes have this SHA-256.
    pub(crate) fn verify_chunk(&mut self, sha256: &[u8], signature: &[u8]) -> bool {
        self.advance(&self.chunk_string(sha256), signature)
    }

    /// Whether `signature` is that of the trailer, whose canonical lines have this SHA-256.
    pub(crate) fn verify_trailer(&mut self, sha256: &[u8], signature: &[u8]) -> bool {
        self.advance(&self.trailer_string(sha256), signature)
    }

    /// Signs the next chunk, for tests that play the client.
    #[cfg(test)]
    pub(crate) fn sign_chunk(&mut self, bytes: &[u8]) -> String {
        self.previous = self.signing_key.sign(&self.chunk_string(&Sha256::digest(bytes)));
        self.previous.clone()
    }

    /// Signs the trailer, for tests that play the client.
    #[cfg(test)]
    pub(crate) fn sign_trailer(&mut self, canonical: &[u8]) -> String {
        self.previous = self.signing_key.sign(&self.trailer_string(&Sha256::digest(canonical)));
        self.previous.clone()
    }
}

#[cfg(test)]
mod tests;
