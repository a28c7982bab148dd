//! Tenant keys in remote stores: who may use which, and what is kept of their answers.
//!
//! A material of such a key is `Extract(outer, inner)`: `inner` is kept as every material is (root
//! key and erasable slot), `outer` is a secret that only the store can unwrap. So the store alone
//! opens nothing, nor does the node without the store.
//! Owns: which tenant may use which store, the cache of outer secrets. Knows nothing of: gates.
//!
//! Invariants
//! - A store answers only for the tenants it is configured for; to others it is not there.
//! - An outer secret is kept for at most the cache's time, and dropped at once by
//!   [`RemoteStores::forget`], which the gate of its tenant key calls for.
//! - Identical unwraps that run at a time are one call; a refusal is remembered for a moment.
//! - No caller holds a gate's guard here: these calls wait for the network.
//! - What a store wrapped is opened once before anything depends on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Capabilities, RemoteKeyStore, StoreBlob};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::StoreSecret;
use crate::types::{EncryptionContext, TenantId, TenantKeyId};

/// How long an unwrapped secret is kept unless configured: a disable in the tenant's own store
/// takes effect within this time.
pub const CACHE_TTL_DEFAULT: Duration = Duration::from_mins(1);
/// The longest it may be kept.
pub const CACHE_TTL_MAX: Duration = Duration::from_hours(1);
/// How long a refusal is remembered, so that a busy client does not hammer the tenant's store.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// Secrets kept, each in a slot of locked memory: an eighth of the arena.
const CACHED_MAX: usize = 16_384;

/// A key in a remote store, and which material it stands over.
#[derive(Clone, Copy)]
pub(crate) struct RemoteKey<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) tenant_key: TenantKeyId,
    pub(crate) material: u32,
    pub(crate) store: &'a str,
    pub(crate) store_key: &'a str,
}

/// The outer secret of one material, and until when it may be used, in monotonic nanoseconds.
#[derive(Clone)]
pub(crate) struct OuterSecret {
    pub(crate) material: u32,
    pub(crate) secret: Arc<StoreSecret>,
    pub(crate) until_ns: u64,
}

/// Whether a tenant may use a store.
pub type StoreTenants = Arc<dyn Fn(TenantId) -> bool + Send + Sync>;

struct Configured {
    store: Arc<dyn RemoteKeyStore>,
    tenants: StoreTenants,
}

/// What a secret is found by: SHA-256 over store, key, context and blob.
type CacheKey = [u8; 32];

enum Cached {
    /// A call is on its way.
    Asked,
    Open {
        outer: OuterSecret,
        tenant_key: TenantKeyId,
    },
    Refused {
        kind: ErrorKind,
        until_ns: u64,
    },
}

/// The remote key stores of a node.
pub struct RemoteStores {
    stores: Mutex<BTreeMap<String, Arc<Configured>>>,
    ttl: Duration,
    cache: Mutex<HashMap<CacheKey, Cached>>,
    arrived: Condvar,
    /// Counts [`Self::forget`]: an unwrap that began before is not kept.
    forgotten: AtomicU64,
    env: Env,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RemoteStores {
    /// None yet. Secrets are kept for `ttl`, at most [`CACHE_TTL_MAX`].
    pub fn new(ttl: Duration, env: Env) -> Self {
        Self {
            stores: Mutex::default(),
            ttl: ttl.min(CACHE_TTL_MAX),
            cache: Mutex::default(),
            arrived: Condvar::new(),
            forgotten: AtomicU64::new(0),
            env,
        }
    }

    /// Adds a store for the tenants that `tenants` says yes to, or replaces it. It should be behind
    /// a [`Guarded`](super::Guarded).
    pub fn add(&self, name: &str, store: Arc<dyn RemoteKeyStore>, tenants: StoreTenants) {
        lock(&self.stores).insert(name.to_owned(), Arc::new(Configured { store, tenants }));
    }

    /// What the store can do, if this tenant may use it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: it has no such store.
    pub fn capabilities(&self, tenant: TenantId, name: &str) -> Result<Capabilities> {
        Ok(self.find(tenant, name)?.capabilities())
    }

    /// Whether a key of a store can be used: wraps and unwraps a secret that is thrown away.
    ///
    /// # Errors
    /// As [`RemoteKeyStore::wrap`]; [`ErrorKind::NotFound`] also where the tenant has no such
    /// store.
    pub fn probe(&self, tenant: TenantId, name: &str, store_key: &str) -> Result<()> {
        let store = self.find(tenant, name)?;
        let context = EncryptionContext::new().with(b"probe", tenant.as_bytes())?;
        let secret = StoreSecret::generate(&*self.env.rng)?;
        let blob = store.wrap(store_key, &context, &secret)?;
        check_same(&store.unwrap(store_key, &context, &blob)?, &secret)
    }

    /// The name of each store and whether it answers now.
    pub fn health(&self) -> Vec<(String, Result<()>)> {
        let stores: Vec<_> = lock(&self.stores)
            .iter()
            .map(|(name, configured)| (name.clone(), Arc::clone(&configured.store)))
            .collect();
        stores.into_iter().map(|(name, store)| (name, store.health())).collect()
    }

    /// Wipes what was unwrapped under a tenant key: its gate closed.
    pub fn forget(&self, tenant_key: TenantKeyId) {
        let mut cache = lock(&self.cache);
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        cache.retain(|_, cached| match cached {
            Cached::Open { tenant_key: of, .. } => *of != tenant_key,
            Cached::Asked | Cached::Refused { .. } => true,
        });
    }

    fn find(&self, tenant: TenantId, name: &str) -> Result<Arc<dyn RemoteKeyStore>> {
        let configured = lock(&self.stores).get(name).map(Arc::clone);
        let configured = configured.filter(|configured| (configured.tenants)(tenant));
        configured.map(|configured| Arc::clone(&configured.store)).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("find key store {name} of tenant {tenant}"))
                .with_advice("name the tenant in `tenants` of a `[[key_stores]]` entry")
        })
    }

    /// Makes the outer secret of a new material: the store's blob, to be kept.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnusable`]: the tenant has no such store, or the store refuses the key.
    /// [`ErrorKind::Unavailable`]: the store does not answer, or not with what it was given.
    pub(crate) fn wrap_new(&self, key: RemoteKey<'_>) -> Result<(StoreBlob, OuterSecret)> {
        let store = self.find(key.tenant, key.store).map_err(unusable)?;
        let secret = StoreSecret::generate(&*self.env.rng)?;
        let blob = store.wrap(key.store_key, &context_of(key)?, &secret).map_err(unusable)?;
        let opened = self.unwrap(key, &blob)?;
        check_same(&opened.secret, &secret)?;
        Ok((blob, opened))
    }

    /// The outer secret of a material, from the cache or with the store's help.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: the blob does not open under this key. And as [`Self::wrap_new`].
    pub(crate) fn unwrap(&self, key: RemoteKey<'_>, blob: &StoreBlob) -> Result<OuterSecret> {
        let store = self.find(key.tenant, key.store).map_err(unusable)?;
        let context = context_of(key)?;
        let cache_key = cache_key(key, &context, blob);
        let begun = self.forgotten.load(Ordering::SeqCst);
        if let Some(known) = self.known_or_begin(&cache_key) {
            return known;
        }
        // From here on the others of this call wait for the flight, whatever happens.
        let flight = Flight { stores: self, cache_key };
        let result = store.unwrap(key.store_key, &context, blob).map_err(unusable);
        let ttl_ns = u64::try_from(self.ttl.as_nanos()).unwrap_or(u64::MAX);
        let until_ns = self.env.clock.monotonic_ns().saturating_add(ttl_ns);
        let outer = result.map(|secret| OuterSecret {
            material: key.material,
            secret: Arc::new(secret),
            until_ns,
        });
        flight.arrive(key.tenant_key, begun, &outer);
        outer
    }

    /// What is known of it; none after marking it as asked for.
    fn known_or_begin(&self, cache_key: &CacheKey) -> Option<Result<OuterSecret>> {
        let mut cache = lock(&self.cache);
        loop {
            let now_ns = self.env.clock.monotonic_ns();
            match cache.get(cache_key) {
                Some(Cached::Asked) => {
                    cache = self.arrived.wait(cache).unwrap_or_else(PoisonError::into_inner);
                }
                Some(Cached::Open { outer, .. }) if now_ns < outer.until_ns => {
                    return Some(Ok(outer.clone()));
                }
                Some(Cached::Refused { kind, until_ns }) if now_ns < *until_ns => {
                    let during = "unwrap with a key store that refused a moment ago";
                    return Some(Err(Error::new(*kind, during)));
                }
                _ => {
                    make_room(&mut cache, now_ns);
                    cache.insert(*cache_key, Cached::Asked);
                    return None;
                }
            }
        }
    }
}

/// A call on its way. Dropped without an answer, it lets the waiting ones ask for themselves.
struct Flight<'a> {
    stores: &'a RemoteStores,
    cache_key: CacheKey,
}

impl Flight<'_> {
    fn arrive(&self, tenant_key: TenantKeyId, begun: u64, result: &Result<OuterSecret>) {
        let stores = self.stores;
        let now_ns = stores.env.clock.monotonic_ns();
        let mut cache = lock(&stores.cache);
        let is_current = stores.forgotten.load(Ordering::SeqCst) == begun;
        match result {
            Ok(outer) if is_current && now_ns < outer.until_ns => {
                cache.insert(self.cache_key, Cached::Open { outer: outer.clone(), tenant_key });
            }
            Ok(_) => {}
            Err(error) => {
                let refused_ns = u64::try_from(REFUSED_FOR.as_nanos()).unwrap_or(u64::MAX);
                let until_ns = now_ns.saturating_add(refused_ns);
                cache.insert(self.cache_key, Cached::Refused { kind: error.kind(), until_ns });
            }
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut cache = lock(&self.stores.cache);
        if matches!(cache.get(&self.cache_key), Some(Cached::Asked)) {
            cache.remove(&self.cache_key);
        }
        drop(cache);
        self.stores.arrived.notify_all();
    }
}

/// Drops what is past its time, and if that is not enough, what is open first.
fn make_room(cache: &mut HashMap<CacheKey, Cached>, now_ns: u64) {
    if cache.len() < CACHED_MAX {
        return;
    }
    cache.retain(|_, cached| match cached {
        Cached::Asked => true,
        Cached::Open { outer, .. } => now_ns < outer.until_ns,
        Cached::Refused { until_ns, .. } => now_ns < *until_ns,
    });
    if cache.len() >= CACHED_MAX {
        cache.retain(|_, cached| matches!(cached, Cached::Asked));
    }
}

/// A store's answer as an answer about the tenant key: whatever the store refuses, the tenant key
/// cannot be used in its present state; that it is missing is not that an object is.
fn unusable(error: Error) -> Error {
    match error.kind() {
        ErrorKind::AccessDenied
        | ErrorKind::KeyDisabled
        | ErrorKind::NotFound
        | ErrorKind::Refused => {
            Error::new(ErrorKind::KeyUnusable, "use a tenant key in its key store")
                .with_source(error)
        }
        _ => error,
    }
}

/// A store that keeps something else than it was given must not cost an object.
fn check_same(opened: &StoreSecret, given: &StoreSecret) -> Result<()> {
    if opened.matches(given) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, "check a key store: it gave another secret back"))
}

/// What a store authenticates: `{k: tenant key, m: be32 material, t: tenant}`.
fn context_of(key: RemoteKey<'_>) -> Result<EncryptionContext> {
    EncryptionContext::new()
        .with(b"k", key.tenant_key.as_bytes())?
        .with(b"m", &key.material.to_be_bytes())?
        .with(b"t", key.tenant.as_bytes())
}

fn cache_key(key: RemoteKey<'_>, context: &EncryptionContext, blob: &StoreBlob) -> CacheKey {
    let mut hash = Sha256::new();
    for part in [key.store.as_bytes(), key.store_key.as_bytes(), &context.digest()] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.update(blob.as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
