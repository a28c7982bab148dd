//! CompleteMultipartUpload: an object made of parts, by metadata alone.
//!
//! Invariants
//! - The manifest lists exactly the parts that the client named; the rest is given up.
//! - The data key moves from the upload's binding to the version's, under the bucket key that is
//!   current then.

use std::collections::HashMap;

use kluis_kms::{KeyUse, Purpose};
use md5::{Digest as _, Md5};
use sha2::Sha256;

use super::part::part_field;
use super::{OpenUpload, StoredPart, delete, every_part, part_row_key, parts_of, upload_row_key};
use crate::bucket_keys::BucketAccess;
use crate::crypt::first_half;
use crate::digest::{Checksum, ChecksumAlgorithm, ChecksumType, join};
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::get::open_content;
use crate::index::{Binding, COMMIT_TRIES_MAX, object_row_key};
use crate::namespace::{Table, TenantNs};
use crate::put::{VersionParts, seal_manifest};
use crate::requests::{CompleteUpload, CompletedPart, PutReceipt};
use crate::rows::{
    ContentRow, Manifest, ManifestStream, ObjectRow, PartSeal, StreamRef, decode_tags,
};
use crate::types::{ETag, OBJECT_BYTES_MAX, PART_BYTES_MIN};

/// A part that the client chose, opened.
struct ChosenPart {
    number: u32,
    stream: StreamRef,
    size: u64,
    seal: PartSeal,
}

/// The object to be.
struct Made {
    row: ObjectRow,
    record: ContentRow,
    etag: ETag,
    checksums: Vec<Checksum>,
    checksum_type: ChecksumType,
}

impl Engine {
    /// Makes an object of an upload's parts. A repeat after success answers as the first did.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidPart`]: a part is missing, or its ETag or checksum differs.
    /// - [`ErrorKind::InvalidPartOrder`]: numbers are not ascending.
    /// - [`ErrorKind::PartTooSmall`]: a part before the last is under 5 MiB.
    /// - [`ErrorKind::Misuse`]: no parts, or more than 5 TiB.
    /// - [`ErrorKind::NotFound`]: no such upload.
    /// - [`ErrorKind::Body`]: the object's checksum or size is not what the client expects.
    /// - [`ErrorKind::PreconditionFailed`]: a condition does not hold at the commit.
    pub async fn complete_upload(
        &self,
        purpose: &Purpose,
        request: CompleteUpload<'_>,
    ) -> Result<PutReceipt> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        inner.admit(0)?;
        let (bucket, object_key) = (request.bucket, request.object_key);
        for _ in 0..COMMIT_TRIES_MAX {
            let (place, customer_key) = ((bucket, object_key), request.customer_key.as_deref());
            let opened = inner.open_upload(&ns, purpose, place, request.upload, customer_key).await;
            let upload = match opened {
                Ok(upload) => upload,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return inner.completed_before(&ns, purpose, &request, error).await;
                }
                Err(error) => return Err(error),
            };
            let stored = parts_of(&ns, bucket, request.upload, 0, usize::MAX).await?;
            let chosen = choose(&upload, &request, &stored)?;
            // The key that was chosen when the upload began, whatever is the default by now.
            let tenant_key = Some(upload.access.tenant_key());
            let access = inner.keys.for_write(&ns, purpose, bucket.id, tenant_key).await?;
            let made = inner.make(&ns, &access, &request, &upload, &chosen)?;
            let committed =
                inner.commit_complete(&ns, purpose, &request, &upload, &stored, &made).await;
            match committed {
                Ok(()) => return Ok(receipt(&access, made)),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Conflict, "commit the completion of an upload"))
    }
}

fn receipt(access: &BucketAccess, made: Made) -> PutReceipt {
    PutReceipt {
        version: made.row.version,
        etag: made.etag,
        size: made.row.size,
        modified_ms: made.row.modified_ms,
        checksums: made.checksums,
        checksum_type: made.checksum_type,
        sse: made.row.sse,
        tenant_key: access.tenant_key(),
    }
}

/// The parts that the client named, checked against those that are stored.
fn choose(
    upload: &OpenUpload,
    request: &CompleteUpload<'_>,
    stored: &[StoredPart],
) -> Result<Vec<ChosenPart>> {
    if request.parts.is_empty() {
        return Err(Error::new(ErrorKind::Misuse, "complete an upload of no parts"));
    }
    if request.parts.windows(2).any(|pair| matches!(pair, [a, b] if a.number >= b.number)) {
        return Err(Error::new(ErrorKind::InvalidPartOrder, "complete an upload"));
    }
    let by_number: HashMap<u32, &StoredPart> =
        stored.iter().map(|part| (part.number, part)).collect();
    let last = request.parts.last().map(|part| part.number);
    let mut chosen = Vec::with_capacity(request.parts.len());
    for wanted in &request.parts {
        let number = wanted.number;
        let invalid = || Error::new(ErrorKind::InvalidPart, format!("take part {number}"));
        let part = by_number.get(&number).ok_or_else(invalid)?;
        let of = (request.object_key, request.upload.as_bytes());
        let sealed = upload.access.open(&part_field(number), of, &part.row.sealed)?;
        let seal = PartSeal::decode(&sealed)?.check(&part.row)?;
        if !agrees(wanted, &seal) {
            return Err(invalid());
        }
        if part.row.size < PART_BYTES_MIN && Some(number) != last {
            let what = format!("take part {number} of {} bytes", part.row.size);
            return Err(Error::new(ErrorKind::PartTooSmall, what));
        }
        let stream = StreamRef { stream: part.row.stream, extents: part.row.extents };
        chosen.push(ChosenPart { number, stream, size: part.row.size, seal });
    }
    Ok(chosen)
}

fn agrees(wanted: &CompletedPart, seal: &PartSeal) -> bool {
    wanted.etag == seal.etag
        && wanted.checksums.iter().all(|named| {
            seal.checksums
                .iter()
                .filter(|held| held.algorithm == named.algorithm)
                .all(|held| held == named)
        })
}

/// The checksum of the whole object, where its parts have what it takes.
fn whole_checksum(
    upload: &OpenUpload,
    chosen: &[ChosenPart],
) -> Result<(Vec<Checksum>, ChecksumType)> {
    let (algorithm, kind) = upload
        .held
        .row
        .checksum
        .unwrap_or((ChecksumAlgorithm::Crc64Nvme, ChecksumType::FullObject));
    let parts: Option<Vec<(Checksum, u64)>> = chosen
        .iter()
        .map(|part| {
            let held = part.seal.checksums.iter().find(|held| held.algorithm == algorithm)?;
            Some((held.clone(), part.size))
        })
        .collect();
    match parts {
        Some(parts) => Ok((vec![join(algorithm, kind, &parts)?], kind)),
        None => Ok((Vec::new(), ChecksumType::FullObject)),
    }
}

/// `md5(md5s)-N` where every part's ETag is an MD5, else a hash over the parts' ETags, `-N`.
fn multipart_etag(chosen: &[ChosenPart]) -> ETag {
    let count = chosen.len();
    let md5s: Option<Vec<Vec<u8>>> = chosen
        .iter()
        .map(|part| {
            let etag = part.seal.etag.as_str();
            hex::decode(etag).ok().filter(|md5| md5.len() == 16)
        })
        .collect();
    let digest: [u8; 16] = if let Some(md5s) = md5s {
        Md5::digest(md5s.concat()).into()
    } else {
        let mut hash = Sha256::new();
        for part in chosen {
            hash.update(part.seal.etag.as_str());
        }
        first_half(hash.finalize().into())
    };
    ETag::new(format!("{}-{count}", hex::encode(digest)))
}

impl Inner {
    /// The rows of the object to be.
    fn make(
        &self,
        ns: &TenantNs,
        access: &BucketAccess,
        request: &CompleteUpload<'_>,
        upload: &OpenUpload,
        chosen: &[ChosenPart],
    ) -> Result<Made> {
        let sum = chosen.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.size));
        let size = sum
            .filter(|size| *size <= OBJECT_BYTES_MAX)
            .ok_or_else(|| Error::new(ErrorKind::Misuse, "make an object of more than 5 TiB"))?;
        let (checksums, checksum_type) = whole_checksum(upload, chosen)?;
        check_expected(request, size, &checksums)?;
        let manifest = Manifest {
            size,
            streams: chosen
                .iter()
                .map(|part| ManifestStream {
                    stream: part.stream.stream,
                    size: part.size,
                    part_number: part.number,
                    checksums: part.seal.checksums.clone(),
                })
                .collect(),
            checksums: checksums.clone(),
            composite: checksum_type == ChecksumType::Composite,
        };
        let streams = chosen.iter().map(|part| part.stream).collect();
        let record = seal_manifest(&upload.key, &manifest, streams, false);
        let etag = multipart_etag(chosen);
        let of = (request.object_key, request.upload.as_bytes());
        let tags = match upload.held.row.tags.as_slice() {
            [] => crate::types::Tags::default(),
            sealed => decode_tags(&upload.access.open("tg", of, sealed)?)?,
        };
        let parts = VersionParts {
            headers: &upload.heading.headers,
            tags: &tags,
            context: &upload.heading.context,
            etag: etag.clone(),
            checksum_algorithm: checksums.first().map(|checksum| checksum.algorithm),
            checksum_type,
            size,
            upload: Some(request.upload),
        };
        let binding = Binding {
            tenant: ns.tenant(),
            bucket: request.bucket,
            object_key: request.object_key,
            content: upload.held.row.content,
            sse: upload.held.row.sse,
            context: &upload.heading.context,
            customer_key: request.customer_key.as_deref(),
        };
        let row = self.seal_version(access, &binding, &upload.key.data_key, &record, &parts)?;
        Ok(Made { row, record, etag, checksums, checksum_type })
    }

    async fn commit_complete(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        request: &CompleteUpload<'_>,
        upload: &OpenUpload,
        stored: &[StoredPart],
        made: &Made,
    ) -> Result<()> {
        let (bucket, object_key) = (request.bucket, request.object_key);
        let (mut draft, _) =
            self.replace(ns, purpose, bucket, object_key, &request.conditions).await?;
        let upload_row = upload_row_key(ns, bucket, object_key, request.upload);
        draft.delete_held(upload_row, upload.held.bytes.clone());
        draft.conditions.push(every_part(ns, bucket, request.upload, stored.len()));
        let content = upload.held.row.content;
        let listed: std::collections::HashSet<_> =
            made.record.streams.iter().map(|stream| stream.stream).collect();
        for part in stored {
            let row = part_row_key(ns, bucket, request.upload, part.number);
            draft.expect(row.clone(), Some(part.bytes.clone()));
            delete(&mut draft, row);
            if !listed.contains(&part.row.stream) {
                let stream = StreamRef { stream: part.row.stream, extents: part.row.extents };
                self.release_stream(ns, content, stream, &mut draft).await?;
            }
        }
        draft.put(ns.row(Table::Contents, &[content.as_bytes()]), made.record.encode());
        draft.put(object_row_key(ns, bucket, object_key), made.row.encode());
        self.committer.commit(draft).await
    }

    /// Answers a repeated completion from the object that the first one made.
    async fn completed_before(
        &self,
        ns: &TenantNs,
        purpose: &Purpose,
        request: &CompleteUpload<'_>,
        absent: Error,
    ) -> Result<PutReceipt> {
        let (bucket, object_key) = (request.bucket, request.object_key);
        let Some(held) = self.held(ns, bucket, object_key).await? else {
            return Err(absent);
        };
        if held.row.upload != Some(request.upload) {
            return Err(absent);
        }
        let opened =
            self.open_row(ns, purpose, bucket, (object_key, &held.row), KeyUse::Write).await?;
        let row = ns.get(Table::Contents, &[held.row.content.as_bytes()]).await?;
        let Some(row) = row else { return Err(absent) };
        let record = ContentRow::decode(&row)?;
        let (place, customer_key) = ((bucket, object_key), request.customer_key.as_deref());
        let (_, info, _) = open_content(ns, place, (&held, &opened), &record, customer_key)?;
        Ok(PutReceipt {
            version: info.version,
            etag: info.etag,
            size: info.size,
            modified_ms: info.modified_ms,
            checksums: info.checksums,
            checksum_type: info.checksum_type,
            sse: info.sse,
            tenant_key: info.tenant_key,
        })
    }
}

fn check_expected(request: &CompleteUpload<'_>, size: u64, checksums: &[Checksum]) -> Result<()> {
    if request.size.is_some_and(|expected| expected != size) {
        return Err(Error::new(ErrorKind::Body, "compare the size of a completed upload"));
    }
    let differs = |expected: &Checksum| !checksums.contains(expected);
    if request.checksum.as_ref().is_some_and(differs) {
        return Err(Error::new(ErrorKind::Body, "compare the checksum of a completed upload"));
    }
    Ok(())
}
