//! Clients' keys (SSE-C): which key wraps the data keys of a mode, and who brought the right one.
//!
//! Owns: the choice between a bucket key and a bucket key with a client's key mixed in, and what a
//! missing, an unexpected and a wrong key are called. Knows nothing of: headers, rows.
//!
//! Invariants
//! - A client's key is never stored, not even as a digest: that it is the right one shows when the
//!   wrap opens, and in no other way.
//! - The bucket key, and so the tenant key, is needed in every mode: a client's key alone opens
//!   nothing.

use kluis_kms::{BucketKey, CustomerKey, DataKey, EncryptionContext, WrapKind, WrappedKey};

use crate::bucket_keys::BucketAccess;
use crate::error::{Error, ErrorKind, Result};
use crate::types::SseMode;

/// What wraps and unwraps data keys.
pub(crate) enum DataKeyWrapping<'a> {
    /// The bucket key.
    Bucket(&'a BucketKey),
    /// The bucket key with a client's key mixed in.
    Mixed(BucketKey),
}

impl<'a> DataKeyWrapping<'a> {
    /// What wraps the data keys of `mode` in the bucket of `access`.
    pub(crate) fn new(
        access: &'a BucketAccess,
        mode: SseMode,
        customer_key: Option<&CustomerKey>,
    ) -> Result<Self> {
        match (mode, customer_key) {
            (SseMode::S3 | SseMode::Kms, None) => Ok(Self::Bucket(access.data())),
            (SseMode::Customer, Some(key)) => {
                Ok(Self::Mixed(access.data().with_customer_key(key)?))
            }
            (SseMode::Customer, None) => {
                Err(Error::new(ErrorKind::CustomerKeyMissing, "use a data key of a client's key"))
            }
            (SseMode::S3 | SseMode::Kms, Some(_)) => Err(Error::new(
                ErrorKind::CustomerKeyUnexpected,
                "use a data key that is under no client's key",
            )),
        }
    }

    fn key(&self) -> &BucketKey {
        match self {
            Self::Bucket(key) => key,
            Self::Mixed(key) => key,
        }
    }

    /// Wraps a data key.
    pub(crate) fn wrap(
        &self,
        access: &BucketAccess,
        data_key: &DataKey,
        bound: &EncryptionContext,
        rng: &dyn kluis_kms::Rng,
    ) -> Result<WrappedKey> {
        Ok(self.key().wrap_data_key(&access.permit, data_key, bound, rng)?)
    }

    /// Unwraps a data key. A wrap that does not open in its own binding was moved or changed (rot
    /// is caught by the metadata store's own checksums), or is another client's key's: the two look
    /// the same.
    pub(crate) fn unwrap(
        &self,
        access: &BucketAccess,
        wrapped: &WrappedKey,
        bound: &EncryptionContext,
    ) -> Result<DataKey> {
        self.key().unwrap_data_key(&access.permit, wrapped, bound).map_err(|cause| {
            if cause.kind() != kluis_kms::ErrorKind::Corrupt {
                return cause.into();
            }
            let mixed = matches!(self, Self::Mixed(_));
            let kind = if mixed && wrapped.kind() == WrapKind::DataKeyCustomer {
                ErrorKind::CustomerKeyWrong
            } else {
                ErrorKind::Tampered
            };
            Error::new(kind, "unwrap a data key").with_source(cause)
        })
    }
}
