//! The seam through which a request's plaintext enters the engine.
//!
//! Owns: the [`Body`] trait and the adapter that feeds one object's bytes into another.
//! Knows nothing of: HTTP framing, signatures, how digests are asked for.
//!
//! Invariants
//! - A body has an exact size, known before its first byte; the engine stores all of it or nothing.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::digest::{Checksum, ChecksumAlgorithm, Digester};
use crate::error::BoxError;
use crate::get::ObjectReader;

/// The future of [`Body::next`].
pub type BodyFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Bytes>, BoxError>> + Send + 'a>>;

/// Plaintext on its way in. `Sync` only so that a request can be borrowed across a wait.
pub trait Body: Send + Sync {
    /// Exact plaintext bytes, declared before the first byte. A body that yields more or fewer is
    /// refused with [`crate::ErrorKind::Body`].
    fn size(&self) -> u64;

    /// The next bytes, `None` at the end. The end may only be reported after every check that the
    /// sender asked for has passed; an error means that nothing is stored.
    fn next(&mut self) -> BodyFuture<'_>;

    /// The digests to keep, called once after [`Body::next`] gave `None`.
    fn checksums(&mut self) -> Vec<Checksum>;
}

/// A body held in memory, for small objects that the node makes itself and for tests.
pub struct BytesBody {
    bytes: Option<Bytes>,
    size: u64,
    digester: Option<Digester>,
}

impl BytesBody {
    /// A body of `bytes` that keeps digests by `algorithms`.
    pub fn new(bytes: impl Into<Bytes>, algorithms: &[ChecksumAlgorithm]) -> Self {
        let bytes = bytes.into();
        let size = bytes.len() as u64;
        Self { bytes: Some(bytes), size, digester: Some(Digester::new(algorithms)) }
    }
}

impl Body for BytesBody {
    fn size(&self) -> u64 {
        self.size
    }

    fn next(&mut self) -> BodyFuture<'_> {
        let bytes = self.bytes.take();
        if let (Some(bytes), Some(digester)) = (&bytes, &mut self.digester) {
            digester.update(bytes);
        }
        Box::pin(async move { Ok(bytes) })
    }

    fn checksums(&mut self) -> Vec<Checksum> {
        self.digester.take().map(Digester::finish).unwrap_or_default()
    }
}

/// The plaintext of a stored object as a body, for a copy that encrypts anew.
pub(crate) struct CopyBody {
    reader: ObjectReader,
    size: u64,
    digester: Option<Digester>,
}

impl CopyBody {
    /// The rest of `reader`, which yields exactly `size` bytes.
    pub(crate) fn new(reader: ObjectReader, size: u64, algorithms: &[ChecksumAlgorithm]) -> Self {
        Self { reader, size, digester: Some(Digester::new(algorithms)) }
    }
}

impl Body for CopyBody {
    fn size(&self) -> u64 {
        self.size
    }

    fn next(&mut self) -> BodyFuture<'_> {
        Box::pin(async move {
            let bytes = self.reader.next().await?;
            if let (Some(bytes), Some(digester)) = (&bytes, &mut self.digester) {
                digester.update(bytes);
            }
            Ok(bytes)
        })
    }

    fn checksums(&mut self) -> Vec<Checksum> {
        self.digester.take().map(Digester::finish).unwrap_or_default()
    }
}
