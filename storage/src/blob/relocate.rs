//! Copying extents into the lane of survivors, ciphertext as it is.
//!
//! Owns: the copy, and the proof that what is copied is what was written: the header names the
//! extent and every checksum holds. Does not know: which extents are alive, rows, keys.
//!
//! Invariants
//! - No byte is copied whose checksum is wrong.
//! - At most three large buffers are held: a piece that is read, and two of a writer.
//! - A copy is nothing until its row is published; dropped before, it is dead.

use std::sync::Arc;

use super::config::BATCH_BYTES_MAX;
use super::core::Core;
use super::flush::Placed;
use super::lane::{self, Lane, Reservation};
use super::location::Location;
use super::packer::pad;
use super::read::ExtentReader;
use super::volume::Volume;
use super::writer::{ExtentPlan, ExtentWriter};
use super::{PACKED_BYTES_MAX, RecordBody};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BLOCK_BYTES, ExtentId, RECORD_ALIGN, align_up, crc32c};
use crate::io::{Buf, BufClass};
use crate::types::CHUNK_SHIFT;

/// An extent to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Survivor {
    /// What it is called.
    pub(crate) id: ExtentId,
    /// The plaintext offset of its first chunk in the stream.
    pub(crate) logical_off: u64,
    /// Where it lies.
    pub(crate) location: Location,
}

/// What became of one.
#[derive(Debug)]
pub(crate) enum Relocated {
    /// It is written once more; durable after [`Volume::flush`].
    Placed(Placed),
    /// Its bytes are not what was written, so it stays where it is.
    Damaged(Error),
}

impl Volume {
    /// Copies `survivors` into the lane [`Lane::Cold`]; what became of each, in order.
    ///
    /// # Errors
    /// - [`ErrorKind::Fenced`]: a write failed.
    /// - [`ErrorKind::Full`]: no segment is free and none can be made.
    /// - [`ErrorKind::Unavailable`]: the volume is closing, or the disk did not answer.
    pub(crate) async fn relocate(&self, survivors: &[Survivor]) -> Result<Vec<Relocated>> {
        let core = self.core();
        let mut done: Vec<Option<Relocated>> = survivors.iter().map(|_| None).collect();
        let mut pack = Pack::default();
        for (index, survivor) in survivors.iter().enumerate() {
            let layout = survivor.location.layout;
            let small = within(layout.data_len()) <= PACKED_BYTES_MAX
                && layout.chunk_shift() == CHUNK_SHIFT
                && packed_len(survivor) <= pack_bytes_max(core);
            let outcome = if small {
                if !pack.fits(core, survivor) {
                    pack.write(core, &mut done).await?;
                }
                pack.add(core, index, survivor).await
            } else {
                copy(core, survivor).await.map(|placed| {
                    set(&mut done, index, Relocated::Placed(placed));
                })
            };
            match outcome {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    set(&mut done, index, Relocated::Damaged(error));
                }
                outcome => outcome?,
            }
        }
        pack.write(core, &mut done).await?;
        Ok(done.into_iter().flatten().collect())
    }
}

fn set(done: &mut [Option<Relocated>], index: usize, outcome: Relocated) {
    if let Some(slot) = done.get_mut(index) {
        *slot = Some(outcome);
    }
}

fn within(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn packed_len(survivor: &Survivor) -> u64 {
    align_up(u64::from(survivor.location.stored_len()), RECORD_ALIGN)
}

/// Bytes of one packed write.
fn pack_bytes_max(core: &Core) -> u64 {
    core.config.segment_bytes.min(BATCH_BYTES_MAX as u64)
}

/// Copies an extent that is too long to share a write.
async fn copy(core: &Arc<Core>, survivor: &Survivor) -> Result<Placed> {
    let Survivor { id, logical_off, location } = *survivor;
    let plain_len = u64::from(location.layout.data_len())
        - u64::from(location.n_chunks()) * crate::types::TAG_BYTES;
    let plan = ExtentPlan { lane: Lane::Cold, id, logical_off, plain_len };
    let mut reader = whole(core, survivor)?;
    let mut writer = ExtentWriter::start(Arc::clone(core), plan).await?;
    while let Some(read) = reader.next().await? {
        for span in read.spans() {
            let sealed = read.chunk(span.index);
            let place = writer.chunk().await?;
            if place.len() != sealed.len() {
                return Err(Error::new(ErrorKind::Corrupt, "copy a chunk of another length"));
            }
            place.copy_from_slice(sealed);
            writer.seal_chunk()?;
        }
    }
    writer.finish().await
}

fn whole(core: &Arc<Core>, survivor: &Survivor) -> Result<ExtentReader> {
    let Survivor { id, location, .. } = *survivor;
    Ok(ExtentReader::new(Arc::clone(core), id, location, 0..location.n_chunks())?.one_by_one())
}

/// Small extents that share a write. In the buffer each has a gap where its header will be: what it
/// says follows from the reservation, which is made last.
#[derive(Default)]
struct Pack {
    buf: Option<Buf>,
    records: Vec<Packed>,
}

/// One of them.
struct Packed {
    /// Its place among the survivors.
    index: usize,
    survivor: Survivor,
    /// Where it starts in the buffer.
    start: usize,
    table: Vec<u32>,
}

impl Pack {
    fn fits(&self, core: &Core, survivor: &Survivor) -> bool {
        let used = self.buf.as_ref().map_or(0, |buf| buf.len() as u64);
        align_up(used + packed_len(survivor), BLOCK_BYTES) <= pack_bytes_max(core)
    }

    /// Reads and checks an extent into the buffer.
    async fn add(&mut self, core: &Arc<Core>, index: usize, survivor: &Survivor) -> Result<()> {
        let mut buf = match self.buf.take() {
            Some(buf) => buf,
            None => core.pool.acquire(BufClass::Large).await,
        };
        if self.records.is_empty() {
            buf.set_len(0);
        }
        let start = buf.len();
        let read = read_into(core, survivor, &mut buf).await;
        let outcome = match read {
            Ok(table) => {
                pad(&mut buf, RECORD_ALIGN);
                self.records.push(Packed { index, survivor: *survivor, start, table });
                Ok(())
            }
            Err(error) => {
                buf.set_len(start);
                Err(error)
            }
        };
        self.buf = Some(buf);
        outcome
    }

    /// Writes what has gathered.
    async fn write(&mut self, core: &Arc<Core>, done: &mut [Option<Relocated>]) -> Result<()> {
        let records = std::mem::take(&mut self.records);
        let Some(mut buf) = self.buf.take().filter(|_| !records.is_empty()) else {
            return Ok(());
        };
        pad(&mut buf, BLOCK_BYTES);
        let reservation = lane::reserve(core, Lane::Cold, buf.len() as u64).await?;
        let locations: Vec<_> =
            records.iter().map(|record| head(core, &reservation, record, &mut buf)).collect();
        let core = Arc::clone(core);
        // A task of its own: the range is a record from here on, even if the caller leaves.
        let writing = tokio::spawn(async move {
            let offset = reservation.offset;
            let pin = reservation.commit();
            let segment = Arc::clone(pin.segment());
            let (_, written) = core.disk.write_at(segment.file.id, buf, offset).await;
            written.map_err(|error| {
                let during = format!("copy extents to segment {}", segment.number);
                core.fence.raise(format!("{during}: {error}"));
                core.fence.error(during)
            })?;
            Ok(locations.into_iter().map(|at| Placed::new(at, pin.clone())).collect::<Vec<_>>())
        });
        let stopped = |_| Err(Error::new(ErrorKind::Unavailable, "copy extents"));
        let placed = writing.await.unwrap_or_else(stopped)?;
        for (record, placed) in records.iter().zip(placed) {
            set(done, record.index, Relocated::Placed(placed));
        }
        Ok(())
    }
}

/// Appends an extent's sealed chunks behind a gap for its header and table; the table.
async fn read_into(core: &Arc<Core>, survivor: &Survivor, buf: &mut Buf) -> Result<Vec<u32>> {
    let layout = survivor.location.layout;
    let start = buf.len();
    buf.set_len(start + within(layout.data_offset()));
    buf.iter_mut().skip(start).for_each(|byte| *byte = 0);
    let mut table = Vec::with_capacity(usize::from(layout.n_chunks()));
    let mut reader = whole(core, survivor)?;
    while let Some(read) = reader.next().await? {
        for span in read.spans() {
            let sealed = read.chunk(span.index);
            table.push(crc32c(sealed));
            buf.extend_from_slice(sealed);
        }
    }
    Ok(table)
}

/// Writes a record's header and table into its gap; where the record will lie.
fn head(core: &Core, reservation: &Reservation, record: &Packed, buf: &mut Buf) -> Location {
    let segment = reservation.segment();
    let Survivor { id, logical_off, location } = record.survivor;
    let body = RecordBody::Extent { id, layout: location.layout, logical_off };
    let bytes = core.header(segment.number, segment.incarnation, body).encode(&record.table);
    let gap = buf.get_mut(record.start..record.start + bytes.len());
    gap.expect("a record's gap lies in its buffer").copy_from_slice(&bytes);
    Location {
        segment: segment.number,
        incarnation: segment.incarnation,
        offset: reservation.offset + record.start as u64,
        layout: location.layout,
    }
}
