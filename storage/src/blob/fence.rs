//! The fence: after a failed write or flush the volume takes no more writes.
//!
//! Owns: the decision and its reason. Does not know: who fails, or what is left to read.
//!
//! Invariants
//! - A raised fence is never lowered: the kernel marks pages clean after a failed flush, so that a
//!   second one proves nothing (Rebello et al., ATC'20). Only a restart recovers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bugs::{Bug, seeded};
use crate::error::{Error, ErrorKind, Result};

/// Whether writes are taken.
#[derive(Default, Debug)]
pub(super) struct Fence {
    reason: OnceLock<String>,
    closed: AtomicBool,
}

impl Fence {
    /// Takes no more writes, because of `reason`. The first reason stays.
    pub(super) fn raise(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if seeded(Bug::ForgetFence) {
            return;
        }
        if self.reason.set(reason.clone()).is_ok() {
            tracing::error!(%reason, "volume fenced: no more writes until the node is restarted");
        }
    }

    /// Takes no more writes, because the volume is closed in order.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Why no more writes are taken, unless they are or the volume was closed in order.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Refuses the step `during` if writes are not taken.
    pub(super) fn check(&self, during: impl Fn() -> String) -> Result<()> {
        self.check_raised(&during)?;
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, during())
                .with_source("the volume is being closed"));
        }
        Ok(())
    }

    /// Refuses the step `during` if a write or flush failed. For the steps that closing in order
    /// still needs.
    pub(super) fn check_raised(&self, during: impl FnOnce() -> String) -> Result<()> {
        if self.reason().is_some() {
            return Err(self.error(during()));
        }
        Ok(())
    }

    /// The error of a step that the fence stopped.
    pub(super) fn error(&self, during: impl Into<String>) -> Error {
        Error::new(ErrorKind::Fenced, during)
            .with_advice(
                "restart the node: it recovers by itself; if it happens again, the disk is failing",
            )
            .with_source(self.reason().unwrap_or("the volume stopped").to_owned())
    }

    /// Raises the fence because a task of the volume is gone, which only a panic explains.
    pub(super) fn stopped(&self, who: &str, during: impl Into<String>) -> Error {
        self.raise(format!("{who} stopped"));
        self.error(during)
    }
}
