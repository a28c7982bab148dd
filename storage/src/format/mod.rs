//! The bytes of a volume: extent records, superblocks, members of a mirror.
//!
//! Owns: encoding, decoding, and the rules every field must obey. Knows nothing of: files, devices,
//! keys; what a chunk holds is opaque.
//!
//! Invariants
//! - Pure: no I/O, no clock, no randomness, no `async`.
//! - Decoding never panics, whatever the bytes; a value that decoding accepts encodes to the same
//!   bytes again.
//! - All integers are little-endian.
//!   Bytes: docs/FORMAT.md, "Extent", "Superblock" and "Member".

mod extent;
mod member;
mod superblock;

#[cfg(test)]
mod tests;

pub use extent::{
    ChunkLayout, ChunkTable, ExtentHeader, ExtentId, HEADER_BYTES, HeaderError, MAGIC,
    RECORD_ALIGN, RecordBody,
};
pub use member::{
    CURSOR_BYTES_MAX, Holder, MEMBER_BYTES, MEMBER_VERSION, Member, MemberError, MirrorId, SEATS,
    SeatState,
};
pub use superblock::{FORMAT_VERSION, OPEN_COUNT_MAX, SUPER_BYTES, SuperError, Superblock};

kluis_kms::id16! {
    /// One volume, that is one disk. Written in every record, so that a record copied from another
    /// volume is never taken for one of this.
    pub struct VolumeId;
}

/// The block that a volume is read and written in: direct I/O asks for 4 KiB alignment on every
/// device that we know of.
pub const BLOCK_BYTES: u64 = 4096;

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4). Detects rot, protects against nobody.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// `offset` moved up to the next multiple of `align`, which is a power of two.
pub fn align_up(offset: u64, align: u64) -> u64 {
    offset.saturating_add(align - 1) & !(align - 1)
}

/// Takes fixed fields off the front of a byte string.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
