//! Walking a segment from header to header, over damage as well.
//!
//! After a record the walk goes on behind it; where no record starts, at the next multiple of 8
//! bytes. Padding, holes and what an earlier use of the segment left are passed over in silence.
//! Owns: the walk. Does not know: which records are alive.
//!
//! Invariants
//! - Only a record of this volume, this segment and this use of it is found: anything else, old or
//!   forged, lacks the incarnation or the checksum.
//! - One damaged record hides no other, unless its length does not lie in its own header.

use std::sync::Arc;

use super::core::Core;
use super::examine;
use super::location::Location;
use super::read::{self, is_rot};
use super::segment::SegmentFile;
use super::table::SegmentState;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BLOCK_BYTES, ExtentHeader, HEADER_BYTES, HeaderError, MAGIC, RECORD_ALIGN, RecordBody,
    VolumeId, align_up,
};
use crate::io::{Buf, BufClass, BufPool, Disk};

/// Bytes read at once while walking: a large buffer.
const WINDOW_BYTES: u64 = 1 << 20;

/// Something in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A record whose header and table are intact; the chunks have not been read.
    Extent {
        /// Its header.
        header: ExtentHeader,
        /// Where it lies.
        location: Location,
    },
    /// A range that was abandoned.
    Filler {
        /// Its header.
        header: ExtentHeader,
        /// Where it starts.
        offset: u64,
    },
    /// A header that says it belongs here and cannot be decoded.
    Damaged {
        /// Where it starts.
        offset: u64,
        /// What is wrong with it.
        error: HeaderError,
    },
    /// Bytes that the device cannot read.
    Unreadable {
        /// Where they start.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}

/// Which segment to walk, and how far.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScanTarget {
    pub(super) volume: VolumeId,
    pub(super) segment: u32,
    /// The use of the segment, or `None` for any.
    pub(super) incarnation: Option<u64>,
    pub(super) end: u64,
}

/// A walk through one segment.
pub struct SegmentScan {
    disk: Arc<dyn Disk>,
    pool: BufPool,
    file: Arc<SegmentFile>,
    target: ScanTarget,
    at: u64,
    /// What was read last, and where it starts.
    window: Option<(u64, Buf)>,
}

/// What a look at the window says.
enum Look {
    /// Nothing up to here.
    Nothing(u64),
    /// More bytes are needed from the current position.
    More(u64),
    Record(Found, u64),
}

impl SegmentScan {
    pub(super) async fn of_segment(core: &Core, segment: u32) -> Result<Self> {
        let row = core.segments.row(segment).filter(|row| row.state != SegmentState::Free);
        let missing = || Error::new(ErrorKind::NotFound, format!("scan segment {segment}"));
        let row = row.ok_or_else(missing)?;
        let whole = core.config.segment_bytes;
        let end = match row.state {
            SegmentState::Open => whole,
            _ => align_up(row.written_bytes, BLOCK_BYTES).min(whole),
        };
        let file = read::file(core, segment).await?;
        let target =
            ScanTarget { volume: core.volume, segment, incarnation: Some(row.incarnation), end };
        Ok(Self::new(Arc::clone(&core.disk), core.pool.clone(), file, target))
    }

    pub(super) fn new(
        disk: Arc<dyn Disk>,
        pool: BufPool,
        file: Arc<SegmentFile>,
        target: ScanTarget,
    ) -> Self {
        Self { disk, pool, file, target, at: 0, window: None }
    }

    /// Gives the buffer back; the next step reads again where it stopped.
    pub(crate) fn pause(&mut self) {
        self.window = None;
    }

    /// Confines the walk to what starts at or after `from` and before `to`.
    pub(crate) fn within(mut self, from: u64, to: u64) -> Self {
        self.at = from / BLOCK_BYTES * BLOCK_BYTES;
        self.target.end = align_up(to, BLOCK_BYTES).min(self.target.end);
        self
    }

    /// Where the walk is.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Whether every checksum of a record that was just found is right; `None` if that takes more
    /// bytes than were read.
    pub(crate) fn is_intact(&self, location: &Location) -> Option<bool> {
        let (start, buf) = self.window.as_ref()?;
        let skip = usize::try_from(location.offset.checked_sub(*start)?).ok()?;
        examine::is_intact(buf.get(skip..)?, location)
    }

    /// The next thing, `None` at the end.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: the disk did not answer.
    pub async fn next(&mut self) -> Result<Option<Found>> {
        let mut need = u64::from(HEADER_BYTES);
        while self.at < self.target.end {
            if let Some(bytes) = self.fill(need).await? {
                let offset = self.at;
                self.at = (offset + bytes).min(self.target.end);
                return Ok(Some(Found::Unreadable { offset, bytes: self.at - offset }));
            }
            match self.look() {
                Look::Nothing(at) => {
                    self.at = at;
                    need = u64::from(HEADER_BYTES);
                }
                Look::More(bytes) => need = bytes,
                Look::Record(found, at) => {
                    self.at = at;
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Sees to it that the window holds `need` bytes from the current position, or all there are.
    /// If the device cannot read them: how many to pass over.
    async fn fill(&mut self, need: u64) -> Result<Option<u64>> {
        let to = (self.at + need).min(self.target.end);
        if let Some((start, buf)) = &self.window
            && *start <= self.at
            && to <= start + buf.len() as u64
        {
            return Ok(None);
        }
        let start = self.at / BLOCK_BYTES * BLOCK_BYTES;
        let mut buf = match self.window.take() {
            Some((_, buf)) => buf,
            None => self.pool.acquire(BufClass::Large).await,
        };
        let least = align_up(to, BLOCK_BYTES) - start;
        let most = (self.target.end - start).min(WINDOW_BYTES).max(least);
        // One bad block must not hide its neighbours: after an error, only what is needed.
        for bytes in [most, least] {
            buf.set_len(usize::try_from(bytes).unwrap_or(usize::MAX));
            let (returned, read) = self.disk.read_at(self.file.id, buf, start).await;
            buf = returned;
            match read {
                Ok(()) => {
                    self.window = Some((start, buf));
                    return Ok(None);
                }
                Err(error) if is_rot(&error) => {}
                Err(error) => {
                    let during = format!("scan segment {} at {start}", self.target.segment);
                    return Err(Error::new(ErrorKind::Unavailable, during).with_source(error));
                }
            }
        }
        self.window = None;
        Ok(Some(start + BLOCK_BYTES - self.at))
    }

    /// What the window says about the current position and what follows.
    fn look(&self) -> Look {
        let Some((start, buf)) = &self.window else {
            return Look::Nothing(self.target.end);
        };
        let skip = usize::try_from(self.at - start).unwrap_or(usize::MAX);
        let bytes = buf.get(skip..).unwrap_or_default();
        let (places, _) = bytes.as_chunks::<8>();
        let Some(place) = places.iter().position(|place| place.starts_with(&MAGIC)) else {
            return Look::Nothing((self.at + bytes.len() as u64).min(self.target.end));
        };
        if place > 0 {
            return Look::Nothing(self.at + place as u64 * RECORD_ALIGN);
        }
        match ExtentHeader::decode(bytes) {
            Ok((header, _)) => self.judge(header),
            Err(HeaderError::Short(need)) if self.at + u64::from(need) <= self.target.end => {
                Look::More(u64::from(need))
            }
            Err(error) => self.next_place(bytes, error),
        }
    }

    /// A decoded header: a record of ours, or something older.
    fn judge(&self, header: ExtentHeader) -> Look {
        let offset = self.at;
        let end = offset + u64::from(header.stored_len());
        let ours = self.is_ours((header.volume, header.segment, header.incarnation));
        if !ours || end > self.target.end {
            return Look::Nothing(offset + RECORD_ALIGN);
        }
        let found = match header.body {
            RecordBody::Extent { layout, .. } => {
                let (segment, incarnation) = (header.segment, header.incarnation);
                Found::Extent {
                    header,
                    location: Location { segment, incarnation, offset, layout },
                }
            }
            RecordBody::Filler(_) => Found::Filler { header, offset },
        };
        Look::Record(found, align_up(end, RECORD_ALIGN))
    }

    fn is_ours(&self, (volume, segment, incarnation): (VolumeId, u32, u64)) -> bool {
        let ScanTarget { incarnation: wanted, .. } = self.target;
        (volume, segment) == (self.target.volume, self.target.segment)
            && wanted.is_none_or(|wanted| incarnation == wanted)
    }

    /// Bytes that begin like a record and are none.
    fn next_place(&self, bytes: &[u8], error: HeaderError) -> Look {
        let offset = self.at;
        if ExtentHeader::claim(bytes).is_some_and(|claim| self.is_ours(claim)) {
            return Look::Record(Found::Damaged { offset, error }, offset + RECORD_ALIGN);
        }
        Look::Nothing(offset + RECORD_ALIGN)
    }
}
