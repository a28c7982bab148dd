//! What the segments of a volume hold, whatever a table says that is older than they are.
//!
//! Owns: the comparison of headers with rows, for metadata that was put back beside a volume which
//! had gone on without it. Does not know: which extents are alive.
//!
//! Invariants
//! - Nothing is written.
//! - Only segments are read whole whose first record is not what their row says, and those that
//!   were open: the work is what was written since, not the volume.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use kluis_kms::Env;

use super::location::Location;
use super::recovery;
use super::scan::{Found, SegmentScan};
use super::segment::Segments;
use super::supers::Supers;
use super::table::{MemoryTable, SegmentRow, SegmentState};
use super::volume::VolumeParts;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BLOCK_BYTES, ExtentId, RecordBody, Superblock, align_up};
use crate::io::{BufPool, Disk};

/// A volume that nobody has open, to be looked at.
pub(crate) struct Survey {
    parts: VolumeParts,
    segments: Segments,
    block: Superblock,
}

/// What differs from the rows that were compared.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    /// What is to be put into the table.
    pub(crate) rows: Vec<SegmentRow>,
    /// The highest metadata sequence number that the volume knows.
    pub(crate) watermark: u64,
}

/// What a segment holds.
#[derive(Default)]
struct Content {
    incarnation: Option<u64>,
    /// Where the last record of that incarnation ends.
    end: u64,
    watermark: u64,
}

impl Survey {
    /// Reads the superblocks.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no volume. And as a volume that is opened.
    pub(crate) async fn begin(disk: Arc<dyn Disk>, pool: BufPool, env: Env) -> Result<Self> {
        let parts = VolumeParts {
            disk,
            pool,
            table: Arc::new(MemoryTable::default()),
            meta_seq: Arc::new(AtomicU64::new(0)),
            env,
            room: Arc::new(|_| Ok(())),
        };
        let supers = Supers::load(&parts).await?;
        let supers = supers.ok_or_else(|| Error::new(ErrorKind::NotFound, "find a volume"))?;
        let block = *supers.block();
        Ok(Self { parts, segments: Segments::default(), block })
    }

    /// The newer superblock.
    pub(crate) fn block(&self) -> &Superblock {
        &self.block
    }

    /// Compares what lies in the segments with `rows`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: the disk did not answer.
    pub(crate) async fn compare(&self, rows: &[SegmentRow]) -> Result<Differences> {
        let rows: BTreeMap<u32, SegmentRow> = rows.iter().map(|row| (row.segment, *row)).collect();
        let mut found = Differences { watermark: self.block.meta_seq, ..Differences::default() };
        for (segment, bytes) in recovery::list(&self.parts).await? {
            let row = rows.get(&segment);
            if bytes != self.block.segment_bytes || self.is_unchanged(segment, row).await? {
                continue;
            }
            let content = self.content(segment).await?;
            found.watermark = found.watermark.max(content.watermark);
            let Some(incarnation) = content.incarnation else { continue };
            // A use that was begun and holds nothing is closed by the next start.
            // What is in a free one is what its last use left.
            let is_over = row.is_some_and(|row| {
                let is_free = row.state == SegmentState::Free;
                row.incarnation > incarnation || (is_free && row.incarnation == incarnation)
            });
            if !is_over {
                let written_bytes = align_up(content.end, BLOCK_BYTES);
                let state = SegmentState::Closed;
                found.rows.push(SegmentRow { segment, state, incarnation, written_bytes });
            }
        }
        Ok(found)
    }

    /// Whether a segment that was closed is still in the same use.
    async fn is_unchanged(&self, segment: u32, row: Option<&SegmentRow>) -> Result<bool> {
        let is_closed =
            |row: &&SegmentRow| matches!(row.state, SegmentState::Closed | SegmentState::Cleaning);
        let Some(row) = row.filter(is_closed) else { return Ok(false) };
        let first = self.scan(segment, None).await?.next().await?;
        Ok(match first {
            Some(Found::Extent { header, .. } | Found::Filler { header, .. }) => {
                header.incarnation == row.incarnation
            }
            _ => false,
        })
    }

    async fn content(&self, segment: u32) -> Result<Content> {
        let mut scan = self.scan(segment, None).await?;
        let mut content = Content::default();
        while let Some(found) = scan.next().await? {
            let (header, offset) = match found {
                Found::Extent { header, location } => (header, location.offset),
                Found::Filler { header, offset } => (header, offset),
                Found::Damaged { .. } | Found::Unreadable { .. } => continue,
            };
            content.watermark = content.watermark.max(header.meta_seq);
            let end = offset + u64::from(header.stored_len());
            if content.incarnation.is_none_or(|seen| seen < header.incarnation) {
                content.incarnation = Some(header.incarnation);
                content.end = end;
            } else if content.incarnation == Some(header.incarnation) {
                content.end = content.end.max(end);
            }
        }
        Ok(content)
    }

    /// The extents of a segment in the use that `row` says.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: the disk did not answer.
    pub(crate) async fn extents(&self, row: &SegmentRow) -> Result<Vec<(ExtentId, Location)>> {
        let mut scan = self.scan(row.segment, Some(row.incarnation)).await?;
        let mut extents = Vec::new();
        while let Some(found) = scan.next().await? {
            if let Found::Extent { header, location } = found
                && let RecordBody::Extent { id, .. } = header.body
            {
                extents.push((id, location));
            }
        }
        Ok(extents)
    }

    async fn scan(&self, segment: u32, incarnation: Option<u64>) -> Result<SegmentScan> {
        recovery::scan(&self.parts, &self.segments, &self.block, segment, incarnation).await
    }
}
