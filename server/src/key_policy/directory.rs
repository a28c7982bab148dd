//! Where policies and grants are kept: the key directory of the kms package.
//!
//! Owns: the names of the entries. Knows nothing of: what the entries say.
//!
//! Invariants
//! - Every read and write names the tenant it is for.

use std::sync::Arc;

use kluis_kms::{KeyOrigin, Kms, Purpose, TenantId, TenantKeyId};

/// A value of the directory.
pub(crate) type Value = Arc<[u8]>;
/// Values to set; none deletes.
pub(crate) type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A tenant's small values, sealed and durable. The kms package has the one that lasts.
pub(crate) trait KeyDirectory: Send + Sync {
    /// A value.
    fn value(&self, tenant: TenantId, name: &[u8]) -> Option<Value>;
    /// The values whose names start with `prefix`, in order.
    fn values(&self, tenant: TenantId, prefix: &[u8]) -> Vec<(Vec<u8>, Value)>;
    /// Changes values durably, all or none.
    fn set(&self, who: &Purpose, id: TenantKeyId, changes: Changes) -> kluis_kms::Result<()>;
    /// Where a key's material comes from, as AWS names it; nothing if there is no such key.
    fn origin(&self, tenant: TenantId, id: TenantKeyId) -> Option<&'static str>;
    /// The tenant's keys.
    fn keys(&self, tenant: TenantId) -> Vec<TenantKeyId>;
}

impl KeyDirectory for Kms {
    fn value(&self, tenant: TenantId, name: &[u8]) -> Option<Value> {
        self.entry_value(tenant, name)
    }

    fn values(&self, tenant: TenantId, prefix: &[u8]) -> Vec<(Vec<u8>, Value)> {
        self.entry_values(tenant, prefix)
    }

    fn set(&self, who: &Purpose, id: TenantKeyId, changes: Changes) -> kluis_kms::Result<()> {
        self.set_entries(who, Some(id), changes)
    }

    fn origin(&self, tenant: TenantId, id: TenantKeyId) -> Option<&'static str> {
        Some(match self.describe(tenant, id).ok()?.origin {
            KeyOrigin::Imported => "EXTERNAL",
            KeyOrigin::Local => "AWS_KMS",
            KeyOrigin::Store { .. } => "EXTERNAL_KEY_STORE",
        })
    }

    fn keys(&self, tenant: TenantId) -> Vec<TenantKeyId> {
        self.list(tenant).iter().map(|info| info.id).collect()
    }
}

/// The entry of a key's policy.
pub(super) fn policy_name(id: TenantKeyId) -> Vec<u8> {
    format!("k/{id}/policy").into_bytes()
}

/// What the names of a key's grants start with.
pub(super) fn grants_prefix(id: TenantKeyId) -> Vec<u8> {
    format!("k/{id}/grant/").into_bytes()
}

/// The entry of a grant.
pub(super) fn grant_name(id: TenantKeyId, grant_id: &str) -> Vec<u8> {
    format!("k/{id}/grant/{grant_id}").into_bytes()
}

/// What the names of a tenant's aliases start with; their values are key ids.
pub(super) const ALIASES: &[u8] = b"a/";
