//! The fence between a rotation and a count of what lies under older materials.
//!
//! Whoever wraps a bucket key holds a [`WrapGuard`] until the wrap is on the disk. A count that is
//! taken after [`Kms::wait_for_wraps`] misses no wrap under an older material.
//! Owns: the guards' counts. Knows nothing of: wraps, the disk.
//!
//! Invariants
//! - A guard counts for the material that is current when it is made, or an older one: a wrap that
//!   is made under it is under that material or a newer one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{Kms, lock, read};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::UnwrapPermit;
use crate::types::{TenantId, TenantKeyId};

/// Longest wait: a commit takes milliseconds, and one that takes longer is stuck.
const WAIT: Duration = Duration::from_secs(30);

/// Guards alive, by material.
#[derive(Default)]
pub(super) struct WrapFence {
    counts: Mutex<BTreeMap<u32, usize>>,
    changed: Condvar,
}

/// Proof that a bucket key may be on its way to the disk. Drop it once the row is committed, or
/// given up.
#[must_use = "the fence counts the wrap as on the disk when the guard drops"]
pub struct WrapGuard {
    fence: Arc<WrapFence>,
    material: u32,
}

impl Drop for WrapGuard {
    fn drop(&mut self) {
        let mut counts = lock(&self.fence.counts);
        if let Some(count) = counts.get_mut(&self.material) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.material);
            }
        }
        self.fence.changed.notify_all();
    }
}

impl fmt::Debug for WrapGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrapGuard").field("material", &self.material).finish_non_exhaustive()
    }
}

impl Kms {
    /// Announces that a bucket key is about to be wrapped. Call it before
    /// [`Self::create_bucket_key`] or [`Self::rewrap_bucket_key`], and keep the guard until the
    /// wrap is committed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such key.
    pub fn begin_wrap(&self, permit: &UnwrapPermit) -> Result<WrapGuard> {
        let entry = self.permitted_entry(permit)?;
        // The record is held, so that no rotation is between the number and its count.
        let record = read(&entry.record);
        let material = record.current().map_or(0, |current| current.number);
        *lock(&entry.fence.counts).entry(material).or_insert(0) += 1;
        Ok(WrapGuard { fence: Arc::clone(&entry.fence), material })
    }

    /// Waits until no wrap of a bucket key under a material older than the current one is on its
    /// way to the disk.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: the tenant has no such key.
    /// [`ErrorKind::Unavailable`]: one still was after 30 seconds.
    pub fn wait_for_wraps(&self, tenant: TenantId, id: TenantKeyId) -> Result<()> {
        let entry = self.entry(tenant, id)?;
        let current = entry.record().current().map_or(0, |current| current.number);
        let is_behind =
            |counts: &mut BTreeMap<u32, usize>| counts.range(..current).next().is_some();
        let counts = lock(&entry.fence.counts);
        let (counts, waited) = entry
            .fence
            .changed
            .wait_timeout_while(counts, WAIT, is_behind)
            .unwrap_or_else(PoisonError::into_inner);
        drop(counts);
        if waited.timed_out() {
            let during = format!("wait for wraps under materials before {current} of {id}");
            return Err(Error::new(ErrorKind::Unavailable, during));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
