//! ListObjects, old and new.
//!
//! Owns: markers, tokens, page sizes and how entries are written. Knows nothing of: the order of
//! names; the engine yields them in byte order, prefixes among them.
//!
//! Invariants
//! - `IsTruncated` says what the engine says about the place it stopped at, never how many entries
//!   there are.
//! - No entry is made up: what is listed is an object or a common prefix of one.

use kluis_storage::{BucketInfo, ListEntry, ListPage, ListPosition, ListRequest, ListedObject};
use s3s::S3Response;
use s3s::dto::{
    CommonPrefix, ETag, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object, ObjectStorageClass, Owner,
};

use super::encoding::NameEncoding;
use super::error::{Answer, Subject};
use super::headers::page_size;
use super::{Call, S3Api, acl, checksum, time, token};
use crate::policy::{self, Authorised, Operation};

/// What is listed, as far as all three listings of objects agree.
pub(super) struct Query {
    pub(super) prefix: String,
    pub(super) delimiter: Option<String>,
    pub(super) limit: usize,
}

impl Query {
    /// An empty delimiter is none.
    pub(super) fn new(
        prefix: Option<&String>,
        delimiter: Option<&String>,
        max_keys: Option<i32>,
    ) -> Answer<Self> {
        Ok(Self {
            prefix: prefix.cloned().unwrap_or_default(),
            delimiter: delimiter.filter(|text| !text.is_empty()).cloned(),
            limit: page_size("max-keys", max_keys)?,
        })
    }

    /// The place that a marker means. One that is a common prefix of this listing was the last
    /// entry of a page, and the names under it are not listed again.
    pub(super) fn after(&self, marker: &str) -> Option<ListPosition> {
        if marker.is_empty() {
            return None;
        }
        let is_prefix = self.delimiter.as_deref().is_some_and(|delimiter| {
            let tail = marker.strip_prefix(self.prefix.as_str());
            let inner = tail.and_then(|tail| tail.strip_suffix(delimiter));
            inner.is_some_and(|inner| !inner.contains(delimiter))
        });
        let marker = marker.to_owned();
        Some(if is_prefix {
            ListPosition::AfterPrefix(marker)
        } else {
            ListPosition::AfterKey(marker)
        })
    }

    /// Asks the engine. A page of no entries is empty and is the last one, as with AWS.
    pub(super) async fn page<Op: Operation<Target = BucketInfo>>(
        &self,
        api: &S3Api,
        right: &Authorised<Op>,
        after: Option<ListPosition>,
    ) -> Answer<ListPage> {
        if self.limit == 0 {
            return Ok(ListPage { entries: Vec::new(), next: None });
        }
        let request = ListRequest {
            bucket: right.bucket(),
            prefix: self.prefix.clone(),
            delimiter: self.delimiter.clone(),
            after,
            limit: self.limit,
        };
        let page = api.engine.list(right.purpose(), request).await;
        page.map_err(|cause| Subject::Bucket.failed(&cause))
    }

    /// The page size as a reply shows it.
    pub(super) fn max_keys(&self) -> Option<i32> {
        i32::try_from(self.limit).ok()
    }
}

/// A page in the two lists that a reply has.
struct Lines {
    objects: Vec<Object>,
    prefixes: Vec<CommonPrefix>,
}

impl Lines {
    fn new(entries: Vec<ListEntry>, encoding: NameEncoding, owner: Option<&Owner>) -> Self {
        let mut lines = Self { objects: Vec::new(), prefixes: Vec::new() };
        for entry in entries {
            match entry {
                ListEntry::Object(listed) => {
                    lines.objects.push(object(listed, encoding, owner.cloned()));
                }
                ListEntry::Prefix(text) => {
                    lines.prefixes.push(CommonPrefix { prefix: Some(encoding.name(&text)) });
                }
            }
        }
        lines
    }

    fn count(&self) -> Option<i32> {
        i32::try_from(self.objects.len() + self.prefixes.len()).ok()
    }
}

fn object(listed: ListedObject, encoding: NameEncoding, owner: Option<Owner>) -> Object {
    let algorithm = listed.checksum_algorithm.and_then(checksum::algorithm_element);
    Object {
        checksum_type: algorithm.is_some().then(|| checksum::type_element(listed.checksum_type)),
        checksum_algorithm: algorithm.map(|algorithm| vec![algorithm]),
        e_tag: listed.etag.map(|etag| ETag::Strong(etag.as_str().to_owned())),
        key: Some(encoding.name(&listed.object_key)),
        last_modified: Some(time::timestamp(listed.modified_ms)),
        owner,
        restore_status: None,
        size: i64::try_from(listed.size).ok(),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
    }
}

/// Answers ListObjects.
pub(super) async fn list_objects(
    api: &S3Api,
    call: Call<ListObjectsInput>,
) -> Answer<S3Response<ListObjectsOutput>> {
    let input = &call.input;
    let right = api.on_bucket::<policy::ListBucket, _>(&call, &input.bucket).await?;
    let encoding = NameEncoding::read(input.encoding_type.as_ref())?;
    let query = Query::new(input.prefix.as_ref(), input.delimiter.as_ref(), input.max_keys)?;
    let marker = input.marker.clone().unwrap_or_default();
    let page = query.page(api, &right, query.after(&marker)).await?;
    // AWS names the next marker only where it is not the last object of the page.
    let next = page.next.as_ref().filter(|_| query.delimiter.is_some()).map(|next| match next {
        ListPosition::AfterKey(text) | ListPosition::AfterPrefix(text) => encoding.name(text),
    });
    let is_truncated = page.next.is_some();
    let owner = acl::owner(right.bucket(), right.user());
    let lines = Lines::new(page.entries, encoding, Some(&owner));
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(right.bucket().name.to_string()),
        prefix: Some(encoding.name(&query.prefix)),
        marker: Some(encoding.name(&marker)),
        max_keys: query.max_keys(),
        is_truncated: Some(is_truncated),
        contents: Some(lines.objects),
        common_prefixes: Some(lines.prefixes),
        delimiter: query.delimiter.as_deref().map(|text| encoding.name(text)),
        next_marker: next,
        encoding_type: encoding.element(),
        request_charged: None,
    }))
}

/// Answers ListObjectsV2.
pub(super) async fn list_objects_v2(
    api: &S3Api,
    call: Call<ListObjectsV2Input>,
) -> Answer<S3Response<ListObjectsV2Output>> {
    let input = &call.input;
    let right = api.on_bucket::<policy::ListBucket, _>(&call, &input.bucket).await?;
    let encoding = NameEncoding::read(input.encoding_type.as_ref())?;
    let query = Query::new(input.prefix.as_ref(), input.delimiter.as_ref(), input.max_keys)?;
    // A token goes on where the last page stopped and overrules `start-after`.
    let after = match input.continuation_token.as_deref() {
        None | Some("") => {
            input.start_after.clone().filter(|text| !text.is_empty()).map(ListPosition::AfterKey)
        }
        Some(text) => Some(token::position(text)?),
    };
    let page = query.page(api, &right, after).await?;
    let next = page.next.as_ref().map(token::of_position);
    let owner =
        input.fetch_owner.unwrap_or(false).then(|| acl::owner(right.bucket(), right.user()));
    let lines = Lines::new(page.entries, encoding, owner.as_ref());
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(right.bucket().name.to_string()),
        prefix: Some(encoding.name(&query.prefix)),
        max_keys: query.max_keys(),
        key_count: lines.count(),
        continuation_token: input.continuation_token.clone(),
        is_truncated: Some(next.is_some()),
        next_continuation_token: next,
        contents: Some(lines.objects),
        common_prefixes: Some(lines.prefixes),
        delimiter: query.delimiter.as_deref().map(|text| encoding.name(text)),
        encoding_type: encoding.element(),
        start_after: input.start_after.as_deref().map(|text| encoding.name(text)),
        request_charged: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(prefix: &str, delimiter: &str) -> Query {
        Query::new(Some(&prefix.to_owned()), Some(&delimiter.to_owned()), None).unwrap()
    }

    #[test]
    fn a_marker_that_is_a_common_prefix_skips_its_names() {
        let key = |text: &str| Some(ListPosition::AfterKey(text.to_owned()));
        let prefix = |text: &str| Some(ListPosition::AfterPrefix(text.to_owned()));
        for (listing, delimiter, marker, want) in [
            ("", "", "a/", key("a/")),
            ("", "/", "a/", prefix("a/")),
            ("", "/", "a/b", key("a/b")),
            ("", "/", "a/b/", key("a/b/")),
            ("a/", "/", "a/b/", prefix("a/b/")),
            ("a/", "/", "a/", key("a/")),
            ("x/", "/", "a/", key("a/")),
            ("", "--", "a--", prefix("a--")),
            ("", "/", "", None),
        ] {
            assert_eq!(query(listing, delimiter).after(marker), want, "{listing} {marker}");
        }
    }

    #[test]
    fn entries_go_into_their_lists_encoded() {
        let listed = ListedObject {
            object_key: "a b".to_owned(),
            size: 7,
            modified_ms: 1_500,
            etag: Some(kluis_storage::ETag::new("abc-1")),
            checksum_algorithm: Some(kluis_storage::ChecksumAlgorithm::Crc64Nvme),
            checksum_type: kluis_storage::ChecksumType::FullObject,
        };
        let entries = vec![ListEntry::Prefix("p+/".to_owned()), ListEntry::Object(listed)];
        let lines = Lines::new(entries, NameEncoding::Url, None);
        assert_eq!(lines.count(), Some(2));
        assert_eq!(lines.prefixes[0].prefix.as_deref(), Some("p%2B/"));
        let object = &lines.objects[0];
        assert_eq!(object.key.as_deref(), Some("a%20b"));
        assert_eq!(object.size, Some(7));
        assert_eq!(object.e_tag, Some(ETag::Strong("abc-1".to_owned())));
        assert!(object.owner.is_none() && object.checksum_algorithm.is_some());
    }
}
