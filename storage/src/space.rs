//! Admission when space runs out.
//!
//! Owns: the reserve of free space that writes must leave. Knows nothing of: what is written.
//!
//! Invariants
//! - Reads and deletes are never refused: the reserve is what deletes and compaction work with.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use kluis_kms::Env;
use rustix::fs::statvfs;

use crate::error::{Error, ErrorKind, Result};

/// How long a look at the file system is good for, in milliseconds. At 2.5 GiB/s a disk fills by
/// 500 MiB meanwhile, a quarter of the default reserve.
const FRESH_MS: u64 = 200;

/// The largest share of a file system that the reserve takes, so that a small one is usable: 5 %.
const RESERVE_DIVISOR: u64 = 20;

/// Free space of the file system that a directory is on.
pub(crate) struct Space {
    dir: PathBuf,
    reserve: u64,
    env: Env,
    seen_ms: AtomicU64,
    free: AtomicU64,
}

impl Space {
    /// Watches the file system of `dir`; `reserve` is capped at 5 % of it.
    pub(crate) fn new(dir: PathBuf, reserve: u64, env: Env) -> Self {
        let total = statvfs(&dir).map_or(u64::MAX, |stat| stat.f_blocks * stat.f_frsize);
        let reserve = reserve.min(total / RESERVE_DIVISOR);
        Self { dir, reserve, env, seen_ms: AtomicU64::new(0), free: AtomicU64::new(u64::MAX) }
    }

    /// Whether a write of one byte would be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.free() <= self.reserve
    }

    /// Refuses a write of `bytes` that would eat into the reserve.
    ///
    /// # Errors
    /// [`ErrorKind::Full`].
    pub(crate) fn admit(&self, bytes: u64) -> Result<()> {
        let free = self.free();
        if free.saturating_sub(bytes) > self.reserve {
            return Ok(());
        }
        let what = format!("admit {bytes} bytes with {free} free and {} in reserve", self.reserve);
        Err(Error::new(ErrorKind::Full, what).with_advice("delete objects or add space"))
    }

    fn free(&self) -> u64 {
        let now = self.env.clock.monotonic_ns() / 1_000_000;
        let seen = self.seen_ms.load(Ordering::Relaxed);
        if seen == 0 || now.saturating_sub(seen) >= FRESH_MS {
            // A file system that does not answer is not taken for a full one: the write will tell.
            let free = statvfs(&self.dir).map_or(u64::MAX, |stat| stat.f_bavail * stat.f_frsize);
            self.free.store(free, Ordering::Relaxed);
            self.seen_ms.store(now.max(1), Ordering::Relaxed);
        }
        self.free.load(Ordering::Relaxed)
    }
}
