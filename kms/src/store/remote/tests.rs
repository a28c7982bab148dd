//! Two tenants, each with a store of its own: what one's trouble costs the other.

use super::*;
use crate::env::{Clock, ManualClock, SeededRng};
use crate::fixtures::mac_key;
use crate::store::{MemoryKeys, Mood};

struct Bench {
    stores: RemoteStores,
    ours: Arc<MemoryKeys>,
    theirs: Arc<MemoryKeys>,
    clock: Arc<ManualClock>,
}

fn tenant(byte: u8) -> TenantId {
    TenantId::from_bytes([byte; 16])
}

fn bench(ttl: Duration) -> Bench {
    let clock = Arc::new(ManualClock::new(0));
    let env = Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, rng: Arc::new(SeededRng::new(1)) };
    let stores = RemoteStores::new(ttl, env);
    let keys = |seed| {
        let keys = Arc::new(MemoryKeys::new(Arc::new(SeededRng::new(seed))));
        keys.add("k").unwrap();
        keys
    };
    let (ours, theirs) = (keys(2), keys(3));
    stores.add(
        "ours",
        Arc::clone(&ours) as Arc<dyn RemoteKeyStore>,
        Arc::new(|of| of == tenant(1)),
    );
    stores.add(
        "theirs",
        Arc::clone(&theirs) as Arc<dyn RemoteKeyStore>,
        Arc::new(|of| of == tenant(2)),
    );
    Bench { stores, ours, theirs, clock }
}

fn our_key() -> RemoteKey<'static> {
    RemoteKey {
        tenant: tenant(1),
        tenant_key: TenantKeyId::from_bytes([0x11; 16]),
        material: 1,
        store: "ours",
        store_key: "k",
    }
}

fn their_key() -> RemoteKey<'static> {
    RemoteKey {
        tenant: tenant(2),
        tenant_key: TenantKeyId::from_bytes([0x22; 16]),
        store: "theirs",
        ..our_key()
    }
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

impl Bench {
    fn wrap(&self, key: RemoteKey<'_>) -> Result<KeptBlob> {
        self.stores.wrap_new(key, &mac_key()).map(|(kept, _)| kept)
    }

    fn unwrap(&self, key: RemoteKey<'_>, kept: &KeptBlob) -> Result<()> {
        self.stores.unwrap(key, kept, &mac_key()).map(drop)
    }
}

#[test]
fn what_a_blob_opens_to_is_what_it_was_made_with() {
    let bench = bench(Duration::ZERO);
    let (kept, made) = bench.stores.wrap_new(our_key(), &mac_key()).unwrap();
    let stored = KeptBlob::decode(&kept.encode()).unwrap();
    let opened = bench.stores.unwrap(our_key(), &stored, &mac_key()).unwrap();
    assert!(opened.secret.matches(&made.secret));
    assert_eq!(opened.material, 1);
    let (_, other) = bench.stores.wrap_new(our_key(), &mac_key()).unwrap();
    assert!(!other.secret.matches(&made.secret), "a secret per material");
}

#[test]
fn a_material_a_tenant_key_and_a_tenant_are_bound() {
    let bench = bench(Duration::ZERO);
    bench.stores.add(
        "ours",
        Arc::clone(&bench.ours) as Arc<dyn RemoteKeyStore>,
        Arc::new(|of| of == tenant(1) || of == tenant(3)),
    );
    let blob = bench.wrap(our_key()).unwrap();
    for key in [
        RemoteKey { material: 2, ..our_key() },
        RemoteKey { tenant_key: TenantKeyId::from_bytes([0x12; 16]), ..our_key() },
        RemoteKey { tenant: tenant(3), ..our_key() },
    ] {
        assert_eq!(kind(bench.unwrap(key, &blob)), Some(ErrorKind::Corrupt));
    }
    bench.unwrap(our_key(), &blob).unwrap();
}

#[test]
fn a_store_that_keeps_something_else_is_found_out_at_once() {
    struct Forgetful(MemoryKeys);
    impl RemoteKeyStore for Forgetful {
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
        }
        fn wrap(&self, k: &str, c: &EncryptionContext, _: &StoreSecret) -> Result<StoreBlob> {
            self.0.wrap(k, c, &StoreSecret::generate(&SeededRng::new(77))?)
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
    let bench = bench(CACHE_TTL_DEFAULT);
    let keys = MemoryKeys::new(Arc::new(SeededRng::new(9)));
    keys.add("k").unwrap();
    bench.stores.add("ours", Arc::new(Forgetful(keys)), Arc::new(|of| of == tenant(1)));
    assert_eq!(kind(bench.wrap(our_key())), Some(ErrorKind::Unavailable));
    let probed = bench.stores.probe(tenant(1), "ours", "k");
    assert_eq!(kind(probed), Some(ErrorKind::Unavailable));
}

#[test]
fn an_answer_that_became_wrong_after_the_key_was_made_is_found_out() {
    /// Answers every unwrap with the same 32 bytes, as a proxy with another key in it may.
    struct Wrong;
    impl RemoteKeyStore for Wrong {
        fn capabilities(&self) -> Capabilities {
            MemoryKeys::new(Arc::new(SeededRng::new(9))).capabilities()
        }
        fn wrap(&self, _: &str, _: &EncryptionContext, _: &StoreSecret) -> Result<StoreBlob> {
            StoreBlob::new(vec![1])
        }
        fn unwrap(&self, _: &str, _: &EncryptionContext, _: &StoreBlob) -> Result<StoreSecret> {
            StoreSecret::generate(&SeededRng::new(78))
        }
        fn destroy(&self, _: &str) -> Result<()> {
            Ok(())
        }
        fn health(&self) -> Result<()> {
            Ok(())
        }
    }
    let bench = bench(Duration::ZERO);
    let kept = bench.wrap(our_key()).unwrap();
    bench.unwrap(our_key(), &kept).unwrap();
    bench.stores.add("ours", Arc::new(Wrong), Arc::new(|of| of == tenant(1)));
    assert_eq!(kind(bench.unwrap(our_key(), &kept)), Some(ErrorKind::Unavailable));
    let ours = Arc::clone(&bench.ours) as Arc<dyn RemoteKeyStore>;
    bench.stores.add("ours", ours, Arc::new(|of| of == tenant(1)));
    bench.clock.advance_ms(1_000);
    bench.unwrap(our_key(), &kept).unwrap();
}

#[test]
fn a_check_value_that_was_changed_opens_nothing() {
    let bench = bench(Duration::ZERO);
    let kept = bench.wrap(our_key()).unwrap().encode();
    for index in 0..CHECK_BYTES {
        let mut damaged = kept.clone();
        crate::fixtures::flip(&mut damaged, index * 8);
        let damaged = KeptBlob::decode(&damaged).unwrap();
        assert_eq!(kind(bench.unwrap(our_key(), &damaged)), Some(ErrorKind::Unavailable));
        bench.clock.advance_ms(1_000);
    }
    assert!(kind(KeptBlob::decode(&kept[..CHECK_BYTES])) == Some(ErrorKind::Corrupt));
}

#[test]
fn a_store_is_its_tenants_alone() {
    let bench = bench(CACHE_TTL_DEFAULT);
    let stolen = RemoteKey { store: "ours", ..their_key() };
    assert_eq!(kind(bench.wrap(stolen)), Some(ErrorKind::KeyUnusable));
    assert_eq!(kind(bench.stores.probe(tenant(2), "ours", "k")), Some(ErrorKind::NotFound));
    assert_eq!(kind(bench.stores.probe(tenant(1), "none", "k")), Some(ErrorKind::NotFound));
    assert_eq!(bench.ours.calls(), 0);
    bench.stores.probe(tenant(1), "ours", "k").unwrap();
    assert_eq!(kind(bench.stores.probe(tenant(1), "ours", "x")), Some(ErrorKind::NotFound));
}

#[test]
fn a_dead_store_is_its_tenants_trouble_alone() {
    let bench = bench(CACHE_TTL_DEFAULT);
    let (ours, theirs) = (bench.wrap(our_key()).unwrap(), bench.wrap(their_key()).unwrap());
    bench.clock.advance_ms(60_000);
    bench.ours.set_mood(Mood::Dead);
    assert_eq!(kind(bench.unwrap(our_key(), &ours)), Some(ErrorKind::Unavailable));
    bench.unwrap(their_key(), &theirs).unwrap();
    bench.ours.wake();
    bench.clock.advance_ms(1_000);
    bench.unwrap(our_key(), &ours).unwrap();
}

#[test]
fn the_cache_holds_for_its_time_and_not_longer() {
    let bench = bench(CACHE_TTL_DEFAULT);
    let wrapped = bench.wrap(our_key()).unwrap();
    let calls = bench.ours.calls();
    bench.ours.set_mood(Mood::Dead);
    bench.clock.advance_ms(59_999);
    bench.unwrap(our_key(), &wrapped).unwrap();
    assert_eq!(bench.ours.calls(), calls);
    bench.clock.advance_ms(1);
    assert_eq!(kind(bench.unwrap(our_key(), &wrapped)), Some(ErrorKind::Unavailable));
}

#[test]
fn what_a_closed_gate_forgets_is_asked_for_anew() {
    let bench = bench(CACHE_TTL_MAX);
    let (ours, theirs) = (bench.wrap(our_key()).unwrap(), bench.wrap(their_key()).unwrap());
    bench.stores.forget(our_key().tenant_key);
    bench.ours.set_mood(Mood::Dead);
    bench.theirs.set_mood(Mood::Dead);
    assert_eq!(kind(bench.unwrap(our_key(), &ours)), Some(ErrorKind::Unavailable));
    bench.unwrap(their_key(), &theirs).unwrap();
}

#[test]
fn a_refusal_is_remembered_for_a_moment() {
    let bench = bench(Duration::ZERO);
    let wrapped = bench.wrap(our_key()).unwrap();
    bench.ours.set_mood(Mood::Closed);
    let calls = bench.ours.calls();
    for _ in 0..10 {
        assert_eq!(kind(bench.unwrap(our_key(), &wrapped)), Some(ErrorKind::KeyUnusable));
    }
    assert_eq!(bench.ours.calls(), calls + 1);
    bench.ours.wake();
    bench.clock.advance_ms(1_000);
    bench.unwrap(our_key(), &wrapped).unwrap();
}

#[test]
fn identical_unwraps_are_one_call() {
    let bench = bench(CACHE_TTL_DEFAULT);
    let wrapped = bench.wrap(our_key()).unwrap();
    bench.clock.advance_ms(60_000);
    let calls = bench.ours.calls();
    bench.ours.set_mood(Mood::Hung);
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..8).map(|_| scope.spawn(|| bench.unwrap(our_key(), &wrapped))).collect();
        while bench.ours.calls() == calls {
            std::thread::yield_now();
        }
        bench.ours.wake();
        for thread in waiting {
            thread.join().unwrap().unwrap();
        }
    });
    assert_eq!(bench.ours.calls(), calls + 1);
}

#[test]
fn an_unwrap_that_a_forget_overtook_is_not_kept() {
    let bench = bench(CACHE_TTL_MAX);
    let wrapped = bench.wrap(our_key()).unwrap();
    bench.stores.forget(our_key().tenant_key);
    let calls = bench.ours.calls();
    bench.ours.set_mood(Mood::Hung);
    std::thread::scope(|scope| {
        let begun = scope.spawn(|| bench.unwrap(our_key(), &wrapped));
        while bench.ours.calls() == calls {
            std::thread::yield_now();
        }
        bench.stores.forget(our_key().tenant_key);
        bench.ours.wake();
        begun.join().unwrap().unwrap();
    });
    bench.ours.set_mood(Mood::Dead);
    assert_eq!(kind(bench.unwrap(our_key(), &wrapped)), Some(ErrorKind::Unavailable));
}
