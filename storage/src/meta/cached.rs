//! Rows in memory, in front of a store that has to look for them.
//!
//! A row that a request names is found here in one step, without the store's search through
//! memtable, filters and blocks. What lies here is what lies on disk: whatever the store holds
//! sealed is sealed here too.
//! Owns: which rows are kept, and that none is kept that was replaced. Knows nothing of: what a row
//! means.
//!
//! Invariants
//! - A row that is found here is what the store would answer with at that moment, or what it would
//!   have answered with before a write that has not returned yet; once a write has begun, nothing
//!   that was read before it is kept.
//! - Memory is bounded; a row leaves when it is deleted.
//! - Only namespaces' rows are kept: the node's own are few or counted.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use quick_cache::unsync::Cache;
use quick_cache::{DefaultHashBuilder, Equivalent, Weighter};

use super::{Change, Family, MetaStore, RowKey, Verified, VerifyPlace, Visit};
use crate::error::Result;

#[cfg(test)]
mod tests;

/// Parts of the cache, each with a lock of its own: many more than there are threads that look.
const SHARDS: usize = 16;
/// What a row takes beside its bytes: its place in the map, the key's and the value's headers.
const ROW_OVERHEAD_BYTES: u64 = 128;
/// Bytes of a usual row and its key: an object row. Only a first guess at the size of the map.
const ROW_BYTES_USUAL: usize = 512;

/// A [`MetaStore`] with rows in memory in front of it.
pub(crate) struct CachedMeta {
    store: Arc<dyn MetaStore>,
    hasher: DefaultHashBuilder,
    shards: Vec<Mutex<Shard>>,
}

/// Rows whose keys hash alike.
struct Shard {
    rows: Cache<RowKey, Bytes, Weight>,
    /// Goes up when a write begins and when it ends: what was read across either is not kept.
    writes: u64,
    /// Rows that are being written, by their hashes, and how often.
    writing: HashMap<u64, usize>,
}

impl Shard {
    /// Whether no change of a row with this hash is left to be written.
    fn end_writing(&mut self, hash: u64) -> bool {
        let Some(count) = self.writing.get_mut(&hash) else { return true };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.writing.remove(&hash);
        }
        is_last
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<RowKey, Bytes> for Weight {
    fn weight(&self, row: &RowKey, value: &Bytes) -> u64 {
        (row.bytes.len() + value.len()) as u64 + ROW_OVERHEAD_BYTES
    }
}

/// A [`RowKey`] that was not copied. Hashes like one.
#[derive(Hash)]
struct RowRef<'a> {
    family: Family,
    bytes: &'a [u8],
}

impl Equivalent<RowKey> for RowRef<'_> {
    fn equivalent(&self, row: &RowKey) -> bool {
        self.family == row.family && self.bytes == row.bytes
    }
}

/// Whether the rows of `family` are kept.
fn is_kept(family: Family) -> bool {
    matches!(family, Family::Pooled(_) | Family::Dedicated(_))
}

impl CachedMeta {
    /// Keeps up to `bytes_max` bytes of the rows of `store`.
    pub(crate) fn new(store: Arc<dyn MetaStore>, bytes_max: usize) -> Self {
        let bytes = bytes_max / SHARDS;
        let shard = || Shard {
            rows: Cache::with_weighter(bytes / ROW_BYTES_USUAL, bytes as u64, Weight),
            writes: 0,
            writing: HashMap::new(),
        };
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        Self { store, hasher: DefaultHashBuilder::default(), shards }
    }

    fn hash(&self, row: impl Hash) -> u64 {
        self.hasher.hash_one(row)
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The map inside takes the upper bits.
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        let shard = self.shards.get(index).expect("there is a shard for every remainder");
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the store by `ask` and keeps what it says, unless it was written meanwhile.
    fn ask(
        &self,
        row: &RowRef<'_>,
        ask: impl FnOnce(&dyn MetaStore) -> Option<Result<Option<Bytes>>>,
    ) -> Option<Result<Option<Bytes>>> {
        let hash = self.hash(row);
        let before = {
            let shard = self.shard(hash);
            if let Some(value) = shard.rows.get(row) {
                return Some(Ok(Some(value.clone())));
            }
            shard.writes
        };
        let answer = ask(&*self.store);
        if let Some(Ok(Some(value))) = &answer {
            let mut shard = self.shard(hash);
            if shard.writes == before && !shard.writing.contains_key(&hash) {
                let row = RowKey { family: row.family, bytes: row.bytes.to_vec() };
                shard.rows.insert(row, value.clone());
            }
        }
        answer
    }

    /// The rows of `changes` that are kept, by their hashes.
    fn kept<'a>(
        &self,
        changes: &'a [Change],
    ) -> impl Iterator<Item = (u64, &'a RowKey, Option<&'a Bytes>)> {
        changes.iter().filter_map(|change| {
            let (row, value) = match change {
                Change::Put { row, value } => (row, Some(value)),
                Change::Delete { row } | Change::Add { row, .. } => (row, None),
            };
            is_kept(row.family).then(|| (self.hash(row), row, value))
        })
    }
}

impl MetaStore for CachedMeta {
    fn get(&self, family: Family, row_key: &[u8]) -> Result<Option<Bytes>> {
        if !is_kept(family) {
            return self.store.get(family, row_key);
        }
        let row = RowRef { family, bytes: row_key };
        let answer = self.ask(&row, |store| Some(store.get(family, row_key)));
        answer.unwrap_or_else(|| self.store.get(family, row_key))
    }

    fn get_cached(&self, family: Family, row_key: &[u8]) -> Option<Result<Option<Bytes>>> {
        if !is_kept(family) {
            return self.store.get_cached(family, row_key);
        }
        let row = RowRef { family, bytes: row_key };
        self.ask(&row, |store| store.get_cached(family, row_key))
    }

    fn scan(
        &self,
        family: Family,
        lower: &[u8],
        upper: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        self.store.scan(family, lower, upper, visit)
    }

    fn write(&self, changes: &[Change]) -> Result<u64> {
        for (hash, row, _) in self.kept(changes) {
            let mut shard = self.shard(hash);
            shard.writes += 1;
            *shard.writing.entry(hash).or_default() += 1;
            shard.rows.remove(row);
        }
        let written = self.store.write(changes);
        for (hash, row, value) in self.kept(changes) {
            let mut shard = self.shard(hash);
            shard.writes += 1;
            if !shard.end_writing(hash) {
                // Another change of the same row follows.
                continue;
            }
            if let (Ok(_), Some(value)) = (&written, value) {
                shard.rows.insert(row.clone(), value.clone());
            }
        }
        written
    }

    fn ensure_family(&self, family: Family) -> Result<()> {
        self.store.ensure_family(family)
    }

    fn forget(&self, family: Family, lower: &[u8], upper: &[u8]) -> Result<()> {
        self.store.forget(family, lower, upper)
    }

    fn checkpoint(&self, dir: &Path) -> Result<()> {
        self.store.checkpoint(dir)
    }

    fn verify(&self, place: &VerifyPlace) -> Result<Verified> {
        self.store.verify(place)
    }

    fn sequence(&self) -> u64 {
        self.store.sequence()
    }

    fn close(&self) -> Result<()> {
        self.store.close()
    }

    fn alive(&self) -> Weak<()> {
        self.store.alive()
    }
}
