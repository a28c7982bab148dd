//! The states of a segment whose survivors are moved: closed, cleaning, free; and how much space
//! there is.
//!
//! Owns: the order in which a segment is given back. Does not know: what is alive in it; whoever
//! calls has moved it, durably.
//!
//! Invariants
//! - A segment is given back only when no reader and no backup holds it, and after it lets none in
//!   any more.
//! - It is used again only after the row that says so is durable.

use super::config::RESERVE_SEGMENTS;
use super::hold::Ticket;
use super::lane::Lane;
use super::table::{SegmentRow, SegmentState};
use super::volume::Volume;
use crate::error::{Error, ErrorKind, Result};

impl Volume {
    /// Begins to clean `segment`, which must be closed; its row as it is now.
    ///
    /// # Errors
    /// - [`ErrorKind::Fenced`]: the table could not be written.
    /// - [`ErrorKind::Misuse`]: it is not closed.
    pub(crate) async fn begin_cleaning(&self, segment: u32) -> Result<SegmentRow> {
        self.turn(segment, SegmentState::Closed, SegmentState::Cleaning).await
    }

    /// Leaves a segment that was being cleaned as it is, with what is left in it.
    ///
    /// # Errors
    /// As [`Self::begin_cleaning`].
    pub(crate) async fn keep_segment(&self, segment: u32) -> Result<()> {
        self.turn(segment, SegmentState::Cleaning, SegmentState::Closed).await.map(drop)
    }

    /// To be called when all that was alive in a segment is durable elsewhere.
    pub(crate) fn emptied(&self) -> Ticket {
        self.core().holds.ticket()
    }

    /// Gives a segment back that was being cleaned, and emptied at `ticket`. `false` if somebody
    /// still reads it or holds it as it was: no new reader is let in, so ask again.
    ///
    /// # Errors
    /// As [`Self::begin_cleaning`].
    pub(crate) async fn free_segment(&self, segment: u32, ticket: Ticket) -> Result<bool> {
        if !self.core().holds.is_clear(ticket) || !self.core().segments.retire(segment) {
            return Ok(false);
        }
        self.turn(segment, SegmentState::Cleaning, SegmentState::Free).await?;
        Ok(true)
    }

    /// How many segments clients could open now, the reserve included, counted up to `most`.
    pub(crate) fn segments_available(&self, most: u64) -> u64 {
        self.core().available(Lane::Hot, most)
    }

    /// Refuses a body of so many bytes that would not find a place, before a byte of it is read.
    /// One that is let in may still find none: another may be faster.
    ///
    /// # Errors
    /// [`ErrorKind::Full`].
    pub(crate) fn admit(&self, bytes: u64) -> Result<()> {
        let core = self.core();
        let whole = core.config.segment_bytes;
        let most = bytes / whole + 1 + RESERVE_SEGMENTS;
        let segments = core.available(Lane::Hot, most).saturating_sub(RESERVE_SEGMENTS);
        if bytes <= core.lanes.left_bytes(Lane::Hot, whole) + segments * whole {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Full, format!("find a place for {bytes} bytes"))
            .with_advice("delete objects or add space"))
    }

    /// Whether clients find no place for another segment.
    pub(crate) fn is_full(&self) -> bool {
        self.core().is_full()
    }

    async fn turn(
        &self,
        segment: u32,
        from: SegmentState,
        state: SegmentState,
    ) -> Result<SegmentRow> {
        let core = self.core();
        let during = || format!("turn segment {segment} from {from:?} to {state:?}");
        let row = core.segments.row(segment).filter(|row| row.state == from);
        let row = row.ok_or_else(|| Error::new(ErrorKind::Misuse, during()))?;
        let written_bytes = if state == SegmentState::Free { 0 } else { row.written_bytes };
        let row = SegmentRow { state, written_bytes, ..row };
        core.put_rows(vec![row]).await?;
        Ok(row)
    }
}
