//! Reading extents: aligned pieces, checks of identity and rot, the verdict after a failed tag.
//!
//! Owns: what is read together, what is checked when. Does not know: keys; a tag is checked above.
//!
//! Invariants
//! - A reader of a whole extent yields no chunk whose checksum is wrong, and none at all if the
//!   header names another extent.
//! - A reader of a part reads no header; what it yields has been checked by nobody.
//! - Reading goes on when the volume is fenced.
//! - Whatever reads holds a pin on the segment, from before the first byte to after the last.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;
use tokio::task::JoinHandle;

use super::copies;
use super::core::Core;
use super::location::{Location, Piece};
use super::segment::{ReadPin, SegmentFile};
use crate::bugs::{Bug, seeded};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ExtentHeader, ExtentId, HeaderError, RecordBody, crc32c};
use crate::io::{Buf, BufClass};

/// What happened to a chunk whose tag did not verify.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// The bytes changed by themselves: a checksum is wrong, or the device cannot read them.
    Rot,
    /// The checksum is right: somebody who could write to the volume changed them, or the location
    /// and the keys do not belong together. A security event.
    Tampered,
    /// An intact record of another extent lies there: a write was lost or went astray, or records
    /// were exchanged.
    Misplaced,
}

/// One chunk in a [`ChunkRead`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkSpan {
    /// The chunk's number in the extent.
    pub index: u32,
    /// Where its ciphertext and tag lie in the buffer.
    pub range: Range<usize>,
}

/// Some chunks of an extent, in one buffer.
#[derive(Debug)]
pub struct ChunkRead {
    buf: Buf,
    location: Location,
    piece: Piece,
}

impl ChunkRead {
    pub(super) fn new(buf: Buf, location: Location, piece: Piece) -> Self {
        Self { buf, location, piece }
    }

    /// All that was read, the blocks around the chunks included.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Where each chunk lies. The answer does not borrow the buffer, so that chunks can be
    /// decrypted in place.
    pub fn spans(&self) -> impl Iterator<Item = ChunkSpan> + use<> {
        let location = self.location;
        let blocks_start = self.piece.blocks.start;
        self.piece.chunks.clone().map(move |index| span(&location, blocks_start, index))
    }

    /// How many chunks there are.
    pub fn len(&self) -> usize {
        self.piece.chunks.len()
    }

    /// Whether there are none, which does not happen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer. It goes back to the pool when it is dropped.
    pub fn buf_mut(&mut self) -> &mut Buf {
        &mut self.buf
    }

    /// The buffer alone; take [`Self::spans`] first.
    pub fn into_buf(self) -> Buf {
        self.buf
    }

    pub(super) fn chunk(&self, index: u32) -> &[u8] {
        let span = span(&self.location, self.piece.blocks.start, index);
        self.buf.get(span.range).unwrap_or_default()
    }
}

fn span(location: &Location, blocks_start: u64, index: u32) -> ChunkSpan {
    let chunk = location.layout.chunk_range(index);
    let at = |end: u32| {
        let in_buf = location.offset + u64::from(end) - blocks_start;
        usize::try_from(in_buf).unwrap_or(usize::MAX)
    };
    ChunkSpan { index, range: at(chunk.start)..at(chunk.end) }
}

/// Reads chunks of one extent in order, one piece of at most 1 MiB after another, and one ahead if
/// the pool has a buffer to spare.
pub struct ExtentReader {
    core: Arc<Core>,
    id: ExtentId,
    location: Location,
    /// Chunks not yet yielded.
    left: Range<u32>,
    /// What the next piece has to pass.
    checks: Checks,
    /// The read under way; it goes on if the reader is dropped.
    ahead: Option<JoinHandle<Result<(Piece, Buf)>>>,
    /// Whether to read ahead.
    eager: bool,
    _pin: ReadPin,
}

enum Checks {
    /// A part of the extent: the tags are enough.
    None,
    /// The header is in the next piece.
    Header,
    /// Checksums of all chunks.
    Table(Vec<u32>),
}

impl ExtentReader {
    pub(super) fn new(
        core: Arc<Core>,
        id: ExtentId,
        location: Location,
        chunks: Range<u32>,
    ) -> Result<Self> {
        let pin = ReadPin::new(&core, &location)?;
        if chunks.end > location.n_chunks() || chunks.is_empty() {
            let during = format!("read chunks {chunks:?} of {}", location.n_chunks());
            return Err(Error::new(ErrorKind::Misuse, during));
        }
        let is_whole = chunks == (0..location.n_chunks());
        let checks = if is_whole { Checks::Header } else { Checks::None };
        Ok(Self { core, id, location, left: chunks, checks, ahead: None, eager: true, _pin: pin })
    }

    /// Never holds a second buffer: for work that clients come before.
    pub(super) fn one_by_one(mut self) -> Self {
        self.eager = false;
        self
    }

    /// The next chunks, `None` after the last.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: the device cannot read them, or a whole extent failed a check.
    /// - [`ErrorKind::Unavailable`]: the disk did not answer.
    pub async fn next(&mut self) -> Result<Option<ChunkRead>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let fetched = if let Some(ahead) = &mut self.ahead {
            let done = ahead.await;
            self.ahead = None;
            done.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "read ahead")))
        } else {
            let piece = self.piece();
            let buf = self.core.pool.acquire(class(&piece)).await;
            fetch(&self.core, &self.location, piece, buf).await
        };
        // A piece that fails stays next: whoever asks again gets the error again, never a gap.
        let checked = fetched.and_then(|(piece, buf)| {
            let read = ChunkRead { buf, location: self.location, piece };
            self.check(&read).map(|()| read)
        });
        let read = match checked {
            Err(error) if error.kind() == ErrorKind::Corrupt => self.rescue(error).await?,
            checked => checked?,
        };
        self.left.start = read.piece.chunks.end;
        self.read_ahead();
        Ok(Some(read))
    }

    /// The next piece from another copy, if there is one that is good.
    async fn rescue(&mut self, error: Error) -> Result<ChunkRead> {
        let piece = self.piece();
        let found = copies::rescue(&self.core, self.id, &self.location, &piece).await?;
        let (read, table) = found.ok_or(error)?;
        if !matches!(self.checks, Checks::None) {
            self.checks = Checks::Table(table);
        }
        Ok(read)
    }

    fn piece(&self) -> Piece {
        self.location.piece(self.left.clone(), matches!(self.checks, Checks::Header))
    }

    fn read_ahead(&mut self) {
        if self.left.is_empty() || !self.eager {
            return;
        }
        let piece = self.piece();
        if let Some(buf) = self.core.pool.try_acquire(class(&piece)) {
            let (core, location) = (Arc::clone(&self.core), self.location);
            let fetching = async move { fetch(&core, &location, piece, buf).await };
            self.ahead = Some(tokio::spawn(fetching));
        }
    }

    fn check(&mut self, read: &ChunkRead) -> Result<()> {
        if matches!(self.checks, Checks::Header) {
            let table = check_head(&self.core, self.id, &self.location, head(read))
                .map_err(|what| corrupt(&self.location, what))?;
            self.checks = Checks::Table(table);
        }
        if let Checks::Table(table) = &self.checks
            && let Some(chunk) = bad_chunks(read, table).next()
            && !seeded(Bug::IgnoreTornTail)
        {
            return Err(corrupt(&self.location, format!("the checksum of chunk {chunk} is wrong")));
        }
        Ok(())
    }
}

/// The chunks of `read` whose checksum is not that of `table`.
pub(super) fn bad_chunks(read: &ChunkRead, table: &[u32]) -> impl Iterator<Item = u32> {
    let is_bad = |index: &u32| {
        let expected = usize::try_from(*index).ok().and_then(|index| table.get(index));
        expected != Some(&crc32c(read.chunk(*index)))
    };
    read.piece.chunks.clone().filter(is_bad)
}

/// The bytes from the record's start on, in a piece that was read with its header.
pub(super) fn head(read: &ChunkRead) -> &[u8] {
    let start = read.location.offset - read.piece.blocks.start;
    read.buf.get(usize::try_from(start).unwrap_or(usize::MAX)..).unwrap_or_default()
}

/// Why a record is not the one that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mismatch {
    Header(HeaderError),
    Identity(&'static str),
}

impl From<Mismatch> for String {
    fn from(mismatch: Mismatch) -> Self {
        match mismatch {
            Mismatch::Header(error) => error.to_string(),
            Mismatch::Identity(what) => format!("the header names another {what}"),
        }
    }
}

/// Checks that the record at `bytes` is `id` at `location`; its table.
pub(super) fn check_head(
    core: &Core,
    id: ExtentId,
    location: &Location,
    bytes: &[u8],
) -> Result<Vec<u32>, Mismatch> {
    let (header, table) = ExtentHeader::decode(bytes).map_err(Mismatch::Header)?;
    let RecordBody::Extent { id: found, layout, .. } = header.body else {
        return Err(Mismatch::Identity("kind of record"));
    };
    let same = [
        ("volume", header.volume == core.volume),
        ("segment", header.segment == location.segment),
        ("use of the segment", header.incarnation == location.incarnation),
        ("namespace", found.ns == id.ns),
        ("stream", found.stream == id.stream),
        ("extent number", found.number == id.number),
        ("length", layout == location.layout),
    ];
    match same.into_iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(Mismatch::Identity(what)),
        None => Ok(table.to_vec()),
    }
}

pub(super) fn class(piece: &Piece) -> BufClass {
    let bytes = usize::try_from(piece.blocks.end - piece.blocks.start).unwrap_or(usize::MAX);
    BufClass::holding(bytes).unwrap_or(BufClass::Large)
}

pub(super) async fn fetch(
    core: &Core,
    location: &Location,
    piece: Piece,
    mut buf: Buf,
) -> Result<(Piece, Buf)> {
    let file = file(core, location.segment).await?;
    let bytes = piece.blocks.end - piece.blocks.start;
    buf.set_len(usize::try_from(bytes).unwrap_or(usize::MAX));
    let (buf, read) = core.disk.read_at(file.id, buf, piece.blocks.start).await;
    read.map_err(|error| unreadable(location, error))?;
    Ok((piece, buf))
}

/// The open file of a segment that has extents.
pub(super) async fn file(core: &Core, segment: u32) -> Result<Arc<SegmentFile>> {
    core.segments.file(&core.disk, segment).await.map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let kind = if missing { ErrorKind::Corrupt } else { ErrorKind::Unavailable };
        Error::new(kind, format!("open segment {segment}")).with_source(error)
    })
}

fn unreadable(location: &Location, error: io::Error) -> Error {
    let kind = if is_rot(&error) { ErrorKind::Corrupt } else { ErrorKind::Unavailable };
    Error::new(kind, during(location)).with_source(error)
}

/// Whether the device said that the bytes are gone, rather than that it is busy or away.
pub(super) fn is_rot(error: &io::Error) -> bool {
    let lost = [Errno::IO, Errno::NODATA, Errno::ILSEQ].map(Errno::raw_os_error);
    let lost = error.raw_os_error().is_some_and(|code| lost.contains(&code));
    lost || error.kind() == io::ErrorKind::UnexpectedEof
}

fn corrupt(location: &Location, what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, during(location))
        .with_source(what.into())
        .with_advice("run `kluis check`")
}

fn during(location: &Location) -> String {
    let Location { segment, offset, incarnation, .. } = location;
    format!("read the extent at {offset} of segment {segment} (incarnation {incarnation})")
}

/// Reads header and table of an extent, without its chunks if they do not lie in the same blocks.
async fn table(
    core: &Core,
    id: ExtentId,
    location: &Location,
) -> Result<Result<Vec<u32>, Mismatch>> {
    let piece = location.piece(0..1, true);
    let buf = core.pool.acquire(class(&piece)).await;
    let (piece, buf) = fetch(core, location, piece, buf).await?;
    let read = ChunkRead { buf, location: *location, piece };
    Ok(check_head(core, id, location, head(&read)))
}

pub(super) async fn classify(
    core: &Arc<Core>,
    id: ExtentId,
    location: &Location,
    chunk: u32,
) -> Result<Damage> {
    let _pin = ReadPin::new(core, location)?;
    let gone = |error: Error| match error.kind() {
        ErrorKind::Corrupt => Ok(Damage::Rot),
        _ => Err(error),
    };
    let table = match table(core, id, location).await {
        Ok(Ok(table)) => table,
        Ok(Err(Mismatch::Header(_))) => return Ok(Damage::Rot),
        Ok(Err(Mismatch::Identity(_))) => return Ok(Damage::Misplaced),
        Err(error) => return gone(error),
    };
    let end = chunk.saturating_add(1).min(location.n_chunks());
    let piece = location.piece(chunk.min(end - 1)..end, false);
    let buf = core.pool.acquire(class(&piece)).await;
    match fetch(core, location, piece, buf).await {
        Ok((piece, buf)) => {
            let read = ChunkRead { buf, location: *location, piece };
            let is_bad = bad_chunks(&read, &table).next().is_some();
            Ok(if is_bad { Damage::Rot } else { Damage::Tampered })
        }
        Err(error) => gone(error),
    }
}

pub(super) async fn verify(
    core: &Arc<Core>,
    id: ExtentId,
    location: &Location,
) -> Result<Vec<u32>> {
    let _pin = ReadPin::new(core, location)?;
    let table = table(core, id, location).await?.map_err(|what| corrupt(location, what))?;
    let mut bad = Vec::new();
    let mut left = 0..location.n_chunks();
    while !left.is_empty() {
        let piece = location.piece(left.clone(), false);
        left.start = piece.chunks.end;
        let buf = core.pool.acquire(class(&piece)).await;
        match fetch(core, location, piece.clone(), buf).await {
            Ok((piece, buf)) => {
                let read = ChunkRead { buf, location: *location, piece };
                bad.extend(bad_chunks(&read, &table));
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => bad.extend(piece.chunks),
            Err(error) => return Err(error),
        }
    }
    Ok(bad)
}
