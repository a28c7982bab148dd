//! Admission when space runs out, and the ballast that is thrown off then.
//!
//! Owns: the reserve of free space that writes must leave, the file `BALLAST`. Knows nothing of:
//! what is written.
//!
//! Invariants
//! - Reads and deletes are never refused: the reserve is what deletes and compaction work with, and
//!   the ballast is what they get when even that is used up.
//! - The ballast is made only where there is space for it above the reserve.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kluis_kms::Env;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::error::{Error, ErrorKind, Result};

/// How long a look at the file system is good for, in milliseconds. At 2.5 GiB/s a disk fills by
/// 500 MiB meanwhile, a quarter of the default reserve.
const FRESH_MS: u64 = 200;

/// The largest share of a file system that the reserve takes, so that a small one is usable: 5 %.
const RESERVE_DIVISOR: u64 = 20;

/// The largest share of a file system that the ballast takes: 1 %.
const BALLAST_DIVISOR: u64 = 100;

/// The part of the reserve below which the ballast goes: a half. Above it, deletes and compaction
/// have what they need.
const FLOOR_DIVISOR: u64 = 2;

/// The name of the ballast.
const BALLAST: &str = "BALLAST";

/// Free space of the file system that a directory is on.
pub(crate) struct Space {
    dir: PathBuf,
    reserve: u64,
    /// Bytes of the ballast; 0 for none.
    ballast: u64,
    env: Env,
    seen_ms: AtomicU64,
    free: AtomicU64,
}

/// What is to be done about the ballast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tending {
    Drop,
    Leave,
    Make,
}

impl Space {
    /// Watches the file system of `dir`; `reserve` is capped at 5 % of it and `ballast` at 1 %.
    pub(crate) fn new(dir: PathBuf, reserve: u64, ballast: u64, env: Env) -> Self {
        let total = statvfs(&dir).map_or(u64::MAX, |stat| stat.f_blocks * stat.f_frsize);
        let reserve = reserve.min(total / RESERVE_DIVISOR);
        let ballast = ballast.min(total / BALLAST_DIVISOR);
        let (seen_ms, free) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Self { dir, reserve, ballast, env, seen_ms, free }
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
            self.free.store(self.look(), Ordering::Relaxed);
            self.seen_ms.store(now.max(1), Ordering::Relaxed);
        }
        self.free.load(Ordering::Relaxed)
    }

    /// A file system that does not answer is not taken for a full one: the write will tell.
    fn look(&self) -> u64 {
        statvfs(&self.dir).map_or(u64::MAX, |stat| stat.f_bavail * stat.f_frsize)
    }

    /// Throws the ballast off if free space is below the floor, or makes it if there is space for
    /// it and the node is `loaded`: an empty one takes no space that it does not need. Blocks.
    pub(crate) fn tend_ballast(&self, loaded: bool) {
        self.tend(self.look(), loaded);
    }

    fn tend(&self, free: u64, loaded: bool) {
        let path = self.dir.join(BALLAST);
        let exists = path.exists();
        let done = match self.tending(free, exists, loaded) {
            Tending::Leave => return,
            Tending::Drop => {
                tracing::warn!(free, "the file system is nearly full: the ballast goes");
                fs::remove_file(&path)
            }
            Tending::Make => {
                tracing::debug!(bytes = self.ballast, "there is space again: the ballast is made");
                make(&path, self.ballast)
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the ballast cannot be tended; later again");
        }
    }

    fn tending(&self, free: u64, exists: bool, loaded: bool) -> Tending {
        if exists && free < self.reserve / FLOOR_DIVISOR {
            return Tending::Drop;
        }
        // Twice its size, so that making it is not what makes the node full.
        let enough = self.reserve.saturating_add(self.ballast.saturating_mul(2));
        let wanted = loaded && !exists && self.ballast > 0;
        if wanted && free > enough { Tending::Make } else { Tending::Leave }
    }
}

/// Makes the ballast, with all its blocks; or nothing.
fn make(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let made = fallocate(&file, FallocateFlags::empty(), 0, bytes);
    if made.is_err() {
        fs::remove_file(path)?;
    }
    Ok(made?)
}

#[cfg(test)]
mod tests;
