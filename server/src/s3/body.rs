//! Bytes on their way in and out.
//!
//! Owns: the adapters between s3s's streams and the engine's bodies. Knows nothing of: framing,
//! signatures, chunks.
//!
//! Invariants
//! - The size of what comes in is known before its first byte, or the request is refused.
//! - What goes out is exactly as long as was promised, or the stream ends in an error, which makes
//!   the connection break: a short answer never ends cleanly.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use kluis_storage::{Body, BodyFuture, Checksum, ChecksumAlgorithm, ObjectReader, PUT_BYTES_MAX};
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};

use super::Call;
use super::error::{Answer, bad_request, internal_error};
use crate::body::DigestHandle;

/// The body of a PUT or of a part.
pub(super) struct Upload {
    stream: Option<StreamingBlob>,
    digests: DigestHandle,
    size: u64,
}

/// Takes the body of `call`, and asks for digests by `algorithms` before its first byte.
pub(super) fn upload<Input>(
    call: &Call<Input>,
    stream: Option<StreamingBlob>,
    algorithms: &[ChecksumAlgorithm],
) -> Answer<Box<dyn Body>> {
    let Some(digests) = &call.digests else {
        // The front gives every request one.
        return Err(internal_error().into());
    };
    let size = digests.required_size()?;
    if size > PUT_BYTES_MAX {
        let message = "Your proposed upload exceeds the maximum allowed size";
        return Err(bad_request("EntityTooLarge", message)
            .with("ProposedSize", size.to_string())
            .with("MaxSizeAllowed", PUT_BYTES_MAX.to_string())
            .into());
    }
    digests.want(algorithms);
    Ok(Box::new(Upload { stream, digests: digests.clone(), size }))
}

impl Body for Upload {
    fn size(&self) -> u64 {
        self.size
    }

    fn next(&mut self) -> BodyFuture<'_> {
        Box::pin(async move {
            match &mut self.stream {
                Some(stream) => stream.next().await.transpose(),
                None => Ok(None),
            }
        })
    }

    fn checksums(&mut self) -> Vec<Checksum> {
        self.digests.results().unwrap_or_default()
    }
}

/// The body of a GET: `length` bytes of `reader`.
pub(super) fn download(reader: ObjectReader, length: u64) -> StreamingBlob {
    let chunks = stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(None) => None,
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
            Err(cause) => Some((Err(cause), None)),
        }
    });
    StreamingBlob::new(Download { chunks: Mutex::new(chunks.boxed()), remaining: length })
}

type Chunks = BoxStream<'static, kluis_storage::Result<Bytes>>;

struct Download {
    /// Locked by nobody: s3s wants a stream that is `Sync`, and a mutex makes one of it.
    chunks: Mutex<Chunks>,
    remaining: u64,
}

impl Stream for Download {
    type Item = Result<Bytes, s3s::StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let chunks = this.chunks.get_mut().unwrap_or_else(PoisonError::into_inner);
        let item = match ready!(chunks.poll_next_unpin(context)) {
            Some(Ok(bytes)) => match this.remaining.checked_sub(bytes.len() as u64) {
                Some(remaining) => {
                    this.remaining = remaining;
                    Some(Ok(bytes))
                }
                None => Some(Err(broken("an object yielded more bytes than it has"))),
            },
            Some(Err(cause)) => {
                tracing::error!(cause = %cause, "a download broke off");
                Some(Err(s3s::StdError::from(cause)))
            }
            None if this.remaining > 0 => {
                this.remaining = 0;
                Some(Err(broken("an object ended before its size")))
            }
            None => None,
        };
        Poll::Ready(item)
    }
}

fn broken(what: &'static str) -> s3s::StdError {
    tracing::error!("{what}");
    Box::new(std::io::Error::other(what))
}

impl ByteStream for Download {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.remaining)
            .map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}
