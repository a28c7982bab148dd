//! Turns: which jobs are at work, and which wait.
//!
//! Owns: how many are at work at once, and who is next: tenants in turn, and a tenant's own jobs in
//! the order they came. Knows nothing of: what a job does, how long a turn is.
//!
//! Invariants
//! - There are never more turns out than were made.
//! - A turn that comes free goes to whoever waits; nobody waits while one is free.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kluis_kms::TenantId;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Who waits, by tenant. As many as there are jobs, which are bounded.
struct State {
    free: usize,
    waiting: VecDeque<(TenantId, VecDeque<oneshot::Sender<Turn>>)>,
}

impl State {
    fn wait(&mut self, tenant: TenantId) -> oneshot::Receiver<Turn> {
        let (given, turn) = oneshot::channel();
        // Whoever was told to end meanwhile left its place behind.
        self.waiting.iter_mut().for_each(|(_, of)| of.retain(|waiter| !waiter.is_closed()));
        self.waiting.retain(|(_, of)| !of.is_empty());
        match self.waiting.iter_mut().find(|(known, _)| *known == tenant) {
            Some((_, of)) => of.push_back(given),
            None => self.waiting.push_back((tenant, VecDeque::from([given]))),
        }
        turn
    }

    /// The next one of the tenant whose turn it is; that tenant is the last one then.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let (tenant, mut of) = self.waiting.pop_front()?;
        let next = of.pop_front();
        if !of.is_empty() {
            self.waiting.push_back((tenant, of));
        }
        next
    }
}

/// So many turns, shared by all jobs of one lane.
pub(super) struct Turns(Mutex<State>);

impl Turns {
    pub(super) fn new(at_once: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { free: at_once, waiting: VecDeque::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn, once it is there.
    pub(super) async fn take(self: &Arc<Self>, tenant: TenantId) -> Turn {
        loop {
            let turn = {
                let mut state = self.state();
                if state.free > 0 {
                    state.free -= 1;
                    return Turn { began: Instant::now(), of: Some(Arc::clone(self)) };
                }
                state.wait(tenant)
            };
            if let Ok(turn) = turn.await {
                return turn;
            }
        }
    }

    /// A turn, if one is free.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Turn> {
        let mut state = self.state();
        state.free = state.free.checked_sub(1)?;
        Some(Turn { began: Instant::now(), of: Some(Arc::clone(self)) })
    }

    /// Whether somebody waits for a turn.
    pub(super) fn is_wanted(&self) -> bool {
        self.state().waiting.iter().any(|(_, of)| of.iter().any(|waiter| !waiter.is_closed()))
    }

    fn give(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                let Some(next) = state.next() else {
                    state.free += 1;
                    return;
                };
                next
            };
            let turn = Turn { began: Instant::now(), of: Some(Arc::clone(&self)) };
            match next.send(turn) {
                Ok(()) => return,
                // It waits no more: the next one.
                Err(mut refused) => refused.of = None,
            }
        }
    }
}

/// Leave to work, until it is dropped.
pub(super) struct Turn {
    began: Instant,
    of: Option<Arc<Turns>>,
}

impl Turn {
    /// How long it was taken.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.of.take() {
            turns.give();
        }
    }
}

#[cfg(test)]
mod tests;
