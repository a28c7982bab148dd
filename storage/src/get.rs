//! GET and HEAD: an object read, whole or in part.
//!
//! The way: object row → leave to read → data key → commitment → manifest → chunks, each verified
//! before a byte of it leaves.
//! Owns: that order, the plan of chunks, read-ahead. Knows nothing of: HTTP, where bytes lie.
//!
//! Invariants
//! - The first chunk is verified before [`Engine::get`] returns; a later failure ends the body with
//!   an error, never short.
//! - Each chunk is decrypted inside the tenant key's gate, and plaintext that waits for its reader
//!   is given out only while the gate is open.
//! - The content is pinned: a delete meanwhile takes the name, not the bytes under the reader.

use std::collections::VecDeque;
use std::future::Future as _;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, MaybeDone, maybe_done};
use kluis_kms::{ContentScope, CustomerKey, KeyUse, Purpose, UnwrapPermit};
use subtle::ConstantTimeEq as _;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;
use zeroize::Zeroizing;

use crate::blob::{ChunkRead, Damage, ExtentId, Location};
use crate::bugs::{Bug, seeded};
use crate::crypt::{ChunkDecryptor, chunk_bytes, chunk_count, within};
use crate::customer::DataKeyWrapping;
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Binding, ContentKey, Held, Opened, open_heading, open_manifest, validators};
use crate::namespace::{Table, TenantNs};
use crate::reached::sometimes;
use crate::release::ContentPin;
use crate::requests::{GetReply, GetRequest};
use crate::rows::{ContentRow, Manifest};
use crate::scrub::DamageKind;
use crate::types::{
    BucketInfo, CHUNK_BYTES, ContentId, EXTENT_CHUNKS, ObjectInfo, ObjectKey, PartInfo, StreamId,
    TAG_BYTES,
};

/// Chunks fetched and decrypted in one step: one read of at most 256 KiB and 64 bytes. What a GET
/// holds of plaintext is this, and of ciphertext [`AHEAD_MAX`] times as much.
pub(crate) const STEP_CHUNKS: u64 = 4;
/// Steps of one GET whose ciphertext is read or being read at one time, the one that is waited for
/// among them: while one is decrypted and sent, the disk works on the others.
const AHEAD_MAX: usize = 3;
/// Tries to open an object that is replaced while it is being opened.
const OPEN_TRIES_MAX: usize = 16;
/// Tries to read an extent that is moved while it is being read. A move takes as long as many
/// reads, so a second one is rare.
const LOCATE_TRIES_MAX: usize = 16;

/// An object opened for reading.
struct OpenObject {
    info: ObjectInfo,
    range: Range<u64>,
    manifest: Manifest,
    source: Source,
}

/// What chunks are read with.
struct Source {
    inner: Arc<Inner>,
    ns: TenantNs,
    permit: Arc<UnwrapPermit>,
    content: ContentId,
    inline: bool,
    key: ContentKey,
    _pin: ContentPin,
}

impl Engine {
    /// What is known of an object, and the bytes that the request names.
    ///
    /// # Errors
    /// As [`Engine::get`], without those of reading bytes.
    pub async fn head(
        &self,
        purpose: &Purpose,
        request: GetRequest<'_>,
    ) -> Result<(ObjectInfo, Range<u64>)> {
        let opened = self.inner.open_object(purpose, &request).await?;
        Ok((opened.info, opened.range))
    }

    /// Opens an object; its first chunk is verified once this returns.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`], [`ErrorKind::Tampered`]: stored bytes do not verify.
    /// - [`ErrorKind::CustomerKeyMissing`], [`ErrorKind::CustomerKeyUnexpected`],
    ///   [`ErrorKind::CustomerKeyWrong`]: the client's key is not what the object needs.
    /// - [`ErrorKind::InvalidRange`]: range or part number name no bytes of the object.
    /// - [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyDestroyed`]: of the tenant key it is under.
    /// - [`ErrorKind::NotFound`]: no such object.
    /// - [`ErrorKind::NotModified`], [`ErrorKind::PreconditionFailed`]: by the conditions.
    pub async fn get(&self, purpose: &Purpose, request: GetRequest<'_>) -> Result<GetReply> {
        let mut seen = None;
        for _ in 0..OPEN_TRIES_MAX {
            let opened = self.inner.open_object(purpose, &request).await?;
            let (info, range) = (opened.info, opened.range.clone());
            let mut body = ObjectReader::new(opened.source, &opened.manifest, opened.range);
            match body.prime().await {
                Ok(()) => return Ok(GetReply { info, range, body }),
                // Its rows went between looking and pinning: what replaced it is there by now.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    sometimes("an object was replaced while it was being opened");
                    if seen.replace(info.version) == Some(info.version) {
                        return Err(missing(error));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "open an object that is being replaced"))
    }
}

/// Rows go in the commit that replaces the version they belong to. If the version is still there
/// and they are not, they were lost.
fn missing(cause: Error) -> Error {
    Error::new(ErrorKind::Corrupt, "find the rows of an object's content").with_source(cause)
}

impl Inner {
    async fn open_object(
        self: &Arc<Self>,
        purpose: &Purpose,
        request: &GetRequest<'_>,
    ) -> Result<OpenObject> {
        let ns = self.tenants.namespace(purpose.tenant)?;
        let (bucket, object_key) = (request.bucket, request.object_key);
        let mut seen = None;
        for _ in 0..OPEN_TRIES_MAX {
            let held = self.held_or_absent(&ns, bucket, object_key).await?;
            let opened =
                self.open_row(&ns, purpose, bucket, (object_key, &held.row), KeyUse::Read).await?;
            request.conditions.check_read(&validators(&held.row, &opened.attributes))?;
            let pin = ContentPin::new(Arc::clone(self), held.row.content);
            let content = ns.get(Table::Contents, &[held.row.content.as_bytes()]).await?;
            let Some(content) = content else {
                if seen.replace(held.bytes.clone()) == Some(held.bytes) {
                    return Err(missing(replaced()));
                }
                continue;
            };
            let record = ContentRow::decode(&content)?;
            let customer_key = request.customer_key.as_deref();
            let place = (bucket, object_key);
            let (key, info, manifest) =
                open_content(&ns, place, (&held, &opened), &record, customer_key)?;
            let range = wanted(request, &info)?;
            let source = Source {
                inner: Arc::clone(self),
                ns,
                permit: opened.access.permit,
                content: held.row.content,
                inline: record.inline,
                key,
                _pin: pin,
            };
            return Ok(OpenObject { info, range, manifest, source });
        }
        Err(Error::new(ErrorKind::Unavailable, "open an object that is being replaced"))
    }
}

/// Unwraps a content's data key for this version and opens what it seals.
pub(crate) fn open_content(
    ns: &TenantNs,
    (bucket, object_key): (&BucketInfo, &ObjectKey),
    (held, opened): (&Held, &Opened),
    record: &ContentRow,
    customer_key: Option<&CustomerKey>,
) -> Result<(ContentKey, ObjectInfo, Manifest)> {
    let row = &held.row;
    let access = &opened.access;
    let wrapping = DataKeyWrapping::new(access, row.sse, customer_key)?;
    let heading = open_heading(access, object_key, row.version.as_bytes(), &row.heading)?;
    let binding = Binding {
        tenant: ns.tenant(),
        bucket,
        object_key,
        content: row.content,
        sse: row.sse,
        context: &heading.context,
        customer_key,
    };
    let bound = binding.of_version(row.version, &record.sealed_manifest)?;
    let data_key = wrapping.unwrap(access, &row.wrapped, &bound)?;
    let scope = ContentScope::new(ns.tenant(), *row.content.as_bytes());
    if !bool::from(data_key.commitment(&scope).ct_eq(&record.commitment)) {
        return Err(Error::new(ErrorKind::Tampered, "compare a content's commitment"));
    }
    let key = ContentKey { data_key, scope };
    let manifest = open_manifest(&key, record, row.size)?;
    let attributes = &opened.attributes;
    let info = ObjectInfo {
        version: row.version,
        size: row.size,
        modified_ms: row.modified_ms,
        etag: attributes.etag.clone(),
        headers: heading.headers,
        tag_count: u32::from(attributes.tag_count),
        checksums: manifest.checksums.clone(),
        checksum_type: attributes.checksum_type,
        parts: parts(&manifest),
        multipart: row.multipart,
        sse: row.sse,
        tenant_key: access.tenant_key(),
    };
    Ok((key, info, manifest))
}

fn parts(manifest: &Manifest) -> Vec<PartInfo> {
    manifest
        .streams
        .iter()
        .map(|stream| PartInfo {
            number: stream.part_number,
            size: stream.size,
            checksums: stream.checksums.clone(),
        })
        .collect()
}

/// The bytes that a request names: a range, a part, or all of them.
fn wanted(request: &GetRequest<'_>, info: &ObjectInfo) -> Result<Range<u64>> {
    if let Some(number) = request.part_number {
        let mut start = 0;
        if !info.multipart && number == 1 {
            return Ok(0..info.size);
        }
        for part in &info.parts {
            if part.number == number && info.multipart {
                return Ok(start..start + part.size);
            }
            start += part.size;
        }
        return Err(Error::new(ErrorKind::InvalidRange, format!("find part {number}")));
    }
    match request.range {
        Some(range) => range.resolve(info.size),
        None => Ok(0..info.size),
    }
}

/// The part of one stream that a reader wants.
struct Slice {
    stream: StreamId,
    /// Plaintext bytes of the whole stream.
    size: u64,
    /// The wanted ones.
    wanted: Range<u64>,
}

/// One read's worth of chunks, all in one extent.
struct Step {
    decryptor: Arc<ChunkDecryptor>,
    stream: StreamId,
    size: u64,
    /// Chunk indices within the stream.
    chunks: Range<u64>,
    wanted: Range<u64>,
}

/// The ciphertext of a step.
enum Sealed {
    Inline(Bytes),
    Extent { id: ExtentId, location: Location, chunks: Range<u32>, read: ChunkRead },
}

/// A read of ciphertext that was begun. It goes on while nobody asks for it.
struct Ahead {
    step: Step,
    /// Locked by nobody: a body is `Sync`, and a mutex makes a future that.
    fetching: Mutex<Fetching>,
    /// What it took of the node's allowance; the step that is waited for takes nothing.
    _allowance: Option<OwnedSemaphorePermit>,
}

type Fetching = MaybeDone<BoxFuture<'static, Result<Sealed>>>;

impl Ahead {
    fn fetching(&mut self) -> Pin<&mut Fetching> {
        Pin::new(self.fetching.get_mut().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The plaintext of an object, in order.
///
/// Dropping it abandons outstanding reads (their buffers stay with the disk until they are done)
/// and wipes the stream keys.
pub struct ObjectReader {
    source: Arc<Source>,
    slices: VecDeque<Slice>,
    current: Option<Current>,
    ahead: VecDeque<Ahead>,
    ready: Option<Bytes>,
    /// The request's, for what is logged while its body is read.
    span: tracing::Span,
}

/// The slice being read.
struct Current {
    slice: Slice,
    decryptor: Arc<ChunkDecryptor>,
    position: u64,
}

impl ObjectReader {
    fn new(source: Source, manifest: &Manifest, range: Range<u64>) -> Self {
        let mut slices = VecDeque::new();
        let mut start = 0;
        for stream in &manifest.streams {
            let end = start + stream.size;
            let wanted = range.start.max(start)..range.end.min(end);
            // An empty body is one chunk that still has to verify.
            if wanted.start < wanted.end || manifest.size == 0 {
                let wanted = wanted.start - start..wanted.end - start;
                slices.push_back(Slice { stream: stream.stream, size: stream.size, wanted });
            }
            start = end;
        }
        Self {
            source: Arc::new(source),
            slices,
            current: None,
            ahead: VecDeque::new(),
            ready: None,
            span: tracing::Span::current(),
        }
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`], [`ErrorKind::Tampered`]: a chunk did not verify; none of its bytes
    ///   were returned.
    /// - [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyDestroyed`]: the gate closed; no byte follows.
    /// - [`ErrorKind::Unavailable`]: the disk did not answer.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let bytes = match self.ready.take() {
            Some(ready) => Some(ready),
            None => self.advance().await?,
        };
        // What was decrypted before it was asked for leaves only while the gate is open.
        drop(self.source.permit.enter()?);
        Ok(bytes.filter(|bytes| !bytes.is_empty()))
    }

    /// Opens the first step, so that its failure is told before anything is answered.
    async fn prime(&mut self) -> Result<()> {
        self.ready = self.advance().await?;
        Ok(())
    }

    /// Opens the next step. The reads of those after it go on meanwhile.
    async fn advance(&mut self) -> Result<Option<Bytes>> {
        if self.ahead.is_empty() {
            self.begin(None)?;
        }
        let Some(next) = self.ahead.front_mut() else {
            return Ok(None);
        };
        next.fetching().await;
        let sealed = next.fetching().take_output().expect("it was waited for");
        let step = self.ahead.pop_front().map(|next| next.step).expect("it is the first");
        // The disk works on the next ones while this one is decrypted.
        self.read_ahead()?;
        let span = self.span.clone();
        self.source.open(&step, sealed?).instrument(span).await.map(Some)
    }

    /// Begins the reads of the next steps, as far as the node allows reads that nobody waits for.
    fn read_ahead(&mut self) -> Result<()> {
        while self.ahead.len() < AHEAD_MAX {
            let allowance = Arc::clone(&self.source.inner.read_ahead).try_acquire_owned();
            let Ok(allowance) = allowance else { break };
            if !self.begin(Some(allowance))? {
                break;
            }
        }
        Ok(())
    }

    /// Begins the read of the next step; whether there is one. Without an allowance it has to be
    /// waited for at once: until then it may hold a buffer of the pool.
    fn begin(&mut self, allowance: Option<OwnedSemaphorePermit>) -> Result<bool> {
        let Some(step) = self.step()? else {
            return Ok(false);
        };
        let source = Arc::clone(&self.source);
        let (stream, chunks) = (step.stream, step.chunks.clone());
        let fetching = async move { source.fetch(stream, chunks).await };
        let fetching = maybe_done(fetching.instrument(self.span.clone()).boxed());
        let mut ahead = Ahead { step, fetching: Mutex::new(fetching), _allowance: allowance };
        // Nobody waits for it yet: who does is woken instead.
        let _ = ahead.fetching().poll(&mut Context::from_waker(Waker::noop()));
        self.ahead.push_back(ahead);
        Ok(true)
    }

    /// The next step of the plan.
    fn step(&mut self) -> Result<Option<Step>> {
        if self.current.is_none() {
            let Some(slice) = self.slices.pop_front() else {
                return Ok(None);
            };
            let key = &self.source.key;
            let stream_key = key.data_key.stream_key(&key.scope, slice.stream.as_bytes())?;
            let decryptor = Arc::new(ChunkDecryptor::new(stream_key, slice.size));
            let position = slice.wanted.start;
            self.current = Some(Current { slice, decryptor, position });
        }
        let current = self.current.as_mut().expect("set above");
        let (slice, first) = (&current.slice, current.position / CHUNK_BYTES);
        let wanted_last = slice.wanted.end.saturating_sub(1) / CHUNK_BYTES;
        let extent_last = (first / EXTENT_CHUNKS + 1) * EXTENT_CHUNKS - 1;
        let last = wanted_last.min(extent_last).min(first + STEP_CHUNKS - 1).max(first);
        let end = ((last + 1) * CHUNK_BYTES).min(slice.wanted.end);
        let step = Step {
            decryptor: Arc::clone(&current.decryptor),
            stream: slice.stream,
            size: slice.size,
            chunks: first..last + 1,
            wanted: current.position..end,
        };
        current.position = end;
        if end >= slice.wanted.end {
            self.current = None;
        }
        Ok(Some(step))
    }
}

impl Source {
    /// Reads the ciphertext of chunks of one extent.
    async fn fetch(&self, stream: StreamId, chunks: Range<u64>) -> Result<Sealed> {
        if self.inline {
            let row = self.ns.get(Table::Inline, &[self.content.as_bytes()]).await?;
            return row.map(Sealed::Inline).ok_or_else(replaced);
        }
        let number = u32::try_from(chunks.start / EXTENT_CHUNKS)
            .map_err(|_| Error::new(ErrorKind::Tampered, "number an extent"))?;
        let id = ExtentId { ns: self.ns.ns(), stream, number };
        let base = u64::from(number) * EXTENT_CHUNKS;
        let index = |chunk: u64| u32::try_from(chunk - base).expect("at most 64 chunks an extent");
        let chunks = index(chunks.start)..index(chunks.end);
        let (location, read) = self.locate(id, chunks.clone()).await?;
        Ok(Sealed::Extent { id, location, chunks, read })
    }

    /// Verifies and decrypts one step.
    async fn open(&self, step: &Step, sealed: Sealed) -> Result<Bytes> {
        let first = step.chunks.start * CHUNK_BYTES;
        let end = (step.chunks.end * CHUNK_BYTES).min(step.size);
        let mut plain = Zeroizing::new(vec![0; within(end - first)]);
        match sealed {
            Sealed::Inline(sealed) => {
                if sealed.len() as u64 != step.size + TAG_BYTES {
                    return Err(Error::new(ErrorKind::Tampered, "compare an inline body's length"));
                }
                step.decryptor.decrypt(&self.permit, 0, &sealed, &mut plain)?;
            }
            Sealed::Extent { id, location, chunks, read } => {
                if let Err((error, chunk)) = self.decrypt(step, read, &mut plain) {
                    // Before another copy is tried: that puts this one right.
                    let error = self.classify(error, id, &location, chunk).await;
                    let place = (&location, chunks);
                    if !self.read_other_copies(step, id, place, &mut plain).await? {
                        return Err(error);
                    }
                }
            }
        }
        let mut wanted = within(step.wanted.start - first)..within(step.wanted.end - first);
        if seeded(Bug::WrongRange) {
            wanted = 0..wanted.len();
        }
        Ok(Bytes::from_owner(Plain(plain)).slice(wanted))
    }

    /// Tries every copy of its own, where there are several; whether one verified.
    async fn read_other_copies(
        &self,
        step: &Step,
        id: ExtentId,
        (location, chunks): (&Location, Range<u32>),
        plain: &mut [u8],
    ) -> Result<bool> {
        let volume = &self.inner.volume;
        let copies = volume.copies();
        for copy in (0..copies).filter(|_| copies > 1) {
            let read = volume.read_copy(copy, id, location, chunks.clone()).await?;
            if read.is_some_and(|read| self.decrypt(step, read, plain).is_ok()) {
                let healed = volume.heal(id, location).await;
                tracing::warn!(extent = id.number, ?healed, "read from another copy");
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Verifies and decrypts what was read; which chunk failed, if one did.
    fn decrypt(&self, step: &Step, read: ChunkRead, plain: &mut [u8]) -> Result<(), (Error, u32)> {
        let spans: Vec<_> = read.spans().collect();
        let buf = read.into_buf();
        let mut rest = plain;
        for (span, place) in spans.into_iter().zip(step.chunks.clone()) {
            let sealed = buf.get(span.range).expect("a span lies in its buffer");
            let bytes = within(chunk_bytes(step.size, place));
            let (to, after) = rest.split_at_mut_checked(bytes).expect("the plan adds up");
            rest = after;
            let decrypted = step.decryptor.decrypt(&self.permit, place, sealed, to);
            decrypted.map_err(|error| (error, span.index))?;
        }
        debug_assert!(rest.is_empty(), "every chunk of the step was read");
        debug_assert!(step.chunks.end <= chunk_count(step.size), "within the stream");
        Ok(())
    }

    /// Reads chunks of an extent, wherever it lies by now.
    async fn locate(&self, id: ExtentId, chunks: Range<u32>) -> Result<(Location, ChunkRead)> {
        let parts: [&[u8]; 2] = [id.stream.as_bytes(), &id.number.to_be_bytes()];
        let mut seen = None;
        for _ in 0..LOCATE_TRIES_MAX {
            let row = self.ns.get(Table::Locations, &parts).await?.ok_or_else(replaced)?;
            let location = Location::decode(&row)?;
            match self.inner.volume.read(id, &location, chunks.clone()).await {
                // The commit that moved it is older than the refusal, so the row has changed. If it
                // has not, it names a use of the segment that is over.
                Err(error) if error.kind() == ErrorKind::Moved => {
                    if seen.replace(row.clone()) == Some(row) {
                        let during = format!("find extent {} of a stream", id.number);
                        return Err(Error::new(ErrorKind::Corrupt, during)
                            .with_source(error)
                            .with_advice("run `kluis check`"));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    self.inner.scrub.suspect(id, &location, None);
                    return Err(error);
                }
                read => return Ok((location, read?)),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "find an extent that is being moved"))
    }

    /// Tells rot from tampering, for the log and for `kluis check`.
    async fn classify(&self, error: Error, id: ExtentId, location: &Location, chunk: u32) -> Error {
        if error.kind() != ErrorKind::Tampered {
            return error;
        }
        let number = id.number;
        match self.inner.volume.classify(id, location, chunk).await {
            Ok(Damage::Tampered) => {
                self.inner.scrub.suspect(id, location, Some(DamageKind::Tampered));
                tracing::error!(tenant = %self.ns.tenant(), %error, extent = number, chunk,
                    "stored bytes pass their checksum and fail authentication: tampering");
                error
            }
            Ok(damage) => {
                self.inner.scrub.suspect(id, location, None);
                tracing::error!(tenant = %self.ns.tenant(), ?damage, extent = number, chunk,
                    "stored bytes are damaged");
                Error::new(ErrorKind::Corrupt, format!("read chunk {chunk} of extent {number}"))
                    .with_source(error)
            }
            // Nobody can look any more; the tag has failed all the same.
            Err(cause) if cause.kind() == ErrorKind::Moved => error,
            Err(cause) => cause,
        }
    }
}

/// The rows of a content went away before it was pinned.
fn replaced() -> Error {
    Error::new(ErrorKind::Conflict, "find the bytes of an object that was replaced")
}

/// Plaintext on its way out, wiped when the last reference is gone.
struct Plain(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Plain {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
