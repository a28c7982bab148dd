//! Extent records: a 128-byte header, a CRC-32C per chunk, then the sealed chunks.
//!
//! Owns: the layout of a record, its checksum, the arithmetic of chunk lengths. Knows nothing of:
//! where a record lies, whether it is alive, what its chunks hold.
//!
//! Invariants
//! - A record names itself: volume, segment, incarnation, namespace, stream, number. No other index
//!   is needed to list what a volume holds.
//! - `rec_seq` and `incarnation` are never reused, so that two records never have equal headers.
//! - A filler covers a range that was reserved and abandoned; it has no chunks and no identity.
//!   Bytes: docs/FORMAT.md, "Extent".

use std::fmt;
use std::ops::Range;

use crc_fast::{CrcAlgorithm, Digest};

use super::{BLOCK_BYTES, Fields, VolumeId};
use crate::types::{EXTENT_BYTES, NsId, StreamId, TAG_BYTES};

/// The first bytes of every record.
pub const MAGIC: [u8; 4] = *b"XTNT";
/// Bytes of a header, without the table.
pub const HEADER_BYTES: u32 = 128;
/// Every record starts at a multiple of this, so that a scan after damage has few places to look.
pub const RECORD_ALIGN: u64 = 8;

/// The record version that this build writes and reads.
const VERSION: u8 = 1;
/// Flag: the range was reserved and abandoned.
const FLAG_FILLER: u8 = 0b0000_0001;
/// Where the checksum lies in the header; it counts as zero while it is computed.
const CRC_AT: usize = 110;
/// Where the reserved bytes begin that follow the checksum.
const RESERVED_AT: usize = 114;
/// Bytes of one table entry.
const TABLE_ENTRY_BYTES: u32 = 4;
/// The chunk sizes that the key format allows, as log2 of plaintext bytes (keys: 16 KiB to 1 MiB).
const CHUNK_SHIFTS: [u8; 4] = [14, 16, 18, 20];

/// What an extent is called: nothing in it is a place, a name or a version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ExtentId {
    /// The tenant's namespace.
    pub ns: NsId,
    /// The stream that the extent is a piece of.
    pub stream: StreamId,
    /// Its place in the stream, from 0.
    pub number: u32,
}

/// Why bytes are not a record that this build can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// The checksum over header and table does not match.
    Crc,
    /// The checksum matches but a field breaks a rule; the name of the field.
    Field(&'static str),
    /// No record starts here.
    NoMagic,
    /// This many bytes are needed to decode header and table.
    Short(u32),
    /// A record of a version that this build does not know.
    Version(u8),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crc => f.write_str("the checksum of header and table does not match"),
            Self::Field(name) => write!(f, "the field {name} breaks a rule of the format"),
            Self::NoMagic => f.write_str("no record starts here"),
            Self::Short(bytes) => write!(f, "header and table need {bytes} bytes"),
            Self::Version(version) => write!(f, "record version {version} is not known"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// How an extent's sealed bytes are cut into chunks. All but the last have the same length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkLayout {
    /// log2 of the plaintext bytes of a full chunk.
    chunk_shift: u8,
    /// At least 1: an empty body is one chunk that is only a tag.
    n_chunks: u16,
    /// Sealed bytes of the last chunk, tag included.
    last_chunk_len: u32,
}

impl ChunkLayout {
    /// The layout of `plain_len` plaintext bytes, or `None` above one extent's worth.
    pub fn for_plain_len(chunk_shift: u8, plain_len: u64) -> Option<Self> {
        if !CHUNK_SHIFTS.contains(&chunk_shift) || plain_len > EXTENT_BYTES {
            return None;
        }
        let n_chunks = plain_len.div_ceil(1 << chunk_shift).max(1);
        let last_plain = plain_len - ((n_chunks - 1) << chunk_shift);
        Some(Self {
            chunk_shift,
            n_chunks: u16::try_from(n_chunks).ok()?,
            last_chunk_len: u32::try_from(last_plain + TAG_BYTES).ok()?,
        })
    }

    /// The layout of `sealed_len` bytes of chunks with their tags, or `None` if no plaintext seals
    /// to that length or it is more than one extent's worth.
    pub fn for_sealed_len(chunk_shift: u8, sealed_len: u64) -> Option<Self> {
        if !CHUNK_SHIFTS.contains(&chunk_shift) {
            return None;
        }
        let n_chunks = sealed_len.div_ceil((1 << chunk_shift) + TAG_BYTES).max(1);
        let plain_len = sealed_len.checked_sub(n_chunks * TAG_BYTES)?;
        let layout = Self::for_plain_len(chunk_shift, plain_len)?;
        (u64::from(layout.data_len()) == sealed_len).then_some(layout)
    }

    /// log2 of the plaintext bytes of a full chunk.
    pub fn chunk_shift(&self) -> u8 {
        self.chunk_shift
    }

    /// How many chunks there are; at least 1.
    pub fn n_chunks(&self) -> u16 {
        self.n_chunks
    }

    /// Sealed bytes of the last chunk, tag included.
    pub fn last_chunk_len(&self) -> u32 {
        self.last_chunk_len
    }

    /// Sealed bytes of chunk `index`, tag included; 0 past the end.
    pub fn chunk_len(&self, index: u32) -> u32 {
        match (index + 1).cmp(&u32::from(self.n_chunks)) {
            std::cmp::Ordering::Less => self.full_chunk_len(),
            std::cmp::Ordering::Equal => self.last_chunk_len,
            std::cmp::Ordering::Greater => 0,
        }
    }

    /// Bytes of header and table: where the first chunk starts in the record.
    pub fn data_offset(&self) -> u32 {
        HEADER_BYTES + TABLE_ENTRY_BYTES * u32::from(self.n_chunks)
    }

    /// Sealed bytes of all chunks.
    pub fn data_len(&self) -> u32 {
        (u32::from(self.n_chunks) - 1) * self.full_chunk_len() + self.last_chunk_len
    }

    /// Bytes of the whole record, before padding.
    pub fn stored_len(&self) -> u32 {
        self.data_offset() + self.data_len()
    }

    /// Where chunk `index` lies in the record; empty past the end.
    pub fn chunk_range(&self, index: u32) -> Range<u32> {
        let before = index.min(u32::from(self.n_chunks) - 1) * self.full_chunk_len();
        let start = self.data_offset() + before;
        start..start + self.chunk_len(index)
    }

    fn full_chunk_len(self) -> u32 {
        // At most 2^20 + 16, by `CHUNK_SHIFTS`.
        (1_u32 << self.chunk_shift) + 16
    }

    /// Reads a layout back from the three fields of a header.
    fn from_fields(chunk_shift: u8, n_chunks: u16, stored_len: u32) -> Result<Self, HeaderError> {
        let table_len = TABLE_ENTRY_BYTES * u32::from(n_chunks);
        let sealed_len = stored_len
            .checked_sub(HEADER_BYTES + table_len)
            .ok_or(HeaderError::Field("stored_len"))?;
        Self::for_sealed_len(chunk_shift, u64::from(sealed_len))
            .filter(|layout| layout.n_chunks == n_chunks)
            .ok_or(HeaderError::Field("stored_len"))
    }
}

/// What a record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordBody {
    /// Sealed chunks.
    Extent {
        /// What the extent is called.
        id: ExtentId,
        /// How its chunks are cut.
        layout: ChunkLayout,
        /// The plaintext offset of its first chunk in the stream.
        logical_off: u64,
    },
    /// Nothing: an abandoned range of so many bytes, header included; a multiple of the block.
    Filler(u32),
}

/// The header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtentHeader {
    /// The volume it was written to.
    pub volume: VolumeId,
    /// The segment it was written to.
    pub segment: u32,
    /// The use of that segment; a segment that is used again gets another.
    pub incarnation: u64,
    /// The record's own number.
    pub rec_seq: u64,
    /// The metadata's sequence number that was known to be synced when this was written.
    pub meta_seq: u64,
    /// When it was written, in Unix milliseconds. Informative.
    pub write_time_ms: u64,
    /// What follows.
    pub body: RecordBody,
}

/// The checksums of a record's chunks, over ciphertext and tag.
#[derive(Clone, Copy, Debug)]
pub struct ChunkTable<'a>(&'a [u8]);

impl ChunkTable<'_> {
    /// The checksum of chunk `index`.
    pub fn crc(&self, index: u32) -> Option<u32> {
        let start = usize::try_from(index).ok()?.checked_mul(4)?;
        self.0.get(start..)?.first_chunk().map(|entry| u32::from_le_bytes(*entry))
    }

    /// All of them, in order.
    pub fn to_vec(&self) -> Vec<u32> {
        self.0.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry)).collect()
    }
}

impl ExtentHeader {
    /// Bytes of the record, before padding.
    pub fn stored_len(&self) -> u32 {
        match self.body {
            RecordBody::Extent { layout, .. } => layout.stored_len(),
            RecordBody::Filler(bytes) => bytes,
        }
    }

    /// Header and table as they are written. `table` has one checksum for each chunk.
    pub fn encode(&self, table: &[u32]) -> Vec<u8> {
        let (flags, shift, id, n_chunks, logical_off) = match self.body {
            RecordBody::Extent { id, layout, logical_off } => {
                (0, layout.chunk_shift, Some(id), layout.n_chunks, logical_off)
            }
            RecordBody::Filler(_) => (FLAG_FILLER, 0, None, 0, 0),
        };
        assert_eq!(table.len(), usize::from(n_chunks), "a record has one checksum for each chunk");
        let mut out = Vec::with_capacity(RESERVED_AT + 14 + 4 * table.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, flags, shift, 0]);
        out.extend_from_slice(self.volume.as_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.rec_seq.to_le_bytes());
        out.extend_from_slice(id.as_ref().map_or(&[0; 16], |id| id.ns.as_bytes()));
        out.extend_from_slice(id.as_ref().map_or(&[0; 16], |id| id.stream.as_bytes()));
        out.extend_from_slice(&id.map_or(0, |id| id.number).to_le_bytes());
        out.extend_from_slice(&n_chunks.to_le_bytes());
        out.extend_from_slice(&logical_off.to_le_bytes());
        out.extend_from_slice(&self.stored_len().to_le_bytes());
        out.extend_from_slice(&self.meta_seq.to_le_bytes());
        out.extend_from_slice(&self.write_time_ms.to_le_bytes());
        debug_assert_eq!(out.len(), CRC_AT, "the checksum has a fixed place");
        out.extend_from_slice(&[0; 4 + 14]);
        for crc in table {
            out.extend_from_slice(&crc.to_le_bytes());
        }
        let crc = checksum(&out).unwrap_or_default();
        if let Some(field) = out.get_mut(CRC_AT..RESERVED_AT) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
        out
    }

    /// The volume, segment and incarnation that a header names, whether or not it is intact.
    pub fn claim(bytes: &[u8]) -> Option<(VolumeId, u32, u64)> {
        let mut fields = Fields(bytes);
        let _magic_and_flags: [u8; 8] = fields.take()?;
        Some((VolumeId::from_bytes(fields.take()?), fields.u32()?, fields.u64()?))
    }

    /// Reads header and table from the front of `bytes`, which may go on behind them.
    ///
    /// # Errors
    /// Every field is checked; see [`HeaderError`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, ChunkTable<'_>), HeaderError> {
        if bytes.first_chunk() != Some(&MAGIC) {
            return Err(HeaderError::NoMagic);
        }
        let short = HeaderError::Short(HEADER_BYTES);
        let (head, rest) = bytes.split_first_chunk::<128>().ok_or(short)?;
        let mut fields = Fields(head);
        let raw = RawHeader::take(&mut fields).ok_or(short)?;
        if raw.version != VERSION {
            return Err(HeaderError::Version(raw.version));
        }
        let most = EXTENT_BYTES >> CHUNK_SHIFTS.first().copied().unwrap_or_default();
        if u64::from(raw.n_chunks) > most {
            return Err(HeaderError::Field("n_chunks"));
        }
        let table_len = 4 * usize::from(raw.n_chunks);
        let table = rest.get(..table_len).ok_or(HeaderError::Short(
            HEADER_BYTES + TABLE_ENTRY_BYTES * u32::from(raw.n_chunks),
        ))?;
        let covered = bytes.get(..head.len() + table_len).ok_or(short)?;
        if checksum(covered) != Some(raw.crc) {
            return Err(HeaderError::Crc);
        }
        Ok((raw.check()?, ChunkTable(table)))
    }
}

/// The checksum of header and table, with the checksum's own field counted as zero.
fn checksum(record: &[u8]) -> Option<u32> {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(record.get(..CRC_AT)?);
    digest.update(&[0; RESERVED_AT - CRC_AT]);
    digest.update(record.get(RESERVED_AT..)?);
    u32::try_from(digest.finalize()).ok()
}

/// A header's fields as they lie on the device, not yet checked.
struct RawHeader {
    version: u8,
    flags: u8,
    chunk_shift: u8,
    zero: u8,
    volume: [u8; 16],
    segment: u32,
    incarnation: u64,
    rec_seq: u64,
    ns: [u8; 16],
    stream: [u8; 16],
    number: u32,
    n_chunks: u16,
    logical_off: u64,
    stored_len: u32,
    meta_seq: u64,
    write_time_ms: u64,
    crc: u32,
    reserved: [u8; 14],
}

impl RawHeader {
    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        let _magic: [u8; 4] = fields.take()?;
        Some(Self {
            version: fields.u8()?,
            flags: fields.u8()?,
            chunk_shift: fields.u8()?,
            zero: fields.u8()?,
            volume: fields.take()?,
            segment: fields.u32()?,
            incarnation: fields.u64()?,
            rec_seq: fields.u64()?,
            ns: fields.take()?,
            stream: fields.take()?,
            number: fields.u32()?,
            n_chunks: fields.u16()?,
            logical_off: fields.u64()?,
            stored_len: fields.u32()?,
            meta_seq: fields.u64()?,
            write_time_ms: fields.u64()?,
            crc: fields.u32()?,
            reserved: fields.take()?,
        })
    }

    fn check(&self) -> Result<ExtentHeader, HeaderError> {
        if self.zero != 0 || self.reserved != [0; 14] {
            return Err(HeaderError::Field("reserved"));
        }
        let body = match self.flags {
            0 => self.check_extent()?,
            FLAG_FILLER => self.check_filler()?,
            _ => return Err(HeaderError::Field("flags")),
        };
        Ok(ExtentHeader {
            volume: VolumeId::from_bytes(self.volume),
            segment: self.segment,
            incarnation: self.incarnation,
            rec_seq: self.rec_seq,
            meta_seq: self.meta_seq,
            write_time_ms: self.write_time_ms,
            body,
        })
    }

    fn check_extent(&self) -> Result<RecordBody, HeaderError> {
        let layout = ChunkLayout::from_fields(self.chunk_shift, self.n_chunks, self.stored_len)?;
        let chunk_bytes = 1_u64 << layout.chunk_shift;
        if !self.logical_off.is_multiple_of(chunk_bytes) {
            return Err(HeaderError::Field("logical_off"));
        }
        let id = ExtentId {
            ns: NsId::from_bytes(self.ns),
            stream: StreamId::from_bytes(self.stream),
            number: self.number,
        };
        Ok(RecordBody::Extent { id, layout, logical_off: self.logical_off })
    }

    fn check_filler(&self) -> Result<RecordBody, HeaderError> {
        if (self.ns, self.stream, self.number) != ([0; 16], [0; 16], 0) {
            return Err(HeaderError::Field("identity"));
        }
        if (self.chunk_shift, self.n_chunks, self.logical_off) != (0, 0, 0) {
            return Err(HeaderError::Field("layout"));
        }
        if self.stored_len == 0 || !u64::from(self.stored_len).is_multiple_of(BLOCK_BYTES) {
            return Err(HeaderError::Field("stored_len"));
        }
        Ok(RecordBody::Filler(self.stored_len))
    }
}
