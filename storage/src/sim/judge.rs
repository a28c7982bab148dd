//! What a simulated node may answer, and what it must not.
//!
//! Owns: the excuses of a life (which faults it had), the first violation, the fingerprint of
//! everything that was answered. Knows nothing of: how an answer came about.
//!
//! Invariants
//! - Wrong bytes have no excuse, whatever the faults: no data or right data, never wrong.
//! - Without a fault there is no error but those that the model expects.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind};
use crate::io::sim::{SimFault, SimOp, SplitMix};
use crate::sim::plan::Fault;

/// What became of a change that was answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody knows before a restart.
    Open,
    /// It did not take place.
    Refused,
    /// It must not happen.
    Wrong,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an excuse of its own")]
struct State {
    violation: Option<String>,
    trace: u64,
    /// Errors of writes and syncs may come.
    loud: bool,
    /// Errors of reads may come.
    deaf: bool,
    /// Stored bytes may be wrong.
    silent: bool,
    /// The disk may be full.
    tight: bool,
    /// Short writes to come: two in a row may get no further, and that is an error.
    short: u32,
}

/// See the module.
#[derive(Default)]
pub(super) struct Judge(Mutex<State>);

impl Judge {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A life begins, whose disk may be full.
    pub(super) fn begin_life(&self, tight: bool) {
        let mut state = self.state();
        (state.loud, state.deaf, state.tight, state.short) = (false, false, tight, 0);
    }

    /// From here on this fault may happen.
    pub(super) fn expect(&self, fault: Fault) {
        let mut state = self.state();
        match fault {
            Fault::Disk { op: SimOp::Read, .. } => state.deaf = true,
            Fault::Disk { fault: SimFault::Short, .. } => {
                state.short += 1;
                state.loud |= state.short > 1;
            }
            Fault::Meta { .. } | Fault::Disk { fault: SimFault::Eio | SimFault::Enospc, .. } => {
                state.loud = true;
            }
            Fault::Disk { .. } => state.silent = true,
        }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.state().silent
    }

    pub(super) fn is_deaf(&self) -> bool {
        self.state().deaf
    }

    /// Something that must not be; the first one counts.
    pub(super) fn violation(&self, what: impl Into<String>) {
        self.state().violation.get_or_insert_with(|| what.into());
    }

    pub(super) fn has_violation(&self) -> bool {
        self.state().violation.is_some()
    }

    pub(super) fn take(&self) -> (Option<String>, u64) {
        let mut state = self.state();
        (state.violation.take(), state.trace)
    }

    /// Takes note of what was answered.
    pub(super) fn note(&self, words: &[u64]) {
        let mut state = self.state();
        for word in words {
            state.trace = SplitMix::new(state.trace ^ word).next();
        }
    }

    /// Judges the error of a change.
    pub(super) fn of_change(&self, during: &str, error: &Error) -> Verdict {
        self.note(&[error.kind() as u64]);
        let state = self.state();
        let verdict = match error.kind() {
            ErrorKind::Full if state.tight || state.loud => Verdict::Refused,
            ErrorKind::Fenced | ErrorKind::Unavailable if state.loud => Verdict::Open,
            // It reads before it changes anything.
            ErrorKind::Corrupt | ErrorKind::Tampered if state.silent || state.deaf => {
                Verdict::Refused
            }
            _ => Verdict::Wrong,
        };
        drop(state);
        if verdict == Verdict::Wrong {
            self.violation(format!("{during}: {error:?}"));
        }
        verdict
    }

    /// Judges the error of a read; whether it is excused.
    pub(super) fn of_read(&self, during: &str, error: &Error) -> bool {
        self.note(&[error.kind() as u64]);
        let state = self.state();
        let excused = match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Tampered => state.silent || state.deaf,
            ErrorKind::Unavailable => state.deaf,
            _ => false,
        };
        drop(state);
        if !excused {
            self.violation(format!("{during}: {error:?}"));
        }
        excused
    }
}
