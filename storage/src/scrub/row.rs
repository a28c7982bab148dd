//! The rows of scrubbing: how far it is, and what is damaged.
//!
//! Owns: their bytes. Knows nothing of: how they come about.
//!
//! Invariants
//! - Pure; what decodes encodes to the same bytes again.
//!   Bytes: docs/FORMAT.md, "Rows of gc".

use std::fmt;

use crate::blob::{ExtentId, Flaw, Location};
use crate::error::Result;
use crate::meta::{Family, RowKey};
use crate::rows::{Reader, Writer};
use crate::types::{NsId, StreamId};

/// The row of the cursor in `gc`.
const CURSOR: u8 = b'C';
/// The first byte of a row of damage in `gc`.
pub(crate) const DAMAGE: u8 = b'D';

/// What is wrong with stored bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamageKind {
    /// A checksum is wrong.
    Rot,
    /// The device cannot read them.
    Unreadable,
    /// An intact record of another extent lies there, or none of this use of the segment.
    Misplaced,
    /// The checksums are right and a tag is not. Scrubbing, which has no keys, never says so: a
    /// read does.
    Tampered,
}

impl DamageKind {
    const ALL: [Self; 4] = [Self::Rot, Self::Unreadable, Self::Misplaced, Self::Tampered];

    /// The word used in logs and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rot => "rot",
            Self::Unreadable => "unreadable",
            Self::Misplaced => "misplaced",
            Self::Tampered => "tampered",
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Rot => 1,
            Self::Unreadable => 2,
            Self::Misplaced => 3,
            Self::Tampered => 4,
        }
    }
}

impl From<Flaw> for DamageKind {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Rot => Self::Rot,
            Flaw::Unreadable => Self::Unreadable,
            Flaw::Misplaced => Self::Misplaced,
        }
    }
}

/// Where a damaged extent lies. As text it is what a page of the list goes on after.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DamagePlace {
    /// The segment.
    pub segment: u32,
    /// Where its record starts in the segment, in bytes.
    pub offset: u64,
    /// The use of the segment.
    pub incarnation: u64,
}

impl DamagePlace {
    pub(crate) fn of(location: &Location) -> Self {
        Self {
            segment: location.segment(),
            offset: location.offset(),
            incarnation: location.incarnation(),
        }
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let segment = u32::from_str_radix(parts.next()?, 16).ok()?;
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let place = Self { segment, offset: number()?, incarnation: number()? };
        (place.to_string() == text).then_some(place)
    }

    pub(super) fn row(self) -> RowKey {
        let bytes = [
            &[DAMAGE],
            self.segment.to_be_bytes().as_slice(),
            &self.offset.to_be_bytes(),
            &self.incarnation.to_be_bytes(),
        ]
        .concat();
        RowKey { family: Family::Gc, bytes }
    }

    fn from_key(row_key: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(row_key, "key of a damage row");
        reader.u8()?;
        let place =
            Self { segment: reader.u32()?, offset: reader.u64()?, incarnation: reader.u64()? };
        reader.end()?;
        Ok(place)
    }
}

impl From<&Location> for DamagePlace {
    fn from(location: &Location) -> Self {
        Self::of(location)
    }
}

impl fmt::Display for DamagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:08x}-{:x}", self.segment, self.offset, self.incarnation)
    }
}

/// A row of the list, behind its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DamageRow {
    pub(crate) kind: DamageKind,
    pub(crate) id: ExtentId,
    pub(crate) found_ms: u64,
}

impl DamageRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::versioned();
        out.u8(self.kind.to_byte()).put(self.id.ns.as_bytes()).put(self.id.stream.as_bytes());
        out.u32(self.id.number).u64(self.found_ms);
        out.0
    }

    /// Reads a row, its key included.
    pub(crate) fn decode(row_key: &[u8], value: &[u8]) -> Result<(DamagePlace, Self)> {
        let mut reader = Reader::versioned(value, "damage row")?;
        let kind = reader.u8()?;
        let kind = DamageKind::ALL.into_iter().find(|known| known.to_byte() == kind);
        let kind = kind.ok_or_else(|| reader.corrupt("an unknown kind"))?;
        let ns = NsId::from_bytes(reader.array()?);
        let stream = StreamId::from_bytes(reader.array()?);
        let id = ExtentId { ns, stream, number: reader.u32()? };
        let row = Self { kind, id, found_ms: reader.u64()? };
        reader.end()?;
        Ok((DamagePlace::from_key(row_key)?, row))
    }
}

/// What a pass is at.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Phase {
    /// It is over, or none ever began.
    #[default]
    Idle,
    Segments,
    Metadata,
    Checkpoints,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Idle, Self::Segments, Self::Metadata, Self::Checkpoints];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Segments => "segments",
            Self::Metadata => "metadata",
            Self::Checkpoints => "checkpoints",
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Idle => 0,
            Self::Segments => 1,
            Self::Metadata => 2,
            Self::Checkpoints => 3,
        }
    }
}

/// How far a pass is. What it counts is of the pass under way, or else of the last one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Cursor {
    pub(crate) phase: Phase,
    /// The segment that is looked at next.
    pub(crate) next: u32,
    /// The number of the pass.
    pub(crate) pass: u64,
    pub(crate) started_ms: u64,
    /// When the last whole pass ended; 0 for never.
    pub(crate) ended_ms: u64,
    /// Segments that were read.
    pub(crate) segments: u64,
    /// Bytes that records take in them.
    pub(crate) bytes: u64,
    /// Ranges of copies that were put right.
    pub(crate) repaired: u64,
    /// Ranges of copies that could not be put right.
    pub(crate) left: u64,
    /// Damaged records that no row names.
    pub(crate) dead: u64,
    /// Families of metadata, and files of checkpoints, that are not as they were written.
    pub(crate) metadata_faults: u64,
    pub(crate) checkpoint_faults: u64,
}

impl Cursor {
    pub(crate) fn row() -> RowKey {
        RowKey { family: Family::Gc, bytes: vec![CURSOR] }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::versioned();
        out.u8(self.phase.to_byte()).u32(self.next);
        out.u64(self.pass).u64(self.started_ms).u64(self.ended_ms);
        out.u64(self.segments).u64(self.bytes);
        out.u64(self.repaired).u64(self.left).u64(self.dead);
        out.u64(self.metadata_faults).u64(self.checkpoint_faults);
        out.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::versioned(value, "cursor of scrubbing")?;
        let phase = reader.u8()?;
        let phase = Phase::ALL.into_iter().find(|known| known.to_byte() == phase);
        let cursor = Self {
            phase: phase.ok_or_else(|| reader.corrupt("an unknown phase"))?,
            next: reader.u32()?,
            pass: reader.u64()?,
            started_ms: reader.u64()?,
            ended_ms: reader.u64()?,
            segments: reader.u64()?,
            bytes: reader.u64()?,
            repaired: reader.u64()?,
            left: reader.u64()?,
            dead: reader.u64()?,
            metadata_faults: reader.u64()?,
            checkpoint_faults: reader.u64()?,
        };
        reader.end()?;
        Ok(cursor)
    }
}
