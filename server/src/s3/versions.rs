//! ListObjectVersions of a bucket without versioning: every object has one version, `null`.
//!
//! Owns: that answer. Clients that empty a bucket ask for versions first, whatever the bucket is.

use kluis_storage::{ListEntry, ListPosition, ListedObject};
use s3s::S3Response;
use s3s::dto::{
    CommonPrefix, ETag, ListObjectVersionsInput, ListObjectVersionsOutput, ObjectVersion,
    ObjectVersionStorageClass, Owner,
};

use super::encoding::NameEncoding;
use super::error::{Answer, invalid_argument};
use super::list::Query;
use super::{Call, S3Api, acl, checksum, time};
use crate::policy;

/// The version id of an object that was put without versioning.
const NULL: &str = "null";

/// Answers ListObjectVersions.
pub(super) async fn list_object_versions(
    api: &S3Api,
    call: Call<ListObjectVersionsInput>,
) -> Answer<S3Response<ListObjectVersionsOutput>> {
    let input = &call.input;
    let right = api.on_bucket::<policy::ListBucketVersions, _>(&call, &input.bucket).await?;
    let encoding = NameEncoding::read(input.encoding_type.as_ref())?;
    let query = Query::new(input.prefix.as_ref(), input.delimiter.as_ref(), input.max_keys)?;
    let marker = input.key_marker.clone().unwrap_or_default();
    let version_marker = input.version_id_marker.clone().filter(|text| !text.is_empty());
    if let Some(version) = version_marker.as_deref().filter(|_| marker.is_empty()) {
        let message = "A version-id marker cannot be specified without a key marker.";
        return Err(invalid_argument(message, "version-id-marker", version).into());
    }
    let page = query.page(api, &right, query.after(&marker)).await?;
    let (next_key, next_version) = match &page.next {
        Some(ListPosition::AfterKey(text)) => (Some(encoding.name(text)), Some(NULL.to_owned())),
        Some(ListPosition::AfterPrefix(text)) => (Some(encoding.name(text)), None),
        None => (None, None),
    };
    let owner = acl::owner(right.bucket(), right.user());
    let (mut versions, mut prefixes) = (Vec::new(), Vec::new());
    let is_truncated = page.next.is_some();
    for entry in page.entries {
        match entry {
            ListEntry::Object(listed) => versions.push(version(listed, encoding, &owner)),
            ListEntry::Prefix(text) => {
                prefixes.push(CommonPrefix { prefix: Some(encoding.name(&text)) });
            }
        }
    }
    Ok(S3Response::new(ListObjectVersionsOutput {
        common_prefixes: Some(prefixes),
        delimiter: query.delimiter.as_deref().map(|text| encoding.name(text)),
        encoding_type: encoding.element(),
        is_truncated: Some(is_truncated),
        key_marker: Some(encoding.name(&marker)),
        max_keys: query.max_keys(),
        name: Some(right.bucket().name.to_string()),
        next_key_marker: next_key,
        next_version_id_marker: next_version,
        prefix: Some(encoding.name(&query.prefix)),
        version_id_marker: Some(version_marker.unwrap_or_default()),
        versions: Some(versions),
        ..ListObjectVersionsOutput::default()
    }))
}

fn version(listed: ListedObject, encoding: NameEncoding, owner: &Owner) -> ObjectVersion {
    let algorithm = listed.checksum_algorithm.and_then(checksum::algorithm_element);
    let class = ObjectVersionStorageClass::STANDARD;
    ObjectVersion {
        checksum_type: algorithm.is_some().then(|| checksum::type_element(listed.checksum_type)),
        checksum_algorithm: algorithm.map(|algorithm| vec![algorithm]),
        e_tag: listed.etag.map(|etag| ETag::Strong(etag.as_str().to_owned())),
        is_latest: Some(true),
        key: Some(encoding.name(&listed.object_key)),
        last_modified: Some(time::timestamp(listed.modified_ms)),
        owner: Some(owner.clone()),
        restore_status: None,
        size: i64::try_from(listed.size).ok(),
        storage_class: Some(ObjectVersionStorageClass::from_static(class)),
        version_id: Some(NULL.to_owned()),
    }
}
