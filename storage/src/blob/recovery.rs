//! Opening a volume, and what a crash left of it.
//!
//! Owns: the order of the steps, the report. Does not know: metadata; whoever opened it compares
//! the report with it.
//!
//! Invariants
//! - A segment that was open when the node stopped is closed, never appended to: behind a torn tail
//!   nobody can tell old from new.
//! - The work is bounded by the lanes, not by the volume: only open segments are read.
//! - Nothing is written before the superblock has counted this open.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, Semaphore};

use super::config::VolumeConfig;
use super::core::Core;
use super::fence::Fence;
use super::hold::Holds;
use super::janitor::Desk;
use super::lane::Lanes;
use super::scan::{Found, ScanTarget, SegmentScan};
use super::segment::{self, Segments};
use super::supers::Supers;
use super::table::{SegmentRow, SegmentState};
use super::volume::VolumeParts;
use crate::bugs::{Bug, seeded};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BLOCK_BYTES, Superblock, VolumeId, align_up};
use crate::reached::sometimes;

/// Bits of a record's number that count within one open.
pub(super) const REC_SEQ_BITS: u32 = 40;

/// What opening a volume found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecoveryReport {
    /// The volume was made by this open.
    pub created: bool,
    /// It had been closed in order.
    pub clean: bool,
    /// The highest metadata sequence number that the volume knows to have been synced. If the
    /// metadata's own is lower, acknowledged changes were lost there: refuse to serve.
    pub max_meta_seq: u64,
    /// The highest record number found in the scanned segments.
    pub max_rec_seq: u64,
    /// RocksDB families that pooled namespaces share on this volume.
    pub pooled_families: u32,
    /// How often it was opened, this time included.
    pub open_count: u64,
    /// Segments that had been open, and were read.
    pub scanned_segments: Vec<u32>,
    /// Extents found in them.
    pub extents: u64,
    /// Abandoned ranges found in them.
    pub fillers: u64,
    /// Damaged headers and unreadable ranges found in them. A torn tail leaves some.
    pub damaged: u64,
    /// Segments that the table knows and that have no file, or one of a wrong length.
    pub missing_segments: Vec<u32>,
    /// Segments that have records and are not in the table, which has lost rows then: metadata was
    /// lost. They are kept out of use.
    pub orphan_segments: Vec<u32>,
}

impl RecoveryReport {
    fn add(&mut self, found: &Found) -> u64 {
        let (header, end) = match found {
            Found::Extent { header, location } => {
                self.extents += 1;
                (header, location.offset + u64::from(header.stored_len()))
            }
            Found::Filler { header, offset } => {
                self.fillers += 1;
                (header, offset + u64::from(header.stored_len()))
            }
            Found::Damaged { offset, .. } | Found::Unreadable { offset, .. } => {
                self.damaged += 1;
                return *offset + BLOCK_BYTES;
            }
        };
        self.max_meta_seq = self.max_meta_seq.max(header.meta_seq);
        self.max_rec_seq = self.max_rec_seq.max(header.rec_seq);
        end
    }
}

/// Opens or makes the volume; its tasks are not yet running.
pub(super) async fn open(
    mut config: VolumeConfig,
    parts: VolumeParts,
) -> Result<(Arc<Core>, RecoveryReport)> {
    let rows = parts.table.load()?;
    let files = list(&parts).await?;
    let loaded = Supers::load(&parts).await?;
    let created = loaded.is_none();
    let mut supers = match loaded {
        Some(supers) => supers,
        None if rows.is_empty() && files.is_empty() => Supers::create(&parts, &config).await?,
        None => return Err(orphaned(rows.len(), files.len())),
    };
    let block = *supers.block();
    let mut report = RecoveryReport {
        created,
        clean: block.clean,
        max_meta_seq: block.meta_seq,
        pooled_families: block.pooled_families,
        ..RecoveryReport::default()
    };
    if config.segment_bytes != block.segment_bytes {
        tracing::info!(bytes = block.segment_bytes, "the volume keeps its own segment size");
        config.segment_bytes = block.segment_bytes;
    }
    let segments = sort(&rows, files, &block, &mut report);
    let closed = scan_open(&parts, &segments, &rows, &block, &mut report).await?;
    find_orphans(&parts, &segments, &block, &mut report).await?;
    // Before anything is written: what was lost must be found lost by the next start as well.
    refuse_lost(&report, parts.meta_seq.load(Ordering::Acquire))?;
    let incarnation_seen = rows.iter().map(|row| row.incarnation).max().unwrap_or_default();
    let now_ms = parts.env.clock.now_ms();
    supers.begin(&report, incarnation_seen, now_ms).await?;
    report.open_count = supers.block().open_count;
    let core = core(config, parts, block.volume, supers, segments);
    core.put_rows(closed).await?;
    log(&report);
    Ok((core, report))
}

/// RocksDB's point-in-time recovery drops everything behind the first damaged log record, synced or
/// not. The volume knows how far it was synced, and which segments are in use.
fn refuse_lost(report: &RecoveryReport, meta_seq: u64) -> Result<()> {
    let watermark = report.max_meta_seq;
    if seeded(Bug::IgnoreWatermark) {
        return Ok(());
    }
    let during = if meta_seq < watermark {
        format!("open metadata at {meta_seq}, synced before up to {watermark}")
    } else if report.orphan_segments.is_empty() {
        return Ok(());
    } else {
        format!("open metadata without the rows of segments {:?}", report.orphan_segments)
    };
    Err(Error::new(ErrorKind::Corrupt, during)
        .with_advice("acknowledged metadata is missing: restore the newest backup of meta/"))
}

fn core(
    config: VolumeConfig,
    parts: VolumeParts,
    volume: VolumeId,
    supers: Supers,
    segments: Segments,
) -> Arc<Core> {
    Arc::new(Core {
        disk: parts.disk,
        pool: parts.pool,
        table: parts.table,
        meta_seq: parts.meta_seq,
        env: parts.env,
        room: parts.room,
        volume,
        fence: Fence::default(),
        rec_seq: AtomicU64::new(supers.block().open_count << REC_SEQ_BITS),
        supers: Mutex::new(supers),
        segments,
        holds: Holds::default(),
        lanes: Lanes::default(),
        desk: Arc::new(Desk::default()),
        writer_slabs: Arc::new(Semaphore::new(config.writer_slabs_max)),
        config,
    })
}

pub(super) async fn list(parts: &VolumeParts) -> Result<Vec<(u32, u64)>> {
    let files = parts.disk.list(segment::DIRECTORY).await.map_err(|error| {
        Error::new(ErrorKind::Unavailable, "list the segments").with_source(error)
    })?;
    let segments = files.iter().filter_map(|(name, bytes)| {
        let segment = segment::segment_of(name);
        if segment.is_none() {
            tracing::warn!(%name, "not a segment; left alone");
        }
        segment.map(|segment| (segment, *bytes))
    });
    Ok(segments.collect())
}

/// Compares the table with the directory.
fn sort(
    rows: &[SegmentRow],
    files: Vec<(u32, u64)>,
    block: &Superblock,
    report: &mut RecoveryReport,
) -> Segments {
    let files_count = files.len() as u64;
    let (whole, odd): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(_, bytes)| *bytes == block.segment_bytes);
    let mut whole: BTreeSet<u32> = whole.into_iter().map(|(segment, _)| segment).collect();
    let mut kept = Vec::with_capacity(rows.len());
    for row in rows {
        if whole.remove(&row.segment) {
            kept.push(*row);
            continue;
        }
        tracing::error!(segment = row.segment, "the segment has no file, or not a whole one");
        report.missing_segments.push(row.segment);
        // Its number stays taken, so that no location is ever read from another file.
        kept.push(SegmentRow { state: SegmentState::Closed, ..*row });
    }
    let segments = Segments::new(&kept, whole, files_count);
    for (segment, bytes) in odd {
        tracing::warn!(segment, bytes, "a segment of another size; left alone");
        segments.never(segment);
    }
    segments
}

/// Reads every segment that was open; the rows that close them.
async fn scan_open(
    parts: &VolumeParts,
    segments: &Segments,
    rows: &[SegmentRow],
    block: &Superblock,
    report: &mut RecoveryReport,
) -> Result<Vec<SegmentRow>> {
    // A move that was cut short: what it moved has rows of its own, the rest lies where it lay.
    let cleaning = rows.iter().filter(|row| row.state == SegmentState::Cleaning);
    let mut closed: Vec<_> =
        cleaning.map(|row| SegmentRow { state: SegmentState::Closed, ..*row }).collect();
    let was_open = |row: &&SegmentRow| {
        matches!(row.state, SegmentState::Open | SegmentState::Closing)
            && !report.missing_segments.contains(&row.segment)
    };
    let open: Vec<SegmentRow> = rows.iter().filter(was_open).copied().collect();
    for row in open {
        let used = Some(row.incarnation);
        let mut scan = scan(parts, segments, block, row.segment, used).await?;
        let mut end = 0;
        while let Some(found) = scan.next().await? {
            if matches!(found, Found::Damaged { .. }) {
                sometimes("a damaged record was found in an open segment");
            }
            end = report.add(&found).max(end);
        }
        sometimes("recovery closed a segment");
        report.scanned_segments.push(row.segment);
        closed.push(SegmentRow {
            state: if seeded(Bug::ReuseEarly) { SegmentState::Free } else { SegmentState::Closed },
            written_bytes: align_up(end, BLOCK_BYTES).max(row.written_bytes),
            ..row
        });
    }
    Ok(closed)
}

/// Finds segments that have records and no row. A row is durable before the first record is
/// written, so the table has lost some; such a segment is kept out of use, not zeroed as a spare.
async fn find_orphans(
    parts: &VolumeParts,
    segments: &Segments,
    block: &Superblock,
    report: &mut RecoveryReport,
) -> Result<()> {
    for segment in segments.raw() {
        let mut scan = scan(parts, segments, block, segment, None).await?;
        let mut found_any = false;
        while let Some(found) = scan.next().await? {
            found_any = true;
            if let Found::Extent { header, .. } | Found::Filler { header, .. } = found {
                report.max_meta_seq = report.max_meta_seq.max(header.meta_seq);
                report.max_rec_seq = report.max_rec_seq.max(header.rec_seq);
            }
        }
        if found_any {
            tracing::error!(segment, "the segment has records and no row; kept out of use");
            segments.keep_out(segment);
            report.orphan_segments.push(segment);
        }
    }
    Ok(())
}

pub(super) async fn scan(
    parts: &VolumeParts,
    segments: &Segments,
    block: &Superblock,
    segment: u32,
    incarnation: Option<u64>,
) -> Result<SegmentScan> {
    let file = segments.file(&parts.disk, segment).await.map_err(|error| {
        let during = format!("recover segment {segment}");
        Error::new(ErrorKind::Unavailable, during).with_source(error)
    })?;
    let (volume, end) = (block.volume, block.segment_bytes);
    let target = ScanTarget { volume, segment, incarnation, end };
    Ok(SegmentScan::new(Arc::clone(&parts.disk), parts.pool.clone(), file, target))
}

fn orphaned(rows: usize, files: usize) -> Error {
    Error::new(ErrorKind::Corrupt, format!("open a volume of {rows} rows and {files} segments"))
        .with_source("there is no superblock")
        .with_advice(
            "restore SUPER.a and SUPER.b from a backup of this volume; nothing was changed",
        )
}

fn log(report: &RecoveryReport) {
    tracing::info!(
        created = report.created,
        clean = report.clean,
        open_count = report.open_count,
        scanned = report.scanned_segments.len(),
        extents = report.extents,
        damaged = report.damaged,
        "volume opened"
    );
}
