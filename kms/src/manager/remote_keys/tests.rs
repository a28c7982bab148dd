//! Tenant keys over stores in memory: through the whole manager.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::bucket_key::{BucketKeyPurpose, BucketKeyScope};
use crate::env::{Clock, Env, ManualClock, SeededRng};
use crate::fixtures::{purpose, ramp};
use crate::gate::{Access, KeyUse};
use crate::store::{
    CACHE_TTL_DEFAULT, MemoryKeys, MemoryStore, Mood, RemoteKeyStore, RemoteStores,
};
use crate::types::EncryptionContext;

fn tenant(byte: u8) -> TenantId {
    TenantId::from_bytes([byte; 16])
}

fn scope() -> BucketKeyScope {
    BucketKeyScope { bucket: ramp(0x20), epoch: 1, purpose: BucketKeyPurpose::Data }
}

struct Bench {
    _dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    kms: Kms,
    stores: [Arc<MemoryKeys>; 2],
}

/// Two tenants, each with a store; what is unwrapped is kept for `ttl`.
fn bench(ttl: Duration) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let env = Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, rng: Arc::new(SeededRng::new(1)) };
    let root = MemoryStore::new(Arc::clone(&env.rng)).unwrap();
    let kms = Kms::create(dir.path(), &root, env.clone()).unwrap();
    let remote = RemoteStores::new(ttl, env.clone());
    let stores = [1, 2].map(|byte| add_store(&remote, byte, &env));
    Bench { _dir: dir, clock, kms: kms.with_key_stores(Arc::new(remote)), stores }
}

fn add_store(remote: &RemoteStores, byte: u8, env: &Env) -> Arc<MemoryKeys> {
    let store = Arc::new(MemoryKeys::new(Arc::clone(&env.rng)));
    store.add("k").unwrap();
    let held = Arc::clone(&store) as Arc<dyn RemoteKeyStore>;
    remote.add(&format!("store-{byte}"), held, Arc::new(move |of| of == tenant(byte)));
    store
}

impl Bench {
    fn create(&self, byte: u8, store: u8) -> Result<TenantKeyId> {
        let origin = KeyOrigin::Store { store: format!("store-{store}"), key: "k".to_owned() };
        self.kms.create_key(&purpose(tenant(byte)), origin).map(|info| info.id)
    }

    fn permit(&self, byte: u8, id: TenantKeyId) -> Result<UnwrapPermit> {
        self.kms.permit(&purpose(tenant(byte)), id, Access::in_bucket(KeyUse::Write, ramp(0x20)))
    }
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_dead_store_stops_its_tenant_and_no_other_and_comes_back() {
    let bench = bench(Duration::ZERO);
    let (ours, theirs) = (bench.create(1, 1).unwrap(), bench.create(2, 2).unwrap());
    let local = bench.kms.create_key(&purpose(tenant(2)), KeyOrigin::Local).unwrap().id;
    let use_key = |byte: u8, id: TenantKeyId| -> Result<crate::WrappedKey> {
        let permit = bench.permit(byte, id)?;
        let (bucket_key, _, wrapped) = bench.kms.create_bucket_key(&permit, &scope())?;
        let opened = bench.kms.unwrap_bucket_key(&permit, &wrapped, &scope())?;
        assert_eq!(opened.id(), bucket_key.id());
        Ok(wrapped)
    };
    let wrapped = use_key(1, ours).unwrap();
    use_key(2, theirs).unwrap();

    let [our_store, _] = &bench.stores;
    our_store.set_mood(Mood::Dead);
    let permit = bench.permit(1, ours).unwrap();
    let opened = bench.kms.unwrap_bucket_key(&permit, &wrapped, &scope());
    assert_eq!(kind(opened), Some(ErrorKind::Unavailable));
    use_key(2, theirs).unwrap();
    use_key(2, local).unwrap();

    our_store.set_mood(Mood::Well);
    bench.clock.advance_ms(1_000);
    bench.kms.unwrap_bucket_key(&permit, &wrapped, &scope()).unwrap();
    bench.kms.rewrap_bucket_key(&permit, &wrapped, &scope()).unwrap();
}

#[test]
fn the_api_encrypts_and_decrypts_under_a_key_in_a_store() {
    let bench = bench(CACHE_TTL_DEFAULT);
    let id = bench.create(1, 1).unwrap();
    let (permit, context) = (bench.permit(1, id).unwrap(), EncryptionContext::new());
    let blob = bench.kms.encrypt(&permit, b"plain", &context).unwrap();
    let read = crate::ApiCiphertext::parse(&blob).unwrap();
    assert_eq!(bench.kms.decrypt(&permit, &read, &context).unwrap().as_slice(), b"plain");
}

#[test]
fn a_disable_forgets_what_the_store_unwrapped() {
    let bench = bench(CACHE_TTL_DEFAULT);
    let id = bench.create(1, 1).unwrap();
    let permit = bench.permit(1, id).unwrap();
    let (_, _, wrapped) = bench.kms.create_bucket_key(&permit, &scope()).unwrap();
    let [store, _] = &bench.stores;
    store.set_mood(Mood::Dead);
    // From the cache.
    bench.kms.unwrap_bucket_key(&permit, &wrapped, &scope()).unwrap();
    bench.kms.disable(&purpose(tenant(1)), id).unwrap();
    bench.kms.enable(&purpose(tenant(1)), id).unwrap();
    let permit = bench.permit(1, id).unwrap();
    let opened = bench.kms.unwrap_bucket_key(&permit, &wrapped, &scope());
    assert_eq!(kind(opened), Some(ErrorKind::Unavailable));
}

#[test]
fn another_tenants_store_and_no_store_make_no_key() {
    let bench = bench(CACHE_TTL_DEFAULT);
    for (byte, store) in [(1, 2), (2, 1), (1, 9)] {
        assert_eq!(kind(bench.create(byte, store)), Some(ErrorKind::KeyUnusable));
    }
    let origin = KeyOrigin::Store { store: "store-1".to_owned(), key: "absent".to_owned() };
    let made = bench.kms.create_key(&purpose(tenant(1)), origin);
    assert_eq!(kind(made), Some(ErrorKind::KeyUnusable));
    assert!(bench.kms.default_tenant_key(tenant(1)).is_err());
}

#[test]
fn a_bucket_key_says_when_its_store_should_be_asked_again() {
    let bench = bench(CACHE_TTL_DEFAULT);
    let id = bench.create(1, 1).unwrap();
    let permit = bench.permit(1, id).unwrap();
    let (_, _, wrapped) = bench.kms.create_bucket_key(&permit, &scope()).unwrap();
    let bucket_key = bench.kms.unwrap_bucket_key(&permit, &wrapped, &scope()).unwrap();
    bench.clock.advance_ms(59_999);
    assert!(!bucket_key.is_stale(&*bench.clock));
    bench.clock.advance_ms(1);
    assert!(bucket_key.is_stale(&*bench.clock));
    let again = bench.kms.unwrap_bucket_key(&permit, &wrapped, &scope()).unwrap();
    assert!(!again.is_stale(&*bench.clock));
}
