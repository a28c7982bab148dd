//! Key derivation of `kluis.v1`, and what a data key gives: commitment, manifest seal, streams.
//!
//! `KDF(prk, label, ctx, n) = HKDF-Expand-SHA-256(prk, "kluis.v1/" ‖ label ‖ 0x00 ‖ ctx, n)`
//! Owns: labels, [`ContentScope`], the content's commitment and its manifest's seal. Knows nothing
//! of: what a manifest says, files, permits.
//!
//! Invariants
//! - `kluis.v1/` and the labels are frozen: changing one makes stored data unreadable.
//! - Pure: no I/O, no clock, no randomness.
//!   Bytes: docs/KEYS.md, "Content". Known answers: `derive/tests.rs`.

use hkdf::{Hkdf, HkdfExtract};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::aead::{self, NONCE_BYTES, Nonce, TAG_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{DataKey, StreamSecret, copy_of};
use crate::stream::StreamKey;
use crate::types::TenantId;

/// The only suite so far: HKDF-SHA-256 with AES-256-GCM-SIV.
pub const SUITE: u8 = 0x01;
/// Base-2 logarithm of the chunk size in use: 64 KiB.
pub const CHUNK_SHIFT: u8 = 16;
/// The chunk sizes the format allows: 16 KiB, 64 KiB, 256 KiB, 1 MiB.
pub const CHUNK_SHIFTS: [u8; 4] = [14, 16, 18, 20];
/// Longest manifest: 2^20 streams of 28 bytes, the bound on streams per data key, with checksums.
pub const MANIFEST_BYTES_MAX: usize = 32 * 1024 * 1024;

const KEY_BYTES: usize = 32;
/// A derived key and the nonce it is used with.
pub(crate) const KEY_NONCE_BYTES: usize = KEY_BYTES + NONCE_BYTES;

/// Derives `okm` from `prk`; `ctx` is given in pieces so that nothing is allocated.
pub(crate) fn kdf<const PIECES: usize>(
    prk: &[u8; 32],
    label: &[u8],
    ctx: [&[u8]; PIECES],
    okm: &mut [u8],
) {
    const PIECES_MAX: usize = 4;
    const { assert!(PIECES <= PIECES_MAX) };
    let mut info: [&[u8]; PIECES_MAX + 3] = [&[]; PIECES_MAX + 3];
    let parts = [b"kluis.v1/".as_slice(), label, &[0]].into_iter().chain(ctx);
    for (slot, part) in info.iter_mut().zip(parts) {
        *slot = part;
    }
    Hkdf::<Sha256>::from_prk(prk)
        .expect("32 bytes are enough for SHA-256")
        .expand_multi_info(&info, okm)
        .expect("no output of kluis.v1 is longer than 255 hashes");
}

/// Derives a key and a nonce.
pub(crate) fn kdf_key_nonce<const PIECES: usize>(
    prk: &[u8; 32],
    label: &[u8],
    ctx: [&[u8]; PIECES],
) -> KeyNonce {
    let mut okm = KeyNonce(Zeroizing::new([0; KEY_NONCE_BYTES]));
    kdf(prk, label, ctx, okm.0.as_mut_slice());
    okm
}

/// Derived bytes: a key, then a nonce. Wiped on drop.
pub(crate) struct KeyNonce(Zeroizing<[u8; KEY_NONCE_BYTES]>);

impl KeyNonce {
    pub(crate) fn key_bytes(&self) -> &[u8; 32] {
        self.0.first_chunk().expect("44 bytes begin with 32")
    }

    pub(crate) fn nonce(&self) -> &Nonce {
        self.0.last_chunk().expect("44 bytes end with 12")
    }
}

/// HKDF-Extract, written to `prk`.
pub(crate) fn extract_into(salt: &[u8], ikm: &[u8], prk: &mut [u8; 32]) {
    let mut state = HkdfExtract::<Sha256>::new(Some(salt));
    state.input_ikm(ikm);
    let (mut output, _) = state.finalize();
    prk.copy_from_slice(&output);
    output.as_mut_slice().zeroize();
}

/// HKDF-Extract; the result is wiped on drop.
pub(crate) fn extract(salt: &[u8], ikm: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut prk = Zeroizing::new([0; 32]);
    extract_into(salt, ikm, &mut prk);
    prk
}

/// HMAC-SHA-256 under a key of any length: SigV4's chain.
pub(crate) fn mac_of(any_key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut state =
        Hmac::<Sha256>::new_from_slice(any_key).expect("HMAC takes a key of any length");
    state.update(message);
    state.finalize().into_bytes().into()
}

/// HMAC-SHA-256 over the pieces in order.
pub(crate) fn mac(mac_key: &[u8; 32], pieces: &[&[u8]]) -> [u8; 32] {
    let mut state =
        Hmac::<Sha256>::new_from_slice(mac_key).expect("HMAC takes a key of any length");
    for piece in pieces {
        state.update(piece);
    }
    state.finalize().into_bytes().into()
}

/// Which content, cut how. Goes into every key below a data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentScope {
    /// The content's owner.
    pub tenant: TenantId,
    /// The content's id.
    pub content: [u8; 16],
    /// The suite its bytes are written in: [`SUITE`].
    pub suite: u8,
    /// Base-2 logarithm of its chunk size, one of [`CHUNK_SHIFTS`].
    pub chunk_shift: u8,
}

impl ContentScope {
    /// The scope of a content that is written now.
    pub const fn new(tenant: TenantId, content: [u8; 16]) -> Self {
        Self { tenant, content, suite: SUITE, chunk_shift: CHUNK_SHIFT }
    }

    /// `tenant ‖ content ‖ suite ‖ log2 C`.
    fn encode(&self) -> [u8; 34] {
        let mut bytes = [0; 34];
        let parts = self.tenant.as_bytes().iter().chain(&self.content);
        let parts = parts.chain([&self.suite, &self.chunk_shift]);
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = *from;
        }
        bytes
    }

    fn check(&self) -> Result<()> {
        if self.suite == SUITE && CHUNK_SHIFTS.contains(&self.chunk_shift) {
            return Ok(());
        }
        let (suite, shift) = (self.suite, self.chunk_shift);
        let during = format!("use a content of suite {suite} and chunk size 2^{shift}");
        Err(Error::new(ErrorKind::Corrupt, during))
    }
}

impl DataKey {
    /// What the content's record holds in clear: no other data key gives the same.
    pub fn commitment(&self, scope: &ContentScope) -> [u8; 32] {
        let mut commitment = [0; 32];
        kdf(&self.borrow(), b"commit", [&scope.encode()], &mut commitment);
        commitment
    }

    /// The key of one stream of the content.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: the scope names a suite or a chunk size that does not exist.
    /// [`ErrorKind::Full`]: no locked memory is left.
    pub fn stream_key(&self, scope: &ContentScope, stream_uid: &[u8; 16]) -> Result<StreamKey> {
        scope.check()?;
        let okm = kdf_key_nonce(&self.borrow(), b"stream", [&scope.encode(), stream_uid]);
        let secret = StreamSecret::fill_with(copy_of(okm.key_bytes()))?;
        Ok(StreamKey::new(secret, *okm.nonce(), scope.chunk_shift))
    }

    /// Seals the content's manifest. `seq` starts at 1 and grows by one with each new manifest of
    /// the content: the same `seq` must never seal two.
    pub fn seal_manifest(&self, scope: &ContentScope, seq: u32, manifest: &[u8]) -> Vec<u8> {
        assert!(manifest.len() <= MANIFEST_BYTES_MAX, "a manifest lists at most 2^20 streams");
        let (okm, aad) = self.manifest_seal(scope, seq);
        let mut sealed = vec![0; manifest.len() + TAG_BYTES];
        let (body, tag) = sealed.split_at_mut(manifest.len());
        let made = aead::encrypt_to(okm.key_bytes(), okm.nonce(), &aad, (manifest, body));
        tag.copy_from_slice(&made);
        sealed
    }

    /// Opens a sealed manifest; its plaintext is wiped on drop.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: not sealed by this key for this content and `seq`.
    pub fn open_manifest(
        &self,
        scope: &ContentScope,
        seq: u32,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let corrupt = || Error::new(ErrorKind::Corrupt, format!("open manifest {seq}"));
        let (body, tag) = sealed.split_last_chunk().ok_or_else(corrupt)?;
        if body.len() > MANIFEST_BYTES_MAX {
            return Err(corrupt());
        }
        let (okm, aad) = self.manifest_seal(scope, seq);
        let mut manifest = Zeroizing::new(vec![0; body.len()]);
        aead::decrypt_to(okm.key_bytes(), okm.nonce(), &aad, (body, tag, &mut manifest))
            .map_err(|_| corrupt())?;
        Ok(manifest)
    }

    /// The manifest's key and nonce, and its associated data `COM ‖ be32 seq`.
    fn manifest_seal(&self, scope: &ContentScope, seq: u32) -> (KeyNonce, [u8; 36]) {
        let okm = kdf_key_nonce(&self.borrow(), b"manifest", [&scope.encode(), &seq.to_be_bytes()]);
        let mut aad = [0; 36];
        let parts = self.commitment(scope).into_iter().chain(seq.to_be_bytes());
        for (to, from) in aad.iter_mut().zip(parts) {
            *to = from;
        }
        (okm, aad)
    }
}

#[cfg(test)]
mod tests;
