//! Whether a caller of S3 may use a tenant key.
//!
//! Owns: which action of the key's policy a read and a write are, and what its conditions see of
//! them. Knows nothing of: objects, gates.
//!
//! Invariants
//! - Reading is `kms:Decrypt`, writing `kms:GenerateDataKey`, through S3 and for the bucket's ARN,
//!   as S3 asks AWS KMS with a bucket key.
//! - Asked anew for every permit: a change of a policy counts from the next permit on.

use std::sync::Arc;

use kluis_kms::{KeyRights, KeyUse, TenantKeyId};
use kluis_storage::BucketName;

use super::request::{KmsRequestContext, Origin};
use super::{KeyPolicies, Pairs};
use crate::auth::User;

/// The name of the pair that S3 adds to an encryption context.
const BUCKET_PAIR: &str = "aws:s3:arn";

/// What a caller of S3 may do with the keys of its tenant.
pub(crate) struct S3KeyRights {
    /// The policies.
    pub(crate) policies: Arc<KeyPolicies>,
    /// Who calls.
    pub(crate) user: Arc<User>,
    /// The bucket, where there is one.
    pub(crate) bucket: Option<BucketName>,
    /// Where the request comes from.
    pub(crate) origin: Origin,
}

impl KeyRights for S3KeyRights {
    fn may_use(&self, tenant_key: TenantKeyId, key_use: KeyUse) -> bool {
        let action = match key_use {
            KeyUse::Attributes => return true,
            KeyUse::Read => "kms:Decrypt",
            KeyUse::Write => "kms:GenerateDataKey",
        };
        if self.policies.is_left_to_account(&self.user, tenant_key) {
            return true;
        }
        let pair = |name: &BucketName| (BUCKET_PAIR.to_owned(), format!("arn:aws:s3:::{name}"));
        let request = KmsRequestContext {
            context: self.bucket.iter().map(pair).collect::<Pairs>(),
            origin: self.origin,
            via_service: Some(Arc::clone(&self.policies.s3_service)),
            extra: Vec::new(),
        };
        match self.policies.authorise(&self.user, action, Some(tenant_key), &request) {
            Ok(()) => true,
            Err(denied) => {
                tracing::debug!(%denied, "a key's policy refused its use");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
