//! The nouns of the engine: ids, names, ranges, what is known of an object.
//!
//! Owns: their bounds and how they are read from text. Knows nothing of: bytes on disk, keys, HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kluis_kms::{CustomerKey, EncryptionContext, TenantKeyId, id16};

use crate::digest::{Checksum, ChecksumType};
use crate::error::{Error, ErrorKind, Result};

id16! {
    /// A bucket. A bucket deleted and made again under the same name is another bucket.
    pub struct BucketId;
}
id16! {
    /// The immutable body of an object version; one data key each.
    pub struct ContentId;
}
id16! {
    /// A tenant's place in RocksDB: the prefix of every row it has.
    pub struct NsId;
}
id16! {
    /// One PUT body or one UploadPart attempt; the unit of key derivation. Random, never reused.
    pub struct StreamId;
}
id16! {
    /// An open multipart upload.
    pub struct UploadId;
}
id16! {
    /// A user of a tenant, as far as the engine cares: the owner written on a bucket.
    pub struct UserId;
}
id16! {
    /// One version of an object. Begins with its creation time in milliseconds (48 bits), so that
    /// ids sort by time.
    pub struct VersionId;
}

/// Plaintext bytes in one chunk: one AEAD message, one unit of a ranged read.
pub const CHUNK_BYTES: u64 = 1 << CHUNK_SHIFT;
/// log2 of [`CHUNK_BYTES`], as written in the format.
pub const CHUNK_SHIFT: u8 = 16;
/// Bytes of an AEAD tag, which follows each chunk.
pub const TAG_BYTES: u64 = 16;
/// Chunks in a full extent, so that an extent holds at most 4 MiB of plaintext. A simulation's are
/// small, so that objects of many extents are cheap; still more than a packed one holds.
pub const EXTENT_CHUNKS: u64 = if cfg!(feature = "sim") { 4 } else { 64 };
/// Plaintext bytes in a full extent.
pub const EXTENT_BYTES: u64 = EXTENT_CHUNKS * CHUNK_BYTES;
/// The longest object key, in bytes (AWS: "Naming Amazon S3 objects").
pub const OBJECT_KEY_BYTES_MAX: usize = 1_024;
/// The largest body of one PUT or one part (AWS: "Amazon S3 multipart upload limits").
pub const PUT_BYTES_MAX: u64 = 5 << 30;
/// The smallest part that is not the last one; a simulation's are small.
pub const PART_BYTES_MIN: u64 = if cfg!(feature = "sim") { 5 << 10 } else { 5 << 20 };
/// The largest part number, and so the most parts of one object.
pub const PART_NUMBER_MAX: u32 = 10_000;
/// The largest object, 5 TiB.
pub const OBJECT_BYTES_MAX: u64 = 5 << 40;

/// A bucket's name, valid by the rules of AWS ("General purpose bucket naming rules").
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(String);

impl BucketName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`]: not 3 to 63 characters of `a-z 0-9 . -`, not starting and ending with
    /// a letter or digit, two dots in a row, shaped like an IPv4 address, or a reserved prefix or
    /// suffix.
    pub fn new(name: &str) -> Result<Self> {
        let bytes = name.as_bytes();
        let alnum =
            |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let charset = bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'));
        let reserved = ["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|p| name.starts_with(p))
            || ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"]
                .iter()
                .any(|s| name.ends_with(s));
        let valid = (3..=63).contains(&bytes.len())
            && charset
            && alnum(bytes.first())
            && alnum(bytes.last())
            && !name.contains("..")
            && name.parse::<std::net::Ipv4Addr>().is_err()
            && !reserved;
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(Error::new(ErrorKind::Misuse, "read a bucket name"))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object's name: any UTF-8 of 1 to [`OBJECT_KEY_BYTES_MAX`] bytes, kept byte for byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks the length of `name`. Nothing is normalised: `//`, `..`, control characters and
    /// leading slashes are parts of a name like any other.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`]: empty, or longer than [`OBJECT_KEY_BYTES_MAX`].
    pub fn new(name: &str) -> Result<Self> {
        if name.is_empty() || name.len() > OBJECT_KEY_BYTES_MAX {
            return Err(Error::new(ErrorKind::Misuse, "read an object key"));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

// Object names stay out of logs: whoever needs one in a message asks for it by name.
impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({} bytes)", self.0.len())
    }
}

/// An ETag without its quotes: 32 lower-case hex digits, and `-N` where it is not an MD5.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(String);

impl ETag {
    /// Takes the text as it is; the quotes of HTTP are the server's business.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Content headers (`content-type`, `cache-control`, …) and user metadata (`x-amz-meta-…`), by
/// their lower-case names. Only ever stored sealed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ObjectHeaders(pub BTreeMap<String, String>);

impl fmt::Debug for ObjectHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectHeaders({} entries)", self.0.len())
    }
}

/// Object tags, in the order given. Only ever stored sealed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tags(pub Vec<(String, String)>);

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tags({} entries)", self.0.len())
    }
}

/// How the caller asked for encryption. The chunks are the same; the reply headers, the ETag rule
/// and what the data key is wrapped with differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SseMode {
    /// `AES256`: the tenant's default key.
    S3,
    /// `aws:kms`: a tenant key by id, with an encryption context. What an unasked PUT gets as well.
    #[default]
    Kms,
    /// A key that the client sends with each request, mixed into the bucket key: what it opens,
    /// opens with both, so that the tenant key still switches it off.
    Customer,
}

/// How a new object is to be encrypted.
#[derive(Clone, Default)]
pub struct SseChoice {
    /// The mode.
    pub mode: SseMode,
    /// The tenant key; the tenant's default where none is named.
    pub tenant_key: Option<TenantKeyId>,
    /// The caller's encryption context, which the data key is bound to.
    pub context: EncryptionContext,
    /// The client's key: there exactly if the mode is [`SseMode::Customer`].
    pub customer_key: Option<Arc<CustomerKey>>,
}

/// A range of plaintext bytes as HTTP asks for it (RFC 9110 §14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `bytes=first-` or `bytes=first-last`, last inclusive.
    From {
        /// The first byte.
        first: u64,
        /// The last byte, or the end.
        last: Option<u64>,
    },
    /// `bytes=-length`: the last bytes.
    Suffix {
        /// How many.
        length: u64,
    },
}

impl RangeSpec {
    /// The bytes of an object of `size` bytes that this names, end exclusive.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRange`]: it names none.
    pub fn resolve(self, size: u64) -> Result<std::ops::Range<u64>> {
        let range = match self {
            Self::From { first, last } => {
                let end = last.map_or(size, |last| last.saturating_add(1).min(size));
                first..end
            }
            Self::Suffix { length } => size.saturating_sub(length)..size,
        };
        if range.start < range.end {
            Ok(range)
        } else {
            Err(Error::new(ErrorKind::InvalidRange, format!("resolve a range in {size} bytes")))
        }
    }
}

/// The conditional headers of a request (RFC 9110 §13, and S3's conditional writes).
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// `If-Match`.
    pub if_match: Option<ETagMatch>,
    /// `If-None-Match`.
    pub if_none_match: Option<ETagMatch>,
    /// `If-Modified-Since`, in Unix milliseconds; compared in whole seconds.
    pub if_modified_since_ms: Option<u64>,
    /// `If-Unmodified-Since`, in Unix milliseconds; compared in whole seconds.
    pub if_unmodified_since_ms: Option<u64>,
    /// `x-amz-if-match-size`: the size that a conditional delete expects.
    pub if_match_size: Option<u64>,
    /// `x-amz-if-match-last-modified-time`, in Unix milliseconds; compared in whole seconds.
    pub if_match_modified_ms: Option<u64>,
}

/// What an `If-Match` or `If-None-Match` header holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ETagMatch {
    /// `*`.
    Any,
    /// One of these, without quotes.
    OneOf(Vec<ETag>),
}

/// One part of an object, as its manifest lists it.
#[derive(Clone, Debug)]
pub struct PartInfo {
    /// The part number that the client gave; 1 for an object that was put whole.
    pub number: u32,
    /// Plaintext bytes.
    pub size: u64,
    /// What is known of the part's bytes.
    pub checksums: Vec<Checksum>,
}

/// What is known of an object version: the answer of HEAD, and the head of a GET.
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    /// The version.
    pub version: VersionId,
    /// Plaintext bytes.
    pub size: u64,
    /// When it was made, in Unix milliseconds.
    pub modified_ms: u64,
    /// The ETag, without quotes.
    pub etag: ETag,
    /// Content headers and user metadata.
    pub headers: ObjectHeaders,
    /// How many tags it has.
    pub tag_count: u32,
    /// Checksums of the whole object.
    pub checksums: Vec<Checksum>,
    /// Whether the checksums are over the bytes or over the parts' checksums.
    pub checksum_type: ChecksumType,
    /// The parts; one for an object that was put whole.
    pub parts: Vec<PartInfo>,
    /// Whether it came from a multipart upload.
    pub multipart: bool,
    /// How encryption was asked for.
    pub sse: SseMode,
    /// The tenant key that its bucket key is wrapped under.
    pub tenant_key: TenantKeyId,
}

/// A bucket.
#[derive(Clone, Debug)]
pub struct BucketInfo {
    /// Its id.
    pub id: BucketId,
    /// Its name.
    pub name: BucketName,
    /// The user that made it.
    pub owner: UserId,
    /// When, in Unix milliseconds.
    pub created_ms: u64,
    /// The ETag rule.
    pub etag_rule: ETagRule,
    /// The location constraint that the creator named, empty for the default.
    pub location: String,
    /// What its configuration says about encryption.
    pub encryption: BucketEncryption,
}

/// What a bucket's configuration says about encryption.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketEncryption {
    /// What a write that names nothing gets, if that is configured.
    pub default: Option<DefaultEncryption>,
    /// Whether writes may bring a client's key.
    pub customer_keys: bool,
}

/// How a bucket's objects are encrypted where a write names nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultEncryption {
    /// The mode: [`SseMode::S3`] or [`SseMode::Kms`].
    pub mode: SseMode,
    /// The tenant key as the owner named it (id, ARN or alias); empty for the tenant's default. It
    /// is resolved at each write, so that an alias may move.
    pub tenant_key: String,
    /// Whether the owner asked for a bucket key. There is one in any case; this is for the owner to
    /// read back.
    pub bucket_key: bool,
}

/// The longest name of a key in a [`DefaultEncryption`] (AWS KMS, `KeyIdType`).
pub const KEY_NAME_BYTES_MAX: usize = 2_048;

/// When an ETag is an MD5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ETagRule {
    /// Where the client sent a Content-MD5 or asked for SSE-S3.
    #[default]
    Auto,
    /// Always.
    Md5,
    /// Never.
    Opaque,
}
