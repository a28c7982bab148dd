//! `/health/live` and `/health/ready`.
//!
//! Owns: what counts as ready. Knows nothing of: who asks.
//!
//! A fenced or draining node is not ready (503): a load balancer should send requests elsewhere. A
//! full one is: it serves reads, and deletes are what it needs. So is one whose mirror is degraded.

use http::StatusCode;
use serde::Serialize;

/// The state of the node that readiness depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is one field of the answer")]
pub(crate) struct Health {
    /// `ready`, `fenced` or `draining`.
    pub(crate) status: &'static str,
    /// A write or flush failed; only reads are left until a restart.
    pub(crate) fenced: bool,
    /// Free space is below the reserve; writes are refused.
    pub(crate) full: bool,
    /// A member of the mirror is out: some bytes have one copy only. Reads and writes go on.
    pub(crate) degraded: bool,
    /// Extents that cannot be read, as far as scrubbing and reads have found them. The others are
    /// served.
    pub(crate) damaged: u64,
    /// The passphrase lies beside the data: nothing is protected from whoever can read the disk.
    pub(crate) dev: bool,
    /// Key stores of tenants that did not answer of late. Others are served, so it is no reason to
    /// send requests elsewhere.
    pub(crate) key_stores_failing: usize,
}

impl Health {
    /// The state of a node that is not on its way down.
    pub(crate) fn new(is_fenced: bool, is_full: bool, is_dev: bool) -> Self {
        let status = if is_fenced { "fenced" } else { "ready" };
        Self {
            status,
            fenced: is_fenced,
            full: is_full,
            degraded: false,
            damaged: 0,
            dev: is_dev,
            key_stores_failing: 0,
        }
    }

    /// The state of the same node, so many of whose key stores do not answer.
    pub(crate) fn with_failing_key_stores(self, key_stores_failing: usize) -> Self {
        Self { key_stores_failing, ..self }
    }

    /// The state of the same node, whose mirror lacks a member if `is_degraded`.
    pub(crate) fn with_degraded(self, is_degraded: bool) -> Self {
        Self { degraded: is_degraded, ..self }
    }

    /// The state of the same node, which has found so many damaged extents.
    pub(crate) fn with_damaged(self, damaged: u64) -> Self {
        Self { damaged, ..self }
    }

    /// The state of the same node on its way down.
    pub(crate) fn draining(self) -> Self {
        Self { status: "draining", ..self }
    }

    /// The status of the answer.
    pub(crate) fn status_code(&self) -> StatusCode {
        if self.status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }

    /// The answer's JSON.
    pub(crate) fn to_json(self) -> String {
        // Texts, booleans and a number: it cannot fail.
        serde_json::to_string(&self).unwrap_or_default()
    }
}
