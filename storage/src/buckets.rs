//! Buckets: make, find, list, delete.
//!
//! Owns: bucket rows. Knows nothing of: who may do what.
//!
//! Invariants
//! - Names are unique within a tenant and mean nothing outside it.
//! - A bucket is deleted only in a commit that finds it empty.

use kluis_kms::Purpose;

use crate::commit::Draft;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Condition, ScanStep};
use crate::namespace::{Table, TenantNs};
use crate::requests::{BucketPage, CreateBucket, ListBuckets};
use crate::rows::{decode_bucket, encode_bucket};
use crate::types::{BucketId, BucketInfo, BucketName};

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

    /// Deletes an empty bucket: this one, and not another that took its name.
    ///
    /// # Errors
    /// - [`ErrorKind::NotEmpty`]: it holds objects or open uploads.
    /// - [`ErrorKind::NotFound`]: it is gone.
    pub async fn delete_bucket(&self, purpose: &Purpose, bucket: &BucketInfo) -> Result<()> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        let id = bucket.id.as_bytes();
        let mut draft = Draft::default();
        let row = ns.row(Table::Buckets, &[bucket.name.as_str().as_bytes()]);
        draft.delete_held(row, encode_bucket(bucket).into());
        for table in [Table::Objects, Table::Multipart] {
            // Mostly found here, and not on the thread that all commits share.
            if has_row(&ns, table, id).await? {
                inner.in_bucket(&ns, bucket).await?;
                return Err(Error::new(ErrorKind::NotEmpty, "delete a bucket"));
            }
            let prefix = ns.row(table, &[id]);
            draft.conditions.push(Condition::RowsUnder { prefix, count: 0 });
        }
        let keys = ns
            .fold(Table::BucketKeys, id, &[], Vec::new(), |keys, rest, _| {
                keys.push(rest.to_vec());
                Ok(ScanStep::Next)
            })
            .await?;
        for rest in keys {
            let row = ns.row(Table::BucketKeys, &[&rest]);
            draft.changes.push(crate::meta::Change::Delete { row });
        }
        match inner.committer.commit(draft).await {
            Ok(()) => {
                inner.keys.forget(ns.ns(), bucket.id);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                // Either it was not empty, or somebody else deleted it first.
                inner.in_bucket(&ns, bucket).await?;
                Err(Error::new(ErrorKind::NotEmpty, "delete a bucket"))
            }
            Err(error) => Err(error),
        }
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
