//! Whether an extent is what was written, on every copy, told without keys.
//!
//! Owns: the verdict on one extent, for whoever looks after a volume. Does not know: which extents
//! are alive, tags.
//!
//! Invariants
//! - An extent is called flawed only if no copy of it can be read with the right identity and every
//!   checksum.
//! - What is wrong on one copy and right on another is put right before anything is said.

use std::sync::Arc;

use super::copies;
use super::core::Core;
use super::location::Location;
use super::read::{self, ExtentReader, Mismatch, bad_chunks};
use super::segment::ReadPin;
use super::volume::Volume;
use crate::error::{ErrorKind, Result};
use crate::format::{ExtentHeader, ExtentId};
use crate::io::MirrorDisk;

/// What is wrong with an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    /// Header, table or a chunk does not have its checksum.
    Rot,
    /// The device cannot read it.
    Unreadable,
    /// An intact record of another extent lies there.
    Misplaced,
}

/// What a look at every copy of an extent found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Exam {
    /// What is wrong with it, if it cannot be read whole from any copy.
    pub(crate) flaw: Option<Flaw>,
    /// Ranges of copies that were wrong and are right again.
    pub(crate) repaired: u64,
    /// Ranges of copies that are wrong and could not be put right.
    pub(crate) left: u64,
}

impl Volume {
    /// Reads an extent whole, on every copy, and puts right what can be put right.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: the location names a range that is not there.
    /// - [`ErrorKind::Moved`]: it names a use of its segment that is over.
    /// - [`ErrorKind::Unavailable`]: the disk did not answer, or no buffer was free.
    pub(crate) async fn examine(&self, id: ExtentId, location: &Location) -> Result<Exam> {
        let core = self.core();
        let _pin = ReadPin::new(core, location)?;
        let mut exam = Exam::default();
        if core.disk.copies() > 1 {
            // A copy that is away is known to be; the rebuild sees to it.
            if !core.disk.mirror().map(MirrorDisk::status).is_some_and(|it| it.is_degraded()) {
                let healed = copies::heal(core, id, location).await?;
                (exam.repaired, exam.left) = (healed.repaired, healed.left);
                if healed.left == 0 {
                    return Ok(exam);
                }
            }
            if is_readable(core, id, location).await? {
                return Ok(exam);
            }
        }
        exam.flaw = flaw(core, id, location).await?;
        Ok(exam)
    }
}

/// Whether every piece can be had from some copy.
async fn is_readable(core: &Arc<Core>, id: ExtentId, location: &Location) -> Result<bool> {
    let chunks = 0..location.n_chunks();
    let mut reader = ExtentReader::new(Arc::clone(core), id, *location, chunks)?.one_by_one();
    loop {
        match reader.next().await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// What is wrong with the copy that reads come from.
async fn flaw(core: &Arc<Core>, id: ExtentId, location: &Location) -> Result<Option<Flaw>> {
    let mut table: Option<Vec<u32>> = None;
    let mut left = 0..location.n_chunks();
    while !left.is_empty() {
        let piece = location.piece(left.clone(), table.is_none());
        left.start = piece.chunks.end;
        let buf = core.pool.acquire(read::class(&piece)).await;
        let read = match read::fetch(core, location, piece, buf).await {
            Ok((piece, buf)) => read::ChunkRead::new(buf, *location, piece),
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Some(Flaw::Unreadable)),
            Err(error) => return Err(error),
        };
        let table = match &mut table {
            Some(table) => table,
            none => match read::check_head(core, id, location, read::head(&read)) {
                Ok(found) => none.insert(found),
                Err(Mismatch::Header(_)) => return Ok(Some(Flaw::Rot)),
                Err(Mismatch::Identity(_)) => return Ok(Some(Flaw::Misplaced)),
            },
        };
        if bad_chunks(&read, table).next().is_some() {
            return Ok(Some(Flaw::Rot));
        }
    }
    Ok(None)
}

/// Whether the bytes from a record's header on hold all of it, with every checksum right; `None` if
/// they end before it does.
pub(super) fn is_intact(bytes: &[u8], location: &Location) -> Option<bool> {
    let layout = location.layout();
    let whole = bytes.get(..usize::try_from(location.stored_len()).ok()?)?;
    let Ok((_, table)) = ExtentHeader::decode(whole) else { return Some(false) };
    let table = table.to_vec();
    let is_right = |index: u32| {
        let range = layout.chunk_range(index);
        let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
        let expected = table.get(usize::try_from(index).ok()?)?;
        Some(crate::format::crc32c(whole.get(range)?) == *expected)
    };
    Some((0..location.n_chunks()).all(|index| is_right(index) == Some(true)))
}
