//! The root key under a key of a remote store, in a passphrase's place.
//!
//! The store wraps a fresh secret `s`; the root key is sealed under `s` on this node:
//! `format 0x02 ‖ be16 blob length ‖ blob ‖ sealed root (method 0, docs/KEYS.md, "Passphrase")`.
//! Owns: that frame. Knows nothing of: which kind of store it is.
//!
//! Invariants
//! - The store never sees the root key, and what it keeps opens nothing without `root.sealed`.

use std::sync::Arc;

use super::sealed::{Argon2Cost, Header, METHOD_MEMORY, SEALED_ROOT_BYTES, SealedRoot, seal};
use super::{Capabilities, KeyStore, RemoteKeyStore, StoreBlob};
use crate::env::{Rng, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{RootKey, SealSecret, StoreSecret, copy_of};
use crate::types::EncryptionContext;

const FORMAT: u8 = 0x02;

/// Seals the root key under a key in a remote store. Needed at the start, and when a key is
/// destroyed.
pub struct RootInStore {
    store: Arc<dyn RemoteKeyStore>,
    store_key: String,
    rng: Arc<dyn Rng>,
}

impl RootInStore {
    /// The root under the key `store_key` of `store`.
    pub fn new(store: Arc<dyn RemoteKeyStore>, store_key: &str, rng: Arc<dyn Rng>) -> Self {
        Self { store, store_key: store_key.to_owned(), rng }
    }
}

fn seal_secret(secret: &StoreSecret) -> Result<SealSecret> {
    SealSecret::fill_with(copy_of(&secret.borrow()))
}

fn split(sealed: &[u8]) -> Option<(StoreBlob, &[u8])> {
    let (length, rest) = sealed.strip_prefix(&[FORMAT])?.split_first_chunk()?;
    let (blob, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let blob = StoreBlob::new(blob.to_vec()).ok()?;
    (rest.len() == SEALED_ROOT_BYTES).then_some((blob, rest))
}

impl KeyStore for RootInStore {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn seal_root(&self, root_key: &RootKey, context: &EncryptionContext) -> Result<Vec<u8>> {
        let secret = StoreSecret::generate(&*self.rng)?;
        let blob = self.store.wrap(&self.store_key, context, &secret)?;
        let length = u16::try_from(blob.as_bytes().len())
            .map_err(|_| Error::new(ErrorKind::Misuse, "frame a key store's blob"))?;
        let salt = random_array(&*self.rng);
        let cost = Argon2Cost::NONE;
        let header = Header { method: METHOD_MEMORY, cost, stretch_salt: [0; 32], salt };
        let body = seal(&seal_secret(&secret)?, &header, root_key, context);
        Ok([&[FORMAT], length.to_be_bytes().as_slice(), blob.as_bytes(), &body].concat())
    }

    fn unseal_root(&self, sealed: &[u8], context: &EncryptionContext) -> Result<RootKey> {
        let (blob, body) = split(sealed).ok_or_else(|| {
            let during = format!("read a sealed root key of {} bytes", sealed.len());
            Error::new(ErrorKind::Corrupt, during)
                .with_advice("check that the key store is the one the root key was sealed with")
        })?;
        let secret = self.store.unwrap(&self.store_key, context, &blob).map_err(|error| {
            let kind = match error.kind() {
                // Another key or context is told from damage by no store.
                ErrorKind::Corrupt => ErrorKind::WrongPassphrase,
                kind => kind,
            };
            Error::new(kind, "open the sealed root key with its key store").with_source(error)
        })?;
        SealedRoot::parse(body, METHOD_MEMORY)?.open(&seal_secret(&secret)?, context)
    }

    fn share(&self) -> Result<Arc<dyn KeyStore>> {
        Ok(Arc::new(Self {
            store: Arc::clone(&self.store),
            store_key: self.store_key.clone(),
            rng: Arc::clone(&self.rng),
        }))
    }

    fn health(&self) -> Result<()> {
        self.store.health()
    }
}
