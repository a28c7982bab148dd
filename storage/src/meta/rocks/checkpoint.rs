//! A checkpoint of the rows: made beside the store, looked at, and moved on after it was put back.
//!
//! Owns: what RocksDB's checkpoint is for us, and the way past a watermark. Knows nothing of: where
//! its files are copied to.
//!
//! Invariants
//! - A checkpoint holds every write that was acknowledged before it was asked for, and is durable.
//! - What is read of it is read without writing to it, but for RocksDB's own `LOG`.

use std::path::{Path, PathBuf};

use rocksdb::{Options, ReadOptions, checkpoint::Checkpoint};

use super::{Db, RocksMeta, add, opening, reading};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Change, Family, MetaStore, RowKey, prefix_end};

/// Changes in one batch of [`advance`]: a few MiB of log.
const ADVANCE_BATCH: usize = 100_000;
/// The row of `sys` that is deleted to count the sequence number on; there never is one.
const NO_ROW: &[u8] = b"!";

/// What a checkpoint says of itself.
#[derive(Debug)]
pub(crate) struct CheckpointView {
    /// The sequence number of its last write.
    pub(crate) sequence: u64,
    /// The rows of `gc` that were asked for.
    pub(crate) rows: Vec<Vec<u8>>,
}

impl RocksMeta {
    pub(super) fn make_checkpoint(&self, dir: &Path) -> Result<()> {
        let failed = |cause: rocksdb::Error| {
            let during = format!("make a checkpoint of the metadata in {}", dir.display());
            Error::new(ErrorKind::Unavailable, during).with_source(cause)
        };
        let checkpoint = Checkpoint::new(&self.db).map_err(failed)?;
        checkpoint.create_checkpoint(dir).map_err(failed)
    }
}

/// Reads how far a checkpoint goes, and the rows of `gc` under `prefix`.
///
/// # Errors
/// [`ErrorKind::Corrupt`]: RocksDB refuses it. [`ErrorKind::Unavailable`]: it cannot be read.
pub(crate) fn view(dir: &Path, prefix: &[u8]) -> Result<CheckpointView> {
    // RocksDB 11.8 reads through a null pointer when it opens a checkpoint read-only whose log is
    // noted in its manifest (DBImpl::RecoveryContext::UpdateVersionEdits). So a copy is opened for
    // writing and thrown away: tables are linked, what recovery writes to is copied.
    let scratch = dir.with_extension("view");
    let _scratch = Scratch::of(dir, &scratch).map_err(|cause| {
        let during = format!("copy the checkpoint {}", dir.display());
        Error::new(ErrorKind::Unavailable, during).with_source(cause)
    })?;
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    let names = Db::list_cf(&options, &scratch).map_err(|cause| opening(dir, cause))?;
    let gc = Family::Gc.name();
    let families = names.into_iter().map(|name| {
        let mut of_family = Options::default();
        if name == gc {
            of_family.set_merge_operator_associative("kluis.add.be64", add);
        }
        (name, of_family)
    });
    let db =
        Db::open_cf_with_opts(&options, &scratch, families).map_err(|cause| opening(dir, cause))?;
    let family = db.cf_handle(&gc).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, format!("find the family gc in {}", dir.display()))
    })?;
    let mut bounds = ReadOptions::default();
    bounds.set_iterate_lower_bound(prefix);
    bounds.set_iterate_upper_bound(prefix_end(prefix));
    let mut rows = Vec::new();
    let mut iterator = db.raw_iterator_cf_opt(&family, bounds);
    iterator.seek(prefix);
    while let Some((_, value)) = iterator.item() {
        rows.push(value.to_vec());
        iterator.next();
    }
    iterator.status().map_err(reading)?;
    Ok(CheckpointView { sequence: db.latest_sequence_number(), rows })
}

/// Moves the store's sequence number to `watermark` or beyond it, so that what volumes know to have
/// been synced is not taken for lost. Changes no row.
///
/// # Errors
/// As [`MetaStore::write`].
pub(crate) fn advance(store: &dyn MetaStore, watermark: u64) -> Result<()> {
    let row = RowKey { family: Family::Sys, bytes: NO_ROW.to_vec() };
    let mut sequence = store.sequence();
    while sequence < watermark {
        let missing = usize::try_from(watermark - sequence).unwrap_or(usize::MAX);
        let changes = vec![Change::Delete { row: row.clone() }; missing.min(ADVANCE_BATCH)];
        sequence = store.write(&changes)?;
    }
    Ok(())
}

/// A copy of a checkpoint that is removed when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn of(dir: &Path, scratch: &Path) -> std::io::Result<Self> {
        match std::fs::remove_dir_all(scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir(scratch)?;
        let copied = Self(scratch.to_owned());
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let (from, to) = (entry.path(), scratch.join(entry.file_name()));
            let is_table = from.extension().is_some_and(|it| it == "sst" || it == "blob");
            // Across file systems there are no links.
            if !is_table || std::fs::hard_link(&from, &to).is_err() {
                std::fs::copy(&from, &to)?;
            }
        }
        Ok(copied)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "the copy of a checkpoint cannot be removed");
        }
    }
}
