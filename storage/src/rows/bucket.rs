//! Rows of buckets, of their keys, and of tenants' namespaces.

use kluis_kms::{TenantKeyId, WrappedKey};

use super::{Reader, Writer};
use crate::error::Result;
use crate::meta::Family;
use crate::types::{BucketId, BucketInfo, BucketName, ETagRule, NsId, UserId};

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
    value.0
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
    };
    reader.end()?;
    Ok(bucket)
}

/// The value of a `K` row: a wrapped bucket key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BucketKeyRow {
    pub(crate) tenant_key: TenantKeyId,
    pub(crate) created_ms: u64,
    /// Objects that may have been wrapped under it, in steps of the reservation.
    pub(crate) uses: u32,
    pub(crate) wrapped: WrappedKey,
}

impl BucketKeyRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Writer::versioned();
        value.put(self.tenant_key.as_bytes()).u64(self.created_ms).u32(self.uses);
        value.long(self.wrapped.as_bytes());
        value.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::versioned(value, "bucket key row")?;
        let row = Self {
            tenant_key: TenantKeyId::from_bytes(reader.array()?),
            created_ms: reader.u64()?,
            uses: reader.u32()?,
            wrapped: WrappedKey::parse(reader.long()?)?,
        };
        reader.end()?;
        Ok(row)
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
