//! AbortMultipartUpload, ListParts, ListMultipartUploads.
//!
//! Owns: markers of these listings. Knows nothing of: parts' bytes.

use kluis_storage::{ListUploads, PartEntry, UploadEntry, UploadId, UploadInfo};
use s3s::S3Response;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CommonPrefix, ETag, Initiator,
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput,
    MultipartUpload, Owner, Part, StorageClass,
};

use super::checksum::{self, Fields};
use super::encoding::NameEncoding;
use super::error::{Answer, Subject, invalid_argument};
use super::headers::page_size;
use super::{Call, S3Api, acl, multipart, object_key, time};
use crate::plaintext::Plaintext;
use crate::policy;

/// Answers AbortMultipartUpload.
pub(super) async fn abort_multipart_upload(
    api: &S3Api,
    call: Call<AbortMultipartUploadInput>,
) -> Answer<S3Response<AbortMultipartUploadOutput>> {
    let input = &call.input;
    let right = api.on_bucket::<policy::AbortMultipartUpload, _>(&call, &input.bucket).await?;
    let object_key = object_key(&input.key)?;
    let upload = multipart::upload_id(&input.upload_id)?;
    let done = api.engine.abort_upload(right.purpose(), right.bucket(), &object_key, upload).await;
    done.map_err(|cause| Subject::Upload.failed(&cause))?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

/// Answers ListParts.
pub(super) async fn list_parts(
    api: &S3Api,
    call: Call<ListPartsInput>,
) -> Answer<S3Response<ListPartsOutput>> {
    let input = &call.input;
    let right = api.on_bucket::<policy::ListMultipartUploadParts, _>(&call, &input.bucket).await?;
    let object_key = object_key(&input.key)?;
    let upload = multipart::upload_id(&input.upload_id)?;
    let limit = page_size("max-parts", input.max_parts)?;
    let after = part_marker(input.part_number_marker)?;
    let page = api
        .engine
        .list_parts(right.purpose(), right.bucket(), &object_key, upload, after, limit)
        .await
        .map_err(|cause| Subject::Upload.failed(&cause))?;
    let owner = acl::owner(right.bucket(), right.user());
    let checksum = page.upload.checksum;
    let last = page.parts.last().and_then(|part| i32::try_from(part.number).ok());
    let tenant_key = page.upload.tenant_key;
    let mut response = S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket.clone()),
        checksum_algorithm: checksum.and_then(|(it, _)| checksum::algorithm_element(it)),
        checksum_type: checksum.map(|(_, it)| checksum::type_element(it)),
        initiator: Some(initiator(&owner)),
        is_truncated: Some(page.next.is_some()),
        key: Some(input.key.clone()),
        max_parts: i32::try_from(limit).ok(),
        next_part_number_marker: last,
        owner: Some(owner),
        part_number_marker: i32::try_from(after).ok(),
        parts: Some(page.parts.iter().map(part).collect()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        upload_id: Some(input.upload_id.clone()),
        ..ListPartsOutput::default()
    });
    response.extensions.insert(Plaintext { tenant_key });
    Ok(response)
}

/// A number after which parts are listed: 0 lists all.
pub(super) fn part_marker(marker: Option<i32>) -> Answer<u32> {
    u32::try_from(marker.unwrap_or(0)).map_err(|_| {
        let message = "Argument part-number-marker must be an integer between 0 and 2147483647";
        let value = marker.unwrap_or(0).to_string();
        invalid_argument(message, "part-number-marker", &value).into()
    })
}

fn part(entry: &PartEntry) -> Part {
    let mut part = Part {
        e_tag: Some(ETag::Strong(entry.etag.as_str().to_owned())),
        last_modified: Some(time::timestamp(entry.modified_ms)),
        part_number: i32::try_from(entry.number).ok(),
        size: i64::try_from(entry.size).ok(),
        ..Part::default()
    };
    checksum::fill!(part, Fields::full(&entry.checksums));
    part
}

/// Answers ListMultipartUploads.
pub(super) async fn list_multipart_uploads(
    api: &S3Api,
    call: Call<ListMultipartUploadsInput>,
) -> Answer<S3Response<ListMultipartUploadsOutput>> {
    let input = &call.input;
    let right =
        api.on_bucket::<policy::ListBucketMultipartUploads, _>(&call, &input.bucket).await?;
    let encoding = NameEncoding::read(input.encoding_type.as_ref())?;
    let limit = page_size("max-uploads", input.max_uploads)?;
    let request = ListUploads {
        bucket: right.bucket(),
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone().filter(|text| !text.is_empty()),
        after: marker(input.key_marker.as_deref(), input.upload_id_marker.as_deref())?,
        limit,
    };
    let page = api
        .engine
        .list_uploads(right.purpose(), request)
        .await
        .map_err(|cause| Subject::Bucket.failed(&cause))?;
    let owner = acl::owner(right.bucket(), right.user());
    let (next_key, next_upload) = page.next.clone().unzip();
    let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
    for entry in page.entries {
        match entry {
            UploadEntry::Upload { object_key, info } => {
                uploads.push(upload(encoding.name(&object_key), &info, &owner));
            }
            UploadEntry::Prefix(text) => {
                prefixes.push(CommonPrefix { prefix: Some(encoding.name(&text)) });
            }
        }
    }
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket.clone()),
        common_prefixes: Some(prefixes),
        delimiter: input.delimiter.as_deref().map(|text| encoding.name(text)),
        encoding_type: encoding.element(),
        is_truncated: Some(page.next.is_some()),
        key_marker: Some(encoding.name(input.key_marker.as_deref().unwrap_or_default())),
        max_uploads: i32::try_from(limit).ok(),
        next_key_marker: next_key.map(|text| encoding.name(&text)),
        next_upload_id_marker: next_upload.flatten().map(|id| id.to_string()),
        prefix: Some(encoding.name(input.prefix.as_deref().unwrap_or_default())),
        upload_id_marker: Some(input.upload_id_marker.clone().unwrap_or_default()),
        uploads: Some(uploads),
        ..ListMultipartUploadsOutput::default()
    }))
}

/// Where a listing of uploads goes on. An upload id counts only together with a key (AWS).
fn marker(name: Option<&str>, upload: Option<&str>) -> Answer<Option<(String, Option<UploadId>)>> {
    let Some(name) = name.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let upload = upload.filter(|text| !text.is_empty()).map(|text| {
        text.parse::<UploadId>()
            .map_err(|_| invalid_argument("Invalid uploadId marker", "upload-id-marker", text))
    });
    Ok(Some((name.to_owned(), upload.transpose()?)))
}

fn upload(name: String, info: &UploadInfo, owner: &Owner) -> MultipartUpload {
    MultipartUpload {
        checksum_algorithm: info.checksum.and_then(|(it, _)| checksum::algorithm_element(it)),
        checksum_type: info.checksum.map(|(_, it)| checksum::type_element(it)),
        initiated: Some(time::timestamp(info.initiated_ms)),
        initiator: Some(initiator(owner)),
        key: Some(name),
        owner: Some(owner.clone()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        upload_id: Some(info.upload.to_string()),
    }
}

fn initiator(owner: &Owner) -> Initiator {
    Initiator { display_name: owner.display_name.clone(), id: owner.id.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_counts_only_with_a_key() {
        let id = UploadId::from_bytes([3; 16]);
        assert_eq!(marker(None, Some(&id.to_string())).unwrap(), None);
        assert_eq!(marker(Some(""), None).unwrap(), None);
        assert_eq!(marker(Some("a"), None).unwrap(), Some(("a".to_owned(), None)));
        let both = marker(Some("a"), Some(&id.to_string())).unwrap();
        assert_eq!(both, Some(("a".to_owned(), Some(id))));
        assert_eq!(marker(Some("a"), Some("x")).unwrap_err().api().code, "InvalidArgument");
    }

    #[test]
    fn part_markers_are_not_negative() {
        assert_eq!(part_marker(None).unwrap(), 0);
        assert_eq!(part_marker(Some(7)).unwrap(), 7);
        assert_eq!(part_marker(Some(-1)).unwrap_err().api().code, "InvalidArgument");
    }
}
