//! Chunked authenticated encryption of object bodies.
//!
//! A stream is cut into chunks of [`CHUNK_BYTES`]; each is one AEAD message of its own, so a ranged
//! read touches only the chunks it covers.
//! Owns: which chunk is which, the opaque ETag. Knows nothing of: files, names, HTTP.
//!
//! Invariants
//! - One stream key encrypts one stream, once, in order: [`ChunkEncryptor`] counts its chunks.
//! - A chunk decrypts only as the (tenant, content, stream, index, is_last) it was written as. No
//!   location is bound: reclaiming moves chunks without keys.
//! - Every chunk is encrypted and decrypted inside the gate of the tenant key.
//!   Bytes: docs/FORMAT.md, "Chunk".

use kluis_kms::{ChunkPosition, StreamKey, UnwrapPermit};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::types::{CHUNK_BYTES, TAG_BYTES};

/// Bytes of a full chunk with its tag.
pub(crate) const SEALED_CHUNK_BYTES: u64 = CHUNK_BYTES + TAG_BYTES;

/// Chunks of a stream of `size` plaintext bytes; an empty one has one, which is only a tag.
pub(crate) fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_BYTES).max(1)
}

/// Plaintext bytes of chunk `index` of a stream of `size` bytes.
pub(crate) fn chunk_bytes(size: u64, index: u64) -> u64 {
    size.saturating_sub(index * CHUNK_BYTES).min(CHUNK_BYTES)
}

/// A length or offset within one chunk or buffer as `usize`; they are all far below 4 GiB.
pub(crate) fn within(bytes: u64) -> usize {
    usize::try_from(bytes).expect("bounded by a chunk or a buffer")
}

/// Encrypts a stream chunk by chunk.
pub(crate) struct ChunkEncryptor {
    stream_key: StreamKey,
    size: u64,
    next: u64,
    tags: Sha256,
}

impl ChunkEncryptor {
    /// An encryptor of a stream of exactly `size` plaintext bytes.
    pub(crate) fn new(stream_key: StreamKey, size: u64) -> Self {
        Self { stream_key, size, next: 0, tags: Sha256::new() }
    }

    /// Plaintext bytes of the next chunk, `None` after the last.
    pub(crate) fn next_bytes(&self) -> Option<usize> {
        (self.next < chunk_count(self.size)).then(|| within(chunk_bytes(self.size, self.next)))
    }

    /// Encrypts the next chunk in place: `slot` holds its plaintext and 16 bytes for the tag.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDisabled`]: the gate closed; `slot` still holds plaintext and is wiped by
    /// its owner.
    pub(crate) fn encrypt(&mut self, permit: &UnwrapPermit, slot: &mut [u8]) -> Result<()> {
        let bytes = self.next_bytes().expect("a stream ends with its last chunk");
        let (plain, tag_slot) = slot
            .split_at_mut_checked(bytes)
            .filter(|(_, tag)| tag.len() as u64 == TAG_BYTES)
            .expect("a slot is a chunk and its tag");
        let is_last = self.next + 1 == chunk_count(self.size);
        let in_flight = permit.enter()?;
        let tag = self.stream_key.encrypt_chunk(ChunkPosition { index: self.next, is_last }, plain);
        drop(in_flight);
        tag_slot.copy_from_slice(&tag);
        self.tags.update(tag);
        self.next += 1;
        Ok(())
    }

    /// 128 bits of a hash over the tags: an ETag that costs nothing, is unique to this write, and
    /// that no client can choose. Called once every chunk is encrypted.
    pub(crate) fn finish(self) -> [u8; 16] {
        debug_assert!(self.next_bytes().is_none(), "the whole stream was encrypted");
        first_half(self.tags.finalize().into())
    }
}

/// The first 128 bits of a SHA-256.
pub(crate) fn first_half(hash: [u8; 32]) -> [u8; 16] {
    *hash.first_chunk().expect("16 of 32 bytes")
}

/// Decrypts chunks of one stream in any order.
pub(crate) struct ChunkDecryptor {
    stream_key: StreamKey,
    size: u64,
}

impl ChunkDecryptor {
    /// A decryptor of a stream of `size` plaintext bytes, as the manifest says.
    pub(crate) fn new(stream_key: StreamKey, size: u64) -> Self {
        Self { stream_key, size }
    }

    /// Decrypts chunk `index` into `plain`, which is wiped if it does not verify.
    ///
    /// # Errors
    /// - [`ErrorKind::Tampered`]: not the chunk that was written there. Whether it is rot after
    ///   all, the checksums tell.
    /// - [`ErrorKind::KeyDisabled`]: the gate closed.
    pub(crate) fn decrypt(
        &self,
        permit: &UnwrapPermit,
        index: u64,
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<()> {
        let is_last = index + 1 == chunk_count(self.size);
        let in_flight = permit.enter()?;
        let position = ChunkPosition { index, is_last };
        let verified = self.stream_key.decrypt_chunk_to(position, sealed, plain);
        drop(in_flight);
        verified.map_err(|cause| {
            Error::new(ErrorKind::Tampered, format!("verify chunk {index}")).with_source(cause)
        })
    }
}
