//! Extents on disks that keep several copies: from which one they read, and which one is put right.
//!
//! Owns: the search for a copy that proves itself by its checksums, and what is repaired from it.
//! Does not know: where copies lie, keys; whether a tag is right is tried above.
//!
//! Invariants
//! - A copy counts as good if header, table and every chunk asked for agree; nothing else is ever
//!   written over another copy, and only the bytes that were proven.
//! - A copy whose checksums are right stays as it is, even if its tags are wrong: that was no rot.

use std::ops::Range;

use super::core::Core;
use super::location::{Location, Piece};
use super::read::{self, ChunkRead, bad_chunks, check_head, class, head};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ExtentId, HEADER_BYTES};
use crate::io::Buf;

/// Bytes of one checksum in the table.
const CRC_BYTES: u64 = 4;

/// What a look at every copy of an extent found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Healed {
    /// Ranges that were wrong on a copy and are right again.
    pub repaired: u64,
    /// Ranges that were wrong on a copy and still are: no copy has them right, or the disk refused.
    pub left: u64,
}

/// Reads `piece` from the copy of this number; `None` if it does not prove itself there.
pub(super) async fn read_copy(
    core: &Core,
    copy: usize,
    id: ExtentId,
    location: &Location,
    piece: Piece,
) -> Result<Option<(ChunkRead, Vec<u32>)>> {
    let buf = core.pool.acquire(class(&piece)).await;
    let (buf, table) = table_of(core, copy, id, location, buf).await?;
    let Some(table) = table else {
        return Ok(None);
    };
    let read = fetch(core, copy, location, piece, buf).await?;
    Ok(read.filter(|read| bad_chunks(read, &table).next().is_none()).map(|read| (read, table)))
}

/// Reads `piece` from any copy that proves itself, after the usual one did not, and puts the others
/// right. `None` if there is no such copy.
pub(super) async fn rescue(
    core: &Core,
    id: ExtentId,
    location: &Location,
    piece: &Piece,
) -> Result<Option<(ChunkRead, Vec<u32>)>> {
    let copies = core.disk.copies();
    if copies < 2 {
        return Ok(None);
    }
    for copy in 0..copies {
        let Some(found) = read_copy(core, copy, id, location, piece.clone()).await? else {
            continue;
        };
        let healed = heal(core, id, location).await;
        tracing::error!(
            segment = location.segment(),
            offset = location.offset(),
            ?healed,
            "stored bytes were damaged on one copy and read from the other"
        );
        return Ok(Some(found));
    }
    Ok(None)
}

/// Reads every copy of an extent whole and puts right what is wrong on one and right on another.
pub(super) async fn heal(core: &Core, id: ExtentId, location: &Location) -> Result<Healed> {
    let copies = core.disk.copies();
    let mut healed = Healed::default();
    let mut table = None;
    for copy in 0..copies {
        let buf = spare(core, &location.piece(0..1, true))?;
        let (_, found) = table_of(core, copy, id, location, buf).await?;
        table = table.or(found);
    }
    let Some(table) = table else {
        // No copy says what is right.
        healed.left = copies as u64;
        return Ok(healed);
    };
    let mut left = 0..location.n_chunks();
    while !left.is_empty() {
        let with_head = left.start == 0;
        let piece = location.piece(left.clone(), with_head);
        left.start = piece.chunks.end;
        heal_piece(core, id, location, (&piece, with_head), &table, &mut healed).await?;
    }
    Ok(healed)
}

async fn heal_piece(
    core: &Core,
    id: ExtentId,
    location: &Location,
    (piece, with_head): (&Piece, bool),
    table: &[u32],
    healed: &mut Healed,
) -> Result<()> {
    let mut good: Option<ChunkRead> = None;
    let mut bad = Vec::new();
    for copy in 0..core.disk.copies() {
        let buf = spare(core, piece)?;
        let is_right = |read: &ChunkRead| {
            let is_headed = !with_head || check_head(core, id, location, head(read)).is_ok();
            is_headed && bad_chunks(read, table).next().is_none()
        };
        match fetch(core, copy, location, piece.clone(), buf).await? {
            Some(read) if is_right(&read) => good = Some(read),
            _ => bad.push(copy),
        }
    }
    for copy in bad {
        let done = match &good {
            Some(read) => repair(core, copy, location, (piece, with_head), read).await,
            None => Err(Error::new(ErrorKind::Corrupt, "find a good copy")),
        };
        match done {
            Ok(()) => healed.repaired += 1,
            Err(_) => healed.left += 1,
        }
    }
    Ok(())
}

async fn repair(
    core: &Core,
    copy: usize,
    location: &Location,
    (piece, with_head): (&Piece, bool),
    good: &ChunkRead,
) -> Result<()> {
    let mut buf = spare(core, piece)?;
    buf.set_len(0);
    buf.extend_from_slice(good.bytes());
    let proven = proven(location, piece, with_head);
    let file = read::file(core, location.segment).await?;
    let repaired = core.disk.repair_at(copy, file.id, buf, piece.blocks.start, proven).await;
    repaired.map_err(|error| {
        let during = format!("repair segment {} at {}", location.segment, piece.blocks.start);
        Error::new(ErrorKind::Unavailable, during).with_source(error)
    })
}

/// The bytes of a piece that belong to the extent, and that its checksums cover.
fn proven(location: &Location, piece: &Piece, with_head: bool) -> Range<usize> {
    let layout = location.layout();
    let start = if with_head { 0 } else { layout.chunk_range(piece.chunks.start).start };
    let last = piece.chunks.end.saturating_sub(1);
    let at = |byte: u32| {
        let in_piece = location.offset + u64::from(byte) - piece.blocks.start;
        usize::try_from(in_piece).unwrap_or(usize::MAX)
    };
    at(start)..at(layout.chunk_range(last).end)
}

/// Header and table on one copy, if they are those of the extent; the buffer back.
async fn table_of(
    core: &Core,
    copy: usize,
    id: ExtentId,
    location: &Location,
    buf: Buf,
) -> Result<(Buf, Option<Vec<u32>>)> {
    let head_bytes = u64::from(HEADER_BYTES) + CRC_BYTES * u64::from(location.n_chunks());
    let from = location.offset / crate::format::BLOCK_BYTES * crate::format::BLOCK_BYTES;
    let to = crate::format::align_up(location.offset + head_bytes, crate::format::BLOCK_BYTES);
    let piece = Piece { blocks: from..to, chunks: 0..0 };
    let file = read::file(core, location.segment).await?;
    let (buf, is_read) = read_from(core, copy, file.id, &piece, buf).await;
    if !is_read {
        return Ok((buf, None));
    }
    let read = ChunkRead::new(buf, *location, piece);
    let table = check_head(core, id, location, head(&read)).ok();
    Ok((read.into_buf(), table))
}

async fn fetch(
    core: &Core,
    copy: usize,
    location: &Location,
    piece: Piece,
    buf: Buf,
) -> Result<Option<ChunkRead>> {
    let file = read::file(core, location.segment).await?;
    let (buf, is_read) = read_from(core, copy, file.id, &piece, buf).await;
    Ok(is_read.then(|| ChunkRead::new(buf, *location, piece)))
}

async fn read_from(
    core: &Core,
    copy: usize,
    file: crate::io::FileId,
    piece: &Piece,
    mut buf: Buf,
) -> (Buf, bool) {
    let bytes = piece.blocks.end - piece.blocks.start;
    let Some(bytes) = usize::try_from(bytes).ok().filter(|bytes| *bytes <= buf.capacity()) else {
        return (buf, false);
    };
    buf.set_len(bytes);
    let (buf, read) = core.disk.read_copy_at(copy, file, buf, piece.blocks.start).await;
    (buf, read.is_ok())
}

/// A buffer that nobody has to wait for: its asker may hold others.
fn spare(core: &Core, piece: &Piece) -> Result<Buf> {
    core.pool
        .try_acquire(class(piece))
        .ok_or_else(|| Error::new(ErrorKind::Unavailable, "take a buffer to compare copies with"))
}
