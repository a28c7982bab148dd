//! The two superblocks, written in turn.
//!
//! Owns: `SUPER.a` and `SUPER.b`, the reservation of incarnations. Does not know: segments.
//!
//! Invariants
//! - The newer superblock is never overwritten; a torn write costs at most the older one.
//! - The open count and the reservation are in both before they count, so that losing either
//!   superblock repeats neither a record number nor an incarnation.

use std::io;
use std::sync::Arc;

use super::config::{INCARNATION_STEP, VolumeConfig};
use super::recovery::{REC_SEQ_BITS, RecoveryReport};
use super::volume::VolumeParts;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{OPEN_COUNT_MAX, SUPER_BYTES, SuperError, Superblock, VolumeId};
use crate::io::{Buf, BufClass, BufPool, Disk, FileId, OpenMode};

/// Their names.
const NAMES: [&str; 2] = ["SUPER.a", "SUPER.b"];

/// The superblocks of an open volume.
pub(super) struct Supers {
    disk: Arc<dyn Disk>,
    pool: BufPool,
    /// The newer one first.
    files: [FileId; 2],
    /// What the newer one says.
    block: Superblock,
    /// The next incarnation to hand out; always below `block.incarnation_next`.
    incarnation: u64,
    /// A buffer of its own: a writer that waits for a new segment holds buffers, and the pool may
    /// be empty.
    buf: Option<Buf>,
}

/// What was found in one of the files.
enum Slot {
    Missing,
    Bad(FileId, SuperError),
    Good(FileId, Superblock),
}

impl Supers {
    /// Reads both superblocks; `None` if the volume was never made.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: neither is intact, and there was one.
    /// - [`ErrorKind::Misuse`]: one was written by a later build.
    pub(super) async fn load(parts: &VolumeParts) -> Result<Option<Self>> {
        let mut buf = parts.pool.acquire(BufClass::Small).await;
        let mut slots = Vec::with_capacity(NAMES.len());
        for name in NAMES {
            let (returned, slot) = read_slot(parts.disk.as_ref(), name, buf).await?;
            buf = returned;
            slots.push(slot);
        }
        for slot in &slots {
            if let Slot::Bad(_, SuperError::Newer(version)) = slot {
                return Err(newer(*version));
            }
        }
        let (files, block) = match slots.as_slice() {
            [Slot::Good(a, first), Slot::Good(b, second)] => {
                if second.volume != first.volume {
                    return Err(corrupt("the superblocks name two volumes"));
                }
                let a_is_newer = first.seq > second.seq;
                if a_is_newer { ([*a, *b], *first) } else { ([*b, *a], *second) }
            }
            [Slot::Good(good, block), Slot::Bad(bad, error)]
            | [Slot::Bad(bad, error), Slot::Good(good, block)] => {
                tracing::warn!(%error, "one superblock is damaged; using the other");
                ([*good, *bad], *block)
            }
            // The second is made when the first is durable, and before anything else is: the
            // making of the volume was cut short.
            [Slot::Good(_, block), Slot::Missing] if block.seq == 1 => return Ok(None),
            [Slot::Bad(..) | Slot::Missing, Slot::Missing] => return Ok(None),
            [Slot::Good(..), Slot::Missing] | [Slot::Missing, _] => {
                return Err(corrupt("one superblock is missing"));
            }
            _ => return Err(corrupt("both superblocks are damaged")),
        };
        let incarnation = block.incarnation_next;
        let (disk, pool) = (Arc::clone(&parts.disk), parts.pool.clone());
        Ok(Some(Self { disk, pool, files, block, incarnation, buf: Some(buf) }))
    }

    /// Makes the superblocks of a new volume.
    pub(super) async fn create(parts: &VolumeParts, config: &VolumeConfig) -> Result<Self> {
        let block = Superblock {
            seq: 1,
            volume: VolumeId::random(parts.env.rng.as_ref()),
            segment_bytes: config.segment_bytes,
            pooled_families: config.pooled_families,
            open_count: 0,
            incarnation_next: 1,
            meta_seq: 0,
            write_time_ms: parts.env.clock.now_ms(),
            clean: true,
        };
        let [a, b] = NAMES;
        let first = make(parts.disk.as_ref(), a).await?;
        let mut buf = parts.pool.acquire(BufClass::Small).await;
        buf = write_block(parts.disk.as_ref(), first, buf, &block).await.map_err(making)?;
        let second = make(parts.disk.as_ref(), b).await?;
        let newer = Superblock { seq: 2, ..block };
        buf = write_block(parts.disk.as_ref(), second, buf, &newer).await.map_err(making)?;
        Ok(Self {
            disk: Arc::clone(&parts.disk),
            pool: parts.pool.clone(),
            files: [second, first],
            block: newer,
            incarnation: newer.incarnation_next,
            buf: Some(buf),
        })
    }

    /// What the newer superblock says.
    pub(super) fn block(&self) -> &Superblock {
        &self.block
    }

    /// Takes note of this open: a new count and a new reservation, above what recovery found in
    /// use, and the highest watermark it saw, whose segments are closed from here on.
    pub(super) async fn begin(
        &mut self,
        report: &RecoveryReport,
        incarnation_seen: u64,
        now_ms: u64,
    ) -> Result<()> {
        let open_count_seen = report.max_rec_seq >> REC_SEQ_BITS;
        let open_count = self.block.open_count.max(open_count_seen) + 1;
        if open_count > OPEN_COUNT_MAX {
            return Err(Error::new(ErrorKind::Misuse, "open a volume for the 16,777,216th time"));
        }
        self.incarnation = self.block.incarnation_next.max(incarnation_seen.saturating_add(1));
        let incarnation_next = self.incarnation.saturating_add(INCARNATION_STEP);
        let meta_seq = self.block.meta_seq.max(report.max_meta_seq);
        let block =
            Superblock { open_count, incarnation_next, meta_seq, clean: false, ..self.block };
        self.write_both(block, now_ms)
            .await
            .map_err(|error| failed("write the superblocks at open", error))
    }

    /// An incarnation that was never handed out before, durably reserved.
    pub(super) async fn next_incarnation(&mut self, now_ms: u64) -> io::Result<u64> {
        if self.incarnation >= self.block.incarnation_next {
            let incarnation_next = self.incarnation.saturating_add(INCARNATION_STEP);
            self.write_both(Superblock { incarnation_next, ..self.block }, now_ms).await?;
        }
        let incarnation = self.incarnation;
        self.incarnation += 1;
        Ok(incarnation)
    }

    /// Takes note of the metadata's progress, and of whether the volume is closed in order.
    pub(super) async fn note(&mut self, meta_seq: u64, clean: bool, now_ms: u64) -> io::Result<()> {
        let meta_seq = self.block.meta_seq.max(meta_seq);
        self.write(Superblock { meta_seq, clean, ..self.block }, now_ms).await
    }

    async fn write_both(&mut self, block: Superblock, now_ms: u64) -> io::Result<()> {
        self.write(block, now_ms).await?;
        self.write(block, now_ms).await
    }

    /// Writes `block` over the older superblock. Must not be cancelled: its callers are tasks.
    async fn write(&mut self, block: Superblock, now_ms: u64) -> io::Result<()> {
        let block = Superblock { seq: self.block.seq + 1, write_time_ms: now_ms, ..block };
        let buf = match self.buf.take() {
            Some(buf) => buf,
            None => self.pool.acquire(BufClass::Small).await,
        };
        let [newer, older] = self.files;
        self.buf = Some(write_block(self.disk.as_ref(), older, buf, &block).await?);
        self.files = [older, newer];
        self.block = block;
        Ok(())
    }
}

async fn read_slot(disk: &dyn Disk, name: &str, mut buf: Buf) -> Result<(Buf, Slot)> {
    let file = match disk.open(name, OpenMode::Existing).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((buf, Slot::Missing)),
        Err(error) => return Err(failed(&format!("open {name}"), error)),
    };
    buf.set_len(SUPER_BYTES);
    let (buf, read) = disk.read_at(file, buf, 0).await;
    let slot = match read.map_err(|error| tracing::warn!(%error, name, "superblock unreadable")) {
        Ok(()) => match Superblock::decode(&buf) {
            Ok(block) => Slot::Good(file, block),
            Err(error) => Slot::Bad(file, error),
        },
        Err(()) => Slot::Bad(file, SuperError::Crc),
    };
    Ok((buf, slot))
}

/// Makes one of the files, or takes what a cut-short attempt left.
async fn make(disk: &dyn Disk, name: &str) -> Result<FileId> {
    let made = match disk.open(name, OpenMode::Create { len: SUPER_BYTES as u64 }).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.open(name, OpenMode::Existing).await
        }
        made => made,
    };
    made.map_err(making)
}

async fn write_block(
    disk: &dyn Disk,
    file: FileId,
    mut buf: Buf,
    block: &Superblock,
) -> io::Result<Buf> {
    buf.set_len(0);
    buf.extend_from_slice(&block.encode());
    let (buf, written) = disk.write_at(file, buf, 0).await;
    written?;
    disk.sync(file).await?;
    Ok(buf)
}

fn making(error: io::Error) -> Error {
    failed("make the superblocks", error)
}

fn failed(during: &str, error: io::Error) -> Error {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let kind = if full { ErrorKind::Full } else { ErrorKind::Unavailable };
    Error::new(kind, during).with_source(error)
}

fn corrupt(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "read the superblocks")
        .with_advice(
            "restore SUPER.a and SUPER.b from a backup of this volume; nothing was changed",
        )
        .with_source(what)
}

fn newer(version: u32) -> Error {
    Error::new(ErrorKind::Misuse, "read the superblocks")
        .with_advice("this volume was written by a later release: start that release instead")
        .with_source(SuperError::Newer(version))
}
