//! The segment table: what each segment of a volume is used for.
//!
//! Owns: the row, its bytes, the trait behind which the table is stored. Does not know: how it is
//! stored, except that a row put is a row kept.
//!
//! Invariants
//! - A segment's row says `Open` durably before the first byte is written to it, so that recovery
//!   never takes it for a spare.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// Bytes of an encoded row.
pub const SEGMENT_ROW_BYTES: usize = 22;
/// The version that this build writes and reads.
const VERSION: u8 = 1;

/// What a segment is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentState {
    /// Holds zeros or the dead; may be used again under another incarnation.
    Free,
    /// Is appended to.
    Open,
    /// Full, but an extent in it is not yet published or abandoned.
    Closing,
    /// Read only.
    Closed,
    /// Its survivors are being moved elsewhere.
    Cleaning,
}

impl SegmentState {
    fn to_byte(self) -> u8 {
        match self {
            Self::Free => 0,
            Self::Open => 1,
            Self::Closing => 2,
            Self::Closed => 3,
            Self::Cleaning => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Free, Self::Open, Self::Closing, Self::Closed, Self::Cleaning]
            .into_iter()
            .find(|state| state.to_byte() == byte)
    }
}

/// One segment of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentRow {
    /// The segment.
    pub segment: u32,
    /// What it is used for.
    pub state: SegmentState,
    /// Its current use; 0 if it was never used.
    pub incarnation: u64,
    /// Bytes from its start that records may lie in; 0 while it is open.
    pub written_bytes: u64,
}

impl SegmentRow {
    /// The row value.
    pub fn encode(&self) -> [u8; SEGMENT_ROW_BYTES] {
        let mut out = [0; SEGMENT_ROW_BYTES];
        let fields = [VERSION, self.state.to_byte()]
            .into_iter()
            .chain(self.segment.to_le_bytes())
            .chain(self.incarnation.to_le_bytes())
            .chain(self.written_bytes.to_le_bytes());
        for (to, from) in out.iter_mut().zip(fields) {
            *to = from;
        }
        out
    }

    /// Reads a row value.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: it has another length, version or state.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::from_fields(bytes).ok_or_else(|| Error::new(ErrorKind::Corrupt, "read a segment row"))
    }

    fn from_fields(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SEGMENT_ROW_BYTES] = bytes.try_into().ok()?;
        let ([version, state], rest) = bytes.split_first_chunk::<2>()?;
        let (segment, rest) = rest.split_first_chunk::<4>()?;
        let (incarnation, rest) = rest.split_first_chunk::<8>()?;
        let written_bytes = rest.first_chunk::<8>()?;
        let state = SegmentState::from_byte(*state)?;
        (*version == VERSION).then_some(Self {
            segment: u32::from_le_bytes(*segment),
            state,
            incarnation: u64::from_le_bytes(*incarnation),
            written_bytes: u64::from_le_bytes(*written_bytes),
        })
    }
}

/// What [`SegmentTable::put`] answers with, later.
pub type TableFuture = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Where the segment table is kept.
pub trait SegmentTable: Send + Sync + 'static {
    /// Every row, in any order.
    ///
    /// # Errors
    /// As the store says; the volume does not open then.
    fn load(&self) -> Result<Vec<SegmentRow>>;

    /// Replaces or adds `rows`, all of them or none. `Ok` means that they are durable; an error
    /// fences the volume, because nobody knows then what a later start will find.
    fn put(&self, rows: Vec<SegmentRow>) -> TableFuture;
}

/// A table in memory, for tests and simulations. Clones share the rows, as a restarted node would.
#[derive(Clone, Default, Debug)]
pub struct MemoryTable(Arc<Mutex<BTreeMap<u32, SegmentRow>>>);

impl SegmentTable for MemoryTable {
    fn load(&self) -> Result<Vec<SegmentRow>> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.values().copied().collect())
    }

    fn put(&self, rows: Vec<SegmentRow>) -> TableFuture {
        let table = self.clone();
        Box::pin(async move {
            let mut kept = table.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(rows.into_iter().map(|row| (row.segment, row)));
            Ok(())
        })
    }
}
