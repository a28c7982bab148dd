//! PUT: an object stored whole.
//!
//! The way down: leave to write → encrypt and place → seal the manifest → bind the data key → one
//! commit, at which the object becomes visible and is durable.
//! Owns: that order. Knows nothing of: HTTP, signatures, where bytes lie.
//!
//! Invariants
//! - The data is flushed before the commit that makes it visible.
//! - Any failure before the commit leaves dead bytes and nothing else.

use std::sync::Arc;

use kluis_kms::{ContentScope, DataKey, Purpose};

use crate::blob::Lane;
use crate::bucket_keys::BucketAccess;
use crate::commit::Draft;
use crate::customer::DataKeyWrapping;
use crate::digest::{Checksum, ChecksumAlgorithm, ChecksumType};
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Binding, COMMIT_TRIES_MAX, ContentKey, encode_context, object_row_key};
use crate::namespace::{Table, TenantNs};
use crate::requests::{PutReceipt, PutRequest};
use crate::rows::{
    Attributes, ContentRow, Heading, Manifest, ManifestStream, ObjectRow, StreamRef, encode_tags,
};
use crate::segments::count_live;
use crate::stream::{StreamPlan, StreamSink, WrittenStream};
use crate::types::{
    ContentId, ETag, ETagRule, ObjectHeaders, PUT_BYTES_MAX, StreamId, Tags, UploadId, VersionId,
};

/// A content that is written and not yet visible.
pub(crate) struct WrittenContent {
    pub(crate) key: ContentKey,
    pub(crate) content: ContentId,
    pub(crate) stream: StreamId,
    pub(crate) written: WrittenStream,
    pub(crate) checksums: Vec<Checksum>,
    pub(crate) size: u64,
}

/// The parts of a new version that are sealed under its id.
pub(crate) struct VersionParts<'a> {
    pub(crate) headers: &'a ObjectHeaders,
    pub(crate) tags: &'a Tags,
    pub(crate) context: &'a [u8],
    pub(crate) etag: ETag,
    pub(crate) checksum_algorithm: Option<ChecksumAlgorithm>,
    pub(crate) checksum_type: ChecksumType,
    /// Plaintext bytes.
    pub(crate) size: u64,
    /// The upload it was made of, if it was.
    pub(crate) upload: Option<UploadId>,
}

impl Engine {
    /// Stores an object. Durable and visible once this returns.
    ///
    /// # Errors
    /// - [`ErrorKind::Body`]: the body was not what it said; nothing is stored.
    /// - [`ErrorKind::Conflict`]: too many others wrote the same object at the same time.
    /// - [`ErrorKind::CustomerKeyMissing`], [`ErrorKind::CustomerKeyUnexpected`]: mode and client's
    ///   key do not go together.
    /// - [`ErrorKind::Fenced`], [`ErrorKind::Full`], [`ErrorKind::Unavailable`]: see there.
    /// - [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyDestroyed`]: of the tenant key.
    /// - [`ErrorKind::Misuse`]: the body is larger than [`PUT_BYTES_MAX`].
    /// - [`ErrorKind::NotFound`]: no such bucket; or a condition asks for an object that is not
    ///   there.
    /// - [`ErrorKind::PreconditionFailed`]: a condition does not hold, before the body was read or
    ///   at the commit.
    pub async fn put(&self, purpose: &Purpose, mut request: PutRequest<'_>) -> Result<PutReceipt> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        let (bucket, object_key) = (request.bucket, request.object_key);
        inner.admit(request.body.size())?;
        // Before a byte is read: who would fail at the commit fails here, mostly.
        inner.decide(&ns, purpose, bucket, object_key, &request.conditions).await?;
        let access = inner.keys.for_write(&ns, purpose, bucket.id, request.sse.tenant_key).await?;
        // Before a byte is read, too.
        DataKeyWrapping::new(&access, request.sse.mode, request.sse.customer_key.as_deref())?;
        let content = inner.write_content(&ns, &access, request.body.as_mut()).await?;
        let version = inner.new_version(&ns, &access, &request, &content)?;
        inner.commit_put(&ns, purpose, &request, &content, &version).await?;
        Ok(PutReceipt {
            version: version.row.version,
            etag: version.etag,
            size: content.size,
            modified_ms: version.row.modified_ms,
            checksums: content.checksums,
            checksum_type: ChecksumType::FullObject,
            sse: request.sse.mode,
            tenant_key: access.tenant_key(),
        })
    }
}

/// The rows of a new version.
struct NewVersion {
    row: ObjectRow,
    record: ContentRow,
    etag: ETag,
}

impl Inner {
    /// Encrypts a body under a fresh data key and makes it durable.
    pub(crate) async fn write_content(
        &self,
        ns: &TenantNs,
        access: &BucketAccess,
        body: &mut dyn crate::body::Body,
    ) -> Result<WrittenContent> {
        let size = body.size();
        if size > PUT_BYTES_MAX {
            return Err(Error::new(ErrorKind::Misuse, format!("put {size} bytes at once")));
        }
        let content = ContentId::random(&*self.env.rng);
        let stream = StreamId::random(&*self.env.rng);
        let scope = ContentScope::new(ns.tenant(), *content.as_bytes());
        let data_key = DataKey::generate(&*self.env.rng)?;
        let plan = StreamPlan {
            ns,
            permit: &access.permit,
            stream,
            stream_key: data_key.stream_key(&scope, stream.as_bytes())?,
            lane: Lane::Hot,
            may_inline: true,
        };
        let written = self.sink().write(plan, body).await?;
        let key = ContentKey { data_key, scope };
        Ok(WrittenContent { key, content, stream, written, checksums: body.checksums(), size })
    }

    /// Where streams go.
    pub(crate) fn sink(&self) -> StreamSink<'_> {
        StreamSink {
            volume: &self.volume,
            pool: &self.pool,
            inline_bytes_max: self.config.inline_bytes_max,
        }
    }

    /// The manifest and the object row of a content that was put whole.
    fn new_version(
        &self,
        ns: &TenantNs,
        access: &BucketAccess,
        request: &PutRequest<'_>,
        content: &WrittenContent,
    ) -> Result<NewVersion> {
        let record = seal_content(content);
        let caller = encode_context(&request.sse.context);
        let etag =
            single_etag(request.bucket.etag_rule, &content.checksums, content.written.digest);
        let parts = VersionParts {
            headers: &request.headers,
            tags: &request.tags,
            context: &caller,
            etag: etag.clone(),
            checksum_algorithm: shown_algorithm(&content.checksums),
            checksum_type: ChecksumType::FullObject,
            size: content.size,
            upload: None,
        };
        let binding = Binding {
            tenant: ns.tenant(),
            bucket: request.bucket,
            object_key: request.object_key,
            content: content.content,
            sse: request.sse.mode,
            context: &caller,
            customer_key: request.sse.customer_key.as_deref(),
        };
        let row = self.seal_version(access, &binding, &content.key.data_key, &record, &parts)?;
        Ok(NewVersion { row, record, etag })
    }

    /// Seals what a version shows and binds its data key to it.
    pub(crate) fn seal_version(
        &self,
        access: &BucketAccess,
        binding: &Binding<'_>,
        data_key: &DataKey,
        record: &ContentRow,
        parts: &VersionParts<'_>,
    ) -> Result<ObjectRow> {
        let modified_ms = self.env.clock.now_ms();
        let version = self.version_id(modified_ms);
        let rng = &*self.env.rng;
        let of = (binding.object_key, version.as_bytes());
        let heading = Heading { context: parts.context.to_vec(), headers: parts.headers.clone() };
        let tag_count = u16::try_from(parts.tags.0.len()).unwrap_or(u16::MAX);
        let attributes = Attributes {
            etag: parts.etag.clone(),
            checksum_algorithm: parts.checksum_algorithm,
            checksum_type: parts.checksum_type,
            tag_count,
            size: parts.size,
            modified_ms,
            multipart: parts.upload.is_some(),
            upload: parts.upload,
        };
        let tags = if tag_count == 0 {
            Vec::new()
        } else {
            access.seal("tg", of, &encode_tags(parts.tags))?
        };
        let bound = binding.of_version(version, &record.sealed_manifest)?;
        let wrapping = DataKeyWrapping::new(access, binding.sse, binding.customer_key)?;
        Ok(ObjectRow {
            version,
            content: binding.content,
            size: parts.size,
            modified_ms,
            sse: binding.sse,
            upload: parts.upload,
            multipart: parts.upload.is_some(),
            wrapped: wrapping.wrap(access, data_key, &bound, rng)?,
            heading: access.seal("um", of, &heading.encode())?,
            tags,
            attributes: access.seal("la", of, &attributes.encode())?,
        })
    }

    /// A version id: 48 bits of time, then randomness, so that ids sort by time.
    fn version_id(&self, now_ms: u64) -> VersionId {
        let mut bytes = *VersionId::random(&*self.env.rng).as_bytes();
        let time = now_ms.to_be_bytes();
        bytes.iter_mut().zip(time.iter().skip(2)).for_each(|(to, from)| *to = *from);
        VersionId::from_bytes(bytes)
    }

    async fn commit_put(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        request: &PutRequest<'_>,
        content: &WrittenContent,
        version: &NewVersion,
    ) -> Result<()> {
        for _ in 0..COMMIT_TRIES_MAX {
            let (mut draft, _) = self
                .replace(ns, purpose, request.bucket, request.object_key, &request.conditions)
                .await?;
            publish_content(&mut draft, ns, content, &version.record);
            let row = object_row_key(ns, request.bucket, request.object_key);
            draft.put(row, version.row.encode());
            match self.committer.commit(draft).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                outcome => return outcome,
            }
        }
        Err(Error::new(ErrorKind::Conflict, "commit a put"))
    }
}

/// The content row of a content of one stream, referenced once.
fn seal_content(content: &WrittenContent) -> ContentRow {
    let stream = ManifestStream {
        stream: content.stream,
        size: content.size,
        part_number: 1,
        checksums: Vec::new(),
    };
    let manifest = Manifest {
        size: content.size,
        streams: vec![stream],
        checksums: content.checksums.clone(),
        composite: false,
    };
    let streams = vec![StreamRef { stream: content.stream, extents: content.written.extents() }];
    seal_manifest(&content.key, &manifest, streams, content.written.inline.is_some())
}

/// The content row of a sealed manifest, referenced once.
pub(crate) fn seal_manifest(
    key: &ContentKey,
    manifest: &Manifest,
    streams: Vec<StreamRef>,
    inline: bool,
) -> ContentRow {
    const FIRST: u32 = 1;
    let sealed_manifest = key.data_key.seal_manifest(&key.scope, FIRST, &manifest.encode());
    ContentRow {
        inline,
        sequence: FIRST,
        commitment: key.data_key.commitment(&key.scope),
        references: 1,
        streams,
        sealed_manifest,
    }
}

/// Adds a new content's rows to a commit: the record, and the inline body or the locations.
pub(crate) fn publish_content(
    draft: &mut Draft,
    ns: &TenantNs,
    content: &WrittenContent,
    record: &ContentRow,
) {
    draft.put(ns.row(Table::Contents, &[content.content.as_bytes()]), record.encode());
    if let Some(inline) = &content.written.inline {
        draft.put(ns.row(Table::Inline, &[content.content.as_bytes()]), inline.clone());
    }
    publish_stream(draft, ns, content.stream, &content.written);
}

/// Adds the locations of a stream's extents to a commit.
pub(crate) fn publish_stream(
    draft: &mut Draft,
    ns: &TenantNs,
    stream: StreamId,
    written: &WrittenStream,
) {
    for (number, placed) in (0_u32..).zip(written.placed.iter()) {
        let row = ns.row(Table::Locations, &[stream.as_bytes(), &number.to_be_bytes()]);
        draft.put(row, placed.location().encode().to_vec());
        draft.changes.push(count_live(placed.location()));
    }
    draft.placed = Some(Arc::clone(&written.placed));
}

/// The ETag of a body stored whole (docs/ARCHITECTURE.md, "ETags").
pub(crate) fn single_etag(rule: ETagRule, checksums: &[Checksum], digest: [u8; 16]) -> ETag {
    match md5_of(checksums) {
        Some(md5) if rule != ETagRule::Opaque => ETag::new(hex::encode(md5)),
        _ => ETag::new(format!("{}-1", hex::encode(digest))),
    }
}

/// The MD5 among a body's digests, if it was computed.
pub(crate) fn md5_of(checksums: &[Checksum]) -> Option<&[u8]> {
    checksums
        .iter()
        .find(|checksum| checksum.algorithm == ChecksumAlgorithm::Md5)
        .map(|checksum| checksum.value.as_slice())
}

/// The algorithm that a listing shows: the first that is a checksum and not the ETag's MD5.
pub(crate) fn shown_algorithm(checksums: &[Checksum]) -> Option<ChecksumAlgorithm> {
    checksums
        .iter()
        .map(|checksum| checksum.algorithm)
        .find(|algorithm| *algorithm != ChecksumAlgorithm::Md5)
}
