//! Where an extent lies: the value of a location row, opaque to everything above the blob layer.
//!
//! Owns: its bytes and the arithmetic of chunks and blocks. Knows nothing of: files, rows.
//!
//! Invariants
//! - A location that decodes names a range that a record of this format can fill.
//! - The extent's identity is not in it: the row's key has it, the record's header repeats it.
//!   Bytes: docs/FORMAT.md, "Location".

use std::ops::Range;

use super::config::{PIECE_BYTES_MAX, SEGMENT_BYTES_MAX};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BLOCK_BYTES, ChunkLayout, RECORD_ALIGN, align_up};

/// Bytes of an encoded location.
pub const LOCATION_BYTES: usize = 26;
/// The version that this build writes and reads.
const VERSION: u8 = 1;

/// Where an extent lies in the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    /// The segment.
    pub(super) segment: u32,
    /// The use of the segment that the extent was written in.
    pub(super) incarnation: u64,
    /// Where its record starts in the segment, in bytes.
    pub(super) offset: u64,
    /// How its chunks are cut.
    pub(super) layout: ChunkLayout,
}

impl Location {
    /// Bytes that the record takes, header and table included, padding not.
    pub fn stored_len(&self) -> u32 {
        self.layout.stored_len()
    }

    /// How its chunks are cut.
    pub fn layout(&self) -> ChunkLayout {
        self.layout
    }

    /// How many chunks it has.
    pub fn n_chunks(&self) -> u32 {
        u32::from(self.layout.n_chunks())
    }

    /// The segment, for reports and dead-byte accounting.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// The use of the segment that the extent was written in.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Where its record starts in the segment, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The row value.
    pub fn encode(&self) -> [u8; LOCATION_BYTES] {
        let mut out = [0; LOCATION_BYTES];
        let fields = [VERSION, self.layout.chunk_shift()]
            .into_iter()
            .chain(self.segment.to_le_bytes())
            .chain(self.incarnation.to_le_bytes())
            .chain(self.offset.to_le_bytes())
            .chain(self.layout.data_len().to_le_bytes());
        for (to, from) in out.iter_mut().zip(fields) {
            *to = from;
        }
        out
    }

    /// Reads a row value.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: it has another length or version, or no record fits it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::from_fields(bytes)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "read a location row"))
    }

    fn from_fields(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LOCATION_BYTES] = bytes.try_into().ok()?;
        let ([version, chunk_shift], rest) = bytes.split_first_chunk::<2>()?;
        let (segment, rest) = rest.split_first_chunk::<4>()?;
        let (incarnation, rest) = rest.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let data_len = u32::from_le_bytes(*rest.first_chunk::<4>()?);
        let offset = u64::from_le_bytes(*offset);
        let layout = ChunkLayout::for_sealed_len(*chunk_shift, u64::from(data_len))?;
        // No segment is longer, and no later sum can overflow.
        let in_range = offset < SEGMENT_BYTES_MAX;
        (*version == VERSION && in_range && offset.is_multiple_of(RECORD_ALIGN)).then_some(Self {
            segment: u32::from_le_bytes(*segment),
            incarnation: u64::from_le_bytes(*incarnation),
            offset,
            layout,
        })
    }

    /// The longest run of chunks from `chunks.start` on that one read of at most
    /// [`PIECE_BYTES_MAX`] covers; with header and table if `with_header`. Never empty if `chunks`
    /// is not.
    pub(super) fn piece(&self, chunks: Range<u32>, with_header: bool) -> Piece {
        let start = if with_header { 0 } else { self.layout.chunk_range(chunks.start).start };
        let from = (self.offset + u64::from(start)) / BLOCK_BYTES * BLOCK_BYTES;
        let to = |chunk: u32| {
            let end = u64::from(self.layout.chunk_range(chunk).end);
            align_up(self.offset + end, BLOCK_BYTES)
        };
        let more = chunks.clone().skip(1).take_while(|chunk| to(*chunk) - from <= PIECE_BYTES_MAX);
        let last = more.last().unwrap_or(chunks.start);
        Piece { blocks: from..to(last), chunks: chunks.start..(last + 1).min(chunks.end) }
    }
}

/// One aligned read and the chunks it covers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    /// What to read of the segment, in bytes; whole blocks.
    pub(super) blocks: Range<u64>,
    /// The chunks that lie in it.
    pub(super) chunks: Range<u32>,
}
