//! Locks for changes of one tenant, so that no tenant waits for another one's disk.
//!
//! Owns: which lock is whose. Knows nothing of: what is changed under them.
//!
//! Invariants
//! - A tenant always has the same lock. Two tenants may share one, by chance: ids are random.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kluis_kms::TenantId;

/// Locks in all: two tenants that change something at the same time share one in 64 cases.
const LOCKS: usize = 64;

/// The locks.
pub(crate) struct TenantLocks([Mutex<()>; LOCKS]);

impl Default for TenantLocks {
    fn default() -> Self {
        Self([const { Mutex::new(()) }; LOCKS])
    }
}

impl TenantLocks {
    /// Waits for the tenant's lock.
    pub(crate) fn lock(&self, tenant: TenantId) -> MutexGuard<'_, ()> {
        let [.., last] = *tenant.as_bytes();
        let place = usize::from(last) % LOCKS;
        let mutex = self.0.get(place).expect("a remainder is below the number of locks");
        // Nothing is kept under the lock itself: what it guards is whole at every step.
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
