//! Time and randomness of a simulation.
//!
//! Owns: a clock that follows the runtime's, which stands still while there is work; randomness
//! that begins anew with each sequence. Knows nothing of: what either is used for.
//!
//! Invariants
//! - Nothing here depends on the machine's time, on what ran before, or on other threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kluis_kms::{Clock, Env, Rng};
use tokio::time::Instant;

use crate::io::sim::SplitMix;

/// When every simulation begins, in Unix milliseconds: 2027-01-15.
const BEGIN_MS: u64 = 1_800_000_000_000;

/// Both doors, and how they are set.
#[derive(Clone)]
pub(super) struct SimEnv {
    clock: Arc<SimClock>,
    random: Arc<SimRng>,
}

impl SimEnv {
    pub(super) fn new() -> Self {
        let random = Arc::new(SimRng(Mutex::new(SplitMix::new(0))));
        Self { clock: Arc::default(), random }
    }

    /// Begins a sequence.
    pub(super) fn reset(&self, seed: u64) {
        *lock(&self.random.0) = SplitMix::new(seed);
        *lock(&self.clock.0) = Time::default();
    }

    /// Begins a life, which has a runtime and so a time of its own.
    pub(super) fn begin_life(&self) {
        lock(&self.clock.0).life = Some(Instant::now());
    }

    /// Ends it; its time stays passed.
    pub(super) fn end_life(&self) {
        let mut time = lock(&self.clock.0);
        time.passed_ns = time.now_ns();
        time.life = None;
    }

    /// Sets the wall clock `ms` milliseconds ahead, or back.
    pub(super) fn jump(&self, ms: i64) {
        lock(&self.clock.0).ahead_ms += ms;
    }

    /// Milliseconds that have passed.
    pub(super) fn passed_ms(&self) -> u64 {
        self.clock.monotonic_ns() / 1_000_000
    }

    /// What the engine takes.
    pub(super) fn env(&self) -> Env {
        Env { clock: Arc::clone(&self.clock) as _, rng: Arc::clone(&self.random) as _ }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct SimClock(Mutex<Time>);

#[derive(Default)]
struct Time {
    passed_ns: u64,
    life: Option<Instant>,
    ahead_ms: i64,
}

impl Time {
    fn now_ns(&self) -> u64 {
        let life = self.life.map_or(0, |begun| begun.elapsed().as_nanos());
        self.passed_ns.saturating_add(u64::try_from(life).unwrap_or(u64::MAX))
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        let time = lock(&self.0);
        (BEGIN_MS + time.now_ns() / 1_000_000).saturating_add_signed(time.ahead_ms)
    }

    fn monotonic_ns(&self) -> u64 {
        lock(&self.0).now_ns()
    }
}

struct SimRng(Mutex<SplitMix>);

impl Rng for SimRng {
    fn fill(&self, bytes: &mut [u8]) {
        let mut random = lock(&self.0);
        for piece in bytes.chunks_mut(8) {
            let word = random.next().to_le_bytes();
            piece.iter_mut().zip(word).for_each(|(to, from)| *to = from);
        }
    }
}
