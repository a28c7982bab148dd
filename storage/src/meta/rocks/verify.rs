//! Reading all tables of the store for their checksums.
//!
//! Owns: which rows are read next, and how. Knows nothing of: what a row means.
//!
//! Invariants
//! - The block cache is not filled; a block that lies in it is taken from there, as reads take it.
//! - The log is not read: the next start does that, and every family leaves it in time.

use rocksdb::ReadOptions;

use super::{RocksMeta, reading};
use crate::meta::{Verified, VerifyPlace};

/// Bytes of rows in one step.
const STEP_BYTES: u64 = 1 << 20;

impl RocksMeta {
    /// Reads the next rows, and tells what RocksDB says of their checksums.
    pub(super) fn verify_some(&self, place: &VerifyPlace) -> Verified {
        let mut names =
            self.families.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        names.sort_unstable();
        let mut names = names.into_iter().filter(|name| *name >= place.family);
        let Some(name) = names.next() else { return Verified::default() };
        let after = names.next().map(|family| VerifyPlace { family, row_key: Vec::new() });
        let Some(family) = self.db.cf_handle(&name) else {
            return Verified { next: after, ..Verified::default() };
        };
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        options.set_total_order_seek(true);
        let mut rows = self.db.raw_iterator_cf_opt(&family, options);
        let from = if name == place.family { place.row_key.as_slice() } else { &[] };
        rows.seek(from);
        let mut found = Verified::default();
        while let Some((row_key, value)) = rows.item() {
            if found.bytes >= STEP_BYTES {
                found.next = Some(VerifyPlace { family: name, row_key: row_key.to_vec() });
                return found;
            }
            found.bytes += (row_key.len() + value.len()) as u64;
            rows.next();
        }
        found.next = after;
        found.fault = rows.status().map_err(reading).err();
        found
    }
}
