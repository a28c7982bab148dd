//! `/health/live` and `/health/ready`.
//!
//! Owns: what counts as ready. Knows nothing of: who asks.
//!
//! A fenced or draining node is not ready (503): a load balancer should send requests elsewhere. A
//! full one is: it serves reads, and deletes are what it needs.

use http::StatusCode;
use serde::Serialize;

/// The state of the node that readiness depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Health {
    /// `ready`, `fenced` or `draining`.
    pub(crate) status: &'static str,
    /// A write or flush failed; only reads are left until a restart.
    pub(crate) fenced: bool,
    /// Free space is below the reserve; writes are refused.
    pub(crate) full: bool,
    /// The passphrase lies beside the data: nothing is protected from whoever can read the disk.
    pub(crate) dev: bool,
}

impl Health {
    /// The state of a node that is not on its way down.
    pub(crate) fn new(is_fenced: bool, is_full: bool, is_dev: bool) -> Self {
        let status = if is_fenced { "fenced" } else { "ready" };
        Self { status, fenced: is_fenced, full: is_full, dev: is_dev }
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
        // Two texts and three booleans: it cannot fail.
        serde_json::to_string(&self).unwrap_or_default()
    }
}
