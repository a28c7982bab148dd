//! What seals the root key.
//!
//! ```text
//!  0   1  format 0x01    1   1  method (0 memory, 1 argon2id v1.3)     2   2  zero
//!  4   4  memory in KiB  8   4  passes         12   4  lanes          16  32  salt (random)
//! 48  32  ciphertext    80  16  tag            96  32  commitment
//! ```
//! `okm = KDF(method's key, "root-seal", first 48 bytes ‖ SHA-256(CTX(context)), 76)`: key, nonce,
//! commitment; the first 48 bytes are the associated data too.
//! Owns: [`KeyStore`] and the two stores of this version. Knows nothing of: where the sealed bytes
//! are kept, tenant keys.
//!
//! Invariants
//! - A sealed root key opens only in the keyring and epoch it was sealed for (the context).
//! - The work a sealed file can ask for is bounded before it is done.
//! - The passphrase leaves memory with its [`PassphraseStore`]; dropped after the start.
//!   See docs/KEYS.md, "Passphrase".

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::aead::{self, NONCE_BYTES, Nonce, TAG_BYTES, Tag};
use crate::derive::kdf;
use crate::env::{Rng, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::private_file;
use crate::secret::{RootKey, SealSecret, random};
use crate::types::EncryptionContext;

/// Bytes of a sealed root key.
pub const SEALED_ROOT_BYTES: usize = HEADER_BYTES + 32 + TAG_BYTES + COMMITMENT_BYTES;
/// Shortest passphrase: argon2id slows guessing down, it does not make eight letters safe.
pub const PASSPHRASE_BYTES_MIN: usize = 12;
/// Longest passphrase: a file that is longer is not a passphrase file.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;
/// Memory argon2id fills, and the least a sealed file may ask for: RFC 9106's second choice.
pub const ARGON2_MEMORY_KIB: u32 = 64 * 1024;
/// Passes over that memory: RFC 9106's second choice.
pub const ARGON2_PASSES: u32 = 3;
/// Lanes: one, because the node starts on one core's time.
pub const ARGON2_LANES: u32 = 1;
/// The most a sealed file may ask for: 1 GiB, so that a changed file cannot stop the node.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// The most passes a sealed file may ask for.
pub const ARGON2_PASSES_MAX: u32 = 16;
/// The most lanes a sealed file may ask for.
pub const ARGON2_LANES_MAX: u32 = 4;

const FORMAT: u8 = 0x01;
const METHOD_MEMORY: u8 = 0;
const METHOD_ARGON2ID: u8 = 1;
const HEADER_BYTES: usize = 48;
const COMMITMENT_BYTES: usize = 32;

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
}

/// A place that seals the root key. Tenant keys in remote stores will add their verbs here.
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

    /// Whether the store would answer now.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: it would not.
    fn health(&self) -> Result<()>;
}

/// Seals under a passphrase, stretched by argon2id.
pub struct PassphraseStore {
    passphrase: Zeroizing<Box<[u8]>>,
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
        Ok(Self { passphrase: Zeroizing::new(passphrase.into()), rng })
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

    fn stretch(&self, cost: Argon2Cost, salt: &[u8; 32]) -> Result<SealSecret> {
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
        secret
    }
}

impl KeyStore for PassphraseStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "passphrase",
            erasure_assurance: ErasureAssurance::OverwriteBestEffort,
            remote_latency: None,
        }
    }

    fn seal_root(&self, root_key: &RootKey, context: &EncryptionContext) -> Result<Vec<u8>> {
        let cost = Argon2Cost::DEFAULT;
        let salt = random_array(&*self.rng);
        let header = Header { method: METHOD_ARGON2ID, cost, salt };
        Ok(seal(&self.stretch(cost, &salt)?, &header, root_key, context))
    }

    fn unseal_root(&self, sealed: &[u8], context: &EncryptionContext) -> Result<RootKey> {
        let parts = SealedRoot::parse(sealed, METHOD_ARGON2ID)?;
        parts.header.cost.check()?;
        parts.open(&self.stretch(parts.header.cost, &parts.header.salt)?, context)
    }

    fn health(&self) -> Result<()> {
        Ok(())
    }
}

/// Seals under a random key that is only in memory. For tests: what it sealed dies with it.
pub struct MemoryStore {
    secret: SealSecret,
    rng: Arc<dyn Rng>,
}

impl MemoryStore {
    /// A store with a key of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Full`]: no locked memory is left.
    pub fn new(rng: Arc<dyn Rng>) -> Result<Self> {
        Ok(Self { secret: SealSecret::fill_with(random(&*rng))?, rng })
    }
}

impl KeyStore for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "memory",
            erasure_assurance: ErasureAssurance::OverwriteBestEffort,
            remote_latency: None,
        }
    }

    fn seal_root(&self, root_key: &RootKey, context: &EncryptionContext) -> Result<Vec<u8>> {
        let salt = random_array(&*self.rng);
        let header = Header { method: METHOD_MEMORY, cost: Argon2Cost::NONE, salt };
        Ok(seal(&self.secret, &header, root_key, context))
    }

    fn unseal_root(&self, sealed: &[u8], context: &EncryptionContext) -> Result<RootKey> {
        SealedRoot::parse(sealed, METHOD_MEMORY)?.open(&self.secret, context)
    }

    fn health(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Argon2Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Cost {
    const NONE: Self = Self { memory_kib: 0, passes: 0, lanes: 0 };
    const DEFAULT: Self =
        Self { memory_kib: ARGON2_MEMORY_KIB, passes: ARGON2_PASSES, lanes: ARGON2_LANES };

    fn check(self) -> Result<()> {
        let is_bounded = (ARGON2_MEMORY_KIB..=ARGON2_MEMORY_KIB_MAX).contains(&self.memory_kib)
            && (ARGON2_PASSES..=ARGON2_PASSES_MAX).contains(&self.passes)
            && (ARGON2_LANES..=ARGON2_LANES_MAX).contains(&self.lanes);
        if is_bounded {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, format!("stretch a passphrase at {self:?}")))
    }
}

struct Header {
    method: u8,
    cost: Argon2Cost,
    salt: [u8; 32],
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let parts = [FORMAT, self.method, 0, 0].into_iter();
        let parts = parts.chain(self.cost.memory_kib.to_be_bytes());
        let parts = parts.chain(self.cost.passes.to_be_bytes());
        let parts = parts.chain(self.cost.lanes.to_be_bytes()).chain(self.salt);
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = from;
        }
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (&[format, method, 0, 0], rest) = bytes.split_first_chunk()? else {
            return None;
        };
        let (memory_kib, rest) = rest.split_first_chunk()?;
        let (passes, rest) = rest.split_first_chunk()?;
        let (lanes, rest) = rest.split_first_chunk()?;
        let cost = Argon2Cost {
            memory_kib: u32::from_be_bytes(*memory_kib),
            passes: u32::from_be_bytes(*passes),
            lanes: u32::from_be_bytes(*lanes),
        };
        let header = Self { method, cost, salt: *rest.first_chunk()? };
        (format == FORMAT).then_some(header)
    }
}

/// A sealed root key, taken apart.
struct SealedRoot<'a> {
    header: Header,
    header_bytes: &'a [u8; HEADER_BYTES],
    body: &'a [u8; 32],
    tag: &'a Tag,
    commitment: &'a [u8; COMMITMENT_BYTES],
}

impl<'a> SealedRoot<'a> {
    fn parse(sealed: &'a [u8], method: u8) -> Result<Self> {
        let parts = Self::split(sealed).filter(|parts| parts.header.method == method);
        parts.ok_or_else(|| {
            let during = format!("read a sealed root key of {} bytes", sealed.len());
            Error::new(ErrorKind::Corrupt, during)
                .with_advice("check that the key store is the one the root key was sealed with")
        })
    }

    fn split(sealed: &'a [u8]) -> Option<Self> {
        let (header_bytes, rest) = sealed.split_first_chunk()?;
        let (body, rest) = rest.split_first_chunk()?;
        let (tag, rest) = rest.split_first_chunk()?;
        let commitment = rest.try_into().ok()?;
        let header = Header::decode(header_bytes)?;
        Some(Self { header, header_bytes, body, tag, commitment })
    }

    fn open(&self, secret: &SealSecret, context: &EncryptionContext) -> Result<RootKey> {
        let okm = SealOkm::derive(secret, self.header_bytes, context);
        if !bool::from(okm.commitment().ct_eq(self.commitment)) {
            return Err(Error::new(ErrorKind::WrongPassphrase, "open the sealed root key"));
        }
        RootKey::fill_with(|slot| {
            let message: (&[u8], &Tag, &mut [u8]) = (self.body, self.tag, slot);
            aead::decrypt_to(okm.key_bytes(), okm.nonce(), self.header_bytes, message)
                .map_err(|_| Error::new(ErrorKind::Corrupt, "open the sealed root key"))
        })
    }
}

fn seal(
    secret: &SealSecret,
    header: &Header,
    root_key: &RootKey,
    context: &EncryptionContext,
) -> Vec<u8> {
    let header_bytes = header.encode();
    let okm = SealOkm::derive(secret, &header_bytes, context);
    let mut body = [0; 32];
    let root_bytes = root_key.borrow();
    let message: (&[u8], &mut [u8]) = (root_bytes.as_slice(), &mut body);
    let tag = aead::encrypt_to(okm.key_bytes(), okm.nonce(), &header_bytes, message);
    let mut sealed = Vec::with_capacity(SEALED_ROOT_BYTES);
    sealed.extend_from_slice(&header_bytes);
    sealed.extend_from_slice(&body);
    sealed.extend_from_slice(&tag);
    sealed.extend_from_slice(okm.commitment());
    sealed
}

/// One seal's key, nonce and commitment. Wiped on drop.
struct SealOkm(Zeroizing<[u8; 32 + NONCE_BYTES + COMMITMENT_BYTES]>);

impl SealOkm {
    fn derive(
        secret: &SealSecret,
        header_bytes: &[u8; HEADER_BYTES],
        context: &EncryptionContext,
    ) -> Self {
        let mut okm = Self(Zeroizing::new([0; 32 + NONCE_BYTES + COMMITMENT_BYTES]));
        let digest = context.digest();
        kdf(&secret.borrow(), b"root-seal", [header_bytes, &digest], okm.0.as_mut_slice());
        okm
    }

    fn key_bytes(&self) -> &[u8; 32] {
        self.0.first_chunk().expect("76 bytes begin with 32")
    }

    fn nonce(&self) -> &Nonce {
        let (_, rest) = self.0.split_at(32);
        rest.first_chunk().expect("44 bytes begin with 12")
    }

    fn commitment(&self) -> &[u8; COMMITMENT_BYTES] {
        self.0.last_chunk().expect("76 bytes end with 32")
    }
}

#[cfg(test)]
mod tests;
