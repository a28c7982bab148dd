//! The directory of tenants, users and access keys.
//!
//! Owns: which rows of the registry exist together, the secrets of access keys (sealed at rest,
//! wiped in memory), and a bounded cache of what a request's check needs. Making and changing
//! people is in `people.rs`, the rows' bytes in `rows.rs`. Knows nothing of: HTTP, buckets, rights.
//!
//! Invariants
//! - A secret access key is on disk only as sealed by the root key and bound to its tenant, user
//!   and access key id; a row copied under another id does not open.
//! - A change is durable when its call returns, and no lookup that begins after that sees the old
//!   state.
//! - A revoked access key's secret is erased from its row.
//!   Bytes: docs/FORMAT.md, "Registry rows".

mod cache;
mod error;
mod people;
mod rows;

use std::sync::{Arc, Mutex, PoisonError};

use kluis_kms::env::Env;
use kluis_kms::{EncryptionContext, Kms, TenantId};
use kluis_storage::{Registry, UserId};
use zeroize::Zeroizing;

use super::User;
use super::signing::{Scope, SigningKey};
use cache::Cache;
pub(crate) use error::{DirectoryError, DirectoryErrorKind};
pub(crate) use people::{NewTenant, TenantInfo, UserInfo};
use rows::{AccessKeyRow, RowStore, State, TenantRow, UserRow};

/// Half of the access keys that stay in memory: about 1 KiB each, so 32 MiB at most.
const CACHE_HALF_ENTRIES_MAX: usize = 16_384;
/// Signing keys kept for one access key. One is current; a second around midnight, and presigned
/// URLs may bring a few days more.
const SIGNING_KEYS_MAX: usize = 4;

/// Everything a signature's check needs to know of an access key.
pub(crate) struct Credential {
    user: Arc<User>,
    secret: Zeroizing<Vec<u8>>,
    suspended: bool,
    signing_keys: Mutex<Vec<(Scope, SigningKey)>>,
}

impl Credential {
    /// Whose it is.
    pub(crate) fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// Whether the tenant is suspended.
    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// The signing key of `scope`, from memory or derived anew.
    pub(crate) fn signing_key(&self, scope: &Scope) -> SigningKey {
        let kept = self.signing_keys.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(known, _)| known == scope).map(|(_, found)| found.clone());
        drop(kept);
        found.unwrap_or_else(|| SigningKey::derive(&self.secret, scope))
    }

    /// Keeps a signing key that has just verified a request; only a holder of the secret can bring
    /// one in, so nobody else can push it out. The oldest goes, and is wiped.
    pub(crate) fn keep_signing_key(&self, scope: &Scope, signing_key: &SigningKey) {
        let mut kept = self.signing_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.iter().any(|(known, _)| known == scope) {
            return;
        }
        if kept.len() >= SIGNING_KEYS_MAX {
            kept.remove(0);
        }
        kept.push((scope.clone(), signing_key.clone()));
    }
}

/// Tenants, users and access keys. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Directory {
    shared: Arc<Shared>,
}

struct Shared {
    rows: Box<dyn RowStore>,
    kms: Arc<Kms>,
    env: Env,
    credentials: Cache<Credential>,
}

impl Directory {
    /// The directory in `registry`. Opens at once: rows are read when they are needed.
    pub(crate) fn open(registry: Registry, kms: Arc<Kms>, env: Env) -> Self {
        Self::over(Box::new(registry), kms, env)
    }

    fn over(rows: Box<dyn RowStore>, kms: Arc<Kms>, env: Env) -> Self {
        let credentials = Cache::new(CACHE_HALF_ENTRIES_MAX);
        Self { shared: Arc::new(Shared { rows, kms, env, credentials }) }
    }

    fn rows(&self) -> &dyn RowStore {
        self.shared.rows.as_ref()
    }

    fn env(&self) -> &Env {
        &self.shared.env
    }

    /// The credential of an access key id as a request brought it. `None` for one that nobody has
    /// and for one that was revoked, without a difference.
    pub(crate) fn lookup(
        &self,
        access_key_id: &str,
    ) -> Result<Option<Arc<Credential>>, DirectoryError> {
        if !access_key_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Ok(None);
        }
        let epoch = match self.shared.credentials.get(access_key_id) {
            Ok(credential) => return Ok(Some(credential)),
            Err(epoch) => epoch,
        };
        let Some(credential) = self.read_credential(access_key_id)? else {
            return Ok(None);
        };
        let credential = Arc::new(credential);
        let name = Arc::clone(&credential.user.access_key_id);
        self.shared.credentials.insert(epoch, name, Arc::clone(&credential));
        Ok(Some(credential))
    }

    fn read_credential(&self, access_key_id: &str) -> Result<Option<Credential>, DirectoryError> {
        let Some(row) = self.rows().get(rows::ACCESS_KEYS, access_key_id.as_bytes())? else {
            return Ok(None);
        };
        let row = AccessKeyRow::decode(&row).ok_or_else(|| DirectoryError::broken("access key"))?;
        if row.state != State::Active {
            return Ok(None);
        }
        let tenant = self.tenant_row(row.tenant)?;
        let user = self.user_row(row.tenant, row.user)?;
        let aad = secret_aad(row.tenant, row.user, access_key_id)?;
        let secret = self.shared.kms.open_credential(row.tenant, &aad, &row.sealed_secret)?;
        let user = User {
            tenant: row.tenant,
            account_id: tenant.account_id,
            user: row.user,
            name: user.name.into(),
            is_root: user.is_root,
            access_key_id: access_key_id.into(),
        };
        Ok(Some(Credential {
            user: Arc::new(user),
            secret,
            suspended: tenant.state != State::Active,
            signing_keys: Mutex::new(Vec::new()),
        }))
    }

    fn tenant_row(&self, tenant: TenantId) -> Result<TenantRow, DirectoryError> {
        let value = self.rows().get(rows::TENANTS, tenant.as_bytes())?;
        value
            .and_then(|value| TenantRow::decode(&value))
            .ok_or_else(|| DirectoryError::broken("tenant"))
    }

    fn user_row(&self, tenant: TenantId, user: UserId) -> Result<UserRow, DirectoryError> {
        let value = self.rows().get(rows::USERS, &user_row_key(tenant, user))?;
        value
            .and_then(|value| UserRow::decode(&value))
            .ok_or_else(|| DirectoryError::broken("user"))
    }
}

fn user_row_key(tenant: TenantId, user: UserId) -> Vec<u8> {
    [tenant.as_bytes().as_slice(), user.as_bytes()].concat()
}

/// What a sealed secret is bound to.
fn secret_aad(
    tenant: TenantId,
    user: UserId,
    access_key_id: &str,
) -> Result<EncryptionContext, DirectoryError> {
    Ok(EncryptionContext::new()
        .with(b"access-key-id", access_key_id.as_bytes())?
        .with(b"tenant", tenant.as_bytes())?
        .with(b"user", user.as_bytes())?)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
