//! One file twice: as programs see it, and as it would come back after the power went.
//!
//! Owns: the changes since the last flush. Knows nothing of: names, directories, faults.
//!
//! Invariants
//! - The durable image plus all pending changes, in order, is the live image, unless a flush
//!   failed.
//! - A flush that fails drops what was pending: later flushes do not bring it back, as the
//!   kernel marks pages clean after a failed write-back (Rebello et al., ATC'20).

use std::collections::VecDeque;

use crate::image::{Change, Image, PAGE_BYTES};

/// Changes kept of one file. Beyond it the oldest become durable, as a kernel writes back when it
/// likes; the model allows that at any time.
const PENDING_BYTES_MAX: u64 = 256 << 20;

/// A file's contents.
#[derive(Clone, Default)]
pub struct Body {
    /// What programs read.
    pub live: Image,
    /// What a power cut leaves for sure.
    pub durable: Image,
    /// What it may leave beyond, in the order in which it was asked for.
    pub pending: VecDeque<Change>,
    pending_bytes: u64,
    /// Pages from 0 on that fallocate(2) set aside; they count as used.
    reserved_pages: u64,
}

impl Body {
    /// A file that has these bytes and no others, live and durable.
    pub fn settled(durable: Image, reserved_pages: u64) -> Self {
        Self { live: durable.clone(), durable, reserved_pages, ..Self::default() }
    }

    /// Pages set aside.
    pub fn reserved_pages(&self) -> u64 {
        self.reserved_pages
    }

    /// Pages that the file takes on the disk.
    pub fn used_pages(&self) -> u64 {
        self.reserved_pages + self.live.pages_from(self.reserved_pages)
    }

    /// Pages more that a write would take.
    pub fn pages_wanted(&self, offset: u64, bytes: u64) -> u64 {
        self.live.pages_wanted(offset, bytes, self.reserved_pages)
    }

    /// Makes a change that is not durable yet.
    pub fn change(&mut self, change: Change) {
        self.live.apply(&change);
        if let Change::Len(len) = change {
            self.reserved_pages = self.reserved_pages.min(len.div_ceil(PAGE_BYTES));
        }
        self.pending_bytes += change.bytes();
        self.pending.push_back(change);
        while self.pending_bytes > PENDING_BYTES_MAX
            && let Some(oldest) = self.pending.pop_front()
        {
            self.pending_bytes -= oldest.bytes();
            self.durable.apply(&oldest);
        }
    }

    /// Sets the first `pages` aside. Space that was set aside stays so after a power cut.
    pub fn reserve(&mut self, pages: u64) {
        self.reserved_pages = self.reserved_pages.max(pages);
    }

    /// Makes everything durable.
    pub fn sync(&mut self) {
        for change in self.pending.drain(..) {
            self.durable.apply(&change);
        }
        self.pending_bytes = 0;
    }

    /// A flush failed: what was pending reads as before and will never be durable.
    pub fn forget_pending(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }
}
