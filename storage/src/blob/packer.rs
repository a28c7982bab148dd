//! The packer: small extents share a write.
//!
//! Whatever gathered while earlier batches were being written becomes the next batch: no delay is
//! added, and batches grow with the load.
//! Owns: the packer task, its buffers, the layout of a batch. Does not know: who sent an extent.
//!
//! Invariants
//! - Records of a batch start at multiples of 8 bytes, the batch is whole blocks, and what lies
//!   between and behind records is zero.
//! - The packer has buffers of its own: senders hold buffers while they wait for it, so that it
//!   must never wait for theirs.
//! - A batch fails as a whole, and then the volume is fenced.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::config::{BATCH_BYTES_MAX, BATCHES_MAX};
use super::core::Core;
use super::flush::Placed;
use super::lane::{self, Lane, Reservation};
use super::location::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BLOCK_BYTES, ChunkLayout, ExtentId, RECORD_ALIGN, RecordBody, align_up};
use crate::io::{Buf, BufClass, BufPool};

/// One extent to pack.
pub(super) struct PackRequest {
    pub(super) id: ExtentId,
    pub(super) logical_off: u64,
    pub(super) layout: ChunkLayout,
    pub(super) table: Vec<u32>,
    pub(super) sealed: Buf,
    pub(super) reply: oneshot::Sender<Result<Placed>>,
}

impl PackRequest {
    /// Bytes it takes in a batch.
    fn packed_len(&self) -> u64 {
        align_up(u64::from(self.layout.stored_len()), RECORD_ALIGN)
    }
}

/// Takes the packer's buffers from a pool that nobody has used yet.
///
/// # Errors
/// [`ErrorKind::Unavailable`]: the pool has no [`BATCHES_MAX`] large buffers.
pub(super) fn buffers(pool: &BufPool) -> Result<Vec<Buf>> {
    let buffers: Vec<_> =
        (0..BATCHES_MAX).filter_map(|_| pool.try_acquire(BufClass::Large)).collect();
    if buffers.len() < BATCHES_MAX {
        return Err(Error::new(ErrorKind::Unavailable, "take the packer's buffers")
            .with_advice("give the buffer pool more memory"));
    }
    Ok(buffers)
}

/// The packer: works until the volume is dropped.
pub(super) async fn run(
    core: Arc<Core>,
    mut requests: mpsc::Receiver<PackRequest>,
    buffers: Vec<Buf>,
) {
    let (give, mut free) = mpsc::channel(BATCHES_MAX);
    for buf in buffers {
        drop(give.try_send(buf));
    }
    let bytes_max = core.config.segment_bytes.min(BATCH_BYTES_MAX as u64);
    let mut carried = None;
    loop {
        let Some(buf) = free.recv().await else { return };
        let first = match carried.take() {
            Some(first) => first,
            None => match requests.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let (batch, rest) = gather(first, &mut requests, bytes_max);
        carried = rest;
        let len: u64 = batch.iter().map(PackRequest::packed_len).sum();
        match lane::reserve(&core, Lane::Hot, align_up(len, BLOCK_BYTES)).await {
            Ok(reservation) => {
                tokio::spawn(write(Arc::clone(&core), reservation, batch, buf, give.clone()));
            }
            Err(error) => {
                refuse(batch, &error);
                drop(give.try_send(buf));
            }
        }
    }
}

/// The next batch, and the request that did not fit into it.
fn gather(
    first: PackRequest,
    requests: &mut mpsc::Receiver<PackRequest>,
    bytes_max: u64,
) -> (Vec<PackRequest>, Option<PackRequest>) {
    let mut len = first.packed_len();
    let mut batch = vec![first];
    while let Ok(request) = requests.try_recv() {
        if request.reply.is_closed() {
            continue;
        }
        len += request.packed_len();
        if len > bytes_max {
            return (batch, Some(request));
        }
        batch.push(request);
    }
    (batch, None)
}

/// Fills and writes a batch, then answers everybody in it and returns the buffer.
async fn write(
    core: Arc<Core>,
    reservation: Reservation,
    batch: Vec<PackRequest>,
    mut buf: Buf,
    give: mpsc::Sender<Buf>,
) {
    let offset = reservation.offset;
    let segment = Arc::clone(reservation.segment());
    let locations = fill(&core, &reservation, &batch, &mut buf);
    let pin = reservation.commit();
    let replies: Vec<_> = batch.into_iter().map(|request| request.reply).collect();
    let (buf, written) = core.disk.write_at(segment.file.id, buf, offset).await;
    if let Err(error) = &written {
        core.fence.raise(format!("write a batch to segment {}: {error}", segment.number));
    }
    for (reply, location) in replies.into_iter().zip(locations) {
        let answer = match &written {
            Ok(()) => Ok(Placed::new(location, pin.clone())),
            Err(_) => Err(core.fence.error("write a batch of extents")),
        };
        // Whoever asked may have left; the extent is dead then.
        drop(reply.send(answer));
    }
    drop(give.try_send(buf));
}

/// Lays the batch out in `buf`; where each extent will lie.
fn fill(
    core: &Core,
    reservation: &Reservation,
    batch: &[PackRequest],
    buf: &mut Buf,
) -> Vec<Location> {
    let segment = reservation.segment();
    let mut locations = Vec::with_capacity(batch.len());
    buf.set_len(0);
    for request in batch {
        let PackRequest { id, logical_off, layout, .. } = *request;
        let body = RecordBody::Extent { id, layout, logical_off };
        let header = core.header(segment.number, segment.incarnation, body);
        locations.push(Location {
            segment: segment.number,
            incarnation: segment.incarnation,
            offset: reservation.offset + buf.len() as u64,
            layout,
        });
        buf.extend_from_slice(&header.encode(&request.table));
        buf.extend_from_slice(&request.sealed);
        pad(buf, RECORD_ALIGN);
    }
    pad(buf, BLOCK_BYTES);
    assert_eq!(buf.len() as u64, reservation.len, "a batch fills its reservation");
    locations
}

/// Lengthens `buf` with zeros to a multiple of `align`.
pub(super) fn pad(buf: &mut Buf, align: u64) {
    let used = buf.len();
    let padded = align_up(used as u64, align);
    buf.set_len(usize::try_from(padded).expect("a buffer's length fits usize"));
    buf.iter_mut().skip(used).for_each(|byte| *byte = 0);
}

fn refuse(batch: Vec<PackRequest>, error: &Error) {
    for request in batch {
        let mut copy = Error::new(error.kind(), error.during()).with_source(error.to_string());
        if let Some(advice) = error.advice() {
            copy = copy.with_advice(advice);
        }
        drop(request.reply.send(Err(copy)));
    }
}
