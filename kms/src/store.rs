//! Where the root key and tenants' own keys live.
//!
//! ```text
//! root key     KeyStore        passphrase, memory, or a key of a remote store (root.rs)
//! tenant key   RemoteKeyStore  transit, pkcs11, xks, memory, each behind breaker.rs (Guarded)
//!                              remote.rs: which tenant may use which store, and what is cached
//! ```
//! Owns: both traits, what a store says of itself, the blob it gives. Knows nothing of: where
//! sealed and wrapped bytes are kept, who may use a key.
//!
//! Invariants
//! - Every call names the key and the context; a store authenticates all of the context's canonical
//!   bytes, or their SHA-256, and nothing else.
//! - A store that is down answers [`ErrorKind::Unavailable`] within its time limit, and nothing but
//!   its own tenants waits for it.
//! - One contract holds for all of them: `store/contract.rs`.
//!   See docs/KEYS.md, "Key stores".

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::secret::{RootKey, StoreSecret};
use crate::types::EncryptionContext;

mod breaker;
#[cfg(test)]
mod contract;
mod http;
mod memory;
mod passphrase;
mod pkcs11;
mod remote;
mod root;
mod sealed;
mod sign;
mod transit;
mod xks;

pub use breaker::{GuardLimits, Guarded};
pub use memory::{MemoryKeys, MemoryStore, Mood};
pub use passphrase::{PASSPHRASE_BYTES_MAX, PASSPHRASE_BYTES_MIN, PassphraseStore};
pub use pkcs11::{Pkcs11Settings, Pkcs11Store};
pub use remote::{CACHE_TTL_DEFAULT, CACHE_TTL_MAX, RemoteStores, StoreTenants};
pub(crate) use remote::{KeptBlob, OuterSecret, RemoteKey};
pub use root::RootInStore;
pub use sealed::{
    ARGON2_LANES, ARGON2_LANES_MAX, ARGON2_MEMORY_KIB, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES,
    ARGON2_PASSES_MAX, SEALED_ROOT_BYTES,
};
pub use transit::{TransitSettings, TransitStore};
pub use xks::{XksSettings, XksStore};

/// Longest blob a store may give: four times what the largest real one needs.
pub const STORE_BLOB_BYTES_MAX: usize = 4096;
/// Longest id of a key in a store: what the XKS proxy API allows.
pub const STORE_KEY_BYTES_MAX: usize = 128;

/// What is true once a key was destroyed in this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErasureAssurance {
    /// The store destroyed its own key object.
    BackendDestroyed,
    /// A sealed epoch was replaced; the old one cannot be opened any more.
    EpochDestroyed,
    /// Overwritten in place: an old copy of the files and the passphrase bring the key back.
    OverwriteBestEffort,
}

/// What a key store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The store's name in logs and reports.
    pub name: &'static str,
    /// What destroying a key in it is worth.
    pub erasure_assurance: ErasureAssurance,
    /// How long a call over the network may take; none for a local store.
    pub remote_latency: Option<Duration>,
    /// Whether what is wrapped moves to the key's newest version inside the store.
    pub can_rewrap: bool,
    /// Whether Kluis can have a key destroyed in it.
    pub can_destroy: bool,
}

/// A place that seals the root key.
pub trait KeyStore: Send + Sync {
    /// What this store can do.
    fn capabilities(&self) -> Capabilities;

    /// Seals the root key, bound to `context`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: the store did not answer. [`ErrorKind::Full`]: no memory.
    fn seal_root(&self, root_key: &RootKey, context: &EncryptionContext) -> Result<Vec<u8>>;

    /// Opens a sealed root key.
    ///
    /// # Errors
    /// [`ErrorKind::WrongPassphrase`]: this store's secret does not open it.
    /// [`ErrorKind::Corrupt`]: the bytes are damaged. And as [`Self::seal_root`].
    fn unseal_root(&self, sealed: &[u8], context: &EncryptionContext) -> Result<RootKey>;

    /// A store that seals for the same root files, for as long as the node runs: the next epoch's
    /// root key. Asked for after [`Self::seal_root`] or [`Self::unseal_root`].
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`]: neither was called yet.
    fn share(&self) -> Result<Arc<dyn KeyStore>>;

    /// Whether the store would answer now.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: it would not.
    fn health(&self) -> Result<()>;
}

/// What a store made of a secret. Not secret; opens only with the same key and context.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreBlob(Vec<u8>);

impl StoreBlob {
    /// Takes stored bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: none, or more than [`STORE_BLOB_BYTES_MAX`].
    pub fn new(bytes: Vec<u8>) -> Result<Self> {
        if (1..=STORE_BLOB_BYTES_MAX).contains(&bytes.len()) {
            return Ok(Self(bytes));
        }
        let during = format!("take a key store's blob of {} bytes", bytes.len());
        Err(Error::new(ErrorKind::Corrupt, during))
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What became of the calls of a store since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Calls that were answered, with what was asked for.
    pub answered: u64,
    /// Calls that were answered with a refusal.
    pub refused: u64,
    /// Calls that got no answer in time, or none that made sense.
    pub failed: u64,
    /// Calls that were not sent: the circuit was open, or too many waited.
    pub held_back: u64,
    /// How long callers waited for calls that were sent, in nanoseconds.
    pub waited_ns: u64,
    /// Whether calls are held back now.
    pub is_open: bool,
}

/// A place that holds keys and never gives them out: it wraps and unwraps 32-byte secrets.
///
/// Calls block; each store bounds the time of its own, and [`Guarded`] that of all.
pub trait RemoteKeyStore: Send + Sync {
    /// What this store can do.
    fn capabilities(&self) -> Capabilities;

    /// Wraps `secret` under the store's key `store_key`, bound to `context`.
    ///
    /// # Errors
    /// [`ErrorKind::AccessDenied`]: the store does not let this node use the key.
    /// [`ErrorKind::KeyDisabled`]: the key is switched off in the store.
    /// [`ErrorKind::NotFound`]: the store has no such key, or no more.
    /// [`ErrorKind::Refused`]: the id is none, or the key is of a kind that does not bind contexts.
    /// [`ErrorKind::Unavailable`]: no answer in time, or none that makes sense.
    fn wrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        secret: &StoreSecret,
    ) -> Result<StoreBlob>;

    /// Opens what [`Self::wrap`] gave.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: another key, another context or damaged bytes.
    /// [`ErrorKind::KeyDestroyed`]: the store gave up the version it was wrapped under.
    /// And as [`Self::wrap`].
    fn unwrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        blob: &StoreBlob,
    ) -> Result<StoreSecret>;

    /// Wraps the same secret anew under the key's newest version.
    ///
    /// # Errors
    /// As [`Self::unwrap`].
    fn rewrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        blob: &StoreBlob,
    ) -> Result<StoreBlob> {
        self.wrap(store_key, context, &self.unwrap(store_key, context, blob)?)
    }

    /// Destroys the key in the store.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`]: this store's keys are not destroyed by Kluis. And as [`Self::wrap`].
    fn destroy(&self, store_key: &str) -> Result<()>;

    /// Whether the store would answer now.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: it would not.
    fn health(&self) -> Result<()>;

    /// What became of its calls; zeros where nothing counts them.
    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }
}

/// Refuses an id that could leave its place in a URL: letters, digits, `-`, `_`, `.`, 1 to 128.
fn check_store_key(store_key: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fits = (1..=STORE_KEY_BYTES_MAX).contains(&store_key.len())
        && store_key.bytes().all(is_plain)
        && !store_key.bytes().all(|byte| byte == b'.');
    if fits {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, "take the id of a key in a key store")
        .with_advice("an id is 1 to 128 letters, digits, `-`, `_` and `.`, and not dots alone"))
}

fn no_key(store: &str, store_key: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("find key {store_key} in the {store} store"))
}

#[cfg(test)]
mod tests;
