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
//! - What a store wrapped is opened once before anything depends on it, and every later answer is
//!   held against a check value from then: a store that answers wrongly costs no data.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Capabilities, RemoteKeyStore, StoreBlob, StoreStats};
use crate::derive::kdf;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{MacSecret, StoreSecret};
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
/// Bytes of a check value.
const CHECK_BYTES: usize = 32;

/// A key in a remote store, and which material it stands over.
#[derive(Clone, Copy)]
pub(crate) struct RemoteKey<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) tenant_key: TenantKeyId,
    pub(crate) material: u32,
    pub(crate) store: &'a str,
    pub(crate) store_key: &'a str,
}

/// What is kept of a store's answer to a wrap: its blob, and what tells a wrong answer later.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeptBlob {
    blob: StoreBlob,
    check: [u8; CHECK_BYTES],
}

impl KeptBlob {
    /// Takes kept bytes: the check value, then the blob.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: too short, or the blob too long.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let (check, blob) = bytes.split_first_chunk().ok_or_else(|| {
            let during = format!("take a key store's kept blob of {} bytes", bytes.len());
            Error::new(ErrorKind::Corrupt, during)
        })?;
        Ok(Self { blob: StoreBlob::new(blob.to_vec())?, check: *check })
    }

    /// The bytes to keep.
    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.check.as_slice(), self.blob.as_bytes()].concat()
    }
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

    /// The name of each store and what became of its calls. Asks none of them.
    pub fn stats(&self) -> Vec<(String, StoreStats)> {
        let stores = lock(&self.stores);
        stores.iter().map(|(name, entry)| (name.clone(), entry.store.stats())).collect()
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

    /// Makes the outer secret of a new material: what is to be kept of it.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnusable`]: the tenant has no such store, or the store refuses the key.
    /// [`ErrorKind::Unavailable`]: the store does not answer, or not with what it was given.
    pub(crate) fn wrap_new(
        &self,
        key: RemoteKey<'_>,
        mac_key: &MacSecret,
    ) -> Result<(KeptBlob, OuterSecret)> {
        let store = self.find(key.tenant, key.store).map_err(unusable)?;
        let secret = StoreSecret::generate(&*self.env.rng)?;
        let context = context_of(key)?;
        let blob = store.wrap(key.store_key, &context, &secret).map_err(unusable)?;
        let kept = KeptBlob { blob, check: check_of(&context, &secret, mac_key) };
        let opened = self.unwrap(key, &kept, mac_key)?;
        check_same(&opened.secret, &secret)?;
        Ok((kept, opened))
    }

    /// The outer secret of a material, from the cache or with the store's help.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: the blob does not open under this key. And as [`Self::wrap_new`].
    pub(crate) fn unwrap(
        &self,
        key: RemoteKey<'_>,
        kept: &KeptBlob,
        mac_key: &MacSecret,
    ) -> Result<OuterSecret> {
        let store = self.find(key.tenant, key.store).map_err(unusable)?;
        let context = context_of(key)?;
        let cache_key = cache_key(key, &context, kept);
        let begun = self.forgotten.load(Ordering::SeqCst);
        if let Some(known) = self.known_or_begin(&cache_key) {
            return known;
        }
        // From here on the others of this call wait for the flight, whatever happens.
        let flight = Flight { stores: self, cache_key };
        let result = store.unwrap(key.store_key, &context, &kept.blob).map_err(unusable);
        let result = result.and_then(|secret| {
            let check = check_of(&context, &secret, mac_key);
            if bool::from(check.ct_eq(&kept.check)) { Ok(secret) } else { Err(another_secret()) }
        });
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
    Err(another_secret())
}

/// The fault is the store's and what is kept is sound, so a store that is mended is enough.
fn another_secret() -> Error {
    Error::new(ErrorKind::Unavailable, "check a key store: it gave another secret back")
}

/// `KDF(MAC key, "store-outer", CTX ‖ outer, 32)`: says nothing of the secret to whoever has no
/// MAC key, and little to whoever has, because the secret is 32 random bytes.
fn check_of(
    context: &EncryptionContext,
    secret: &StoreSecret,
    mac_key: &MacSecret,
) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    let context = context.encode();
    let secret = secret.borrow();
    kdf(&mac_key.borrow(), b"store-outer", [context.as_slice(), secret.as_slice()], &mut check);
    check
}

/// What a store authenticates: `{k: tenant key, m: be32 material, t: tenant}`.
fn context_of(key: RemoteKey<'_>) -> Result<EncryptionContext> {
    EncryptionContext::new()
        .with(b"k", key.tenant_key.as_bytes())?
        .with(b"m", &key.material.to_be_bytes())?
        .with(b"t", key.tenant.as_bytes())
}

fn cache_key(key: RemoteKey<'_>, context: &EncryptionContext, kept: &KeptBlob) -> CacheKey {
    let mut hash = Sha256::new();
    for part in [key.store.as_bytes(), key.store_key.as_bytes(), &context.digest()] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.update(kept.check);
    hash.update(kept.blob.as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
