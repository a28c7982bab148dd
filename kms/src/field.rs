//! Sealed metadata fields of a bucket's objects.
//!
//! `0x01 ‖ be32 epoch ‖ nonce (12, random) ‖ AEAD(KDF(bucket key, "meta", tenant ‖ bucket, 32),
//! nonce, SHA-256(CTX{b, f: field, k: object key, v: version}), value)`
//! Owns: that layout. Knows nothing of: what a field says, where it is stored.
//!
//! Invariants
//! - A field opens only in its bucket, for its object key, its version and its name.
//! - Every use passes the tenant key's gate; a cipher that is kept per bucket stays harmless once
//!   the key is disabled.
//!   Bytes: docs/KEYS.md, "Sealed field".

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::aead::{self, NONCE_BYTES, Nonce, TAG_BYTES, Tag};
use crate::bucket_key::{BucketKeyScope, KeyOwner};
use crate::env::{Rng, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::UnwrapPermit;
use crate::secret::FieldSecret;
use crate::types::context_digest;

/// Longest value: RFC 8452 §9 argues its bound for random nonces with messages of 128 KiB.
pub const FIELD_BYTES_MAX: usize = 128 * 1024;
/// What sealing adds to a value.
pub const FIELD_OVERHEAD_BYTES: usize = 1 + 4 + NONCE_BYTES + TAG_BYTES;

const FORMAT: u8 = 0x01;

/// Which field of which version of which object.
#[derive(Clone, Copy, Debug)]
pub struct FieldName<'a> {
    /// The field: `um` user metadata, `tg` tags, `la` listing attributes.
    pub field: &'a str,
    /// The object's key.
    pub object_key: &'a [u8],
    /// The object's version id.
    pub version: &'a [u8; 16],
}

/// Seals and opens the fields of one bucket. Cheap to keep.
pub struct FieldCipher {
    secret: FieldSecret,
    owner: KeyOwner,
    scope: BucketKeyScope,
    rng: Arc<dyn Rng>,
}

impl FieldCipher {
    pub(crate) const fn new(
        secret: FieldSecret,
        owner: KeyOwner,
        scope: BucketKeyScope,
        rng: Arc<dyn Rng>,
    ) -> Self {
        Self { secret, owner, scope, rng }
    }

    /// The epoch of the bucket key it comes from.
    pub const fn epoch(&self) -> u32 {
        self.scope.epoch
    }

    /// The epoch a sealed field needs.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: not a sealed field.
    pub fn epoch_of(sealed: &[u8]) -> Result<u32> {
        split(sealed).map(|parts| parts.epoch).ok_or_else(bad_field)
    }

    /// Seals a value.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyDestroyed`]: the gate is closed.
    /// [`ErrorKind::Misuse`]: the value is longer than [`FIELD_BYTES_MAX`].
    /// [`ErrorKind::NotFound`]: the permit is for another key.
    pub fn seal(
        &self,
        permit: &UnwrapPermit,
        name: &FieldName<'_>,
        value: &[u8],
    ) -> Result<Vec<u8>> {
        self.owner.check(permit)?;
        if value.len() > FIELD_BYTES_MAX {
            let during = format!("seal a field of {} bytes", value.len());
            return Err(Error::new(ErrorKind::Misuse, during));
        }
        let _in_flight = permit.enter()?;
        let nonce: Nonce = random_array(&*self.rng);
        let mut sealed = Vec::with_capacity(value.len() + FIELD_OVERHEAD_BYTES);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.scope.epoch.to_be_bytes());
        sealed.extend_from_slice(&nonce);
        let start = sealed.len();
        sealed.resize(start + value.len(), 0);
        let (_, body) = sealed.split_at_mut(start);
        let aad = self.aad(name);
        let tag = aead::encrypt_to(&self.secret.borrow(), &nonce, &aad, (value, body));
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens a sealed value; the plaintext is wiped on drop.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: not sealed under this name by this cipher.
    /// [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyDestroyed`]: the gate is closed.
    /// [`ErrorKind::NotFound`]: the permit is for another key, or the field is of another epoch
    /// (see [`Self::epoch_of`]).
    pub fn open(
        &self,
        permit: &UnwrapPermit,
        name: &FieldName<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        self.owner.check(permit)?;
        let parts = split(sealed).ok_or_else(bad_field)?;
        if parts.epoch != self.scope.epoch {
            let during = format!("open a field of epoch {}", parts.epoch);
            return Err(Error::new(ErrorKind::NotFound, during));
        }
        let _in_flight = permit.enter()?;
        let mut value = Zeroizing::new(vec![0; parts.body.len()]);
        let message: (&[u8], &Tag, &mut [u8]) = (parts.body, parts.tag, &mut value);
        aead::decrypt_to(&self.secret.borrow(), parts.nonce, &self.aad(name), message)
            .map_err(|_| bad_field())?;
        Ok(value)
    }

    fn aad(&self, name: &FieldName<'_>) -> [u8; 32] {
        context_digest(&[
            (b"b", &self.scope.bucket),
            (b"f", name.field.as_bytes()),
            (b"k", name.object_key),
            (b"v", name.version),
        ])
    }
}

struct SealedField<'a> {
    epoch: u32,
    nonce: &'a Nonce,
    body: &'a [u8],
    tag: &'a Tag,
}

fn split(sealed: &[u8]) -> Option<SealedField<'_>> {
    let (&[format], rest) = sealed.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (nonce, rest) = rest.split_first_chunk()?;
    let (body, tag) = rest.split_last_chunk()?;
    let is_field = format == FORMAT && body.len() <= FIELD_BYTES_MAX;
    let epoch = u32::from_be_bytes(*epoch);
    is_field.then_some(SealedField { epoch, nonce, body, tag })
}

fn bad_field() -> Error {
    Error::new(ErrorKind::Corrupt, "open a sealed field")
}

#[cfg(test)]
mod tests;
