//! What is remembered of bucket keys: unwrapped epochs, current epochs, writes under way.
//!
//! Owns: the bounds of all three. Knows nothing of: rows, how keys are unwrapped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kluis_kms::TenantKeyId;

use super::EpochKeys;
use crate::types::{BucketId, NsId};

/// Bucket keys kept unwrapped: two slots of locked memory each, well under the limit of kms.
const CACHED_MAX: usize = 4_096;
/// Pairs of bucket and tenant key whose current epoch is remembered: 56 bytes each, so 3.5 MiB.
/// Forgetting one costs its next write a commit and a part of its reservation.
const CURRENT_MAX: usize = 1 << 16;

/// Which epoch takes new objects of a bucket under a tenant key, and for how many more.
#[derive(Clone, Copy)]
pub(super) struct Current {
    pub(super) epoch: u32,
    pub(super) uses_left: u32,
}

/// Which epoch of which bucket.
type EpochName = (NsId, BucketId, u32);
/// What an epoch is current for.
type CurrentName = (NsId, BucketId, TenantKeyId);

#[derive(Default)]
struct Cached {
    epochs: HashMap<EpochName, (Arc<EpochKeys>, u64)>,
    current: HashMap<CurrentName, Current>,
    /// How often epochs were closed: what was read before may say that one is open which is not.
    closings: u64,
    tick: u64,
}

/// The cache, and the count of writes under way.
#[derive(Default)]
pub(super) struct Cache {
    cached: Mutex<Cached>,
    writes: Arc<Mutex<HashMap<EpochName, usize>>>,
}

/// One write under an epoch that is not committed yet.
pub(super) struct WriteLease {
    writes: Arc<Mutex<HashMap<EpochName, usize>>>,
    of: EpochName,
}

impl Drop for WriteLease {
    fn drop(&mut self) {
        let mut writes = lock(&self.writes);
        if let Some(count) = writes.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                writes.remove(&self.of);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// Forgets a bucket that was deleted.
    pub(super) fn forget_bucket(&self, ns: NsId, bucket: BucketId) {
        let mut cached = lock(&self.cached);
        cached.current.retain(|(of, in_bucket, _), _| (*of, *in_bucket) != (ns, bucket));
        cached.epochs.retain(|(of, in_bucket, _), _| (*of, *in_bucket) != (ns, bucket));
    }

    /// Wipes what was unwrapped under a tenant key.
    pub(super) fn forget_tenant_key(&self, tenant_key: TenantKeyId) {
        lock(&self.cached).epochs.retain(|_, (keys, _)| keys.tenant_key != tenant_key);
    }

    /// Takes one use of the current epoch, and counts the write until the lease is dropped.
    pub(super) fn take_use(&self, name: CurrentName) -> Option<(u32, WriteLease)> {
        let epoch = {
            let mut cached = lock(&self.cached);
            let current = cached.current.get_mut(&name)?;
            current.uses_left = current.uses_left.checked_sub(1)?;
            current.epoch
        };
        let of = (name.0, name.1, epoch);
        *lock(&self.writes).entry(of).or_default() += 1;
        Some((epoch, WriteLease { writes: Arc::clone(&self.writes), of }))
    }

    /// The epochs of a namespace with writes under way.
    pub(super) fn writes(&self, ns: NsId) -> Vec<(BucketId, u32)> {
        let writes = lock(&self.writes);
        let ours = writes.keys().filter(|(of, ..)| *of == ns);
        ours.map(|(_, bucket, epoch)| (*bucket, *epoch)).collect()
    }

    /// Whether an epoch still takes new objects. Asked with a lease on it.
    pub(super) fn is_current(&self, name: CurrentName, epoch: u32) -> bool {
        lock(&self.cached).current.get(&name).is_some_and(|current| current.epoch == epoch)
    }

    /// To be noted before rows are read that an epoch is taken up by.
    pub(super) fn closings(&self) -> u64 {
        lock(&self.cached).closings
    }

    /// Lets epochs take no new objects any more. Their rows say so already.
    pub(super) fn close(&self, ns: NsId, tenant_key: TenantKeyId, epochs: &[(BucketId, u32)]) {
        let mut cached = lock(&self.cached);
        cached.closings += 1;
        for (bucket, epoch) in epochs {
            let name = (ns, *bucket, tenant_key);
            if cached.current.get(&name).is_some_and(|current| current.epoch == *epoch) {
                cached.current.remove(&name);
            }
        }
    }

    /// Makes an epoch the current one; not if any was closed after `seen`.
    pub(super) fn take_up(&self, name: CurrentName, current: Current, seen: u64) -> bool {
        let mut cached = lock(&self.cached);
        if cached.closings != seen {
            return false;
        }
        if cached.current.len() >= CURRENT_MAX {
            // Any of them: what its reservation had left is wasted.
            let some = cached.current.keys().next().copied();
            some.and_then(|some| cached.current.remove(&some));
        }
        cached.current.insert(name, current);
        true
    }

    /// The keys of an epoch, if they are unwrapped.
    pub(super) fn epoch(&self, ns: NsId, bucket: BucketId, epoch: u32) -> Option<Arc<EpochKeys>> {
        let mut cached = lock(&self.cached);
        cached.tick += 1;
        let tick = cached.tick;
        let (keys, used) = cached.epochs.get_mut(&(ns, bucket, epoch))?;
        *used = tick;
        Some(Arc::clone(keys))
    }

    /// Keeps the keys of an epoch in place of those used longest ago.
    pub(super) fn remember(&self, ns: NsId, bucket: BucketId, keys: Arc<EpochKeys>) {
        let mut cached = lock(&self.cached);
        cached.tick += 1;
        let tick = cached.tick;
        cached.epochs.insert((ns, bucket, keys.epoch), (keys, tick));
        if cached.epochs.len() > CACHED_MAX {
            let oldest = cached.epochs.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(which, _)| *which) {
                cached.epochs.remove(&oldest);
            }
        }
    }
}
