//! Holds: while one is kept, the segments that are in use stay as they are.
//!
//! A copier takes a hold, then the metadata's state, then the bytes that this state names. Whoever
//! empties a segment takes a [`Ticket`] once everything that moved out of it is durable, and puts
//! it into use again only when [`Holds::is_clear`] says so of that ticket.
//! Owns: which holds there are, in which order they were taken. Does not know: segments.
//!
//! Invariants
//! - A ticket is clear when every hold that was taken before it is gone. A hold that is taken later
//!   needs nothing of the segment: the metadata that it goes by does not name it any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The holds of a volume. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Holds(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Counts holds and tickets.
    next: u64,
    held: BTreeSet<u64>,
}

/// When a segment was emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket(u64);

/// Keeps segments from being used again until it is dropped.
pub(crate) struct SegmentHold {
    holds: Holds,
    number: u64,
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a hold.
    pub(crate) fn take(&self) -> SegmentHold {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.held.insert(number);
        SegmentHold { holds: self.clone(), number }
    }

    /// To be called when everything that was moved out of a segment, or deleted, is durable.
    pub(crate) fn ticket(&self) -> Ticket {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        Ticket(number)
    }

    /// Whether a segment that was emptied then may be used again.
    pub(crate) fn is_clear(&self, ticket: Ticket) -> bool {
        self.lock().held.first().is_none_or(|oldest| *oldest > ticket.0)
    }
}

impl Drop for SegmentHold {
    fn drop(&mut self) {
        self.holds.lock().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
