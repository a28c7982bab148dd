//! What depends on a tenant key, counted from the rows; and the end of a material that nothing is
//! under.
//!
//! Owns: the counts, and when they prove that a material may go. Knows nothing of: jobs.
//!
//! Invariants
//! - Counts are of rows, not of counters: nothing can drift.
//! - A material is erased only after the fence, the index and a scan of every bucket key agree that
//!   nothing is under it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kluis_kms::{BucketKeyPurpose, Purpose, TenantId, TenantKeyId};

use super::KeyImpact;
use super::run::PAGE_ROWS;
use super::scan::{BucketKeyPages, page};
use crate::bucket_keys::material_prefix;
use crate::commit::Draft;
use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::namespace::{Table, TenantNs, blocking};
use crate::rows::{ObjectRow, UploadRow};
use crate::types::{BucketId, BucketInfo, SseMode};

/// What is under a key, by the rows.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) bucket_keys: BTreeMap<u32, u64>,
    pub(super) buckets: u64,
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) open_uploads: u64,
    /// Rows that do not decode: what is under them is not known.
    pub(super) damaged: u64,
}

impl Engine {
    /// Counts what depends on a key.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: the tenant has no such key.
    pub async fn key_impact(&self, purpose: &Purpose, key: TenantKeyId) -> Result<KeyImpact> {
        let _one_at_a_time = self.inner.jobs.scan_of(purpose.tenant).await;
        self.inner.impact(purpose.tenant, key).await
    }

    /// Erases a material, if index, fence and a verifying scan all say that nothing is under it.
    /// API ciphertexts under it need `force`.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: something is under it; the text counts what.
    /// - [`ErrorKind::Corrupt`]: a bucket key's row does not decode, so it is not known what is
    ///   under it.
    /// - [`ErrorKind::NotFound`]: no such key or material.
    pub async fn retire_material(
        &self,
        purpose: &Purpose,
        key: TenantKeyId,
        material: u32,
        force: bool,
    ) -> Result<()> {
        let inner = &self.inner;
        let ns = inner.tenants.namespace(purpose.tenant)?;
        let current = inner.kms.describe(purpose.tenant, key)?.current_material;
        if material >= current {
            let what = format!("retire material {material}: the current one is {current}");
            return Err(Error::new(ErrorKind::Conflict, what).with_advice("rotate the key first"));
        }
        let one_at_a_time = inner.jobs.scan_of(purpose.tenant).await;
        inner.fence(&ns, key).await?;
        let indexed = index_count(&ns, key, material).await?;
        let (mut found, mut damaged) = (0_u64, 0);
        let mut pages = BucketKeyPages::new(&ns);
        while let Some(page) = pages.next().await? {
            let under = |row: &crate::rows::BucketKeyRow| {
                row.tenant_key == key && row.material() == Some(material)
            };
            found += page.rows.iter().filter(|(_, _, row)| under(row)).count() as u64;
            damaged += page.damaged;
        }
        drop(one_at_a_time);
        if damaged > 0 {
            let what = format!("retire material {material}: {damaged} bucket keys do not decode");
            return Err(Error::new(ErrorKind::Corrupt, what).with_advice("run `kluis check`"));
        }
        let ciphertexts = inner.kms.api_ciphertexts(purpose.tenant, key)?;
        let ciphertexts = ciphertexts.iter().find(|(number, _)| *number == material);
        let ciphertexts = ciphertexts.map_or(0, |(_, count)| *count);
        if indexed > 0 || found > 0 || (ciphertexts > 0 && !force) {
            let what = format!(
                "retire material {material}: {indexed} bucket keys by the index, {found} by the \
                 verifying scan and up to {ciphertexts} API ciphertexts are under it"
            );
            let advice = if indexed > 0 || found > 0 {
                "let a rewrap job complete first"
            } else {
                "ReEncrypt what was encrypted through the API, or give force"
            };
            return Err(Error::new(ErrorKind::Conflict, what).with_advice(advice));
        }
        let (kms, purpose) = (Arc::clone(&inner.kms), purpose.clone());
        blocking(move || Ok(kms.retire_material(&purpose, key, material)?)).await
    }
}

impl Inner {
    /// Waits until every wrap under an older material is on the disk, or will never be.
    pub(super) async fn fence(&self, ns: &TenantNs, key: TenantKeyId) -> Result<()> {
        let (kms, tenant) = (Arc::clone(&self.kms), ns.tenant());
        blocking(move || Ok(kms.wait_for_wraps(tenant, key)?)).await?;
        self.barrier().await
    }

    /// Waits for the commits in the queue: one whose caller left is carried out all the same.
    pub(super) async fn barrier(&self) -> Result<()> {
        self.committer.commit(Draft::default()).await
    }

    pub(super) async fn impact(&self, tenant: TenantId, key: TenantKeyId) -> Result<KeyImpact> {
        let ns = self.tenants.namespace(tenant)?;
        let api_ciphertexts = self.kms.api_ciphertexts(tenant, key)?;
        let counts = self.count(&ns, key).await?;
        let buckets = super::objects::buckets(&ns).await?;
        let is_default = self.kms.describe(tenant, key)?.is_default;
        let alias = |name: &str| self.kms.entry_value(tenant, &[b"a/", name.as_bytes()].concat());
        let default_of = buckets.iter().filter(|bucket| {
            names_key(bucket, |name| match name.strip_prefix("alias/") {
                _ if name.is_empty() => is_default,
                Some(short) => {
                    let named = alias(name).or_else(|| alias(short));
                    named.is_some_and(|id| *id == key.as_bytes()[..])
                }
                None => kluis_kms::parse_id(&name.replace('-', ""))
                    .is_ok_and(|id| id == *key.as_bytes()),
            })
        });
        let default_of = default_of.map(|bucket| bucket.name.as_str().to_owned()).collect();
        Ok(KeyImpact {
            tenant_key: key,
            bucket_keys: counts.bucket_keys.into_iter().collect(),
            buckets: counts.buckets,
            objects: counts.objects,
            bytes: counts.bytes,
            open_uploads: counts.open_uploads,
            default_of,
            api_ciphertexts,
            damaged: counts.damaged,
            counted_ms: self.env.clock.now_ms(),
        })
    }

    /// Counts the rows under a key. Remembers the epochs of one bucket at a time.
    pub(super) async fn count(&self, ns: &TenantNs, key: TenantKeyId) -> Result<Counts> {
        let mut counts = Counts::default();
        let mut current: Option<(BucketId, BTreeSet<u32>)> = None;
        let mut pages = BucketKeyPages::new(ns);
        while let Some(page) = pages.next().await? {
            self.jobs.check_open()?;
            counts.damaged += page.damaged;
            for (name, _, row) in page.rows {
                if current.as_ref().is_some_and(|(bucket, _)| *bucket != name.bucket)
                    && let Some((bucket, epochs)) = current.take()
                {
                    self.count_bucket(ns, bucket, &epochs, &mut counts).await?;
                }
                if row.tenant_key != key {
                    continue;
                }
                if let Some(material) = row.material() {
                    *counts.bucket_keys.entry(material).or_default() += 1;
                }
                if name.purpose == BucketKeyPurpose::Data {
                    let (_, epochs) = current.get_or_insert_with(|| (name.bucket, BTreeSet::new()));
                    epochs.insert(name.epoch);
                }
            }
        }
        if let Some((bucket, epochs)) = current {
            self.count_bucket(ns, bucket, &epochs, &mut counts).await?;
        }
        Ok(counts)
    }

    /// Counts the objects and open uploads of a bucket that are under some of its epochs.
    async fn count_bucket(
        &self,
        ns: &TenantNs,
        bucket: BucketId,
        epochs: &BTreeSet<u32>,
        counts: &mut Counts,
    ) -> Result<()> {
        let before = (counts.objects, counts.open_uploads);
        let mut from = Some(Vec::new());
        while let Some(start) = from.take() {
            self.jobs.check_open()?;
            let page = page(ns, Table::Objects, bucket.as_bytes(), &start, PAGE_ROWS).await?;
            for (_, value) in &page.rows {
                match ObjectRow::decode(value) {
                    Ok(row) if epochs.contains(&row.wrapped.wrapping_version()) => {
                        counts.objects += 1;
                        counts.bytes += row.size;
                    }
                    Ok(_) => {}
                    Err(_) => counts.damaged += 1,
                }
            }
            from = page.next;
        }
        let uploads = [bucket.as_bytes().as_slice(), b"u"].concat();
        let mut from = Some(Vec::new());
        while let Some(start) = from.take() {
            let page = page(ns, Table::Multipart, &uploads, &start, PAGE_ROWS).await?;
            for (_, value) in &page.rows {
                match UploadRow::decode(value) {
                    Ok(row) => {
                        let is_under = epochs.contains(&row.wrapped.wrapping_version());
                        counts.open_uploads += u64::from(is_under);
                    }
                    Err(_) => counts.damaged += 1,
                }
            }
            from = page.next;
        }
        counts.buckets += u64::from(before != (counts.objects, counts.open_uploads));
        Ok(())
    }
}

/// Whether a bucket's own settings name a key that `is_it`: an id or alias, without the front part
/// of an ARN; empty for the tenant's default.
fn names_key(bucket: &BucketInfo, is_it: impl Fn(&str) -> bool) -> bool {
    let Some(default) = &bucket.encryption.default else { return false };
    if default.mode != SseMode::Kms {
        return is_it("");
    }
    let name = default.tenant_key.as_str();
    let name = name.rsplit_once(":key/").map_or(name, |(_, id)| id);
    is_it(name.find(":alias/").and_then(|at| name.get(at + 1..)).unwrap_or(name))
}

/// Index rows under a material. One that stands for nothing counts until a rewrap job deletes it.
async fn index_count(ns: &TenantNs, key: TenantKeyId, material: u32) -> Result<u64> {
    let prefix = material_prefix(key, material);
    let (mut from, mut count) = (Some(Vec::new()), 0);
    while let Some(start) = from.take() {
        let page = page(ns, Table::KeyIndex, &prefix, &start, PAGE_ROWS).await?;
        count += page.rows.len() as u64;
        from = page.next;
    }
    Ok(count)
}
