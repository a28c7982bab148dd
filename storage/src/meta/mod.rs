//! The ordered rows that everything else hangs off.
//!
//! Owns: the [`MetaStore`] trait, families, conditions and changes. Knows nothing of: what a row
//! means, RocksDB (that is [`crate::namespace`]), keys.
//!
//! Invariants
//! - A write is one atomic, synced batch.
//! - Nothing above this trait relies on more than compare-and-write inside one partition
//!   (namespace, bucket, range), so that a distributed store can take its place.

use std::path::Path;
use std::sync::Weak;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::types::NsId;

pub(crate) mod cached;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod memory;
pub(crate) mod rocks;

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    /// The node's own rows: registry, namespaces. No tenant data.
    Sys,
    /// The blob store's bookkeeping: segments, dead bytes, the reclaim queue. No tenant data.
    Gc,
    /// Shared by tenants whose ids hash here.
    Pooled(u8),
    /// One tenant's own.
    Dedicated(NsId),
}

impl Family {
    /// The name under which RocksDB has it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Sys => "sys".to_owned(),
            Self::Gc => "gc".to_owned(),
            Self::Pooled(index) => format!("ns-{index:02}"),
            Self::Dedicated(ns) => format!("ns/{ns}"),
        }
    }
}

/// Where a row is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RowKey {
    pub(crate) family: Family,
    pub(crate) bytes: Vec<u8>,
}

/// What must hold for a commit to take place.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// The row is exactly this, or absent.
    RowIs { row: RowKey, expected: Option<Bytes> },
    /// Exactly so many rows' keys start with this one's.
    RowsUnder { prefix: RowKey, count: usize },
}

/// One change of a commit.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put {
        row: RowKey,
        value: Bytes,
    },
    Delete {
        row: RowKey,
    },
    /// Adds to a counter row; only ever in [`Family::Gc`].
    Add {
        row: RowKey,
        delta: i64,
    },
}

/// What a scan does after a row.
pub(crate) enum ScanStep {
    /// Goes on with the next row.
    Next,
    /// Goes on with the first row at or after this key, which must lie ahead.
    Seek(Vec<u8>),
    /// Ends.
    Stop,
}

/// How far the verification of a store is; begins at the default.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct VerifyPlace {
    pub(crate) family: String,
    pub(crate) row_key: Vec<u8>,
}

/// What one step of it found.
#[derive(Default, Debug)]
pub(crate) struct Verified {
    /// Where to go on, `None` at the end.
    pub(crate) next: Option<VerifyPlace>,
    /// Bytes of the rows that were read.
    pub(crate) bytes: u64,
    /// Why the rest of the family cannot be read.
    pub(crate) fault: Option<Error>,
}

/// A scan's visitor: row key and value.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ScanStep> + 'a;

/// Ordered rows with atomic, durable batches. Calls block; callers on an async task go through
/// [`crate::engine`]'s read pool.
pub(crate) trait MetaStore: Send + Sync + 'static {
    /// The row, if there is one.
    fn get(&self, family: Family, row_key: &[u8]) -> Result<Option<Bytes>>;

    /// The row if memory holds the answer: `None` means that it has to be asked for with
    /// [`MetaStore::get`].
    fn get_cached(&self, family: Family, row_key: &[u8]) -> Option<Result<Option<Bytes>>>;

    /// Visits the rows from `lower` up to, not including, `upper`, in order.
    fn scan(&self, family: Family, lower: &[u8], upper: &[u8], visit: &mut Visit<'_>)
    -> Result<()>;

    /// Makes the changes, all or none, and returns once they are durable, with the store's
    /// sequence number after them.
    fn write(&self, changes: &[Change]) -> Result<u64>;

    /// Makes the family if it is absent.
    fn ensure_family(&self, family: Family) -> Result<()>;

    /// Lets go of the bytes of rows in a range that were deleted or replaced: none is left in the
    /// store's files once this returns. Rows that are there stay. A store that keeps no such bytes
    /// has nothing to do.
    fn forget(&self, _family: Family, _lower: &[u8], _upper: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Makes a copy of all rows in `dir`, which must not be there: those of every write that was
    /// acknowledged before, none half. It shares files with the store where it can.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`](crate::ErrorKind::Misuse): the store has no files.
    fn checkpoint(&self, dir: &Path) -> Result<()> {
        let during = format!("make a checkpoint in {}", dir.display());
        Err(Error::new(ErrorKind::Misuse, during))
    }

    /// Reads some rows from `place` on in whichever family they are, past memory's copies where it
    /// can, so that the checksums of the store's files are verified. A store without files has
    /// nothing to verify.
    fn verify(&self, _place: &VerifyPlace) -> Result<Verified> {
        Ok(Verified::default())
    }

    /// The sequence number of the last durable write.
    fn sequence(&self) -> u64;

    /// Flushes what is in memory; the store takes no writes afterwards.
    fn close(&self) -> Result<()>;

    /// Dead once the store and its lock are gone: the last holder may be a task that has not
    /// noticed yet, and dropping takes time.
    fn alive(&self) -> Weak<()>;
}

/// The least byte string that is greater than every one starting with `prefix`; empty if there is
/// none, which callers pass as "no upper bound" only for an empty prefix.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    end
}
