//! Ciphertexts of the KMS API: wrap kind 6, up to 4,096 bytes under a tenant key's material.
//!
//! The layout of `wrap.rs` with a body of 1 to 4,096 bytes and a commitment at the end; the
//! wrapping key id is the tenant key's, the wrapping version the material's number. The context is
//! `{t: tenant, u: CTX(the caller's encryption context)}`.
//! Owns: [`ApiCiphertext`]. Knows nothing of: permits, counters, where a ciphertext goes.
//!
//! Invariants
//! - A ciphertext opens under one material, for one tenant and one encryption context.
//! - Nothing is decrypted before the commitment agrees.
//!   Bytes: docs/KEYS.md, "Wrapped key".

use std::fmt;

use zeroize::Zeroizing;

use crate::aead::TAG_BYTES;
use crate::env::{Rng, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{EncryptionContext, TenantId, TenantKeyId, context_digest};
use crate::wrap::{COMMITMENT_BYTES, HEADER_BYTES, WrapHeader, WrapKind, open_body, seal_body};

/// Longest plaintext of the API: AWS KMS's own limit.
pub const API_PLAINTEXT_BYTES_MAX: usize = 4096;
/// What encrypting adds to a plaintext.
pub const API_OVERHEAD_BYTES: usize = HEADER_BYTES + 32 + TAG_BYTES + COMMITMENT_BYTES;

/// A ciphertext of the KMS API, read; nothing says yet that it is authentic.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiCiphertext {
    bytes: Vec<u8>,
    header: WrapHeader,
}

impl ApiCiphertext {
    /// Reads a blob.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: it is none.
    pub fn parse(blob: &[u8]) -> Result<Self> {
        let plain_bytes = blob.len().saturating_sub(API_OVERHEAD_BYTES);
        let header = blob.first_chunk().and_then(WrapHeader::decode).filter(|header| {
            header.kind == WrapKind::ApiCiphertext
                && (1..=API_PLAINTEXT_BYTES_MAX).contains(&plain_bytes)
        });
        let header = header.ok_or_else(|| {
            let during = format!("read an API ciphertext of {} bytes", blob.len());
            Error::new(ErrorKind::Corrupt, during)
        })?;
        Ok(Self { bytes: blob.to_vec(), header })
    }

    /// The blob.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key that it names.
    pub const fn tenant_key(&self) -> TenantKeyId {
        TenantKeyId::from_bytes(self.header.wrapping_key_id)
    }

    /// The material that it names.
    pub const fn material(&self) -> u32 {
        self.header.wrapping_version
    }

    /// Encrypts `plain`, which the caller has bounded, under a material.
    pub(crate) fn seal(
        material_bytes: &[u8; 32],
        (tenant_key, material): (TenantKeyId, u32),
        context_digest: &[u8; 32],
        (plain, rng): (&[u8], &dyn Rng),
    ) -> Self {
        let header = WrapHeader {
            kind: WrapKind::ApiCiphertext,
            wrapping_key_id: *tenant_key.as_bytes(),
            wrapping_version: material,
        };
        let salt = random_array(rng);
        Self { bytes: seal_body(material_bytes, header, context_digest, (plain, &salt)), header }
    }

    /// Opens it. `None`: another material, another context or damaged bytes.
    pub(crate) fn open(
        &self,
        material_bytes: &[u8; 32],
        context_digest: &[u8; 32],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let plain_bytes = self.bytes.len().checked_sub(API_OVERHEAD_BYTES)?;
        let mut plain = Zeroizing::new(vec![0; plain_bytes]);
        let blob = (self.bytes.as_slice(), self.header.kind);
        open_body(material_bytes, blob, context_digest, &mut plain)?;
        Some(plain)
    }
}

impl fmt::Debug for ApiCiphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApiCiphertext").field(&self.header).finish()
    }
}

/// What a ciphertext is bound to: `{t: tenant, u: CTX(the caller's context)}`.
pub(crate) fn api_context(tenant: TenantId, context: &EncryptionContext) -> [u8; 32] {
    context_digest(&[(b"t", tenant.as_bytes()), (b"u", &context.encode())])
}

#[cfg(test)]
mod tests;
