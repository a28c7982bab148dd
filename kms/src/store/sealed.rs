//! A root key sealed on this node: its bytes.
//!
//! ```text
//!  0   1  format 0x01    1   1  method (0 memory, 1 argon2id v1.3)     2   2  zero
//!  4   4  memory in KiB  8   4  passes         12   4  lanes          16  32  argon2id's salt
//! 48  32  salt (random) 80  32  ciphertext    112  16  tag           128  32  commitment
//! ```
//! `okm = KDF(method's key, "root-seal", first 80 bytes ‖ SHA-256(CTX(context)), 76)`: key, nonce,
//! commitment; the first 80 bytes are the associated data too.
//! Owns: the layout, the bounds of argon2id's cost. Knows nothing of: where the method's key comes
//! from.
//!
//! Invariants
//! - A sealed root key opens only in the keyring and epoch it was sealed for (the context).
//! - The work a sealed file can ask for is bounded before it is done.
//!   See docs/KEYS.md, "Passphrase".

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::aead::{self, NONCE_BYTES, Nonce, TAG_BYTES, Tag};
use crate::derive::kdf;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{RootKey, SealSecret};
use crate::types::EncryptionContext;

/// Bytes of a sealed root key.
pub const SEALED_ROOT_BYTES: usize = HEADER_BYTES + 32 + TAG_BYTES + COMMITMENT_BYTES;
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

pub(super) const METHOD_MEMORY: u8 = 0;
pub(super) const METHOD_ARGON2ID: u8 = 1;
const FORMAT: u8 = 0x01;
const HEADER_BYTES: usize = 80;
const COMMITMENT_BYTES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Argon2Cost {
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

impl Argon2Cost {
    pub(super) const NONE: Self = Self { memory_kib: 0, passes: 0, lanes: 0 };
    pub(super) const DEFAULT: Self =
        Self { memory_kib: ARGON2_MEMORY_KIB, passes: ARGON2_PASSES, lanes: ARGON2_LANES };

    pub(super) fn check(self) -> Result<()> {
        let is_bounded = (ARGON2_MEMORY_KIB..=ARGON2_MEMORY_KIB_MAX).contains(&self.memory_kib)
            && (ARGON2_PASSES..=ARGON2_PASSES_MAX).contains(&self.passes)
            && (ARGON2_LANES..=ARGON2_LANES_MAX).contains(&self.lanes);
        if is_bounded {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, format!("stretch a passphrase at {self:?}")))
    }
}

pub(super) struct Header {
    pub(super) method: u8,
    pub(super) cost: Argon2Cost,
    /// Of argon2id; the same in every epoch of a keyring.
    pub(super) stretch_salt: [u8; 32],
    /// Of this seal.
    pub(super) salt: [u8; 32],
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let parts = [FORMAT, self.method, 0, 0].into_iter();
        let parts = parts.chain(self.cost.memory_kib.to_be_bytes());
        let parts = parts.chain(self.cost.passes.to_be_bytes());
        let parts = parts.chain(self.cost.lanes.to_be_bytes());
        let parts = parts.chain(self.stretch_salt).chain(self.salt);
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
        let (&stretch_salt, rest) = rest.split_first_chunk()?;
        let header = Self { method, cost, stretch_salt, salt: *rest.first_chunk()? };
        (format == FORMAT).then_some(header)
    }
}

/// A sealed root key, taken apart.
pub(super) struct SealedRoot<'a> {
    pub(super) header: Header,
    header_bytes: &'a [u8; HEADER_BYTES],
    body: &'a [u8; 32],
    tag: &'a Tag,
    commitment: &'a [u8; COMMITMENT_BYTES],
}

impl<'a> SealedRoot<'a> {
    pub(super) fn parse(sealed: &'a [u8], method: u8) -> Result<Self> {
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

    pub(super) fn open(&self, secret: &SealSecret, context: &EncryptionContext) -> Result<RootKey> {
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

pub(super) fn seal(
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
