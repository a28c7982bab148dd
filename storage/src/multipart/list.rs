//! ListParts and ListMultipartUploads.

use kluis_kms::{Access, KeyUse, Purpose};

use super::part::part_field;
use super::{UPLOAD, held_upload, info, parts_of};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::list::{Folding, PAGE_MAX};
use crate::meta::{ScanStep, prefix_end};
use crate::namespace::{Table, decode_object_key, encode_object_key, encode_object_key_prefix};
use crate::requests::{ListUploads, PartEntry, PartPage, UploadEntry, UploadPage};
use crate::rows::{PartSeal, UploadRow};
use crate::types::{BucketInfo, ObjectKey, UploadId};

/// What a scan of uploads found.
enum Found {
    Upload(String, UploadId, Box<UploadRow>),
    Prefix(String),
}

impl Engine {
    /// A page of an upload's parts, numbers above `after`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: no such upload; and those of its tenant key.
    pub async fn list_parts(
        &self,
        purpose: &Purpose,
        bucket: &BucketInfo,
        object_key: &ObjectKey,
        upload: UploadId,
        after: u32,
        limit: usize,
    ) -> Result<PartPage> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        let held = held_upload(&ns, bucket, object_key, upload).await?;
        let epoch = held.row.wrapped.wrapping_version();
        let wanted = Access::in_bucket(KeyUse::Attributes, *bucket.id.as_bytes());
        let wanted = wanted.of_version(*upload.as_bytes());
        let access = inner.keys.for_epoch(&ns, purpose, bucket.id, epoch, wanted).await?;
        let limit = limit.min(PAGE_MAX);
        let mut stored = parts_of(&ns, bucket, upload, after, limit + 1).await?;
        let more = stored.len() > limit;
        stored.truncate(limit);
        let mut parts = Vec::with_capacity(stored.len());
        for part in stored {
            let of = (object_key, upload.as_bytes());
            let seal = access.open(&part_field(part.number), of, &part.row.sealed)?;
            let PartSeal { etag, checksums, .. } = PartSeal::decode(&seal)?.check(&part.row)?;
            parts.push(PartEntry {
                number: part.number,
                size: part.row.size,
                modified_ms: part.row.modified_ms,
                etag,
                checksums,
            });
        }
        let next = parts.last().map_or(after, |part| part.number);
        let upload = info(upload, &held.row, access.tenant_key());
        Ok(PartPage { upload, parts, next: more.then_some(next) })
    }

    /// A page of a bucket's open uploads, by name and then by age.
    ///
    /// # Errors
    /// Those of reading metadata.
    pub async fn list_uploads(
        &self,
        purpose: &Purpose,
        request: ListUploads<'_>,
    ) -> Result<UploadPage> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        let limit = request.limit.min(PAGE_MAX);
        if limit == 0 {
            return Ok(UploadPage { entries: Vec::new(), next: None });
        }
        let tenant_key = inner.keys.default_tenant_key(&ns)?;
        let mut found = scan(&ns, &request, limit).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|last| match last {
            Found::Upload(object_key, upload, _) => (object_key.clone(), Some(*upload)),
            Found::Prefix(prefix) => (prefix.clone(), None),
        });
        let entries = found
            .into_iter()
            .map(|one| match one {
                Found::Upload(object_key, upload, row) => {
                    UploadEntry::Upload { object_key, info: info(upload, &row, tenant_key) }
                }
                Found::Prefix(prefix) => UploadEntry::Prefix(prefix),
            })
            .collect();
        Ok(UploadPage { entries, next })
    }
}

async fn scan(
    ns: &crate::namespace::TenantNs,
    request: &ListUploads<'_>,
    limit: usize,
) -> Result<Vec<Found>> {
    let folding = Folding { prefix: request.prefix.clone(), delimiter: request.delimiter.clone() };
    let head = [request.bucket.id.as_bytes().as_slice(), UPLOAD].concat();
    let from = [head.as_slice(), &start_of(&folding, request)].concat();
    let encoded = encode_object_key_prefix(request.prefix.as_bytes());
    let within = [head.as_slice(), &encoded].concat();
    ns.fold(Table::Multipart, &within, &from, Vec::new(), move |found, rest, value| {
        let encoded = rest.get(head.len()..).unwrap_or_default();
        let (object_key, id) = decode_object_key(encoded)?;
        let id = id.first_chunk().ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "read the id of an upload in its row key")
        })?;
        let step = if let Some(common) = folding.common_prefix(&object_key) {
            let past = prefix_end(&encode_object_key_prefix(common.as_bytes()));
            found.push(Found::Prefix(common.to_owned()));
            ScanStep::Seek([head.as_slice(), &past].concat())
        } else {
            let row = Box::new(UploadRow::decode(value)?);
            found.push(Found::Upload(object_key, UploadId::from_bytes(*id), row));
            ScanStep::Next
        };
        Ok(if found.len() > limit { ScanStep::Stop } else { step })
    })
    .await
}

/// Where a scan of encoded names starts.
fn start_of(folding: &Folding, request: &ListUploads<'_>) -> Vec<u8> {
    let Some((object_key, upload)) = &request.after else {
        return Vec::new();
    };
    let encoded = encode_object_key(object_key.as_bytes());
    match (upload, folding.common_prefix(object_key)) {
        (Some(upload), _) => [encoded.as_slice(), upload.as_bytes(), &[0]].concat(),
        (None, Some(common)) if common == object_key => {
            prefix_end(&encode_object_key_prefix(common.as_bytes()))
        }
        // After every upload of this name: its rows end where 0x00 becomes 0x01.
        (None, _) => prefix_end(&encoded),
    }
}
