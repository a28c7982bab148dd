//! The only doors to time and randomness.
//!
//! Everything above takes an [`Env`], so that a test or a simulation runs from one seed. They live
//! here because this package is the leaf of the workspace.
//! Owns: [`Clock`], [`Rng`] and their system and test implementations. Knows nothing of: keys.
//!
//! Invariants
//! - Key material, salts and ids come from the operating system ([`OsRng`]) and from no generator
//!   in user space: nothing can repeat after a fork or a restored virtual machine.
//! - A failing source of randomness aborts the process. There is no safe way to go on.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, Timespec, clock_gettime};
use sha2::{Digest, Sha256};

/// A source of time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch. May step backwards when the clock is set.
    fn now_ms(&self) -> u64;

    /// Nanoseconds since an arbitrary point. Never steps backwards.
    fn monotonic_ns(&self) -> u64;

    /// Whether somebody moves it by hand, so that its jumps are meant: in tests, and on a node that
    /// is for trying things out.
    fn is_by_hand(&self) -> bool {
        false
    }
}

/// A source of randomness fit for keys.
pub trait Rng: Send + Sync {
    /// Fills `bytes`; cannot fail (see the module's invariants).
    fn fill(&self, bytes: &mut [u8]);
}

/// `N` random bytes, for ids, nonces and salts. Key bytes are filled in place instead.
pub fn random_array<const N: usize>(rng: &dyn Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill(&mut bytes);
    bytes
}

/// Time and randomness, handed down from the program's start.
#[derive(Clone)]
pub struct Env {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub rng: Arc<dyn Rng>,
}

impl Env {
    /// The machine's clock and the operating system's randomness.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), rng: Arc::new(OsRng) }
    }

    /// A clock that stands still at `now_ms` and reproducible randomness: tests and simulations.
    pub fn seeded(seed: u64, now_ms: u64) -> Self {
        Self { clock: Arc::new(ManualClock::new(now_ms)), rng: Arc::new(SeededRng::new(seed)) }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn as_ns(time: Timespec) -> u64 {
    unsigned(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(unsigned(time.tv_nsec))
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        as_ns(clock_gettime(ClockId::Realtime)) / 1_000_000
    }

    fn monotonic_ns(&self) -> u64 {
        as_ns(clock_gettime(ClockId::Monotonic))
    }
}

/// The machine's clock, moved on by hand: what makes a waiting period pass on a node that is for
/// trying things out.
#[derive(Debug, Default)]
pub struct ShiftedClock {
    ahead_ms: AtomicU64,
}

impl ShiftedClock {
    /// Moves the clock on by `ms` milliseconds, from now until the process ends.
    pub fn advance_ms(&self, ms: u64) {
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms().saturating_add(self.ahead_ms.load(Ordering::SeqCst))
    }

    fn monotonic_ns(&self) -> u64 {
        SystemClock.monotonic_ns()
    }

    fn is_by_hand(&self) -> bool {
        true
    }
}

/// The operating system's randomness: getrandom(2).
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRng;

impl Rng for OsRng {
    #[expect(clippy::disallowed_methods, reason = "this is the door the rule points to")]
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            // Unwinding could be caught, and then a predictable key would be used.
            tracing::error!(%error, "no randomness from the operating system; aborting");
            process::abort();
        }
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicU64,
    monotonic_ns: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now_ms` and a monotonic time of zero.
    pub const fn new(now_ms: u64) -> Self {
        Self { now_ms: AtomicU64::new(now_ms), monotonic_ns: AtomicU64::new(0) }
    }

    /// Moves both times on by `ms` milliseconds.
    pub fn advance_ms(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
        self.monotonic_ns.fetch_add(ms.saturating_mul(1_000_000), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns.load(Ordering::SeqCst)
    }

    fn is_by_hand(&self) -> bool {
        true
    }
}

/// Reproducible bytes from a seed: SHA-256 in counter mode. For tests and simulations only.
///
/// Each call of [`Rng::fill`] takes whole blocks, so the bytes depend on the seed and on the order
/// and sizes of the calls.
#[derive(Debug)]
pub struct SeededRng {
    seed: u64,
    next_block: AtomicU64,
}

impl SeededRng {
    /// The generator of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { seed, next_block: AtomicU64::new(0) }
    }
}

impl Rng for SeededRng {
    fn fill(&self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(32) {
            let block_index = self.next_block.fetch_add(1, Ordering::SeqCst);
            let block = Sha256::new()
                .chain_update(b"kluis seeded rng")
                .chain_update(self.seed.to_be_bytes())
                .chain_update(block_index.to_be_bytes())
                .finalize();
            for (to, from) in piece.iter_mut().zip(block) {
                *to = from;
            }
        }
    }
}

#[cfg(test)]
mod tests;
