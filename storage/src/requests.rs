//! What each verb is asked and what it answers. One struct each way; no logic.

use std::ops::Range;
use std::sync::Arc;

use kluis_kms::{CustomerKey, Purpose, TenantKeyId};

use crate::body::Body;
use crate::digest::{Checksum, ChecksumAlgorithm, ChecksumType};
use crate::get::ObjectReader;
use crate::types::{
    BucketInfo, BucketName, Conditions, ETag, ETagRule, ObjectHeaders, ObjectInfo, ObjectKey,
    RangeSpec, SseChoice, SseMode, Tags, UploadId, UserId, VersionId,
};

/// Makes a bucket.
#[derive(Clone, Debug)]
pub struct CreateBucket {
    /// Its name, unique within the tenant.
    pub name: BucketName,
    /// The user that will own it.
    pub owner: UserId,
    /// The location constraint to remember.
    pub location: String,
    /// When its ETags are MD5s.
    pub etag_rule: ETagRule,
}

/// Asks for a page of buckets.
#[derive(Clone, Debug, Default)]
pub struct ListBuckets {
    /// Only names that start with this.
    pub prefix: String,
    /// Only names after this one.
    pub after: Option<String>,
    /// At most this many, 1 to 10,000.
    pub limit: usize,
}

/// A page of buckets in byte order of their names.
#[derive(Clone, Debug)]
pub struct BucketPage {
    /// The buckets.
    pub buckets: Vec<BucketInfo>,
    /// Ask again after this name; `None` on the last page.
    pub next: Option<String>,
}

/// Stores one object whole.
pub struct PutRequest<'a> {
    /// Where.
    pub bucket: &'a BucketInfo,
    /// Under which name.
    pub object_key: &'a ObjectKey,
    /// Content headers and user metadata.
    pub headers: ObjectHeaders,
    /// Tags.
    pub tags: Tags,
    /// How it is to be encrypted.
    pub sse: SseChoice,
    /// What must hold at the commit.
    pub conditions: Conditions,
    /// The plaintext.
    pub body: Box<dyn Body>,
}

/// An object version was stored and is durable.
#[derive(Clone, Debug)]
pub struct PutReceipt {
    /// The new version.
    pub version: VersionId,
    /// Its ETag.
    pub etag: ETag,
    /// Plaintext bytes.
    pub size: u64,
    /// When, in Unix milliseconds.
    pub modified_ms: u64,
    /// What is known of the bytes.
    pub checksums: Vec<Checksum>,
    /// What the checksums are over.
    pub checksum_type: ChecksumType,
    /// How encryption was asked for.
    pub sse: SseMode,
    /// The tenant key it is under.
    pub tenant_key: TenantKeyId,
}

/// Reads an object, or what is known of it.
#[derive(Clone)]
pub struct GetRequest<'a> {
    /// Where.
    pub bucket: &'a BucketInfo,
    /// Which.
    pub object_key: &'a ObjectKey,
    /// What must hold.
    pub conditions: Conditions,
    /// Only these bytes. Not together with `part_number`.
    pub range: Option<RangeSpec>,
    /// Only this part.
    pub part_number: Option<u32>,
    /// The key that the client sent: needed for, and only for, [`SseMode::Customer`].
    pub customer_key: Option<Arc<CustomerKey>>,
}

/// An object being read.
pub struct GetReply {
    /// What is known of it.
    pub info: ObjectInfo,
    /// The bytes that `body` yields, of the whole object.
    pub range: Range<u64>,
    /// The plaintext, verified chunk by chunk.
    pub body: ObjectReader,
}

/// Deletes an object.
#[derive(Clone, Debug)]
pub struct DeleteRequest<'a> {
    /// Where.
    pub bucket: &'a BucketInfo,
    /// Which.
    pub object_key: &'a ObjectKey,
    /// What must hold at the commit.
    pub conditions: Conditions,
}

/// The object is gone, durably.
#[derive(Clone, Copy, Debug)]
pub struct DeleteReceipt {
    /// Whether there was one.
    pub existed: bool,
}

/// Copies an object inside a tenant.
pub struct CopyRequest<'a> {
    /// From where, and which.
    pub source: (&'a BucketInfo, &'a ObjectKey),
    /// Why the source is read, with the rights to its bucket's keys; of the copy's own tenant.
    pub source_purpose: &'a Purpose,
    /// What must hold of the source.
    pub source_conditions: Conditions,
    /// The key that the client sent for the source.
    pub source_customer_key: Option<Arc<CustomerKey>>,
    /// Where to.
    pub bucket: &'a BucketInfo,
    /// Under which name.
    pub object_key: &'a ObjectKey,
    /// New headers and metadata, or `None` to keep the source's.
    pub headers: Option<ObjectHeaders>,
    /// New tags, or `None` to keep the source's.
    pub tags: Option<Tags>,
    /// How it is to be encrypted.
    pub sse: SseChoice,
    /// What must hold of the destination at the commit.
    pub conditions: Conditions,
    /// A checksum that the copy must have; one that the source lacks makes the copy read its bytes.
    pub checksum: Option<ChecksumAlgorithm>,
    /// Whether the bytes are to be encrypted anew in any case, under a new data key.
    pub reencrypt: bool,
}

/// Asks for a page of a listing.
#[derive(Clone, Debug)]
pub struct ListRequest<'a> {
    /// Of which bucket.
    pub bucket: &'a BucketInfo,
    /// Only names that start with this.
    pub prefix: String,
    /// Names that share what follows the prefix up to this are one common prefix.
    pub delimiter: Option<String>,
    /// Where to go on.
    pub after: Option<ListPosition>,
    /// At most this many entries, 0 to 1,000.
    pub limit: usize,
}

/// A place in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListPosition {
    /// After this name.
    AfterKey(String),
    /// After every name that starts with this.
    AfterPrefix(String),
}

/// A page of a listing, in byte order.
#[derive(Clone, Debug)]
pub struct ListPage {
    /// Objects and common prefixes, interleaved as they sort.
    pub entries: Vec<ListEntry>,
    /// Where to go on; `None` when nothing follows.
    pub next: Option<ListPosition>,
}

/// A line of a listing.
#[derive(Clone, Debug)]
pub enum ListEntry {
    /// An object.
    Object(ListedObject),
    /// A common prefix, delimiter included.
    Prefix(String),
}

/// What a listing shows of an object. ETag and checksum are empty when the tenant key is not
/// usable: listing never fails for one object's key.
#[derive(Clone, Debug)]
pub struct ListedObject {
    /// Its name.
    pub object_key: String,
    /// Plaintext bytes.
    pub size: u64,
    /// When it was made, in Unix milliseconds.
    pub modified_ms: u64,
    /// Its ETag.
    pub etag: Option<ETag>,
    /// Which checksum it carries.
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
    /// What that checksum is over.
    pub checksum_type: ChecksumType,
}

/// Begins a multipart upload.
#[derive(Clone)]
pub struct CreateUpload<'a> {
    /// Where.
    pub bucket: &'a BucketInfo,
    /// Under which name.
    pub object_key: &'a ObjectKey,
    /// Content headers and user metadata of the object to be.
    pub headers: ObjectHeaders,
    /// Its tags.
    pub tags: Tags,
    /// How it is to be encrypted.
    pub sse: SseChoice,
    /// The checksum that the object will carry.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

/// An open upload.
#[derive(Clone, Debug)]
pub struct UploadInfo {
    /// Its id.
    pub upload: UploadId,
    /// When it began, in Unix milliseconds.
    pub initiated_ms: u64,
    /// The checksum that the object will carry.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// How encryption was asked for.
    pub sse: SseMode,
    /// The tenant key it is under.
    pub tenant_key: TenantKeyId,
}

/// Stores one part.
pub struct UploadPart<'a> {
    /// Of an upload in this bucket,
    pub bucket: &'a BucketInfo,
    /// for this name,
    pub object_key: &'a ObjectKey,
    /// with this id.
    pub upload: UploadId,
    /// 1 to [`crate::types::PART_NUMBER_MAX`]; a number sent again replaces the part.
    pub part_number: u32,
    /// The key that the client sent: the one that the upload was begun with.
    pub customer_key: Option<Arc<CustomerKey>>,
    /// The plaintext.
    pub body: Box<dyn Body>,
}

/// Stores one part from bytes that the tenant has already.
pub struct UploadPartCopy<'a> {
    /// From where, and which.
    pub source: (&'a BucketInfo, &'a ObjectKey),
    /// Why the source is read, with the rights to its bucket's keys; of the upload's own tenant.
    pub source_purpose: &'a Purpose,
    /// What must hold of the source.
    pub source_conditions: Conditions,
    /// The key that the client sent for the source.
    pub source_customer_key: Option<Arc<CustomerKey>>,
    /// Only these bytes of the source.
    pub range: Option<RangeSpec>,
    /// Of an upload in this bucket,
    pub bucket: &'a BucketInfo,
    /// for this name,
    pub object_key: &'a ObjectKey,
    /// with this id.
    pub upload: UploadId,
    /// 1 to [`crate::types::PART_NUMBER_MAX`].
    pub part_number: u32,
    /// The key that the client sent: the one that the upload was begun with.
    pub customer_key: Option<Arc<CustomerKey>>,
}

/// A part was stored and is durable.
#[derive(Clone, Debug)]
pub struct PartReceipt {
    /// Its ETag.
    pub etag: ETag,
    /// Plaintext bytes.
    pub size: u64,
    /// When, in Unix milliseconds.
    pub modified_ms: u64,
    /// What is known of the bytes.
    pub checksums: Vec<Checksum>,
    /// How encryption was asked for.
    pub sse: SseMode,
    /// The tenant key it is under.
    pub tenant_key: TenantKeyId,
}

/// Makes an object of parts.
#[derive(Clone)]
pub struct CompleteUpload<'a> {
    /// Of an upload in this bucket,
    pub bucket: &'a BucketInfo,
    /// for this name,
    pub object_key: &'a ObjectKey,
    /// with this id.
    pub upload: UploadId,
    /// The parts, in ascending order of their numbers.
    pub parts: Vec<CompletedPart>,
    /// The checksum that the client expects of the whole object.
    pub checksum: Option<Checksum>,
    /// The size that the client expects.
    pub size: Option<u64>,
    /// The key that the client sent: the one that the upload was begun with.
    pub customer_key: Option<Arc<CustomerKey>>,
    /// What must hold at the commit.
    pub conditions: Conditions,
}

/// A part as CompleteMultipartUpload names it.
#[derive(Clone, Debug)]
pub struct CompletedPart {
    /// Its number.
    pub number: u32,
    /// The ETag that UploadPart answered.
    pub etag: ETag,
    /// Checksums that the client names for it; each must agree with the stored one.
    pub checksums: Vec<Checksum>,
}

/// A page of an upload's parts, by number.
#[derive(Clone, Debug)]
pub struct PartPage {
    /// The upload.
    pub upload: UploadInfo,
    /// The parts.
    pub parts: Vec<PartEntry>,
    /// Ask again after this number; `None` on the last page.
    pub next: Option<u32>,
}

/// A stored part.
#[derive(Clone, Debug)]
pub struct PartEntry {
    /// Its number.
    pub number: u32,
    /// Plaintext bytes.
    pub size: u64,
    /// When, in Unix milliseconds.
    pub modified_ms: u64,
    /// Its ETag.
    pub etag: ETag,
    /// What is known of its bytes.
    pub checksums: Vec<Checksum>,
}

/// Asks for a page of open uploads.
#[derive(Clone, Debug)]
pub struct ListUploads<'a> {
    /// Of which bucket.
    pub bucket: &'a BucketInfo,
    /// Only names that start with this.
    pub prefix: String,
    /// As in [`ListRequest::delimiter`].
    pub delimiter: Option<String>,
    /// After this name, and after this upload of it; without an upload, after every one of it.
    pub after: Option<(String, Option<UploadId>)>,
    /// At most this many entries, 0 to 1,000.
    pub limit: usize,
}

/// A page of open uploads, by name and then by age.
#[derive(Clone, Debug)]
pub struct UploadPage {
    /// Uploads and common prefixes, interleaved as they sort.
    pub entries: Vec<UploadEntry>,
    /// Where to go on; `None` when nothing follows.
    pub next: Option<(String, Option<UploadId>)>,
}

/// A line of a listing of uploads.
#[derive(Clone, Debug)]
pub enum UploadEntry {
    /// An open upload.
    Upload {
        /// The name of the object to be.
        object_key: String,
        /// The upload.
        info: UploadInfo,
    },
    /// A common prefix, delimiter included.
    Prefix(String),
}
