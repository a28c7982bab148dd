//! Taking a snapshot, with or without clients at work.
//!
//! ```text
//! hold the segments ─► checkpoint of the metadata ─► its files ─► segments that its rows name
//!   ─► keys ─► audit log ─► manifest: the snapshot is there ─► older snapshots go
//! ```
//! Owns: that order, what is copied and what is there already. Knows nothing of: HTTP, the command
//! line, what any byte means.
//!
//! Invariants
//! - The point of a snapshot is its checkpoint: whatever was acknowledged before it is in it, and
//!   every row in it refers to bytes that are copied.
//! - Keys are copied after the checkpoint, so that none that a row needs is missing.
//! - Bytes that a writer may still change are copied again by the next run.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use kluis_kms::{Env, random_array};
use tokio::runtime::Handle;

use super::files::{self, io_error};
use super::keys::{self, KeySource};
use super::manifest::{BackupKind, Head, Manifest, MetaFile, Piece, SegmentCopy};
use super::progress::Progress;
use super::prune::{PruneReport, prune_open};
use super::repository::Repository;
use super::{BackupRequest, BackupSummary};
use crate::blob::{SegmentRow, SegmentState, Volume};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{BufClass, BufPool, SLAB_BYTES};
use crate::meta::MetaStore;
use crate::meta::rocks::checkpoint;

/// Where the checkpoint is made: beside `meta/`, so that it can share files with it.
const CHECKPOINT: &str = "checkpoint";
/// The first byte of a segment's row.
const SEGMENT_ROWS: &[u8] = b"S";

/// What a snapshot is taken of.
pub(super) struct Source {
    pub(super) dir: PathBuf,
    pub(super) volume: Volume,
    pub(super) store: Arc<dyn MetaStore>,
    pub(super) pool: BufPool,
    pub(super) env: Env,
    pub(super) keys: KeySource,
}

/// A run.
struct Run<'a> {
    source: &'a Source,
    request: &'a BackupRequest,
    repository: Repository,
    progress: &'a Progress,
    runtime: Handle,
    rate: Rate,
    counts: Counts,
}

/// How fast the source may be read.
struct Rate {
    bytes_per_second: Option<u64>,
    begun_ns: u64,
    bytes: u64,
}

/// What a run has moved.
#[derive(Default)]
#[expect(clippy::struct_field_names, reason = "the unit stands in every name")]
struct Counts {
    copied_bytes: u64,
    reused_bytes: u64,
    unreadable_bytes: u64,
}

/// Takes a snapshot. Blocks; `runtime` does the reads.
pub(super) fn take(
    source: &Source,
    request: &BackupRequest,
    progress: &Progress,
    runtime: Handle,
) -> Result<BackupSummary> {
    if files::is_inside(&request.to, &source.dir) {
        let during = format!("back up into {}", request.to.display());
        return Err(Error::new(ErrorKind::Misuse, during)
            .with_source("it lies in the data directory")
            .with_advice("give a folder on another disk"));
    }
    progress.begin("checkpoint", 0);
    let repository = Repository::open_or_make(&request.to, source.volume.id())?;
    let rate = Rate {
        bytes_per_second: request.rate_bytes,
        begun_ns: source.env.clock.monotonic_ns(),
        bytes: 0,
    };
    let counts = Counts::default();
    let mut run = Run { source, request, repository, progress, runtime, rate, counts };
    run.go()
}

impl Run<'_> {
    fn go(&mut self) -> Result<BackupSummary> {
        let (parent, newest_ms) = self.parent()?;
        let _hold = self.source.volume.hold_segments();
        let dir = self.source.dir.join(CHECKPOINT);
        files::remove_tree(&dir)?;
        let copied = self.metadata(&dir, parent.as_ref());
        files::remove_tree(&dir)?;
        let (sequence, rows, meta_files) = copied?;
        let segments = match self.request.kind {
            BackupKind::Full => self.segments(&rows, parent.as_ref())?,
            BackupKind::Metadata => Vec::new(),
        };
        let head = self.head(sequence, newest_ms);
        self.progress.begin("keys", 0);
        keys::store_keys(&self.repository, &self.source.keys, self.progress)?;
        self.progress.begin("audit log", 0);
        keys::store_audit(&self.repository, &self.source.keys, self.progress)?;
        let manifest = Manifest { head, files: meta_files, segments };
        let id = self.new_id(head.created_ms);
        self.repository.put_manifest(&id, &manifest)?;
        let pruned = match self.request.keep {
            Some(keep) => prune_open(&self.repository, keep)?,
            None => PruneReport::default(),
        };
        let took_ns = self.source.env.clock.monotonic_ns().saturating_sub(self.rate.begun_ns);
        let summary = BackupSummary {
            snapshot: id,
            kind: self.request.kind,
            created_ms: head.created_ms,
            sequence,
            segments: manifest.segments.len() as u64,
            copied_bytes: self.counts.copied_bytes,
            reused_bytes: self.counts.reused_bytes,
            unreadable_bytes: self.counts.unreadable_bytes,
            removed_snapshots: pruned.snapshots,
            same_disk: is_same_disk(&self.source.dir, &self.request.to),
            took_ms: took_ns / 1_000_000,
        };
        Ok(summary)
    }

    /// The newest snapshot with segments, and when the newest of all was taken. One that is damaged
    /// costs a longer copy, and `verify` reports it.
    fn parent(&self) -> Result<(Option<Manifest>, u64)> {
        let mut newest_ms = 0;
        let mut parent: Option<Manifest> = None;
        for id in self.repository.snapshots()?.into_iter().rev() {
            match self.repository.manifest(&id) {
                Ok(manifest) => {
                    newest_ms = newest_ms.max(manifest.head.created_ms);
                    let wanted = manifest.head.kind == BackupKind::Full || parent.is_none();
                    let is_full = manifest.head.kind == BackupKind::Full;
                    if wanted {
                        parent = Some(manifest);
                    }
                    if is_full {
                        break;
                    }
                }
                Err(error) => tracing::warn!(%error, id, "a snapshot of the repository is damaged"),
            }
        }
        Ok((parent, newest_ms))
    }

    fn head(&self, sequence: u64, newest_ms: u64) -> Head {
        let block = self.runtime.block_on(self.source.volume.superblock());
        let now_ms = self.source.env.clock.now_ms();
        Head {
            kind: self.request.kind,
            // Snapshots are in the order of their times, whatever the clock does.
            created_ms: now_ms.max(newest_ms.saturating_add(1)),
            volume: block.volume,
            segment_bytes: block.segment_bytes,
            pooled_families: block.pooled_families,
            open_count: block.open_count,
            incarnation_next: block.incarnation_next,
            sequence,
            // Every record that was copied was written before now.
            watermark: self.source.store.sequence().max(block.meta_seq),
            unreadable_bytes: self.counts.unreadable_bytes,
        }
    }

    /// Sorts like its time.
    fn new_id(&self, created_ms: u64) -> String {
        let salt: [u8; 4] = random_array(&*self.source.env.rng);
        format!("{created_ms:013}-{}", hex::encode(salt))
    }

    /// Makes the checkpoint and copies its files; how far it goes, and its segment rows.
    fn metadata(
        &mut self,
        dir: &Path,
        parent: Option<&Manifest>,
    ) -> Result<(u64, Vec<SegmentRow>, Vec<MetaFile>)> {
        self.source.store.checkpoint(dir)?;
        let view = checkpoint::view(dir, SEGMENT_ROWS)?;
        let rows = view.rows.iter().map(|row| SegmentRow::decode(row)).collect::<Result<_>>()?;
        let mut found = Vec::new();
        // RocksDB's own text log and lock are no part of it.
        let is_part = |name: &String| !name.starts_with("LOG") && name != "LOCK";
        for name in files::names(dir)?.into_iter().filter(is_part) {
            let path = dir.join(&name);
            let metadata = path.metadata().map_err(|error| io_error("look at", &path, error))?;
            found.push((name, path, metadata.len(), modified_ns(&metadata)));
        }
        let total = found.iter().map(|(_, _, bytes, _)| bytes).sum();
        self.progress.begin("metadata", total);
        let mut copied = Vec::new();
        for (name, path, bytes, modified_ns) in found {
            let known = parent.and_then(|parent| {
                let mut held = parent.files.iter();
                held.find(|it| {
                    it.name == name && it.bytes == bytes && it.modified_ns == modified_ns
                })
            });
            if let Some(known) = known.filter(|it| is_immutable(&name) && self.holds(it)) {
                self.counts.reused_bytes += bytes;
                self.progress.add(bytes);
                copied.push(known.clone());
                continue;
            }
            let Self { source, repository, progress, runtime, rate, counts, .. } = self;
            let mut writer = repository.writer()?;
            files::walk(&path, u64::MAX, progress, &mut |bytes| {
                progress.add(bytes.len() as u64);
                rate.keep(bytes.len() as u64, &source.env, runtime);
                writer.write(bytes)
            })?;
            let (sum, bytes) = writer.finish()?;
            counts.copied_bytes += bytes;
            copied.push(MetaFile { name, bytes, modified_ns, sum });
        }
        Ok((view.sequence, rows, copied))
    }

    fn holds(&self, file: &MetaFile) -> bool {
        self.repository.holds(&file.sum, file.bytes)
    }

    /// Copies what the rows of the checkpoint name and is not there yet.
    fn segments(
        &mut self,
        rows: &[SegmentRow],
        parent: Option<&Manifest>,
    ) -> Result<Vec<SegmentCopy>> {
        let used = rows.iter().filter(|row| row.state != SegmentState::Free);
        let mut plans = Vec::new();
        for row in used {
            let reach = self.source.volume.reach(row.segment);
            let reach = reach.filter(|reach| reach.incarnation == row.incarnation);
            let reach = reach.ok_or_else(|| {
                let during = format!("copy segment {}, which was held", row.segment);
                Error::new(ErrorKind::Conflict, during).with_source("it was put into use again")
            })?;
            let held = parent.and_then(|parent| self.held(parent, row));
            let pieces = held.map(kept_pieces).unwrap_or_default();
            let start = held.map_or(0, |held| held.settled).min(reach.end);
            plans.push((row, reach, pieces, start));
        }
        let total = plans.iter().map(|(_, reach, _, start)| reach.end - start).sum();
        self.progress.begin("segments", total);
        let mut copies = Vec::new();
        for (row, reach, mut pieces, start) in plans {
            self.counts.reused_bytes +=
                pieces.iter().map(|piece| piece.to - piece.from).sum::<u64>();
            if start < reach.end {
                match self.piece(row.segment, start, reach.end)? {
                    Some(piece) => pieces.push(piece),
                    None => continue,
                }
            }
            let copy = SegmentCopy {
                segment: row.segment,
                incarnation: row.incarnation,
                settled: reach.settled,
                pieces,
            };
            copies.push(copy);
        }
        copies.sort_unstable_by_key(|copy| copy.segment);
        Ok(copies)
    }

    /// What the parent has of this use of the segment, if all of it is there.
    fn held<'p>(&self, parent: &'p Manifest, row: &SegmentRow) -> Option<&'p SegmentCopy> {
        let mut copies = parent.segments.iter();
        let copy = copies
            .find(|copy| copy.segment == row.segment && copy.incarnation == row.incarnation)?;
        let is_there = |it: &Piece| self.repository.holds(&it.sum, it.to - it.from);
        copy.pieces.iter().all(is_there).then_some(copy)
    }

    /// Copies a run of a segment's bytes; none if the segment has no file.
    fn piece(&mut self, segment: u32, from: u64, to: u64) -> Result<Option<Piece>> {
        let Self { source, repository, progress, runtime, rate, counts, .. } = self;
        let mut buf = runtime.block_on(source.pool.acquire(BufClass::Large));
        let mut writer = repository.writer()?;
        let mut at = from;
        while at < to {
            progress.check()?;
            let bytes = (to - at).min(SLAB_BYTES as u64);
            buf.set_len(usize::try_from(bytes).unwrap_or(SLAB_BYTES));
            let (returned, read) = runtime.block_on(source.volume.read_bytes(segment, buf, at));
            buf = returned;
            match read {
                Ok(lost_bytes) => counts.unreadable_bytes += lost_bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::error!(segment, "the segment has no file; the snapshot is without it");
                    return Ok(None);
                }
                Err(error) => {
                    let during = format!("read segment {segment} at {at}");
                    return Err(Error::new(ErrorKind::Unavailable, during).with_source(error));
                }
            }
            writer.write(&buf)?;
            progress.add(bytes);
            rate.keep(bytes, &source.env, runtime);
            at += bytes;
        }
        let (sum, bytes) = writer.finish()?;
        counts.copied_bytes += bytes;
        Ok(Some(Piece { from, to, sum }))
    }
}

/// The pieces that the next copy of a segment goes on from: those with bytes that are final.
fn kept_pieces(copy: &SegmentCopy) -> Vec<Piece> {
    copy.pieces.iter().filter(|piece| piece.from < copy.settled).copied().collect()
}

/// Whether RocksDB never writes to a file of this name once it is part of a checkpoint.
fn is_immutable(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it == "sst" || it == "blob")
}

fn modified_ns(metadata: &std::fs::Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

fn is_same_disk(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| path.metadata().ok().map(|found| found.dev());
    device(one).is_some() && device(one) == device(other)
}

impl Rate {
    /// Waits as long as the bytes so far are ahead of the rate.
    fn keep(&mut self, bytes: u64, env: &Env, runtime: &Handle) {
        self.bytes += bytes;
        let Some(most) = self.bytes_per_second else { return };
        let due_ns = u128::from(self.bytes) * 1_000_000_000 / u128::from(most.max(1));
        let now_ns = u128::from(env.clock.monotonic_ns().saturating_sub(self.begun_ns));
        let ahead_ns = u64::try_from(due_ns.saturating_sub(now_ns)).unwrap_or(u64::MAX);
        if ahead_ns > 0 {
            runtime.block_on(tokio::time::sleep(Duration::from_nanos(ahead_ns)));
        }
    }
}
