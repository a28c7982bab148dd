//! Bucket keys: what data keys are wrapped under, and where field ciphers come from.
//!
//! Owns: contexts of wrap kind 2, wraps of kinds 3 and 4, the derivation of a bucket key's id.
//! Knows nothing of: buckets and objects but as opaque bytes, where wraps are stored.
//!
//! Invariants
//! - A bucket key works only with permits for the tenant key it lies under, and every use passes
//!   that key's gate.
//! - Its id is derived from its bytes: two bucket keys never share one, and no caller chooses it.
//!   See docs/KEYS.md, "Key levels".

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroize;

use crate::derive::kdf;
use crate::env::{Clock, Rng};
use crate::error::{Error, ErrorKind, Result};
use crate::field::FieldCipher;
use crate::gate::UnwrapPermit;
use crate::secret::{BucketSecret, CustomerKey, DataKey, FieldSecret};
use crate::types::{BucketKeyId, EncryptionContext, TenantId, TenantKeyId, context_digest};
use crate::wrap::{WrapHeader, WrapKind, WrappedKey, unwrap_into, wrap};

/// What a bucket key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BucketKeyPurpose {
    /// Wrapping the data keys of bodies.
    Data,
    /// Sealing metadata fields.
    Meta,
}

impl BucketKeyPurpose {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Data => b"data",
            Self::Meta => b"meta",
        }
    }
}

/// Which bucket key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketKeyScope {
    /// The bucket's id.
    pub bucket: [u8; 16],
    /// Counted per bucket and purpose; a new bucket key is the next epoch.
    pub epoch: u32,
    /// What it is for.
    pub purpose: BucketKeyPurpose,
}

impl BucketKeyScope {
    /// The context of wrap kind 2: `{b, n: be32 epoch, p, t}`.
    pub(crate) fn context_digest(&self, tenant: TenantId) -> [u8; 32] {
        context_digest(&[
            (b"b", &self.bucket),
            (b"n", &self.epoch.to_be_bytes()),
            (b"p", self.purpose.name()),
            (b"t", tenant.as_bytes()),
        ])
    }
}

/// Whose key, under which tenant key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyOwner {
    pub(crate) tenant: TenantId,
    pub(crate) tenant_key: TenantKeyId,
}

impl KeyOwner {
    pub(crate) const fn of(permit: &UnwrapPermit) -> Self {
        Self { tenant: permit.tenant(), tenant_key: permit.tenant_key() }
    }

    /// A permit for another key answers as if the key were not there.
    pub(crate) fn check(self, permit: &UnwrapPermit) -> Result<()> {
        if self == Self::of(permit) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, "use a bucket key with a permit for another key"))
    }
}

/// An unwrapped bucket key.
pub struct BucketKey {
    secret: BucketSecret,
    owner: KeyOwner,
    scope: BucketKeyScope,
    id: BucketKeyId,
    rng: Arc<dyn Rng>,
    /// `DataKey`, or `DataKeyCustomer` when a customer's key is mixed in.
    wraps: WrapKind,
    /// See [`BucketKey::is_stale`].
    until_ns: u64,
}

impl BucketKey {
    pub(crate) fn new(
        secret: BucketSecret,
        owner: KeyOwner,
        scope: BucketKeyScope,
        rng: Arc<dyn Rng>,
    ) -> Self {
        let mut id = [0; 16];
        let context = scope.context_digest(owner.tenant);
        kdf(&secret.borrow(), b"bucket-key-id", [&context], &mut id);
        let id = BucketKeyId::from_bytes(id);
        Self { secret, owner, scope, id, rng, wraps: WrapKind::DataKey, until_ns: u64::MAX }
    }

    /// This key, to be kept in caches until then only, in monotonic nanoseconds.
    pub(crate) fn kept_until(self, until_ns: u64) -> Self {
        Self { until_ns, ..self }
    }

    /// Whether a cache should drop it and unwrap anew: its tenant key is in a remote store, which
    /// was not asked for too long. What was begun with it goes on.
    pub fn is_stale(&self, clock: &dyn Clock) -> bool {
        self.until_ns != u64::MAX && clock.monotonic_ns() >= self.until_ns
    }

    /// The id that wraps under this key carry.
    pub const fn id(&self) -> BucketKeyId {
        self.id
    }

    /// Its epoch: the version that wraps under this key carry.
    pub const fn epoch(&self) -> u32 {
        self.scope.epoch
    }

    /// Which bucket key this is.
    pub const fn scope(&self) -> &BucketKeyScope {
        &self.scope
    }

    /// Whose key.
    pub const fn tenant(&self) -> TenantId {
        self.owner.tenant
    }

    /// The tenant key it lies under.
    pub const fn tenant_key(&self) -> TenantKeyId {
        self.owner.tenant_key
    }

    /// Wraps a data key, bound to `context`.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyDestroyed`]: the gate is closed.
    /// [`ErrorKind::NotFound`]: the permit is for another key.
    /// [`ErrorKind::Misuse`]: this bucket key is for metadata.
    pub fn wrap_data_key(
        &self,
        permit: &UnwrapPermit,
        data_key: &DataKey,
        context: &EncryptionContext,
        rng: &dyn Rng,
    ) -> Result<WrappedKey> {
        self.check(permit, BucketKeyPurpose::Data)?;
        let _in_flight = permit.enter()?;
        let header = self.header();
        let digest = context.digest();
        Ok(wrap(&self.secret.borrow(), header, &digest, (&data_key.borrow(), rng)))
    }

    /// Unwraps a data key that was wrapped under this bucket key with the same `context`. Take the
    /// context from the request, not from the record.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: another key, another context or damaged bytes.
    /// [`ErrorKind::Full`]: no locked memory is left. And as [`Self::wrap_data_key`].
    pub fn unwrap_data_key(
        &self,
        permit: &UnwrapPermit,
        wrapped: &WrappedKey,
        context: &EncryptionContext,
    ) -> Result<DataKey> {
        self.check(permit, BucketKeyPurpose::Data)?;
        let header = self.header();
        let is_ours = wrapped.kind() == header.kind
            && wrapped.wrapping_key_id() == &header.wrapping_key_id
            && wrapped.wrapping_version() == header.wrapping_version;
        if !is_ours {
            return Err(Error::new(ErrorKind::Corrupt, "unwrap a data key of another bucket key"));
        }
        let _in_flight = permit.enter()?;
        let digest = context.digest();
        DataKey::fill_with(|slot| unwrap_into(&self.secret.borrow(), wrapped, &digest, slot))
    }

    /// This bucket key with the customer's key mixed in (SSE-C): `HMAC-SHA-256(key, customer's)`.
    /// What it wraps opens only with both.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`]: one is mixed in already, or this key is for metadata.
    /// [`ErrorKind::Full`]: no locked memory is left.
    pub fn with_customer_key(&self, customer_key: &CustomerKey) -> Result<Self> {
        if self.wraps != WrapKind::DataKey || self.scope.purpose != BucketKeyPurpose::Data {
            return Err(Error::new(ErrorKind::Misuse, "mix a customer's key into a bucket key"));
        }
        let secret = BucketSecret::fill_with(|slot| {
            let mut state = Hmac::<Sha256>::new_from_slice(&*self.secret.borrow())
                .expect("HMAC takes a key of any length");
            state.update(&*customer_key.borrow());
            let mut mixed = state.finalize().into_bytes();
            slot.copy_from_slice(&mixed);
            mixed.as_mut_slice().zeroize();
            Ok(())
        })?;
        let (owner, scope, id) = (self.owner, self.scope, self.id);
        let rng = Arc::clone(&self.rng);
        Ok(Self {
            secret,
            owner,
            scope,
            id,
            rng,
            wraps: WrapKind::DataKeyCustomer,
            until_ns: self.until_ns,
        })
    }

    /// The cipher of the bucket's metadata fields. `tenant` and `bucket` must be this key's own;
    /// they are asked for so that a caller cannot seal one bucket's fields under another's key.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`]: another tenant or bucket, or this key is for data.
    /// [`ErrorKind::Full`]: no locked memory is left.
    pub fn field_cipher(&self, tenant: TenantId, bucket: &[u8; 16]) -> Result<FieldCipher> {
        let is_ours = self.owner.tenant == tenant
            && self.scope.bucket == *bucket
            && self.scope.purpose == BucketKeyPurpose::Meta;
        if !is_ours {
            return Err(Error::new(ErrorKind::Misuse, "make a field cipher from a bucket key"));
        }
        let secret = FieldSecret::fill_with(|slot| {
            kdf(&self.secret.borrow(), b"meta", [tenant.as_bytes(), bucket], slot);
            Ok(())
        })?;
        Ok(FieldCipher::new(secret, self.owner, self.scope, Arc::clone(&self.rng)))
    }

    fn check(&self, permit: &UnwrapPermit, purpose: BucketKeyPurpose) -> Result<()> {
        self.owner.check(permit)?;
        if self.scope.purpose == purpose {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Misuse, "use a bucket key for what it is not for"))
    }

    const fn header(&self) -> WrapHeader {
        WrapHeader {
            kind: self.wraps,
            wrapping_key_id: *self.id.as_bytes(),
            wrapping_version: self.scope.epoch,
        }
    }
}

#[cfg(test)]
mod tests;
