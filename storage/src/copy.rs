//! COPY: an object under another name, inside one tenant.
//!
//! Owns: the choice between sharing the content and encrypting anew. Knows nothing of: HTTP.
//!
//! Invariants
//! - The source is read with the rights to its own bucket, and the copy written with those to the
//!   copy's: a key policy may tell the two apart.
//! - A shared content is counted before its new version appears, in the same commit.
//! - The data key of a shared content is bound to the new version; the old wrap does not open it.
//! - Bytes are read and encrypted anew, under a new data key, when the copy asks for a checksum
//!   that the source lacks, for another mode or tenant key, or for just that, and whenever a
//!   client's key is on either side.

use bytes::Bytes;
use kluis_kms::{KeyUse, Purpose};

use crate::body::CopyBody;
use crate::bucket_keys::BucketAccess;
use crate::commit::Draft;
use crate::conditions::Validators;
use crate::digest::{ChecksumAlgorithm, ChecksumType};
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::get::open_content;
use crate::index::{Binding, COMMIT_TRIES_MAX, ContentKey, encode_context, object_row_key};
use crate::jobs::JobKind;
use crate::namespace::{Table, TenantNs};
use crate::put::VersionParts;
use crate::requests::{CopyRequest, GetReply, GetRequest, PutReceipt, PutRequest};
use crate::rows::ContentRow;
use crate::types::{ContentId, ETag, ETagRule, ObjectInfo, SseMode, Tags};

/// A source whose content the copy shares.
struct Shared {
    key: ContentKey,
    content: ContentId,
    info: ObjectInfo,
    tags: Tags,
}

impl Engine {
    /// Copies an object.
    ///
    /// # Errors
    /// Those of [`Engine::get`] for the source, and of [`Engine::put`] for the copy.
    pub async fn copy(&self, purpose: &Purpose, request: CopyRequest<'_>) -> Result<PutReceipt> {
        let inner = &self.inner;
        check_tenant(purpose, request.source_purpose)?;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        inner.admit(0)?;
        let tenant_key = request.sse.tenant_key;
        let access = inner.keys.for_write(&ns, purpose, request.bucket.id, tenant_key).await?;
        for _ in 0..COMMIT_TRIES_MAX {
            let (shared, record) = match inner.open_source(&ns, &request).await {
                Err(error) if error.kind() == ErrorKind::Conflict => continue,
                opened => opened?,
            };
            // What is shared would keep the data key that a job is replacing.
            let replaced = inner.jobs.has(access.tenant_key(), JobKind::Reencrypt);
            if replaced || !may_share(&shared.info, &access, &request) {
                return self.copy_anew(purpose, request, shared).await;
            }
            match inner.copy_shared(&ns, purpose, &access, &request, &shared, record).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                outcome => return outcome,
            }
        }
        Err(Error::new(ErrorKind::Conflict, "commit a copy"))
    }

    /// Reads the source and stores it like a body that was sent.
    async fn copy_anew(
        &self,
        purpose: &Purpose,
        request: CopyRequest<'_>,
        source_seen: Shared,
    ) -> Result<PutReceipt> {
        let source = GetRequest {
            bucket: request.source.0,
            object_key: request.source.1,
            conditions: request.source_conditions.clone(),
            range: None,
            part_number: None,
            customer_key: request.source_customer_key.clone(),
        };
        let GetReply { info, body, .. } =
            self.get(request.source_purpose, source).await.map_err(unchanged_is_failed)?;
        if info.version != source_seen.info.version {
            // Tags and conditions were decided on another version than the bytes are of.
            return Err(Error::new(ErrorKind::Conflict, "copy an object that is being replaced"));
        }
        let algorithm = request
            .checksum
            .or_else(|| {
                info.checksums
                    .iter()
                    .map(|checksum| checksum.algorithm)
                    .find(|known| *known != ChecksumAlgorithm::Md5)
            })
            .unwrap_or(ChecksumAlgorithm::Crc64Nvme);
        let md5 = request.sse.mode == SseMode::S3 || request.bucket.etag_rule == ETagRule::Md5;
        let algorithms =
            [Some(algorithm), md5.then_some(ChecksumAlgorithm::Md5)].into_iter().flatten();
        let body = CopyBody::new(body, info.size, &algorithms.collect::<Vec<_>>());
        let put = PutRequest {
            bucket: request.bucket,
            object_key: request.object_key,
            headers: request.headers.unwrap_or(info.headers),
            tags: request.tags.unwrap_or(source_seen.tags),
            sse: request.sse,
            conditions: request.conditions,
            body: Box::new(body),
        };
        self.put(purpose, put).await
    }
}

/// A copy stays inside one tenant, whatever purposes its caller hands in.
pub(crate) fn check_tenant(purpose: &Purpose, source_purpose: &Purpose) -> Result<()> {
    if purpose.tenant == source_purpose.tenant {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Misuse, "copy an object from one tenant to another"))
}

/// What is 304 for a read is 412 for the source of a copy.
pub(crate) fn unchanged_is_failed(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotModified => {
            Error::new(ErrorKind::PreconditionFailed, "decide a conditional copy")
        }
        _ => error,
    }
}

/// Whether the copy is nothing but rows.
fn may_share(info: &ObjectInfo, access: &BucketAccess, request: &CopyRequest<'_>) -> bool {
    let has = |wanted| info.checksums.iter().any(|checksum| checksum.algorithm == wanted);
    !request.reencrypt
        && info.tenant_key == access.tenant_key()
        && info.sse == request.sse.mode
        && info.sse != SseMode::Customer
        && request.source.0.etag_rule == request.bucket.etag_rule
        && info.size <= crate::types::PUT_BYTES_MAX
        && (request.checksum.is_none_or(has) && info.checksum_type == ChecksumType::FullObject)
}

/// The ETag of a copy: the source's, which names the same bytes; a copy has no parts to count.
fn copied_etag(info: &ObjectInfo) -> ETag {
    match info.etag.as_str().split_once('-') {
        Some((digest, _)) => ETag::new(format!("{digest}-1")),
        None => info.etag.clone(),
    }
}

impl Inner {
    async fn open_source(
        &self,
        ns: &TenantNs,
        request: &CopyRequest<'_>,
    ) -> Result<(Shared, (ContentRow, Bytes))> {
        let (bucket, object_key) = request.source;
        let purpose = request.source_purpose;
        let held = self.held_or_absent(ns, bucket, object_key).await?;
        let opened =
            self.open_row(ns, purpose, bucket, (object_key, &held.row), KeyUse::Read).await?;
        request.source_conditions.check_source(&Validators {
            etag: opened.attributes.etag.clone(),
            modified_ms: held.row.modified_ms,
            size: held.row.size,
        })?;
        let row = ns.get(Table::Contents, &[held.row.content.as_bytes()]).await?;
        let row = row.ok_or_else(|| Error::new(ErrorKind::Conflict, "find a copy's content"))?;
        let record = ContentRow::decode(&row)?;
        let customer_key = request.source_customer_key.as_deref();
        let place = (bucket, object_key);
        let (key, info, _) = open_content(ns, place, (&held, &opened), &record, customer_key)?;
        let of = (object_key, held.row.version.as_bytes());
        let tags = if held.row.tags.is_empty() {
            Tags::default()
        } else {
            crate::rows::decode_tags(&opened.access.open("tg", of, &held.row.tags)?)?
        };
        Ok((Shared { key, content: held.row.content, info, tags }, (record, row)))
    }

    /// One try of a copy that shares its source's content.
    async fn copy_shared(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        access: &BucketAccess,
        request: &CopyRequest<'_>,
        shared: &Shared,
        held_record: (ContentRow, Bytes),
    ) -> Result<PutReceipt> {
        let info = &shared.info;
        let context = encode_context(&request.sse.context);
        let etag = copied_etag(info);
        let parts = VersionParts {
            headers: request.headers.as_ref().unwrap_or(&info.headers),
            tags: request.tags.as_ref().unwrap_or(&shared.tags),
            context: &context,
            etag: etag.clone(),
            checksum_algorithm: crate::put::shown_algorithm(&info.checksums),
            checksum_type: info.checksum_type,
            size: info.size,
            upload: None,
        };
        let binding = Binding {
            tenant: ns.tenant(),
            bucket: request.bucket,
            object_key: request.object_key,
            content: shared.content,
            sse: request.sse.mode,
            context: &context,
            customer_key: request.sse.customer_key.as_deref(),
        };
        let data_key = &shared.key.data_key;
        let row = self.seal_version(access, &binding, data_key, &held_record.0, &parts)?;
        let mut draft = self.share(ns, purpose, request, shared.content, held_record).await?;
        draft.put(object_row_key(ns, request.bucket, request.object_key), row.encode());
        self.committer.commit(draft).await?;
        Ok(PutReceipt {
            version: row.version,
            etag,
            size: info.size,
            modified_ms: row.modified_ms,
            checksums: info.checksums.clone(),
            checksum_type: info.checksum_type,
            sse: request.sse.mode,
            tenant_key: access.tenant_key(),
        })
    }

    /// The start of a commit that adds a version to a content: its count goes up by one, or stays
    /// where the version given up is one of its own.
    async fn share(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        request: &CopyRequest<'_>,
        content: ContentId,
        (mut record, held_record): (ContentRow, Bytes),
    ) -> Result<Draft> {
        let (bucket, object_key) = (request.bucket, request.object_key);
        let (mut draft, replaced) =
            self.replace(ns, purpose, bucket, object_key, &request.conditions).await?;
        let content_row = ns.row(Table::Contents, &[content.as_bytes()]);
        match replaced {
            Some(replaced) if replaced.row.content == content => {
                draft = self.in_bucket(ns, bucket).await?;
                draft.expect(object_row_key(ns, bucket, object_key), Some(replaced.bytes));
                draft.expect(content_row, Some(held_record));
            }
            _ => {
                record.references = record.references.checked_add(1).ok_or_else(|| {
                    Error::new(ErrorKind::Misuse, "count one more copy of a content")
                })?;
                draft.expect(content_row.clone(), Some(held_record));
                draft.put(content_row, record.encode());
            }
        }
        Ok(draft)
    }
}
