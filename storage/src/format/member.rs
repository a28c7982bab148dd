//! The membership record: what a directory knows of the mirror it belongs to.
//!
//! Owns: its layout, its checksum, which combinations of states there are. Knows nothing of: which
//! of two files holds the newer one, or what follows from several records that differ.
//!
//! Invariants
//! - Every record says that at least one member is current.
//! - Bytes without a meaning are zero.
//!   Bytes: docs/FORMAT.md, "Member".

use std::fmt;

use super::{Fields, crc32c};

#[cfg(test)]
mod tests;

/// Bytes of a record: one block.
pub const MEMBER_BYTES: usize = 4096;
/// The version that this build writes, and the newest it reads.
pub const MEMBER_VERSION: u32 = 1;
/// Members of a mirror.
pub const SEATS: usize = 2;
/// The longest cursor: one byte holds its length, and no name on a volume is longer.
pub const CURSOR_BYTES_MAX: usize = 255;

/// The first bytes of every record.
const MAGIC: [u8; 8] = *b"KLUISMEM";
/// Bytes before the checksum, which ends the block.
const COVERED_BYTES: usize = MEMBER_BYTES - 4;
/// What the witness calls itself.
const WITNESS: u8 = 255;

kluis_kms::id16! {
    /// One mirror. Its members and its witness name it.
    pub struct MirrorId;
}

/// How a member stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeatState {
    /// It has every byte that was acknowledged.
    Current,
    /// It misses some, or may.
    Out,
    /// It takes every write and is being filled with what lies there already.
    Rebuilding,
}

impl SeatState {
    fn of(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Current),
            2 => Some(Self::Out),
            3 => Some(Self::Rebuilding),
            _ => None,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Current => 1,
            Self::Out => 2,
            Self::Rebuilding => 3,
        }
    }
}

/// Who keeps a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// The member of this number, below [`SEATS`].
    Seat(usize),
    /// The data directory.
    Witness,
}

impl Holder {
    fn code(self) -> u8 {
        match self {
            Self::Seat(seat) => u8::try_from(seat).unwrap_or(WITNESS),
            Self::Witness => WITNESS,
        }
    }

    fn of(code: u8) -> Option<Self> {
        match code {
            WITNESS => Some(Self::Witness),
            seat if usize::from(seat) < SEATS => Some(Self::Seat(usize::from(seat))),
            _ => None,
        }
    }
}

/// Why bytes are not a record that this build can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberError {
    /// The checksum does not match, or the bytes are too few.
    Crc,
    /// The checksum matches but a field breaks a rule; the name of the field.
    Field(&'static str),
    /// Not a record at all.
    NoMagic,
    /// An intact record of a later version.
    Newer(u32),
}

impl fmt::Display for MemberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crc => f.write_str("the checksum of the membership record does not match"),
            Self::Field(name) => write!(f, "the field {name} breaks a rule of the format"),
            Self::NoMagic => f.write_str("there is no membership record"),
            Self::Newer(version) => {
                write!(f, "member version {version}; this build reads up to {MEMBER_VERSION}")
            }
        }
    }
}

impl std::error::Error for MemberError {}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Which of two records is the newer.
    pub seq: u64,
    /// The mirror.
    pub mirror: MirrorId,
    /// Raised with every change of the states.
    pub generation: u64,
    /// Who keeps this record.
    pub holder: Holder,
    /// How the members stand.
    pub states: [SeatState; SEATS],
    /// The last file that a rebuild has copied, at most [`CURSOR_BYTES_MAX`] bytes.
    pub cursor: String,
}

impl Member {
    /// The record as it is written.
    pub fn encode(&self) -> Vec<u8> {
        let cursor = self.cursor.as_bytes();
        let cursor = cursor.get(..CURSOR_BYTES_MAX).unwrap_or(cursor);
        let mut out = Vec::with_capacity(MEMBER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&MEMBER_VERSION.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(self.mirror.as_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.push(self.holder.code());
        out.extend(self.states.map(SeatState::code));
        out.push(u8::try_from(cursor.len()).unwrap_or_default());
        out.extend_from_slice(cursor);
        out.resize(COVERED_BYTES, 0);
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a record from the front of `bytes`.
    ///
    /// # Errors
    /// Every field is checked; see [`MemberError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MemberError> {
        if bytes.first_chunk() != Some(&MAGIC) {
            return Err(MemberError::NoMagic);
        }
        let block = bytes.first_chunk::<MEMBER_BYTES>().ok_or(MemberError::Crc)?;
        let (covered, crc) = block.split_last_chunk::<4>().ok_or(MemberError::Crc)?;
        if crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(MemberError::Crc);
        }
        let mut fields = Fields(covered);
        let _magic: Option<[u8; 8]> = fields.take();
        let version = fields.u32().ok_or(MemberError::Crc)?;
        if version > MEMBER_VERSION {
            return Err(MemberError::Newer(version));
        }
        if version == 0 {
            return Err(MemberError::Field("version"));
        }
        Self::fields(fields)
    }

    fn fields(mut fields: Fields<'_>) -> Result<Self, MemberError> {
        let seq = fields.u64().ok_or(MemberError::Crc)?;
        let mirror = fields.take().map(MirrorId::from_bytes).ok_or(MemberError::Crc)?;
        let generation = fields.u64().ok_or(MemberError::Crc)?;
        let holder = fields.u8().and_then(Holder::of).ok_or(MemberError::Field("holder"))?;
        let state =
            |code: Option<u8>| code.and_then(SeatState::of).ok_or(MemberError::Field("states"));
        let states = [state(fields.u8())?, state(fields.u8())?];
        if !states.contains(&SeatState::Current) {
            return Err(MemberError::Field("states"));
        }
        let cursor_len = fields.u8().map(usize::from).ok_or(MemberError::Crc)?;
        let (cursor, rest) =
            fields.0.split_at_checked(cursor_len).ok_or(MemberError::Field("cursor"))?;
        if rest.iter().any(|&byte| byte != 0) {
            return Err(MemberError::Field("padding"));
        }
        let cursor = std::str::from_utf8(cursor).map_err(|_| MemberError::Field("cursor"))?;
        Ok(Self { seq, mirror, generation, holder, states, cursor: cursor.to_owned() })
    }
}
