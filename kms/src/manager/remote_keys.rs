//! Tenant keys whose outer half is in a remote key store.
//!
//! A material is `Extract(outer secret, inner half)`. The inner half is kept as every material is;
//! the store's blob of the outer secret is in the tenant's key directory, under
//! `k/<key>/store/<material>`.
//! Owns: making such a key, asking its store. Knows nothing of: which kind of store it is.
//!
//! Invariants
//! - A store is asked before the gate's guard is taken, never under it: a slow store keeps nobody's
//!   disable waiting.
//! - The whole material is made for one call and kept nowhere; what is cached is wiped when the
//!   gate closes.
//!   See docs/KEYS.md, "Key stores".

use super::entries::Change;
use super::{KeyEntry, Kms, read};
use crate::derive::extract_into;
use crate::error::{Error, ErrorKind, Result};
use crate::gate::UnwrapPermit;
use crate::record::{KeyOrigin, KeyRecord, MaterialRecord};
use crate::secret::TenantKey;
use crate::store::{KeptBlob, OuterSecret, RemoteKey};
use crate::types::{TenantId, TenantKeyId};

/// The number of a key's first material; a key in a store has no other.
const FIRST_MATERIAL: u32 = 1;

fn blob_name(id: TenantKeyId, material: u32) -> Vec<u8> {
    format!("k/{id}/store/{material}").into_bytes()
}

fn remote_key(record: &KeyRecord, material: u32) -> Option<RemoteKey<'_>> {
    let KeyOrigin::Store { store, key } = &record.origin else {
        return None;
    };
    Some(RemoteKey {
        tenant: record.tenant,
        tenant_key: record.id,
        material,
        store,
        store_key: key,
    })
}

/// The material of an inner half, with what its store unwrapped.
pub(super) fn whole(
    held: &MaterialRecord,
    inner: &TenantKey,
    outer: Option<&OuterSecret>,
) -> Result<TenantKey> {
    let outer = outer.filter(|outer| outer.material == held.number).ok_or_else(|| {
        Error::new(ErrorKind::Unavailable, "use a key in a key store that was not asked yet")
    })?;
    TenantKey::fill_with(|slot| {
        extract_into(outer.secret.borrow().as_slice(), inner.borrow().as_slice(), slot);
        Ok(())
    })
}

impl Kms {
    /// Asks the store of a new key for its outer secret. Gives the entry that keeps the store's
    /// blob, for the record that names it.
    pub(super) fn begin_remote_key(&self, blank: &KeyRecord) -> Result<Option<Change>> {
        let Some(key) = remote_key(blank, FIRST_MATERIAL) else {
            return Ok(None);
        };
        let (kept, _) = self.remote.wrap_new(key, &self.mac_key)?;
        Ok(Some((blob_name(blank.id, FIRST_MATERIAL), Some(kept.encode()))))
    }

    /// What the store of a key unwraps for its current material or the one of a number; none for a
    /// key that is in no store. Blocks for as long as the store may take; hold no guard.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: the store does not answer. [`ErrorKind::KeyUnusable`]: it
    /// refuses. [`ErrorKind::Corrupt`]: the kept blob is missing or does not open.
    pub(super) fn outer_secret(
        &self,
        entry: &KeyEntry,
        number: Option<u32>,
    ) -> Result<Option<OuterSecret>> {
        let record = entry.record();
        let number = number.or_else(|| record.current().map(|current| current.number));
        let Some(key) = number.and_then(|number| remote_key(&record, number)) else {
            return Ok(None);
        };
        let blob = read(&self.directory).value(key.tenant, &blob_name(record.id, key.material));
        let blob = blob.ok_or_else(|| {
            let during = format!("find what its store wrapped for tenant key {}", record.id);
            Error::new(ErrorKind::Corrupt, during)
        })?;
        self.remote.unwrap(key, &KeptBlob::decode(&blob)?, &self.mac_key).map(Some)
    }

    /// Whether the key is in a remote store, so that using it may wait for the network.
    pub fn is_remote(&self, tenant: TenantId, id: TenantKeyId) -> bool {
        let entry = self.entry(tenant, id);
        entry.is_ok_and(|entry| matches!(entry.record().origin, KeyOrigin::Store { .. }))
    }

    /// Asks the key's store, if it has one, so that the next use finds the answer in memory.
    /// Blocks.
    ///
    /// # Errors
    /// The gate is closed, or as the store answers: see [`ErrorKind::Unavailable`] and
    /// [`ErrorKind::KeyUnusable`].
    pub fn ask_store(&self, permit: &UnwrapPermit, material: Option<u32>) -> Result<()> {
        let entry = self.permitted_entry(permit)?;
        drop(permit.enter()?);
        self.outer_secret(&entry, material).map(drop)
    }
}

#[cfg(test)]
mod tests;
