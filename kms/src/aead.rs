//! AES-256-GCM-SIV (RFC 8452) over borrowed keys and buffers.
//!
//! Owns: the one place where plaintext and ciphertext change into each other. Knows nothing of:
//! which key, which nonce, what the associated data says.
//!
//! Invariants
//! - No allocation; the key schedule is built per call on the stack and wiped.
//! - Nothing of a message is in the caller's buffer unless its tag verified: on failure the whole
//!   buffer is zeroed. (The crate decrypts first, then re-encrypts when the tag is wrong.)
//!   See docs/KEYS.md, "Primitives".

use aes_gcm_siv::AesGcmSiv;
use aes_gcm_siv::aead::inout::InOutBuf;
use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use zeroize::Zeroize;

/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce.
pub(crate) const NONCE_BYTES: usize = 12;

/// `Aes256Enc`, because GCM-SIV runs the cipher in one direction only and the other direction's
/// key schedule would be built for nothing.
type Cipher = AesGcmSiv<aes::Aes256Enc>;

pub(crate) type Nonce = [u8; NONCE_BYTES];
pub(crate) type Tag = [u8; TAG_BYTES];

/// The tag did not verify. Says nothing more, and there is nothing more to say.
#[derive(Debug)]
pub(crate) struct AuthenticationFailed;

/// Encrypts in place.
pub(crate) fn encrypt(key_bytes: &[u8; 32], nonce: &Nonce, aad: &[u8], inout: &mut [u8]) -> Tag {
    encrypt_buffer(key_bytes, nonce, aad, inout.into())
}

/// Encrypts `plain` into `out`, which has the same length.
pub(crate) fn encrypt_to(
    key_bytes: &[u8; 32],
    nonce: &Nonce,
    aad: &[u8],
    (plain, out): (&[u8], &mut [u8]),
) -> Tag {
    let buffer = InOutBuf::new(plain, out).expect("both halves have one length");
    encrypt_buffer(key_bytes, nonce, aad, buffer)
}

fn encrypt_buffer(
    key_bytes: &[u8; 32],
    nonce: &Nonce,
    aad: &[u8],
    buffer: InOutBuf<'_, '_, u8>,
) -> Tag {
    Cipher::new(key_bytes.into())
        .encrypt_inout_detached(nonce.into(), aad, buffer)
        .expect("every message of kluis.v1 is far below 64 GiB")
        .into()
}

/// Decrypts in place; zeroes `inout` when the tag is wrong.
pub(crate) fn decrypt(
    key_bytes: &[u8; 32],
    nonce: &Nonce,
    aad: &[u8],
    (inout, tag): (&mut [u8], &Tag),
) -> Result<(), AuthenticationFailed> {
    let result = Cipher::new(key_bytes.into()).decrypt_inout_detached(
        nonce.into(),
        aad,
        inout.into(),
        tag.into(),
    );
    result.map_err(|_| {
        inout.zeroize();
        AuthenticationFailed
    })
}

/// Decrypts `cipher` into `out`, which has the same length; zeroes `out` when the tag is wrong.
pub(crate) fn decrypt_to(
    key_bytes: &[u8; 32],
    nonce: &Nonce,
    aad: &[u8],
    (cipher, tag, out): (&[u8], &Tag, &mut [u8]),
) -> Result<(), AuthenticationFailed> {
    let buffer = InOutBuf::new(cipher, out).expect("both halves have one length");
    let result =
        Cipher::new(key_bytes.into()).decrypt_inout_detached(nonce.into(), aad, buffer, tag.into());
    result.map_err(|_| {
        out.zeroize();
        AuthenticationFailed
    })
}

#[cfg(test)]
mod tests;
