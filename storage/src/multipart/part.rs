//! UploadPart and UploadPartCopy: one part stored.

use kluis_kms::{CustomerKey, Purpose};

use super::{OpenUpload, PART, part_row_key, upload_row_key};
use crate::blob::Lane;
use crate::body::{Body, CopyBody};
use crate::copy::{check_tenant, unchanged_is_failed};
use crate::digest::{Checksum, ChecksumAlgorithm};
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::index::COMMIT_TRIES_MAX;
use crate::namespace::{Table, TenantNs};
use crate::put::{publish_stream, single_etag};
use crate::requests::{GetReply, GetRequest, PartReceipt, UploadPart, UploadPartCopy};
use crate::rows::{PartRow, PartSeal, StreamRef};
use crate::stream::{StreamPlan, WrittenStream};
use crate::types::{
    BucketInfo, ETag, ETagRule, ObjectKey, PART_NUMBER_MAX, PUT_BYTES_MAX, SseMode, StreamId,
    UploadId,
};

/// Which part of which upload.
struct PartPlace<'a> {
    bucket: &'a BucketInfo,
    object_key: &'a ObjectKey,
    upload: UploadId,
    number: u32,
    customer_key: Option<&'a CustomerKey>,
}

/// A part that is written and not yet committed.
struct WrittenPart {
    stream: StreamId,
    written: WrittenStream,
    row: PartRow,
    etag: ETag,
    checksums: Vec<Checksum>,
}

impl Engine {
    /// Stores a part; a part of that number stored before is replaced.
    ///
    /// # Errors
    /// As [`Engine::put`]; [`ErrorKind::NotFound`]: no such upload, or it ended meanwhile.
    pub async fn upload_part(
        &self,
        purpose: &Purpose,
        mut request: UploadPart<'_>,
    ) -> Result<PartReceipt> {
        let customer_key = request.customer_key.take();
        let place = PartPlace {
            bucket: request.bucket,
            object_key: request.object_key,
            upload: request.upload,
            number: request.part_number,
            customer_key: customer_key.as_deref(),
        };
        self.inner.store_part(purpose, &place, request.body.as_mut()).await
    }

    /// Stores a part from bytes of an object of the same tenant; they are encrypted anew.
    ///
    /// # Errors
    /// Those of [`Engine::get`] for the source, and of [`Engine::upload_part`].
    pub async fn upload_part_copy(
        &self,
        purpose: &Purpose,
        request: UploadPartCopy<'_>,
    ) -> Result<PartReceipt> {
        check_tenant(purpose, request.source_purpose)?;
        let info =
            self.upload_info(purpose, request.bucket, request.object_key, request.upload).await?;
        let source = GetRequest {
            bucket: request.source.0,
            object_key: request.source.1,
            conditions: request.source_conditions.clone(),
            range: request.range,
            part_number: None,
            customer_key: request.source_customer_key.clone(),
        };
        let reply = self.get(request.source_purpose, source).await.map_err(unchanged_is_failed)?;
        let GetReply { range, body, .. } = reply;
        let algorithm = info.checksum.map_or(ChecksumAlgorithm::Crc64Nvme, |(kind, _)| kind);
        let size = range.end - range.start;
        let md5 = info.sse == SseMode::S3 || request.bucket.etag_rule == ETagRule::Md5;
        let md5 = md5.then_some(ChecksumAlgorithm::Md5);
        let algorithms: Vec<_> = md5.into_iter().chain([algorithm]).collect();
        let mut body = CopyBody::new(body, size, &algorithms);
        let place = PartPlace {
            bucket: request.bucket,
            object_key: request.object_key,
            upload: request.upload,
            number: request.part_number,
            customer_key: request.customer_key.as_deref(),
        };
        self.inner.store_part(purpose, &place, &mut body).await
    }
}

impl Inner {
    async fn store_part(
        &self,
        purpose: &Purpose,
        place: &PartPlace<'_>,
        body: &mut dyn Body,
    ) -> Result<PartReceipt> {
        let ns = self.tenants.namespace(purpose.tenant)?;
        let size = body.size();
        if !(1..=PART_NUMBER_MAX).contains(&place.number) || size > PUT_BYTES_MAX {
            let what = format!("store part {} of {size} bytes", place.number);
            return Err(Error::new(ErrorKind::Misuse, what));
        }
        self.admit(size)?;
        let of = (place.bucket, place.object_key);
        let (id, customer_key) = (place.upload, place.customer_key);
        let mut upload = self.open_upload(&ns, purpose, of, id, customer_key).await?;
        let mut part = self.write_part(&ns, place, &upload, body).await?;
        while let Err(error) = self.commit_part(&ns, place, &upload, &part).await {
            let now = self.open_upload(&ns, purpose, of, id, customer_key).await?;
            if error.kind() != ErrorKind::Conflict || now.held.bytes == upload.held.bytes {
                return Err(error);
            }
            // A job put the upload under another bucket key; the data key is the same.
            let (field, of) = (part_field(place.number), (place.object_key, id.as_bytes()));
            let sealed = upload.access.open(&field, of, &part.row.sealed)?;
            part.row.sealed = now.access.seal(&field, of, &sealed)?;
            drop(sealed);
            upload = now;
        }
        Ok(PartReceipt {
            etag: part.etag,
            size,
            modified_ms: part.row.modified_ms,
            checksums: part.checksums,
            sse: upload.held.row.sse,
            tenant_key: upload.access.tenant_key(),
        })
    }

    async fn write_part(
        &self,
        ns: &TenantNs,
        place: &PartPlace<'_>,
        upload: &OpenUpload,
        body: &mut dyn Body,
    ) -> Result<WrittenPart> {
        let stream = StreamId::random(&*self.env.rng);
        let key = &upload.key;
        let plan = StreamPlan {
            ns,
            permit: &upload.access.permit,
            stream,
            stream_key: key.data_key.stream_key(&key.scope, stream.as_bytes())?,
            lane: Lane::Part,
            may_inline: false,
        };
        let size = body.size();
        let written = self.sink().write(plan, body).await?;
        let checksums = body.checksums();
        let etag = single_etag(place.bucket.etag_rule, &checksums, written.digest);
        let extents = written.extents();
        let seal =
            PartSeal { stream, size, extents, etag: etag.clone(), checksums: checksums.clone() };
        let sealed = upload.access.seal(
            &part_field(place.number),
            (place.object_key, place.upload.as_bytes()),
            &seal.encode(),
        )?;
        let modified_ms = self.env.clock.now_ms();
        let row = PartRow { stream, size, extents, modified_ms, sealed };
        Ok(WrittenPart { stream, written, row, etag, checksums })
    }

    async fn commit_part(
        &self,
        ns: &TenantNs,
        place: &PartPlace<'_>,
        upload: &OpenUpload,
        part: &WrittenPart,
    ) -> Result<()> {
        let row_key = part_row_key(ns, place.bucket, place.upload, place.number);
        let content = upload.held.row.content;
        for _ in 0..COMMIT_TRIES_MAX {
            let mut draft = self.in_bucket(ns, place.bucket).await?;
            let upload_row = upload_row_key(ns, place.bucket, place.object_key, place.upload);
            draft.expect(upload_row, Some(upload.held.bytes.clone()));
            let number = place.number.to_be_bytes();
            let parts: [&[u8]; 4] =
                [place.bucket.id.as_bytes(), PART, place.upload.as_bytes(), &number];
            let replaced = ns.get(Table::Multipart, &parts).await?;
            draft.expect(row_key.clone(), replaced.clone());
            if let Some(replaced) = replaced {
                let replaced = PartRow::decode(&replaced)?;
                let stream = StreamRef { stream: replaced.stream, extents: replaced.extents };
                self.release_stream(ns, content, stream, &mut draft).await?;
            }
            publish_stream(&mut draft, ns, part.stream, &part.written);
            draft.put(row_key.clone(), part.row.encode());
            match self.committer.commit(draft).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    // Another attempt at the same part, or the upload is over.
                    let (bucket, object_key) = (place.bucket, place.object_key);
                    let now = super::held_upload(ns, bucket, object_key, place.upload).await?;
                    if now.bytes != upload.held.bytes {
                        return Err(Error::new(ErrorKind::Conflict, "commit a part of an upload"));
                    }
                }
                outcome => return outcome,
            }
        }
        Err(Error::new(ErrorKind::Conflict, "commit a part"))
    }
}

/// The name of a part's sealed field: the number is part of it, so that parts cannot be exchanged.
pub(super) fn part_field(number: u32) -> String {
    format!("pt.{number}")
}
