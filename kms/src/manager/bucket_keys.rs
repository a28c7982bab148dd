//! Bucket keys under a tenant key's materials.
//!
//! Owns: wrapping, unwrapping and rewrapping bucket keys. Knows nothing of: where the wraps are
//! kept, what a bucket is.
//!
//! Invariants
//! - Every verb takes a permit and works inside its guard.
//! - No bucket key is wrapped under an older material once a rotation returned.

use std::sync::Arc;

use super::Kms;
use crate::bucket_key::{BucketKey, BucketKeyScope, KeyOwner};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::UnwrapPermit;
use crate::secret::{BucketSecret, random};
use crate::types::BucketKeyId;
use crate::wrap::{WrapHeader, WrapKind, WrappedKey, unwrap_into, wrap};

impl Kms {
    /// Makes a bucket key and wraps it under the tenant key's current material.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDestroyed`], [`ErrorKind::KeyDisabled`]: the gate is closed.
    /// [`ErrorKind::Corrupt`]: the tenant key's slot or record is damaged.
    /// [`ErrorKind::Full`]: no locked memory is left.
    pub fn create_bucket_key(
        &self,
        permit: &UnwrapPermit,
        scope: &BucketKeyScope,
    ) -> Result<(BucketKey, BucketKeyId, WrappedKey)> {
        let secret = BucketSecret::fill_with(random(&*self.env.rng))?;
        let wrapped = self.wrap_bucket_secret(permit, scope, &secret)?;
        let bucket_key = self.bucket_key(permit, secret, *scope);
        let id = bucket_key.id();
        Ok((bucket_key, id, wrapped))
    }

    /// Unwraps a bucket key.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: not wrapped for this tenant key and scope, or damaged.
    /// And as [`Self::create_bucket_key`].
    pub fn unwrap_bucket_key(
        &self,
        permit: &UnwrapPermit,
        wrapped: &WrappedKey,
        scope: &BucketKeyScope,
    ) -> Result<BucketKey> {
        let (secret, until_ns) = self.unwrap_bucket_secret(permit, wrapped, scope)?;
        Ok(self.bucket_key(permit, secret, *scope).kept_until(until_ns))
    }

    /// Wraps a bucket key anew under the current material. The bucket key and its id stay.
    ///
    /// # Errors
    /// As [`Self::unwrap_bucket_key`].
    pub fn rewrap_bucket_key(
        &self,
        permit: &UnwrapPermit,
        wrapped: &WrappedKey,
        scope: &BucketKeyScope,
    ) -> Result<WrappedKey> {
        let (secret, _) = self.unwrap_bucket_secret(permit, wrapped, scope)?;
        self.wrap_bucket_secret(permit, scope, &secret)
    }

    fn wrap_bucket_secret(
        &self,
        permit: &UnwrapPermit,
        scope: &BucketKeyScope,
        secret: &BucketSecret,
    ) -> Result<WrappedKey> {
        let entry = self.permitted_entry(permit)?;
        let outer = self.outer_secret(&entry, None)?;
        let _in_flight = permit.enter()?;
        let digest = scope.context_digest(permit.tenant());
        let rng = &*self.env.rng;
        self.with_material(&entry, (None, outer.as_ref()), |held, material| {
            let header = WrapHeader {
                kind: WrapKind::BucketKey,
                wrapping_key_id: *permit.tenant_key().as_bytes(),
                wrapping_version: held.number,
            };
            Ok(wrap(&material.borrow(), header, &digest, (&secret.borrow(), rng)))
        })
    }

    /// The bucket key's bytes, and until when its key store's answer holds.
    fn unwrap_bucket_secret(
        &self,
        permit: &UnwrapPermit,
        wrapped: &WrappedKey,
        scope: &BucketKeyScope,
    ) -> Result<(BucketSecret, u64)> {
        let entry = self.permitted_entry(permit)?;
        let is_ours = wrapped.kind() == WrapKind::BucketKey
            && wrapped.wrapping_key_id() == permit.tenant_key().as_bytes();
        if !is_ours {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "unwrap a bucket key of another tenant key",
            ));
        }
        let number = Some(wrapped.wrapping_version());
        let outer = self.outer_secret(&entry, number)?;
        let _in_flight = permit.enter()?;
        let digest = scope.context_digest(permit.tenant());
        let secret = self.with_material(&entry, (number, outer.as_ref()), |_, material| {
            BucketSecret::fill_with(|slot| unwrap_into(&material.borrow(), wrapped, &digest, slot))
        })?;
        Ok((secret, outer.map_or(u64::MAX, |outer| outer.until_ns)))
    }

    fn bucket_key(
        &self,
        permit: &UnwrapPermit,
        secret: BucketSecret,
        scope: BucketKeyScope,
    ) -> BucketKey {
        BucketKey::new(secret, KeyOwner::of(permit), scope, Arc::clone(&self.env.rng))
    }
}
