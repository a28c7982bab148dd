//! One store's guard: a time limit, a bound on calls at once, and a circuit breaker.
//!
//! ```text
//! closed ──failures_max in a row──► open ──open_ms──► half open ──success──► closed
//!                                    ▲                    └────failure────────┘
//! ```
//! Owns: a store's worker threads, the state of its circuit, what is counted of its calls. Knows
//! nothing of: what a store does.
//!
//! Invariants
//! - A caller waits for at most the time limit, whatever the store does: calls run on threads of
//!   the store's own, and one that hangs keeps a thread of its own store and nothing else.
//! - While the circuit is open nothing is sent; half open, one call at a time tries.
//! - Only [`ErrorKind::Unavailable`] counts as a failure: a refusal is an answer.

use std::collections::VecDeque;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Capabilities, RemoteKeyStore, StoreBlob, StoreStats};
use crate::env::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::StoreSecret;
use crate::types::EncryptionContext;

/// How a store is guarded.
#[derive(Clone, Copy, Debug)]
pub struct GuardLimits {
    /// How long a caller waits.
    pub timeout: Duration,
    /// Calls that run at a time; as many threads.
    pub calls_max: usize,
    /// Calls that wait for a thread; one more is answered at once.
    pub waiting_max: usize,
    /// Failures in a row that open the circuit.
    pub failures_max: u32,
    /// How long it stays open.
    pub open_for: Duration,
}

impl GuardLimits {
    /// The limits with this time limit, and the rest as it is unless there is a reason.
    pub const fn with_timeout(timeout: Duration) -> Self {
        // Eight calls of 250 ms each serve more first uses of a bucket than a node sees; five
        // failures are more than chance; five seconds is what a Retry-After can ask for.
        Self {
            timeout,
            calls_max: 8,
            waiting_max: 64,
            failures_max: 5,
            open_for: Duration::from_secs(5),
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Circuit {
    Closed { failures: u32 },
    Open { since_ns: u64 },
    HalfOpen,
}

struct Shared {
    queue: Mutex<Queue>,
    wakes: Condvar,
}

/// A store behind its guard.
pub struct Guarded {
    store: Arc<dyn RemoteKeyStore>,
    limits: GuardLimits,
    clock: Arc<dyn Clock>,
    circuit: Mutex<Circuit>,
    stats: Mutex<StoreStats>,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guarded {
    /// Guards `store`.
    pub fn new(store: Arc<dyn RemoteKeyStore>, limits: GuardLimits, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            limits,
            clock,
            circuit: Mutex::new(Circuit::Closed { failures: 0 }),
            stats: Mutex::default(),
            shared: Arc::new(Shared { queue: Mutex::default(), wakes: Condvar::new() }),
        }
    }

    /// Whether calls are answered without being sent.
    pub fn is_open(&self) -> bool {
        matches!(*lock(&self.circuit), Circuit::Open { .. })
    }

    fn unavailable(&self, why: &str) -> Error {
        let name = self.store.capabilities().name;
        Error::new(ErrorKind::Unavailable, format!("call the {name} store: {why}"))
    }

    /// Runs a call on a thread of this store.
    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn RemoteKeyStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let passed = self.pass();
        let is_trial = passed.inspect_err(|_| lock(&self.stats).held_back += 1)?;
        let begun_ns = self.clock.monotonic_ns();
        let result = self.run(work);
        let failed = result.as_ref().err().map(Error::kind);
        self.count(begun_ns, failed);
        self.settle(is_trial, failed);
        result
    }

    fn count(&self, begun_ns: u64, failed: Option<ErrorKind>) {
        let waited_ns = self.clock.monotonic_ns().saturating_sub(begun_ns);
        let mut stats = lock(&self.stats);
        stats.waited_ns = stats.waited_ns.saturating_add(waited_ns);
        match failed {
            None => stats.answered += 1,
            Some(ErrorKind::Unavailable) => stats.failed += 1,
            Some(_) => stats.refused += 1,
        }
    }

    /// Lets a call through, or not. `true`: it is the one that tries whether the store is back.
    fn pass(&self) -> Result<bool> {
        let mut circuit = lock(&self.circuit);
        match *circuit {
            Circuit::Closed { .. } => Ok(false),
            Circuit::HalfOpen => Err(self.unavailable("one call is trying whether it is back")),
            Circuit::Open { since_ns } => {
                let open_ns = u64::try_from(self.limits.open_for.as_nanos()).unwrap_or(u64::MAX);
                if self.clock.monotonic_ns().saturating_sub(since_ns) < open_ns {
                    return Err(self.unavailable("it failed several times; not asked for a while"));
                }
                *circuit = Circuit::HalfOpen;
                Ok(true)
            }
        }
    }

    fn settle(&self, is_trial: bool, failed: Option<ErrorKind>) {
        let mut circuit = lock(&self.circuit);
        let now = Circuit::Open { since_ns: self.clock.monotonic_ns() };
        let is_failure = failed == Some(ErrorKind::Unavailable);
        *circuit = match *circuit {
            Circuit::HalfOpen if is_trial && is_failure => now,
            Circuit::HalfOpen if is_trial => Circuit::Closed { failures: 0 },
            Circuit::Closed { failures } if is_failure => match failures + 1 {
                failures if failures >= self.limits.failures_max => {
                    let store = self.store.capabilities().name;
                    tracing::warn!(store, failures, "a key store fails; not asked for a while");
                    now
                }
                failures => Circuit::Closed { failures },
            },
            Circuit::Closed { .. } => Circuit::Closed { failures: 0 },
            // A call from before it opened.
            other => other,
        };
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn RemoteKeyStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver): (SyncSender<Result<T>>, _) = sync_channel(1);
        let store = Arc::clone(&self.store);
        // The receiver may be gone: then the answer, and a secret in it, is dropped and wiped.
        self.enqueue(Box::new(move || drop(sender.send(work(&*store)))))?;
        match receiver.recv_timeout(self.limits.timeout) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(self.unavailable("no answer in time")),
            Err(RecvTimeoutError::Disconnected) => Err(self.unavailable("its call broke off")),
        }
    }

    fn enqueue(&self, job: Job) -> Result<()> {
        let mut queue = lock(&self.shared.queue);
        if queue.jobs.len() >= self.limits.waiting_max {
            return Err(self.unavailable("too many calls wait for it"));
        }
        queue.jobs.push_back(job);
        if queue.idle < queue.jobs.len() && queue.threads < self.limits.calls_max {
            let shared = Arc::clone(&self.shared);
            let named = thread::Builder::new().name("key-store".to_owned());
            if named.spawn(move || work_off(&shared)).is_ok() {
                queue.threads += 1;
            } else if queue.threads == 0 {
                queue.jobs.pop_back();
                return Err(self.unavailable("no thread can be started"));
            }
        }
        drop(queue);
        self.shared.wakes.notify_one();
        Ok(())
    }
}

/// A thread of one store: takes calls until the store is dropped.
fn work_off(shared: &Shared) {
    let mut queue = lock(&shared.queue);
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            drop(queue);
            // A panic in a store must not cost it a thread for good.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            queue = lock(&shared.queue);
            continue;
        }
        if queue.is_closed {
            return;
        }
        queue.idle += 1;
        queue = shared.wakes.wait(queue).unwrap_or_else(PoisonError::into_inner);
        queue.idle -= 1;
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.is_closed = true;
        queue.jobs.clear();
        drop(queue);
        self.shared.wakes.notify_all();
    }
}

impl RemoteKeyStore for Guarded {
    fn capabilities(&self) -> Capabilities {
        let capabilities = self.store.capabilities();
        Capabilities { remote_latency: Some(self.limits.timeout), ..capabilities }
    }

    fn wrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        secret: &StoreSecret,
    ) -> Result<StoreBlob> {
        let (store_key, context) = (store_key.to_owned(), context.clone());
        let secret = secret.duplicate()?;
        self.call(move |store| store.wrap(&store_key, &context, &secret))
    }

    fn unwrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        blob: &StoreBlob,
    ) -> Result<StoreSecret> {
        let (store_key, context, blob) = (store_key.to_owned(), context.clone(), blob.clone());
        self.call(move |store| store.unwrap(&store_key, &context, &blob))
    }

    fn rewrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        blob: &StoreBlob,
    ) -> Result<StoreBlob> {
        let (store_key, context, blob) = (store_key.to_owned(), context.clone(), blob.clone());
        self.call(move |store| store.rewrap(&store_key, &context, &blob))
    }

    fn destroy(&self, store_key: &str) -> Result<()> {
        let store_key = store_key.to_owned();
        self.call(move |store| store.destroy(&store_key))
    }

    fn health(&self) -> Result<()> {
        self.call(|store| store.health())
    }

    fn stats(&self) -> StoreStats {
        let is_open = !matches!(*lock(&self.circuit), Circuit::Closed { .. });
        StoreStats { is_open, ..*lock(&self.stats) }
    }
}

#[cfg(test)]
mod tests;
