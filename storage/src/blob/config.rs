//! The settings of a volume and every limit of the blob layer, each with its reason.

use crate::error::{Error, ErrorKind, Result};
use crate::format::BLOCK_BYTES;

/// Sealed bytes up to which an extent may be packed with others in one write. Above, the copy into
/// the shared buffer costs more than a write of its own.
pub const PACKED_BYTES_MAX: usize = 256 << 10;

/// Bytes of one read: the size of a large buffer, where the reference disk reaches its sequential
/// rate.
pub(super) const PIECE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of one packed write: a large buffer.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;

/// Packed writes under way at a time. While they run the next batch gathers: more would mean
/// smaller batches with more padding, one would leave the device idle while a batch is filled.
pub(super) const BATCHES_MAX: usize = 2;

/// Packed extents waiting for a batch. Each holds a buffer of the pool, which is the real limit;
/// this one only bounds the queue's own memory.
pub(super) const PACK_QUEUE_MAX: usize = 1024;

/// Flush requests waiting; one per writer that has finished, so far above any limit on requests.
pub(super) const FLUSH_QUEUE_MAX: usize = 4096;

/// Flush requests answered by one group: bounds the time until the first of them is answered.
pub(super) const FLUSH_GROUP_MAX: usize = 4096;

/// Incarnations reserved by one write of the superblock. A node that opens a segment every second
/// writes it for this reason less than once in 18 hours, and 2^48 restarts use the numbers up.
pub(super) const INCARNATION_STEP: u64 = 1 << 16;

/// Open segment files, beside those being written. A descriptor each; the usual limit is 1,024
/// soft and 524,288 hard, RocksDB takes up to 4,096.
pub(super) const FILES_MAX: usize = 512;

/// Bytes zeroed by one step of pre-writing: long enough for the sequential rate, short enough
/// (half a millisecond) that a client's write never waits long behind it.
pub(super) const PREWRITE_STEP_BYTES: usize = 1 << 20;

/// Pause between two steps, in milliseconds: keeps pre-writing under 250 MiB/s, a tenth of what the
/// reference disk writes.
pub(super) const PREWRITE_PAUSE_MS: u64 = 4;

/// How long a failed attempt at a spare is left alone, in milliseconds: the disk is probably full.
pub(super) const SPARE_BACKOFF_MS: u64 = 30_000;

/// How often the superblock takes note of the metadata's progress, if it moved, in milliseconds.
pub(super) const SUPER_INTERVAL_MS: u64 = 1_000;

/// Spares kept for a lane that has filled a segment: one being used up, one being made.
pub(super) const SPARES_PER_LANE: usize = 2;

/// Segments that only the survivors of reclaiming may open: one victim's survivors fit in one, and
/// then the victim takes its place.
pub(super) const RESERVE_SEGMENTS: u64 = 1;

/// Segments that survivors may take beyond `volume_bytes_max`: a crash in the middle of a move may
/// use the reserve up before a victim is free. They count like the others as soon as they exist.
pub(super) const RESERVE_OVERDRAFT: u64 = 1;

/// The smallest segment. Tests use small ones to reach the rare states; a node uses the default.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// The largest segment: recovery reads open ones whole.
pub(super) const SEGMENT_BYTES_MAX: u64 = 4 << 30;

/// The settings of a volume.
#[derive(Clone, Debug)]
pub struct VolumeConfig {
    /// Bytes of a segment of a new volume; an existing one keeps its own. A multiple of 4 KiB.
    pub segment_bytes: u64,
    /// RocksDB families that pooled namespaces share in a new volume; an existing one keeps its own
    /// number, see [`RecoveryReport::pooled_families`](super::RecoveryReport::pooled_families).
    pub pooled_families: u32,
    /// Whether spare segments are written with zeros in the background, which makes later flushes
    /// cheaper where the file system journals the conversion of unwritten extents (ext4).
    pub prewrite: bool,
    /// Bytes that all segments together may take; `None` for all there is.
    pub volume_bytes_max: Option<u64>,
    /// Large buffers that all writers of streamed extents together may hold. Leave a third of the
    /// pool to readers.
    pub writer_slabs_max: usize,
}

impl Default for VolumeConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            pooled_families: 16,
            prewrite: true,
            volume_bytes_max: None,
            writer_slabs_max: 40,
        }
    }
}

impl VolumeConfig {
    /// Checks the settings against the limits of this module.
    pub(super) fn check(&self) -> Result<()> {
        let misuse = |what: String| Err(Error::new(ErrorKind::Misuse, what));
        let bytes = self.segment_bytes;
        if !bytes.is_multiple_of(BLOCK_BYTES) {
            return misuse(format!("use segments of {bytes} bytes, not a multiple of 4096"));
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
            return misuse(format!(
                "use segments of {bytes} bytes, outside {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"
            ));
        }
        if self.writer_slabs_max < 2 {
            return misuse("give writers fewer than the 2 slabs that one of them needs".to_owned());
        }
        Ok(())
    }
}
