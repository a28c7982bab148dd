//! Multipart uploads: begun, abandoned, looked at.
//!
//! Owns: upload rows and their keys. The verbs with a body are in [`part`], the making of the
//! object in [`complete`], the listings in [`list`].
//!
//! Invariants
//! - One data key for all parts, made when the upload begins and bound to it until it completes.
//! - Every attempt at a part is a stream of its own, so that sending a part again never uses a key
//!   and nonce twice.
//! - What a completed or aborted upload leaves behind is given up in the same commit.

mod complete;
mod list;
mod part;
mod rebind;

use bytes::Bytes;
use kluis_kms::{Access, ContentScope, CustomerKey, DataKey, KeyUse, Purpose};

use crate::bucket_keys::BucketAccess;
use crate::commit::Draft;
use crate::customer::DataKeyWrapping;
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Binding, COMMIT_TRIES_MAX, ContentKey, encode_context};
use crate::meta::{Change, Condition, RowKey, ScanStep};
use crate::namespace::{Table, TenantNs, encode_object_key};
use crate::requests::{CreateUpload, UploadInfo};
use crate::rows::{Heading, PartRow, StreamRef, UploadRow, encode_tags};
use crate::types::{BucketInfo, ContentId, ObjectKey, Tags, UploadId};

/// The byte behind the bucket in the row key of an upload.
const UPLOAD: &[u8] = b"u";
/// The byte behind the bucket in the row key of a part.
const PART: &[u8] = b"p";

/// An open upload with the bytes that a commit is decided on.
struct HeldUpload {
    bytes: Bytes,
    row: UploadRow,
}

/// An open upload with its keys.
struct OpenUpload {
    held: HeldUpload,
    access: BucketAccess,
    key: ContentKey,
    heading: Heading,
}

impl Engine {
    /// Begins an upload.
    ///
    /// # Errors
    /// As [`Engine::put`], without those of the body.
    pub async fn create_upload(
        &self,
        purpose: &Purpose,
        request: CreateUpload<'_>,
    ) -> Result<UploadInfo> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        inner.admit(0)?;
        let bucket = request.bucket;
        let tenant_key = request.sse.tenant_key;
        let access = inner.keys.for_write(&ns, purpose, bucket.id, tenant_key).await?;
        let (upload, row) = inner.seal_upload(&ns, &access, &request)?;
        for _ in 0..COMMIT_TRIES_MAX {
            let mut draft = inner.in_bucket(&ns, bucket).await?;
            let row_key = upload_row_key(&ns, bucket, request.object_key, upload);
            draft.put(row_key, row.encode());
            match inner.committer.commit(draft).await {
                Ok(()) => return Ok(info(upload, &row, access.tenant_key())),
                // The bucket is gone, or its configuration has changed.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Conflict, "commit the beginning of an upload"))
    }

    /// What is known of an open upload.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is none of that id for that name.
    pub async fn upload_info(
        &self,
        purpose: &Purpose,
        bucket: &BucketInfo,
        object_key: &ObjectKey,
        upload: UploadId,
    ) -> Result<UploadInfo> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        let held = held_upload(&ns, bucket, object_key, upload).await?;
        let epoch = held.row.wrapped.wrapping_version();
        let wanted = Access::in_bucket(KeyUse::Attributes, *bucket.id.as_bytes());
        let wanted = wanted.of_version(*upload.as_bytes());
        let access = inner.keys.for_epoch(&ns, purpose, bucket.id, epoch, wanted).await?;
        Ok(info(upload, &held.row, access.tenant_key()))
    }

    /// Gives up an upload and its parts.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is none of that id for that name.
    pub async fn abort_upload(
        &self,
        purpose: &Purpose,
        bucket: &BucketInfo,
        object_key: &ObjectKey,
        upload: UploadId,
    ) -> Result<()> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        for _ in 0..COMMIT_TRIES_MAX {
            let held = held_upload(&ns, bucket, object_key, upload).await?;
            let mut draft = inner.in_bucket(&ns, bucket).await?;
            let row_key = upload_row_key(&ns, bucket, object_key, upload);
            draft.delete_held(row_key, held.bytes);
            let parts = parts_of(&ns, bucket, upload, 0, usize::MAX).await?;
            inner
                .give_up_parts(&ns, bucket, (upload, held.row.content), &parts, &mut draft)
                .await?;
            match inner.committer.commit(draft).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                outcome => return outcome,
            }
        }
        Err(Error::new(ErrorKind::Conflict, "commit the end of an upload"))
    }
}

impl Inner {
    fn seal_upload(
        &self,
        ns: &TenantNs,
        access: &BucketAccess,
        request: &CreateUpload<'_>,
    ) -> Result<(UploadId, UploadRow)> {
        let rng = &*self.env.rng;
        let initiated_ms = self.env.clock.now_ms();
        let upload = self.upload_id(initiated_ms);
        let content = ContentId::random(rng);
        let caller = encode_context(&request.sse.context);
        let data_key = DataKey::generate(rng)?;
        let binding = Binding {
            tenant: ns.tenant(),
            bucket: request.bucket,
            object_key: request.object_key,
            content,
            sse: request.sse.mode,
            context: &caller,
            customer_key: request.sse.customer_key.as_deref(),
        };
        let wrapping = DataKeyWrapping::new(access, binding.sse, binding.customer_key)?;
        let bound = binding.of_upload(upload)?;
        let of = (request.object_key, upload.as_bytes());
        let heading = Heading { context: caller.clone(), headers: request.headers.clone() };
        let tags = seal_tags(access, of, &request.tags)?;
        let row = UploadRow {
            initiated_ms,
            content,
            sse: request.sse.mode,
            checksum: request.checksum,
            wrapped: wrapping.wrap(access, &data_key, &bound, rng)?,
            heading: access.seal("um", of, &heading.encode())?,
            tags,
        };
        Ok((upload, row))
    }

    /// An upload id: 48 bits of time, then randomness, so that uploads of one name list by age.
    fn upload_id(&self, now_ms: u64) -> UploadId {
        let mut bytes = *UploadId::random(&*self.env.rng).as_bytes();
        let time = now_ms.to_be_bytes();
        bytes.iter_mut().zip(time.iter().skip(2)).for_each(|(to, from)| *to = *from);
        UploadId::from_bytes(bytes)
    }

    /// Opens an upload's data key.
    async fn open_upload(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        (bucket, object_key): (&BucketInfo, &ObjectKey),
        upload: UploadId,
        customer_key: Option<&CustomerKey>,
    ) -> Result<OpenUpload> {
        let held = held_upload(ns, bucket, object_key, upload).await?;
        let epoch = held.row.wrapped.wrapping_version();
        let wanted = Access::in_bucket(KeyUse::Write, *bucket.id.as_bytes());
        let wanted = wanted.of_version(*upload.as_bytes());
        let access = self.keys.for_epoch(ns, purpose, bucket.id, epoch, wanted).await?;
        let wrapping = DataKeyWrapping::new(&access, held.row.sse, customer_key)?;
        let sealed = &held.row.heading;
        let heading = crate::index::open_heading(&access, object_key, upload.as_bytes(), sealed)?;
        let binding = Binding {
            tenant: ns.tenant(),
            bucket,
            object_key,
            content: held.row.content,
            sse: held.row.sse,
            context: &heading.context,
            customer_key,
        };
        let bound = binding.of_upload(upload)?;
        let data_key = wrapping.unwrap(&access, &held.row.wrapped, &bound)?;
        drop(wrapping);
        let scope = ContentScope::new(ns.tenant(), *held.row.content.as_bytes());
        Ok(OpenUpload { held, access, key: ContentKey { data_key, scope }, heading })
    }

    /// Deletes part rows and gives their streams up.
    async fn give_up_parts(
        &self,
        ns: &TenantNs,
        bucket: &BucketInfo,
        (upload, content): (UploadId, ContentId),
        parts: &[StoredPart],
        draft: &mut Draft,
    ) -> Result<()> {
        draft.conditions.push(every_part(ns, bucket, upload, parts.len()));
        for part in parts {
            draft.delete_held(part_row_key(ns, bucket, upload, part.number), part.bytes.clone());
            let stream = StreamRef { stream: part.row.stream, extents: part.row.extents };
            self.release_stream(ns, content, stream, draft).await?;
        }
        Ok(())
    }
}

/// Seals tags; none at all is an empty field.
fn seal_tags(access: &BucketAccess, of: (&ObjectKey, &[u8; 16]), tags: &Tags) -> Result<Vec<u8>> {
    if tags.0.is_empty() {
        return Ok(Vec::new());
    }
    access.seal("tg", of, &encode_tags(tags))
}

fn info(upload: UploadId, row: &UploadRow, tenant_key: kluis_kms::TenantKeyId) -> UploadInfo {
    UploadInfo {
        upload,
        initiated_ms: row.initiated_ms,
        checksum: row.checksum,
        sse: row.sse,
        tenant_key,
    }
}

async fn held_upload(
    ns: &TenantNs,
    bucket: &BucketInfo,
    object_key: &ObjectKey,
    upload: UploadId,
) -> Result<HeldUpload> {
    let encoded = encode_object_key(object_key.as_bytes());
    let parts: [&[u8]; 4] = [bucket.id.as_bytes(), UPLOAD, &encoded, upload.as_bytes()];
    let bytes = ns.get(Table::Multipart, &parts).await?;
    let bytes = bytes.ok_or_else(|| Error::new(ErrorKind::NotFound, "find an upload"))?;
    Ok(HeldUpload { row: UploadRow::decode(&bytes)?, bytes })
}

fn upload_row_key(
    ns: &TenantNs,
    bucket: &BucketInfo,
    object_key: &ObjectKey,
    upload: UploadId,
) -> RowKey {
    let encoded = encode_object_key(object_key.as_bytes());
    ns.row(Table::Multipart, &[bucket.id.as_bytes(), UPLOAD, &encoded, upload.as_bytes()])
}

fn part_row_key(ns: &TenantNs, bucket: &BucketInfo, upload: UploadId, number: u32) -> RowKey {
    ns.row(
        Table::Multipart,
        &[bucket.id.as_bytes(), PART, upload.as_bytes(), &number.to_be_bytes()],
    )
}

/// That an upload has no parts but those that were seen: one that was stored meanwhile would be
/// left behind by the end of the upload.
fn every_part(ns: &TenantNs, bucket: &BucketInfo, upload: UploadId, count: usize) -> Condition {
    let prefix = ns.row(Table::Multipart, &[bucket.id.as_bytes(), PART, upload.as_bytes()]);
    Condition::RowsUnder { prefix, count }
}

/// A part row with the bytes that a commit is decided on.
struct StoredPart {
    number: u32,
    bytes: Bytes,
    row: PartRow,
}

/// The parts of an upload with numbers above `after`, at most `limit`.
async fn parts_of(
    ns: &TenantNs,
    bucket: &BucketInfo,
    upload: UploadId,
    after: u32,
    limit: usize,
) -> Result<Vec<StoredPart>> {
    let prefix = [bucket.id.as_bytes().as_slice(), PART, upload.as_bytes()].concat();
    let from = [prefix.as_slice(), &after.saturating_add(1).to_be_bytes()].concat();
    let skip = prefix.len();
    ns.fold(Table::Multipart, &prefix, &from, Vec::new(), move |parts, rest, value| {
        if parts.len() >= limit {
            return Ok(ScanStep::Stop);
        }
        let number = rest.get(skip..).and_then(|number| number.first_chunk()).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "read the number of a part in its row key")
        })?;
        let row = PartRow::decode(value)?;
        let number = u32::from_be_bytes(*number);
        parts.push(StoredPart { number, bytes: Bytes::copy_from_slice(value), row });
        Ok(ScanStep::Next)
    })
    .await
}

/// Deletes a row whatever it holds.
fn delete(draft: &mut Draft, row: RowKey) {
    draft.changes.push(Change::Delete { row });
}
