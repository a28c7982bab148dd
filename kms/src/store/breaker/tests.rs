//! Dead, slow and busy stores.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::env::{ManualClock, SeededRng};
use crate::store::{MemoryKeys, Mood};

const LIMITS: GuardLimits = GuardLimits {
    timeout: Duration::from_millis(100),
    calls_max: 2,
    waiting_max: 4,
    failures_max: 3,
    open_for: Duration::from_secs(5),
};

fn guarded() -> (Guarded, Arc<MemoryKeys>, Arc<ManualClock>) {
    let store = Arc::new(MemoryKeys::new(Arc::new(SeededRng::new(1))));
    store.add("k").unwrap();
    let clock = Arc::new(ManualClock::new(0));
    let held = Arc::clone(&store) as Arc<dyn RemoteKeyStore>;
    (Guarded::new(held, LIMITS, Arc::clone(&clock) as Arc<dyn Clock>), store, clock)
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn failures_in_a_row_open_the_circuit_and_one_trial_closes_it() {
    let (guarded, store, clock) = guarded();
    store.set_mood(Mood::Dead);
    for call in 1..=LIMITS.failures_max {
        assert!(!guarded.is_open());
        assert_eq!(kind(guarded.health()), Some(ErrorKind::Unavailable));
        assert_eq!(store.calls(), call);
    }
    assert!(guarded.is_open());
    // Nothing is sent while it is open, though the store is back.
    store.set_mood(Mood::Well);
    clock.advance_ms(4_999);
    assert_eq!(kind(guarded.health()), Some(ErrorKind::Unavailable));
    assert_eq!(store.calls(), LIMITS.failures_max);
    clock.advance_ms(1);
    guarded.health().unwrap();
    assert!(!guarded.is_open());
    assert_eq!(store.calls(), LIMITS.failures_max + 1);
}

#[test]
fn a_failed_trial_opens_it_anew() {
    let (guarded, store, clock) = guarded();
    store.set_mood(Mood::Dead);
    (0..LIMITS.failures_max).for_each(|_| drop(guarded.health()));
    clock.advance_ms(5_000);
    assert_eq!(kind(guarded.health()), Some(ErrorKind::Unavailable));
    assert!(guarded.is_open());
    let calls = store.calls();
    clock.advance_ms(4_999);
    assert_eq!(kind(guarded.health()), Some(ErrorKind::Unavailable));
    assert_eq!(store.calls(), calls);
}

#[test]
fn a_refusal_is_an_answer() {
    let (guarded, store, _clock) = guarded();
    store.set_mood(Mood::Closed);
    for _ in 0..LIMITS.failures_max * 3 {
        assert_eq!(kind(guarded.health()), Some(ErrorKind::AccessDenied));
    }
    assert!(!guarded.is_open());
}

#[test]
fn a_success_ends_the_row() {
    let (guarded, store, _clock) = guarded();
    for _ in 0..LIMITS.failures_max {
        store.set_mood(Mood::Dead);
        (1..LIMITS.failures_max).for_each(|_| drop(guarded.health()));
        store.set_mood(Mood::Well);
        guarded.health().unwrap();
    }
    assert!(!guarded.is_open());
}

#[test]
fn a_store_that_hangs_is_left_in_time_and_comes_back() {
    let (guarded, store, clock) = guarded();
    store.set_mood(Mood::Hung);
    for _ in 0..LIMITS.failures_max {
        assert_eq!(kind(guarded.health()), Some(ErrorKind::Unavailable));
    }
    assert!(guarded.is_open());
    // Two threads hang, no third was started; the third call waited for one and never ran.
    assert_eq!(store.calls(), 2);
    store.wake();
    clock.advance_ms(5_000);
    guarded.health().unwrap();
}

#[test]
fn no_more_calls_run_at_once_than_allowed() {
    struct Counting {
        now: AtomicUsize,
        most: AtomicUsize,
        inner: MemoryKeys,
    }
    impl RemoteKeyStore for Counting {
        fn capabilities(&self) -> Capabilities {
            self.inner.capabilities()
        }
        fn wrap(&self, k: &str, c: &EncryptionContext, s: &StoreSecret) -> Result<StoreBlob> {
            self.inner.wrap(k, c, s)
        }
        fn unwrap(&self, k: &str, c: &EncryptionContext, b: &StoreBlob) -> Result<StoreSecret> {
            self.inner.unwrap(k, c, b)
        }
        fn destroy(&self, k: &str) -> Result<()> {
            self.inner.destroy(k)
        }
        fn health(&self) -> Result<()> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            // Long enough for the others to come.
            let (_sender, receiver) = sync_channel::<()>(0);
            let _ = receiver.recv_timeout(Duration::from_millis(5));
            self.now.fetch_sub(1, Ordering::SeqCst);
            self.inner.health()
        }
    }
    let inner = MemoryKeys::new(Arc::new(SeededRng::new(1)));
    let store = Arc::new(Counting { now: 0.into(), most: 0.into(), inner });
    let limits = GuardLimits { timeout: Duration::from_mins(1), waiting_max: 64, ..LIMITS };
    let held = Arc::clone(&store) as Arc<dyn RemoteKeyStore>;
    let guarded = Guarded::new(held, limits, Arc::new(ManualClock::new(0)));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| guarded.health().unwrap());
        }
    });
    assert_eq!(store.most.load(Ordering::SeqCst), LIMITS.calls_max);
}

#[test]
fn a_panic_in_a_store_is_a_failure_and_costs_no_thread() {
    struct Panicking(MemoryKeys);
    impl RemoteKeyStore for Panicking {
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
        }
        fn wrap(&self, _: &str, _: &EncryptionContext, _: &StoreSecret) -> Result<StoreBlob> {
            panic!("a test's panic")
        }
        fn unwrap(&self, k: &str, c: &EncryptionContext, b: &StoreBlob) -> Result<StoreSecret> {
            self.0.unwrap(k, c, b)
        }
        fn destroy(&self, k: &str) -> Result<()> {
            self.0.destroy(k)
        }
        fn health(&self) -> Result<()> {
            self.0.health()
        }
    }
    let rng = Arc::new(SeededRng::new(1));
    let store = Arc::new(Panicking(MemoryKeys::new(rng)));
    // Printing the panic takes its time.
    let timeout = Duration::from_mins(1);
    let limits = GuardLimits { timeout, calls_max: 1, failures_max: 10, ..LIMITS };
    let guarded = Guarded::new(store, limits, Arc::new(ManualClock::new(0)));
    let secret = StoreSecret::generate(&SeededRng::new(2)).unwrap();
    for _ in 0..3 {
        let result = guarded.wrap("k", &EncryptionContext::new(), &secret);
        assert_eq!(kind(result), Some(ErrorKind::Unavailable));
        guarded.health().unwrap();
    }
}
