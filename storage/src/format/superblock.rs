//! The superblock: what has to be known of a volume before anything else on it can be read.
//!
//! Owns: its layout and checksum. Knows nothing of: which of the two files holds the newer one.
//!
//! Invariants
//! - Magic, format version and the place of the checksum are the same in every version, for ever,
//!   so that an older build can tell "newer than I am" from "damaged".
//! - Bytes without a meaning are zero.
//!   Bytes: docs/FORMAT.md, "Superblock".

use std::fmt;

use super::{BLOCK_BYTES, Fields, VolumeId, crc32c};

/// Bytes of a superblock: one block, so that it is written in one piece where the device allows.
pub const SUPER_BYTES: usize = 4096;
/// The format version that this build writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;
/// A record's number is the count of opens in 24 bits and a counter in 40: 16 million opens of
/// 10^12 records each.
pub const OPEN_COUNT_MAX: u64 = (1 << 24) - 1;

/// The first bytes of every superblock.
const MAGIC: [u8; 8] = *b"KLUISVOL";
/// Bytes before the checksum, which ends the block.
const COVERED_BYTES: usize = SUPER_BYTES - 4;
/// Bytes in use, from the front.
const USED_BYTES: usize = 81;

/// Why bytes are not a superblock that this build can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuperError {
    /// The checksum does not match, or the bytes are too few.
    Crc,
    /// The checksum matches but a field breaks a rule; the name of the field.
    Field(&'static str),
    /// Not a superblock at all: never written, or something else.
    NoMagic,
    /// An intact superblock of a later format; its version.
    Newer(u32),
}

impl fmt::Display for SuperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crc => f.write_str("the checksum of the superblock does not match"),
            Self::Field(name) => write!(f, "the field {name} breaks a rule of the format"),
            Self::NoMagic => f.write_str("there is no superblock"),
            Self::Newer(version) => {
                write!(f, "format version {version}; this build reads up to {FORMAT_VERSION}")
            }
        }
    }
}

impl std::error::Error for SuperError {}

/// What is known of a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Which of two superblocks is the newer.
    pub seq: u64,
    /// The volume.
    pub volume: VolumeId,
    /// Bytes of every segment of this volume.
    pub segment_bytes: u64,
    /// How many RocksDB families the pooled namespaces share; fixed when the volume is made.
    pub pooled_families: u32,
    /// How often the volume has been opened.
    pub open_count: u64,
    /// The first incarnation that is not reserved yet: none at or above it was ever used.
    pub incarnation_next: u64,
    /// The last metadata sequence number known to be synced.
    pub meta_seq: u64,
    /// When this was written, in Unix milliseconds. Informative.
    pub write_time_ms: u64,
    /// The volume was closed in order; nothing has been written since.
    pub clean: bool,
}

impl Superblock {
    /// The block as it is written.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(self.volume.as_bytes());
        out.extend_from_slice(&self.segment_bytes.to_le_bytes());
        out.extend_from_slice(&self.pooled_families.to_le_bytes());
        out.extend_from_slice(&self.open_count.to_le_bytes());
        out.extend_from_slice(&self.incarnation_next.to_le_bytes());
        out.extend_from_slice(&self.meta_seq.to_le_bytes());
        out.extend_from_slice(&self.write_time_ms.to_le_bytes());
        out.push(u8::from(self.clean));
        debug_assert_eq!(out.len(), USED_BYTES, "the fields have fixed places");
        out.resize(COVERED_BYTES, 0);
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a superblock from the front of `bytes`.
    ///
    /// # Errors
    /// Every field is checked; see [`SuperError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SuperError> {
        if bytes.first_chunk() != Some(&MAGIC) {
            return Err(SuperError::NoMagic);
        }
        let block = bytes.first_chunk::<SUPER_BYTES>().ok_or(SuperError::Crc)?;
        let (covered, crc) = block.split_last_chunk::<4>().ok_or(SuperError::Crc)?;
        if crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(SuperError::Crc);
        }
        let mut fields = Fields(covered);
        let _magic: Option<[u8; 8]> = fields.take();
        let version = fields.u32().ok_or(SuperError::Crc)?;
        if version > FORMAT_VERSION {
            return Err(SuperError::Newer(version));
        }
        if version != FORMAT_VERSION {
            return Err(SuperError::Field("format version"));
        }
        let superblock = Self::take(&mut fields).ok_or(SuperError::Field("clean"))?;
        superblock.check(fields.0)?;
        Ok(superblock)
    }

    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            seq: fields.u64()?,
            volume: VolumeId::from_bytes(fields.take()?),
            segment_bytes: fields.u64()?,
            pooled_families: fields.u32()?,
            open_count: fields.u64()?,
            incarnation_next: fields.u64()?,
            meta_seq: fields.u64()?,
            write_time_ms: fields.u64()?,
            clean: match fields.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        })
    }

    /// The rules within and between fields; `rest` is what follows them.
    fn check(&self, rest: &[u8]) -> Result<(), SuperError> {
        if self.segment_bytes == 0 || !self.segment_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(SuperError::Field("segment bytes"));
        }
        if self.open_count > OPEN_COUNT_MAX {
            return Err(SuperError::Field("open count"));
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(SuperError::Field("reserved"));
        }
        Ok(())
    }
}
