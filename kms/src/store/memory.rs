//! Stores whose keys are only in memory: doubles for tests.
//!
//! Owns: [`MemoryStore`] for the root key, [`MemoryKeys`] for tenant keys, with switches to be
//! dead, slow or closed. Knows nothing of: files, networks.
//!
//! Invariants
//! - What they sealed and wrapped dies with them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::sealed::{Argon2Cost, Header, METHOD_MEMORY, SealedRoot, seal};
use super::{
    Capabilities, ErasureAssurance, KeyStore, RemoteKeyStore, StoreBlob, check_store_key, no_key,
};
use crate::env::{Rng, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{RootKey, SealSecret, StoreSecret, random};
use crate::types::EncryptionContext;
use crate::wrap::{WrapHeader, WrapKind, WrappedKey, unwrap_into, wrap};

/// Seals under a random key that is only in memory. For tests: what it sealed dies with it.
pub struct MemoryStore {
    secret: Arc<SealSecret>,
    rng: Arc<dyn Rng>,
}

impl MemoryStore {
    /// A store with a key of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Full`]: no locked memory is left.
    pub fn new(rng: Arc<dyn Rng>) -> Result<Self> {
        Ok(Self { secret: Arc::new(SealSecret::fill_with(random(&*rng))?), rng })
    }
}

impl KeyStore for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "memory",
            erasure_assurance: ErasureAssurance::OverwriteBestEffort,
            remote_latency: None,
            can_rewrap: false,
            can_destroy: false,
        }
    }

    fn seal_root(&self, root_key: &RootKey, context: &EncryptionContext) -> Result<Vec<u8>> {
        let salt = random_array(&*self.rng);
        let cost = Argon2Cost::NONE;
        let header = Header { method: METHOD_MEMORY, cost, stretch_salt: [0; 32], salt };
        Ok(seal(&self.secret, &header, root_key, context))
    }

    fn unseal_root(&self, sealed: &[u8], context: &EncryptionContext) -> Result<RootKey> {
        SealedRoot::parse(sealed, METHOD_MEMORY)?.open(&self.secret, context)
    }

    fn share(&self) -> Result<Arc<dyn KeyStore>> {
        Ok(Arc::new(Self { secret: Arc::clone(&self.secret), rng: Arc::clone(&self.rng) }))
    }

    fn health(&self) -> Result<()> {
        Ok(())
    }
}

/// How a [`MemoryKeys`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// As it should.
    Well,
    /// Not at all: as if its machine were gone.
    Dead,
    /// It takes the call and does not come back before [`MemoryKeys::wake`].
    Hung,
    /// It answers, and says no.
    Closed,
}

/// Tenant keys in memory, as a remote store would hold them.
pub struct MemoryKeys {
    keys: Mutex<HashMap<String, SealSecret>>,
    mood: AtomicU8,
    calls: AtomicU32,
    hung: (Mutex<()>, Condvar),
    rng: Arc<dyn Rng>,
}

impl MemoryKeys {
    /// A store without keys.
    pub fn new(rng: Arc<dyn Rng>) -> Self {
        Self {
            keys: Mutex::default(),
            mood: AtomicU8::new(Mood::Well as u8),
            calls: AtomicU32::new(0),
            hung: (Mutex::new(()), Condvar::new()),
            rng,
        }
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`ErrorKind::Full`]: no locked memory is left. [`ErrorKind::Refused`]: the id is none.
    pub fn add(&self, store_key: &str) -> Result<()> {
        check_store_key(store_key)?;
        let secret = SealSecret::fill_with(random(&*self.rng))?;
        self.keys().insert(store_key.to_owned(), secret);
        Ok(())
    }

    /// Changes how it answers; calls that hang go on.
    pub fn set_mood(&self, mood: Mood) {
        let _held = self.hung.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.mood.store(mood as u8, Ordering::SeqCst);
        self.hung.1.notify_all();
    }

    /// Lets go of calls that hang.
    pub fn wake(&self) {
        self.set_mood(Mood::Well);
    }

    /// Calls that reached it, health checks included.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, HashMap<String, SealSecret>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut held = self.hung.0.lock().unwrap_or_else(PoisonError::into_inner);
        while self.mood.load(Ordering::SeqCst) == Mood::Hung as u8 {
            held = self.hung.1.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        let refused = match self.mood.load(Ordering::SeqCst) {
            mood if mood == Mood::Dead as u8 => ErrorKind::Unavailable,
            mood if mood == Mood::Closed as u8 => ErrorKind::AccessDenied,
            _ => return Ok(()),
        };
        Err(Error::new(refused, "ask the memory store"))
    }

    fn with_key<T>(
        &self,
        store_key: &str,
        work: impl FnOnce(&SealSecret) -> Result<T>,
    ) -> Result<T> {
        check_store_key(store_key)?;
        self.answer()?;
        work(self.keys().get(store_key).ok_or_else(|| no_key("memory", store_key))?)
    }
}

impl RemoteKeyStore for MemoryKeys {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "memory",
            erasure_assurance: ErasureAssurance::BackendDestroyed,
            remote_latency: Some(Duration::ZERO),
            can_rewrap: true,
            can_destroy: true,
        }
    }

    fn wrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        secret: &StoreSecret,
    ) -> Result<StoreBlob> {
        self.with_key(store_key, |key| {
            let header = WrapHeader {
                kind: WrapKind::BucketKey,
                wrapping_key_id: [0; 16],
                wrapping_version: 1,
            };
            let message: (&[u8; 32], &dyn Rng) = (&secret.borrow(), &*self.rng);
            let wrapped = wrap(&key.borrow(), header, &context.digest(), message);
            StoreBlob::new(wrapped.as_bytes().to_vec())
        })
    }

    fn unwrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        blob: &StoreBlob,
    ) -> Result<StoreSecret> {
        self.with_key(store_key, |key| {
            let wrapped = WrappedKey::parse(blob.as_bytes())?;
            let digest = context.digest();
            StoreSecret::fill_with(|slot| unwrap_into(&key.borrow(), &wrapped, &digest, slot))
        })
    }

    fn destroy(&self, store_key: &str) -> Result<()> {
        check_store_key(store_key)?;
        self.answer()?;
        self.keys().remove(store_key).map(drop).ok_or_else(|| no_key("memory", store_key))
    }

    fn health(&self) -> Result<()> {
        self.answer()
    }
}
