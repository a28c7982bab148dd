//! Extents that are written while their body streams.
//!
//! An extent is written in slabs of just under 1 MiB. The first slab holds header and checksum
//! table, which are known last; it is held back and written at the end (nothing orders writes
//! before the flush). A slab is written in whole blocks; what is left, less than a block, opens the
//! next slab.
//! Owns: the slabs of one extent, its checksums, its reserved range. Does not know: keys, streams.
//!
//! Invariants
//! - A writer holds at most two slabs while it waits for a third, so that writers never wait for
//!   each other in a circle.
//! - A range once reserved ends as a complete record or as a filler, unless the node stops first.
//! - Slabs are written once; two of them never share a block.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinHandle};
use zeroize::Zeroize;

use super::core::Core;
use super::flush::Placed;
use super::lane::{self, Lane, Reservation};
use super::location::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BLOCK_BYTES, ChunkLayout, ExtentId, RecordBody, align_up, crc32c};
use crate::io::{Buf, BufClass};
use crate::types::CHUNK_SHIFT;

/// What an extent will be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtentPlan {
    /// The lane it is appended to.
    pub lane: Lane,
    /// What it is called.
    pub id: ExtentId,
    /// The plaintext offset of its first chunk in the stream; a multiple of 64 KiB.
    pub logical_off: u64,
    /// Its plaintext bytes; at most 4 MiB.
    pub plain_len: u64,
}

/// An extent being written.
///
/// For each chunk: [`Self::chunk`] lends the place to encrypt into, [`Self::seal_chunk`] takes it
/// back. After the last one: [`Self::finish`]. Dropped earlier, the extent's range becomes a filler
/// and nothing of it is ever read; a place that was lent and not sealed is wiped, because it may
/// hold plaintext.
pub struct ExtentWriter {
    core: Arc<Core>,
    plan: ExtentPlan,
    layout: ChunkLayout,
    /// Checksums of the chunks sealed so far.
    table: Vec<u32>,
    /// The first slab, once it is full.
    first: Option<Buf>,
    /// The slab being filled.
    slab: Slab,
    /// Where `slab` starts in the record.
    slab_start: u64,
    /// The slab being written.
    writing: Option<Writing>,
    /// Taken when the first write needs it.
    reservation: Option<Reservation>,
    /// Held until the slabs are back in the pool.
    _places: OwnedSemaphorePermit,
}

/// A buffer being filled from the front.
struct Slab {
    /// `None` only while it is dropped.
    buf: Option<Buf>,
    /// Bytes in use.
    filled: usize,
    /// The place that is lent.
    lent: Option<Range<usize>>,
}

impl Slab {
    /// A slab of `buf` whose first bytes are a copy of `carried` or, if that is empty, left to
    /// whoever fills them.
    fn new(mut buf: Buf, filled: usize, carried: &[u8]) -> Self {
        buf.set_len(buf.capacity());
        for (to, from) in buf.iter_mut().zip(carried) {
            *to = *from;
        }
        Self { buf: Some(buf), filled, lent: None }
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.buf.as_deref_mut().unwrap_or_default()
    }

    fn part(&mut self, place: Range<usize>) -> &mut [u8] {
        self.bytes().get_mut(place).expect("a slab holds at least one chunk behind a block")
    }

    /// The buffer, cut or lengthened with zeros to `len` bytes.
    fn into_buf(mut self, len: usize) -> Buf {
        let mut buf = self.buf.take().expect("a slab has its buffer until it is dropped");
        buf.set_len(len);
        buf.iter_mut().skip(self.filled).for_each(|byte| *byte = 0);
        buf
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let (Some(buf), Some(lent)) = (&mut self.buf, self.lent.take()) {
            // A caller that encrypts in place left plaintext here.
            buf.get_mut(lent).unwrap_or_default().zeroize();
        }
    }
}

/// A write that goes on even if nobody waits for it.
type Writing = JoinHandle<Result<Buf>>;

impl ExtentWriter {
    pub(super) async fn start(core: Arc<Core>, plan: ExtentPlan) -> Result<Self> {
        let during = || format!("write extent {} of {} bytes", plan.id.number, plan.plain_len);
        core.fence.check(during)?;
        let layout = ChunkLayout::for_plain_len(CHUNK_SHIFT, plan.plain_len)
            .filter(|_| plan.logical_off.is_multiple_of(1 << CHUNK_SHIFT))
            .filter(|layout| padded_len(*layout) <= core.config.segment_bytes)
            .ok_or_else(|| Error::new(ErrorKind::Misuse, during()))?;
        let padded = usize::try_from(padded_len(layout)).unwrap_or(usize::MAX);
        // A record of one slab needs no second one.
        let (class, slabs) = match BufClass::holding(padded) {
            Some(BufClass::Small) => (BufClass::Small, 1),
            Some(BufClass::Large) => (BufClass::Large, 1),
            None => (BufClass::Large, 2),
        };
        let places = Arc::clone(&core.writer_slabs).acquire_many_owned(slabs).await;
        let places = places.expect("the writers' places are never closed");
        let buf = core.pool.acquire(class).await;
        let filled = usize::try_from(layout.data_offset()).unwrap_or(usize::MAX);
        Ok(Self {
            plan,
            layout,
            table: Vec::with_capacity(usize::from(layout.n_chunks())),
            first: None,
            slab: Slab::new(buf, filled, &[]),
            slab_start: 0,
            writing: None,
            reservation: None,
            _places: places,
            core,
        })
    }

    /// How the extent is cut; it follows from its length.
    pub fn layout(&self) -> ChunkLayout {
        self.layout
    }

    /// The place for the next chunk's ciphertext and tag, exactly as long as the layout says. Holds
    /// leftovers; overwrite all of it. May write out a slab first.
    ///
    /// # Errors
    /// - [`ErrorKind::Fenced`]: a write or flush failed.
    /// - [`ErrorKind::Full`]: no segment is free and none can be made.
    /// - [`ErrorKind::Misuse`]: there are no more chunks, or the last one was not sealed.
    pub async fn chunk(&mut self) -> Result<&mut [u8]> {
        let index = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
        let len = usize::try_from(self.layout.chunk_len(index)).unwrap_or_default();
        if len == 0 || self.slab.lent.is_some() {
            return Err(Error::new(ErrorKind::Misuse, format!("take the place of chunk {index}")));
        }
        if self.slab.filled + len > self.slab.bytes().len() {
            self.next_slab().await?;
        }
        let place = self.slab.filled..self.slab.filled + len;
        self.slab.lent = Some(place.clone());
        Ok(self.slab.part(place))
    }

    /// Takes back the place that [`Self::chunk`] lent; it now holds ciphertext and tag.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`]: no place is lent.
    pub fn seal_chunk(&mut self) -> Result<()> {
        let lent = self.slab.lent.take();
        let place = lent.ok_or_else(|| Error::new(ErrorKind::Misuse, "seal a chunk twice"))?;
        self.slab.filled = place.end;
        self.table.push(crc32c(self.slab.part(place)));
        Ok(())
    }

    /// Writes what is left, header and table last; answers when every write has been. The extent is
    /// durable after [`Volume::flush`](super::Volume::flush).
    ///
    /// # Errors
    /// - [`ErrorKind::Fenced`]: a write or flush failed.
    /// - [`ErrorKind::Full`]: no segment is free and none can be made.
    /// - [`ErrorKind::Misuse`]: not every chunk was sealed.
    pub async fn finish(mut self) -> Result<Placed> {
        if self.table.len() != usize::from(self.layout.n_chunks()) {
            return Err(Error::new(ErrorKind::Misuse, "finish an extent before its last chunk"));
        }
        self.reserve().await?;
        self.settle().await?;
        // No await from here until both writes are under way: the range is a record from then on.
        let reservation = self.reservation.take().expect("reserved above");
        let location = self.location(&reservation);
        let head = self.head(&reservation);
        let end = self.slab.filled.next_multiple_of(BLOCK_LEN);
        let slab = self.slab.into_buf(end);
        let (mut first, last) = match self.first.take() {
            Some(first) => (first, Some(slab)),
            None => (slab, None),
        };
        first.get_mut(..head.len()).expect("a slab holds the header").copy_from_slice(&head);
        let last = last.map(|slab| write(&self.core, &reservation, self.slab_start, slab));
        let first = write(&self.core, &reservation, 0, first);
        let pin = reservation.commit();
        if let Some(last) = last {
            answered(&self.core, last.await)?;
        }
        answered(&self.core, first.await)?;
        Ok(Placed::new(location, pin))
    }

    /// Writes the slab out as far as it is whole blocks and goes on with the rest in another. If
    /// the future is dropped, nothing has changed but that a write may be done.
    async fn next_slab(&mut self) -> Result<()> {
        self.core.fence.check_raised(|| "write a slab".to_owned())?;
        let is_first = self.first.is_none();
        if !is_first {
            self.reserve().await?;
        }
        let next = match self.core.pool.try_acquire(BufClass::Large) {
            Some(buf) => buf,
            // None is free: the one being written will be, or there is none to wait for.
            None => match self.settle().await? {
                Some(buf) => buf,
                None => self.core.pool.acquire(BufClass::Large).await,
            },
        };
        self.settle().await?;
        let filled = self.slab.filled;
        let whole = filled - filled % BLOCK_LEN;
        let next = Slab::new(next, filled - whole, self.slab.part(whole..filled));
        let full = std::mem::replace(&mut self.slab, next).into_buf(whole);
        let start = self.slab_start;
        self.slab_start += whole as u64;
        if is_first {
            self.first = Some(full);
        } else if let Some(reservation) = &self.reservation {
            self.writing = Some(write(&self.core, reservation, start, full));
        }
        Ok(())
    }

    /// Waits for the slab being written, if there is one; its buffer.
    async fn settle(&mut self) -> Result<Option<Buf>> {
        let Some(writing) = &mut self.writing else {
            return Ok(None);
        };
        let done = writing.await;
        self.writing = None;
        answered(&self.core, done).map(Some)
    }

    async fn reserve(&mut self) -> Result<()> {
        if self.reservation.is_none() {
            let len = padded_len(self.layout);
            self.reservation = Some(lane::reserve(&self.core, self.plan.lane, len).await?);
        }
        Ok(())
    }

    fn location(&self, reservation: &Reservation) -> Location {
        let segment = reservation.segment();
        Location {
            segment: segment.number,
            incarnation: segment.incarnation,
            offset: reservation.offset,
            layout: self.layout,
        }
    }

    /// Header and table.
    fn head(&self, reservation: &Reservation) -> Vec<u8> {
        let segment = reservation.segment();
        let ExtentPlan { id, logical_off, .. } = self.plan;
        let body = RecordBody::Extent { id, layout: self.layout, logical_off };
        self.core.header(segment.number, segment.incarnation, body).encode(&self.table)
    }
}

/// A block as a length in memory.
const BLOCK_LEN: usize = 4096;
const _: () = assert!(BLOCK_LEN as u64 == BLOCK_BYTES, "a block is a block");

fn padded_len(layout: ChunkLayout) -> u64 {
    align_up(u64::from(layout.stored_len()), BLOCK_BYTES)
}

/// Writes `buf` at `start` of the reserved range, in a task: it goes on if the writer is dropped,
/// and keeps the segment pinned until the device has answered.
fn write(core: &Arc<Core>, reservation: &Reservation, start: u64, buf: Buf) -> Writing {
    let core = Arc::clone(core);
    let pin = reservation.pin();
    let offset = reservation.offset + start;
    tokio::spawn(async move {
        let segment = pin.segment();
        let (buf, written) = core.disk.write_at(segment.file.id, buf, offset).await;
        written.map(|()| buf).map_err(|error| {
            let during = format!("write to segment {} at {offset}", segment.number);
            core.fence.raise(format!("{during}: {error}"));
            core.fence.error(during)
        })
    })
}

fn answered(core: &Core, task: Result<Result<Buf>, JoinError>) -> Result<Buf> {
    task.unwrap_or_else(|_| Err(core.fence.stopped("a write", "write a slab")))
}
