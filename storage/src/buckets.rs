//! Buckets: make, find, list, delete.
//!
//! Owns: bucket rows. Knows nothing of: who may do what.
//!
//! Invariants
//! - Names are unique within a tenant and mean nothing outside it.
//! - A bucket is deleted only in a commit that finds it empty.

use kluis_kms::Purpose;

use crate::commit::Draft;
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::index::COMMIT_TRIES_MAX;
use crate::meta::{Condition, ScanStep};
use crate::namespace::{Table, TenantNs};
use crate::requests::{BucketPage, CreateBucket, ListBuckets};
use crate::rows::{decode_bucket, encode_bucket};
use crate::types::{
    BucketEncryption, BucketId, BucketInfo, BucketName, KEY_NAME_BYTES_MAX, SseMode,
};

/// Buckets in one page at most (AWS: `max-buckets`).
const PAGE_MAX: usize = 10_000;

impl Engine {
    /// Makes a bucket.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`]: the tenant has one of that name.
    pub async fn create_bucket(
        &self,
        purpose: &Purpose,
        request: CreateBucket,
    ) -> Result<BucketInfo> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        inner.admit(0)?;
        let bucket = BucketInfo {
            id: BucketId::random(&*inner.env.rng),
            name: request.name,
            owner: request.owner,
            created_ms: inner.env.clock.now_ms(),
            etag_rule: request.etag_rule,
            location: request.location,
            encryption: BucketEncryption::default(),
        };
        let row = ns.row(Table::Buckets, &[bucket.name.as_str().as_bytes()]);
        let mut draft = Draft::default();
        draft.expect(row.clone(), None);
        draft.put(row, encode_bucket(&bucket));
        match inner.committer.commit(draft).await {
            Ok(()) => Ok(bucket),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                Err(Error::new(ErrorKind::Exists, "make a bucket"))
            }
            Err(error) => Err(error),
        }
    }

    /// The bucket of that name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: the tenant has none.
    pub async fn head_bucket(&self, purpose: &Purpose, name: &BucketName) -> Result<BucketInfo> {
        let ns = self.inner.tenants.namespace(purpose.tenant)?;
        bucket(&ns, name).await
    }

    /// Says how the bucket's objects are to be encrypted from now on. Those that are there stay as
    /// they are.
    ///
    /// # Errors
    /// - [`ErrorKind::Misuse`]: the default's mode is no mode of a bucket, or its key's name is too
    ///   long.
    /// - [`ErrorKind::NotFound`]: it is gone.
    pub async fn set_bucket_encryption(
        &self,
        purpose: &Purpose,
        bucket: &BucketInfo,
        encryption: BucketEncryption,
    ) -> Result<()> {
        if let Some(default) = &encryption.default {
            let names_key = !default.tenant_key.is_empty();
            let is_mode = match default.mode {
                SseMode::S3 => !names_key,
                SseMode::Kms => default.tenant_key.len() <= KEY_NAME_BYTES_MAX,
                SseMode::Customer => false,
            };
            if !is_mode {
                return Err(Error::new(ErrorKind::Misuse, "configure a bucket's encryption"));
            }
        }
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        for _ in 0..COMMIT_TRIES_MAX {
            let (row, held, mut current) = inner.held_bucket(&ns, bucket).await?;
            current.encryption = encryption.clone();
            let mut draft = Draft::default();
            draft.expect(row.clone(), Some(held));
            draft.put(row, encode_bucket(&current));
            match inner.committer.commit(draft).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                outcome => return outcome,
            }
        }
        Err(Error::new(ErrorKind::Conflict, "commit a bucket's encryption"))
    }

    /// Deletes an empty bucket: this one, and not another that took its name.
    ///
    /// # Errors
    /// - [`ErrorKind::NotEmpty`]: it holds objects or open uploads.
    /// - [`ErrorKind::NotFound`]: it is gone.
    pub async fn delete_bucket(&self, purpose: &Purpose, bucket: &BucketInfo) -> Result<()> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        for _ in 0..COMMIT_TRIES_MAX {
            let draft = inner.draft_of_delete(&ns, bucket).await?;
            match inner.committer.commit(draft).await {
                Ok(()) => {
                    inner.keys.forget(ns.ns(), bucket.id);
                    return Ok(());
                }
                // It was not empty, a key of it or its configuration changed, or it is
                // gone.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Conflict, "commit the end of a bucket"))
    }

    /// A page of the tenant's buckets.
    ///
    /// # Errors
    /// Those of reading metadata.
    pub async fn list_buckets(
        &self,
        purpose: &Purpose,
        request: ListBuckets,
    ) -> Result<BucketPage> {
        let ns = self.inner.tenants.namespace(purpose.tenant)?;
        let limit = request.limit.clamp(1, PAGE_MAX);
        let from = request.after.map_or_else(Vec::new, |after| [after.as_bytes(), &[0]].concat());
        let mut buckets = ns
            .fold(
                Table::Buckets,
                request.prefix.as_bytes(),
                &from,
                Vec::new(),
                move |buckets, rest, value| {
                    buckets.push(decode_bucket(stored_name(rest)?, value)?);
                    Ok(if buckets.len() <= limit { ScanStep::Next } else { ScanStep::Stop })
                },
            )
            .await?;
        let more = buckets.len() > limit;
        buckets.truncate(limit);
        let last = buckets.last().map(|bucket| bucket.name.as_str().to_owned());
        Ok(BucketPage { buckets, next: last.filter(|_| more) })
    }
}

impl Inner {
    /// The commit that deletes a bucket and its keys, if it is empty.
    async fn draft_of_delete(&self, ns: &TenantNs, bucket: &BucketInfo) -> Result<Draft> {
        let id = bucket.id.as_bytes();
        let (row, held, _) = self.held_bucket(ns, bucket).await?;
        let mut draft = Draft::default();
        draft.delete_held(row, held);
        for table in [Table::Objects, Table::Multipart] {
            // Mostly found here, and not on the thread that all commits share.
            if has_row(ns, table, id).await? {
                return Err(Error::new(ErrorKind::NotEmpty, "delete a bucket"));
            }
            let prefix = ns.row(table, &[id]);
            draft.conditions.push(Condition::RowsUnder { prefix, count: 0 });
        }
        crate::bucket_keys::delete_all(ns, bucket.id, &mut draft).await?;
        Ok(draft)
    }
}

async fn has_row(ns: &TenantNs, table: Table, prefix: &[u8]) -> Result<bool> {
    ns.fold(table, prefix, &[], false, |found, _, _| {
        *found = true;
        Ok(ScanStep::Stop)
    })
    .await
}

async fn bucket(ns: &TenantNs, name: &BucketName) -> Result<BucketInfo> {
    let value = ns.get(Table::Buckets, &[name.as_str().as_bytes()]).await?;
    let value = value.ok_or_else(|| Error::new(ErrorKind::NotFound, "find a bucket"))?;
    decode_bucket(name.clone(), &value)
}

fn stored_name(rest: &[u8]) -> Result<BucketName> {
    std::str::from_utf8(rest)
        .ok()
        .and_then(|name| BucketName::new(name).ok())
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "read a bucket's name"))
}
