//! Chunk encryption: the hot path.
//!
//! `nonce_i = N XOR be96(i)`, `AAD_i = 0x01 ‖ flags(bit 0: last) ‖ 0x0000 ‖ be32(len_i) ‖ be64(i)`.
//! Owns: nonce layout and associated data of a chunk. Knows nothing of: where chunks are stored,
//! how a body is cut.
//!
//! Invariants
//! - A chunk decrypts only as the (tenant, content, stream, index, is last) it was written as;
//!   moving, dropping, swapping or truncating chunks fails.
//! - One (stream key, index) encrypts one plaintext. The caller draws a new stream uid per attempt.
//! - No allocation, no lock; a buffer holds no plaintext after a failure.
//! - The caller holds an [`InFlight`](crate::InFlight) guard around each call.
//!   Bytes: docs/KEYS.md, "Chunk".

use crate::aead::{self, Nonce, TAG_BYTES, Tag};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::StreamSecret;

/// Chunks of one stream: RFC 8452's bounds are argued for 2^32 (docs/KEYS.md, "Limits").
pub const STREAM_CHUNKS_MAX: u64 = 1 << 32;

/// Which chunk of its stream, and whether it is the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPosition {
    /// Counted from zero.
    pub index: u64,
    /// Set for the last chunk and no other; an empty stream is one empty last chunk.
    pub is_last: bool,
}

/// The key of one stream.
pub struct StreamKey {
    secret: StreamSecret,
    base_nonce: Nonce,
    chunk_shift: u8,
}

impl StreamKey {
    pub(crate) const fn new(secret: StreamSecret, base_nonce: Nonce, chunk_shift: u8) -> Self {
        Self { secret, base_nonce, chunk_shift }
    }

    /// Plaintext bytes of every chunk but the last.
    pub const fn chunk_bytes(&self) -> usize {
        1 << self.chunk_shift
    }

    /// Encrypts a chunk in place and returns its tag, which is stored behind it.
    ///
    /// # Panics
    /// The chunk is not of the length its position asks for: a bug in the caller that would make
    /// the stream unreadable.
    pub fn encrypt_chunk(&self, position: ChunkPosition, inout: &mut [u8]) -> [u8; 16] {
        self.assert_shape(position, inout.len());
        let aad = chunk_aad(position, inout.len());
        aead::encrypt(&self.secret.borrow(), &self.nonce(position), &aad, inout)
    }

    /// Encrypts `plain` into `out` as ciphertext ‖ tag.
    ///
    /// # Panics
    /// As [`Self::encrypt_chunk`], or `out` is not `plain.len() + 16` bytes long.
    pub fn encrypt_chunk_to(&self, position: ChunkPosition, plain: &[u8], out: &mut [u8]) {
        self.assert_shape(position, plain.len());
        assert_eq!(out.len(), plain.len() + TAG_BYTES, "a sealed chunk is its plaintext and a tag");
        let (body, tag) = out.split_at_mut(plain.len());
        let aad = chunk_aad(position, plain.len());
        let made =
            aead::encrypt_to(&self.secret.borrow(), &self.nonce(position), &aad, (plain, body));
        tag.copy_from_slice(&made);
    }

    /// Decrypts a chunk in place.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: not written as this chunk of this stream. `inout` is zeroed.
    pub fn decrypt_chunk(
        &self,
        position: ChunkPosition,
        inout: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<()> {
        if !self.has_shape(position, inout.len()) {
            inout.fill(0);
            return Err(bad_chunk(position));
        }
        let aad = chunk_aad(position, inout.len());
        aead::decrypt(&self.secret.borrow(), &self.nonce(position), &aad, (inout, tag))
            .map_err(|_| bad_chunk(position))
    }

    /// Decrypts `sealed`, a ciphertext ‖ tag, into `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: not what was written as this chunk of this stream. `out` is zeroed.
    /// [`ErrorKind::Misuse`]: `out` is not `sealed.len() - 16` bytes long.
    pub fn decrypt_chunk_to(
        &self,
        position: ChunkPosition,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        let Some((body, tag)) = sealed.split_last_chunk::<TAG_BYTES>() else {
            out.fill(0);
            return Err(bad_chunk(position));
        };
        if body.len() != out.len() {
            out.fill(0);
            return Err(Error::new(
                ErrorKind::Misuse,
                "decrypt a chunk into a buffer that differs",
            ));
        }
        if !self.has_shape(position, body.len()) {
            out.fill(0);
            return Err(bad_chunk(position));
        }
        let aad = chunk_aad(position, body.len());
        let message: (&[u8], &Tag, &mut [u8]) = (body, tag, out);
        aead::decrypt_to(&self.secret.borrow(), &self.nonce(position), &aad, message)
            .map_err(|_| bad_chunk(position))
    }

    fn nonce(&self, position: ChunkPosition) -> Nonce {
        let mut nonce = self.base_nonce;
        let low = nonce.last_chunk_mut::<8>().expect("a nonce has 12 bytes");
        *low = (u64::from_be_bytes(*low) ^ position.index).to_be_bytes();
        nonce
    }

    /// All chunks but the last are full; the last holds 1 to C bytes, or none if it is alone.
    fn has_shape(&self, position: ChunkPosition, length: usize) -> bool {
        let full = self.chunk_bytes();
        let fits = if position.is_last {
            length <= full && (length > 0 || position.index == 0)
        } else {
            length == full
        };
        fits && position.index < STREAM_CHUNKS_MAX
    }

    fn assert_shape(&self, position: ChunkPosition, length: usize) {
        assert!(self.has_shape(position, length), "chunk {position:?} cannot hold {length} bytes");
    }
}

fn chunk_aad(position: ChunkPosition, length: usize) -> [u8; 16] {
    let length = u32::try_from(length).expect("a chunk is at most 1 MiB");
    let mut aad = [0; 16];
    let head = [0x01, u8::from(position.is_last), 0, 0];
    let parts = head.into_iter().chain(length.to_be_bytes()).chain(position.index.to_be_bytes());
    for (to, from) in aad.iter_mut().zip(parts) {
        *to = from;
    }
    aad
}

fn bad_chunk(position: ChunkPosition) -> Error {
    Error::new(ErrorKind::Corrupt, format!("decrypt chunk {}", position.index))
}

#[cfg(test)]
mod tests;
