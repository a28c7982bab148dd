//! The volume: the blob layer's front door.
//!
//! Owns: the public verbs, and the tasks that live as long as the volume does. Knows nothing of:
//! what it delegates; each verb is one file of this folder.
//!
//! Invariants
//! - The last clone dropped ends the tasks; what they had accepted before is still carried out.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use kluis_kms::Env;
use tokio::sync::{mpsc, oneshot};

use super::config::{FLUSH_QUEUE_MAX, PACK_QUEUE_MAX, PACKED_BYTES_MAX, VolumeConfig};
use super::copies::{self, Healed};
use super::core::Core;
use super::flush::{self, FlushRequest, Placed};
use super::location::Location;
use super::packer::{self, PackRequest};
use super::read::{self, ChunkRead, Damage, ExtentReader};
use super::recovery::{self, RecoveryReport};
use super::scan::SegmentScan;
use super::table::{SegmentRow, SegmentTable};
use super::writer::{ExtentPlan, ExtentWriter};
use super::{janitor, lane};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ChunkLayout, ExtentId, VolumeId, crc32c};
use crate::io::{Buf, BufPool, Disk};
use crate::types::{CHUNK_BYTES, CHUNK_SHIFT};

/// What a volume is made of.
#[derive(Clone)]
pub struct VolumeParts {
    /// Where its files are.
    pub disk: Arc<dyn Disk>,
    /// Where every byte on its way lies. The volume keeps two large buffers and a small one for
    /// itself, and must be opened before anybody else takes any.
    pub pool: BufPool,
    /// Where the segment table is kept.
    pub table: Arc<dyn SegmentTable>,
    /// The metadata's sequence number that is known to be synced; whoever commits moves it on.
    pub meta_seq: Arc<AtomicU64>,
    /// Time and randomness.
    pub env: Env,
    /// Asked before a new segment takes that many bytes of the file system.
    pub room: Room,
}

/// Says whether the file system may be asked for so many bytes more; [`ErrorKind::Full`] if not.
pub type Room = Arc<dyn Fn(u64) -> Result<()> + Send + Sync>;

/// A volume. Clones share it.
#[derive(Clone)]
pub struct Volume(Arc<Handle>);

struct Handle {
    core: Arc<Core>,
    pack: mpsc::Sender<PackRequest>,
    flush: mpsc::Sender<FlushRequest>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.desk.stop();
    }
}

/// How full a volume is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct VolumeUsage {
    /// Bytes of one segment.
    pub segment_bytes: u64,
    /// Segments being appended to.
    pub segments_open: u64,
    /// Segments that are full but pinned by an unpublished extent.
    pub segments_closing: u64,
    /// Segments that are read only, those being cleaned included.
    pub segments_closed: u64,
    /// Segments ready for use: spares, and those that were reclaimed.
    pub segments_free: u64,
    /// Bytes of all segment files.
    pub allocated_bytes: u64,
    /// Bytes that records take, alive or dead, padding included.
    pub written_bytes: u64,
    /// Bytes that were reserved and abandoned since the volume was opened.
    pub abandoned_bytes: u64,
}

impl Volume {
    pub(super) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    /// Opens the volume on `parts.disk`, or makes one if there is none, and recovers it: every
    /// segment that was open is read header by header and closed. Must run inside a tokio runtime
    /// with time enabled; the volume's tasks are spawned there.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: both superblocks are damaged.
    /// - [`ErrorKind::Full`]: no space for the superblocks of a new volume.
    /// - [`ErrorKind::Misuse`]: a setting is out of bounds, differs from the volume's own, or the
    ///   volume was written by a later build.
    /// - [`ErrorKind::Unavailable`]: the disk did not answer, or the pool is too small.
    pub async fn open(config: VolumeConfig, parts: VolumeParts) -> Result<(Self, RecoveryReport)> {
        config.check()?;
        let buffers = packer::buffers(&parts.pool)?;
        let (core, report) = recovery::open(config, parts).await?;
        let (pack, pack_requests) = mpsc::channel(PACK_QUEUE_MAX);
        let (flush, flush_requests) = mpsc::channel(FLUSH_QUEUE_MAX);
        tokio::spawn(packer::run(Arc::clone(&core), pack_requests, buffers));
        tokio::spawn(flush::run(Arc::clone(&core), flush_requests));
        tokio::spawn(janitor::run(Arc::clone(&core)));
        Ok((Self(Arc::new(Handle { core, pack, flush })), report))
    }

    /// Stores a small extent: `sealed` holds its chunks with their tags one after another, all but
    /// the last of 64 KiB + 16 bytes, at most [`PACKED_BYTES_MAX`] in all. `logical_off` is the
    /// plaintext offset of the first chunk in the stream. Answers when the bytes are written;
    /// they are durable after [`Self::flush`]. If the future is dropped, the extent may still be
    /// written, and is dead.
    ///
    /// # Errors
    /// - [`ErrorKind::Fenced`]: a write or flush failed, this one or an earlier one.
    /// - [`ErrorKind::Full`]: no segment is free and none can be made.
    /// - [`ErrorKind::Misuse`]: no body seals to that length, or it is too long to be packed.
    /// - [`ErrorKind::Unavailable`]: the volume is closing.
    pub async fn put_packed(&self, id: ExtentId, logical_off: u64, sealed: Buf) -> Result<Placed> {
        let during = || format!("pack extent {} of {} sealed bytes", id.number, sealed.len());
        self.0.core.fence.check(during)?;
        let layout = ChunkLayout::for_sealed_len(CHUNK_SHIFT, sealed.len() as u64)
            .filter(|_| sealed.len() <= PACKED_BYTES_MAX)
            .filter(|_| logical_off.is_multiple_of(CHUNK_BYTES))
            .ok_or_else(|| Error::new(ErrorKind::Misuse, during()))?;
        let full_chunk = usize::try_from(layout.chunk_len(0)).unwrap_or(usize::MAX);
        let table = sealed.chunks(full_chunk).map(crc32c).collect();
        let (reply, answer) = oneshot::channel();
        let request = PackRequest { id, logical_off, layout, table, sealed, reply };
        let stopped = || self.0.core.fence.stopped("the packer", format!("pack {}", id.number));
        self.0.pack.send(request).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Starts an extent whose length is known and whose chunks are still to come. Waits for a place
    /// among the writers and for a buffer.
    ///
    /// # Errors
    /// - [`ErrorKind::Fenced`]: a write or flush failed.
    /// - [`ErrorKind::Misuse`]: the plan is longer than an extent or a segment.
    /// - [`ErrorKind::Unavailable`]: the volume is closing.
    pub async fn extent_writer(&self, plan: ExtentPlan) -> Result<ExtentWriter> {
        ExtentWriter::start(Arc::clone(&self.0.core), plan).await
    }

    /// Makes `placed` durable. Everything that asks while a flush runs shares the next one.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`]: a write or flush failed. Whether the extents survive is then unknown
    /// until the node has been restarted; they must not be published.
    pub async fn flush(&self, placed: &[Placed]) -> Result<()> {
        let during = || format!("flush {} extents", placed.len());
        // A volume that is closing still flushes what it took before.
        self.0.core.fence.check_raised(during)?;
        let Some(points) = flush::points(placed) else {
            return Ok(());
        };
        let (reply, answer) = oneshot::channel();
        let stopped = || self.0.core.fence.stopped("the flusher", during());
        self.0.flush.send(FlushRequest { points, reply }).await.map_err(|_| stopped())?;
        match answer.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.0.core.fence.error(during())),
            Err(_) => Err(stopped()),
        }
    }

    /// Reads `chunks` of an extent piece by piece. A reader of all chunks checks the header's
    /// identity and every checksum; one of some chunks relies on the tags alone.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: the location names a range that is not there.
    /// - [`ErrorKind::Misuse`]: the extent has no such chunks.
    /// - [`ErrorKind::Moved`]: the location names a use of its segment that is over.
    pub fn reader(
        &self,
        id: ExtentId,
        location: &Location,
        chunks: Range<u32>,
    ) -> Result<ExtentReader> {
        ExtentReader::new(Arc::clone(&self.0.core), id, *location, chunks)
    }

    /// Reads `chunks` of an extent if one read of at most 1 MiB covers them (15 full chunks always
    /// do); otherwise use [`Self::reader`].
    ///
    /// # Errors
    /// As [`Self::reader`] and [`ExtentReader::next`]; [`ErrorKind::Misuse`] for too many chunks.
    pub async fn read(
        &self,
        id: ExtentId,
        location: &Location,
        chunks: Range<u32>,
    ) -> Result<ChunkRead> {
        let count = chunks.len();
        let mut reader = self.reader(id, location, chunks)?;
        let read = reader.next().await?.filter(|read| read.len() == count);
        read.ok_or_else(|| Error::new(ErrorKind::Misuse, format!("read {count} chunks at once")))
    }

    /// Says what happened to `chunk`, whose tag did not verify. Reads header and chunk again; if
    /// the answer is [`Damage::Tampered`], read and decrypt once more before raising an alarm: a
    /// bit that flipped on the way from the device is gone by now.
    ///
    /// # Errors
    /// - [`ErrorKind::Moved`]: as [`Self::reader`].
    /// - [`ErrorKind::Unavailable`]: the disk did not answer.
    pub async fn classify(&self, id: ExtentId, location: &Location, chunk: u32) -> Result<Damage> {
        read::classify(&self.0.core, id, location, chunk).await
    }

    /// Reads a whole extent, its header too; the chunks whose checksum is wrong.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: header or table are damaged, name another extent, or cannot be
    ///   read.
    /// - [`ErrorKind::Moved`]: as [`Self::reader`].
    /// - [`ErrorKind::Unavailable`]: the disk did not answer.
    pub async fn verify(&self, id: ExtentId, location: &Location) -> Result<Vec<u32>> {
        read::verify(&self.0.core, id, location).await
    }

    /// As [`Self::read`], from the copy of this number and no other; `None` if its checksums say
    /// that it is damaged there, or it cannot be read. Copies are numbered below [`Self::copies`].
    ///
    /// # Errors
    /// As [`Self::read`], but for damage.
    pub async fn read_copy(
        &self,
        copy: usize,
        id: ExtentId,
        location: &Location,
        chunks: Range<u32>,
    ) -> Result<Option<ChunkRead>> {
        // For its checks of location and chunks, and so that the extent stays where it is.
        let _reader = self.reader(id, location, chunks.clone())?;
        let count = chunks.len();
        let piece = location.piece(chunks, false);
        let read = copies::read_copy(&self.0.core, copy, id, location, piece).await?;
        Ok(read.map(|(read, _)| read).filter(|read| read.len() == count))
    }

    /// How many copies of each extent the volume was made to keep.
    pub fn copies(&self) -> usize {
        self.0.core.disk.copies()
    }

    /// Reads every copy of an extent and puts right what is damaged on one and good on another.
    /// What has no good copy stays as it is.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: the location names a use of its segment that is over.
    /// - [`ErrorKind::Unavailable`]: no buffer was free; ask again later.
    pub async fn heal(&self, id: ExtentId, location: &Location) -> Result<Healed> {
        let _reader = self.reader(id, location, 0..location.n_chunks())?;
        copies::heal(&self.0.core, id, location).await
    }

    /// Every record in `segment`, in order, damage included.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: its file is missing.
    /// - [`ErrorKind::NotFound`]: there is no such segment.
    pub async fn scan_segment(&self, segment: u32) -> Result<SegmentScan> {
        SegmentScan::of_segment(&self.0.core, segment).await
    }

    /// The segment table as it stands.
    pub fn segments(&self) -> Vec<SegmentRow> {
        self.0.core.segments.rows()
    }

    /// The volume's id.
    pub fn id(&self) -> VolumeId {
        self.0.core.volume
    }

    /// Whether a write or flush failed, so that only reads are left.
    pub fn is_fenced(&self) -> bool {
        self.0.core.fence.reason().is_some()
    }

    /// What failed, if something did.
    pub fn fence_reason(&self) -> Option<String> {
        self.0.core.fence.reason().map(str::to_owned)
    }

    /// How full the volume is.
    pub fn usage(&self) -> VolumeUsage {
        self.0.core.usage()
    }

    /// Has the janitor look now rather than within a second.
    #[cfg(test)]
    pub(super) fn wake_janitor(&self) {
        self.0.core.desk.wake();
    }

    /// Closes the volume in order: no write is taken any more, the open segments are closed and the
    /// superblock says so, which spares the next start the scan. Flush and publish first: an extent
    /// whose [`Placed`] is still held leaves its segment to the next start.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`]: a write or flush failed.
    pub async fn close(&self) -> Result<()> {
        let core = Arc::clone(&self.0.core);
        // A task of its own: a superblock half written must be finished even if the caller leaves.
        let closing = tokio::spawn(async move {
            core.fence.close();
            lane::close_all(&core).await?;
            janitor::tidy(&core).await?;
            janitor::write_clean(&core).await
        });
        closing.await.unwrap_or_else(|_| Err(self.0.core.fence.stopped("the closer", "close")))
    }
}
