//! The bytes of one file, as pages that are there or read as zeros.
//!
//! Owns: sparse pages, reading and changing them. Knows nothing of: what is durable.
//!
//! Invariants
//! - Nothing beyond the length is kept: a file that grows again reads zeros there.
//! - A clone shares its pages until one of the two changes them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page, the unit of space.
pub const PAGE_BYTES: u64 = 4096;
const PAGE_LEN: usize = 4096;

/// What a device writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

type Page = [u8; PAGE_LEN];

/// A file's bytes.
#[derive(Clone, Default)]
pub struct Image {
    pages: BTreeMap<u64, Arc<Page>>,
    len: u64,
}

/// A change of one file.
#[derive(Clone)]
pub enum Change {
    /// The length becomes this.
    Len(u64),
    /// Bytes are written from this offset on; the file grows if need be.
    Write(u64, Arc<[u8]>),
    /// So many bytes from this offset on become zeros; the length stays.
    Zero(u64, u64),
}

impl Change {
    /// Memory that a kept change takes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Write(_, data) => data.len() as u64,
            Self::Len(_) | Self::Zero(..) => 64,
        }
    }
}

/// The pieces of `data` that lie in one unit of `unit` bytes each, with their offsets.
pub fn pieces(offset: u64, data: &[u8], unit: usize) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = offset;
    let mut rest = data;
    std::iter::from_fn(move || {
        let within = usize::try_from(at % unit as u64).ok()?;
        let (piece, more) = rest.split_at(rest.len().min(unit - within));
        let here = at;
        at += piece.len() as u64;
        rest = more;
        (!piece.is_empty()).then_some((here, piece))
    })
}

impl Image {
    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many pages from this one on are kept.
    pub fn pages_from(&self, page: u64) -> u64 {
        self.pages.range(page..).count() as u64
    }

    /// How many pages that are not kept yet a write would need, those below `page` not counted.
    pub fn pages_wanted(&self, offset: u64, bytes: u64, page: u64) -> u64 {
        if bytes == 0 {
            return 0;
        }
        let (first, last) = (offset / PAGE_BYTES, (offset + bytes - 1) / PAGE_BYTES);
        let from = first.max(page);
        if from > last {
            return 0;
        }
        last - from + 1 - self.pages.range(from..=last).count() as u64
    }

    /// Up to `count` bytes from `offset` on; fewer only at the end of the file.
    pub fn read(&self, offset: u64, count: u64) -> Vec<u8> {
        let end = offset.saturating_add(count).min(self.len);
        let mut found = Vec::new();
        let mut at = offset;
        while at < end {
            let within = at % PAGE_BYTES;
            let step = (PAGE_BYTES - within).min(end - at);
            let range = to_usize(within)..to_usize(within + step);
            match self.pages.get(&(at / PAGE_BYTES)).and_then(|page| page.get(range)) {
                Some(bytes) => found.extend_from_slice(bytes),
                None => found.resize(found.len() + to_usize(step), 0),
            }
            at += step;
        }
        found
    }

    /// Makes one change.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Len(len) => self.set_len(*len),
            Change::Write(offset, data) => self.write(*offset, data),
            Change::Zero(offset, bytes) => self.zero(*offset, *bytes),
        }
    }

    /// Writes bytes; the file grows if need be.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, piece) in pieces(offset, data, PAGE_LEN) {
            let page = self.pages.entry(at / PAGE_BYTES).or_insert_with(|| Arc::new([0; PAGE_LEN]));
            let within = to_usize(at % PAGE_BYTES);
            if let Some(target) = Arc::make_mut(page).get_mut(within..within + piece.len()) {
                target.copy_from_slice(piece);
            }
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.zero(len, self.len - len);
        }
        self.len = len;
    }

    fn zero(&mut self, offset: u64, bytes: u64) {
        let end = offset.saturating_add(bytes);
        let touched: Vec<u64> = self
            .pages
            .range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES))
            .map(|(n, _)| *n)
            .collect();
        for number in touched {
            let start = number * PAGE_BYTES;
            let from = offset.saturating_sub(start);
            let to = (end - start).min(PAGE_BYTES);
            // A whole page, or the rest of the last one, needs no room any more.
            if from == 0 && (to == PAGE_BYTES || start + to >= self.len) {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number)
                && let Some(target) = Arc::make_mut(page).get_mut(to_usize(from)..to_usize(to))
            {
                target.fill(0);
            }
        }
    }

    /// Turns one bit over, where a page is kept; whether there was one.
    pub fn flip(&mut self, offset: u64, bit: u8) -> bool {
        let Some(page) = self.pages.get_mut(&(offset / PAGE_BYTES)) else {
            return false;
        };
        let Some(byte) = Arc::make_mut(page).get_mut(to_usize(offset % PAGE_BYTES)) else {
            return false;
        };
        *byte ^= 1 << (bit % 8);
        true
    }
}

/// Offsets within a page and lengths of one request always fit.
fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
