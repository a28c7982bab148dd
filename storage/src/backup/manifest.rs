//! What a snapshot consists of, as text; and lists of files with their digests.
//!
//! Owns: these texts and the rules that every field must obey. Knows nothing of: files, where
//! anything lies.
//!
//! Invariants
//! - A text ends in the digest of all that stands before it; one that was changed anywhere is
//!   refused.
//! - Decoding never panics, and what it accepts encodes to the same bytes.
//! - The pieces of a segment cover it from its start without a gap; where they overlap, the later
//!   one counts.
//!   Bytes: docs/FORMAT.md, "Backup repository".

use std::fmt::{self, Write as _};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::format::{BLOCK_BYTES, VolumeId};

/// The first line of a manifest.
const MANIFEST: &str = "kluis backup 1";
/// The first line of a list.
const LIST: &str = "kluis files 1";
/// The largest text: a volume of 16,384 segments in 60 pieces each has about 100 MiB.
pub(super) const TEXT_BYTES_MAX: u64 = 256 << 20;

/// SHA-256 of a file's bytes, and its name in the repository.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Sum(pub(super) [u8; 32]);

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sum {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut sum = Self([0; 32]);
        hex::decode_to_slice(text, &mut sum.0).map_err(drop)?;
        // One digest has one name.
        if sum.to_string() == text { Ok(sum) } else { Err(()) }
    }
}

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupKind {
    /// Metadata, segments, keys and audit log.
    Full,
    /// Metadata, keys and audit log.
    Metadata,
}

impl BackupKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Metadata => "metadata",
        }
    }
}

/// The fields in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: BackupKind,
    pub(super) created_ms: u64,
    pub(super) volume: VolumeId,
    pub(super) segment_bytes: u64,
    pub(super) pooled_families: u32,
    pub(super) open_count: u64,
    pub(super) incarnation_next: u64,
    /// The metadata's sequence number: everything up to it is in the snapshot.
    pub(super) sequence: u64,
    /// No record in the pieces knows a later one.
    pub(super) watermark: u64,
    /// Bytes of segments that the device could not read; zeros stand for them.
    pub(super) unreadable_bytes: u64,
}

/// A file of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MetaFile {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// When it was written; with name and length it tells whether it is the same file.
    pub(super) modified_ns: u64,
    pub(super) sum: Sum,
}

/// A run of a segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) sum: Sum,
}

/// One use of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentCopy {
    pub(super) segment: u32,
    pub(super) incarnation: u64,
    /// Bytes from the start that did not change any more when they were copied.
    pub(super) settled: u64,
    pub(super) pieces: Vec<Piece>,
}

impl SegmentCopy {
    /// Where its copied bytes end.
    pub(super) fn end(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.to).max().unwrap_or(0)
    }
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) head: Head,
    pub(super) files: Vec<MetaFile>,
    pub(super) segments: Vec<SegmentCopy>,
}

impl Manifest {
    pub(super) fn encode(&self) -> String {
        let Head { kind, created_ms, volume, segment_bytes, pooled_families, .. } = self.head;
        let Head { open_count, incarnation_next, sequence, watermark, .. } = self.head;
        let mut text = format!(
            "{MANIFEST}\nkind {}\ncreated_ms {created_ms}\nvolume {volume}\n\
             segment_bytes {segment_bytes}\npooled_families {pooled_families}\n\
             open_count {open_count}\nincarnation_next {incarnation_next}\nsequence {sequence}\n\
             watermark {watermark}\nunreadable_bytes {}\n",
            kind.as_str(),
            self.head.unreadable_bytes
        );
        for MetaFile { name, bytes, modified_ns, sum } in &self.files {
            let _ = writeln!(text, "file {name} {bytes} {modified_ns} {sum}");
        }
        for SegmentCopy { segment, incarnation, settled, pieces } in &self.segments {
            let _ = writeln!(text, "segment {segment} {incarnation} {settled}");
            for Piece { from, to, sum } in pieces {
                let _ = writeln!(text, "piece {from} {to} {sum}");
            }
        }
        seal(text)
    }

    /// Reads a manifest; none if any rule is broken.
    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        let mut lines = unseal(text)?.lines().peekable();
        let head = Head::decode(&mut lines)?;
        let mut manifest = Self { head, files: Vec::new(), segments: Vec::new() };
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match *words.as_slice() {
                ["file", name, bytes, modified_ns, sum] if manifest.segments.is_empty() => {
                    let (bytes, modified_ns) = (number(bytes)?, number(modified_ns)?);
                    let sum = sum.parse().ok()?;
                    manifest.files.push(MetaFile { name: plain(name)?, bytes, modified_ns, sum });
                }
                ["segment", segment, incarnation, settled] => {
                    let segment = u32::try_from(number(segment)?).ok()?;
                    let (incarnation, settled) = (number(incarnation)?, number(settled)?);
                    let copy = SegmentCopy { segment, incarnation, settled, pieces: Vec::new() };
                    manifest.segments.push(copy);
                }
                ["piece", from, to, sum] => {
                    let (from, to, sum) = (number(from)?, number(to)?, sum.parse().ok()?);
                    manifest.segments.last_mut()?.pieces.push(Piece { from, to, sum });
                }
                _ => return None,
            }
        }
        manifest.is_sound().then_some(manifest)
    }

    /// The rules between fields.
    fn is_sound(&self) -> bool {
        let Head { segment_bytes, .. } = self.head;
        let names_ascend = self.files.is_sorted_by(|one, next| one.name < next.name);
        let segments_ascend = self.segments.is_sorted_by(|one, next| one.segment < next.segment);
        let is_whole = |copy: &SegmentCopy| {
            let mut end = 0;
            let follows = copy.pieces.iter().all(|piece| {
                let blocks = [piece.from, piece.to].iter().all(|at| at.is_multiple_of(BLOCK_BYTES));
                let joins = piece.from <= end && piece.from < piece.to && piece.to >= end;
                end = piece.to;
                blocks && joins
            });
            follows && end <= segment_bytes && copy.settled <= end
        };
        let sized = segment_bytes > 0 && segment_bytes.is_multiple_of(BLOCK_BYTES);
        sized && names_ascend && segments_ascend && self.segments.iter().all(is_whole)
    }

    /// Every file of the repository that the snapshot needs, with its length and what it is.
    pub(super) fn needs(&self) -> impl Iterator<Item = (Sum, u64, String)> {
        let files = self.files.iter().map(|it| (it.sum, it.bytes, format!("meta/{}", it.name)));
        let pieces = self.segments.iter().flat_map(|copy| {
            copy.pieces.iter().map(|piece| {
                let Piece { from, to, sum } = *piece;
                let what = format!("segment {} bytes {from} to {to}", copy.segment);
                (sum, to - from, what)
            })
        });
        files.chain(pieces)
    }
}

impl Head {
    fn decode<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        if lines.next()? != MANIFEST {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let kind = match field("kind")? {
            "full" => BackupKind::Full,
            "metadata" => BackupKind::Metadata,
            _ => return None,
        };
        Some(Self {
            kind,
            created_ms: number(field("created_ms")?)?,
            volume: field("volume")?.parse().ok()?,
            segment_bytes: number(field("segment_bytes")?)?,
            pooled_families: u32::try_from(number(field("pooled_families")?)?).ok()?,
            open_count: number(field("open_count")?)?,
            incarnation_next: number(field("incarnation_next")?)?,
            sequence: number(field("sequence")?)?,
            watermark: number(field("watermark")?)?,
            unreadable_bytes: number(field("unreadable_bytes")?)?,
        })
    }
}

/// A file of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sum: Sum,
}

/// Files that lie beside the list, in order.
pub(super) fn encode_list(files: &[Listed]) -> String {
    let mut text = format!("{LIST}\n");
    for Listed { name, bytes, sum } in files {
        let _ = writeln!(text, "file {name} {bytes} {sum}");
    }
    seal(text)
}

/// Reads a list; none if any rule is broken.
pub(super) fn decode_list(text: &[u8]) -> Option<Vec<Listed>> {
    let mut lines = unseal(text)?.lines();
    if lines.next()? != LIST {
        return None;
    }
    let read = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let ["file", name, bytes, sum] = *words.as_slice() else { return None };
        Some(Listed { name: plain(name)?, bytes: number(bytes)?, sum: sum.parse().ok()? })
    };
    lines.map(read).collect()
}

/// Adds the last line.
fn seal(mut text: String) -> String {
    let sum = Sum(Sha256::digest(&text).into());
    let _ = writeln!(text, "end {sum}");
    text
}

/// The text without its last line, if that is the digest of the rest.
fn unseal(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (before, last) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let body = text.get(..=before.len())?;
    let sum: Sum = last.strip_prefix("end ")?.parse().ok()?;
    (Sha256::digest(body).as_slice() == sum.0).then_some(body)
}

/// A number in its only spelling.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// A name that stays in its folder.
pub(super) fn plain(name: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_plain = !name.is_empty() && !name.starts_with('.') && name.bytes().all(fits);
    is_plain.then(|| name.to_owned())
}

#[cfg(test)]
mod tests;
