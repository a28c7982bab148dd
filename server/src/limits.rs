//! What one client may take: time, header bytes, memory.
//!
//! A connection has a [`ConnWatch`] that knows what it is waiting for; the socket and the bodies
//! report to it. Owns: time-outs and bounds of the transport. Knows nothing of: S3, tenants, files.
//!
//! Invariants
//! - A wait of the server's own (disk, locks, keys) never counts against the client.
//! - Header bytes are bounded before the first request exists, so an unknown client can make the
//!   node hold no more than `header_bytes_max` and one read.

mod body;
mod io;
mod watch;

use std::time::Duration;

#[cfg(test)]
pub(crate) use body::BodyFault;
pub(crate) use body::{BodyState, BodyWatch, RequestBody, WatchedBody};
pub(crate) use io::GuardedIo;
pub(crate) use watch::{ActiveRequest, ConnWatch, End};

use crate::config::Config;

/// Below this many bytes in one stall time-out a client counts as stopped. 8 KiB in the default 30
/// s is the speed of a modem of 1990.
pub(crate) const STALL_WINDOW_BYTES: u64 = 8 << 10;

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The header section of a request, in bytes.
    pub(crate) header_bytes_max: u64,
    /// From the first byte of a header section (or the connection) to its last.
    pub(crate) header_timeout: Duration,
    /// Between two requests.
    pub(crate) idle_timeout: Duration,
    /// Without progress in a body, either way.
    pub(crate) stall_timeout: Duration,
}

impl Limits {
    /// The limits that `config` sets.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            header_bytes_max: config.header_bytes_max,
            header_timeout: Duration::from_secs(config.header_timeout_seconds),
            idle_timeout: Duration::from_secs(config.idle_timeout_seconds),
            stall_timeout: Duration::from_secs(config.body_stall_seconds),
        }
    }
}
