//! What is known of a key's policy and grants, in memory.
//!
//! Owns: the bound on memory, and that no older state is kept after a change. Knows nothing of:
//! what the rules say.
//!
//! Invariants
//! - What was read before a change is not kept after it: a change moves the epoch.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kluis_kms::{TenantId, TenantKeyId};

/// Bytes of stored text that the cache stands for; parsed it takes about four times as much. A key
/// without policy and grants counts [`ENTRY_BYTES`], so this is also 65,536 keys at most.
const CACHED_BYTES_MAX: usize = 16 << 20;
/// What an entry takes beside its texts.
const ENTRY_BYTES: usize = 256;

type Place = (TenantId, TenantKeyId);

/// A bounded map from keys to their rules.
pub(super) struct Cache<T> {
    inner: RwLock<Inner<T>>,
}

struct Inner<T> {
    rules: HashMap<Place, Arc<T>>,
    bytes: usize,
    epoch: u64,
}

impl<T> Cache<T> {
    pub(super) fn new() -> Self {
        let inner = Inner { rules: HashMap::new(), bytes: 0, epoch: 0 };
        Self { inner: RwLock::new(inner) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner<T>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<T>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules of a key, or the epoch to give to [`Self::insert`] once they were read.
    pub(super) fn get(&self, place: Place) -> Result<Arc<T>, u64> {
        let inner = self.read();
        inner.rules.get(&place).cloned().ok_or(inner.epoch)
    }

    /// Keeps rules that were read in `epoch`, unless something changed since. `bytes` is the
    /// length of their texts. A full cache starts anew: what is in use comes back at once.
    pub(super) fn insert(&self, epoch: u64, place: Place, rules: Arc<T>, bytes: usize) {
        let mut inner = self.write();
        if inner.epoch != epoch || inner.rules.contains_key(&place) {
            return;
        }
        let bytes = bytes.saturating_add(ENTRY_BYTES);
        if inner.bytes.saturating_add(bytes) > CACHED_BYTES_MAX {
            inner.rules.clear();
            inner.bytes = 0;
        }
        inner.bytes = inner.bytes.saturating_add(bytes);
        inner.rules.insert(place, rules);
    }

    /// Forgets a key, after a change of its policy or grants.
    pub(super) fn forget(&self, place: Place) {
        let mut inner = self.write();
        inner.epoch += 1;
        inner.rules.remove(&place);
    }
}

#[cfg(test)]
mod tests;
