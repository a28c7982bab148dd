//! Writing a stream: from a request body to sealed bytes that are durable.
//!
//! Owns: the choice between inline, packed and streamed extents, the feeding of chunks, the check
//! of the body's length. Knows nothing of: object names, rows; where bytes lie is the blob layer's.
//!
//! Invariants
//! - Plaintext lies in a pool buffer only between its arrival and the encryption of its chunk, and
//!   is wiped if that does not happen.
//! - Nothing of a stream is visible until the caller commits; dropped before, it is dead bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use kluis_kms::{StreamKey, UnwrapPermit};

use crate::blob::{ExtentId, ExtentPlan, Lane, PACKED_BYTES_MAX, Placed, Volume};
use crate::body::Body;
use crate::bugs::{Bug, seeded};
use crate::crypt::{ChunkEncryptor, SEALED_CHUNK_BYTES, chunk_count, within};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{BufClass, BufPool};
use crate::namespace::TenantNs;
use crate::types::{EXTENT_BYTES, StreamId, TAG_BYTES};

/// Where streams go.
pub(crate) struct StreamSink<'a> {
    pub(crate) volume: &'a Volume,
    pub(crate) pool: &'a BufPool,
    pub(crate) inline_bytes_max: u64,
}

/// Which stream, and who may write it.
pub(crate) struct StreamPlan<'a> {
    pub(crate) ns: &'a TenantNs,
    pub(crate) permit: &'a UnwrapPermit,
    pub(crate) stream: StreamId,
    pub(crate) stream_key: StreamKey,
    pub(crate) lane: Lane,
    /// Whether a small body may become a row; a part never does.
    pub(crate) may_inline: bool,
}

/// A stream whose bytes are durable (or, inline, will be with the commit).
pub(crate) struct WrittenStream {
    /// The extents, by number, held so that their segments stay open until they are published.
    pub(crate) placed: Arc<Vec<Placed>>,
    /// The sealed body, if it is to be a row.
    pub(crate) inline: Option<Bytes>,
    /// 128 bits over the tags.
    pub(crate) digest: [u8; 16],
}

impl WrittenStream {
    /// How many extents there are.
    pub(crate) fn extents(&self) -> u32 {
        u32::try_from(self.placed.len()).expect("a stream has at most 1,280 extents")
    }
}

impl StreamSink<'_> {
    /// Encrypts all of `body` and makes it durable.
    ///
    /// # Errors
    /// - [`ErrorKind::Body`]: the body is shorter or longer than it said, or its checks failed.
    /// - [`ErrorKind::KeyDisabled`]: the gate closed on the way.
    /// - and those of [`Volume::put_packed`] and [`Volume::extent_writer`].
    pub(crate) async fn write(
        &self,
        plan: StreamPlan<'_>,
        body: &mut dyn Body,
    ) -> Result<WrittenStream> {
        let size = body.size();
        let sealed = size + chunk_count(size) * TAG_BYTES;
        let mut feed = Feed { body, pending: VecDeque::new() };
        let mut encryptor = ChunkEncryptor::new(plan.stream_key, size);
        let target = Target { ns: plan.ns, permit: plan.permit, stream: plan.stream };
        let mut written = if plan.may_inline && size <= self.inline_bytes_max {
            self.inline(&target, &mut encryptor, &mut feed).await?
        } else if sealed <= PACKED_BYTES_MAX as u64 {
            self.packed(&target, &mut encryptor, &mut feed, within(sealed)).await?
        } else {
            self.extents(&target, plan.lane, size, &mut encryptor, &mut feed).await?
        };
        feed.finish().await?;
        written.digest = encryptor.finish();
        if seeded(Bug::PublishBeforeFlush) {
            let (volume, placed) = (self.volume.clone(), Arc::clone(&written.placed));
            tokio::spawn(async move { volume.flush(&placed).await });
            return Ok(written);
        }
        self.volume.flush(&written.placed).await?;
        Ok(written)
    }

    async fn inline(
        &self,
        target: &Target<'_>,
        encryptor: &mut ChunkEncryptor,
        feed: &mut Feed<'_>,
    ) -> Result<WrittenStream> {
        let bytes = encryptor.next_bytes().unwrap_or_default();
        let mut sealed = zeroize::Zeroizing::new(vec![0; bytes + within(TAG_BYTES)]);
        feed.fill(plain_part(&mut sealed)).await?;
        encryptor.encrypt(target.permit, &mut sealed)?;
        let inline = Some(Bytes::from(std::mem::take(&mut *sealed)));
        Ok(WrittenStream { placed: Arc::default(), inline, digest: [0; 16] })
    }

    async fn packed(
        &self,
        target: &Target<'_>,
        encryptor: &mut ChunkEncryptor,
        feed: &mut Feed<'_>,
        sealed_bytes: usize,
    ) -> Result<WrittenStream> {
        // All of it first: a client that sends slowly must not hold a buffer that others wait for.
        feed.collect(sealed_bytes).await?;
        let class = BufClass::holding(sealed_bytes).expect("a packed extent fits a large buffer");
        let mut sealed = self.pool.acquire(class).await;
        sealed.mark_secret();
        sealed.set_len(sealed_bytes);
        for slot in sealed.chunks_mut(within(SEALED_CHUNK_BYTES)) {
            feed.fill(plain_part(slot)).await?;
            encryptor.encrypt(target.permit, slot)?;
        }
        let placed = self.volume.put_packed(target.extent(0), 0, sealed).await?;
        Ok(WrittenStream { placed: Arc::new(vec![placed]), inline: None, digest: [0; 16] })
    }

    async fn extents(
        &self,
        target: &Target<'_>,
        lane: Lane,
        size: u64,
        encryptor: &mut ChunkEncryptor,
        feed: &mut Feed<'_>,
    ) -> Result<WrittenStream> {
        let mut placed = Vec::new();
        let mut logical_off = 0;
        for number in 0.. {
            let plain_len = (size - logical_off).min(EXTENT_BYTES);
            let plan = ExtentPlan { lane, id: target.extent(number), logical_off, plain_len };
            feed.collect(1).await?;
            let mut writer = self.volume.extent_writer(plan).await?;
            for _ in 0..chunk_count(plain_len) {
                let slot = writer.chunk().await?;
                feed.fill(plain_part(slot)).await?;
                encryptor.encrypt(target.permit, slot)?;
                writer.seal_chunk()?;
            }
            placed.push(writer.finish().await?);
            logical_off += plain_len;
            if logical_off == size {
                break;
            }
        }
        Ok(WrittenStream { placed: Arc::new(placed), inline: None, digest: [0; 16] })
    }
}

/// What every extent of a stream is named by, and the permit that its chunks are encrypted with.
struct Target<'a> {
    ns: &'a TenantNs,
    permit: &'a UnwrapPermit,
    stream: StreamId,
}

impl Target<'_> {
    fn extent(&self, number: u32) -> ExtentId {
        ExtentId { ns: self.ns.ns(), stream: self.stream, number }
    }
}

/// The part of a slot that takes plaintext: all but the tag.
fn plain_part(slot: &mut [u8]) -> &mut [u8] {
    let plain = slot.len() - within(TAG_BYTES);
    slot.get_mut(..plain).expect("a slot is a chunk and its tag")
}

/// A body read in the lengths that chunks ask for.
struct Feed<'a> {
    body: &'a mut dyn Body,
    pending: VecDeque<Bytes>,
}

impl Feed<'_> {
    /// Waits until `bytes` of the body are here, or all of it.
    async fn collect(&mut self, bytes: usize) -> Result<()> {
        let mut held: usize = self.pending.iter().map(Bytes::len).sum();
        while held < bytes {
            let Some(next) = self.body.next().await.map_err(failed)? else { return Ok(()) };
            held += next.len();
            self.pending.push_back(next);
        }
        Ok(())
    }

    /// Fills all of `plain` from the body.
    async fn fill(&mut self, plain: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while let Some(space) = plain.get_mut(filled..).filter(|space| !space.is_empty()) {
            let Some(front) = self.pending.front_mut() else {
                let next = self.body.next().await.map_err(failed)?;
                self.pending.push_back(next.ok_or_else(|| {
                    Error::new(ErrorKind::Body, "read a body: it ended before its length")
                })?);
                continue;
            };
            let take = space.len().min(front.len());
            let (to, _) = space.split_at_mut(take);
            front.copy_to_slice(to);
            filled += take;
            if front.is_empty() {
                self.pending.pop_front();
            }
        }
        Ok(())
    }

    /// Checks that the body ends here, which is where its own checks report.
    async fn finish(&mut self) -> Result<()> {
        loop {
            if self.pending.iter().any(|bytes| !bytes.is_empty()) {
                return Err(Error::new(ErrorKind::Body, "read a body: it is longer than it said"));
            }
            self.pending.clear();
            match self.body.next().await.map_err(failed)? {
                Some(bytes) => self.pending.push_back(bytes),
                None => return Ok(()),
            }
        }
    }
}

fn failed(cause: crate::error::BoxError) -> Error {
    // A copy reads from the engine itself: its errors keep their kind.
    match cause.downcast::<Error>() {
        Ok(error) => *error,
        Err(cause) => Error::new(ErrorKind::Body, "read a body").with_source(cause),
    }
}
