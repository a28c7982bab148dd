//! Who is writing where: keeps a copy of a range from running beside a write to it.
//!
//! Owns: the claims on ranges and the order in which they are granted. Does not know: disks.
//!
//! Invariants
//! - A claim waits only for earlier ones, so no two wait for each other and none waits for ever.
//! - Sharers of a range run beside each other; whoever has it alone runs beside nobody.

use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How a range is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hold {
    /// By one of many writers, who keep apart by themselves.
    Shared,
    /// By one who reads here and writes there what was read.
    Alone,
}

/// The claims of one mirror. As many as there are writes under way, each of which has a buffer.
#[derive(Default)]
pub(super) struct Flight {
    claims: Mutex<Claims>,
    freed: Notify,
}

#[derive(Default)]
struct Claims {
    next: u64,
    held: BTreeMap<u64, Claim>,
}

struct Claim {
    name: Arc<str>,
    range: Range<u64>,
    hold: Hold,
}

impl Claim {
    fn keeps_out(&self, other: &Self) -> bool {
        let is_exclusive = self.hold == Hold::Alone || other.hold == Hold::Alone;
        let overlaps = self.range.start < other.range.end && other.range.start < self.range.end;
        is_exclusive && overlaps && self.name == other.name
    }
}

/// A claim that was granted; dropped, it is over.
pub(super) struct Ticket {
    flight: Arc<Flight>,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.flight.lock().held.remove(&self.number);
        self.flight.freed.notify_waiters();
    }
}

impl Flight {
    /// Claims `range` of the file `name`; waits for earlier claims that keep this one out.
    pub(super) async fn enter(
        self: &Arc<Self>,
        name: &Arc<str>,
        range: Range<u64>,
        hold: Hold,
    ) -> Ticket {
        let claim = Claim { name: Arc::clone(name), range, hold };
        let number = {
            let mut claims = self.lock();
            let number = claims.next;
            claims.next += 1;
            claims.held.insert(number, claim);
            number
        };
        let ticket = Ticket { flight: Arc::clone(self), number };
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on no end of a claim is missed.
            freed.as_mut().enable();
            if !self.lock().is_kept_out(number) {
                return ticket;
            }
            freed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claims {
    fn is_kept_out(&self, number: u64) -> bool {
        let Some(claim) = self.held.get(&number) else {
            return false;
        };
        self.held.range(..number).any(|(_, earlier)| earlier.keeps_out(claim))
    }
}
