//! How far a backup, a check or a restore is, and whether it is to end.
//!
//! Owns: the counters. Knows nothing of: what is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// Shared by whoever works and whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    phase: Mutex<&'static str>,
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressView {
    /// What is being done; empty before the start.
    pub phase: &'static str,
    /// Bytes moved or read in this phase.
    pub done_bytes: u64,
    /// Of how many, as far as that is known; else 0.
    pub total_bytes: u64,
}

impl Progress {
    /// How far it is now.
    pub fn view(&self) -> ProgressView {
        ProgressView {
            phase: *self.phase.lock().unwrap_or_else(PoisonError::into_inner),
            done_bytes: self.done.load(Ordering::Relaxed),
            total_bytes: self.total.load(Ordering::Relaxed),
        }
    }

    /// Has the work end with an error at the next step.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Whether [`Self::stop`] was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(super) fn begin(&self, phase: &'static str, total_bytes: u64) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total_bytes, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Refuses to go on once [`Self::stop`] was called.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_stopped() {
            return Err(Error::new(ErrorKind::Unavailable, "go on: the node is closing"));
        }
        Ok(())
    }
}
