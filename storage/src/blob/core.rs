//! What every part of the blob layer shares.
//!
//! Owns: the one instance of each part's state, the counter of record numbers. Does nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kluis_kms::Env;
use tokio::sync::{Mutex, Semaphore};

use super::config::{RESERVE_OVERDRAFT, RESERVE_SEGMENTS, VolumeConfig};
use super::fence::Fence;
use super::hold::Holds;
use super::janitor::Desk;
use super::lane::{Lane, Lanes};
use super::segment::Segments;
use super::supers::Supers;
use super::table::{SegmentRow, SegmentState, SegmentTable};
use super::volume::{Room, VolumeUsage};
use crate::error::Result;
use crate::format::{ExtentHeader, RecordBody, VolumeId};
use crate::io::{BufPool, Disk};

/// The shared state of one open volume.
pub(super) struct Core {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) pool: BufPool,
    pub(super) table: Arc<dyn SegmentTable>,
    pub(super) meta_seq: Arc<AtomicU64>,
    pub(super) env: Env,
    pub(super) room: Room,
    pub(super) config: VolumeConfig,
    pub(super) volume: VolumeId,
    pub(super) fence: Fence,
    /// The next record's number: the count of opens in the upper 24 bits, a counter in the lower
    /// 40.
    pub(super) rec_seq: AtomicU64,
    pub(super) supers: Mutex<Supers>,
    pub(super) segments: Segments,
    /// Kept by whoever copies segments.
    pub(super) holds: Holds,
    pub(super) lanes: Lanes,
    pub(super) desk: Arc<Desk>,
    /// Slabs that writers of streamed extents may still take.
    pub(super) writer_slabs: Arc<Semaphore>,
}

impl Core {
    /// The header of a record that is about to be written.
    pub(super) fn header(&self, segment: u32, incarnation: u64, body: RecordBody) -> ExtentHeader {
        ExtentHeader {
            volume: self.volume,
            segment,
            incarnation,
            rec_seq: self.rec_seq.fetch_add(1, Ordering::Relaxed),
            meta_seq: self.meta_seq.load(Ordering::Acquire),
            write_time_ms: self.env.clock.now_ms(),
            body,
        }
    }

    /// Puts rows into the segment table, durably. An error fences: nobody knows then which rows a
    /// later start will find.
    pub(super) async fn put_rows(&self, rows: Vec<SegmentRow>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.table.put(rows.clone()).await {
            self.fence.raise(format!("put {} rows into the segment table: {error}", rows.len()));
            return Err(self.fence.error("put rows into the segment table").with_source(error));
        }
        self.segments.apply(&rows);
        Ok(())
    }

    /// How many segments `lane` could open now, counted up to `most`.
    pub(super) fn available(&self, lane: Lane, most: u64) -> u64 {
        let ready = self.segments.ready_count();
        let wanted = most.saturating_sub(ready);
        let by_number = self.makeable_by_number(self.segments.files_count(), lane).min(wanted);
        let fits =
            |count: u64| (self.room)(count.saturating_mul(self.config.segment_bytes)).is_ok();
        // The most that fit: `fits` holds up to some count and not beyond.
        let (mut low, mut high) = (0, by_number);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        (ready + low).min(most)
    }

    /// How many segments more the volume may have.
    pub(super) fn makeable_by_number(&self, files_count: u64, lane: Lane) -> u64 {
        let Some(bytes_max) = self.config.volume_bytes_max else {
            return u64::from(u32::MAX);
        };
        let overdraft = if lane == Lane::Cold { RESERVE_OVERDRAFT } else { 0 };
        (bytes_max / self.config.segment_bytes + overdraft).saturating_sub(files_count)
    }

    /// Whether a client's lanes find no segment any more once theirs are full.
    pub(super) fn is_full(&self) -> bool {
        self.available(Lane::Hot, RESERVE_SEGMENTS + 1) <= RESERVE_SEGMENTS
    }

    /// How full the volume is.
    pub(super) fn usage(&self) -> VolumeUsage {
        let mut usage = VolumeUsage {
            segment_bytes: self.config.segment_bytes,
            allocated_bytes: self.segments.files_count() * self.config.segment_bytes,
            written_bytes: self.lanes.written_bytes(),
            abandoned_bytes: self.desk.abandoned_bytes(),
            ..VolumeUsage::default()
        };
        for row in self.segments.rows() {
            usage.written_bytes += row.written_bytes;
            *match row.state {
                SegmentState::Free => &mut usage.segments_free,
                SegmentState::Open => &mut usage.segments_open,
                SegmentState::Closing => &mut usage.segments_closing,
                SegmentState::Closed | SegmentState::Cleaning => &mut usage.segments_closed,
            } += 1;
        }
        usage.segments_free += self.segments.raw_count();
        usage
    }
}
