//! The root key under a passphrase.
//!
//! Owns: [`PassphraseStore`]: argon2id over the passphrase, the bounds of its length. Knows nothing
//! of: the layout of what it seals.
//!
//! Invariants
//! - The passphrase leaves memory with its [`PassphraseStore`]; dropped after the start. What
//!   [`KeyStore::share`] gives keeps the stretched key only, in locked memory.
//!   See docs/KEYS.md, "Passphrase".

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use super::sealed::{Argon2Cost, Header, METHOD_ARGON2ID, SealedRoot, seal};
use super::{Capabilities, ErasureAssurance, KeyStore};
use crate::env::{Rng, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::private_file;
use crate::secret::{RootKey, SealSecret};
use crate::types::EncryptionContext;

/// Shortest passphrase: argon2id slows guessing down, it does not make eight letters safe.
pub const PASSPHRASE_BYTES_MIN: usize = 12;
/// Longest passphrase: a file that is longer is not a passphrase file.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

const PASSPHRASE_CAPABILITIES: Capabilities = Capabilities {
    name: "passphrase",
    erasure_assurance: ErasureAssurance::OverwriteBestEffort,
    remote_latency: None,
    can_rewrap: false,
    can_destroy: false,
};

/// Seals under a passphrase, stretched by argon2id.
pub struct PassphraseStore {
    passphrase: Zeroizing<Box<[u8]>>,
    /// The latest key that sealed or opened a root key.
    stretched: Mutex<Option<Arc<Stretched>>>,
    rng: Arc<dyn Rng>,
}

/// A passphrase after argon2id.
struct Stretched {
    secret: SealSecret,
    cost: Argon2Cost,
    salt: [u8; 32],
}

/// What is left of a [`PassphraseStore`] while the node runs: its stretched key.
struct StretchedStore {
    stretched: Arc<Stretched>,
    rng: Arc<dyn Rng>,
}

impl PassphraseStore {
    /// The store of this passphrase. The caller wipes its own copy.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`]: shorter than [`PASSPHRASE_BYTES_MIN`] or longer than
    /// [`PASSPHRASE_BYTES_MAX`].
    pub fn new(passphrase: &[u8], rng: Arc<dyn Rng>) -> Result<Self> {
        if !(PASSPHRASE_BYTES_MIN..=PASSPHRASE_BYTES_MAX).contains(&passphrase.len()) {
            let during = format!("take a passphrase of {} bytes", passphrase.len());
            return Err(Error::new(ErrorKind::Refused, during)
                .with_advice("choose a passphrase of 12 to 1024 bytes, such as six random words"));
        }
        let passphrase = Zeroizing::new(passphrase.into());
        Ok(Self { passphrase, stretched: Mutex::default(), rng })
    }

    /// The store of the passphrase in this file, without line ends behind it.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`]: others may read the file, or as [`Self::new`].
    /// [`ErrorKind::Unavailable`]: the file cannot be read.
    pub fn from_file(path: &Path, rng: Arc<dyn Rng>) -> Result<Self> {
        let text = private_file::read(path, PASSPHRASE_BYTES_MAX as u64 + 2)?;
        let mut passphrase = text.as_slice();
        while let Some((b'\n' | b'\r', rest)) = passphrase.split_last() {
            passphrase = rest;
        }
        Self::new(passphrase, rng)
    }

    fn stretch(&self, cost: Argon2Cost, salt: &[u8; 32]) -> Result<Arc<Stretched>> {
        let failed = |error: argon2::Error| {
            Error::new(ErrorKind::Full, "stretch the passphrase with argon2id")
                .with_source(error.to_string())
        };
        let params =
            Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(failed)?;
        let mut blocks = vec![Block::default(); params.block_count()];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let secret = SealSecret::fill_with(|slot| {
            argon2
                .hash_password_into_with_memory(&self.passphrase, salt, slot, &mut blocks)
                .map_err(failed)
        });
        blocks.iter_mut().for_each(Zeroize::zeroize);
        Ok(Arc::new(Stretched { secret: secret?, cost, salt: *salt }))
    }

    fn keep(&self, stretched: Arc<Stretched>) {
        *self.stretched.lock().unwrap_or_else(PoisonError::into_inner) = Some(stretched);
    }
}

impl KeyStore for PassphraseStore {
    fn capabilities(&self) -> Capabilities {
        PASSPHRASE_CAPABILITIES
    }

    fn seal_root(&self, root_key: &RootKey, context: &EncryptionContext) -> Result<Vec<u8>> {
        let stretched = self.stretch(Argon2Cost::DEFAULT, &random_array(&*self.rng))?;
        let sealed = stretched.seal(root_key, context, &*self.rng);
        self.keep(stretched);
        Ok(sealed)
    }

    fn unseal_root(&self, sealed: &[u8], context: &EncryptionContext) -> Result<RootKey> {
        let parts = SealedRoot::parse(sealed, METHOD_ARGON2ID)?;
        parts.header.cost.check()?;
        let stretched = self.stretch(parts.header.cost, &parts.header.stretch_salt)?;
        let root_key = parts.open(&stretched.secret, context)?;
        self.keep(stretched);
        Ok(root_key)
    }

    fn share(&self) -> Result<Arc<dyn KeyStore>> {
        let stretched = self.stretched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stretched = stretched.ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "share a passphrase store before its first use")
        })?;
        Ok(Arc::new(StretchedStore { stretched, rng: Arc::clone(&self.rng) }))
    }

    fn health(&self) -> Result<()> {
        Ok(())
    }
}

impl Stretched {
    fn seal(&self, root_key: &RootKey, context: &EncryptionContext, rng: &dyn Rng) -> Vec<u8> {
        let (cost, stretch_salt) = (self.cost, self.salt);
        let salt = random_array(rng);
        let header = Header { method: METHOD_ARGON2ID, cost, stretch_salt, salt };
        seal(&self.secret, &header, root_key, context)
    }
}

impl KeyStore for StretchedStore {
    fn capabilities(&self) -> Capabilities {
        PASSPHRASE_CAPABILITIES
    }

    fn seal_root(&self, root_key: &RootKey, context: &EncryptionContext) -> Result<Vec<u8>> {
        Ok(self.stretched.seal(root_key, context, &*self.rng))
    }

    fn unseal_root(&self, sealed: &[u8], context: &EncryptionContext) -> Result<RootKey> {
        SealedRoot::parse(sealed, METHOD_ARGON2ID)?.open(&self.stretched.secret, context)
    }

    fn share(&self) -> Result<Arc<dyn KeyStore>> {
        let (stretched, rng) = (Arc::clone(&self.stretched), Arc::clone(&self.rng));
        Ok(Arc::new(Self { stretched, rng }))
    }

    fn health(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
