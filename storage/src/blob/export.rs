//! What a copier of segments may read, and how far it will stay as it is.
//!
//! Owns: the line between bytes that are final and bytes that a writer may still change. Does not
//! know: where they are copied to, which of them are alive.
//!
//! Invariants
//! - Below [`Reach::settled`] no byte changes any more while the segment is in this use: every
//!   record there is published or dead, and no write to it is under way.
//! - Below [`Reach::end`] lies every extent that was published when it was asked for.

use std::io;

use super::core::Core;
use super::hold::SegmentHold;
use super::read::is_rot;
use super::segment;
use super::table::SegmentState;
use super::volume::Volume;
use crate::format::{BLOCK_BYTES, Superblock, align_up};
use crate::io::{BLOCK_LEN, Buf, BufClass};

/// How far a segment goes. Both are whole blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reach {
    /// Which use of it this is about.
    pub(crate) incarnation: u64,
    /// Bytes from its start that records lie in.
    pub(crate) end: u64,
    /// Bytes from its start that will not change.
    pub(crate) settled: u64,
}

/// The file of a segment, as a path in the data directory.
pub(crate) fn segment_file(segment: u32) -> String {
    segment::file_name(segment)
}

impl Volume {
    /// Keeps segments from being used again until the hold is dropped. Take it before the
    /// metadata whose extents are to be read.
    pub(crate) fn hold_segments(&self) -> SegmentHold {
        self.core().holds.take()
    }

    /// How far `segment` goes; none if it is not in use.
    pub(crate) fn reach(&self, segment: u32) -> Option<Reach> {
        reach(self.core(), segment)
    }

    /// Fills `buf` with the bytes of a segment from `offset` on, as they lie on the device. Blocks
    /// that the device cannot read become zeros; how many bytes of them.
    ///
    /// # Errors
    /// `NotFound`: the segment has no file. And whatever else the device says.
    pub(crate) async fn read_bytes(
        &self,
        segment: u32,
        buf: Buf,
        offset: u64,
    ) -> (Buf, io::Result<u64>) {
        let core = self.core();
        let file = match core.segments.file(&core.disk, segment).await {
            Ok(file) => file,
            Err(error) => return (buf, Err(error)),
        };
        let (mut buf, read) = core.disk.read_at(file.id, buf, offset).await;
        match read {
            Err(error) if is_rot(&error) => {}
            read => return (buf, read.map(|()| 0)),
        }
        let mut block = core.pool.acquire(BufClass::Small).await;
        let (mut at, mut lost_bytes) = (offset, 0);
        for to in buf.chunks_mut(BLOCK_LEN) {
            block.set_len(to.len());
            let (returned, read) = core.disk.read_at(file.id, block, at).await;
            block = returned;
            match read {
                Ok(()) => to.copy_from_slice(&block),
                Err(error) if is_rot(&error) => {
                    to.fill(0);
                    lost_bytes += to.len() as u64;
                }
                Err(error) => return (buf, Err(error)),
            }
            at += BLOCK_BYTES;
        }
        (buf, Ok(lost_bytes))
    }

    /// The newer superblock.
    pub(crate) async fn superblock(&self) -> Superblock {
        *self.core().supers.lock().await.block()
    }
}

fn reach(core: &Core, segment: u32) -> Option<Reach> {
    let active = core.segments.active(segment);
    let row = core.segments.row(segment)?;
    let of_active = active.filter(|active| {
        active.incarnation == row.incarnation
            && matches!(row.state, SegmentState::Open | SegmentState::Closing)
    });
    if let Some(active) = of_active {
        let (end, settled) = active.reach();
        return Some(Reach { incarnation: active.incarnation, end, settled });
    }
    let end = align_up(row.written_bytes, BLOCK_BYTES).min(core.config.segment_bytes);
    let reach = Reach { incarnation: row.incarnation, end, settled: end };
    (row.state != SegmentState::Free).then_some(reach)
}
