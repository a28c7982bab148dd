//! A key under a key, bound to an encryption context.
//!
//! ```text
//!  0   1  format 0x01      1   1  suite 0x01   2   1  kind   3   1  flags (bit 0: commitment)
//!  4  16  wrapping key id   20   4  wrapping key version
//! 24  32  salt (random)     56  32  ciphertext      88  16  tag     [104  32  commitment]
//! ```
//! `okm = KDF(Extract(salt, KEK), "wrap", hdr ‖ SHA-256(CTX(ctx)), 44 or 76)`; `hdr`, the first 24
//! bytes, is also the associated data.
//! Owns: the layout of [`WrappedKey`]. Knows nothing of: what the ids name, permits, files.
//!
//! Invariants
//! - Every wrap draws a salt and so has a key of its own: no key-encrypting key has a nonce budget.
//! - A commitment, where there is one, is compared first and in constant time.
//! - Pure but for the salt, which the caller's generator gives.
//!   Bytes: docs/KEYS.md, "Wrapped key". Known answers: `wrap/tests.rs`.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::aead::{self, NONCE_BYTES, Nonce, TAG_BYTES, Tag};
use crate::derive::{extract, kdf};
use crate::env::{Rng, random_array};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a wrapped key without commitment.
pub const WRAPPED_KEY_BYTES: usize = 104;
/// Bytes of a wrapped key with commitment.
pub const WRAPPED_KEY_COMMITTED_BYTES: usize = 136;

const FORMAT: u8 = 0x01;
const SUITE: u8 = 0x01;
const FLAG_COMMITMENT: u8 = 0x01;
pub(crate) const HEADER_BYTES: usize = 24;
pub(crate) const COMMITMENT_BYTES: usize = 32;
const OKM_BYTES: usize = 32 + NONCE_BYTES + COMMITMENT_BYTES;

/// Which key lies under which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapKind {
    /// 1: a tenant key's material under the root key and its slot.
    TenantKey,
    /// 2: a bucket key under a tenant key.
    BucketKey,
    /// 3: a data key under a bucket key.
    DataKey,
    /// 4: a data key under a bucket key and a key the customer sends (SSE-C).
    DataKeyCustomer,
    /// 7: the node's secret under the root key.
    NodeSecret,
    /// 6: a ciphertext of the KMS API, [`ApiCiphertext`](crate::ApiCiphertext).
    ApiCiphertext,
}

impl WrapKind {
    const fn code(self) -> u8 {
        match self {
            Self::TenantKey => 1,
            Self::BucketKey => 2,
            Self::DataKey => 3,
            Self::DataKeyCustomer => 4,
            Self::NodeSecret => 7,
            Self::ApiCiphertext => 6,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::TenantKey,
            2 => Self::BucketKey,
            3 => Self::DataKey,
            4 => Self::DataKeyCustomer,
            7 => Self::NodeSecret,
            6 => Self::ApiCiphertext,
            _ => return None,
        })
    }

    /// Data keys carry none: the content's commitment covers them.
    const fn has_commitment(self) -> bool {
        !matches!(self, Self::DataKey | Self::DataKeyCustomer)
    }
}

/// The first 24 bytes of a wrapped key, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrapHeader {
    pub(crate) kind: WrapKind,
    pub(crate) wrapping_key_id: [u8; 16],
    pub(crate) wrapping_version: u32,
}

impl WrapHeader {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let flags = if self.kind.has_commitment() { FLAG_COMMITMENT } else { 0 };
        let mut bytes = [0; HEADER_BYTES];
        let head = [FORMAT, SUITE, self.kind.code(), flags];
        let parts = head.into_iter().chain(self.wrapping_key_id);
        let parts = parts.chain(self.wrapping_version.to_be_bytes());
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = from;
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (&[format, suite, kind, flags], rest) = bytes.split_first_chunk()?;
        let (&wrapping_key_id, rest) = rest.split_first_chunk()?;
        let &wrapping_version = rest.first_chunk()?;
        let kind = WrapKind::from_code(kind)?;
        let header =
            Self { kind, wrapping_key_id, wrapping_version: u32::from_be_bytes(wrapping_version) };
        let is_canonical = format == FORMAT && suite == SUITE && header.encode()[3] == flags;
        is_canonical.then_some(header)
    }
}

/// A wrapped key as it is stored. Not secret.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    bytes: Vec<u8>,
    header: WrapHeader,
}

impl WrappedKey {
    /// Reads stored bytes. Says nothing yet about their authenticity.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: the header or the length is not one this version writes.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let header = bytes.first_chunk().and_then(WrapHeader::decode);
        let header = header.filter(|header| {
            header.kind != WrapKind::ApiCiphertext && bytes.len() == total_bytes(header.kind)
        });
        header.map(|header| Self { bytes: bytes.to_vec(), header }).ok_or_else(|| {
            let during = format!("read a wrapped key of {} bytes", bytes.len());
            Error::new(ErrorKind::Corrupt, during)
        })
    }

    /// The stored bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Which key lies under which.
    pub const fn kind(&self) -> WrapKind {
        self.header.kind
    }

    /// The id of the key above: root keyring, tenant key or bucket key, by kind.
    pub const fn wrapping_key_id(&self) -> &[u8; 16] {
        &self.header.wrapping_key_id
    }

    /// Its version: root epoch, material number or bucket key epoch, by kind.
    pub const fn wrapping_version(&self) -> u32 {
        self.header.wrapping_version
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WrappedKey").field(&self.header).finish()
    }
}

const fn total_bytes(kind: WrapKind) -> usize {
    if kind.has_commitment() { WRAPPED_KEY_COMMITTED_BYTES } else { WRAPPED_KEY_BYTES }
}

/// Wraps `secret` under `kek`, bound to `header` and to the context of `context_digest`.
pub(crate) fn wrap(
    kek: &[u8; 32],
    header: WrapHeader,
    context_digest: &[u8; 32],
    (secret, rng): (&[u8; 32], &dyn Rng),
) -> WrappedKey {
    wrap_with_salt(kek, header, context_digest, (secret, &random_array(rng)))
}

fn wrap_with_salt(
    kek: &[u8; 32],
    header: WrapHeader,
    context_digest: &[u8; 32],
    (secret, salt): (&[u8; 32], &[u8; 32]),
) -> WrappedKey {
    WrappedKey { bytes: seal_body(kek, header, context_digest, (secret, salt)), header }
}

/// A body of any length under `kek`, in the layout above.
pub(crate) fn seal_body(
    kek: &[u8; 32],
    header: WrapHeader,
    context_digest: &[u8; 32],
    (plain, salt): (&[u8], &[u8; 32]),
) -> Vec<u8> {
    let header_bytes = header.encode();
    let okm = WrapOkm::derive(kek, &header_bytes, context_digest, salt);
    let overhead = HEADER_BYTES + salt.len() + TAG_BYTES + COMMITMENT_BYTES;
    let mut bytes = Vec::with_capacity(overhead + plain.len());
    bytes.extend_from_slice(&header_bytes);
    bytes.extend_from_slice(salt);
    let start = bytes.len();
    bytes.resize(start + plain.len(), 0);
    let (_, body) = bytes.split_at_mut(start);
    let tag = aead::encrypt_to(okm.key_bytes(), okm.nonce(), &header_bytes, (plain, body));
    bytes.extend_from_slice(&tag);
    if header.kind.has_commitment() {
        bytes.extend_from_slice(okm.commitment());
    }
    bytes
}

/// Unwraps into `secret`, which is zeroed unless the result is `Ok`.
///
/// # Errors
/// [`ErrorKind::Corrupt`]: another key, another context or damaged bytes, not told apart.
pub(crate) fn unwrap_into(
    kek: &[u8; 32],
    wrapped: &WrappedKey,
    context_digest: &[u8; 32],
    secret: &mut [u8; 32],
) -> Result<()> {
    open_body(kek, (&wrapped.bytes, wrapped.kind()), context_digest, secret).ok_or_else(|| {
        secret.zeroize();
        let (kind, version) = (wrapped.kind(), wrapped.wrapping_version());
        Error::new(ErrorKind::Corrupt, format!("unwrap a {kind:?} under version {version}"))
    })
}

/// Opens what [`seal_body`] made into `out`, which has the body's length.
pub(crate) fn open_body(
    kek: &[u8; 32],
    (bytes, kind): (&[u8], WrapKind),
    context_digest: &[u8; 32],
    out: &mut [u8],
) -> Option<()> {
    let (header_bytes, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let (salt, rest) = rest.split_first_chunk::<32>()?;
    let (body, rest) = rest.split_at_checked(out.len())?;
    let (tag, commitment) = rest.split_first_chunk::<TAG_BYTES>()?;
    let okm = WrapOkm::derive(kek, header_bytes, context_digest, salt);
    if kind.has_commitment() && !bool::from(okm.commitment().ct_eq(commitment)) {
        return None;
    }
    let message: (&[u8], &Tag, &mut [u8]) = (body, tag, out);
    aead::decrypt_to(okm.key_bytes(), okm.nonce(), header_bytes, message).ok()
}

/// One wrap's key, nonce and commitment. Wiped on drop.
struct WrapOkm(Zeroizing<[u8; OKM_BYTES]>);

impl WrapOkm {
    fn derive(
        kek: &[u8; 32],
        header_bytes: &[u8; HEADER_BYTES],
        context_digest: &[u8; 32],
        salt: &[u8; 32],
    ) -> Self {
        // Expand's output for 44 bytes is the beginning of its output for 76, so the commitment
        // is derived always and used by kind.
        let mut okm = Self(Zeroizing::new([0; OKM_BYTES]));
        let prk = extract(salt, kek);
        kdf(&prk, b"wrap", [header_bytes, context_digest], okm.0.as_mut_slice());
        okm
    }

    fn key_bytes(&self) -> &[u8; 32] {
        self.0.first_chunk().expect("76 bytes begin with 32")
    }

    fn nonce(&self) -> &Nonce {
        let (_, rest) = self.0.split_at(32);
        rest.first_chunk().expect("44 bytes begin with 12")
    }

    fn commitment(&self) -> &[u8; COMMITMENT_BYTES] {
        self.0.last_chunk().expect("76 bytes end with 32")
    }
}

#[cfg(test)]
mod tests;
