//! Rows of buckets, of their keys, and of tenants' namespaces.

use kluis_kms::{TenantKeyId, WrappedKey};

use super::object::encode_sse;
use super::{Reader, Writer};
use crate::error::Result;
use crate::meta::Family;
use crate::types::{
    BucketEncryption, BucketId, BucketInfo, BucketName, DefaultEncryption, ETagRule, NsId, SseMode,
    UserId,
};

/// The flag of a bucket whose owner asked for a bucket key.
const BUCKET_KEY: u8 = 1;
/// The flag of a bucket that takes clients' keys.
const CUSTOMER_KEYS: u8 = 2;

/// The value of a `B` row; the name is its key.
pub(crate) fn encode_bucket(bucket: &BucketInfo) -> Vec<u8> {
    let mut value = Writer::versioned();
    let rule = match bucket.etag_rule {
        ETagRule::Auto => 0,
        ETagRule::Md5 => 1,
        ETagRule::Opaque => 2,
    };
    value.put(bucket.id.as_bytes()).put(bucket.owner.as_bytes()).u64(bucket.created_ms);
    value.u8(rule).text(&bucket.location);
    encode_encryption(&mut value, &bucket.encryption);
    value.0
}

/// A configuration that says nothing is nothing, as in the rows of before there were any.
fn encode_encryption(value: &mut Writer, encryption: &BucketEncryption) {
    if *encryption == BucketEncryption::default() {
        return;
    }
    let default = encryption.default.as_ref();
    let flag = |set: bool, flag| if set { flag } else { 0 };
    value.u8(default.map_or(0, |default| encode_sse(default.mode)));
    value.u8(flag(default.is_some_and(|default| default.bucket_key), BUCKET_KEY)
        | flag(encryption.customer_keys, CUSTOMER_KEYS));
    value.text(default.map_or("", |default| &default.tenant_key));
}

fn decode_encryption(reader: &mut Reader<'_>) -> Result<BucketEncryption> {
    if reader.is_empty() {
        return Ok(BucketEncryption::default());
    }
    let mode = match reader.u8()? {
        0 => None,
        1 => Some(SseMode::S3),
        2 => Some(SseMode::Kms),
        _ => return Err(reader.corrupt("an unknown default encryption")),
    };
    let flags = reader.u8()?;
    let tenant_key = reader.text()?;
    let bucket_key = flags & BUCKET_KEY != 0;
    if flags & !(BUCKET_KEY | CUSTOMER_KEYS) != 0 {
        return Err(reader.corrupt("unknown encryption flags"));
    }
    if mode != Some(SseMode::Kms) && !tenant_key.is_empty() || mode.is_none() && bucket_key {
        return Err(reader.corrupt("a key of no default encryption"));
    }
    let default = mode.map(|mode| DefaultEncryption { mode, tenant_key, bucket_key });
    let encryption = BucketEncryption { default, customer_keys: flags & CUSTOMER_KEYS != 0 };
    if encryption == BucketEncryption::default() {
        return Err(reader.corrupt("an encryption that says nothing"));
    }
    Ok(encryption)
}

/// The bucket called `name` from its row.
pub(crate) fn decode_bucket(name: BucketName, value: &[u8]) -> Result<BucketInfo> {
    let mut reader = Reader::versioned(value, "bucket row")?;
    let bucket = BucketInfo {
        id: BucketId::from_bytes(reader.array()?),
        name,
        owner: UserId::from_bytes(reader.array()?),
        created_ms: reader.u64()?,
        etag_rule: match reader.u8()? {
            0 => ETagRule::Auto,
            1 => ETagRule::Md5,
            2 => ETagRule::Opaque,
            _ => return Err(reader.corrupt("an unknown ETag rule")),
        },
        location: reader.text()?,
        encryption: decode_encryption(&mut reader)?,
    };
    reader.end()?;
    Ok(bucket)
}

/// The version byte of a `K` row that an index row stands for.
const INDEXED: u8 = 2;
/// As [`INDEXED`], of an epoch that takes no new objects any more.
const CLOSED: u8 = 3;

/// The value of a `K` row: a wrapped bucket key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BucketKeyRow {
    pub(crate) tenant_key: TenantKeyId,
    pub(crate) created_ms: u64,
    /// Objects that may have been wrapped under it, in steps of the reservation.
    pub(crate) uses: u32,
    /// The tenant key's material when this bucket key was made; a rewrap does not change it.
    pub(crate) born_material: u32,
    /// Whether an index row stands for it: builds before the index wrote none.
    pub(crate) is_indexed: bool,
    /// Whether it takes no new objects any more, because a re-encryption moves what is under it.
    /// Never without `is_indexed`.
    pub(crate) is_closed: bool,
    /// Gone once the tenant key was destroyed: the row then only keeps its number from being used
    /// again.
    pub(crate) wrapped: Option<WrappedKey>,
}

impl BucketKeyRow {
    /// The material that it is wrapped under now.
    pub(crate) fn material(&self) -> Option<u32> {
        self.wrapped.as_ref().map(WrappedKey::wrapping_version)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = match (self.is_indexed, self.is_closed) {
            (false, _) => Writer::versioned(),
            (true, false) => Writer(vec![INDEXED]),
            (true, true) => Writer(vec![CLOSED]),
        };
        value.put(self.tenant_key.as_bytes()).u64(self.created_ms).u32(self.uses);
        if self.is_indexed {
            value.u32(self.born_material);
        }
        value.long(self.wrapped.as_ref().map_or(&[][..], WrappedKey::as_bytes));
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let is_closed = value.first() == Some(&CLOSED);
        let is_indexed = is_closed || value.first() == Some(&INDEXED);
        let mut reader = if is_indexed {
            let mut reader = Reader::new(value, "bucket key row");
            reader.u8()?;
            reader
        } else {
            Reader::versioned(value, "bucket key row")?
        };
        let tenant_key = TenantKeyId::from_bytes(reader.array()?);
        let (created_ms, uses) = (reader.u64()?, reader.u32()?);
        let born_material = if is_indexed { Some(reader.u32()?) } else { None };
        let wrapped = match reader.long()? {
            [] if is_indexed => None,
            bytes => Some(WrappedKey::parse(bytes)?),
        };
        // Before the index nothing was ever wrapped anew.
        let first = || wrapped.as_ref().map_or(0, WrappedKey::wrapping_version);
        let born_material = born_material.unwrap_or_else(first);
        reader.end()?;
        Ok(Self { tenant_key, created_ms, uses, born_material, is_indexed, is_closed, wrapped })
    }
}

/// The value of a tenant's row in `sys`: where its namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceRow {
    pub(crate) ns: NsId,
    pub(crate) family: Family,
    pub(crate) created_ms: u64,
}

impl NamespaceRow {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (kind, index) = match self.family {
            Family::Pooled(index) => (0, index),
            _ => (1, 0),
        };
        let mut value = Writer::versioned();
        value.put(self.ns.as_bytes()).u8(kind).u8(index).u64(self.created_ms);
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::versioned(value, "namespace row")?;
        let ns = NsId::from_bytes(reader.array()?);
        let family = match (reader.u8()?, reader.u8()?) {
            (0, index) => Family::Pooled(index),
            (1, 0) => Family::Dedicated(ns),
            _ => return Err(reader.corrupt("an unknown family")),
        };
        let row = Self { ns, family, created_ms: reader.u64()? };
        reader.end()?;
        Ok(row)
    }
}
