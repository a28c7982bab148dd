//! The engine: the struct that everything starts from.
//!
//! Owns: opening and closing in the right order, the lock on the directory, the tasks that run
//! beside requests. Knows nothing of: HTTP, users, policies.
//!
//! Invariants
//! - One process at a time has a directory open.
//! - After opening, every metadata row that a volume knows to have been synced is there, or the
//!   engine does not open.
//! - Nothing that start-up does is proportional to the number of objects.
//!   Steps: docs/ARCHITECTURE.md, "Start and stop".

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kluis_kms::{Env, Kms, TenantId};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use tokio::sync::{Notify, Semaphore};

use crate::backup::{self, Backups};
use crate::blob::{Volume, VolumeConfig, VolumeParts, VolumeUsage};
use crate::bucket_keys::BucketKeys;
use crate::commit::Committer;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{
    BufPool, BufStats, Disk, DiskReport, DiskStats, IoConfig, MirrorStatus, SLAB_BYTES,
};
use crate::jobs::Jobs;
use crate::meta::MetaStore;
use crate::meta::cached::CachedMeta;
use crate::meta::rocks::{RocksMeta, RocksSettings};
use crate::namespace::{MetaReader, blocking};
use crate::reclaim::{Reclaim, ReclaimConfig, ReclaimStats};
use crate::registry::Registry;
use crate::release::Pins;
use crate::scrub::{PERIOD_DAYS_MAX, Scrub, ScrubConfig, ScrubStats};
use crate::segments::GcTable;
use crate::space::Space;
use crate::tenants::{FamilyPlan, Tenants};
use crate::volumes;

/// The settings of an engine. Every field has a default that runs.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Disk input and output.
    pub io: IoConfig,
    /// The volume.
    pub volume: VolumeConfig,
    /// Where the volume lies: nothing for the data directory, one path, or two that are kept alike.
    pub volume_paths: Vec<PathBuf>,
    /// How fast a member of a mirror is filled, at most.
    pub rebuild_bytes_per_second: u64,
    /// Bytes of the buffer pool, through which all ciphertext goes.
    pub pool_bytes: usize,
    /// Bytes of the metadata's block cache, memtables included.
    pub metadata_cache_bytes: usize,
    /// Bodies up to this many bytes are rows; at most 32 KiB.
    pub inline_bytes_max: u64,
    /// Tenants that get a column family of their own; later ones share.
    pub dedicated_namespaces_max: usize,
    /// Shared column families; fixed when the directory is made.
    pub pooled_families: u8,
    /// Free space below which writes are refused, so that deletes and compaction can go on.
    pub reserve_bytes: u64,
    /// Bytes of the file that is given up when even the reserve is nearly used; 0 for none.
    pub ballast_bytes: u64,
    /// Reads that may run ahead of their readers. Each holds a buffer of the pool, of which they
    /// get half at most.
    pub read_ahead_max: usize,
    /// Reclaiming of dead space.
    pub reclaim: ReclaimConfig,
    /// Reading what is stored, so that rot is found in time.
    pub scrub: ScrubConfig,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            io: IoConfig::default(),
            volume: VolumeConfig::default(),
            volume_paths: Vec::new(),
            rebuild_bytes_per_second: 200 << 20,
            pool_bytes: 64 << 20,
            metadata_cache_bytes: 256 << 20,
            inline_bytes_max: 4 << 10,
            dedicated_namespaces_max: 256,
            pooled_families: 16,
            reserve_bytes: 2 << 30,
            ballast_bytes: 512 << 20,
            read_ahead_max: 256,
            reclaim: ReclaimConfig::default(),
            scrub: ScrubConfig::default(),
        }
    }
}

/// The largest `inline_bytes_max`: beyond it one flush less does not make up for compaction.
const INLINE_BYTES_LIMIT: u64 = 32 << 10;
/// The share of the metadata cache that single rows take; the rest is blocks and memtables. A row
/// takes a tenth of the block that it lies in.
const ROW_CACHE_DIVISOR: usize = 4;
/// The name of the lock file.
pub(crate) const LOCK: &str = "LOCK";
/// The directory of the metadata.
pub(crate) const META: &str = "meta";

/// The storage engine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// How many reads may run ahead: each holds a slab of the pool until its reader comes, and readers
/// that never come must leave the other half to everybody else.
fn reads_ahead(config: &EngineConfig) -> usize {
    config.read_ahead_max.min(config.pool_bytes / SLAB_BYTES / 2)
}

/// What the verbs work with.
pub(crate) struct Inner {
    /// The lock on the directory. Declared first, so dropped first: whoever waits for the store to
    /// be gone finds this gone too.
    _lock: Option<std::os::fd::OwnedFd>,
    pub(crate) config: EngineConfig,
    pub(crate) env: Env,
    pub(crate) kms: Arc<Kms>,
    pub(crate) pool: BufPool,
    pub(crate) volume: Volume,
    pub(crate) reader: MetaReader,
    pub(crate) committer: Arc<Committer>,
    pub(crate) tenants: Tenants,
    pub(crate) keys: BucketKeys,
    pub(crate) pins: Pins,
    pub(crate) jobs: Jobs,
    pub(crate) reclaim: Reclaim,
    pub(crate) scrub: Scrub,
    pub(crate) backups: Backups,
    pub(crate) release_wanted: Arc<Notify>,
    pub(crate) read_ahead: Arc<Semaphore>,
    pub(crate) space: Arc<Space>,
    pub(crate) disk: Arc<dyn Disk>,
    report: DiskReport,
}

/// What the engine did and how it stands, for metrics and health.
#[derive(Clone, Debug)]
pub struct EngineStats {
    /// Whether a write or flush failed, so that only reads are left.
    pub fenced: bool,
    /// Whether free space is below the reserve, so that writes are refused.
    pub full: bool,
    /// The backend and how it was set up.
    pub disk: DiskReport,
    /// Disk operations so far.
    pub disk_stats: DiskStats,
    /// The buffer pool.
    pub pool: BufStats,
    /// Segments.
    pub usage: VolumeUsage,
    /// Commits made durable.
    pub commits: u64,
    /// Synced batches that they shared.
    pub commit_batches: u64,
    /// Commits whose conditions did not hold.
    pub commit_conflicts: u64,
    /// Tenants with a namespace.
    pub tenants: u64,
    /// What reclaiming did.
    pub reclaim: ReclaimStats,
    /// What scrubbing did and found.
    pub scrub: ScrubStats,
    /// The mirror, if the volume is one.
    pub mirror: Option<MirrorStatus>,
}

impl Engine {
    /// Opens the directory, or makes it, and recovers. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: acknowledged metadata is missing, or files are damaged.
    /// - [`ErrorKind::Misuse`]: a setting is out of bounds or differs from the directory's own.
    /// - [`ErrorKind::Unavailable`]: another process has it open, or the disk does not answer.
    pub async fn open(dir: &Path, config: EngineConfig, kms: Arc<Kms>, env: Env) -> Result<Self> {
        let ground = break_ground(dir, &config, &env).await?;
        Self::open_on(ground, config, kms, env).await
    }

    /// Opens and recovers what lies on `ground`.
    pub(crate) async fn open_on(
        ground: Ground,
        config: EngineConfig,
        kms: Arc<Kms>,
        env: Env,
    ) -> Result<Self> {
        let backups = Backups::new(&ground.dir);
        let Opened { lock, space, pool, disk, report, committer, volume, reader, tenants } =
            build(ground, &config, &env).await?;
        let keys = BucketKeys::new(Arc::clone(&kms), env.clone(), Arc::clone(&committer));
        let inner = Arc::new(Inner {
            space,
            read_ahead: Arc::new(Semaphore::new(reads_ahead(&config))),
            release_wanted: Arc::new(Notify::new()),
            pins: Pins::default(),
            jobs: Jobs::new(),
            reclaim: Reclaim::default(),
            scrub: Scrub::default(),
            backups,
            config,
            env,
            kms,
            pool,
            volume,
            reader,
            committer,
            tenants,
            keys,
            disk,
            report,
            _lock: lock,
        });
        let keys_of = Arc::downgrade(&inner);
        inner.kms.on_close(Arc::new(move |_, tenant_key| {
            if let Some(inner) = keys_of.upgrade() {
                inner.keys.forget_tenant_key(tenant_key);
            }
        }));
        tokio::spawn(crate::release::run(Arc::downgrade(&inner)));
        Reclaim::start(&inner);
        Scrub::start(&inner);
        inner.resume_jobs().await?;
        Ok(Self { inner })
    }

    /// Closes in order: jobs, the segments, then the metadata. Requests must be over.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`]: a write or flush failed; the next start recovers.
    pub async fn close(&self) -> Result<()> {
        self.inner.backups.close().await;
        self.inner.jobs.close().await;
        self.inner.scrub.close().await;
        self.inner.reclaim.close().await;
        self.inner.volume.close().await?;
        let store = Arc::clone(self.inner.reader.store());
        blocking(move || store.close()).await
    }

    /// The keys.
    pub fn kms(&self) -> &Arc<Kms> {
        &self.inner.kms
    }

    /// The node's own rows.
    pub fn registry(&self) -> Registry {
        Registry::new(Arc::clone(self.inner.reader.store()), Arc::clone(&self.inner.committer))
    }

    /// Makes a tenant's default key and namespace, where they are missing.
    ///
    /// # Errors
    /// As [`Engine::create_namespaces`].
    pub async fn create_namespace(&self, tenant: TenantId) -> Result<()> {
        self.create_namespaces(&[tenant]).await
    }

    /// Makes default keys and namespaces of many tenants, with one flush and one commit.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`], [`ErrorKind::Full`], [`ErrorKind::Unavailable`]: see there.
    pub async fn create_namespaces(&self, tenants: &[TenantId]) -> Result<()> {
        let keyless: Vec<_> = tenants
            .iter()
            .copied()
            .filter(|tenant| self.inner.kms.default_tenant_key(*tenant).is_err())
            .collect();
        let kms = Arc::clone(&self.inner.kms);
        blocking(move || {
            kms.create_tenant_keys(&keyless)?;
            Ok(())
        })
        .await?;
        self.inner.tenants.create(tenants).await
    }

    /// How the engine stands.
    pub fn stats(&self) -> EngineStats {
        let inner = &self.inner;
        let counters = inner.committer.counters();
        EngineStats {
            fenced: inner.is_fenced(),
            full: inner.space.is_full() || inner.volume.is_full(),
            disk: inner.report.clone(),
            disk_stats: inner.disk.stats(),
            pool: inner.pool.stats(),
            usage: inner.volume.usage(),
            commits: counters.commits.load(Ordering::Relaxed),
            commit_batches: counters.batches.load(Ordering::Relaxed),
            commit_conflicts: counters.conflicts.load(Ordering::Relaxed),
            tenants: inner.tenants.count() as u64,
            reclaim: inner.reclaim.stats(),
            scrub: inner.scrub_stats(),
            mirror: self.mirror(),
        }
    }
}

impl Inner {
    /// Refuses a write that the node cannot keep, before its body is read.
    pub(crate) fn admit(&self, bytes: u64) -> Result<()> {
        if self.is_fenced() {
            return Err(Error::new(ErrorKind::Fenced, "admit a write")
                .with_advice("restart the node, it recovers"));
        }
        self.space.admit(bytes)?;
        if bytes > self.config.inline_bytes_max {
            self.volume.admit(bytes)?;
        }
        Ok(())
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.volume.is_fenced() || self.committer.is_fenced()
    }
}

/// What an engine is made of that needs no keys.
pub(crate) struct Opened {
    pub(crate) lock: Option<std::os::fd::OwnedFd>,
    pub(crate) space: Arc<Space>,
    pub(crate) pool: BufPool,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) report: DiskReport,
    pub(crate) committer: Arc<Committer>,
    pub(crate) volume: Volume,
    pub(crate) reader: MetaReader,
    pub(crate) tenants: Tenants,
}

/// What an engine stands on: rows, files and memory. A simulation brings its own.
pub(crate) struct Ground {
    /// The data directory, for what copies it.
    pub(crate) dir: PathBuf,
    /// The lock on the directory, where there is one.
    pub(crate) lock: Option<std::os::fd::OwnedFd>,
    pub(crate) store: Arc<dyn MetaStore>,
    pub(crate) pool: BufPool,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) report: DiskReport,
    pub(crate) space: Arc<Space>,
}

/// Opens and recovers what needs no keys.
pub(crate) async fn open_parts(dir: &Path, config: &EngineConfig, env: &Env) -> Result<Opened> {
    build(break_ground(dir, config, env).await?, config, env).await
}

/// Locks the directory and opens its rows and files.
async fn break_ground(dir: &Path, config: &EngineConfig, env: &Env) -> Result<Ground> {
    check(config)?;
    let lock = Some(lock(dir)?);
    let (reserve, ballast) = (config.reserve_bytes, config.ballast_bytes);
    let space = Arc::new(Space::new(dir.to_path_buf(), reserve, ballast, env.clone()));
    backup::refuse_half(dir)?;
    let (meta_dir, pooled) = (dir.join(META), config.pooled_families);
    let cache_bytes = config.metadata_cache_bytes;
    // Metadata that is gone is not made anew beside a volume that needs it.
    let is_new = volumes::is_new(dir, config);
    let tended = Arc::clone(&space);
    let store: Arc<dyn MetaStore> = blocking(move || {
        // A store that finds no space to recover in does not open at all.
        tended.tend_ballast(false);
        let row_bytes = cache_bytes / ROW_CACHE_DIVISOR;
        let settings =
            RocksSettings { pooled, cache_bytes: cache_bytes - row_bytes, create: is_new };
        let store = RocksMeta::open(&meta_dir, settings)?;
        Ok(Arc::new(CachedMeta::new(Arc::new(store), row_bytes)))
    })
    .await?;
    let pool = BufPool::new(config.pool_bytes, true).map_err(|e| starting("the pool", e))?;
    let (disk, report) = volumes::open(dir, config, &pool, env).await?;
    let dir = dir.to_owned();
    Ok(Ground { dir, lock, store, pool, disk, report, space })
}

/// Recovers what lies on `ground`.
pub(crate) async fn build(ground: Ground, config: &EngineConfig, env: &Env) -> Result<Opened> {
    let Ground { lock, store, pool, disk, report, space, .. } = ground;
    let pooled = config.pooled_families;
    let (room, places) = (Arc::clone(&space), config.clone());
    let synced = Arc::new(AtomicU64::new(store.sequence()));
    let committer = Arc::new(Committer::start(Arc::clone(&store), Arc::clone(&synced))?);
    let parts = VolumeParts {
        disk: Arc::clone(&disk),
        pool: pool.clone(),
        table: Arc::new(GcTable::new(Arc::clone(&store), Arc::clone(&committer))),
        meta_seq: synced,
        env: env.clone(),
        room: Arc::new(move |bytes| {
            room.admit(bytes).and_then(|()| volumes::admit(&places, bytes))
        }),
    };
    let volume_config =
        VolumeConfig { pooled_families: u32::from(pooled), ..config.volume.clone() };
    let (volume, recovered) = Volume::open(volume_config, parts).await?;
    if recovered.pooled_families != u32::from(pooled) {
        let what = format!("share {pooled} families, made with {}", recovered.pooled_families);
        return Err(Error::new(ErrorKind::Misuse, what));
    }
    let reader = MetaReader::new(store);
    let plan = FamilyPlan { dedicated_max: config.dedicated_namespaces_max, pooled };
    let tenants = Tenants::open(reader.clone(), Arc::clone(&committer), env.clone(), plan).await?;
    Ok(Opened { lock, space, pool, disk, report, committer, volume, reader, tenants })
}

fn check(config: &EngineConfig) -> Result<()> {
    if config.inline_bytes_max > INLINE_BYTES_LIMIT {
        let what = format!("inline bodies of {} bytes", config.inline_bytes_max);
        return Err(Error::new(ErrorKind::Misuse, what).with_advice("at most 32 KiB"));
    }
    if config.scrub.period_days > PERIOD_DAYS_MAX {
        let what = format!("scrub within {} days", config.scrub.period_days);
        return Err(Error::new(ErrorKind::Misuse, what).with_advice("at most 365, or 0 for never"));
    }
    if config.pooled_families == 0 {
        return Err(Error::new(ErrorKind::Misuse, "share 0 families"));
    }
    Ok(())
}

/// Takes the directory for this process.
pub(crate) fn lock(dir: &Path) -> Result<std::os::fd::OwnedFd> {
    let path: PathBuf = dir.join(LOCK);
    let during = format!("lock {}", path.display());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = open(&path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|cause| Error::new(ErrorKind::Unavailable, during.clone()).with_source(cause))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|cause| {
        Error::new(ErrorKind::Unavailable, during)
            .with_source(cause)
            .with_advice("another kluis process has this directory open")
    })?;
    Ok(file)
}

fn starting(what: &str, cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("open {what}")).with_source(cause)
}

#[cfg(test)]
mod tests;
