//! The rows in RocksDB. The raw `DB` is private to this module.
//!
//! Owns: the families, their settings (each with its reason), the synced write.
//! Knows nothing of: what a row means, tenants; a namespace is a family and a prefix.
//!
//! Invariants
//! - Every write is synced; there is no other write path.
//! - Point-in-time recovery may drop the tail of a damaged log, so the engine compares
//!   [`MetaStore::sequence`] after opening with the watermark in the volumes (docs/FORMAT.md,
//!   "Watermark") and refuses to serve when acknowledged rows are missing.

pub(crate) mod checkpoint;
mod verify;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, BoundColumnFamily, Cache, ColumnFamilyDescriptor,
    CompactOptions, DBCompressionType, DBRecoveryMode, DBWithThreadMode, FlushOptions, LogLevel,
    MergeOperands, MultiThreaded, Options, ReadOptions, ReadTier, SliceTransform, WriteBatch,
    WriteBufferManager, WriteOptions,
};

use super::{Change, Family, MetaStore, ScanStep, Verified, VerifyPlace, Visit};
use crate::error::{Error, ErrorKind, Result};

type Db = DBWithThreadMode<MultiThreaded>;

/// Bytes of a namespace id, the prefix of every row of a namespace family.
const NS_BYTES: usize = 16;
/// The share of the cache that memtables may take: half, so that reads keep the other half.
const MEMTABLE_DIVISOR: usize = 2;
/// What a memtable takes from memory at a time. RocksDB's own choice, an eighth of a memtable,
/// would cost 147 MiB when each of 275 families holds one row.
const ARENA_BLOCK_BYTES: usize = 64 << 10;
/// One memtable of a shared family.
const POOLED_MEMTABLE_BYTES: usize = 16 << 20;
/// One memtable of a dedicated family: there may be 256 of them.
const DEDICATED_MEMTABLE_BYTES: usize = 4 << 20;
/// The log of all families: reaching it flushes every family that has rows in its oldest file.
const WAL_BYTES_MAX: u64 = 1 << 30;
/// Open table files; well under the file descriptor limit that the node asks for.
const OPEN_FILES_MAX: i32 = 4_096;
/// Values from here on go to blob files, so that compaction does not copy inline bodies.
const BLOB_VALUE_BYTES_MIN: u64 = 1 << 10;

/// RocksDB behind [`MetaStore`].
pub(crate) struct RocksMeta {
    db: Db,
    settings: Settings,
    /// The names of all families.
    families: Mutex<Vec<String>>,
    synced: AtomicU64,
    /// Declared last, so dropped last.
    alive: Arc<()>,
}

/// How to open the store.
#[derive(Clone, Copy)]
pub(crate) struct RocksSettings {
    /// Shared families, made where they are missing.
    pub(crate) pooled: u8,
    /// Bounds blocks and memtables together.
    pub(crate) cache_bytes: usize,
    /// Whether there may be nothing yet.
    pub(crate) create: bool,
}

/// What all families share.
struct Settings {
    cache: Cache,
    memtables: WriteBufferManager,
}

impl RocksMeta {
    /// Opens the store in `dir`, or makes it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: RocksDB refuses the files, or there are none and none may be made.
    /// [`ErrorKind::Unavailable`]: another process holds its lock.
    pub(crate) fn open(dir: &Path, asked: RocksSettings) -> Result<Self> {
        let RocksSettings { pooled, cache_bytes, create } = asked;
        let cache = Cache::new_lru_cache(cache_bytes);
        let memtables = WriteBufferManager::new_write_buffer_manager_with_cache(
            cache_bytes / MEMTABLE_DIVISOR,
            false,
            cache.clone(),
        );
        let settings = Settings { cache, memtables };
        let mut options = settings.database();
        options.create_if_missing(create);
        let mut names = if create && !dir.join("CURRENT").exists() {
            Vec::new()
        } else {
            Db::list_cf(&options, dir).map_err(|cause| opening(dir, cause))?
        };
        for family in [Family::Sys, Family::Gc].into_iter().chain((0..pooled).map(Family::Pooled)) {
            let name = family.name();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if !names.iter().any(|name| name == "default") {
            names.push("default".to_owned());
        }
        let families = names.iter().map(|name| {
            let options = settings.family(name);
            ColumnFamilyDescriptor::new(name, options)
        });
        let db = Db::open_cf_descriptors(&options, dir, families).map_err(|e| opening(dir, e))?;
        let synced = AtomicU64::new(db.latest_sequence_number());
        Ok(Self { db, settings, families: Mutex::new(names), synced, alive: Arc::default() })
    }

    fn family(&self, family: Family) -> Result<Arc<BoundColumnFamily<'_>>> {
        let name = family.name();
        self.db.cf_handle(&name).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("find the metadata family {name}"))
        })
    }

    fn batch(&self, changes: &[Change]) -> Result<WriteBatch> {
        let mut batch = WriteBatch::default();
        for change in changes {
            match change {
                Change::Put { row, value } => {
                    batch.put_cf(&self.family(row.family)?, &row.bytes, value);
                }
                Change::Delete { row } => {
                    batch.delete_cf(&self.family(row.family)?, &row.bytes);
                }
                Change::Add { row, delta } => {
                    batch.merge_cf(&self.family(row.family)?, &row.bytes, delta.to_be_bytes());
                }
            }
        }
        Ok(batch)
    }
}

impl MetaStore for RocksMeta {
    fn get(&self, family: Family, row_key: &[u8]) -> Result<Option<Bytes>> {
        let family = self.family(family)?;
        let row = self.db.get_pinned_cf(&family, row_key).map_err(reading)?;
        Ok(row.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn get_cached(&self, family: Family, row_key: &[u8]) -> Option<Result<Option<Bytes>>> {
        let family = match self.family(family) {
            Ok(family) => family,
            Err(error) => return Some(Err(error)),
        };
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::BlockCache);
        match self.db.get_pinned_cf_opt(&family, row_key, &options) {
            Ok(row) => Some(Ok(row.map(|value| Bytes::copy_from_slice(&value)))),
            // The blocks are not in memory ("Incomplete"), or the read failed: the plain read
            // tells.
            Err(_) => None,
        }
    }

    fn scan(
        &self,
        family: Family,
        lower: &[u8],
        upper: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let family = self.family(family)?;
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        options.set_iterate_upper_bound(upper);
        // Bounds are within one namespace, or the family has no prefix extractor.
        options.set_total_order_seek(true);
        let mut rows = self.db.raw_iterator_cf_opt(&family, options);
        rows.seek(lower);
        while let Some((row_key, value)) = rows.item() {
            match visit(row_key, value)? {
                ScanStep::Next => rows.next(),
                ScanStep::Seek(to) => {
                    debug_assert!(to.as_slice() > row_key, "a scan seeks ahead");
                    rows.seek(to);
                }
                ScanStep::Stop => return Ok(()),
            }
        }
        rows.status().map_err(reading)
    }

    fn write(&self, changes: &[Change]) -> Result<u64> {
        let batch = self.batch(changes)?;
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(|cause| {
            Error::new(ErrorKind::Fenced, "write a synced metadata batch")
                .with_source(cause)
                .with_advice("restart the node, it recovers")
        })?;
        let sequence = self.db.latest_sequence_number();
        self.synced.fetch_max(sequence, Ordering::AcqRel);
        Ok(sequence)
    }

    fn ensure_family(&self, family: Family) -> Result<()> {
        let name = family.name();
        if self.db.cf_handle(&name).is_some() {
            return Ok(());
        }
        self.db.create_cf(&name, &self.settings.family(&name)).map_err(|cause| {
            Error::new(ErrorKind::Unavailable, format!("make the metadata family {name}"))
                .with_source(cause)
        })?;
        self.families.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        Ok(())
    }

    fn forget(&self, family: Family, lower: &[u8], upper: &[u8]) -> Result<()> {
        let failed = |cause: rocksdb::Error| {
            Error::new(ErrorKind::Unavailable, "rewrite a range of metadata").with_source(cause)
        };
        // Every family leaves the log, so that the log files of before are deleted.
        let names = self.families.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let handles: Vec<_> = names.iter().filter_map(|name| self.db.cf_handle(name)).collect();
        self.db
            .flush_cfs_opt(&handles.iter().collect::<Vec<_>>(), &FlushOptions::default())
            .map_err(failed)?;
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        options.set_exclusive_manual_compaction(false);
        self.db.compact_range_cf_opt(&self.family(family)?, Some(lower), Some(upper), &options);
        self.db.flush_wal(true).map_err(failed)
    }

    fn checkpoint(&self, dir: &Path) -> Result<()> {
        self.make_checkpoint(dir)
    }

    fn verify(&self, place: &VerifyPlace) -> Result<Verified> {
        Ok(self.verify_some(place))
    }

    fn sequence(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    fn close(&self) -> Result<()> {
        self.db.flush_wal(true).map_err(|cause| {
            Error::new(ErrorKind::Fenced, "sync the metadata log at close").with_source(cause)
        })?;
        self.db.cancel_all_background_work(true);
        Ok(())
    }

    fn alive(&self) -> Weak<()> {
        Arc::downgrade(&self.alive)
    }
}

impl Settings {
    /// Settings of the database. Reasons are in the issues named.
    fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_missing_column_families(true);
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime); // facebook/rocksdb#1351, #6963
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_paranoid_checks(true);
        options.set_recycle_log_file_num(0); // loses data at recovery: #12918
        options.set_manual_wal_flush(false); // families disagree after a log error: #12995
        options.set_wal_bytes_per_sync(0); // a hole in a synced log: #12489
        options.set_atomic_flush(false);
        options.set_unordered_write(false);
        options.set_enable_pipelined_write(false);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_write_buffer_manager(&self.memtables);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_max_background_jobs(2);
        options.set_log_level(LogLevel::Warn); // the log must not grow with load, nor name rows
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(4 << 20);
        options.set_stats_dump_period_sec(0);
        options
    }

    /// Settings of the family called `name`.
    fn family(&self, name: &str) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_bloom_filter(10.0, false);
        table.set_format_version(5);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::None); // sealed values do not compress
        options.set_write_buffer_size(POOLED_MEMTABLE_BYTES);
        options.set_max_write_buffer_number(2);
        options.set_arena_block_size(ARENA_BLOCK_BYTES);
        if name.starts_with("ns") {
            options.set_prefix_extractor(SliceTransform::create_fixed_prefix(NS_BYTES));
            options.set_enable_blob_files(true);
            options.set_min_blob_size(BLOB_VALUE_BYTES_MIN);
            options.set_enable_blob_gc(true);
            options.set_blob_gc_age_cutoff(0.25);
        }
        if name.starts_with("ns/") {
            options.set_write_buffer_size(DEDICATED_MEMTABLE_BYTES);
        }
        if name == "gc" {
            options.set_merge_operator_associative("kluis.add.be64", add);
        }
        options
    }
}

/// The merge operator of counter rows: the sum of big-endian two's complement numbers.
fn add(_: &[u8], held: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| i64::from_be_bytes(*bytes));
    let mut sum = held.map_or(Some(0), number)?;
    for operand in operands {
        sum = sum.checked_add(number(operand)?)?;
    }
    Some(sum.to_be_bytes().to_vec())
}

fn opening(dir: &Path, cause: rocksdb::Error) -> Error {
    let during = format!("open the metadata in {}", dir.display());
    match cause.kind() {
        rocksdb::ErrorKind::IOError => Error::new(ErrorKind::Unavailable, during)
            .with_advice("another process may hold this directory, or it cannot be read"),
        _ => Error::new(ErrorKind::Corrupt, during).with_advice("run `kluis check` on a copy"),
    }
    .with_source(cause)
}

fn reading(cause: rocksdb::Error) -> Error {
    let kind = match cause.kind() {
        rocksdb::ErrorKind::Corruption => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "read metadata").with_source(cause)
}
